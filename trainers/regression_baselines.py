"""What a user would pick for angles without a neural network: ridge regression on RMS, and a random forest.

Both see what the network sees, a window, and predict what it predicts, the targets of all its frames. The window is cut
into segments, as a rule the patches of the network; the features are the RMS of each channel in each segment, so a
segment is predicted from itself and from everything before and after it in the window (its lags and leads). Targets are
learnt as means over the segments and brought back to frames by linear interpolation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dataset_builders.torch_view import WindowDataset, window_shape
from trainers.regression_metrics import regression_metrics

ALPHAS = tuple(10.0**power for power in range(-1, 6))  # of standardised features
HELD_OUT = 0.2  # share of the training windows on which alpha is chosen
FOREST = {"n_estimators": 100, "min_samples_leaf": 5, "max_features": 1 / 3}
FOREST_WINDOWS = 5000  # that a tree sees at most: the time to fit stays bounded on a large corpus
_CHUNK_VALUES = 30_000_000  # samples read at a time


def num_segments(window_length: int, frames: int, patch_size: int) -> int:
    """The most segments, of whole patches and of whole frames, that a window can be cut into."""
    return math.gcd(window_length // patch_size, frames)


def rms_features(windows: np.ndarray, segments: int) -> np.ndarray:
    """(windows, channels, time) -> float32 (windows, channels * segments): RMS in each of `segments` equal parts."""
    parts = windows.reshape(*windows.shape[:2], segments, -1)
    return np.sqrt(np.square(parts, dtype=np.float32).mean(axis=-1)).reshape(len(windows), -1)


def segment_means(targets: np.ndarray, segments: int) -> np.ndarray:
    """(windows, frames, outputs) -> float32 (windows, segments, outputs)."""
    windows, _, outputs = targets.shape
    return targets.reshape(windows, segments, -1, outputs).mean(axis=2, dtype=np.float64).astype(np.float32)


def to_frames(values: np.ndarray, frames: int) -> np.ndarray:
    """Linear interpolation of (windows, segments, outputs) between the middles of the segments -> (windows, frames,
    outputs) float32; before the first middle and after the last, the value holds."""
    segments = values.shape[1]
    position = np.clip((np.arange(frames) + 0.5) * segments / frames - 0.5, 0, segments - 1)
    low = position.astype(np.int64)
    share = (position - low)[None, :, None].astype(np.float32)
    return (1 - share) * values[:, low] + share * values[:, np.minimum(low + 1, segments - 1)]


def read_pieces(view: WindowDataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows (n, channels, time) and targets (n, frames, outputs) of a split, in pieces that fit into memory."""
    step = max(1, _CHUNK_VALUES // math.prod(view.window_shape))
    for start in range(0, len(view), step):
        yield WindowDataset(view.hf_dataset.select(range(start, min(start + step, len(view))))).arrays()


def held_out_windows(recordings: Sequence[str], share: float = HELD_OUT) -> np.ndarray:
    """Mask (windows,) of about the last `share` of the windows, whole recordings; of a single one, its last windows."""
    recordings = np.asarray(recordings)
    first = round((1 - share) * len(recordings))
    borders = np.flatnonzero(recordings[1:] != recordings[:-1]) + 1
    if borders.size:
        first = borders[np.abs(borders - first).argmin()]
    return np.arange(len(recordings)) >= first


def fit_ridge(features: np.ndarray, means: np.ndarray, recordings: Sequence[str]) -> tuple[Pipeline, float]:
    """Ridge regression with the alpha of `ALPHAS` whose squared error on held-out recordings is smallest.

    Returns:
        The model, fitted on all windows, and alpha.
    """
    flat, held_out = means.reshape(len(means), -1), held_out_windows(recordings)

    def fit(alpha: float, rows: np.ndarray) -> Pipeline:
        return make_pipeline(StandardScaler(), Ridge(alpha)).fit(features[rows], flat[rows])

    errors = [np.square(fit(alpha, ~held_out).predict(features[held_out]) - flat[held_out]).mean() for alpha in ALPHAS]
    alpha = ALPHAS[int(np.argmin(errors))]
    return fit(alpha, np.ones(len(flat), bool)), alpha


def fit_forest(features: np.ndarray, means: np.ndarray, seed: int, n_jobs: int | None) -> RandomForestRegressor:
    """A random forest; each tree sees a bootstrap of at most `FOREST_WINDOWS` windows."""
    most = min(len(features), FOREST_WINDOWS)
    forest = RandomForestRegressor(**FOREST, max_samples=most, random_state=seed, n_jobs=n_jobs)
    return forest.fit(features, means.reshape(len(means), -1))


def run_baselines(
    train: WindowDataset,
    test: WindowDataset,
    patch_size: int,
    names: Sequence[str],
    recordings: Sequence[str],
    test_subjects: Sequence[str] | None = None,
    seed: int = 0,
    n_jobs: int | None = -1,
) -> dict[str, dict[str, Any]]:
    """Fit the baselines on `train` and score them on `test`.

    Args:
        train, test: the two splits, with targets.
        patch_size: samples of a patch of the network.
        names: of the outputs.
        recordings: the recording of each training window.
        test_subjects: (windows,) subject of each test window.
        seed, n_jobs: of the random forest.

    Returns:
        "Mean of training" (a constant), "Ridge on RMS" and "Random forest on RMS", each with `regression_metrics`,
        `fit_seconds` and `predict_seconds` (features excluded); the ridge also with the chosen `alpha`.
    """
    frames, outputs = window_shape(test.hf_dataset.features, "targets")
    segments = num_segments(train.window_shape[1], frames, patch_size)
    pieces = [(rms_features(x, segments), segment_means(y, segments)) for x, y in read_pieces(train)]
    features, means = map(np.concatenate, zip(*pieces, strict=True))
    pieces = [(rms_features(x, segments), y) for x, y in read_pieces(test)]
    test_features, targets = map(np.concatenate, zip(*pieces, strict=True))

    def score(fit: Callable[[], tuple[Callable, dict[str, Any]]]) -> dict[str, Any]:
        started = time.perf_counter()
        predict, found = fit()
        fitted = time.perf_counter()
        values = predict(test_features).reshape(-1, segments, outputs).astype(np.float32)
        done = time.perf_counter()
        return {
            **regression_metrics(to_frames(values, frames), targets, test_subjects, names),
            **found,
            "fit_seconds": round(fitted - started, 3),
            "predict_seconds": round(done - fitted, 3),
        }

    def mean() -> tuple[Callable, dict[str, Any]]:
        constant = np.tile(means.mean(axis=(0, 1), dtype=np.float64), segments)
        return lambda rows: np.broadcast_to(constant, (len(rows), len(constant))), {}

    def ridge() -> tuple[Callable, dict[str, Any]]:
        model, alpha = fit_ridge(features, means, recordings)
        return model.predict, {"alpha": alpha}

    def forest() -> tuple[Callable, dict[str, Any]]:
        return fit_forest(features, means, seed, n_jobs).predict, {}

    fits = {"Mean of training": mean, "Ridge on RMS": ridge, "Random forest on RMS": forest}
    return {name: score(fit) for name, fit in fits.items()}
