"""Classification metrics as `evaluate.Metric` subclasses that work offline, and the summary every report uses.

Conventions: `references` are class ids (windows,), `predictions` are class ids (windows,) or, for AUROC, class
probabilities (windows, classes). Every score is a fraction between 0 and 1 (kappa between -1 and 1), not a percentage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, roc_auc_score

from trainers.errors import EvaluationError

HEADLINE_METRICS = ("accuracy", "accuracy_macro", "f1_macro", "auroc_macro", "cohen_kappa")

_CLASS_IDS = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}


class OfflineMetric(evaluate.Metric):
    """Keeps its data in memory: nothing is written to the metric cache and nothing is looked up on the Hub."""

    FEATURES: dict[str, Any] = _CLASS_IDS

    def __init__(self, **kwargs: Any):
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description=type(self).__doc__ or "",
            features=datasets.Features(type(self).FEATURES),
        )


class Accuracy(OfflineMetric):
    """`accuracy`: correct windows / windows (micro). `accuracy_macro`: mean recall over the classes in `references`."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        # A prediction outside the classes present is simply wrong; scikit-learn would warn about it.
        recalls = [np.mean(predictions[references == label] == label) for label in np.unique(references)]
        return {"accuracy": float(np.mean(predictions == references)), "accuracy_macro": float(np.mean(recalls))}


class F1Macro(OfflineMetric):
    """`f1_macro`: unweighted mean of the F1 scores of the classes that occur in `references` or `predictions`."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"f1_macro": float(f1_score(references, predictions, average="macro", zero_division=0.0))}


class CohenKappa(OfflineMetric):
    """`cohen_kappa`: agreement beyond chance; 1.0 by convention when both sides hold one and the same class."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        if np.unique(np.concatenate([predictions, references])).size == 1:
            return {"cohen_kappa": 1.0}
        return {"cohen_kappa": float(cohen_kappa_score(references, predictions))}


class AurocMacro(OfflineMetric):
    """`auroc_macro`: mean over classes of the one-vs-rest area under the ROC curve.

    `predictions` are probabilities (windows, classes). A class without positives or without negatives in `references`
    has no curve: it is left out of the mean and listed in `auroc_undefined_classes`; the score is None if none is left.
    """

    FEATURES = {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}

    def _compute(self, predictions: Sequence[Sequence[float]], references: Sequence[int]) -> dict[str, Any]:
        probabilities, references = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        areas, undefined = [], []
        for label in range(probabilities.shape[1]):
            positive = references == label
            if positive.any() and not positive.all():
                areas.append(roc_auc_score(positive, probabilities[:, label]))
            else:
                undefined.append(label)
        return {"auroc_macro": float(np.mean(areas)) if areas else None, "auroc_undefined_classes": undefined}


def softmax(logits: np.ndarray) -> np.ndarray:
    """(windows, classes) logits -> probabilities of the same shape, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def per_subject_accuracy(predictions: np.ndarray, labels: np.ndarray, subjects: Sequence[str]) -> list[dict[str, Any]]:
    """One row per subject, sorted by name: `{"subject", "windows", "accuracy", "f1_macro"}`."""
    subjects = np.asarray(subjects).astype(str)
    rows = []
    for subject in sorted(set(subjects.tolist())):
        mine = subjects == subject
        windows = {"predictions": predictions[mine], "references": labels[mine]}
        rows.append(
            {
                "subject": subject,
                "windows": int(mine.sum()),
                "accuracy": Accuracy().compute(**windows)["accuracy"],
                "f1_macro": F1Macro().compute(**windows)["f1_macro"],
            }
        )
    return rows


def classification_metrics(
    scores: np.ndarray, labels: np.ndarray, subjects: Sequence[str] | None = None, *, probabilities: bool = False
) -> dict[str, Any]:
    """All classification scores of one evaluation.

    Args:
        scores: (windows, classes) logits, or probabilities if `probabilities` is set.
        labels: (windows,) class ids in [0, classes).
        subjects: (windows,) names; adds `per_subject`, and the mean and std over subjects of the accuracy.

    Returns:
        The `HEADLINE_METRICS`, `auroc_undefined_classes`, `confusion_matrix` (rows: truth) and `windows`; plain types.

    Raises:
        EvaluationError: no windows, a shape mismatch, labels outside the classes, or scores that are not finite.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _check_scores(scores, labels)
    confidence = scores if probabilities else softmax(scores)
    predictions = confidence.argmax(axis=-1)
    result: dict[str, Any] = {"windows": len(labels)}
    for metric in (Accuracy(), F1Macro(), CohenKappa()):
        result |= metric.compute(predictions=predictions, references=labels)
    result |= AurocMacro().compute(predictions=confidence, references=labels)
    result["confusion_matrix"] = confusion_matrix(labels, predictions, labels=range(scores.shape[1])).tolist()
    if subjects is not None:
        rows = per_subject_accuracy(predictions, labels, subjects)
        by_subject = np.array([row["accuracy"] for row in rows])
        result["per_subject"] = rows
        result["subject_accuracy_mean"] = float(by_subject.mean())
        result["subject_accuracy_std"] = float(by_subject.std(ddof=1)) if len(rows) > 1 else 0.0
    return result


def _check_scores(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.ndim != 2 or len(scores) != len(labels) or len(labels) == 0:
        raise EvaluationError(
            f"scores must be (windows, classes) with one label per window and at least one window, "
            f"got scores {scores.shape} and labels {labels.shape}"
        )
    if not np.isfinite(scores).all():
        raise EvaluationError("scores are not finite: the model diverged; lower learning_rate or max_grad_norm")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise EvaluationError(
            f"labels range from {labels.min()} to {labels.max()}, outside the {scores.shape[1]} classes of the scores"
        )
