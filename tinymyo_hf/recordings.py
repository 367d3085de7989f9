"""Read one recording from a user's own file -> (channels, time).

Formats: csv, tsv, txt, parquet, npy, npz, mat, hdf5, and binary files without a header.

Two rules settle what lies where; where they do not, the file is refused with the option that settles it:

- A table (text, parquet) has one sample per row and one column per channel. Columns whose name says that they are no
  channels (`NOT_CHANNELS`: time, class, repetition, ...) are left out unless `channels` names them.
- An array (npy, npz, mat, hdf5) may lie either way. `layout` states it; else the axis as long as `num_channels` holds
  the channels; else the axis at least `LAYOUT_RATIO` times as long as the other is time.

A session of emg2qwerty (hdf5) is known by its table: both wristbands, left before right, with times and rate.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tinymyo_hf.recording_arrays import LAYOUT_RATIO, LAYOUTS, read_array_file, read_raw_file
from tinymyo_hf.recording_columns import Column, Recording, RecordingError, Wanted
from tinymyo_hf.recording_formats import ARRAY_READERS
from tinymyo_hf.recording_sessions import read_session
from tinymyo_hf.recording_tables import NOT_CHANNELS, TEXT_SUFFIXES, read_parquet_table, read_text

__all__ = [
    "LAYOUTS",
    "LAYOUT_RATIO",
    "NOT_CHANNELS",
    "RAW_SUFFIXES",
    "SUFFIXES",
    "Recording",
    "RecordingError",
    "read_recording",
]

RAW_SUFFIXES = (".dat", ".bin", ".raw")
HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", *ARRAY_READERS, *RAW_SUFFIXES)


def read_recording(
    path: str | Path,
    *,
    channels: Sequence[Column] | None = None,
    label_column: Column | None = None,
    target_columns: Sequence[Column] | None = None,
    sampling_rate: float | None = None,
    num_channels: int | None = None,
    key: str | None = None,
    layout: str | None = None,
    raw_type: str | None = None,
    raw_channels: int | None = None,
) -> Recording:
    """Read a recording; see the module's rules for what is taken as a channel and what as time.

    A column is a name or a position from 0 (negative from the end). In a file of arrays a name is a variable of its
    own, and a position a channel of the signal's array. A text of digits is a position where nothing is called so.

    Args:
        path: a file of one of the `SUFFIXES`.
        channels: the channels to keep, in this order. By default all columns of a table but labels, targets and
            `NOT_CHANNELS`; all channels of an array but labels and targets.
        label_column: the column with a label per sample.
        target_columns: the columns with regression targets, in this order; a variable may hold several,
            (time, outputs) or (outputs, time).
        sampling_rate: Hz; must agree with the file where that states one.
        num_channels: how many channels there must be, if known; it settles the layout of an array, and another number
            is an error.
        key: the variable to read from a file of several arrays ("emg", "group/emg"). By default the only
            two-dimensional one, or the one called emg, signal, data or x.
        layout: "channels_time" or "time_channels", for arrays; tables have one sample per row, binary files without a
            header one sample after the other ("time_channels") unless this says otherwise.
        raw_type: for binary files without a header: "int8", "int16", "int32", "float32" or "float64", little-endian.
        raw_channels: numbers per sample in such a file.

    Raises:
        RecordingError: (a ValueError) naming file, line or variable, and the fix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if layout is not None and layout not in LAYOUTS:
        raise RecordingError(f"layout={layout!r}: unknown; use one of {', '.join(LAYOUTS)}")
    if suffix not in SUFFIXES:
        raise RecordingError(f"{path}: files ending in {suffix!r} cannot be read; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise RecordingError(f"{path}: the file is empty; copy or download it again")
    wanted = Wanted(channels, label_column, target_columns)
    plain = channels is label_column is target_columns is key is layout is None
    session = read_session(path) if suffix in HDF5_SUFFIXES and plain else None
    if session is not None:
        recording = session
    elif suffix in ARRAY_READERS:
        recording = read_array_file(path, wanted, num_channels, key, layout)
    elif suffix in RAW_SUFFIXES:
        recording = read_raw_file(path, wanted, raw_type, raw_channels, layout)
    else:
        recording = (read_text if suffix in TEXT_SUFFIXES else read_parquet_table)(path, wanted)
    if num_channels is not None and len(recording.signal) != num_channels:
        raise RecordingError(
            f"{path}: {len(recording.signal)} channels ({', '.join(recording.columns)}) where {num_channels} are "
            "expected; name those to use with channels"
        )
    return dataclasses.replace(recording, sampling_rate=_agreed_rate(path, recording.sampling_rate, sampling_rate))


def _agreed_rate(path: Path, stated: float | None, given: float | None) -> float | None:
    if stated is not None and given is not None and abs(stated - given) > 1e-6 * given:
        raise RecordingError(
            f"{path}: the file states a sampling rate of {stated:g} Hz, but sampling_rate={given:g} was given; correct "
            "one of them, or leave sampling_rate out"
        )
    return stated if given is None else given
