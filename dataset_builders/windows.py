"""Rows that are windows: a processed recording cut by its labels, and the columns of such a dataset."""

from collections import Counter
from dataclasses import dataclass, replace

import datasets
import numpy as np
import pyarrow as pa

from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

from .config import EmgBuilderConfig
from .content import UNLABELLED, Signal
from .errors import RecordingError

SHORT_SEGMENTS = "segments shorter than a window"


@dataclass(frozen=True)
class Windows:
    """Windows of a recording.

    Attributes:
        values: float32 (windows, channels, time).
        labels, repetitions, starts: int64 (windows,); labels are `UNLABELLED` where the corpus has no classes.
        targets: float32 (windows, frames, outputs), or None.
        notes: what was left out, counted.
    """

    values: np.ndarray
    labels: np.ndarray
    repetitions: np.ndarray
    starts: np.ndarray
    targets: np.ndarray | None
    notes: Counter


def window_features(
    channels: int,
    window_length: int,
    class_names: tuple[str, ...] = (),
    target_shape: tuple[int, int] | None = None,
) -> datasets.Features:
    """Columns of a dataset of windows; shapes are part of the types.

    Args:
        channels, window_length: of a window.
        class_names: for the column `label`; without classes there is none.
        target_shape: (frames, outputs) of the column `targets`.
    """
    features: dict = {"input_values": _matrix(channels, window_length)}
    if class_names:
        features["label"] = datasets.ClassLabel(names=list(class_names))
    if target_shape:
        features["targets"] = _matrix(*target_shape)
    return datasets.Features(
        features
        | {
            "subject": datasets.Value("string"),
            "session": datasets.Value("string"),
            "repetition": datasets.Value("int32"),
            "recording": datasets.Value("string"),
            "start": datasets.Value("int64"),
        }
    )


def nested_array(values: np.ndarray) -> pa.Array:
    """float32 (rows, a, b) as fixed-size lists of fixed-size lists, copying nothing but what is not contiguous."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    inner = pa.FixedSizeListArray.from_arrays(flat, values.shape[2])
    return pa.FixedSizeListArray.from_arrays(inner, values.shape[1])


def label_segments(labels: np.ndarray, repetitions: np.ndarray | None = None) -> list[tuple[int, int, int, int]]:
    """Runs of one label as (start, stop, label, repetition), unlabelled runs left out.

    Without given repetitions, the runs of each label are counted from 1.
    """
    changes = np.diff(labels) != 0
    if repetitions is not None:
        changes |= np.diff(repetitions) != 0
    borders = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(labels)]])
    seen: Counter = Counter()
    segments = []
    for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        label = int(labels[start])
        if label != UNLABELLED:
            seen[label] += 1
            segments.append((start, stop, label, seen[label] if repetitions is None else int(repetitions[start])))
    return segments


def counted_repetitions(labels: np.ndarray) -> np.ndarray:
    """The repetition of each sample where the corpus states none: runs of each label counted from 1, else 0."""
    repetitions = np.zeros(len(labels), np.int64)
    for start, stop, _, repetition in label_segments(labels):
        repetitions[start:stop] = repetition
    return repetitions


def cut_windows(
    processed: np.ndarray,
    signal: Signal,
    extractor: TinyMyoFeatureExtractor,
    config: EmgBuilderConfig,
    kept: tuple[int, ...] | None,
    name: str,
) -> Windows:
    """Cut a processed recording as `config.window_labels` says.

    Args:
        processed: float32 (channels, time).
        signal: its labels, repetitions and targets, at the rate of `processed`.
        kept: repetitions to keep; None keeps all.
        name: of the recording, for messages.

    Raises:
        RecordingError: the recording, or all of its segments, are shorter than a window.
    """
    length = config.window_length
    if processed.shape[1] < length and not config.pad_end:
        raise RecordingError(
            f"{name}: {processed.shape[1]} samples, shorter than one window of {length}; remove the recording or "
            "lower window_length"
        )
    if signal.labels is None:
        signal = replace(signal, labels=np.zeros(processed.shape[1], np.int64))
    if signal.repetitions is None:
        signal = replace(signal, repetitions=counted_repetitions(signal.labels))
    cut = _by_segment if config.window_labels in ("segment", "repetition") else _on_grid
    starts, stops, labels, repetitions, notes = cut(processed.shape[1], signal, config, kept, name)
    windows = extractor.normalize_windows(_gather(processed, starts, stops, length))
    targets = None
    if signal.targets is not None:
        hop = config.target_hop
        targets = _gather(np.asarray(signal.targets, np.float32).T, starts // hop, stops // hop, length // hop)
        targets = targets.transpose(0, 2, 1)
    return Windows(windows, labels, repetitions, starts, targets, notes)


def _by_segment(
    length: int, signal: Signal, config: EmgBuilderConfig, kept: tuple[int, ...] | None, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Counter]:
    """Windows within runs of one label and repetition, or of one repetition; `stops` are those of the runs."""
    labels, whole = signal.labels, config.window_labels == "repetition"
    segments = label_segments(np.minimum(labels, 0) if whole else labels, signal.repetitions)
    longest = max((stop - start for start, stop, _, _ in segments), default=config.window_length)
    if longest < config.window_length and not config.pad_end:
        raise RecordingError(
            f"{name}: its longest segment of one {'repetition' if whole else 'label'} has {longest} samples, shorter "
            f"than one window of {config.window_length}; lower window_length"
        )
    parts, notes = [np.empty((0, 3), np.int64)], Counter()
    for start, stop, _, repetition in segments:
        if kept is not None and repetition not in kept:
            continue
        starts = start + window_starts(stop - start, config.window_length, config.stride, config.pad_end)
        notes[SHORT_SEGMENTS] += not len(starts)
        parts.append(np.stack([starts, *(np.full(len(starts), value) for value in (stop, repetition))], axis=1))
    starts, stops, repetitions = np.concatenate(parts).T
    return starts, stops, labels[starts], repetitions, +notes


def _on_grid(
    length: int, signal: Signal, config: EmgBuilderConfig, kept: tuple[int, ...] | None, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Counter]:
    """Windows on a grid over the recording, whatever changes within them."""
    starts = window_starts(length, config.window_length, config.stride, config.pad_end)
    labels, repetitions = signal.labels, signal.repetitions
    offset = config.window_length // 2 if config.window_labels == "center_sample" else 0
    at = np.minimum(starts + offset, length - 1)
    wanted = labels[at] != UNLABELLED
    if kept is not None:
        wanted &= np.isin(repetitions[at], kept)
    starts, at = starts[wanted], at[wanted]
    return starts, np.full(len(starts), length), labels[at], repetitions[at], Counter()


def window_starts(length: int, window_length: int, stride: int, pad_end: bool) -> np.ndarray:
    """First samples of the windows of a stretch of `length` samples; with `pad_end` the last may reach beyond it."""
    if pad_end:
        count = 1 + max(0, -(-(length - window_length) // stride)) if length else 0
    else:
        count = (length - window_length) // stride + 1 if length >= window_length else 0
    return np.arange(count, dtype=np.int64) * stride


def _gather(values: np.ndarray, starts: np.ndarray, stops: np.ndarray, length: int) -> np.ndarray:
    """(windows, channels, length) out of (channels, time); zeros from a window's stop on."""
    windows = np.zeros((len(starts), len(values), length), np.float32)
    for window, start, stop in zip(windows, starts.tolist(), stops.tolist(), strict=True):
        end = min(start + length, stop)
        window[:, : end - start] = values[:, start:end]
    return windows


def _matrix(rows: int, columns: int) -> datasets.List:
    return datasets.List(datasets.List(datasets.Value("float32"), length=columns), length=rows)
