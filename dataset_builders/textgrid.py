"""Praat TextGrid files: the interval tiers that forced aligners write, in the long or the short text format."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import RecordingError

# Praat itself reads free-standing numbers, quoted strings and flags, and takes everything else for decoration; that is
# all that distinguishes the long format from the short one.
_TOKEN = re.compile(
    r'"(?P<string>(?:[^"]++|"")*+)"'
    r"|(?<!\S)(?P<number>[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?)(?!\S)"
    r"|<(?P<flag>exists|absent)>"
)
_MAX_BYTES = 10_000_000


class Interval(NamedTuple):
    """A stretch of a tier: start and end in seconds, and its label."""

    start: float
    end: float
    label: str


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """The interval tiers of a TextGrid file by name; point tiers are left out.

    Raises:
        RecordingError: there is no such file, or it is not a whole TextGrid.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecordingError(f"{path}: larger than any alignment of an utterance; download it again")
        content = path.read_bytes()
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return parse_textgrid(content.decode(encoding))
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); download it again") from error
    except ValueError as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"{path}: not a whole TextGrid ({error}); download it again") from error


def parse_textgrid(text: str) -> dict[str, list[Interval]]:
    """As `read_textgrid`, from the content of a file; raises ValueError naming what is missing."""
    tokens = _TOKEN.finditer(text)
    if (_take(tokens, "string", "file type"), _take(tokens, "string", "class")) != ("ooTextFile", "TextGrid"):
        raise ValueError("the header does not name it one")
    for what in ("start", "end"):
        _take(tokens, "number", f"{what} of the file")
    if _take(tokens, "flag", "tiers") == "absent":
        return {}
    tiers: dict[str, list[Interval]] = {}
    for _ in range(_count(tokens, "number of tiers")):
        kind, name = _take(tokens, "string", "class of a tier"), _take(tokens, "string", "name of a tier")
        for what in ("start", "end"):
            _take(tokens, "number", f"{what} of tier {name!r}")
        count = _count(tokens, f"size of tier {name!r}")
        if kind == "IntervalTier":
            tiers.setdefault(name, _intervals(tokens, name, count))
        else:
            for _ in range(count):
                _take(tokens, "number", f"time of a point in tier {name!r}")
                _take(tokens, "string", f"label of a point in tier {name!r}")
    return tiers


def _intervals(tokens: Iterator[re.Match], tier: str, count: int) -> list[Interval]:
    intervals: list[Interval] = []
    for i in range(1, count + 1):
        where = f"interval {i} of tier {tier!r}"
        start, end = (float(_take(tokens, "number", f"{what} of {where}")) for what in ("start", "end"))
        previous = intervals[-1].end if intervals else 0.0
        # aligners round the two sides of a border differently
        if not previous - 1e-3 <= start <= end < float("inf"):
            raise ValueError(f"{where} runs from {start:g} to {end:g} s, after {previous:g} s")
        label = _take(tokens, "string", f"label of {where}").replace('""', '"')
        intervals.append(Interval(start, end, label))
    return intervals


def _take(tokens: Iterator[re.Match], kind: str, what: str) -> str:
    match = next(tokens, None)
    if match is None:
        raise ValueError(f"it ends before the {what}")
    if match[kind] is None:
        raise ValueError(f"{match[0][:40]!r} where the {what} should be")
    return match[kind]


def _count(tokens: Iterator[re.Match], what: str) -> int:
    text = _take(tokens, "number", what)
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{text!r} is no {what}")
    return int(text)
