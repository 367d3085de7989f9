"""Lists of events that accompany a recording: csv, tsv or json with a name, a start and an end each."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .content import Events
from .errors import LayoutError, RecordingError

SUFFIXES = (".csv", ".tsv", ".json")
UNITS = ("seconds", "samples")
CUT_NOTE = "events that end after the recording, cut at its end"
UTF8 = "utf-8-sig"


@dataclass(frozen=True)
class Event:
    """An event as its file states it: start and end in the file's unit, and where it stands there."""

    name: str
    start: float
    end: float
    where: str


def read_events(path: Path) -> list[Event]:
    """The events of a file, in its order.

    A table (csv, tsv) has a header with `name`, `start` and, for events that last, `end`; other columns are passed
    over. A json file is a list of objects with those keys.

    Raises:
        LayoutError: the file is of another kind, damaged, or an event lacks its name or start, or ends before it
            starts; the message names the line.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise LayoutError(f"{path}: events are read from {', '.join(SUFFIXES)} files; convert it")
    try:
        entries = _json_entries(path) if suffix == ".json" else _table_entries(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{path}: not a list of events as {suffix} ({error}); save it again as UTF-8") from error
    return [_event(entry, where) for where, entry in entries]


def place_events(events: list[Event], unit: str, rate: float, length: int) -> tuple[Events, dict[str, int]]:
    """Events by their place in a recording, in order of their starts.

    Args:
        unit: "seconds" or "samples", of `events`.
        rate: of the recording, Hz.
        length: of the recording, in samples.

    Returns:
        The events in samples, and how many were cut at the end of the recording.

    Raises:
        RecordingError: an event starts before or after the recording.
    """
    factor = rate if unit == "seconds" else 1.0
    events = sorted(events, key=lambda event: event.start)
    for event in events:
        if not 0 <= event.start * factor < length:
            raise RecordingError(
                f"{event.where}: {event.name!r} starts at {event.start:g} {unit}, outside the recording of "
                f"{length / factor:g} {unit}; correct it, or the option event_unit"
            )
    ends = np.array([event.end * factor for event in events])
    placed = Events(
        tuple(event.name for event in events),
        np.array([event.start * factor for event in events]),
        np.minimum(ends, length),
    )
    late = int((ends > length).sum())
    return placed, {CUT_NOTE: late} if late else {}


def _table_entries(path: Path) -> list[tuple[str, dict]]:
    with open(path, newline="", encoding=UTF8) as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=next((mark for mark in "\t;," if mark in header), ","))
        names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        if not {"name", "start"} <= set(names):
            raise LayoutError(
                f"{path}, line 1: the columns are {', '.join(names) or 'missing'}; events need name, start and, if "
                "they last, end"
            )
        reader.fieldnames = names
        entries = []
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if None in cells or None in cells.values():
                raise LayoutError(f"{where}: not as many cells as the header has columns; repair the line")
            entries.append((where, {name: cell.strip() or None for name, cell in cells.items()}))
    return entries


def _json_entries(path: Path) -> list[tuple[str, dict]]:
    try:
        content = json.loads(path.read_text(encoding=UTF8))
    except (ValueError, RecursionError) as error:  # damaged, numbers of thousands of digits, nested too deep
        raise LayoutError(f"{path}: not a list of events as .json ({error}); save it again as UTF-8") from error
    if not isinstance(content, list):
        raise LayoutError(f"{path}: not a list; write the events as a list of objects with name, start and end")
    entries = [(f"{path}, event {i}", entry) for i, entry in enumerate(content)]
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise LayoutError(f"{where}: not an object with name, start and end; repair it")
    return entries


def _event(entry: dict, where: str) -> Event:
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise LayoutError(f"{where}: name is {name!r}; write what happened")
    start = _number(entry.get("start"), where, "start")
    end = start if entry.get("end") is None else _number(entry["end"], where, "end")
    if end < start:
        raise LayoutError(f"{where}: {name!r} ends at {end:g}, before its start at {start:g}; correct one of them")
    return Event(name.strip(), start, end, where)


def _number(value: object, where: str, field: str) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise LayoutError(f"{where}: {field} is {value!r}, which is no number; correct it")
    return number
