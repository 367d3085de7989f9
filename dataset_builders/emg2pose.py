"""emg2pose: 193 people, a wristband of 16 channels at 2 kHz, joint angles of the hand from motion capture, 370 hours.

Source: https://github.com/facebookresearch/emg2pose (CC BY-NC-SA 4.0); Salter et al., NeurIPS 2024, arXiv:2412.02725.

Raw layout, as downloaded (`emg2pose_dataset.tar`, 431 GiB; `emg2pose_dataset_mini.tar`, 600 MiB): 25,253 files
SESSION_SIDE.hdf5, each about a minute of one hand, with the group `emg2pose` (attributes session, user, stage, side,
sample_rate) and in it the compound dataset `timeseries`: `time` f8 in seconds, `emg` f4[16], `joint_angles` f4[20] in
radians. Beside them `metadata.csv` (also apart, as `emg2pose_metadata.csv`) with a line per file: filename, session,
user, stage, side, moving_hand, split (train, val or test), generalization and more.

Splits are those of metadata.csv. They share people by design: `generalization` says what is new in a file of the
validation and test splits, the user, the stage (what the hands do), or both ("user", "stage", "user_stage").

The motion capture fails at times; all 20 angles are 0 then. Where angles are targets, a recording is therefore cut,
after filtering, into the stretches that have them, each a recording named after its first sample; stretches shorter
than a window are left out. (The corpus's own code, too, trains on windows within such stretches.) What is cut out is
counted.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np

from .base import Download, EmgBuilder, EmgBuilderConfig, Recording, Signal, logger
from .config import FROM_PROTOCOL
from .errors import LayoutError, RecordingError, SplitError
from .hdf5_files import check_timestamps, open_group, read_fields
from .protocols import natural_key, split_name
from .reality_labs import GAPS, SAMPLING_RATE, find_files, number_attribute, text_attribute

GROUP, SERIES = "emg2pose", "timeseries"
NUM_CHANNELS = 16
METADATA_FILES = ("metadata.csv", "emg2pose_metadata.csv")
FINGERS = ("index", "middle", "ring", "little")
FINGER_JOINTS = ("MCP abduction", "MCP flexion", "PIP flexion", "DIP flexion")
JOINTS = (
    *("thumb CMC flexion", "thumb CMC abduction", "thumb MCP flexion", "thumb IP flexion"),
    *(f"{finger} {joint}" for finger in FINGERS for joint in FINGER_JOINTS),
)
"""The joint angles, in the order of the files (constants.py of the released code)."""
COLUMNS = ("filename", "session", "user", "stage", "side", "split")
DETAILS = ("stage", "side", "moving_hand", "generalization")
"""Columns of metadata.csv that become columns of the dataset."""
NO_ANGLES = "samples without joint angles (motion capture failed)"
SHORT = "samples in stretches with joint angles shorter than a window"

_HOST = "https://fb-ctrl-oss.s3.amazonaws.com/emg2pose"


@dataclass
class Emg2poseConfig(EmgBuilderConfig):
    """Pretraining: whole recordings, band-pass 20 to 450 Hz, windows of 1000 samples with stride 500 cut from them.

    "paper": recordings are stored filtered; each window is then to be scaled to [-1, 1] per channel, as the feature
    extractor does. "reference", the released code: recordings are stored as z-scores (it scales windows after that).

    A dead channel in one of 25,253 files is no reason to stop: constant channels are accepted.

    Attributes:
        targets: keep the joint angles as regression targets, frames of `target_hop` samples (their mean).
    """

    name: str = "emg2pose"
    targets: bool = False
    sampling_rate: float | None = SAMPLING_RATE
    rows: str = "recordings"
    chunk_length: int | None = 10_000
    window_length: int = 1000
    stride: int = 500
    band_pass: tuple[float, float] | None = (20.0, 450.0)
    normalization: str = FROM_PROTOCOL
    normalization_scope: str = FROM_PROTOCOL
    allow_constant_channels: bool = True

    PROTOCOL_FIELDS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"normalization": "minmax", "normalization_scope": "window"},
        "reference": {"normalization": "zscore", "normalization_scope": "recording"},
    }


@dataclass(frozen=True)
class PoseRecording(Recording):
    """A recording with what metadata.csv says about it.

    Attributes:
        details: values of `DETAILS`, empty where they are not known.
    """

    details: tuple[str, ...] = ("",) * len(DETAILS)


@dataclass(frozen=True)
class Stretch(Signal):
    """A part of a recording that is filtered as a whole."""

    whole: Signal | None = None
    part: range = range(0)


class Emg2pose(EmgBuilder):
    """emg2pose: 16 channels of a wristband at 2 kHz, with the joint angles of the hand if `targets` is set.

    Splits of metadata.csv; without that file, every recording is in the train split.
    """

    BUILDER_CONFIG_CLASS = Emg2poseConfig
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = "https://github.com/facebookresearch/emg2pose"
    LICENSE = "cc-by-nc-sa-4.0"
    CITATION = (
        "Salter S., Warren R., Schlager C., et al. emg2pose: A Large and Diverse Benchmark for Surface "
        "Electromyographic Hand Pose Estimation. NeurIPS Datasets and Benchmarks, 2024. arXiv:2412.02725"
    )
    LAYOUT = "files SESSION_SIDE.hdf5 (or emg2pose_dataset.tar with them) and metadata.csv"
    DOWNLOADS = (
        Download(f"{_HOST}/emg2pose_metadata.csv", "emg2pose_metadata.csv"),
        Download(f"{_HOST}/emg2pose_dataset.tar", "emg2pose_dataset.tar"),
    )

    _processed: tuple[Signal, np.ndarray] | None = None
    """The recording processed last."""

    def task(self) -> str:
        """Signals only, unless joint angles are asked for."""
        return "regression" if self.config.targets else "unlabelled"

    def target_names(self) -> tuple[str, ...]:
        """The 20 joint angles, radians."""
        return JOINTS if self.config.targets else ()

    def metadata_features(self) -> dict[str, datasets.Value]:
        """What metadata.csv says besides; empty texts where there is no such file."""
        return {name: datasets.Value("string") for name in DETAILS}

    def num_channels(self) -> int:
        """The electrodes of the wristband."""
        return NUM_CHANNELS

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every file that metadata.csv lists, none of which is opened; without it, every file."""
        files = find_files(root, "*.hdf5")
        if not files:
            raise LayoutError(f"{root} does not hold the corpus: expected {self.LAYOUT}")
        metadata = _find_metadata(root, files)
        if metadata is None:
            logger.warning(f"{root}: no metadata.csv, which has the splits; all recordings are in the train split")
            return [_described_by_itself(files[name]) for name in sorted(files, key=natural_key)]
        rows = _read_metadata(metadata)
        self._check_files(metadata, rows, files)
        return [
            PoseRecording(
                str(files[name]),
                name,
                row["user"],
                row["session"],
                row["split"],
                details=tuple(row.get(detail) or "" for detail in DETAILS),
            )
            for name, row in rows.items()
            if name in files
        ]

    def read_recording(self, recording: PoseRecording) -> Signal:
        """The signal of one hand, all of it, without joint angles."""
        return self._read(recording)[0]

    def read_takes(self, recording: PoseRecording) -> Iterator[Signal]:
        """The recording; where joint angles are wanted, its stretches that have them."""
        whole, angles = self._read(recording)
        if angles is None:
            yield whole
            return
        present = np.isfinite(angles).all(axis=1) & ~np.isclose(angles, 0).all(axis=1)
        stretches = [part for part in _runs(present) if len(part) >= self.config.window_length]
        used = sum(map(len, stretches))
        notes = whole.notes | {NO_ANGLES: int((~present).sum()), SHORT: int(present.sum()) - used}
        if not stretches:
            logger.warning(f"{recording.path}: no stretch with joint angles is as long as a window; left out")
        for i, part in enumerate(stretches):
            yield Stretch(
                whole.samples[:, part.start : part.stop],
                whole.sampling_rate,
                targets=_frames(angles[part.start : part.stop], self.config.target_hop),
                metadata=whole.metadata,
                name="" if len(part) == len(present) else str(part.start),
                notes={} if i else notes,
                whole=whole,
                part=part,
            )

    def process(self, recording: Recording, signal: Signal) -> np.ndarray:
        """Filter and normalise the whole recording, once, and cut the stretch out of it."""
        if not isinstance(signal, Stretch):
            return super().process(recording, signal)
        if self._processed is None or self._processed[0] is not signal.whole:
            channels = slice(None) if self.selected_channels is None else self.selected_channels
            selected = replace(signal.whole, samples=signal.whole.samples[channels])
            self._processed = signal.whole, super().process(recording, selected)
        processed = self._processed[1]
        rate = processed.shape[1] / signal.whole.samples.shape[1]
        return processed[:, round(signal.part.start * rate) : round(signal.part.stop * rate)]

    def _read(self, recording: PoseRecording) -> tuple[Signal, np.ndarray | None]:
        """The whole recording, and its joint angles (time, 20), 0 where there are none, if they are wanted."""
        path = recording.path
        _check_rate(path)
        fields = {"time": ("f", ()), "emg": ("f", (NUM_CHANNELS,))}
        if self.config.targets:
            fields["joint_angles"] = ("f", (len(JOINTS),))
        read = read_fields(path, GROUP, SERIES, fields)
        if not len(read["time"]):
            raise RecordingError(f"{path}, dataset {GROUP}/{SERIES}: no samples; leave the file out")
        notes = {GAPS: check_timestamps(read["time"], SAMPLING_RATE, path)}
        details = dict(zip(DETAILS, recording.details, strict=True))
        return Signal(read["emg"].T, SAMPLING_RATE, notes=notes, metadata=details), read.get("joint_angles")

    def _check_files(self, metadata: Path, rows: dict[str, dict[str, str]], files: dict[str, Path]) -> None:
        missing = [name for name in rows if name not in files]
        if missing and (not self.config.allow_missing or len(missing) == len(rows)):
            raise LayoutError(
                f"{metadata}: {len(missing)} of its {len(rows)} files are not there: {', '.join(missing[:5])}"
                f"{', ...' if len(missing) > 5 else ''}. Complete the corpus, or pass allow_missing=True to work with "
                "the files that are there"
            )
        users = {row["user"] for name, row in rows.items() if name in files}
        self.absent_subjects = tuple(sorted({row["user"] for row in rows.values()} - users))
        if missing:
            logger.warning(f"{metadata}: {len(missing)} of its {len(rows)} files are not there; going on without them")
        if unlisted := len(files.keys() - rows.keys()):
            logger.warning(f"{metadata}: {unlisted} files are not listed and left out")


def _find_metadata(root: Path, files: dict[str, Path]) -> Path | None:
    """metadata.csv beside the files or above them."""
    folder = next(iter(files.values())).parent
    candidates = [place / name for place in (folder, folder.parent, root) for name in METADATA_FILES]
    return next((path for path in candidates if path.is_file()), None)


def _read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """The lines of metadata.csv by file name without suffix, in natural order; splits have their canonical names."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise LayoutError(f"{path}: no column {', '.join(missing)}; download the file again")
            rows: dict[str, dict[str, str]] = {}
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or any(not row[name] for name in COLUMNS):
                    raise LayoutError(
                        f"{where}: {', '.join(COLUMNS)} must be filled in, and nothing after the last column"
                    )
                name = row["filename"].removesuffix(".hdf5")
                if name in rows:
                    raise LayoutError(f"{where}: {name} is listed twice; keep one of the lines")
                try:
                    rows[name] = row | {"split": split_name(row["split"])}
                except SplitError as error:
                    raise SplitError(f"{where}: {error}") from None
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise LayoutError(f"{path} cannot be read as CSV ({error}); download it again") from error
    if not rows:
        raise LayoutError(f"{path}: no recording listed; download it again")
    return {name: rows[name] for name in sorted(rows, key=natural_key)}


def _described_by_itself(path: Path) -> PoseRecording:
    """What the attributes of a file say about it."""
    with open_group(path, GROUP) as group:
        values = {name: text_attribute(group, name, str(path)) for name in ("user", "session", "stage", "side")}
    details = (values["stage"], values["side"], "", "")
    return PoseRecording(str(path), path.stem, values["user"], values["session"], "train", details=details)


def _check_rate(path: str) -> None:
    with open_group(path, GROUP) as group:
        rate = number_attribute(group, "sample_rate", path)
    if rate != SAMPLING_RATE:
        raise RecordingError(
            f"{path}: sampled at {rate} Hz instead of {SAMPLING_RATE:g} Hz; is it a file of this corpus?"
        )


def _runs(present: np.ndarray) -> list[range]:
    """Where runs of True begin and end."""
    borders = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [range(start, stop) for start, stop in borders.reshape(-1, 2).tolist()]


def _frames(angles: np.ndarray, hop: int) -> np.ndarray:
    """Means of `hop` consecutive rows; rows that do not fill a frame are left out."""
    frames = len(angles) // hop
    return angles[: frames * hop].reshape(frames, hop, -1).mean(axis=1)
