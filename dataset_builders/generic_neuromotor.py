"""Generic neuromotor interface, discrete gestures: 100 people, a wristband of 16 channels at 2 kHz, 9 gesture events.

Source: https://github.com/facebookresearch/generic-neuromotor-interface (CC BY-NC 4.0); Kaifosh, Reardon et al.,
Nature, 2025. The signals were high-pass filtered at 40 Hz by the authors; nothing is filtered here.

Raw layout, as downloaded: `discrete_gestures_user_{000..099}_dataset_000.hdf5`, one of about 40 minutes per person
(`full_data.tar`; `small_subset.tar` has three), and `discrete_gestures_corpus.csv`. A file holds the compound dataset
`data` (`emg` f4[16], `time` f8 in seconds) with the attribute `task`, and the tables `prompts` (`name` of a gesture and
the `time` it happened) and `stages`, both written by pandas. Units are not stated; a typical value is 2.

Protocols. "paper" (TinyMyo): 80 % of each person's data train, 10 % validation, 10 % test; which, it does not say. Here
every recording is cut in time, the first 80 % for training, so that no sample is in two splits. Stages come one after
the other, so gestures may be missing from the later parts. "reference": the corpus's own `discrete_gestures_corpus.csv`
(columns dataset, start, end, split), which the released code of both papers reads: the relevant stages of 80, 10 and 10
people. Each line is a recording of its own; those of a test file that follow each other become one, as the test is run
over the whole session.
"""

import csv
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import h5py
import numpy as np

from .base import Download, EmgBuilder, EmgBuilderConfig, Events, Recording, Signal, logger
from .errors import LayoutError, RecordingError, SplitError
from .hdf5_files import open_group
from .pandas_frames import read_frame
from .protocols import natural_key, split_name
from .reality_labs import (
    AGAIN,
    GAPS,
    SAMPLING_RATE,
    find_files,
    find_series,
    positions,
    read_series,
    row_at_time,
    text_attribute,
)

GESTURES = (
    "index_press",
    "index_release",
    "middle_press",
    "middle_release",
    "thumb_click",
    "thumb_down",
    "thumb_in",
    "thumb_out",
    "thumb_up",
)
TASK = "discrete_gestures"
CORPUS = f"{TASK}_corpus.csv"
FILE_NAME = re.compile(rf"{TASK}_(user_\d+)_(dataset_\d+)")
PAPER_PARTS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}

_HOST = f"https://fb-ctrl-oss.s3.amazonaws.com/neuromotor-data/data/{TASK}"


@dataclass(frozen=True)
class Part(Recording):
    """A stretch of a file.

    Attributes:
        begin, end: where it begins and where it ends, the end not included.
        seconds: these are timestamps of the file; otherwise, shares of its samples.
    """

    begin: float = 0.0
    end: float = 1.0
    seconds: bool = False


@dataclass
class GenericNeuromotorConfig(EmgBuilderConfig):
    """Signals as they are, whole recordings, windows of 8 s without overlap."""

    name: str = "generic_neuromotor"
    sampling_rate: float | None = SAMPLING_RATE
    rows: str = "recordings"
    chunk_length: int | None = 16_000
    window_length: int = 16_000
    stride: int = 16_000
    band_pass: tuple[float, float] | None = None
    notch_frequencies: tuple[float, ...] = ()
    normalization: str = "none"


class GenericNeuromotor(EmgBuilder):
    """Generic neuromotor interface, discrete gestures: 16 channels of a wristband at 2 kHz, events of 9 gestures.

    Protocol "paper": the first 80 % of each recording train, the next 10 % validation, the last 10 % test. "reference":
    the stages and people listed in the corpus's CSV file.
    """

    BUILDER_CONFIG_CLASS = GenericNeuromotorConfig
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = "https://github.com/facebookresearch/generic-neuromotor-interface"
    LICENSE = "cc-by-nc-4.0"
    CITATION = (
        "Kaifosh P., Reardon T.R., CTRL-labs at Reality Labs. A generic non-invasive neuromotor interface for "
        "human-computer interaction. Nature, 2025. doi:10.1038/s41586-025-09255-w"
    )
    LAYOUT = f"files such as {TASK}_user_000_dataset_000.hdf5 (or full_data.tar with them) and {CORPUS}"
    DOWNLOADS = (
        Download(f"{_HOST}/full_data.tar", "full_data.tar"),
        Download(f"{_HOST}/{CORPUS}", CORPUS),
    )

    def task(self) -> str:
        """Gestures happen at moments, several in one window."""
        return "events"

    def class_names(self) -> tuple[str, ...]:
        """The gestures, in the order of the corpus."""
        return GESTURES

    def num_channels(self) -> int:
        """The electrodes of the wristband."""
        return 16

    def metadata_features(self) -> dict[str, datasets.Value]:
        """`offset`: the sample of the file with which the recording begins."""
        return {"offset": datasets.Value("int64")}

    def list_recordings(self, root: Path) -> list[Recording]:
        """The parts of every file, in order of person, file and time."""
        files = find_files(root, f"{TASK}_*.hdf5")
        for name, path in files.items():
            if not FILE_NAME.fullmatch(name):
                raise LayoutError(f"{path}: not named {TASK}_user_NNN_dataset_NNN.hdf5; rename or remove it")
        if not files:
            raise LayoutError(f"{root} does not hold the corpus: expected {self.LAYOUT}")
        if self.config.protocol == "paper":
            return [
                _part(path, split, split, begin, end)
                for _, path in sorted(files.items(), key=lambda item: natural_key(item[0]))
                for split, (begin, end) in PAPER_PARTS.items()
            ]
        return self._listed_parts(root, files)

    def _listed_parts(self, root: Path, files: dict[str, Path]) -> list[Recording]:
        tables = sorted(
            {*root.rglob(CORPUS), *(p.parent / CORPUS for p in files.values() if (p.parent / CORPUS).exists())}
        )
        if not tables:
            raise LayoutError(
                f'{root}: protocol="reference" needs {CORPUS}, the table of the splits; get it from {_HOST}/{CORPUS} '
                "and put it beside the recordings, or their archive"
            )
        stages = read_corpus(tables[0])
        if unlisted := sorted(files.keys() - stages.keys(), key=natural_key):
            raise SplitError(f"{tables[0]} has no line for {', '.join(unlisted[:10])}; add lines, or remove the files")
        absent = sorted(stages.keys() - files.keys(), key=natural_key)
        self.absent_subjects = _subjects(absent, files)
        if absent and not self.config.allow_missing:
            raise SplitError(
                f"{len(absent)} of the {len(stages)} recordings of {CORPUS} have no file: {', '.join(absent)}. "
                "Complete the corpus, or pass allow_missing=True to work with those that are there"
            )
        if absent:
            logger.warning(f"{root}: no files of {', '.join(absent)}; going on without them")
        return [
            _part(files[name], f"{number:02d}", stage.split, stage.start, stage.end, seconds=True)
            for name in sorted(files, key=natural_key)
            for number, stage in enumerate(stages[name], 1)
        ]

    def read_recording(self, recording: Part) -> Signal:
        """The samples of a part, and the gestures that happened during it."""
        where = recording.path
        with open_group(where) as file:
            series = find_series(file, "data", ("emg",), where)
            task = text_attribute(series, "task", where)
            if task != TASK:
                raise RecordingError(f"{where}: recorded for the task {task!r}, not {TASK!r}; leave the file out")
            first, last = _rows(series, recording)
            times, samples, gaps = read_series(series, ("emg",), first, last, where)
            length = len(series)
            if last < length:  # an event may come between the last sample and the next part
                times = np.append(times, float(series[last]["time"]))
            if "prompts" not in file:
                raise RecordingError(f"{where}: no table 'prompts' with the gestures; {AGAIN}")
            prompts = read_frame(file["prompts"], f"{where}/prompts")
        events, notes = _events(prompts, times, first == 0, last == length, where)
        return Signal(samples, SAMPLING_RATE, events=events, metadata={"offset": first}, notes=notes | {GAPS: gaps})


@dataclass(frozen=True)
class Stage:
    """A line of the corpus's CSV file: a stretch of time (seconds) and its split."""

    start: float
    end: float
    split: str


def read_corpus(path: Path) -> dict[str, list[Stage]]:
    """The stages of each recording, in order of time; consecutive ones for testing are joined.

    Raises:
        LayoutError: the table is damaged or lacks a column.
        SplitError: a split is unknown, or stages of different splits overlap.
    """
    stages: dict[str, list[Stage]] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in ("dataset", "start", "end", "split") if c not in (reader.fieldnames or ())]
            if missing:
                raise LayoutError(f"{path}, line 1: no column {', '.join(missing)}; download the table again")
            for row in reader:
                name, stage = _stage(row, f"{path}, line {reader.line_num}")
                stages.setdefault(name, []).append(stage)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise LayoutError(f"{path}: not a text table ({error}); download it again") from error
    if not stages:
        raise LayoutError(f"{path} has no lines; download it again")
    return {name: _ordered(of, f"{path}: {name}") for name, of in stages.items()}


def _stage(row: dict, where: str) -> tuple[str, Stage]:
    name = (row["dataset"] or "").strip().removesuffix(".hdf5")
    try:
        start, end = float(row["start"] or ""), float(row["end"] or "")
    except ValueError as error:
        raise LayoutError(f"{where}: start and end must be numbers of seconds ({error}); correct the line") from error
    if not name or not start < end:
        raise LayoutError(f"{where}: needs a dataset, and a start before the end; correct the line")
    try:
        return name, Stage(start, end, split_name(row["split"] or ""))
    except SplitError as error:
        raise SplitError(f"{where}: {error}") from error


def _ordered(stages: list[Stage], where: str) -> list[Stage]:
    stages = sorted(stages, key=lambda stage: (stage.start, stage.end))
    for i, stage in enumerate(stages):
        for other in stages[i + 1 :]:
            if other.split != stage.split and other.start < stage.end:
                raise SplitError(
                    f"{where}: {stage.split} until {stage.end} overlaps {other.split} from {other.start}; samples "
                    "would be in two splits: correct the times"
                )
    joined = stages[:1]
    for stage in stages[1:]:
        if stage.split == joined[-1].split == "test":
            joined[-1] = replace(joined[-1], end=max(joined[-1].end, stage.end))
        else:
            joined.append(stage)
    return joined


def _part(path: Path, suffix: str, split: str, begin: float, end: float, seconds: bool = False) -> Part:
    user, dataset = FILE_NAME.fullmatch(path.stem).groups()
    return Part(str(path), f"{path.stem}/{suffix}", user, dataset, split, None, begin, end, seconds)


def _subjects(absent: list[str], files: dict[str, Path]) -> tuple[str, ...]:
    """Subjects of the absent recordings who have no recording at all."""
    of = {name: match[1] if (match := FILE_NAME.fullmatch(name)) else name for name in (*absent, *files)}
    present = {of[name] for name in files}
    return tuple(dict.fromkeys(of[name] for name in absent if of[name] not in present))


def _rows(series: h5py.Dataset, part: Part) -> tuple[int, int]:
    """First row of a part and the one after its last."""
    if part.seconds:
        first, last = row_at_time(series, part.begin), row_at_time(series, part.end)
    else:
        first, last = (math.floor(share * len(series) + 0.5) for share in (part.begin, part.end))
    if first >= last:
        raise RecordingError(
            f"{part.path}: no sample from {part.begin} to {part.end} ({part.name}); correct {CORPUS}, or leave the "
            "file out"
        )
    return first, last


def _events(
    prompts: dict[str, np.ndarray], times: np.ndarray, is_first: bool, is_last: bool, where: str
) -> tuple[Events, dict[str, int]]:
    """Gestures from the first of `times` up to the last one, or including it at the end of the file."""
    names, moments = prompts.get("name"), prompts.get("time")
    if names is None or moments is None or names.dtype != object or (len(moments) and moments.dtype.kind not in "fiu"):
        raise RecordingError(f"{where}: the table 'prompts' must have text in `name` and numbers in `time`; {AGAIN}")
    moments = moments.astype(np.float64)
    if not np.isfinite(moments).all():
        row = int(np.flatnonzero(~np.isfinite(moments))[0])
        raise RecordingError(f"{where}: time of prompt {row} is {moments[row]}; {AGAIN}")
    inside = (moments >= times[0]) & ((moments <= times[-1]) if is_last else (moments < times[-1]))
    known = np.isin(names.astype(str), GESTURES)
    notes = {
        "prompts that are no gesture of the corpus": int((inside & ~known).sum()),
        "gestures before the first sample of the file": int((known & is_first & (moments < times[0])).sum()),
        "gestures after the last sample of the file": int((known & is_last & (moments > times[-1])).sum()),
    }
    order = np.flatnonzero(inside & known)
    order = order[np.argsort(moments[order], kind="stable")]
    at = positions(times, moments[order])
    return Events(tuple(map(str, names[order])), at, at), notes
