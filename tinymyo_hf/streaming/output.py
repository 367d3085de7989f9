"""Events of a session as a file and on the terminal."""

import json
import os
from pathlib import Path
from typing import TextIO

from tinymyo_hf.charset import BACKSPACE, ENTER, SHIFT
from tinymyo_hf.streaming.chunks import Event, StreamError


class EventLog:
    """A file with an event per line, in JSON. It takes its name when it is closed, however the session ended.

    Until then it is called `.NAME.partial`, in the same folder, and holds every event that has been written.

    Args:
        path: of the file; None keeps nothing.

    Raises:
        StreamError: another ending than .jsonl (a recording must not be written over by mistake), or a folder.
    """

    def __init__(self, path: Path | None):
        if path is not None and path.suffix != ".jsonl":
            raise StreamError(f"{path}: events are written as .jsonl; change the name")
        if path is not None and path.is_dir():
            raise StreamError(f"{path}: is a folder; name a file in it")
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> "EventLog":
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._partial, "w", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        return self

    def write(self, event: Event) -> None:
        """Adds a line."""
        if self._file is not None:
            self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._file.flush()

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            os.replace(self._partial, self._path)

    @property
    def _partial(self) -> Path:
        return self._path.with_name(f".{self._path.name}.partial")


class Printer:
    """Prints keys as text as they are typed, everything else one event to a line.

    On a terminal, backspace takes away what it deletes; elsewhere it is printed as its symbol, as is shift.

    Args:
        events: where gestures, events and keys go.
        notices: where breaks of the signal go.
    """

    def __init__(self, events: TextIO, notices: TextIO):
        self._events, self._notices = events, notices
        self._in_line = False
        self._keys = {ENTER: "\n"} | ({BACKSPACE: "\b \b", SHIFT: ""} if events.isatty() else {})

    def show(self, event: Event) -> None:
        """Prints at once."""
        if event["type"] == "key":
            text = self._keys.get(event["key"], event["key"])
            self._events.write(text)
            self._in_line = text != "\n"
        elif event["type"] == "break":
            self.end_line()
            lost = f", {event['lost']:.3f} s are lost" if event["lost"] else ""
            self._notices.write(f"tinymyo: {event['time']:.3f} s: {event['kind']} in the signal{lost}\n")
        else:
            label = event.get("gesture") or event.get("label") or "-"
            score = "" if event["score"] is None else f"  {event['score']:.3f}"
            self._events.write(f"{event['time']:9.3f}  {label}{score}\n")
        self._events.flush()

    def end_line(self) -> None:
        """Ends a line of keys."""
        if self._in_line:
            self._events.write("\n")
            self._events.flush()
            self._in_line = False
