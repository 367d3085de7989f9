"""Time-domain features against their definitions, and classifiers that learn what is there to learn."""

import numpy as np
import pytest

from dataset_builders.torch_view import WindowDataset
from trainers import baselines
from trainers.baselines import FEATURE_NAMES, features_and_labels, run_baselines, time_domain_features
from trainers.errors import EvaluationError


def test_features_by_hand():
    windows = np.array([[[1, -1, 1, 0, -1.0], [2, 2, 2, 2, 2]]])
    features = dict(zip(FEATURE_NAMES, time_domain_features(windows).reshape(6, 2), strict=True))
    assert np.allclose(features["mean_absolute_value"], [4 / 5, 2])
    assert np.allclose(features["root_mean_square"], [np.sqrt(4 / 5), 2])
    assert np.allclose(features["waveform_length"], [(2 + 2 + 1 + 1) / 4, 0])
    assert np.allclose(features["zero_crossings"], [2 / 4, 0])  # through 0 to -1 is no crossing
    assert np.allclose(features["slope_sign_changes"], [2 / 3, 0])
    assert np.allclose(features["log_variance"], [np.log(4 / 5), np.log(1e-12)])


def test_windows_that_have_no_features():
    with pytest.raises(EvaluationError, match="at least 3 samples"):
        time_domain_features(np.zeros((5, 4, 2)))


def test_features_do_not_depend_on_the_pieces_they_are_read_in(tiny_corpus, monkeypatch):
    view = WindowDataset(tiny_corpus[0]["train"])
    whole = features_and_labels(view)
    monkeypatch.setattr(baselines, "_CHUNK", 7)
    assert all(np.array_equal(a, b) for a, b in zip(whole, features_and_labels(view), strict=True))
    assert np.array_equal(whole[1], view.arrays()[1])


def test_baselines_learn_and_are_reproducible(tiny_corpus, monkeypatch):
    monkeypatch.setattr(baselines, "RANDOM_FOREST_TREES", 20)
    data = tiny_corpus[0]
    arguments = (WindowDataset(data["train"]), WindowDataset(data["test"]), 4, list(data["test"]["subject"]))
    results = run_baselines(*arguments, n_jobs=1)
    assert set(results) == {"LDA", "Random forest"}
    for scores in results.values():
        assert scores["accuracy"] > 0.9
        assert scores["auroc_undefined_classes"] == [3]  # a fourth class that no window has
        assert [row["subject"] for row in scores["per_subject"]] == ["d", "e"]
        assert {"feature_seconds", "fit_seconds", "predict_seconds"} <= scores.keys()
    again = run_baselines(*arguments, n_jobs=1)
    assert again["Random forest"]["confusion_matrix"] == results["Random forest"]["confusion_matrix"]


def test_a_single_class_is_refused(tiny_corpus):
    data = tiny_corpus[0]["train"]
    one = WindowDataset(data.select(range(0, len(data), 3)))
    with pytest.raises(EvaluationError, match="fewer than two classes"):
        run_baselines(one, one, 3)
