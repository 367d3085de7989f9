"""What the builders of the Ninapro databases share: finding the MATLAB files, reading variables, splits by repetition.

Every database is one file per recording, with variables of one row per sample: `emg`, `restimulus` (the movement,
0 for rest, its borders corrected to when the hand moved), `rerepetition` (which repetition of it) and others that are
passed over unread. Source: https://ninapro.hevs.ch; Atzori et al., Scientific Data 1:140053, 2014.

`rerepetition` during rest is not documented. Those who looked report that rest between repetitions carries the number
of one of them, and 0 stands for the remainder (before the first movement, pauses). The released code takes a window's
repetition from the file and drops those with 0. Under "paper", rest with 0 belongs to the repetition before it, so that
a recording falls into stretches of one repetition each, and no window leaves its stretch; rest before the first
repetition, and movements without one, are left out and counted.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tinymyo_hf.recording_formats import read_mat

from .base import EmgBuilder, EmgBuilderConfig, Recording, Signal, logger
from .config import FROM_PROTOCOL
from .errors import LayoutError, RecordingError
from .protocols import natural_key

SITE = "https://ninapro.hevs.ch"
NO_REPETITION = "samples that belong to no repetition, so to no split"
LARGEST_CUT = 0.01
"""Share of a recording by which the lengths of its variables may differ."""

REST = "rest"
FINGERS = (
    *(f"{finger} {way}" for finger in ("index", "middle", "ring", "little finger") for way in ("flexion", "extension")),
    "thumb adduction",
    "thumb abduction",
    "thumb flexion",
    "thumb extension",
)
"""Exercise A: basic movements of the fingers."""
POSTURES = (
    "thumb up",
    "extension of index and middle, flexion of the others",
    "flexion of ring and little finger, extension of the others",
    "thumb opposing base of little finger",
    "abduction of all fingers",
    "fingers flexed together in fist",
    "pointing index",
    "adduction of extended fingers",
    "wrist supination (axis: middle finger)",
    "wrist pronation (axis: middle finger)",
    "wrist supination (axis: little finger)",
    "wrist pronation (axis: little finger)",
    "wrist flexion",
    "wrist extension",
    "wrist radial deviation",
    "wrist ulnar deviation",
    "wrist extension with closed hand",
)
"""Exercise B: hand postures and movements of the wrist."""
GRASPS = (
    "large diameter grasp",
    "small diameter grasp",
    "fixed hook grasp",
    "index finger extension grasp",
    "medium wrap",
    "ring grasp",
    "prismatic four fingers grasp",
    "stick grasp",
    "writing tripod grasp",
    "power sphere grasp",
    "three finger sphere grasp",
    "precision sphere grasp",
    "tripod grasp",
    "prismatic pinch grasp",
    "tip pinch grasp",
    "quadpod grasp",
    "lateral grasp",
    "parallel extension grasp",
    "extension type grasp",
    "power disk grasp",
    "open a bottle with a tripod grasp",
    "turn a screw with a stick grasp",
    "cut something with an index finger extension grasp",
)
"""Exercise C: grasps and functional movements."""


@dataclass
class PretrainingConfig(EmgBuilderConfig):
    """Databases for pretraining: band-pass 20 to 450 Hz, windows of 1000 samples with stride 500.

    "paper": channels scaled to [-1, 1]; windows stay within a repetition, with the label of their first sample.
    "reference": z-score; windows on a grid over the recording, with label and repetition of their centre.
    """

    sampling_rate: float | None = 2000.0
    window_length: int = 1000
    stride: int = 500
    band_pass: tuple[float, float] | None = (20.0, 450.0)
    normalization: str = FROM_PROTOCOL
    window_labels: str = FROM_PROTOCOL

    PROTOCOL_FIELDS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"normalization": "minmax", "window_labels": "repetition"},
        "reference": {"normalization": "zscore", "window_labels": "center_sample"},
    }


@dataclass(frozen=True)
class RawFile:
    """A file of a database: where it lies, its name without ".mat" (capitals as documented), and what the name says."""

    path: Path
    name: str
    subject: str
    session: str


class NinaproBuilder(EmgBuilder):
    """A Ninapro database; a child says what its files are called and how sessions or repetitions are split."""

    FILE_NAME: ClassVar[re.Pattern[str]]
    """Full name of a file, with the groups "subject" (a number) and "session"."""
    SUBJECTS: ClassVar[int]
    SESSIONS: ClassVar[tuple[str, ...]]
    """The sessions that every subject has."""
    CHANNELS: ClassVar[int]
    RATE: ClassVar[float]
    """Hz at which the files are sampled."""
    LICENSE = "other"

    def num_channels(self) -> int:
        """Electrodes."""
        return self.CHANNELS

    def extractor_options(self) -> dict:
        """Resampling, if another rate than that of the files was asked for."""
        return {"on_rate_mismatch": "error" if self.config.sampling_rate == self.file_rate() else "resample"}

    def file_rate(self) -> float:
        """Hz at which a sample of the files is taken to last."""
        return self.RATE

    def shares(self, file: RawFile) -> dict[str, tuple[int, ...] | None]:
        """The splits a file goes to, with the repetitions each gets; None for the whole file."""
        raise NotImplementedError

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every file once per split it has a share in."""
        files = find_files(root, self.FILE_NAME)
        if not files:
            raise LayoutError(f"{root} does not hold the corpus: expected {self.LAYOUT}. Get it from {self.HOMEPAGE}")
        everybody = tuple(str(i) for i in range(1, self.SUBJECTS + 1))
        self.split_subjects({file.subject for file in files}, {"train": everybody})
        self._check_sessions(files)
        return [
            Recording(str(file.path), file.name, file.subject, file.session, split, repetitions)
            for file in files
            for split, repetitions in self.shares(file).items()
        ]

    def _check_sessions(self, files: list[RawFile]) -> None:
        present = {(file.subject, file.session) for file in files}
        subjects = sorted({file.subject for file in files}, key=natural_key)
        unknown = sorted({session for _, session in present} - set(self.SESSIONS), key=natural_key)
        if unknown:
            raise LayoutError(
                f"{self.config.data_dir}: there are files of {', '.join(unknown)}, but the corpus has "
                f"{', '.join(self.SESSIONS)} only; move other databases elsewhere"
            )
        missing = [
            f"{session} of subject {s}" for s in subjects for session in self.SESSIONS if (s, session) not in present
        ]
        if not missing:
            return
        if not self.config.allow_missing:
            raise LayoutError(
                f"{self.config.data_dir}: no file for {', '.join(missing)}. Complete the corpus, or pass "
                "allow_missing=True to work with the files that are there"
            )
        logger.warning(f"{self.config.data_dir}: no file for {', '.join(missing)}; going on without")


class MovementBuilder(NinaproBuilder):
    """A database of labelled movements, whose repetitions are shared out among the splits."""

    REPETITIONS: ClassVar[Mapping[str, Mapping[str, tuple[int, ...]]]]
    """The repetitions of each split, for each protocol."""

    def shares(self, file: RawFile) -> dict[str, tuple[int, ...] | None]:
        """The repetitions of the protocol."""
        return dict(self.REPETITIONS[self.config.protocol])

    def class_ids(self, movements: np.ndarray, recording: Recording) -> np.ndarray:
        """Classes of the numbers in `restimulus`, int64 (time,); raises `RecordingError` for unknown ones."""
        raise NotImplementedError

    def electrodes(self, emg: np.ndarray, where: str) -> np.ndarray:
        """The columns of `emg` (time, columns) that are electrodes."""
        return checked_columns(emg, self.CHANNELS, f"{where}, variable 'emg'")

    def read_recording(self, recording: Recording) -> Signal:
        """The file's electrodes, the class and the repetition of every sample."""
        variables, notes = read_variables(Path(recording.path), ("emg", "restimulus", "rerepetition"))
        emg = self.electrodes(variables["emg"], recording.path)
        movements = whole_numbers(variables["restimulus"], f"{recording.path}, variable 'restimulus'")
        repetitions = whole_numbers(variables["rerepetition"], f"{recording.path}, variable 'rerepetition'")
        labels = self.class_ids(movements, recording)
        if self.config.protocol == "paper":
            repetitions = rest_joined(movements, repetitions)
        known = [r for kept in self.REPETITIONS[self.config.protocol].values() for r in kept]
        notes[NO_REPETITION] = int((~np.isin(repetitions, known)).sum())
        return Signal(emg.T, self.file_rate(), labels, repetitions, notes=dict(+notes))


def find_files(root: Path, pattern: re.Pattern[str]) -> list[RawFile]:
    """The files below `root` whose name matches, in natural order.

    Args:
        root: a folder, with the files at any depth.
        pattern: of the whole name, with the groups "subject" and "session".

    Raises:
        LayoutError: a recording is there twice.
    """
    files: dict[str, RawFile] = {}
    for path in sorted(root.rglob("*")):
        match = pattern.fullmatch(path.name)  # which "._S1_E1_A1.mat", of macOS, does not
        if not match or not path.is_file():
            continue
        name = path.stem.upper()
        if name in files:
            raise LayoutError(f"{name}.mat is there twice: {files[name].path} and {path}; remove one of them")
        files[name] = RawFile(path, name, str(int(match["subject"])), match["session"].upper())
    return sorted(files.values(), key=lambda file: natural_key(file.name))


def read_variables(path: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], Counter]:
    """Variables of a recording, (time, columns), cut to the shortest; and what was cut, counted.

    The lengths differ by a few samples in some files of the databases.

    Raises:
        RecordingError: the file is damaged, lacks a variable, or the lengths differ by more than `LARGEST_CUT`.
    """
    try:
        found = read_mat(path, names)
    except Exception as error:  # the libraries raise almost anything on damaged files
        raise RecordingError(
            f"{path}: cannot be read as a MATLAB file ({type(error).__name__}: {error}); it is damaged: download it "
            "again"
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise RecordingError(
            f"{path}: no numeric variable {', '.join(map(repr, missing))}; the recording needs {', '.join(names)}: "
            "download it again"
        )
    for name, array in found.items():
        if array.ndim != 2 or array.size == 0:
            raise RecordingError(
                f"{path}, variable {name!r}: shape {array.shape}, but samples in rows are expected; download it again"
            )
    arrays = {name: found[name].T if 1 == len(found[name]) < found[name].shape[1] else found[name] for name in names}
    shortest = min(names, key=lambda name: len(arrays[name]))
    length, notes = len(arrays[shortest]), Counter()
    for name, array in arrays.items():
        if len(array) - length > LARGEST_CUT * len(array):
            raise RecordingError(
                f"{path}: {len(array)} samples of {name!r}, but {length} of {shortest!r}; they belong together sample "
                "by sample: download the file again"
            )
        if len(array) > length:
            notes[f"samples of {name} after the last of {shortest}"] = len(array) - length
    return {name: array[:length] for name, array in arrays.items()}, notes


def checked_columns(array: np.ndarray, columns: int, where: str) -> np.ndarray:
    """`array` (time, columns), refused with another number of columns."""
    if array.shape[1] != columns:
        raise RecordingError(
            f"{where}: {array.shape[1]} columns, but this database has {columns}; is the file of another one?"
        )
    return array


def whole_numbers(array: np.ndarray, where: str) -> np.ndarray:
    """A column of whole numbers from 0, int64 (time,)."""
    values = checked_columns(array, 1, where)[:, 0]
    with np.errstate(invalid="ignore"):
        numbers = values.astype(np.int64)
    wrong = np.flatnonzero((numbers != values) | (numbers < 0))
    if wrong.size:
        raise RecordingError(
            f"{where}, sample {wrong[0]}: {values[wrong[0]]:g} is not a whole number from 0; download the file again"
        )
    return numbers


def checked_movements(movements: np.ndarray, known: range, where: str) -> None:
    """Raise `RecordingError` for a movement that is neither rest (0) nor in `known`."""
    wrong = np.flatnonzero((movements != 0) & ~np.isin(movements, known))
    if wrong.size:
        raise RecordingError(
            f"{where}, variable 'restimulus', sample {wrong[0]}: movement {movements[wrong[0]]}, but this file has "
            f"movements {known[0]} to {known[-1]}; is it of another exercise or database?"
        )


def rest_joined(movements: np.ndarray, repetitions: np.ndarray) -> np.ndarray:
    """Repetitions in which rest without one (0) belongs to the repetition before it."""
    unknown = (repetitions == 0) & (movements == 0)
    known_at = np.maximum.accumulate(np.where(unknown, 0, np.arange(len(repetitions))))
    return repetitions[known_at]
