"""Metrics against hand-worked cases and scikit-learn; classes without windows; work without the Hub."""

import numpy as np
import pytest
from sklearn import metrics as sk

from trainers.errors import EvaluationError
from trainers.metrics import Accuracy, AurocMacro, CohenKappa, F1Macro, classification_metrics, softmax


def test_scores_by_hand():
    predictions, references = [0, 0, 1, 1, 2, 0], [0, 0, 0, 1, 1, 1]
    assert Accuracy().compute(predictions=predictions, references=references) == {
        "accuracy": pytest.approx(3 / 6),
        "accuracy_macro": pytest.approx((2 / 3 + 1 / 3) / 2),  # class 2 is not in the references
    }
    # F1: class 0: p 2/3 r 2/3; class 1: p 1/2 r 1/3; class 2: predicted, never true
    expected = (2 / 3 + 2 * (1 / 2 * 1 / 3) / (1 / 2 + 1 / 3) + 0) / 3
    assert F1Macro().compute(predictions=predictions, references=references)["f1_macro"] == pytest.approx(expected)
    # agreement by chance: (3*3 + 2*3 + 1*0) / 36
    chance = 15 / 36
    kappa = CohenKappa().compute(predictions=predictions, references=references)["cohen_kappa"]
    assert kappa == pytest.approx((3 / 6 - chance) / (1 - chance))


def test_one_class_everywhere_is_full_agreement():
    assert CohenKappa().compute(predictions=[1, 1], references=[1, 1]) == {"cohen_kappa": 1.0}


def test_auroc_leaves_out_and_names_classes_without_windows():
    rng = np.random.default_rng(0)
    references = rng.integers(0, 3, 50)
    probabilities = softmax(rng.normal(size=(50, 4)))
    result = AurocMacro().compute(predictions=probabilities, references=references)
    expected = np.mean([sk.roc_auc_score(references == k, probabilities[:, k]) for k in range(3)])
    assert result == {"auroc_macro": pytest.approx(expected), "auroc_undefined_classes": [3]}
    alone = AurocMacro().compute(predictions=probabilities[:2], references=[1, 1])
    assert alone == {"auroc_macro": None, "auroc_undefined_classes": [0, 1, 2, 3]}


def test_all_scores_of_an_evaluation():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 4))
    logits[np.arange(200), labels] += 1.0
    subjects = np.array(["9", "10"])[np.arange(200) % 2]
    scores = classification_metrics(logits, labels, subjects)
    predictions = logits.argmax(1)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert scores["accuracy_macro"] == pytest.approx(sk.balanced_accuracy_score(labels, predictions))
    assert scores["f1_macro"] == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    assert scores["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predictions))
    expected = sk.roc_auc_score(labels, softmax(logits), multi_class="ovr", average="macro")
    assert scores["auroc_macro"] == pytest.approx(expected)
    assert np.array_equal(scores["confusion_matrix"], sk.confusion_matrix(labels, predictions))
    by_subject = {row["subject"]: row for row in scores["per_subject"]}
    assert by_subject["9"]["windows"] == 100
    assert by_subject["9"]["accuracy"] == pytest.approx(np.mean((predictions == labels)[::2]))
    assert scores["subject_accuracy_mean"] == pytest.approx(scores["accuracy"])  # as many windows each
    assert scores == classification_metrics(softmax(logits), labels, subjects, probabilities=True)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((3, 2)), [0, 1], "one label per window"),
        (np.zeros((0, 2)), [], "at least one window"),
        (np.full((2, 2), np.nan), [0, 1], "not finite"),
        (np.zeros((2, 2)), [0, 2], "outside the 2 classes"),
    ],
)
def test_what_cannot_be_scored(scores, labels, message):
    with pytest.raises(EvaluationError, match=message):
        classification_metrics(scores, np.array(labels))
