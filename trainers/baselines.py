"""Two classical baselines on time-domain features: what a user would pick without a neural network.

The features are Hudgins' set (Hudgins, Parker & Scott 1993) with RMS and log variance, computed per channel on the same
windows the network sees. Both classifiers are fitted on the same training split and scored with the same metrics.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dataset_builders.torch_view import WindowDataset
from trainers.errors import EvaluationError
from trainers.metrics import classification_metrics

FEATURE_NAMES = (
    "mean_absolute_value",
    "root_mean_square",
    "waveform_length",
    "zero_crossings",
    "slope_sign_changes",
    "log_variance",
)
RANDOM_FOREST_TREES = 300
_CHUNK = 4096  # windows per step: a few hundred MB for 16 channels of 1000 samples, however large the corpus


def time_domain_features(windows: np.ndarray) -> np.ndarray:
    """(windows, channels, time) -> (windows, 6 * channels) float32, feature-major in the order of `FEATURE_NAMES`.

    Waveform length is per sample step, zero crossings and slope-sign changes are fractions of the steps, so windows of
    different lengths are comparable. A zero or a plateau between two signs is no crossing.

    Raises:
        EvaluationError: not three axes, or fewer than three samples.
    """
    x = np.asarray(windows, dtype=np.float32)
    if x.ndim != 3 or x.shape[-1] < 3:
        raise EvaluationError(f"windows must be (windows, channels, time) with at least 3 samples, got {x.shape}")
    slope = np.diff(x, axis=-1)
    per_channel = (
        np.abs(x).mean(axis=-1),
        np.sqrt(np.square(x).mean(axis=-1)),
        np.abs(slope).mean(axis=-1),
        (x[..., 1:] * x[..., :-1] < 0).mean(axis=-1),
        (slope[..., 1:] * slope[..., :-1] < 0).mean(axis=-1),
        np.log(x.var(axis=-1) + 1e-12),
    )
    return np.concatenate(per_channel, axis=-1).astype(np.float32)


def features_and_labels(view: WindowDataset) -> tuple[np.ndarray, np.ndarray]:
    """The features (windows, 6 * channels) and class ids (windows,) of a split, read in pieces."""
    features, labels = [], []
    for start in range(0, len(view), _CHUNK):
        piece = view.hf_dataset.select(range(start, min(start + _CHUNK, len(view))))
        windows, ids = WindowDataset(piece).arrays()
        features.append(time_domain_features(windows))
        labels.append(ids)
    return np.concatenate(features), np.concatenate(labels)


def make_classifiers(seed: int = 0, n_jobs: int | None = None, few_windows: bool = False) -> dict[str, Any]:
    """The baselines by name, unfitted. LDA sees standardised features; trees need no scale.

    Args:
        few_windows: shrink the covariance of LDA (Ledoit & Wolf 2004), as a user with little data would.
    """
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto") if few_windows else LinearDiscriminantAnalysis()
    return {
        "LDA": make_pipeline(StandardScaler(), lda),
        "Random forest": RandomForestClassifier(RANDOM_FOREST_TREES, random_state=seed, n_jobs=n_jobs),
    }


def run_baselines(
    train: WindowDataset,
    test: WindowDataset,
    num_labels: int,
    test_subjects: Sequence[str] | None = None,
    seed: int = 0,
    n_jobs: int | None = -1,
) -> dict[str, dict[str, Any]]:
    """Fit both baselines on `train` and score them on `test`.

    Args:
        train, test: the two splits, labelled.
        num_labels: number of classes of the task. A class that `train` lacks gets probability 0.
        test_subjects: (n,) subject of each test window, for per-subject scores.
        seed: of the random forest.
        n_jobs: processes of the random forest; -1 for all cores.

    Returns:
        Per baseline: `classification_metrics` plus `fit_seconds` and `predict_seconds` (features excluded) and
        `feature_seconds` (shared by both).

    Raises:
        EvaluationError: `train` holds fewer than two classes.
    """
    started = time.perf_counter()
    (train_features, y_train), (test_features, y_test) = features_and_labels(train), features_and_labels(test)
    if len(np.unique(y_train)) < 2:
        raise EvaluationError("the training split holds fewer than two classes: check the labels and the split")
    feature_seconds = time.perf_counter() - started

    results = {}
    for name, classifier in make_classifiers(seed, n_jobs).items():
        started = time.perf_counter()
        classifier.fit(train_features, y_train)
        fitted = time.perf_counter()
        probabilities = np.zeros((len(y_test), num_labels))
        probabilities[:, classifier.classes_] = classifier.predict_proba(test_features)
        results[name] = {
            **classification_metrics(probabilities, y_test, test_subjects, probabilities=True),
            "feature_seconds": round(feature_seconds, 3),
            "fit_seconds": round(fitted - started, 3),
            "predict_seconds": round(time.perf_counter() - fitted, 3),
        }
    return results
