"""What a recording is: its place in the corpus (`Recording`) and what its file holds (`Signal`)."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from .errors import RecordingError

UNLABELLED = -1


@dataclass(frozen=True)
class Recording:
    """One recording and its place in the corpus.

    Attributes:
        path: file to read; empty for generated recordings.
        name: unique within the corpus, stable across machines.
        subject, session: as written in the corpus.
        split: "train", "validation" or "test".
        repetitions: keep only these repetitions (counted from 1) of each gesture; None keeps all.
    """

    path: str
    name: str
    subject: str
    session: str
    split: str
    repetitions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Events:
    """Things that happen during a recording, in order of their starts.

    Attributes:
        names: of each event.
        starts, ends: float64 (events,), positions in samples of the recording; fractions are between samples.
    """

    names: tuple[str, ...]
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Signal:
    """Raw content of a recording, or of one take in it.

    Attributes:
        samples: (channels, time), any real type and unit.
        sampling_rate: Hz.
        labels: class id of each sample, int (time,); `UNLABELLED` where there is none.
        repetitions: repetition of each sample, int (time,), from 1, 0 for none; None counts the runs of each label.
        targets: regression targets, float32 (frames, outputs), a frame per `target_hop` samples.
        events: what happened when.
        text: what was said or typed in the whole recording.
        phones: id of the phone in each frame, int (frames,).
        metadata: values of the builder's `metadata_features`.
        name: distinguishes the takes of one recording.
        notes: what was left out or changed while reading, counted: {"EMG samples after the last label": 12}.
        step: size of a step of the converter in the unit of `samples`, where they are multiples of one.
        aligned: whether targets and phones have a frame per `target_hop` samples; else they belong to another, parallel
            recording, and have its length.
    """

    samples: np.ndarray
    sampling_rate: float
    labels: np.ndarray | None = None
    repetitions: np.ndarray | None = None
    targets: np.ndarray | None = None
    events: Events | None = None
    text: str | None = None
    phones: np.ndarray | None = None
    metadata: dict[str, object] = field(default_factory=dict)
    name: str = ""
    notes: dict[str, int] = field(default_factory=dict)
    step: float | None = None
    aligned: bool = True


def check_lengths(signal: Signal, where: str) -> None:
    """Raise `RecordingError` unless there is a label and a repetition per sample, and events are inside, in order.

    Builders bring lengths that differ in the files into line themselves, and count what they cut in `notes`.
    """
    length = signal.samples.shape[-1]
    for name in ("labels", "repetitions"):
        values = getattr(signal, name)
        if values is not None and np.shape(values) != (length,):
            raise RecordingError(
                f"{where}: {len(values)} {name} for {length} samples; there must be one per sample: copy the recording "
                "again, or leave it out"
            )
    events = signal.events
    if events is not None and len(events.names):
        first, last = events.starts.min(), events.starts.max()
        if not (0 <= first <= last < length) or np.isnan(events.starts).any():
            raise RecordingError(
                f"{where}: events from sample {first:g} to {last:g}, but the recording has {length} samples; correct "
                "the times of the events, or leave the recording out"
            )
        if (np.diff(events.starts) < 0).any():
            raise RecordingError(f"{where}: the events are not in the order of their starts; sort them")


def at_processed_rate(signal: Signal, length: int, hop: int, where: str) -> Signal:
    """The signal's labels, targets and events for a recording that was resampled to `length` samples.

    A label is that of the nearest earlier sample; targets with a frame per sample are interpolated linearly.
    """
    raw = signal.samples.shape[-1]
    changes: dict[str, object] = {}
    if raw != length:
        for name in ("labels", "repetitions"):
            values = getattr(signal, name)
            if values is not None:
                changes[name] = values[np.minimum(np.arange(length) * len(values) // length, len(values) - 1)]
        if signal.events is not None:
            ratio = length / raw
            events = signal.events
            changes["events"] = Events(events.names, np.minimum(events.starts * ratio, length - 1), events.ends * ratio)
        if signal.targets is not None and hop == 1 and len(signal.targets) == raw:
            changes["targets"] = _interpolated(signal.targets, length)
    result = dataclasses.replace(signal, **changes)
    frames = length // hop
    for name in ("targets", "phones"):
        values = getattr(result, name)
        if values is not None and signal.aligned and len(values) != frames:
            raise RecordingError(
                f"{where}: {len(values)} frames of {name} for {length} samples, which make {frames} frames of {hop}; "
                "copy the recording again, or leave it out"
            )
    if result.targets is not None and not np.isfinite(result.targets).all():
        row, column = np.argwhere(~np.isfinite(result.targets))[0]
        raise RecordingError(
            f"{where}: target {column} of frame {row} is not a number; correct it, or leave the recording out"
        )
    return result


def _interpolated(targets: np.ndarray, length: int) -> np.ndarray:
    positions = np.arange(length) * len(targets) / length  # sample 0 stays sample 0, as in resampling
    columns = [np.interp(positions, np.arange(len(targets)), column) for column in targets.T]
    return np.stack(columns, axis=1).astype(np.float32)
