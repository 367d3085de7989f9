"""What the HDF5 corpora of Reality Labs share: a compound series with a timestamp per sample, events by time.

Times are in seconds, do not decrease, and increase by 1/2000 s from one sample to the next, except for gaps.
"""

import bisect
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from .errors import LayoutError, RecordingError
from .hdf5_files import check_dataset, check_timestamps

SAMPLING_RATE = 2000.0
BAND_CHANNELS = 16
"""Electrodes of one wristband."""

RATE_TOLERANCE = 0.02
ROWS_AT_ONCE = 1 << 17
AGAIN = "download the file again"
GAPS = "gaps in the timestamps"


def find_files(root: Path, pattern: str) -> dict[str, Path]:
    """The files of a corpus by their names without suffix.

    Args:
        root: folder of the corpus; files may be at any depth.
        pattern: of the names of the files.

    Raises:
        LayoutError: a file is there twice.
    """
    files: dict[str, Path] = {}
    for path in sorted(root.rglob(pattern)):
        if not path.is_file() or path.name.startswith("."):  # a dot: what macOS adds to archives
            continue
        if path.stem in files:
            raise LayoutError(f"{path.name} is there twice: {files[path.stem]} and {path}; remove one of them")
        files[path.stem] = path
    return files


def find_series(group: h5py.Group, name: str, bands: Sequence[str], path: str) -> h5py.Dataset:
    """The compound dataset `name` with a float `time` and a field of 16 floats for each wristband, checked.

    Raises:
        RecordingError: there is none, it lacks a field, is empty or incomplete.
    """
    series = group.get(name)
    if not isinstance(series, h5py.Dataset) or series.ndim != 1:
        raise RecordingError(f"{path}: no dataset {name!r} of one dimension; {AGAIN}")
    where = f"{path}, dataset {name!r}"
    for field, shape in [("time", ()), *((band, (BAND_CHANNELS,)) for band in bands)]:
        kind = series.dtype[field] if field in (series.dtype.names or ()) else None
        if kind is None or kind.shape != shape or kind.base.kind != "f":
            raise RecordingError(
                f"{where}: its fields are {series.dtype}; expected {field!r} with {shape or 'one'} "
                f"floating-point numbers in a row; {AGAIN}"
            )
    if not len(series):
        raise RecordingError(f"{where}: no samples; leave the file out")
    check_dataset(series, where)
    return series


def row_at_time(series: h5py.Dataset, time: float) -> int:
    """The first row that is not before `time`; only a few rows are read."""
    return bisect.bisect_left(range(len(series)), time, key=lambda row: float(series[row]["time"]))


def read_series(
    series: h5py.Dataset, bands: Sequence[str], first: int, last: int, path: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Some rows of a series, read in blocks so that no more memory is needed than for the result.

    Args:
        series: as from `find_series`.
        bands: fields of the wristbands, in the order wanted.
        first, last: the rows from `first` up to `last`.
        path: file, for messages.

    Returns:
        Times float64 (rows,); samples float32 (16 * bands, rows); the number of gaps in the times.

    Raises:
        RecordingError: a time is not a number or earlier than the one before, or the rate is not 2000 Hz.
    """
    times = np.empty(last - first)
    samples = np.empty((BAND_CHANNELS * len(bands), last - first), np.float32)
    for start in range(first, last, ROWS_AT_ONCE):
        rows = series[start : min(start + ROWS_AT_ONCE, last)]
        place = slice(start - first, start - first + len(rows))
        times[place] = rows["time"]
        for i, band in enumerate(bands):
            samples[i * BAND_CHANNELS : (i + 1) * BAND_CHANNELS, place] = rows[band].T
    gaps = check_timestamps(times, SAMPLING_RATE, path)
    step = np.median(np.diff(times)) if len(times) > 1 else 1 / SAMPLING_RATE
    if abs(step * SAMPLING_RATE - 1) > RATE_TOLERANCE:
        raise RecordingError(
            f"{path}: samples are {1000 * step:.3g} ms apart instead of {1000 / SAMPLING_RATE:g} ms ({SAMPLING_RATE:g} "
            f"Hz); {AGAIN}"
        )
    return times, samples, gaps


def positions(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Where moments (seconds) lie among samples with the given times, float64, in samples from the first."""
    return np.interp(moments, times, np.arange(len(times), dtype=np.float64))


def text_attribute(node: h5py.Group | h5py.Dataset, name: str, path: str) -> str:
    """An attribute that is one text, of fixed or variable length."""
    attribute = _attribute(node, name, (h5py.h5t.TypeStringID,), "a text", path)
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    text = value[()] or b""  # a text of no length is None
    try:
        return text if isinstance(text, str) else bytes(text).decode()
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}, attribute {name!r}: not UTF-8 ({error}); {AGAIN}") from error


def number_attribute(node: h5py.Group | h5py.Dataset, name: str, path: str) -> float:
    """An attribute that is one number."""
    attribute = _attribute(node, name, (h5py.h5t.TypeFloatID, h5py.h5t.TypeIntegerID), "a number", path)
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    return float(value)


def _attribute(
    node: h5py.Group | h5py.Dataset, name: str, kinds: tuple[type, ...], what: str, path: str
) -> h5py.h5a.AttrID:
    if name not in node.attrs:
        raise RecordingError(f"{path}: {node.name} has no attribute {name!r}; {AGAIN}")
    attribute = node.attrs.get_id(name)
    kind = attribute.get_type()
    # the library crashes where a damaged type says that something else lies there
    sound = isinstance(kind, h5py.h5t.TypeStringID) or kind.equal(h5py.h5t.py_create(attribute.dtype))
    if not sound or not isinstance(kind, kinds) or attribute.shape != ():
        raise RecordingError(f"{path}, attribute {name!r} of {node.name}: not {what} ({attribute.dtype}); {AGAIN}")
    return attribute
