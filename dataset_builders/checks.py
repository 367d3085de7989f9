"""Checks of a corpus's list of recordings: nothing twice, nothing in two splits."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .content import Recording
from .errors import ConfigError, LayoutError, SplitError
from .protocols import SPLITS, listed

_HEAD_BYTES = 1 << 16


def check_recordings(recordings: Sequence[Recording], corpus: str) -> None:
    """Raise unless each recording is listed once, or once per split with repetitions of its own, and some train."""
    if not recordings:
        raise LayoutError(f"{corpus}: no recording found")
    kept: dict[str, set[int]] = {}
    for recording in recordings:
        if recording.split not in SPLITS:
            raise SplitError(f"{corpus}: {recording.name} is in {recording.split!r}, which is none of {SPLITS}")
        if recording.name in kept and not (recording.repetitions and kept[recording.name]):
            raise LayoutError(f"{corpus}: recording {recording.name} is listed twice: name each file once")
        repetitions = set(recording.repetitions or ())
        if shared := repetitions & kept.get(recording.name, set()):
            raise SplitError(f"{corpus}: repetitions {sorted(shared)} of {recording.name} are in two splits")
        kept[recording.name] = repetitions | kept.get(recording.name, set())
    if not any(recording.split == "train" for recording in recordings):
        raise SplitError(f"{corpus}: no recording is in the train split: assign some")


def check_whole(recordings: Iterable[Recording], corpus: str) -> None:
    """Raise if a recording is shared out among splits: stored as a whole, each of them would have all of it."""
    seen: set[str] = set()
    for recording in recordings:
        if recording.name in seen:
            raise SplitError(
                f"{corpus}: this protocol shares out the repetitions of a recording ({recording.name}) among the "
                'splits, but rows="recordings" stores it whole: use rows="windows", or another protocol'
            )
        seen.add(recording.name)


def empty_split(corpus: str, split: str) -> SplitError:
    """The error for a split whose recordings have no row."""
    return SplitError(
        f"{corpus}: the recordings of the {split} split have no window: they have no labelled sample, or none of the "
        "repetitions that the split keeps, or only segments shorter than window_length"
    )


def check_copies(recordings: Iterable[Recording], corpus: str) -> None:
    """Raise if two files have the same content: a copy would count twice, or be trained and tested on.

    Files of equal size are compared by their first bytes, and only where those agree as a whole.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in {recording.path: None for recording in recordings if recording.path}:
        by_size[os.path.getsize(path)].append(path)
    candidates = [alike for paths in by_size.values() if len(paths) > 1 for alike in _alike(paths, _HEAD_BYTES)]
    copies = [group for alike in candidates for group in _alike(alike, None)]
    if copies:
        more = f" ({len(copies)} files have copies)" if len(copies) > 1 else ""
        raise LayoutError(f"{corpus}: {copies[0][0]} and {copies[0][1]} have the same content{more}: remove the copies")


def keep_recordings(
    recordings: Sequence[Recording], field: str, wanted: tuple[str, ...], corpus: str
) -> list[Recording]:
    """The recordings whose `field` ("subject" or "session") is wanted; naming one that is not there is an error."""
    present = {getattr(recording, field) for recording in recordings}
    unknown = [value for value in wanted if value not in present]
    if unknown:
        known = listed(present)
        raise ConfigError(f"{corpus}: no recording of {field} {', '.join(unknown)}; there are {known}")
    return [recording for recording in recordings if getattr(recording, field) in wanted]


def _alike(paths: list[str], length: int | None) -> list[list[str]]:
    """Groups of files whose first `length` bytes (None: all) are the same."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for path in paths:
        with open(path, "rb") as file:
            if length is None:
                digest = hashlib.file_digest(file, "sha256").digest()
            else:
                digest = hashlib.sha256(file.read(length)).digest()
        groups[digest].append(path)
    return [group for group in groups.values() if len(group) > 1]
