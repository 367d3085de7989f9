"""What a reader of recordings is asked for and gives back, and how columns are named: shared by tables and arrays."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError

Column = int | str


class RecordingError(SignalError):
    """A file that cannot be read as a recording; the message names file, place and fix."""


@dataclass(frozen=True)
class Recording:
    """What a file holds.

    signal: (channels, time), float32 or float64, in the file's own unit; missing cells of a table are NaN.
    sampling_rate: Hz, where the file or the caller states it.
    labels: (time,) int64 where all are whole numbers, float64 for other numbers, else str; None if not asked for.
    columns: a name for each channel.
    targets: (outputs, time) float32 or float64, what `target_columns` asked for; None if it was not given.
    target_names: a name for each output.
    times: (time,) float64 in s by the recorder's clock, where the file has them in a form that is known (the sessions
        of emg2qwerty); None elsewhere.
    """

    signal: np.ndarray
    sampling_rate: float | None
    labels: np.ndarray | None
    columns: tuple[str, ...]
    targets: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    times: np.ndarray | None = None


@dataclass(frozen=True)
class Wanted:
    """The columns a caller asks for; None leaves the choice to the reader (channels) or asks for none."""

    channels: Sequence[Column] | None = None
    label_column: Column | None = None
    target_columns: Sequence[Column] | None = None


def column_position(path: Path, names: Sequence[str], named: bool, column: Column, field: str) -> int:
    """Where a column is. A text is a name, or, where nothing is called so, the digits of a position.

    Args:
        path, field: for messages.
        names: of all columns.
        named: whether the file gave the names; else columns have positions only.
        column: what was asked for.
    """
    if isinstance(column, str):
        if named and names.count(column) == 1:
            return names.index(column)
        if named and column in names or not is_position(column):
            problem = f"{names.count(column)} columns have that name" if column in names else "no column has that name"
            fix = f"the columns are {', '.join(names)}" if named else "the file has no header: give positions from 0"
            raise RecordingError(f"{path}: {field} {column!r}: {problem}; {fix}")
        column = int(column)
    if not -len(names) <= column < len(names):
        raise RecordingError(f"{path}: {field} {column}: there are {len(names)} columns; give a position from 0")
    return column % len(names)


def is_position(column: Column) -> bool:
    """Whether a column is given as a number, possibly written out, as in a cell of metadata.csv."""
    return not isinstance(column, str) or re.fullmatch(r"-?[0-9]{1,9}", column.strip()) is not None


def as_labels(values: np.ndarray) -> np.ndarray:
    """int64 where all are whole numbers, float64 for other numbers, else str."""
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        return values.astype(str)
    whole = np.isfinite(numbers).all() and (numbers == np.round(numbers)).all() and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers


def at_boundary(path: Path, read: Callable[..., Any], *arguments: object) -> Any:
    """Run a format's reader; whatever a damaged file makes its library raise becomes one error that names the file."""
    try:
        return read(path, *arguments)
    except ImportError as error:
        raise RecordingError(f"{path}: reading this format needs {error.name}; pip install {error.name}") from error
    except Exception as error:  # the libraries raise almost anything on damaged files
        raise RecordingError(
            f"{path}: cannot be read as a {path.suffix.lower()} file of plain numbers ({type(error).__name__}: "
            f"{error}); it is damaged, holds Python objects, or is not what its name says: write or copy it again"
        ) from error
