"""The folder of an export appears whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import ExportError

WEIGHTS = "weights.bin"
"""What makes a folder an export as C."""
PROGRAMS = ("model.onnx", "model.pte", WEIGHTS)
"""What makes a folder an export."""
_SUFFIXES = {".onnx", ".pte", ".json", ".md", ".png", ".txt", ".arpa"}
"""Of the files that exports of one program consist of."""
_BUILT = "build"
"""Folder in which an export as C is built."""


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds one."""
    return any((Path(folder).expanduser() / name).is_file() for name in PROGRAMS)


def check_out(out: str | Path, overwrite: bool = False) -> Path:
    """Where an export goes.

    Raises:
        ExportError: a file is there, or a folder that is not empty: it may only be overwritten where it is an export
            with nothing else in it.
    """
    folder = Path(out).expanduser().resolve()  # of links, what they lead to is written
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ExportError(f"{out}: {'' if path == folder else f'{path} '}is a file; name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    if not is_export(folder):
        raise ExportError(f"{out}: is not empty, and no export; choose another folder")
    if not overwrite:
        raise ExportError(f"{out}: holds an export already; choose another folder, or replace it with --overwrite")
    if others := _others(folder):
        raise ExportError(
            f"{out}: holds {others[0]} beside an export, which would be lost; move it away, or choose another folder"
        )
    return folder


def _others(folder: Path) -> list[str]:
    """What is not part of the export in a folder. One as C has folders; its report lists all that it consists of."""
    if not (folder / WEIGHTS).is_file():
        return sorted(path.name for path in folder.iterdir() if path.is_dir() or path.suffix not in _SUFFIXES)
    try:
        listed = set(json.loads((folder / "report.json").read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    files = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(file.as_posix() for file in files if file.parts[0] != _BUILT and file.as_posix() not in listed)


@contextmanager
def in_the_making(folder: Path) -> Iterator[Path]:
    """A folder to write in, whose files take their place at the end; after an error nothing has changed.

    An empty folder that is there is filled and not replaced: it may be the current one, or where a disk is mounted.
    """
    fill = folder.exists() and not any(folder.iterdir())
    parent = folder if fill else folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.incomplete-", dir=parent))
    try:
        yield unfinished
        if fill:
            _move_in(unfinished, folder)
        else:
            unfinished.chmod(0o755)  # mkdtemp makes it private
            _put_in_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_in(unfinished: Path, folder: Path) -> None:
    """The program last, which makes the folder an export."""
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name in PROGRAMS):
        path.rename(folder / path.name)


def _put_in_place(unfinished: Path, folder: Path) -> None:
    if not folder.exists():
        unfinished.rename(folder)
        return
    replaced = unfinished.with_name(f"{unfinished.name}.replaced")
    folder.rename(replaced)
    try:
        unfinished.rename(folder)
    except OSError:
        replaced.rename(folder)
        raise
    shutil.rmtree(replaced)
