"""Recordings in tables: a sample per row, a column per channel, in text (csv, tsv, txt) and parquet files."""

import contextlib
import csv
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from tinymyo_hf.recording_columns import (
    Column,
    Recording,
    RecordingError,
    Wanted,
    as_labels,
    at_boundary,
    column_position,
)
from tinymyo_hf.recording_formats import read_parquet

NOT_CHANNELS = frozenset(
    ("", "index", "sample", "t", "time", "time_s", "time_ms", "timestamp", "timestamps")
    + ("class", "gesture", "label", "labels", "restimulus", "stimulus", "target")
    + ("repetition", "rerepetition", "session", "subject")
)
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
ROWS_AT_ONCE = 50_000


class _Picked(NamedTuple):
    """Positions of the columns to read."""

    channels: list[int]
    targets: list[int]
    label: int | None


def read_text(path: Path, wanted: Wanted) -> Recording:
    """A csv, tsv or txt file; line numbers in messages count from 1."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows, delimiter = _text_rows(handle, path.suffix.lower())
            first = next(rows, None)
            if first is None:
                raise RecordingError(f"{path}: no rows; write one sample per row")
            named = _is_header(path, *first)
            names = [cell.strip() for cell in first[1]] if named else [str(i) for i in range(len(first[1]))]
            picked = _pick(path, names, named, wanted)
            numbers = _read_numbers(path, delimiter, first[0] if named else first[0] - 1, len(names))
            if numbers is None:
                if not named:
                    rows = itertools.chain([first], rows)
                values, labels = _parse_rows(path, rows, names, picked)
            else:
                values = numbers[picked.channels + picked.targets]
                labels = None if picked.label is None else numbers[picked.label]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path}: not a text table ({error}); save it as UTF-8 csv") from error
    if wanted.channels is None and not named:
        _refuse_time_column(path, values, picked.channels)
    return _recording(values, None, labels, names, picked)


def _recording(
    values: np.ndarray, rate: float | None, labels: np.ndarray | None, names: list[str], picked: _Picked
) -> Recording:
    """`values` holds the channels and below them the targets, (rows, time)."""
    count = len(picked.channels)
    return Recording(
        values[:count],
        rate,
        None if labels is None else as_labels(labels),
        tuple(names[i] for i in picked.channels),
        values[count:] if picked.targets else None,
        tuple(names[i] for i in picked.targets),
    )


def _text_rows(handle: TextIO, suffix: str) -> tuple[Iterator[tuple[int, list[str]]], str | None]:
    """(line number from 1, cells) of the rows that are neither blank nor leading # comments, and what parts the cells.

    The delimiter is None where it is any white space.
    """
    skipped, line = 0, handle.readline()
    while line and (not line.strip() or line.startswith("#")):
        skipped, line = skipped + 1, handle.readline()
    lines = itertools.chain([line] if line else [], handle)
    delimiter = next((d for d in "\t;," if d in line), None)
    if delimiter is None and suffix == ".txt":
        return ((n, line.split()) for n, line in enumerate(lines, skipped + 1) if line.strip()), None
    reader = csv.reader(lines, delimiter=delimiter or ",")
    return ((skipped + reader.line_num, cells) for cells in reader if cells), delimiter or ","


def _read_numbers(path: Path, delimiter: str | None, skip: int, columns: int) -> np.ndarray | None:
    """A table of nothing but numbers, float64 (columns, rows), below `skip` lines, several times as fast as by cells.

    None where the table holds anything else: then it is read cell by cell, which names the line at fault.
    """
    try:
        with open(path, encoding="utf-8-sig") as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a table without rows
            numbers = np.loadtxt(handle, delimiter=delimiter, comments=None, skiprows=skip, ndmin=2)
    except ValueError:
        return None
    return numbers.T if numbers.size and numbers.shape[1] == columns else None


def _parse_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], names: list[str], picked: _Picked
) -> tuple[np.ndarray, np.ndarray | None]:
    """Channels and below them targets, float64 (rows, time), and the cells of the labels."""
    values: list[np.ndarray] = []
    labels: list[str] = []
    while block := list(itertools.islice(rows, ROWS_AT_ONCE)):
        for line, cells in block:
            if len(cells) != len(names):
                raise RecordingError(
                    f"{path}, line {line}: {len(cells)} columns where the first row has {len(names)}; repair the line, "
                    "or copy the file again if it was cut off"
                )
        lines, columns = [line for line, _ in block], list(zip(*(cells for _, cells in block), strict=True))
        positions = picked.channels + picked.targets
        values.append(np.stack([_parse_column(path, lines, columns[i], names[i]) for i in positions]))
        if picked.label is not None:
            labels.extend(columns[picked.label])
    if not values:
        raise RecordingError(f"{path}: a header but no samples below it; write one sample per row")
    return np.concatenate(values, axis=1), None if picked.label is None else np.array(labels)


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


def read_parquet_table(path: Path, wanted: Wanted) -> Recording:
    """A parquet file, whose columns always have names."""
    table, rate = at_boundary(path, read_parquet)
    names = list(table)
    picked = _pick(path, names, True, wanted)
    columns = []
    for i in picked.channels + picked.targets:
        if table[names[i]].dtype.kind not in "fiu":
            raise RecordingError(
                f"{path}, column {names[i]!r}: its values are not numbers; select the columns to read with channels"
            )
        columns.append(table[names[i]])
    if columns[0].size == 0:
        raise RecordingError(f"{path}: no rows; write one sample per row")
    values = np.stack(columns).astype(np.result_type(*columns, np.float32))
    return _recording(values, rate, None if picked.label is None else table[names[picked.label]], names, picked)


def _pick(path: Path, names: list[str], named: bool, wanted: Wanted) -> _Picked:
    def positions(columns: Sequence[Column], field: str) -> list[int]:
        return [column_position(path, names, named, column, field) for column in columns]

    label = None if wanted.label_column is None else positions([wanted.label_column], "label_column")[0]
    targets = positions(wanted.target_columns or (), "target_columns")
    if wanted.channels is not None:
        channels = positions(wanted.channels, "channels")
    else:
        others = {label, *targets} | {i for i, name in enumerate(names) if named and name.lower() in NOT_CHANNELS}
        channels = [i for i in range(len(names)) if i not in others]
    if not channels:
        raise RecordingError(f"{path}: none of the columns ({', '.join(names)}) is a channel; name them with channels")
    return _Picked(channels, targets, label)
