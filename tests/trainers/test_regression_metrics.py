"""Regression metrics against hand-worked cases and scikit-learn; outputs that never move; work without the Hub."""

import numpy as np
import pytest
from sklearn import metrics as sk

import trainers.regression_metrics as regression_metrics_module
from trainers.errors import EvaluationError
from trainers.regression_metrics import (
    MeanAbsoluteError,
    R2Score,
    RootMeanSquaredError,
    regression_metrics,
)


def test_scores_by_hand():
    # two windows of two frames; the second output never moves
    targets = np.array([[[0.0, 5.0], [2.0, 5.0]], [[4.0, 5.0], [6.0, 5.0]]])
    predictions = np.array([[[1.0, 5.0], [2.0, 7.0]], [[4.0, 5.0], [3.0, 5.0]]])
    windows = {"predictions": predictions, "references": targets}
    # errors of the first output: 1, 0, 0, -3; deviations of its targets from 3: 9 + 1 + 1 + 9
    assert MeanAbsoluteError().compute(**windows) == {
        "mae": pytest.approx((4 / 4 + 2 / 4) / 2),
        "mae_per_output": pytest.approx([4 / 4, 2 / 4]),
    }
    assert RootMeanSquaredError().compute(**windows) == {
        "rmse": pytest.approx((np.sqrt(10 / 4) + np.sqrt(4 / 4)) / 2),
        "rmse_per_output": pytest.approx([np.sqrt(10 / 4), 1.0]),
    }
    assert R2Score().compute(**windows) == {
        "r2": pytest.approx(1 - 10 / 20),
        "r2_per_output": [pytest.approx(0.5), None],
    }


def test_all_scores_of_an_evaluation(monkeypatch):
    rng = np.random.default_rng(0)
    targets = (rng.normal(size=(30, 7, 3)) * [1, 10, 100] + [0, 50, -1000]).astype(np.float32)
    predictions = targets + rng.normal(size=targets.shape).astype(np.float32) * [1, 3, 30]
    subjects = ["9"] * 10 + ["10"] * 20
    scores = regression_metrics(predictions, targets, subjects, names=["thumb", "index", "ring"])
    y, p = targets.astype(np.float64).reshape(-1, 3), predictions.reshape(-1, 3)
    expected = {
        "mae": sk.mean_absolute_error(y, p, multioutput="raw_values"),
        "rmse": sk.root_mean_squared_error(y, p, multioutput="raw_values"),
        "r2": sk.r2_score(y, p, multioutput="raw_values"),
    }
    for name, values in expected.items():
        assert scores[name] == pytest.approx(values.mean(), rel=1e-9)
        assert [row[name] for row in scores["per_output"]] == pytest.approx(values, rel=1e-9)
    assert [row["output"] for row in scores["per_output"]] == ["thumb", "index", "ring"]
    assert (scores["windows"], scores["frames"]) == (30, 210)

    row = next(row for row in scores["per_subject"] if row["subject"] == "10")
    assert row["windows"] == 20
    assert row["mae"] == pytest.approx(sk.mean_absolute_error(y[70:], p[70:]))
    assert row["r2"] == pytest.approx(sk.r2_score(y[70:], p[70:]))
    by_subject = [row["mae"] for row in scores["per_subject"]]
    assert scores["subject_mae_mean"] == pytest.approx(np.mean(by_subject))
    assert scores["subject_mae_std"] == pytest.approx(np.std(by_subject, ddof=1))

    monkeypatch.setattr(regression_metrics_module, "_CHUNK_VALUES", 50)  # two windows at a time
    assert regression_metrics(predictions, targets, subjects, names=["thumb", "index", "ring"]) == scores


def test_targets_far_from_zero_and_of_single_precision():
    """The variance must not drown in the mean: squares of 1e7 leave nothing of 1e-2 in float32, little in float64."""
    targets = (1e7 + np.arange(8).reshape(2, 4, 1)).astype(np.float32)
    assert regression_metrics(targets + 1, targets)["r2"] == pytest.approx(1 - 8 / 42)


def test_outputs_that_never_move_have_no_r2():
    targets = np.full((3, 5, 2), 0.1)
    scores = regression_metrics(targets + 0.5, targets, ["a", "a", "b"])
    assert scores["r2"] is None and scores["mae"] == pytest.approx(0.5)
    assert [row["r2"] for row in scores["per_output"] + scores["per_subject"]] == [None] * 4
    targets[2, :, 0] = 0.2  # one that moves between windows only
    scores = regression_metrics(targets, targets, ["a", "a", "b"])
    assert scores["r2"] == 1.0 and [row["r2"] for row in scores["per_subject"]] == [None, None]


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        (np.zeros((3, 4)), np.zeros((3, 4)), "windows, frames, outputs"),
        (np.zeros((3, 4, 1)), np.zeros((3, 5, 1)), r"predictions \(3, 4, 1\) and targets \(3, 5, 1\)"),
        (np.zeros((0, 4, 1)), np.zeros((0, 4, 1)), "at least one window"),
        (np.full((2, 2, 2), np.nan), np.zeros((2, 2, 2)), "the model diverged"),
        (np.zeros((2, 2, 2)), np.stack([np.zeros((2, 2)), np.full((2, 2), np.inf)]), "targets of window 1 are not"),
    ],
)
def test_what_cannot_be_scored(predictions, targets, message):
    with pytest.raises(EvaluationError, match=message):
        regression_metrics(predictions, targets)
    values = np.zeros((2, 3, 2))
    with pytest.raises(EvaluationError, match="1 names .* for 2 outputs"):
        regression_metrics(values, values, names=["thumb"])
    with pytest.raises(EvaluationError, match="3 subjects for 2 windows"):
        regression_metrics(values, values, subjects=["a", "b", "c"])
