"""Regression metrics as `evaluate.Metric` subclasses that work offline, and the summary every report uses.

Conventions: `predictions` and `references` are (windows, frames, outputs) in the unit of the targets (degrees for joint
angles), and so are MAE and RMSE. Every score is computed for each output over all frames of all windows, and the mean
over the outputs is the headline; R2 of a window alone, where a joint may not move at all, is never formed.

Frames are counted as often as windows hold them: with a stride below the window length, a frame in the middle of a
recording counts in each window that covers it, seen at another place there. That is the score of a window taken at
random; it is not that of a stitched recording, where predictions of overlapping windows are averaged and errors are
smaller.

The published figures on Ninapro DB8 ("TinyMyo", Table 8: MAE 8.77, RMSE 13.35, R2 0.62 fine-tuned on 1000 samples) are
over windows without overlap, so that every frame counts once, as it does here with the same windows. The paper does not
say how RMSE and R2 are joined over the five outputs; here it is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from trainers.errors import EvaluationError
from trainers.metrics import OfflineMetric

REGRESSION_METRICS = ("mae", "rmse", "r2")
_CHUNK_VALUES = 4_000_000  # converted to float64 at a time: a hundred MB, however large the split


@dataclass(frozen=True)
class WindowSums:
    """What the scores of any group of windows follow from; every array is float64 (windows, outputs).

    Attributes:
        frames: in each window.
        absolute, squared: sums of |error| and error^2 over the frames.
        mean, deviation: mean of the targets, and sum of their squared deviations from it, so that the variance of a
            group is exact however far its mean is from zero.
        lowest, highest: of the targets.
    """

    frames: int
    absolute: np.ndarray
    squared: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    def scores(self, group: np.ndarray | slice = slice(None)) -> dict[str, list[float | None]]:
        """`REGRESSION_METRICS` of each output over the windows of `group`, a mask or a slice.

        R2 of an output whose targets are all equal is undefined: None.
        """
        windows = len(self.mean[group])
        mae = self.absolute[group].sum(axis=0) / (windows * self.frames)
        squared = self.squared[group].sum(axis=0)
        means = self.mean[group]
        total = self.deviation[group].sum(axis=0) + self.frames * np.square(means - means.mean(axis=0)).sum(axis=0)
        constant = self.lowest[group].min(axis=0) == self.highest[group].max(axis=0)
        unexplained = np.divide(squared, total, out=np.zeros_like(total), where=~constant)
        return {
            "mae": mae.tolist(),
            "rmse": np.sqrt(squared / (windows * self.frames)).tolist(),
            "r2": [None if flat else 1.0 - share for flat, share in zip(constant, unexplained.tolist(), strict=True)],
        }


def window_sums(predictions: np.ndarray, targets: np.ndarray) -> WindowSums:
    """Sums over the frames of each window, in float64 whatever the type of the arrays (windows, frames, outputs).

    Raises:
        EvaluationError: other or different shapes, no windows, or values that are not finite.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if targets.ndim != 3 or predictions.shape != targets.shape or targets.size == 0:
        raise EvaluationError(
            "predictions and targets must both be (windows, frames, outputs) with at least one window, got "
            f"predictions {predictions.shape} and targets {targets.shape}"
        )
    windows, frames, outputs = targets.shape
    columns = {name: np.empty((windows, outputs)) for name in WindowSums.__dataclass_fields__ if name != "frames"}
    step = max(1, _CHUNK_VALUES // (frames * outputs))
    for start in range(0, windows, step):
        part = slice(start, start + step)
        truth = targets[part].astype(np.float64)
        error = predictions[part].astype(np.float64) - truth
        if not np.isfinite(error).all():
            _raise_not_finite(truth, start)
        columns["absolute"][part] = np.abs(error).sum(axis=1)
        columns["squared"][part] = np.square(error).sum(axis=1)
        columns["mean"][part] = truth.mean(axis=1)
        columns["deviation"][part] = np.square(truth - truth.mean(axis=1, keepdims=True)).sum(axis=1)
        columns["lowest"][part], columns["highest"][part] = truth.min(axis=1), truth.max(axis=1)
    return WindowSums(frames, **columns)


def _raise_not_finite(targets: np.ndarray, first: int) -> None:
    wrong = np.flatnonzero(~np.isfinite(targets).all(axis=(1, 2)))
    if wrong.size:
        raise EvaluationError(f"targets of window {first + wrong[0]} are not finite: correct or remove its recording")
    raise EvaluationError("predictions are not finite: the model diverged; lower learning_rate or max_grad_norm")


def mean_score(scores: Sequence[float | None]) -> float | None:
    """Mean over the outputs for which the score is defined; None if it is for none."""
    defined = [score for score in scores if score is not None]
    return float(np.mean(defined)) if defined else None


class _TrajectoryMetric(OfflineMetric):
    """Takes `predictions` and `references` (windows, frames, outputs)."""

    FEATURES = dict.fromkeys(("predictions", "references"), datasets.List(datasets.List(datasets.Value("float64"))))
    SCORE = ""

    def _compute(self, predictions: Sequence, references: Sequence) -> dict[str, Any]:
        per_output = window_sums(np.asarray(predictions), np.asarray(references)).scores()[self.SCORE]
        return {self.SCORE: mean_score(per_output), f"{self.SCORE}_per_output": per_output}


class MeanAbsoluteError(_TrajectoryMetric):
    """`mae`: mean over the outputs of `mae_per_output`, each the mean of |prediction - target| over all frames."""

    SCORE = "mae"


class RootMeanSquaredError(_TrajectoryMetric):
    """`rmse`: mean over the outputs of `rmse_per_output`, each the root of the mean squared error over all frames."""

    SCORE = "rmse"


class R2Score(_TrajectoryMetric):
    """`r2`: mean over the outputs of `r2_per_output`, each 1 - squared error / squared deviation of the targets from
    their mean, both over all frames. Undefined (None) where the targets never change; the mean leaves those out."""

    SCORE = "r2"


def regression_metrics(
    predictions: np.ndarray,
    targets: np.ndarray,
    subjects: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """All regression scores of one evaluation.

    Args:
        predictions, targets: (windows, frames, outputs), in the unit of the targets.
        subjects: (windows,) names; adds `per_subject`, and the mean and std over subjects of the MAE.
        names: of the outputs; by default "output 1", ...

    Returns:
        Plain types: `mae`, `rmse`, `r2` (means over the outputs; `r2` over those where it is defined, None if there is
        none), `per_output` and `per_subject` rows with the same three, `windows` and `frames` (in all windows). In a
        row of a subject, R2 is relative to the mean of that subject's own targets.

    Raises:
        EvaluationError: no windows, shapes or names that do not fit, or values that are not finite.
    """
    sums = window_sums(predictions, targets)
    windows, outputs = sums.mean.shape
    names = [f"output {i + 1}" for i in range(outputs)] if names is None else list(names)
    if len(names) != outputs:
        raise EvaluationError(f"{len(names)} names ({', '.join(names)}) for {outputs} outputs: give one for each")
    scores = sums.scores()
    result: dict[str, Any] = {"windows": windows, "frames": windows * sums.frames}
    result |= {score: mean_score(scores[score]) for score in REGRESSION_METRICS}
    result["per_output"] = [
        {"output": name, **{score: scores[score][i] for score in REGRESSION_METRICS}} for i, name in enumerate(names)
    ]
    if subjects is not None:
        rows = _per_subject(sums, np.asarray(subjects).astype(str))
        by_subject = np.array([row["mae"] for row in rows])
        result["per_subject"] = rows
        result["subject_mae_mean"] = float(by_subject.mean())
        result["subject_mae_std"] = float(by_subject.std(ddof=1)) if len(rows) > 1 else 0.0
    return result


def _per_subject(sums: WindowSums, subjects: np.ndarray) -> list[dict[str, Any]]:
    if subjects.shape != (len(sums.mean),):
        raise EvaluationError(f"{len(subjects)} subjects for {len(sums.mean)} windows: give one for each window")
    rows = []
    for subject in sorted(set(subjects.tolist())):
        mine = subjects == subject
        scores = {name: mean_score(values) for name, values in sums.scores(mine).items()}
        rows.append({"subject": subject, "windows": int(mine.sum()), **scores})
    return rows
