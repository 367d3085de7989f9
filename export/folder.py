"""The folder of an export appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import ExportError

PROGRAMS = ("model.onnx", "model.pte")
"""What makes a folder an export."""


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds one."""
    return any((Path(folder).expanduser() / name).is_file() for name in PROGRAMS)


def check_out(out: str | Path, overwrite: bool = False) -> Path:
    """Where an export goes.

    Raises:
        ExportError: a file is there, or a folder that is not empty: it may only be overwritten where it is an export.
    """
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{out}: is a file; name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    if not is_export(folder):
        raise ExportError(f"{out}: is not empty, and no export; choose another folder")
    if not overwrite:
        raise ExportError(f"{out}: holds an export already; choose another folder, or replace it with --overwrite")
    return folder


@contextmanager
def in_the_making(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write in, which takes its place at the end; after an error nothing has changed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.incomplete-", dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp makes it private
        _put_in_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
