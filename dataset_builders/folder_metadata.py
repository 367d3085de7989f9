"""metadata.csv of a folder of recordings: read and checked line by line."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from .errors import LayoutError, SplitError
from .protocols import split_name

METADATA = "metadata.csv"
COLUMNS = ("file_name", "label", "label_column", "subject", "session", "split", "sampling_rate")


@dataclass(frozen=True)
class Row:
    """One line of metadata.csv; a field is None where the column is missing or the cell is empty.

    Attributes:
        line: number in the file, for messages.
        path, file_name: the recording, and how the line calls it.
        label: of the whole recording. label_column: name of the column with a label per sample.
        split: "train", "validation" or "test".
        sampling_rate: Hz.
    """

    line: int
    path: Path
    file_name: str
    label: str | None
    label_column: str | None
    subject: str | None
    session: str | None
    split: str | None
    sampling_rate: float | None


def read_metadata(root: Path) -> list[Row]:
    """The rows of `root`/metadata.csv, in order.

    Raises:
        LayoutError: a line names no file, a file that is not there, one outside the folder or one named before, or a
            sampling rate that is no rate.
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


def _row(root: Path, metadata: Path, line: int, cells: dict) -> Row:
    where = f"{metadata}, line {line}"
    if None in cells or None in cells.values():
        raise LayoutError(f"{where}: not as many cells as the header has columns; repair the line")
    values = {name: cells.get(name, "").strip() or None for name in COLUMNS}
    if values["file_name"] is None:
        raise LayoutError(f"{where}: file_name is empty; name the recording, or remove the line")
    path = (root / values["file_name"]).resolve()
    if not path.is_relative_to(root.resolve()):
        raise LayoutError(f"{where}: {values['file_name']} lies outside {root}; move the recording into the folder")
    if not path.is_file():
        raise LayoutError(f"{where}: {path} does not exist; correct file_name, or remove the line")
    try:
        split = None if values["split"] is None else split_name(values["split"])
    except SplitError as error:
        raise SplitError(f"{where}: {error}") from error
    rate = values["sampling_rate"]
    try:
        rate = None if rate is None else float(rate)
    except ValueError:
        raise LayoutError(f"{where}: sampling_rate {rate!r} is not a number of Hz; correct it") from None
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise LayoutError(f"{where}: sampling_rate {rate:g} is not a positive number of Hz; correct it")
    return Row(**values | {"line": line, "path": path, "split": split, "sampling_rate": rate})


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
