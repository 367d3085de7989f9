"""From recordings to events: the windows of a frame classifier, and events detected in its probabilities.

The pipeline "emg-events" and the training of event models use the same functions, which need numpy only;
`tinymyo_hf.event_inference` runs a model on the windows. The defaults are those of the neuromotor variant (paper
section 3.2.2): windows of 8 s every 2 s at 2 kHz, threshold 0.35, 50 ms of debounce.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError

WINDOW_LENGTH = 16_000
WINDOW_STRIDE = 4_000
THRESHOLD = 0.35
DEBOUNCE = 0.05
"""s; two events further apart than this are never one."""

PRESS, RELEASE = "_press", "_release"
ROUNDING = 1e-9
"""s; times on a grid of 5 ms are compared up to their rounding in binary."""


@dataclass(frozen=True)
class TimedEvents:
    """Events of one recording.

    Attributes:
        labels: int64 (events,) ids.
        times: float64 (events,) in seconds from the recording's first sample.
        scores: (events,) in [0, 1]: the highest probability while it stayed above the threshold; None for true events.
    """

    labels: np.ndarray
    times: np.ndarray
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class FrameGrid:
    """Where the frames of a convolutional stem lie: frame k sees samples k * stride to k * stride + kernel_size - 1.

    Attributes:
        kernel_size, stride: of the stem, in samples.
        sampling_rate: Hz.
    """

    kernel_size: int = 21
    stride: int = 10
    sampling_rate: float = 2000.0

    @classmethod
    def of(cls, config: Any, sampling_rate: float) -> FrameGrid:
        """The grid of a model's configuration (`stem_kernel_size`, `stem_stride`)."""
        return cls(config.stem_kernel_size, config.stem_stride, sampling_rate)

    def count(self, samples: int) -> int:
        """Frames of so many samples; 0 where they do not fill the kernel."""
        return max((samples - self.kernel_size) // self.stride + 1, 0)

    def times(self, frames: int) -> np.ndarray:
        """float64 (frames,): when a causal model gives each frame, in s: the time of the last sample that it sees."""
        return (np.arange(frames) * self.stride + self.kernel_size - 1) / self.sampling_rate


def window_starts(length: int, grid: FrameGrid, window_length: int, stride: int) -> list[int]:
    """First samples of the windows that cover a recording; the last window may end with the recording, shorter.

    So the tail is kept, and seen with at least `window_length - stride` samples of context; the implementation released
    with the paper drops it.

    Raises:
        SignalError: a stride that is no multiple of the frames' or leaves gaps, or a recording without a frame.
    """
    if stride < 1 or stride % grid.stride or stride > window_length - grid.kernel_size + grid.stride:
        raise SignalError(
            f"stride={stride}: must be a multiple of {grid.stride} samples, one frame, and below window_length="
            f"{window_length}, so that no frame is left out"
        )
    if not grid.count(length):
        raise SignalError(f"a recording of {length} samples has no frame; it takes {grid.kernel_size} samples")
    starts = range(0, max(length - window_length + stride - 1, 0) // stride * stride + 1, stride)
    return [start for start in starts if grid.count(length - start)]  # the last may be too short for a frame of its own


def average_logits(pieces: Iterable[tuple[int, np.ndarray]], length: int, grid: FrameGrid) -> np.ndarray:
    """Join the logits of overlapping windows: the mean over the windows that a frame is in.

    Args:
        pieces: (first sample of a window, its logits (frames, labels)), together covering the recording.
        length: samples of the recording.

    Returns:
        float32 (frames of the recording, labels).
    """
    total, count = None, np.zeros((grid.count(length), 1), np.float32)
    for start, logits in pieces:
        if total is None:
            total = np.zeros((len(count), logits.shape[1]), np.float32)
        first = start // grid.stride
        total[first : first + len(logits)] += logits
        count[first : first + len(logits)] += 1
    if total is None or not count.all():
        raise SignalError("the windows do not cover the recording: use those of window_starts")
    return total / count


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, of the same shape, without overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits)))


def detect_events(
    probabilities: np.ndarray,
    times: np.ndarray,
    names: Sequence[str],
    threshold: float = THRESHOLD,
    debounce: float = DEBOUNCE,
) -> TimedEvents:
    """An event where a probability rises to `threshold`, also where it begins there; in order of time, debounced.

    Events at the same time are in the order of their labels. Debouncing compares with the last event that was kept: a
    later one within less than `debounce` is dropped if neither is a release (a name that ends in "_release"), or both
    are the same release.

    Args:
        probabilities: (frames, labels) in [0, 1].
        times: (frames,) in s.
        names: of the labels.
        debounce: s.

    Raises:
        SignalError: shapes that do not belong together, or probabilities that are not finite.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.shape != (len(times), len(names)):
        raise SignalError(
            f"probabilities {probabilities.shape} do not fit {len(times)} frames and {len(names)} labels; they must be "
            "(frames, labels)"
        )
    if not np.isfinite(probabilities).all():
        frame = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise SignalError(f"probabilities of frame {frame} are not finite; check the recording and the weights")
    above = probabilities >= threshold
    rises = above.copy()
    rises[1:] &= ~above[:-1]
    frames, labels = np.nonzero(rises)  # in order of frame, then label
    kept = _debounced(labels.tolist(), np.asarray(times)[frames].tolist(), names, debounce)
    frames, labels = frames[kept], labels[kept]
    scores = _peaks(probabilities, above, frames, labels)
    return TimedEvents(labels.astype(np.int64), np.asarray(times, np.float64)[frames], scores)


def _debounced(labels: Sequence[int], times: Sequence[float], names: Sequence[str], debounce: float) -> list[int]:
    """Which events are kept."""
    is_release = [name.endswith(RELEASE) for name in names]
    kept: list[int] = []
    for i, (label, time) in enumerate(zip(labels, times, strict=True)):
        if kept and time - times[kept[-1]] < debounce - ROUNDING:
            last = labels[kept[-1]]
            if label == last or not (is_release[label] or is_release[last]):
                continue
        kept.append(i)
    return kept


def _peaks(probabilities: np.ndarray, above: np.ndarray, frames: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The highest probability from each rise until it falls below the threshold."""
    peaks = np.empty(len(frames))
    for label in np.unique(labels):
        of = np.flatnonzero(labels == label)
        # the frames after the last are below: a fall belongs to every rise
        falls = np.flatnonzero(above[:, label] & ~np.append(above[1:, label], False)) + 1
        ends = falls[np.searchsorted(falls, frames[of], side="right")]
        bounds = np.stack([frames[of], ends], axis=1).ravel()
        column = np.append(probabilities[:, label], 0.0)
        peaks[of] = np.maximum.reduceat(column, bounds)[::2]
    return peaks
