"""Two detectors of gestures on channel power: what a user would build without a neural network.

Both see the logarithm of each channel's power in blocks of 25 ms, are fitted on the training split, threshold included,
and are scored like the network.

- "Power threshold": an event is where the power of all channels together rises above a threshold; its gesture is the
  one whose mean pattern over the channels, 100 ms after its events, is nearest.
- "LDA on channel power": linear discriminant analysis of the last 200 ms, block by block, into the gestures and none;
  an event is where a gesture's probability rises above a threshold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tinymyo_hf.event_detection import TimedEvents, detect_events
from trainers.errors import EvaluationError
from trainers.event_metrics import count_events, event_scores

BLOCK = 0.025
"""s of signal in one value."""
PATTERN_DELAY = 0.1
"""s after an event: where its pattern is taken, and, from 0.05 s on, where LDA is to tell its gesture."""
HISTORY = 8
SMOOTHING = 4
"""Blocks that LDA sees, and over which the power of all channels is averaged."""
MAX_BLOCKS = 200_000
"""That LDA is fitted on: all of events, and others drawn at random."""
THRESHOLDS = 24


@dataclass(frozen=True)
class Detector:
    """A fitted detector.

    Attributes:
        prepare: (blocks, channels) log power -> what does not depend on the threshold.
        detect: that, and a threshold -> events.
        thresholds: (candidates,) to choose from.
    """

    prepare: Callable[[np.ndarray], Any]
    detect: Callable[[Any, float], TimedEvents]
    thresholds: np.ndarray


@dataclass(frozen=True)
class PowerRecording:
    """A recording as the baselines see it.

    Attributes:
        log_power: float32 (blocks, channels).
        events: the true ones.
        seconds: its length.
    """

    log_power: np.ndarray
    events: TimedEvents
    seconds: float


def block_log_power(signal: np.ndarray, sampling_rate: float) -> np.ndarray:
    """(channels, time) -> float32 (blocks, channels): log of the mean square in each whole block of 25 ms.

    Raises:
        EvaluationError: less than one block.
    """
    samples = max(round(BLOCK * sampling_rate), 1)
    blocks = signal.shape[1] // samples
    if not blocks:
        raise EvaluationError(f"a recording of {signal.shape[1]} samples is shorter than one block of {samples}")
    pieces = np.asarray(signal[:, : blocks * samples], np.float32).reshape(len(signal), blocks, samples)
    return np.log(np.square(pieces).mean(axis=2) + 1e-6).T


def block_times(blocks: int) -> np.ndarray:
    """When each block is complete, s."""
    return (np.arange(blocks) + 1) * BLOCK


def run_event_baselines(
    train: Iterable[PowerRecording], test: Iterable[PowerRecording], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Fit both on `train` and score them on `test`.

    Returns:
        Per baseline: `event_scores`, `threshold` and `fit_seconds`.

    Raises:
        EvaluationError: fewer than two gestures have events in `train`.
    """
    train, test = list(train), list(test)
    seen = np.unique(np.concatenate([recording.events.labels for recording in train]))
    if len(seen) < 2:
        raise EvaluationError(
            "the training split has events of fewer than two gestures: check the events and the split"
        )
    results = {}
    for name, fit in (("Power threshold", _fit_power_threshold), ("LDA on channel power", _fit_lda)):
        started = time.perf_counter()
        detector = fit(train, names)
        threshold = _best_threshold(train, detector, names)
        seconds = time.perf_counter() - started
        counts = [
            count_events(r.events, detector.detect(detector.prepare(r.log_power), threshold), names, r.seconds)
            for r in test
        ]
        results[name] = {
            **event_scores(counts, names),
            "threshold": threshold,
            "fit_seconds": round(seconds, 3),
        }
    return results


def _best_threshold(recordings: Sequence[PowerRecording], detector: Detector, names: Sequence[str]) -> float:
    """Of the candidates, the first with the highest F1 of all recordings together."""
    prepared = [detector.prepare(recording.log_power) for recording in recordings]

    def f1(threshold: float) -> float:
        counts = [
            count_events(recording.events, detector.detect(of, threshold), names, recording.seconds)
            for recording, of in zip(recordings, prepared, strict=True)
        ]
        return sum(counts[1:], counts[0]).f1()

    return float(max(detector.thresholds, key=f1))


def _fit_power_threshold(train: Sequence[PowerRecording], names: Sequence[str]) -> Detector:
    delay = round(PATTERN_DELAY / BLOCK)
    totals = np.zeros((len(names), train[0].log_power.shape[1]))
    counts = np.zeros(len(names))
    for recording in train:
        blocks = np.minimum((recording.events.times / BLOCK).astype(int) + delay, len(recording.log_power) - 1)
        np.add.at(totals, recording.events.labels, _patterns(recording.log_power)[blocks])
        np.add.at(counts, recording.events.labels, 1)
    known = np.flatnonzero(counts)
    templates = totals[known] / counts[known, None]

    def prepare(log_power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances = ((_patterns(log_power)[:, None] - templates) ** 2).sum(axis=2)
        return _total_power(log_power), known[distances.argmin(axis=1)]

    def detect(prepared: tuple[np.ndarray, np.ndarray], threshold: float) -> TimedEvents:
        power, nearest = prepared
        rises = detect_events(power[:, None], block_times(len(power)), ["any"], threshold)
        # the burst is at its height a little after the rise
        blocks = np.minimum((rises.times / BLOCK).astype(int) + delay // 2, len(power) - 1)
        return TimedEvents(nearest[blocks], rises.times)

    powers = np.concatenate([_total_power(recording.log_power) for recording in train])
    return Detector(prepare, detect, np.quantile(powers, np.linspace(0.4, 0.98, THRESHOLDS)))


def _patterns(log_power: np.ndarray) -> np.ndarray:
    """How the power is divided among the channels: (blocks, channels), mean 0 over the channels."""
    smooth = _smoothed(log_power)
    return smooth - smooth.mean(axis=1, keepdims=True)


def _total_power(log_power: np.ndarray) -> np.ndarray:
    """(blocks,) mean over the channels, relative to the recording's median: people and electrodes differ."""
    power = _smoothed(log_power).mean(axis=1)
    return power - np.median(power)


def _smoothed(log_power: np.ndarray) -> np.ndarray:
    """Mean of each block and those before it."""
    return _history(log_power, SMOOTHING).mean(axis=1)


def _history(log_power: np.ndarray, length: int) -> np.ndarray:
    """View (blocks, length, channels) of each block and those before it, the first repeated before the beginning."""
    padded = np.concatenate([np.repeat(log_power[:1], length - 1, axis=0), log_power])
    return np.lib.stride_tricks.sliding_window_view(padded, length, axis=0).transpose(0, 2, 1)


def _fit_lda(train: Sequence[PowerRecording], names: Sequence[str]) -> Detector:
    none = len(names)
    classes = [_block_classes(recording, none) for recording in train]
    rests = sum(int((of == none).sum()) for of in classes)
    room = max(MAX_BLOCKS - sum(int((of != none).sum()) for of in classes), 0)
    rng = np.random.default_rng(0)
    features, labels = [], []
    for recording, of in zip(train, classes, strict=True):
        chosen = np.flatnonzero((of != none) | (rng.random(len(of)) < room / max(rests, 1)))
        features.append(_lda_features(recording.log_power)[chosen])
        labels.append(of[chosen])
    lda = LinearDiscriminantAnalysis().fit(np.concatenate(features), np.concatenate(labels))
    gestures = [label for label in lda.classes_.tolist() if label != none]
    columns = [lda.classes_.tolist().index(label) for label in gestures]

    def prepare(log_power: np.ndarray) -> np.ndarray:
        probabilities = np.zeros((len(log_power), len(names)), np.float32)
        probabilities[:, gestures] = lda.predict_proba(_lda_features(log_power))[:, columns]
        return probabilities

    def detect(probabilities: np.ndarray, threshold: float) -> TimedEvents:
        return detect_events(probabilities, block_times(len(probabilities)), names, threshold)

    return Detector(prepare, detect, np.linspace(0.05, 0.95, THRESHOLDS))


def _lda_features(log_power: np.ndarray) -> np.ndarray:
    return _history(log_power - np.median(log_power, axis=0), HISTORY).reshape(len(log_power), -1)


def _block_classes(recording: PowerRecording, none: int) -> np.ndarray:
    """(blocks,) gesture whose event was 0.05 to 0.1 s before the block's end, else `none`."""
    classes = np.full(len(recording.log_power), none)
    blocks = np.arange(round(0.05 / BLOCK), round(PATTERN_DELAY / BLOCK) + 1) - 1
    places = np.ceil(recording.events.times / BLOCK).astype(int)[:, None] + blocks
    labels = np.broadcast_to(recording.events.labels[:, None], places.shape)
    inside = places < len(classes)
    classes[places[inside]] = labels[inside]
    return classes
