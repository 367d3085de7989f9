"""Recordings in files of arrays: npy, npz, mat, hdf5 and headerless binary files.

A column that is named is a variable of its own; one that is given by position is a channel of the signal's array.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinymyo_hf.recording_columns import (
    Column,
    Recording,
    RecordingError,
    Wanted,
    as_labels,
    at_boundary,
    column_position,
    is_position,
)
from tinymyo_hf.recording_formats import ARRAY_READERS, RAW_TYPES, Variables, read_raw

SIGNAL_NAMES = ("emg", "signal", "data", "x")
RATE_NAMES = frozenset(("fs", "sampling_rate", "samplingrate", "sample_rate", "sampling_frequency", "sfreq", "srate"))
LAYOUTS = ("channels_time", "time_channels")
LAYOUT_RATIO = 8


def read_array_file(
    path: Path, wanted: Wanted, num_channels: int | None, key: str | None, layout: str | None
) -> Recording:
    """An npy, npz, mat or hdf5 file; see `tinymyo_hf.recordings.read_recording`."""
    variables = at_boundary(path, ARRAY_READERS[path.suffix.lower()])
    return _arrays_as_recording(path, variables, wanted, num_channels, key, layout)


def read_raw_file(
    path: Path, wanted: Wanted, raw_type: str | None, raw_channels: int | None, layout: str | None
) -> Recording:
    """A binary file that holds numbers and nothing else, sample after sample unless `layout` says otherwise."""
    if raw_type is None or raw_channels is None:
        raise RecordingError(
            f"{path}: the file does not say what it holds; state raw_type ({', '.join(RAW_TYPES)}) and raw_channels "
            "(numbers per sample)"
        )
    if raw_type not in RAW_TYPES:
        raise RecordingError(f"raw_type={raw_type!r}: unknown; use one of {', '.join(RAW_TYPES)}")
    if not isinstance(raw_channels, int) or raw_channels < 1:
        raise RecordingError(f"raw_channels={raw_channels!r}: must be a positive whole number")
    values, size = at_boundary(path, read_raw, raw_type), path.stat().st_size
    if size != values.nbytes or values.size % raw_channels:
        raise RecordingError(
            f"{path}: {size} bytes are not whole samples of {raw_channels} x {raw_type}; correct raw_type or "
            "raw_channels, or copy the file again if it was cut off"
        )
    by_channel = layout == "channels_time"
    array = values.reshape((raw_channels, -1) if by_channel else (-1, raw_channels))
    return _arrays_as_recording(path, {"array": array}, wanted, None, None, layout or "time_channels")


def _arrays_as_recording(
    path: Path, variables: Variables, wanted: Wanted, num_channels: int | None, key: str | None, layout: str | None
) -> Recording:
    label, targets = wanted.label_column, tuple(wanted.target_columns or ())
    named = [column for column in (label, *targets) if column is not None and _names_variable(variables, column)]
    if wanted.channels and all(_names_variable(variables, column) for column in wanted.channels):
        signal, names = _named_channels(path, variables, wanted.channels, layout)
    else:
        # Where channels are selected, num_channels counts the selected ones and tells nothing about the axes.
        within = len([c for c in (label, *targets) if c is not None]) - len(named)
        expected = None if num_channels is None or wanted.channels is not None else num_channels + within
        name = _pick_variable(path, variables, key, set(named))
        signal = _oriented(path, name, variables[name], expected, layout)
        names = [str(i) for i in range(len(signal))]
    labels = None
    if label is not None:
        found, _ = _columns(path, variables, signal, label, "label_column")
        if len(found) > 1:
            raise RecordingError(
                f"{path}: label_column={label!r} has {len(found)} values per sample; name one with one"
            )
        labels = as_labels(found[0])
    picked = _channels_left(path, len(signal), wanted, named)
    parts = [_columns(path, variables, signal, column, "target_columns") for column in targets]
    return Recording(
        signal[picked].astype(np.result_type(signal.dtype, np.float32), copy=False),
        _stated_rate(path, variables),
        labels,
        tuple(names[i] for i in picked),
        np.concatenate([values for values, _ in parts], dtype=np.float64) if parts else None,
        tuple(name for _, part in parts for name in part),
    )


def _names_variable(variables: Variables, column: Column) -> bool:
    return isinstance(column, str) and (column in variables or not is_position(column))


def _channels_left(path: Path, count: int, wanted: Wanted, named: list[Column]) -> list[int]:
    """Positions of the channels in the signal's array: those asked for, else all that are neither label nor target."""
    positions = [str(i) for i in range(count)]
    if wanted.channels is not None:
        if wanted.channels and not all(map(is_position, wanted.channels)):
            return list(range(count))  # the channels are variables of their own
        picked = [column_position(path, positions, False, column, "channels") for column in wanted.channels]
    else:
        others = [c for c in (wanted.label_column, *(wanted.target_columns or ())) if c is not None and c not in named]
        taken = {column_position(path, positions, False, column, "columns") for column in others}
        picked = [i for i in range(count) if i not in taken]
    if not picked:
        raise RecordingError(f"{path}: none of the {count} channels is left; name those to use with channels")
    return picked


def _columns(
    path: Path, variables: Variables, signal: np.ndarray, column: Column, field: str
) -> tuple[np.ndarray, list[str]]:
    """(values, time) of one label or target column, with names: a variable of any width, or a row of the signal."""
    if not _names_variable(variables, column):
        position = column_position(path, [str(i) for i in range(len(signal))], False, column, field)
        return signal[position : position + 1], [str(position)]
    _check_variable(path, variables, column, field)
    array, samples = variables[column], signal.shape[1]
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape.count(samples) == 0:
        raise RecordingError(
            f"{path}: {field}={column!r} has shape {variables[column].shape}; it must hold a value for each of the "
            f"{samples} samples"
        )
    rows = array if array.shape[1] == samples else array.T
    return rows, [column] if len(rows) == 1 else [f"{column}_{i}" for i in range(len(rows))]


def _check_variable(path: Path, variables: Variables, name: str, field: str) -> None:
    if name not in variables:
        raise RecordingError(f"{path}: {field}={name!r}: no such variable. {_listing(variables)}")


def _named_channels(
    path: Path, variables: Variables, channels: Sequence[str], layout: str | None
) -> tuple[np.ndarray, list[str]]:
    """Channels that are variables of their own, one below the other: (channels, time) and names."""
    parts = []
    for name in channels:
        _check_variable(path, variables, name, "channels")
        parts.append(_oriented(path, name, variables[name], None, layout))
    lengths = {part.shape[1]: name for part, name in zip(parts, channels, strict=True)}
    if len(lengths) > 1:
        found = ", ".join(f"{name} {length}" for length, name in lengths.items())
        raise RecordingError(f"{path}: the channels differ in samples ({found}); name others, or repair the file")
    names = [
        name if len(part) == 1 else f"{name}_{i}"
        for part, name in zip(parts, channels, strict=True)
        for i in range(len(part))
    ]
    return np.concatenate(parts), names


def _pick_variable(path: Path, variables: Variables, key: str | None, taken: set[Column]) -> str:
    """The variable with the signal; `taken` are those with labels or targets."""
    if key is not None:
        _check_variable(path, variables, key, "key")
        return key
    if len(variables) == 1:
        return next(iter(variables))
    free = {name: array for name, array in variables.items() if name not in taken}
    matrices = [name for name, array in free.items() if array.ndim == 2 and min(array.shape) > 1]
    candidates = matrices or [name for name, array in free.items() if array.ndim in (1, 2) and array.size > 1]
    for usual in SIGNAL_NAMES:
        named = [name for name in candidates if name.split("/")[-1].lower() == usual]
        if len(named) == 1:
            return named[0]
    if len(candidates) == 1:
        return candidates[0]
    raise RecordingError(f"{path}: which variable is the signal is not clear; name it with key. {_listing(variables)}")


def _listing(variables: Variables) -> str:
    if not variables:
        return "The file holds no numeric arrays (Python objects are not loaded)"
    shapes = [f"{name} {array.shape}" for name, array in variables.items() if array.ndim]
    return f"The file holds {', '.join(shapes) or 'single numbers only'}"


def _oriented(path: Path, name: str, array: np.ndarray, expected: int | None, layout: str | None) -> np.ndarray:
    """The array as (channels, time)."""
    if array.ndim == 1 and array.size:
        return array[None, :]
    if array.ndim != 2 or array.size == 0:
        raise RecordingError(
            f"{path}: {name} has shape {array.shape}; a recording has the two axes channels and time, and at least one "
            "sample"
        )
    if layout is None and expected is not None and array.shape.count(expected) == 1:
        layout = LAYOUTS[array.shape.index(expected)]
    if layout is None:
        short, long = sorted(array.shape)
        if long < LAYOUT_RATIO * short:
            raise RecordingError(
                f'{path}: which axis of {name} {array.shape} is time is not clear; state layout="channels_time" or '
                'layout="time_channels"'
            )
        layout = LAYOUTS[array.shape.index(short)]
    return array if layout == "channels_time" else array.T


def _stated_rate(path: Path, variables: Variables) -> float | None:
    rates = {
        name: float(array.reshape(-1)[0])
        for name, array in variables.items()
        if name.split("/")[-1].lower() in RATE_NAMES and array.size == 1
    }
    if len(set(rates.values())) > 1:
        raise RecordingError(f"{path}: states several sampling rates: {rates}; keep one of them")
    return next(iter(rates.values()), None)
