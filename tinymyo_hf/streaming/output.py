"""Events of a session as a file and on the terminal."""

import json
import os
from pathlib import Path
from typing import TextIO

from tinymyo_hf.streaming.chunks import Event


class EventLog:
    """A file with an event per line, in JSON. It takes its name when it is closed, however the session ended.

    Until then it is called `.NAME.partial`, in the same folder, and holds every event that has been written.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None):
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
