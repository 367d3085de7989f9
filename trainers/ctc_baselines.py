"""Reading typing without a network: what a user would build instead, one classifier of every 20 ms of signal.

"LDA, frame by frame": linear discriminant analysis of the logarithm of each channel's power in the nine frames of 20 ms
around each frame, into the characters and none. Trained on frames within 30 ms of a keystroke, which are of its
character, and all others, which are of none. Its log probabilities are averaged over some frames, and read as CTC is: a
run of frames of one character is one keystroke. Over how many frames, and how much more probable "none" is taken to be,
is chosen on training windows.

It is fitted on at most an hour of training windows and on `MAX_FRAMES` of their frames, all drawn at random.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from trainers.ctc_trainer import collapse
from trainers.errors import EvaluationError
from trainers.text_metrics import character_errors

NAME = "LDA, frame by frame"
FRAME = 0.02
"""s of signal in one frame."""
AROUND = 4
"""Frames before and after each one that LDA sees too."""
REACH = 0.03
"""s around a keystroke: frames whose middle is that near are of its character."""
BASELINE_SECONDS = 3600
"""Of training windows are read."""
MAX_FRAMES = 60_000
"""That LDA is fitted on: as many as there are of characters, and others drawn at random."""
TUNING_WINDOWS = 100
"""On which the reading of probabilities is chosen."""
SMOOTHING = (1, 3, 5, 7, 9)
"""Candidates: frames that log probabilities are averaged over."""
PENALTIES = np.linspace(-4.0, 6.0, 11)
"""Candidates: what is added to the log odds of "none"."""
LEAST_LOG_ODDS = -30.0
_CHUNK = 20_000  # frames that are classified at a time

Decoder = Callable[[np.ndarray], list[int]]
"""(channels, time) of a whole session -> ids of its text."""


@dataclass(frozen=True)
class TypedSignal:
    """A window and what was typed in it.

    Attributes:
        signal: float32 (channels, time).
        ids: (characters,).
        starts: (characters,) samples from its beginning.
    """

    signal: np.ndarray
    ids: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True)
class _Frames:
    """A window as the classifier sees it: log power (frames, channels), the class of each frame, and the text."""

    log_power: np.ndarray
    classes: np.ndarray
    ids: list[int]


def run_typing_baselines(
    windows: Iterable[TypedSignal], sampling_rate: float, score: Callable[[Decoder], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Fit the classifier and score it.

    Args:
        windows: of the training split, in random order.
        score: what decodes the test sessions with a decoder, and scores them.

    Returns:
        Per baseline: its scores, `smoothing`, `none_bonus` and `fit_seconds`.

    Raises:
        EvaluationError: fewer than two characters were typed in these windows.
    """
    started = time.perf_counter()
    frames = [_frames_of(window, sampling_rate) for window in windows]
    classifier = _fit([f for f in frames if len(f.log_power)])
    tuning = [(classifier.log_odds(f.log_power), f.ids) for f in frames[:TUNING_WINDOWS]]
    smoothing, bonus = min(product(SMOOTHING, PENALTIES.tolist()), key=lambda how: _errors(classifier, tuning, *how))
    seconds = time.perf_counter() - started

    def decode(signal: np.ndarray) -> list[int]:
        return classifier.read(classifier.log_odds(log_power(signal, sampling_rate)), smoothing, bonus)

    return {NAME: {**score(decode), "smoothing": smoothing, "none_bonus": bonus, "fit_seconds": round(seconds, 3)}}


def log_power(signal: np.ndarray, sampling_rate: float) -> np.ndarray:
    """(channels, time) -> float32 (frames, channels): log of the mean square in each whole frame, relative to the
    channel's median, because people and electrodes differ."""
    samples = max(round(FRAME * sampling_rate), 1)
    count = signal.shape[1] // samples
    if not count:
        return np.empty((0, len(signal)), np.float32)
    power = np.empty((count, len(signal)), np.float32)
    for i, channel in enumerate(signal):  # one at a time: squares of a whole session are as large as the session
        frames = channel[: count * samples].reshape(count, samples)
        power[:, i] = np.einsum("ij,ij->i", frames, frames) / samples
    power = np.log(power + 1e-10 * (power.mean() + 1e-30))
    return power - np.median(power, axis=0)


def _frames_of(window: TypedSignal, sampling_rate: float) -> _Frames:
    power = log_power(window.signal, sampling_rate)
    classes = np.full(len(power), -1)
    middles = (np.arange(len(power)) + 0.5) * FRAME
    for key, start in zip(window.ids, window.starts / sampling_rate, strict=True):
        classes[np.abs(middles - start) <= REACH] = key
    return _Frames(power, classes, window.ids.tolist())


@dataclass(frozen=True)
class _Classifier:
    lda: LinearDiscriminantAnalysis
    none: int

    def log_odds(self, power: np.ndarray) -> np.ndarray:
        """(frames, classes) log probabilities."""
        around = _with_neighbours(power)
        parts = [self.lda.predict_log_proba(around[i : i + _CHUNK]) for i in range(0, len(power), _CHUNK)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.lda.classes_)))

    def read(self, log_odds: np.ndarray, smoothing: int, bonus: float) -> list[int]:
        """The text of log probabilities (frames, classes) averaged over `smoothing` frames, "none" made more probable
        by `bonus`."""
        if not len(log_odds):
            return []
        # of impossible classes the logarithm is -inf, which would spread
        smooth = uniform_filter1d(np.maximum(log_odds, LEAST_LOG_ODDS), smoothing, axis=0, mode="nearest")
        weighted = smooth + bonus * (self.lda.classes_ == -1)
        best = self.lda.classes_[weighted.argmax(axis=1)]
        return collapse(np.where(best == -1, self.none, best), self.none)


def _fit(frames: Sequence[_Frames]) -> _Classifier:
    classes = np.concatenate([f.classes for f in frames])
    if len(np.unique(classes[classes >= 0])) < 2:
        raise EvaluationError("the training windows have keystrokes of fewer than two characters: check the events")
    rng = np.random.default_rng(0)
    # characters first, as far as there is room for them
    order = rng.permutation(len(classes))
    order = np.concatenate([order[classes[order] >= 0][: MAX_FRAMES // 2], order[classes[order] < 0]])[:MAX_FRAMES]
    chosen = np.zeros(len(classes), bool)
    chosen[order] = True
    parts = np.split(chosen, np.cumsum([len(f.classes) for f in frames])[:-1])
    features = np.concatenate([_with_neighbours(f.log_power)[part] for f, part in zip(frames, parts, strict=True)])
    names = np.unique(classes[chosen])
    shares = np.array([(classes == name).sum() for name in names], float)  # not those of the frames drawn
    lda = LinearDiscriminantAnalysis(priors=shares / shares.sum()).fit(features, classes[chosen])
    return _Classifier(lda, int(classes.max()) + 1)


def _with_neighbours(power: np.ndarray) -> np.ndarray:
    """(frames, channels) -> (frames, neighbourhood of each); beyond the edges, the first and last frames go on."""
    if not len(power):
        return np.empty((0, power.shape[1] * (2 * AROUND + 1)), power.dtype)
    padded = np.pad(power, ((AROUND, AROUND), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1, axis=0).reshape(len(power), -1)


def _errors(
    classifier: _Classifier, tuning: Sequence[tuple[np.ndarray, list[int]]], smoothing: int, bonus: float
) -> int:
    return sum(character_errors(classifier.read(log_odds, smoothing, bonus), ids).total for log_odds, ids in tuning)
