"""metadata.csv of a folder of recordings: read and checked line by line, and the task that its columns amount to."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError, LayoutError, SplitError
from .protocols import split_name

METADATA = "metadata.csv"
COLUMNS = (
    *("file_name", "label", "label_column", "target_file", "target_columns", "target_sampling_rate"),
    *("event_file", "text", "subject", "session", "split", "sampling_rate"),
)
TASK_COLUMNS = {
    "classification": ("label", "label_column"),
    "regression": ("target_file", "target_columns"),
    "events": ("event_file",),
    "text": ("text",),
}
"""The columns that make a recording one for a task."""

UNLABELLED_TASK = "unlabelled"
LIST_SEPARATOR = ";"


@dataclass(frozen=True)
class Row:
    """One line of metadata.csv; a field is None where the column is missing or the cell is empty.

    Attributes:
        line: number in the file, for messages.
        path, file_name: the recording, and how the line calls it.
        label: of the whole recording. label_column: the column with a label per sample.
        target_file: has the regression targets, a row per frame, `target_sampling_rate` (Hz) of them per second.
        target_columns: which columns hold the targets, in that file, or else in the recording's own.
        event_file: has a row per event.
        text: what was said or typed in the recording.
        split: "train", "validation" or "test".
        sampling_rate: Hz.
    """

    line: int
    path: Path
    file_name: str
    label: str | None
    label_column: str | None
    target_file: Path | None
    target_columns: tuple[str, ...] | None
    target_sampling_rate: float | None
    event_file: Path | None
    text: str | None
    subject: str | None
    session: str | None
    split: str | None
    sampling_rate: float | None


def read_metadata(root: Path) -> list[Row]:
    """The rows of `root`/metadata.csv, in order.

    Raises:
        LayoutError: a line names no file, a file that is not there, one outside the folder or one named before, a
            sampling rate that is no rate, or both a label and a label per sample.
        SplitError: a line names an unknown split, or some lines have a split and others none.
    """
    path = root / METADATA
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or ()]
            if "file_name" not in header:
                raise LayoutError(
                    f"{path}, line 1: no column file_name (found: {', '.join(header) or 'nothing'}); the columns are "
                    f"{', '.join(COLUMNS)}, of which file_name is needed"
                )
            reader.fieldnames = header
            rows = [_row(root, path, reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{path}: not a text table ({error}); save it as UTF-8 csv") from error
    if not rows:
        raise LayoutError(f"{path}: no recording listed; write one line per file")
    _check_rows(path, rows)
    return rows


def task_of(metadata: Path, rows: Iterable[Row], asked: str | None, options: Mapping[str, str]) -> str:
    """The task that every row has the columns for.

    Args:
        metadata: the file, for messages.
        asked: the task to take where rows have the columns of several, or "unlabelled" to use none of them.
        options: for each task the builder's option that does for all rows what its columns do for one.

    Raises:
        LayoutError: a row has no such column filled in, or rows are for different tasks; the message names the lines.
        ConfigError: an unknown task was asked for.
    """
    known = (*TASK_COLUMNS, UNLABELLED_TASK)
    if asked not in (None, *known):
        raise ConfigError(f"task={asked!r}: unknown; use one of {', '.join(known)}")
    if asked == UNLABELLED_TASK:
        return asked
    lines: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        found = {task: f"option {option}" for task, option in options.items()}
        found |= {task: c for task, columns in TASK_COLUMNS.items() for c in columns if getattr(row, c) is not None}
        if not found or asked not in (None, *found):
            columns = TASK_COLUMNS[asked] if asked else [c for group in TASK_COLUMNS.values() for c in group]
            raise LayoutError(
                f"{metadata}, line {row.line}: {row.file_name} has neither {' nor '.join(columns)}; fill in one of "
                f'them, as in the other lines, or, if no recording is labelled, set task="{UNLABELLED_TASK}"'
            )
        lines.setdefault(tuple(f"{task} ({column})" for task, column in found.items()), []).append(row.line)
    tasks = {text.split(" ")[0] for texts in lines for text in texts}
    if asked is None and len(tasks) > 1:
        groups = [f"{_lines(numbers)} for {' and '.join(texts)}" for texts, numbers in lines.items()]
        raise LayoutError(
            f"{metadata} is for several tasks: {', '.join(groups)}; fill in the columns of one task in every line, or "
            "choose one with the option task"
        )
    return asked or tasks.pop()


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"line{'s' * (len(numbers) > 1)} {shown}"


def _row(root: Path, metadata: Path, line: int, cells: dict) -> Row:
    where = f"{metadata}, line {line}"
    if None in cells or None in cells.values():
        raise LayoutError(f"{where}: not as many cells as the header has columns; repair the line")
    values: dict = {name: cells.get(name, "").strip() or None for name in COLUMNS}
    if values["file_name"] is None:
        raise LayoutError(f"{where}: file_name is empty; name the recording, or remove the line")
    if values["label"] is not None and values["label_column"] is not None:
        raise LayoutError(f"{where}: both label and label_column are filled in; keep one of them")
    values["path"] = _file(root, where, "file_name", values["file_name"])
    for column in ("target_file", "event_file"):
        values[column] = values[column] and _file(root, where, column, values[column])
    for column in ("sampling_rate", "target_sampling_rate"):
        values[column] = values[column] and _rate(where, column, values[column])
    if values["target_columns"] is not None:
        values["target_columns"] = tuple(name.strip() for name in values["target_columns"].split(LIST_SEPARATOR))
    try:
        values["split"] = values["split"] and split_name(values["split"])
    except SplitError as error:
        raise SplitError(f"{where}: {error}") from error
    return Row(**values | {"line": line})


def _file(root: Path, where: str, column: str, name: str) -> Path:
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise LayoutError(f"{where}: {name} lies outside {root}; move the file into the folder")
        if path.is_file():
            return path
    except (OSError, ValueError) as error:  # a name the system does not take: too long, with a zero byte
        raise LayoutError(f"{where}: {column} is not the name of a file ({error}); correct it") from error
    raise LayoutError(f"{where}: {path} does not exist; correct {column}, or remove the line")


def _rate(where: str, column: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        raise LayoutError(f"{where}: {column} {text!r} is not a number of Hz; correct it") from None
    if not (math.isfinite(rate) and rate > 0):
        raise LayoutError(f"{where}: {column} {rate:g} is not a positive number of Hz; correct it")
    return rate


def _check_rows(metadata: Path, rows: list[Row]) -> None:
    first: dict[Path, int] = {}
    for row in rows:
        if first.setdefault(row.path, row.line) != row.line:
            raise LayoutError(
                f"{metadata}, line {row.line}: {row.file_name} is already on line {first[row.path]}; remove one of them"
            )
    without = [row.line for row in rows if row.split is None]
    if without and len(without) < len(rows):
        raise SplitError(
            f"{metadata}, line {without[0]}: no split, while other lines have one; fill in train, validation or test"
        )
