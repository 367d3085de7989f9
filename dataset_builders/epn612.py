"""EMG-EPN-612: 612 people, 8 channels of a Myo armband at 200 Hz, 5 gestures and rest, takes of 5 s.

Source: https://zenodo.org/records/4421500 (CC BY 4.0); Benalcázar et al., Escuela Politécnica Nacional, 2020.

Raw layout, as downloaded: `trainingJSON/user1/user1.json` to `user306`, and `testingJSON/user1/user1.json` to
`user306`, who are 306 other people. A file has the sections `trainingSamples` and `testingSamples`, each with takes
`idx_1` to `idx_150`, 25 of each gesture: `emg` with the lists `ch1` to `ch8` of about 1000 whole numbers from -128 to
127, and `gestureName`. The corpus's authors keep the gestures of testing users in `testingSamples` to themselves: that
section is not read. A take without a gesture elsewhere, or with the gesture "notProvided", is left out and counted.

Subjects are called `training_user1` and `testing_user1`; the section is the session.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from .archives import find_root
from .base import Download, EmgBuilder, EmgBuilderConfig, Recording, RecordingError, Signal
from .protocols import natural_key

FOLDERS = {"training": "trainingJSON", "testing": "testingJSON"}
USERS = 306
CHANNELS = tuple(f"ch{i}" for i in range(1, 9))
LOWEST, HIGHEST = -128, 127
SAMPLING_RATE = 200.0
TAKE_LENGTH = 1000
"""Samples of a take that are used: the 5 s for which people were asked; takes have up to 1016."""
TAKES = 25
"""Of each gesture in a section."""
KNOWN_TAKES = 10
"""Of each gesture and testing user, in the train split."""
NO_GESTURE = "takes without a gesture"
SURPLUS = f"takes beyond the {TAKES} of a gesture"
_AGAIN = "download the corpus again, or leave the file out"


@dataclass
class Epn612Config(EmgBuilderConfig):
    """One window of 1000 samples per take by default; for the other published setting, window_length=200, stride=150.

    A take shorter than a window is padded with zeros at its end, after normalisation.
    "paper": windows that overlap by a quarter, in the first 1000 samples of a take.
    "reference", the released code: only the first `window_length` samples of a take.

    The splits are those of the released code in both: of training users, `trainingSamples` are train and
    `testingSamples` validation; of testing users, the first 10 takes of each gesture in `trainingSamples` are train and
    the others test. So each person of the test split has takes in the train split, although the paper says otherwise.

    An electrode at rest may well give one value for 5 s, as the converter has 8 bits: constant channels are accepted.
    """

    name: str = "epn612"
    window_length: int = 1000
    stride: int = 750
    allow_constant_channels: bool = True


class Epn612(EmgBuilder):
    """EMG-EPN-612: 8 channels, 5 gestures and rest; each user's takes are divided among the splits."""

    BUILDER_CONFIG_CLASS = Epn612Config
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = "https://zenodo.org/records/4421500"
    LICENSE = "cc-by-4.0"
    CITATION = (
        "Benalcázar M.E., Barona L., Valdivieso L., Aguas X., Zea J. EMG-EPN-612 Dataset. Zenodo, 2020. "
        "doi:10.5281/zenodo.4421500"
    )
    LAYOUT = "folders trainingJSON and testingJSON, each with files such as user1/user1.json"
    DOWNLOADS = (
        Download("https://zenodo.org/records/4421500/files/EMG-EPN612%20Dataset.zip", "EMG-EPN612 Dataset.zip"),
    )

    def class_names(self) -> tuple[str, ...]:
        """Rest and the gestures, as the files call them, in the order of the released code."""
        return ("noGesture", "waveIn", "waveOut", "pinch", "open", "fist")

    def num_channels(self) -> int:
        """The electrodes of the armband."""
        return len(CHANNELS)

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every section that is used of every user's file; that of a testing user twice, with the takes of a split."""
        root = find_root(root, lambda folder: any((folder / name).is_dir() for name in FOLDERS.values()), self.LAYOUT)
        files = {group: _user_files(root / folder) for group, folder in FOLDERS.items()}
        groups = {
            split: tuple(f"{group}_user{i}" for i in range(1, USERS + 1))
            for split, group in (("train", "training"), ("test", "testing"))
        }
        present = {f"{group}_{path.stem}" for group, paths in files.items() for path in paths}
        self.split_subjects(present, groups)
        first, others = range(1, KNOWN_TAKES + 1), range(KNOWN_TAKES + 1, TAKES + 1)
        shares = {
            "training": (("trainingSamples", "train", None), ("testingSamples", "validation", None)),
            "testing": (("trainingSamples", "train", first), ("trainingSamples", "test", others)),
        }
        return [
            Recording(
                str(path),
                f"{group}/{path.stem}/{section}",
                f"{group}_{path.stem}",
                section,
                split,
                repetitions and tuple(repetitions),
            )
            for group, paths in files.items()
            for path in paths
            for section, split, repetitions in shares[group]
        ]

    def read_takes(self, recording: Recording) -> Iterator[Signal]:
        """The takes of the section in order; the repetition counts those of a gesture, from 1."""
        takes = _read_section(Path(recording.path), recording.session)
        kept, seen, notes = [], Counter(), Counter()
        for name in sorted(takes, key=natural_key):
            where = f"{recording.path}, {recording.session}, {name}"
            label = self._label(takes[name], where)
            seen[label] += 1
            if label is None or seen[label] > TAKES:
                notes[NO_GESTURE if label is None else SURPLUS] += 1
                continue
            samples = _samples(takes[name], where)
            labels, repetitions = (np.full(samples.shape[1], value) for value in (label, seen[label]))
            kept.append(Signal(samples, SAMPLING_RATE, labels, repetitions, name=name))
        if not kept:
            raise RecordingError(f"{recording.path}, {recording.session}: no take has a gesture; leave the file out")
        yield dataclasses.replace(kept[0], notes=dict(notes))
        yield from kept[1:]

    def process(self, recording: Recording, signal: Signal) -> np.ndarray:
        """Filter and normalise the whole take, cut it to the samples used, and pad it to a window."""
        where = f"{recording.path}, {recording.session}, {signal.name}"
        window = self.config.window_length
        used = window if self.config.protocol == "reference" else max(window, TAKE_LENGTH)
        processed = self.extractor.preprocess(signal.samples, signal.sampling_rate, where)[:, :used]
        return np.pad(processed, ((0, 0), (0, max(0, window - processed.shape[1]))))

    def _label(self, take: object, where: str) -> int | None:
        """The class of a take, None if it has none."""
        if not isinstance(take, dict):
            raise RecordingError(
                f"{where}: a take with 'emg' and 'gestureName' is expected, not {_brief(take)}; {_AGAIN}"
            )
        gesture = take.get("gestureName", "notProvided")
        if gesture == "notProvided":
            return None
        if gesture not in self.class_names():
            known = ", ".join(self.class_names())
            raise RecordingError(f"{where}: gestureName {_brief(gesture)} is unknown (known: {known}); correct it")
        return self.class_names().index(gesture)


def _user_files(folder: Path) -> list[Path]:
    """userN/userN.json in natural order."""
    found = (path for path in folder.glob("user*/user*.json") if re.fullmatch(r"user[1-9]\d*", path.stem))
    return sorted((path for path in found if path.stem == path.parent.name), key=lambda path: natural_key(path.stem))


def _read_section(path: Path, section: str) -> dict[str, object]:
    """The takes of a section by name."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "it is too large"
        raise RecordingError(f"{path}: cannot be read as JSON ({reason}): {_AGAIN}") from error
    if not isinstance(content, dict) or section not in content:
        found = ", ".join(map(_brief, list(content)[:10])) if isinstance(content, dict) else _brief(content)
        raise RecordingError(f"{path}: no section {section!r} (found: {found}); is it a file of this corpus?")
    takes = content[section]
    if not isinstance(takes, dict) or not takes:
        raise RecordingError(f"{path}: section {section!r} has no takes, but {_brief(takes)}: {_AGAIN}")
    strange = [name for name in takes if not re.fullmatch(r"idx_\d{1,6}", name, re.ASCII)]
    if strange:
        raise RecordingError(f"{path}, {section}: takes are called idx_1 and so on, not {_brief(strange[0])}: {_AGAIN}")
    return takes


def _samples(take: dict, where: str) -> np.ndarray:
    """float32 (8, time), in steps of the converter."""
    emg = take.get("emg")
    missing = [name for name in CHANNELS if not isinstance(emg, dict) or not isinstance(emg.get(name), list)]
    if missing:
        raise RecordingError(f"{where}: no list {', '.join(missing)} in 'emg': {_AGAIN}")
    lengths = [len(emg[name]) for name in CHANNELS]
    if min(lengths) == 0 or len(set(lengths)) > 1:
        counts = ", ".join(map(str, lengths))
        raise RecordingError(f"{where}: the channels have {counts} samples, but must have as many each: {_AGAIN}")
    lists = [emg[name] for name in CHANNELS]
    plain = {*map(type, chain.from_iterable(lists))} <= {int, float}
    try:
        values = np.array(lists, np.float64) if plain else _numbers(lists)
    except OverflowError:
        values = _numbers(lists)
    wrong = np.argwhere(~((values >= LOWEST) & (values <= HIGHEST)))
    if len(wrong):
        channel, sample = wrong[0].tolist()
        value = _brief(emg[CHANNELS[channel]][sample])
        raise RecordingError(
            f"{where}, {CHANNELS[channel]}, sample {sample}: {value} is no number from {LOWEST} to {HIGHEST}: {_AGAIN}"
        )
    return values.astype(np.float32)


def _numbers(lists: list[list]) -> np.ndarray:
    """NaN for what is not a number of the converter; slow."""

    def number(value: object) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST
        return float(value) if good else math.nan

    return np.array([[*map(number, values)] for values in lists])


def _brief(value: object) -> str:
    """A value for a message, not the megabytes it may be."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a number of more than 20 digits"
    return text if len(text) <= 40 else f"{text[:40]}..."
