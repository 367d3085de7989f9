"""Read one recording from a user's own file: csv, tsv, txt, parquet, npy, npz, mat or hdf5 -> (channels, time).

Two rules settle what lies where; where they do not, the file is refused with the option that settles it:

- A table (text, parquet) has one sample per row and one column per channel. Columns whose name says that they are no
  channels (`NOT_CHANNELS`: time, class, repetition, ...) are left out unless `channels` names them.
- An array (npy, npz, mat, hdf5) may lie either way. `layout` states it; else the axis as long as `num_channels` holds
  the channels; else the axis at least `LAYOUT_RATIO` times as long as the other is time.
"""

import contextlib
import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tinymyo_hf.recording_formats import ARRAY_READERS, Variables, read_parquet
from tinymyo_hf.signal import SignalError

NOT_CHANNELS = frozenset(
    ("", "index", "sample", "t", "time", "time_s", "time_ms", "timestamp", "timestamps")
    + ("class", "gesture", "label", "labels", "restimulus", "stimulus", "target")
    + ("repetition", "rerepetition", "session", "subject")
)
SIGNAL_NAMES = ("emg", "signal", "data", "x")
RATE_NAMES = frozenset(("fs", "sampling_rate", "samplingrate", "sample_rate", "sampling_frequency", "sfreq", "srate"))
LAYOUTS = ("channels_time", "time_channels")
LAYOUT_RATIO = 8
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", *ARRAY_READERS)
ROWS_AT_ONCE = 50_000


class RecordingError(SignalError):
    """A file that cannot be read as a recording; the message names file, place and fix."""


@dataclass(frozen=True)
class Recording:
    """What a file holds.

    signal: (channels, time), float32 or float64, in the file's own unit; missing cells of a table are NaN.
    sampling_rate: Hz, where the file or the caller states it.
    labels: (time,) int64 where all are whole numbers, float64 for other numbers, else str; None if not asked for.
    columns: a name for each channel.
    """

    signal: np.ndarray
    sampling_rate: float | None
    labels: np.ndarray | None
    columns: tuple[str, ...]


def read_recording(
    path: str | Path,
    *,
    channels: Sequence[int | str] | None = None,
    label_column: int | str | None = None,
    sampling_rate: float | None = None,
    num_channels: int | None = None,
    key: str | None = None,
    layout: str | None = None,
) -> Recording:
    """Read a recording; see the module's rules for what is taken as a channel and what as time.

    Args:
        path: a file of one of the `SUFFIXES`.
        channels: the channels to keep, in this order: column names or positions from 0 (negative from the end). By
            default all columns of a table but the label column and `NOT_CHANNELS`; all channels of an array.
        label_column: the column with a label per sample, by name or position. In a file of arrays a name is a variable
            of its own, (time,), and a position a channel of the array.
        sampling_rate: Hz; must agree with the file where that states one.
        num_channels: how many channels there must be, if known; it settles the layout of an array, and another number
            is an error.
        key: the variable to read from a file of several arrays ("emg", "group/emg"). By default the only
            two-dimensional one, or the one named as in `SIGNAL_NAMES`.
        layout: "channels_time" or "time_channels", for arrays; tables have one sample per row.

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
    if suffix in ARRAY_READERS:
        recording = _read_arrays(path, channels, label_column, num_channels, key, layout)
    else:
        read_table = _read_text if suffix in TEXT_SUFFIXES else _read_parquet
        recording = read_table(path, channels, label_column)
    if num_channels is not None and len(recording.signal) != num_channels:
        raise RecordingError(
            f"{path}: {len(recording.signal)} channels ({', '.join(recording.columns)}) where {num_channels} are "
            "expected; name those to use with channels"
        )
    rate = _agreed_rate(path, recording.sampling_rate, sampling_rate)
    return Recording(recording.signal, rate, recording.labels, recording.columns)


def _agreed_rate(path: Path, stated: float | None, given: float | None) -> float | None:
    if stated is not None and given is not None and abs(stated - given) > 1e-6 * given:
        raise RecordingError(
            f"{path}: the file states a sampling rate of {stated:g} Hz, but sampling_rate={given:g} was given; correct "
            "one of them, or leave sampling_rate out"
        )
    return stated if given is None else given


# Tables ---------------------------------------------------------------------------------------------------------------


def _read_text(path: Path, channels: Sequence[int | str] | None, label_column: int | str | None) -> Recording:
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = _text_rows(handle, path.suffix.lower())
            first = next(rows, None)
            if first is None:
                raise RecordingError(f"{path}: no rows; write one sample per row")
            named = _is_header(path, *first)
            names = [cell.strip() for cell in first[1]] if named else [str(i) for i in range(len(first[1]))]
            picked, label = _pick_columns(path, names, named, channels, label_column)
            if not named:
                rows = itertools.chain([first], rows)
            signal, labels = _parse_rows(path, rows, names, picked, label)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path}: not a text table ({error}); save it as UTF-8 csv") from error
    if channels is None and not named:
        _refuse_time_column(path, signal, picked)
    return Recording(signal, None, labels, tuple(names[i] for i in picked))


def _text_rows(handle: TextIO, suffix: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number from 1, cells) of the rows that are neither blank nor leading # comments."""
    skipped, line = 0, handle.readline()
    while line and (not line.strip() or line.startswith("#")):
        skipped, line = skipped + 1, handle.readline()
    lines = itertools.chain([line] if line else [], handle)
    delimiter = next((d for d in "\t;," if d in line), None)
    if delimiter is None and suffix == ".txt":
        yield from ((n, line.split()) for n, line in enumerate(lines, skipped + 1) if line.strip())
        return
    reader = csv.reader(lines, delimiter=delimiter or ",")
    for cells in reader:
        if cells:
            yield skipped + reader.line_num, cells


def _parse_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], names: list[str], picked: list[int], label: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    signals: list[np.ndarray] = []
    labels: list[str] = []
    while block := list(itertools.islice(rows, ROWS_AT_ONCE)):
        for line, cells in block:
            if len(cells) != len(names):
                raise RecordingError(
                    f"{path}, line {line}: {len(cells)} columns where the first row has {len(names)}; repair the line, "
                    "or copy the file again if it was cut off"
                )
        lines, columns = [line for line, _ in block], list(zip(*(cells for _, cells in block), strict=True))
        signals.append(np.stack([_parse_column(path, lines, columns[i], names[i]) for i in picked]))
        if label is not None:
            labels.extend(columns[label])
    if not signals:
        raise RecordingError(f"{path}: a header but no samples below it; write one sample per row")
    return np.concatenate(signals, axis=1), None if label is None else _as_labels(np.array(labels))


def _is_header(path: Path, line: int, cells: list[str]) -> bool:
    """Whether the first row holds names: words (numbers that count up among them), or 0, 1, 2, ... as pandas does."""
    texts = [cell.strip() for cell in cells]
    numbers = [text for text in texts if _is_number(text)]
    words = [text for text in texts if text and not _is_number(text)]
    counts = all(text.isdecimal() for text in numbers) and all(
        int(b) - int(a) == 1 for a, b in itertools.pairwise(numbers)
    )
    if words and not counts:
        raise RecordingError(
            f"{path}, line {line}: {words[0]!r} stands among numbers; repair the cell, or give every column a name"
        )
    unnamed = texts[1:] if texts[0] == "" else texts  # pandas leaves the name of an index out
    return bool(words) or (len(unnamed) > 2 and unnamed == [str(i) for i in range(len(unnamed))])


def _parse_column(path: Path, lines: list[int], cells: Sequence[str], name: str) -> np.ndarray:
    if "_" not in "".join(cells):  # Python would read 1_000 as a number
        with contextlib.suppress(ValueError):
            return np.fromiter(map(float, cells), np.float64, len(cells))
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        if cell.strip() and not _is_number(cell):
            raise RecordingError(
                f"{path}, line {lines[i]}, column {name!r}: {cell!r} is not a number; repair the cell, leave it empty "
                "for a missing sample, or select the columns to read with channels"
            )
        values[i] = float(cell) if cell.strip() else np.nan
    return values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _refuse_time_column(path: Path, signal: np.ndarray, picked: list[int]) -> None:
    """Without a header nothing tells time from a channel, but no electrode rises at every single sample."""
    for row, position in zip(signal, picked, strict=True):
        if len(row) > 20 and (np.diff(row) > 0).all():
            raise RecordingError(
                f"{path}: column {position} rises from row to row, as time does, and there is no header to tell; "
                f"list the columns that hold EMG, for instance channels={[p for p in picked if p != position]}"
            )


def _read_parquet(path: Path, channels: Sequence[int | str] | None, label_column: int | str | None) -> Recording:
    table, rate = _at_boundary(path, read_parquet)
    names = list(table)
    picked, label = _pick_columns(path, names, True, channels, label_column)
    columns = []
    for i in picked:
        if table[names[i]].dtype.kind not in "fiu":
            raise RecordingError(
                f"{path}, column {names[i]!r}: its values are not numbers; select the columns to read with channels"
            )
        columns.append(table[names[i]])
    if columns[0].size == 0:
        raise RecordingError(f"{path}: no rows; write one sample per row")
    labels = None if label is None else _as_labels(table[names[label]])
    signal = np.stack(columns).astype(np.result_type(*columns, np.float32))
    return Recording(signal, rate, labels, tuple(names[i] for i in picked))


def _pick_columns(
    path: Path, names: list[str], named: bool, channels: Sequence[int | str] | None, label_column: int | str | None
) -> tuple[list[int], int | None]:
    label = None if label_column is None else _position(path, names, named, label_column, "label_column")
    if channels is not None:
        picked = [_position(path, names, named, channel, "channels") for channel in channels]
    else:
        picked = [i for i, name in enumerate(names) if not (named and name.lower() in NOT_CHANNELS) and i != label]
    if not picked:
        raise RecordingError(f"{path}: none of the columns ({', '.join(names)}) is a channel; name them with channels")
    return picked, label


def _position(path: Path, names: list[str], named: bool, column: int | str, field: str) -> int:
    if isinstance(column, str):
        if named and names.count(column) == 1:
            return names.index(column)
        problem = f"{names.count(column)} columns have that name" if column in names else "no column has that name"
        fix = f"the columns are {', '.join(names)}" if named else "the file has no header: give positions from 0"
        raise RecordingError(f"{path}: {field} {column!r}: {problem}; {fix}")
    if not -len(names) <= column < len(names):
        raise RecordingError(f"{path}: {field} {column}: there are {len(names)} columns; give a position from 0")
    return column % len(names)


def _as_labels(values: np.ndarray) -> np.ndarray:
    """int64 where all are whole numbers, float64 for other numbers, else str."""
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        return values.astype(str)
    whole = np.isfinite(numbers).all() and (numbers == np.round(numbers)).all() and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers


# Arrays ---------------------------------------------------------------------------------------------------------------


def _read_arrays(
    path: Path,
    channels: Sequence[int | str] | None,
    label_column: int | str | None,
    num_channels: int | None,
    key: str | None,
    layout: str | None,
) -> Recording:
    variables = _at_boundary(path, ARRAY_READERS[path.suffix.lower()])
    name = _pick_variable(path, variables, key)
    label_in_array = label_column is not None and not isinstance(label_column, str)
    # Where channels are selected, num_channels counts the selected ones and tells nothing about the axes.
    expected = num_channels + label_in_array if num_channels is not None and channels is None else None
    signal = _oriented(path, name, variables[name], expected, layout)
    names = [str(i) for i in range(len(signal))]
    picked, label = _pick_columns(path, names, False, channels, label_column if label_in_array else None)
    labels = None
    if label_in_array:
        labels = _as_labels(signal[label])
    elif label_column is not None:
        labels = _pick_labels(path, variables, label_column, signal.shape[1])
    signal = signal[picked].astype(np.result_type(signal.dtype, np.float32), copy=False)
    return Recording(signal, _stated_rate(path, variables), labels, tuple(names[i] for i in picked))


def _pick_variable(path: Path, variables: Variables, key: str | None) -> str:
    if key is not None:
        if key in variables:
            return key
        raise RecordingError(f"{path}: key={key!r}: no such variable. {_listing(variables)}")
    if len(variables) == 1:
        return next(iter(variables))
    matrices = [name for name, array in variables.items() if array.ndim == 2 and min(array.shape) > 1]
    candidates = matrices or [name for name, array in variables.items() if array.ndim in (1, 2) and array.size > 1]
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


def _pick_labels(path: Path, variables: Variables, name: str, samples: int) -> np.ndarray:
    if name not in variables:
        raise RecordingError(f"{path}: label_column={name!r}: no such variable. {_listing(variables)}")
    labels = variables[name]
    if labels.size != samples or max(labels.shape) != samples:
        raise RecordingError(
            f"{path}: label_column={name!r} has shape {labels.shape}; it must hold one label for each of the {samples} "
            "samples"
        )
    return _as_labels(labels.reshape(-1))


def _stated_rate(path: Path, variables: Variables) -> float | None:
    rates = {
        name: float(array.reshape(-1)[0])
        for name, array in variables.items()
        if name.split("/")[-1].lower() in RATE_NAMES and array.size == 1
    }
    if len(set(rates.values())) > 1:
        raise RecordingError(f"{path}: states several sampling rates: {rates}; keep one of them")
    return next(iter(rates.values()), None)


def _at_boundary(path: Path, read: Callable[[Path], Any]) -> Any:
    """Run a format's reader; whatever a damaged file makes its library raise becomes one error that names the file."""
    try:
        return read(path)
    except ImportError as error:
        raise RecordingError(f"{path}: reading this format needs {error.name}; pip install {error.name}") from error
    except Exception as error:  # the libraries raise almost anything on damaged files
        raise RecordingError(
            f"{path}: cannot be read as a {path.suffix.lower()} file of plain numbers ({type(error).__name__}: "
            f"{error}); it is damaged, holds Python objects, or is not what its name says: write or copy it again"
        ) from error
