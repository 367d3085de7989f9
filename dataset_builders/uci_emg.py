"""UCI "EMG data for gestures": 36 subjects, 8 channels of a Myo armband, 6 gestures (a 7th of two subjects is dropped).

Source: https://archive.ics.uci.edu/dataset/481 (CC BY 4.0); Lobov et al., Sensors 18(4):1122, 2018.

Raw layout, as downloaded: folders `01` to `36`, in each one text file per series (`1_raw_data_....txt`, `2_...`), tab
separated with a header: time in ms, channel1 to channel8 in volts, class. Classes 1 to 6 become labels 0 to 5; 0
(unmarked) and 7 (extended palm) are dropped.

The corpus is described, and by every publication on it processed, as sampled at 200 Hz. The files hold about 966 rows
per second in which values repeat; `start` and the window length count rows, and filters take a row as 1/200 s, so that
figures compare with published ones.
"""

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tinymyo_hf.recordings import read_recording
from tinymyo_hf.signal import SignalError

from .archives import find_root
from .base import (
    UNLABELLED,
    Download,
    EmgBuilder,
    EmgBuilderConfig,
    Recording,
    RecordingError,
    Signal,
    SplitError,
    logger,
)
from .protocols import natural_key

CHANNELS = tuple(f"channel{i}" for i in range(1, 9))
CLASS_COLUMN = "class"
RAW_CLASSES = range(8)
CUT_FILE = "34/1_raw_data_10-51_07.04.16.txt"
"""The one file of the corpus whose last line is said to lack its class, as published; it is left out and counted."""
SUBJECTS = {
    "train": tuple(f"{i:02d}" for i in range(1, 25)),
    "validation": tuple(f"{i:02d}" for i in range(25, 31)),
    "test": tuple(f"{i:02d}" for i in range(31, 37)),
}
SERIES_SPLITS = {"1": "train", "2": "test"}
"""Split of each series in the protocol "within_subject"."""


@dataclass
class UciEmgConfig(EmgBuilderConfig):
    """200-sample windows with stride 100 by default; the other published setting is 1000 with stride 250.

    "paper": subjects 1-24 train, 25-30 validation, 31-36 test.
    "within_subject": of every subject who has both, series 1 train and series 2 test, for models of one person each.

    Copies of the corpus that lack a few files are common, so subjects without files are a warning here, not an error.
    """

    name: str = "uci_emg"
    allow_missing: bool = True


class UciEmg(EmgBuilder):
    """UCI "EMG data for gestures": 8 channels, 6 gestures; split by subject, or by series within each subject."""

    BUILDER_CONFIG_CLASS = UciEmgConfig
    PROTOCOLS = ("paper", "within_subject")
    HOMEPAGE = "https://archive.ics.uci.edu/dataset/481"
    LICENSE = "cc-by-4.0"
    CITATION = (
        "Lobov S., Krilova N., Kastalskiy I., Kazantsev V., Makarov V.A. Latent Factors Limiting the Performance of "
        "sEMG-Interfaces. Sensors 18(4):1122, 2018. doi:10.3390/s18041122"
    )
    LAYOUT = "folders 01 to 36, each with files such as 1_raw_data_13-12_22.03.16.txt"
    DOWNLOADS = (
        Download(
            "https://archive.ics.uci.edu/static/public/481/emg+data+for+gestures.zip", "emg_data_for_gestures.zip"
        ),
    )

    def class_names(self) -> tuple[str, ...]:
        """The gestures, named as on the dataset's page."""
        return (
            "hand at rest",
            "hand clenched in a fist",
            "wrist flexion",
            "wrist extension",
            "radial deviations",
            "ulnar deviations",
        )

    def num_channels(self) -> int:
        """The electrodes of the armband."""
        return len(CHANNELS)

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every series file; the session is the series number in front of its name."""
        files = _series_files(find_root(root, lambda folder: bool(_series_files(folder)), self.LAYOUT))
        present = {subject for subject, _, _ in files}
        if self.config.protocol == "within_subject":
            self.split_subjects(present, {"train": tuple(chain.from_iterable(SUBJECTS.values()))})
            files = self._with_both_series(files)
            split_of = {(subject, session): SERIES_SPLITS[session] for subject, session, _ in files}
        else:
            by_subject = self.split_subjects(present, SUBJECTS)
            split_of = {(subject, session): by_subject[subject] for subject, session, _ in files}
        return [
            Recording(str(path), f"{subject}/{path.name}", subject, session, split_of[subject, session])
            for subject, session, path in files
        ]

    def read_recording(self, recording: Recording) -> Signal:
        """One series; classes become labels."""
        path, content, cut = Path(recording.path), None, 0
        if recording.name == CUT_FILE:
            content, cut = _without_cut_line(path)
        samples, classes = _read_series(path, content)
        labels = np.where((classes >= 1) & (classes <= 6), classes - 1, UNLABELLED)
        return Signal(
            samples, self.config.sampling_rate, labels, notes={"last lines without a class": cut} if cut else {}
        )

    def _with_both_series(self, files: list[tuple[str, str, Path]]) -> list[tuple[str, str, Path]]:
        """The files of the two series of the subjects who have both."""
        series: dict[str, set[str]] = {}
        for subject, session, _ in files:
            series.setdefault(subject, set()).add(session)
        complete = {subject for subject, present in series.items() if present >= SERIES_SPLITS.keys()}
        left_out = sorted(series.keys() - complete)
        if not complete:
            raise SplitError(f"{self.config.data_dir}: no subject has series 1 and 2: complete the corpus")
        if left_out:
            self.absent_subjects = tuple(sorted({*self.absent_subjects, *left_out}))
            logger.warning(
                f"{self.config.data_dir}: subjects {', '.join(left_out)} lack series 1 or 2; going on without them"
            )
        return [file for file in files if file[0] in complete and file[1] in SERIES_SPLITS]


def _series_files(root: Path) -> list[tuple[str, str, Path]]:
    """(subject, session, file) of every series in the subject folders of `root`, in natural order."""
    found = []
    for folder in root.iterdir():
        if not (folder.is_dir() and re.fullmatch(r"\d{1,2}", folder.name)):
            continue
        for path in folder.iterdir():
            if match := re.fullmatch(r"(\d+)_raw_data.*\.txt", path.name):
                found.append((f"{int(folder.name):02d}", match[1], path))
    return sorted(found, key=lambda item: (item[0], natural_key(item[2].name)))


def _without_cut_line(path: Path) -> tuple[bytes, int]:
    """Content of a file whose last line may lack its class, without that line, and how many lines that took."""
    content = path.read_bytes().rstrip()
    *whole, last = content.split(b"\n")
    return (b"\n".join(whole) + b"\n", 1) if last.count(b"\t") < len(CHANNELS) + 1 else (content + b"\n", 0)


def _read_series(path: Path, content: bytes | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Samples float64 (8, rows) and classes int64 (rows,) of a series file, or of `content` in its place.

    The fast parser handles well-formed files; anything it refuses goes through the general reader, which either copes
    or names the line.
    """
    types = {column: pa.float64() for column in CHANNELS} | {CLASS_COLUMN: pa.int64()}
    try:
        table = pa.csv.read_csv(
            path if content is None else pa.BufferReader(content),
            pa.csv.ReadOptions(use_threads=False),
            pa.csv.ParseOptions(delimiter="\t", ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
        if any(column.null_count for column in table.columns):
            raise pa.ArrowInvalid("empty cells")
        samples = np.stack([table[column].to_numpy() for column in CHANNELS])
        classes = table[CLASS_COLUMN].to_numpy()
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        try:
            read = read_recording(path, channels=CHANNELS, label_column=CLASS_COLUMN)
        except SignalError as error:
            raise RecordingError(str(error)) from error
        samples, classes = read.signal, read.labels
    # the general reader returns text if a cell is empty
    known = list(map(str, RAW_CLASSES)) if classes.dtype.kind == "U" else RAW_CLASSES
    unknown = np.flatnonzero(~np.isin(classes, known))
    if unknown.size:
        row = int(unknown[0])
        raise RecordingError(
            f"{path}, line {row + 2}, column {CLASS_COLUMN!r}: {str(classes[row])!r} is not a class (0 to 7); "
            "repair the line"
        )
    return samples, classes
