"""Rows that are recordings: each stored once, as consecutive rows of at most `chunk_length` samples.

Windows with context are cut from these rows on the fly (`continuous_view`), so that overlap costs no disk. The last row
of a recording is as short as it is; nothing is padded.
"""

import datasets
import numpy as np
import pyarrow as pa

from .config import EmgBuilderConfig
from .content import Events, Recording, Signal
from .errors import RecordingError

INT16 = np.iinfo(np.int16)
MAX_VALUES = np.iinfo(np.int32).max  # Arrow counts the values of a list in 32 bits


def chunk_features(
    channels: int,
    config: EmgBuilderConfig,
    task: str,
    class_names: tuple[str, ...] = (),
    num_targets: int = 0,
    phone_names: tuple[str, ...] = (),
) -> datasets.Features:
    """Columns of a dataset of recordings.

    Args:
        channels: of a recording.
        config: gives the type of the samples.
        task: "events" adds the column `events`, "text" the column `text`.
        class_names: names of the events, where they form a closed set.
        num_targets: outputs of the column `targets`, (frames, outputs); 0 for none.
        phone_names: for the column `phones`, (frames,).
    """
    features: dict = {"input_values": datasets.List(datasets.List(datasets.Value(config.sample_type)), length=channels)}
    if config.sample_type == "int16":
        features["scale"] = datasets.Value("float32")
    if task == "events":
        name = datasets.ClassLabel(names=list(class_names)) if class_names else datasets.Value("string")
        position = datasets.Value("float64")
        features["events"] = datasets.List({"name": name, "start": position, "end": position})
    if task == "text":
        features["text"] = datasets.Value("string")
    if num_targets:
        features["targets"] = datasets.List(datasets.List(datasets.Value("float32"), length=num_targets))
    if phone_names:
        features["phones"] = datasets.List(datasets.ClassLabel(names=list(phone_names)))
    texts = {name: datasets.Value("string") for name in ("subject", "session", "recording")}
    places = {name: datasets.Value("int64") for name in ("start", "recording_length")}
    return datasets.Features(features | texts | places)


def chunk_columns(
    processed: np.ndarray,
    signal: Signal,
    recording: Recording,
    config: EmgBuilderConfig,
    features: datasets.Features,
    name: str,
) -> dict[str, pa.Array]:
    """The rows of a processed recording, as columns.

    Args:
        processed: float32 (channels, time).
        signal: its events, text, targets and phones, at the rate of `processed`.
        name: of the recording, as in the column.

    Raises:
        RecordingError: the recording is empty, or does not fit the type of samples asked for.
    """
    length = processed.shape[1]
    if length == 0:
        raise RecordingError(f"{name}: no samples; leave the recording out")
    if processed.size > MAX_VALUES:
        raise RecordingError(f"{name}: {processed.size} values do not fit into one table; split the recording")
    starts = np.arange(0, length, config.chunk_length or length)
    stops = np.append(starts[1:], length)
    columns: dict[str, pa.Array] = {}
    if config.sample_type == "int16":
        processed, scale = quantize(processed, signal.step or 1.0, name)
        columns["scale"] = pa.array(np.full(len(starts), scale, np.float32))
    columns["input_values"] = ragged_array(processed, starts, stops)
    if "events" in features:
        columns["events"] = _events_array(signal.events, starts, features)
    if "text" in features:
        columns["text"] = pa.array([signal.text] * len(starts), pa.string())
    if "targets" in features:
        offsets = _frame_offsets(len(signal.targets), starts, config.target_hop, signal.aligned)
        flat = pa.array(np.ascontiguousarray(signal.targets, np.float32).reshape(-1))
        frames = pa.FixedSizeListArray.from_arrays(flat, signal.targets.shape[1])
        columns["targets"] = pa.ListArray.from_arrays(offsets, frames)
    if "phones" in features:
        offsets = _frame_offsets(len(signal.phones), starts, config.target_hop, signal.aligned)
        columns["phones"] = pa.ListArray.from_arrays(offsets, pa.array(signal.phones, pa.int64()))
    for column, value in (("subject", recording.subject), ("session", recording.session), ("recording", name)):
        columns[column] = pa.array([value] * len(starts), pa.string())
    columns["start"] = pa.array(starts, pa.int64())
    columns["recording_length"] = pa.array(np.full(len(starts), length), pa.int64())
    return columns


def quantize(samples: np.ndarray, step: float, name: str) -> tuple[np.ndarray, np.float32]:
    """Samples as int16 multiples of `step`, if that loses nothing.

    Args:
        samples: float32, any shape.
        step: size of one unit.

    Returns:
        int16 samples, and the scale with which float32(int16 * scale) gives `samples` bit for bit.

    Raises:
        RecordingError: some sample is no multiple of the step, or too large.
    """
    scale = np.float32(step)
    steps = np.rint(samples / scale)
    with np.errstate(invalid="ignore"):
        whole = steps.clip(INT16.min, INT16.max).astype(np.int16)
    wrong = whole * scale != samples
    if wrong.any():
        channel, sample = np.argwhere(wrong)[0]
        raise RecordingError(
            f"{name}: channel {channel}, sample {sample}: {samples[channel, sample]:g} is not a multiple of {step:g} "
            'within the range of int16, so int16 would change it; use sample_type="float32"'
        )
    return whole, scale


def ragged_array(values: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> pa.Array:
    """Consecutive stretches of (channels, time) as rows: fixed-size lists (channels) of lists of any length."""
    flat = np.empty(values.size, values.dtype)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        flat[start * len(values) : stop * len(values)].reshape(len(values), -1)[:] = values[:, start:stop]
    offsets = np.concatenate([[0], np.cumsum(np.repeat(stops - starts, len(values)))])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat))
    return pa.FixedSizeListArray.from_arrays(lists, len(values))


def _frame_offsets(frames: int, starts: np.ndarray, hop: int, aligned: bool) -> pa.Array:
    """Where the frames of each row begin; frames of a parallel recording all go with the first row."""
    offsets = np.append(starts // hop, frames) if aligned else np.append(0, np.full(len(starts), frames))
    return pa.array(offsets, pa.int32())


def _events_array(events: Events | None, starts: np.ndarray, features: datasets.Features) -> pa.Array:
    """The events that start in each row."""
    events = events or Events((), np.empty(0), np.empty(0))
    fields = features["events"].feature
    names = list(events.names)
    if isinstance(fields["name"], datasets.ClassLabel):
        names = [fields["name"].str2int(name) for name in names]
    name_type = pa.int64() if isinstance(fields["name"], datasets.ClassLabel) else pa.string()
    offsets = np.append(np.searchsorted(events.starts, starts, side="left"), len(names))
    offsets[0] = 0
    positions = [pa.array(np.asarray(values, np.float64)) for values in (events.starts, events.ends)]
    structs = pa.StructArray.from_arrays([pa.array(names, name_type), *positions], ["name", "start", "end"])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
