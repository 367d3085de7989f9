"""What speech synthesis has to beat: the mean training frame, and ridge regression on features of the EMG.

Features of a frame, of each channel: the signal, cut at about 130 Hz in a slow and a fast part (two moving averages of
9 samples), around the frame: mean of the slow part, logarithm of the power of either, share of zero crossings of the
fast one; together with those of the frames around it ("TD-10" features, Jou et al., 2006). Phones are told by ridge
regression on their indicators. Both learn from speech read aloud only, whose frames have targets of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from trainers.speech_batches import SAMPLES_PER_FRAME

CONTEXT = 10  # frames before and after
HALF_WINDOW = 8  # samples before and after a frame that its features see
ALPHAS = tuple(10.0**power for power in range(-1, 7))  # of standardised features
HELD_OUT = 5  # every fifth training utterance, on which alpha is chosen


@dataclass(frozen=True)
class VoicedUtterance:
    """EMG (channels, 8 * frames) with what was said: targets (frames, bands) and phones (frames,) ids."""

    emg: np.ndarray
    targets: np.ndarray
    phones: np.ndarray


Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""EMG (channels, 8 * frames) -> log-mel spectrum (frames, bands) and phone ids (frames,)."""


def frame_features(emg: np.ndarray) -> np.ndarray:
    """EMG (channels, 8 * frames) -> float32 (frames, 4 * channels), without context."""
    slow = uniform_filter1d(uniform_filter1d(emg, 9, axis=1, mode="nearest"), 9, axis=1, mode="nearest")
    fast = emg - slow
    crossings = np.zeros_like(fast)
    crossings[:, 1:] = (fast[:, 1:] > 0) != (fast[:, :-1] > 0)

    def around(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, ((0, 0), (HALF_WINDOW, HALF_WINDOW)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, SAMPLES_PER_FRAME + 2 * HALF_WINDOW, axis=1)
        return windows[:, ::SAMPLES_PER_FRAME].mean(axis=-1)

    parts = [around(slow), np.log(around(slow**2) + 1e-6), np.log(around(fast**2) + 1e-6), around(crossings)]
    return np.concatenate(parts).T.astype(np.float32)


def with_context(features: np.ndarray, context: int = CONTEXT) -> np.ndarray:
    """(frames, features) -> (frames, (2 context + 1) * features), the ends repeated."""
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * context + 1, axis=0)
    return windows.reshape(len(features), -1)


class RidgeSums:
    """What ridge regression needs to know of training rows, summed up as they come.

    Args:
        features, outputs: per row.
    """

    def __init__(self, features: int, outputs: int):
        self.inputs = 1 + features  # with a constant
        self.count = 0
        self.products = np.zeros((self.inputs + outputs,) * 2)

    def add(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Count in rows (n, features) with their targets (n, outputs)."""
        together = np.concatenate([np.ones((len(rows), 1)), rows, targets], axis=1, dtype=np.float64)
        self.products += together.T @ together
        self.count += len(rows)

    def __add__(self, other: RidgeSums) -> RidgeSums:
        total = RidgeSums(self.inputs - 1, len(self.products) - self.inputs)
        total.products, total.count = self.products + other.products, self.count + other.count
        return total

    def fit(self, alpha: float) -> np.ndarray:
        """Weights (1 + features, outputs), the constant first; `alpha` is for features of unit variance."""
        inputs, mean = self.inputs, self.products[0] / self.count
        covariance = self.products / self.count - np.outer(mean, mean)
        scale = np.sqrt(np.maximum(covariance.diagonal()[1:inputs], 1e-12))
        gram = covariance[1:inputs, 1:inputs] / np.outer(scale, scale)
        gram[np.diag_indices(len(gram))] += alpha / self.count
        weights = np.linalg.solve(gram, covariance[1:inputs, inputs:] / scale[:, None]) / scale[:, None]
        return np.concatenate([(mean[inputs:] - mean[1:inputs] @ weights)[None], weights])

    def errors(self, weights: np.ndarray) -> np.ndarray:
        """Mean squared error of each output: (outputs,)."""
        residual = np.concatenate([-weights, np.eye(weights.shape[1])])
        return ((self.products @ residual) * residual).sum(axis=0) / self.count


def fit_ridge(utterances: Iterable[VoicedUtterance], num_phones: int) -> tuple[Predict, float]:
    """Ridge regression with the alpha of `ALPHAS` whose squared error of spectra on held-out utterances is smallest.

    Returns:
        What predicts, fitted on all utterances, and alpha.
    """
    kept = held_out = None
    for index, utterance in enumerate(utterances):
        bands = utterance.targets.shape[1]
        rows = with_context(frame_features(utterance.emg))
        targets = np.concatenate([utterance.targets, np.eye(num_phones)[utterance.phones]], axis=1)
        if kept is None:
            kept, held_out = (RidgeSums(rows.shape[1], targets.shape[1]) for _ in range(2))
        (kept if index % HELD_OUT else held_out).add(rows, targets)
    choose = [held_out.errors(kept.fit(alpha))[:bands].sum() if kept.count else 0.0 for alpha in ALPHAS]
    alpha = ALPHAS[int(np.argmin(choose))]
    weights = (kept + held_out).fit(alpha)

    def predict(emg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = with_context(frame_features(emg))
        outputs = weights[0] + rows @ weights[1:]
        return outputs[:, :bands].astype(np.float32), outputs[:, bands:].argmax(axis=1)

    return predict, alpha


def fit_mean(utterances: Iterable[VoicedUtterance], num_phones: int) -> Predict:
    """The mean frame and the most frequent phone."""
    total, count, phones = 0.0, 0, np.zeros(num_phones, dtype=np.int64)
    for utterance in utterances:
        total = total + utterance.targets.sum(axis=0, dtype=np.float64)
        count += len(utterance.targets)
        phones += np.bincount(utterance.phones, minlength=num_phones)
    mean, phone = (total / count).astype(np.float32), int(phones.argmax())

    def predict(emg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frames = emg.shape[1] // SAMPLES_PER_FRAME
        return np.tile(mean, (frames, 1)), np.full(frames, phone)

    return predict


def run_synthesis_baselines(
    utterances: Callable[[], Iterable[VoicedUtterance]], num_phones: int, score: Callable[[Predict], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Fit both on the utterances that a call of `utterances` gives, and score them: name -> scores, with
    `fit_seconds`; the ridge also with the chosen `alpha`."""
    results = {}
    for name, fit in (
        ("Mean of training", lambda: (fit_mean(utterances(), num_phones), {})),
        ("Ridge on time-domain features", lambda: _with_alpha(fit_ridge(utterances(), num_phones))),
    ):
        started = time.perf_counter()
        predict, found = fit()
        seconds = round(time.perf_counter() - started, 3)
        results[name] = {**score(predict), **found, "fit_seconds": seconds}
    return results


def _with_alpha(fitted: tuple[Predict, float]) -> tuple[Predict, dict[str, float]]:
    return fitted[0], {"alpha": fitted[1]}
