"""Scoring a checkpoint on a corpus: the same figures as its own run, and no comparison of unlike things."""

import datasets
import numpy as np
import pytest
from tiny_run import make_split

import trainers.evaluate as evaluate
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.checkpoint_fit import match_labels
from trainers.errors import CheckpointError, EvaluationError
from trainers.evaluate import evaluate_checkpoint


@pytest.fixture
def checkpoint(train_tiny, tmp_path):
    train_tiny(num_train_epochs=2)
    return str(tmp_path / "run")


@pytest.fixture
def corpus(tiny_corpus, monkeypatch):
    """Sets what `load_corpus` returns; by default the tiny corpus."""

    def use(data=tiny_corpus[0], extractor=tiny_corpus[1]):
        monkeypatch.setattr(evaluate, "load_corpus", lambda *args, **kwargs: (data, extractor))

    use()
    return use


def test_figures_of_the_training_run_are_found_again(checkpoint, corpus, train_tiny, tmp_path):
    trained = train_tiny(num_train_epochs=2)["runs"][0]["test"]
    results = evaluate_checkpoint(checkpoint, "tiny", tmp_path / "evaluation")
    found = results["runs"][0]["test"]
    assert found["confusion_matrix"] == trained["confusion_matrix"]
    assert found["per_subject"] == trained["per_subject"]
    assert found["auroc_macro"] == pytest.approx(trained["auroc_macro"], abs=1e-6)
    assert set(results["baselines"]) == {"LDA", "Random forest"}
    report = (tmp_path / "evaluation/report.md").read_text()
    assert "| LDA |" in report and "| d | 30 |" in report
    names = {"report.md", "results.json", "confusion_matrix.png", "per_subject.png"}
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == names


def test_another_order_of_the_labels_gives_the_same_scores(checkpoint, corpus, tiny_corpus, tmp_path):
    before = evaluate_checkpoint(checkpoint, "tiny", tmp_path / "a", baselines=False)
    order = ["open", "rest", "fist"]
    old = tiny_corpus[0]["test"].features["label"].names
    columns = tiny_corpus[0]["test"].to_dict()
    columns["label"] = [order.index(old[label]) for label in columns["label"]]
    features = tiny_corpus[0]["test"].features.copy()
    features["label"] = datasets.ClassLabel(names=order)
    corpus(datasets.DatasetDict(test=datasets.Dataset.from_dict(columns, features=features)))
    after = evaluate_checkpoint(checkpoint, "tiny", tmp_path / "b")
    assert after["test"] == before["test"]
    move = [old.index(name) for name in order]
    assert np.array_equal(
        after["runs"][0]["test"]["confusion_matrix"],
        np.array(before["runs"][0]["test"]["confusion_matrix"])[np.ix_(move, move)],
    )


def test_unlike_things_are_not_compared(checkpoint, corpus, tiny_corpus, tmp_path):
    def refused(error, message, **arguments):
        with pytest.raises(error, match=message):
            evaluate_checkpoint(checkpoint, "tiny", tmp_path / "evaluation", **arguments)

    corpus(datasets.DatasetDict(train=tiny_corpus[0]["train"]))
    refused(EvaluationError, "no windows in a split 'test'; it has train")
    filtered = TinyMyoFeatureExtractor(**tiny_corpus[1].to_dict() | {"band_pass": [25.0, 90.0]})
    corpus(extractor=filtered)
    refused(CheckpointError, r"trained with band_pass=\[20.0, 90.0\], but the windows of tiny have band_pass=\[25.0")
    corpus(datasets.DatasetDict(test=make_split(6, 0, ("d",), channels=5)))
    refused(CheckpointError, "takes 4 channels, tiny has 5")
    assert not (tmp_path / "evaluation").exists()


def test_labels_are_matched_by_name():
    assert match_labels("m", {0: "a", 1: "b"}, ["b", "a"]) == [1, 0]
    for names in (["a"], ["a", "c"], ["a", "b", "c"]):
        with pytest.raises(CheckpointError, match="was trained on the labels a, b"):
            match_labels("m", {0: "a", 1: "b"}, names)
