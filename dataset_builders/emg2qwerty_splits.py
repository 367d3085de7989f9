"""Which session of emg2qwerty belongs to which split: the corpus's own YAML files, or a column of its metadata.csv."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import LayoutError, SplitError
from .protocols import group_split, split_name

GENERIC = "generic"
METADATA = "metadata.csv"
FOLDERS = (".", "config/user", "user")
"""Where a split file may lie in the folder of the corpus (the second is its place in the corpus's repository)."""

_SPLIT_PAGE = "https://github.com/facebookresearch/emg2qwerty/tree/main/config/user"


@dataclass(frozen=True)
class Session:
    """A session as a split names it.

    Attributes:
        name: of its file, without ".hdf5".
        user: who typed.
        split: "train", "validation" or "test".
    """

    name: str
    user: str
    split: str


def find_split_file(root: Path, user: str, split_file: str | None) -> Path:
    """The file that says which sessions are in which split.

    Args:
        root: folder of the corpus.
        user: "generic", or a user with splits of their own ("user0").
        split_file: path of the file, where it lies elsewhere; relative to the working directory.

    Raises:
        LayoutError: there is none.
    """
    if split_file is not None:
        path = Path(split_file).expanduser()
        if not path.is_file():
            raise LayoutError(
                f"split_file={split_file!r}: no such file; give the path of a split file such as user0.yaml"
            )
        return path
    names = [f"{folder}/{user}.yaml" for folder in FOLDERS] + ([METADATA] if user == GENERIC else [])
    for name in names:
        path = root / name
        if path.is_file() and (path.name != METADATA or "split" in _header(path)):
            return path
    table = f", or add a column `split` to {METADATA}" if user == GENERIC else ""
    raise LayoutError(
        f"{root}: nothing says which sessions are in which split. Copy {user}.yaml from {_SPLIT_PAGE} into the folder "
        f"(or name it by split_file){table}"
    )


def read_split_file(path: Path, user: str) -> list[Session]:
    """The sessions a split file names, in its order, each in one split.

    For "generic" the users of the test split are in no other, as this protocol is about people not seen before.

    Raises:
        LayoutError: the file is damaged or laid out otherwise.
        SplitError: a session is in two splits, or a generic split tests users it has trained on.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise LayoutError(f"{path} cannot be read as text ({error}); copy it again") from error
    sessions = _from_table(path, text) if path.suffix == ".csv" else _from_yaml(path, text)
    if not sessions:
        raise SplitError(f"{path} names no session; copy it again")
    try:
        group_split(_names_by_split(sessions), "session")
    except SplitError as error:
        raise SplitError(f"{path}: {error}") from error
    users = {split: {s.user for s in sessions if s.split == split} for split in ("train", "validation", "test")}
    shared = sorted(users["test"] & (users["train"] | users["validation"]))
    if user == GENERIC and shared:
        raise SplitError(
            f"{path}: users {', '.join(shared[:10])} of the test split are also in train or validation, but a generic "
            "model is tested on people it has not seen; move them, or call the split something else than generic"
        )
    return list(dict.fromkeys(sessions))


def _names_by_split(sessions: list[Session]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for session in sessions:
        names.setdefault(session.split, []).append(session.name)
    return names


def _from_yaml(path: Path, text: str) -> list[Session]:
    """`dataset: {train: [{user: ..., session: ...}, ...], val: [...], test: [...]}`; other keys are passed over."""
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # every scalar a string: users are numbers or UUIDs
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise LayoutError(f"{path} is not valid YAML ({error}); copy it again") from error
    splits = content.get("dataset") if isinstance(content, Mapping) else None
    if not isinstance(splits, Mapping):
        raise LayoutError(f"{path}: no mapping `dataset` with train, val and test; copy it again from {_SPLIT_PAGE}")
    sessions = []
    for key, entries in splits.items():
        try:
            split = split_name(key)
        except SplitError as error:
            raise SplitError(f"{path}: dataset: {error}") from error
        if not isinstance(entries, list):
            raise LayoutError(f"{path}: dataset.{key} is not a list of sessions; copy the file again")
        for i, entry in enumerate(entries):
            sessions.append(Session(*_named(path, f"dataset.{key}[{i}]", entry), split))
    return sessions


def _named(path: Path, where: str, entry: Any) -> tuple[str, str]:
    """Session and user of a list entry."""
    entry = entry if isinstance(entry, Mapping) else {}
    values = [entry.get(key) for key in ("session", "user")]
    if not all(isinstance(value, str) and value for value in values):
        raise LayoutError(f"{path}: {where} must have a `user` and a `session`; copy the file again")
    return values[0], values[1]


def _header(path: Path) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise LayoutError(f"{path}: not a text table ({error}); save it as UTF-8 csv") from error


def _from_table(path: Path, text: str) -> list[Session]:
    """Columns session, user and split; a line without a split is a session that is not used."""
    sessions = []
    try:
        reader = csv.DictReader(text.splitlines())
        reader.fieldnames = header = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in ("session", "user", "split") if name not in header]
        if missing:
            raise LayoutError(f"{path}, line 1: no column {', '.join(missing)}; add it")
        for row in reader:
            session, user, split = ((row[name] or "").strip() for name in ("session", "user", "split"))
            where = f"{path}, line {reader.line_num}"
            if not split:
                continue
            if not session or not user:
                raise LayoutError(f"{where}: session or user is empty; fill it in, or empty the cell of the split")
            try:
                sessions.append(Session(session, user, split_name(split)))
            except SplitError as error:
                raise SplitError(f"{where}: {error}") from error
    except csv.Error as error:
        raise LayoutError(f"{path}: not a text table ({error}); save it as UTF-8 csv") from error
    return sessions
