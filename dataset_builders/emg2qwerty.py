"""emg2qwerty: 108 people touch typing, a wristband of 16 channels on each arm at 2 kHz, keystrokes from a keylogger.

Source: https://github.com/facebookresearch/emg2qwerty (CC BY-NC 4.0); Sivakumar et al., NeurIPS, 2024. The signals were
high-pass filtered by the authors; nothing is filtered here.

Raw layout, as downloaded (`emg2qwerty-data-2021-08.tar.gz`, 308 GB): one `SESSION.hdf5` per session of some minutes and
`metadata.csv`. A file holds the group `emg2qwerty` with the compound dataset `timeseries` (`emg_left` f4[16],
`emg_right` f4[16], `time` f8 in seconds) and the attributes `session_name`, `user`, `condition`, `duration_mins`,
`keystrokes` (JSON list of {key, start, end}) and `prompts` (not used: what was shown, not what was typed).

Channels are the 16 of the left band, then the 16 of the right one. An event is a keystroke, from press to release,
named by one character; keys outside the corpus's character set (control, tab, ...) are left out and counted.

Splits are lists of sessions in YAML files of the corpus's repository (`config/user`): `generic.yaml` trains and
validates on the same 100 people, in different sessions, and tests on 8 others; `user0.yaml` to `user7.yaml` split the
sessions of one of these 8. Copy the file into the folder of the corpus; `metadata.csv` with columns session, user and
split serves as well. Sessions that are in no split are not used.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from tinymyo_hf.charset import BACKSPACE, CHARACTERS, ENTER, SHIFT, SPACE, SUBSTITUTES, character_of

from .base import Download, EmgBuilder, EmgBuilderConfig, Events, Recording, Signal, logger
from .emg2qwerty_splits import GENERIC, Session, find_split_file, read_split_file
from .errors import LayoutError, RecordingError, SplitError
from .hdf5_files import open_group
from .protocols import SPLITS
from .reality_labs import (
    AGAIN,
    GAPS,
    SAMPLING_RATE,
    find_files,
    find_series,
    number_attribute,
    positions,
    read_series,
    text_attribute,
)

__all__ = [
    "BACKSPACE",
    "CHARACTERS",
    "ENTER",
    "SHIFT",
    "SPACE",
    "SUBSTITUTES",
    "Emg2qwerty",
    "Emg2qwertyConfig",
    "Keystroke",
    "character_of",
    "parse_keystrokes",
]

_REPOSITORY = "https://github.com/facebookresearch/emg2qwerty"
_SPLIT_FILES = f"{_REPOSITORY.replace('github.com', 'raw.githubusercontent.com')}/main/config/user"


@dataclass
class Emg2qwertyConfig(EmgBuilderConfig):
    """Signals as they are, whole recordings, windows of 4 s without overlap (the context is added when they are cut).

    Attributes:
        user: "generic" for people not seen before, or one of "user0" to "user7" for the sessions of one person.
        split_file: the YAML or csv file with the splits, where it is not in the folder of the corpus.
    """

    name: str = "emg2qwerty"
    user: str = GENERIC
    split_file: str | None = None
    sampling_rate: float | None = SAMPLING_RATE
    rows: str = "recordings"
    chunk_length: int | None = 8000
    window_length: int = 8000
    stride: int = 8000
    band_pass: tuple[float, float] | None = None
    notch_frequencies: tuple[float, ...] = ()
    normalization: str = "none"

    def shaping_fields(self) -> dict:
        """As for every builder, with the content of `split_file` in place of its path."""
        fields = super().shaping_fields()
        if self.split_file is not None and (path := Path(self.split_file).expanduser()).is_file():
            fields["split_file"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return fields


class Emg2qwerty(EmgBuilder):
    """emg2qwerty: 32 channels of two wristbands at 2 kHz, keystrokes of 98 characters.

    user="generic": the test split holds people who are in no other split; user="user0" to "user7": sessions of one
    person, each session in one split.
    """

    BUILDER_CONFIG_CLASS = Emg2qwertyConfig
    HOMEPAGE = _REPOSITORY
    LICENSE = "cc-by-nc-4.0"
    CITATION = (
        "Sivakumar V., Seely J., Du A., Bittner S.R., Berenzweig A., Bolarinwa A., Gramfort A., Mandel M.I. "
        "emg2qwerty: A Large Dataset with Baselines for Touch Typing using Surface Electromyography. NeurIPS, 2024. "
        "arXiv:2410.20081"
    )
    LAYOUT = (
        "files such as 2020-08-13-1597354281-keystrokes.hdf5 (or emg2qwerty-data-2021-08.tar.gz with them) and a split "
        "file such as generic.yaml"
    )
    DOWNLOADS = (
        Download(
            "https://fb-ctrl-oss.s3.amazonaws.com/emg2qwerty/emg2qwerty-data-2021-08.tar.gz",
            "emg2qwerty-data-2021-08.tar.gz",
            size=308_382_645_571,
        ),
        *(
            Download(f"{_SPLIT_FILES}/{user}.yaml", f"{user}.yaml")
            for user in (GENERIC, *(f"user{i}" for i in range(8)))
        ),
    )

    def task(self) -> str:
        """Keystrokes happen at moments, several in one window."""
        return "events"

    def class_names(self) -> tuple[str, ...]:
        """The characters, in the order of the corpus."""
        return CHARACTERS

    def num_channels(self) -> int:
        """The electrodes of both wristbands, left before right."""
        return 32

    def metadata_features(self) -> dict[str, datasets.Value]:
        """What the file says of the session."""
        return {
            "session_name": datasets.Value("string"),
            "condition": datasets.Value("string"),
            "duration_mins": datasets.Value("float64"),
        }

    def list_recordings(self, root: Path) -> list[Recording]:
        """The sessions of the split file that are there, in its order."""
        files = find_files(root, "*.hdf5")
        if not files:
            raise LayoutError(f"{root} does not hold the corpus: expected {self.LAYOUT}")
        split_file = find_split_file(root, self.config.user, self.config.split_file)
        sessions = read_split_file(split_file, self.config.user)
        present = [session for session in sessions if session.name in files]
        self._account_for_absent(sessions, present, split_file)
        return [Recording(str(files[s.name]), s.name, s.user, s.name, s.split) for s in present]

    def _account_for_absent(self, sessions: list[Session], present: list[Session], split_file: Path) -> None:
        self.absent_subjects = tuple(sorted({s.user for s in sessions} - {s.user for s in present}))
        names = {session.name for session in present}
        absent = [session.name for session in sessions if session.name not in names]
        if absent and not self.config.allow_missing:
            of_users = f", among them all of users {_few(self.absent_subjects)}" if self.absent_subjects else ""
            raise SplitError(
                f"{len(absent)} of the {len(sessions)} sessions of {split_file.name} have no file ({_few(absent)})"
                f"{of_users}. Complete the corpus, or pass allow_missing=True to work with the sessions that are there"
            )
        for split in SPLITS:
            if any(s.split == split for s in sessions) and not any(s.split == split for s in present):
                raise SplitError(f"no session of the {split} split of {split_file.name} has a file; get some of them")
        if absent:
            logger.warning(f"{split_file}: {len(absent)} of its sessions have no file; going on without them")

    def read_recording(self, recording: Recording) -> Signal:
        """The samples of a session and its keystrokes."""
        path = recording.path
        bands = ("emg_left", "emg_right")
        with open_group(path, "emg2qwerty") as group:
            metadata = {name: text_attribute(group, name, path) for name in ("session_name", "condition")}
            metadata["duration_mins"] = number_attribute(group, "duration_mins", path)
            keystrokes = parse_keystrokes(text_attribute(group, "keystrokes", path), path)
            series = find_series(group, "timeseries", bands, path)
            times, samples, gaps = read_series(series, bands, 0, len(series), path)
        events, notes = _events(keystrokes, times)
        return Signal(samples, SAMPLING_RATE, events=events, metadata=metadata, notes=notes | {GAPS: gaps})


@dataclass(frozen=True)
class Keystroke:
    """A key as the keylogger calls it, pressed and released (seconds); `end` is NaN where the release is unknown."""

    key: str
    start: float
    end: float


def parse_keystrokes(text: str, path: str) -> list[Keystroke]:
    """The keystrokes of a session, in order of their starts.

    Args:
        text: JSON list of {key, start, end}.
        path: file, for messages.

    Raises:
        RecordingError: not such a list, or not in order.
    """
    where = f"{path}, attribute 'keystrokes'"
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{where}: not valid JSON ({error}); {AGAIN}") from error
    if not isinstance(entries, list):
        raise RecordingError(f"{where}: not a list; {AGAIN}")
    keystrokes = [_keystroke(entry, f"{where}, item {i}") for i, entry in enumerate(entries)]
    for i in range(1, len(keystrokes)):
        if keystrokes[i].start < keystrokes[i - 1].start:
            raise RecordingError(f"{where}, item {i}: starts before the one before it; sort the list by start")
    return keystrokes


def _keystroke(entry: object, where: str) -> Keystroke:
    entry = entry if isinstance(entry, dict) else {}
    key, start, end = entry.get("key"), _seconds(entry.get("start")), entry.get("end")
    if not isinstance(key, str) or start is None:
        raise RecordingError(f"{where}: must have a `key` (text) and a `start` (number of seconds); {AGAIN}")
    end = math.nan if end is None else _seconds(end)
    if end is None:
        raise RecordingError(f"{where}: `end` is {entry['end']!r}, not a number of seconds; {AGAIN}")
    return Keystroke(key, start, end)


def _seconds(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        return None
    return None if math.isnan(value) else float(value)


def _events(keystrokes: list[Keystroke], times: np.ndarray) -> tuple[Events, dict[str, int]]:
    """Keystrokes with a character that start within the recording, at their samples; what is left out, counted."""
    inside = [k for k in keystrokes if times[0] <= k.start <= times[-1]]
    known = [k for k in inside if character_of(k.key) is not None]
    starts, ends = (np.array([getattr(k, side) for k in known], np.float64) for side in ("start", "end"))
    unreleased = ~(ends >= starts)
    ends = np.where(unreleased, starts, ends)
    names = tuple(str(character_of(k.key)) for k in known)
    return Events(names, positions(times, starts), positions(times, ends)), {
        "keystrokes outside the recording": len(keystrokes) - len(inside),
        "keystrokes of keys outside the character set": len(inside) - len(known),
        "keystrokes without a release after the press": int(unreleased.sum()),
    }


def _few(names: list[str] | tuple[str, ...]) -> str:
    """The names, or the first ten of them."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
