"""A folder of one's own recordings: csv, tsv, txt, parquet, npy, npz, mat, hdf5 or headerless binary files, and a
metadata.csv that says what they are.

metadata.csv has one line per recording. Its columns, of which only file_name is always needed:

- file_name: path of the recording within the folder.
- what the recording is for, which decides the task:
  - classification: label, the class of the whole recording; or label_column, the column (of an array file: the
    variable, or the position of a channel) that holds a class per sample.
  - regression: target_columns, the columns of the recording that hold the targets, separated by semicolons; or
    target_file, another file with a row per frame, and target_sampling_rate (Hz, unless that file states it), of which
    target_columns selects columns. Targets are interpolated to the signal.
  - events: event_file, a csv, tsv or json file with name, start and end of each event.
  - text: what was said or typed in the recording.
- subject, session: who and when.
- split: train, validation or test for every file; without it, subjects are held out.
- sampling_rate: Hz, unless the files state it.

The options label_column and target_columns say the same for all files at once. How a file is read (what is a channel,
what is time) is documented in `tinymyo_hf.recordings`.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import numpy as np

from tinymyo_hf import recordings as files
from tinymyo_hf.signal import SignalError

from .archives import find_root
from .base import (
    UNLABELLED,
    ConfigError,
    EmgBuilder,
    EmgBuilderConfig,
    LayoutError,
    Recording,
    RecordingError,
    Signal,
    logger,
)
from .config import FROM_PROTOCOL
from .folder_events import UNITS, Event, place_events, read_events
from .folder_metadata import METADATA, Row, read_metadata, task_of
from .folder_targets import common_length, targets_at_frames
from .protocols import even_subject_split, natural_key

IGNORED_EVENTS = "events named in ignore_labels"


@dataclass
class EmgFolderConfig(EmgBuilderConfig):
    """How to read the files, in addition to the preprocessing in `EmgBuilderConfig`.

    Attributes:
        protocol: "metadata" splits as metadata.csv says; "all_train" puts everything into the training split, whatever
            it says, as for the recordings of one person.
        sampling_rate: Hz to resample to; None takes the rate of the files, which must then agree.
        rows: by default recordings for events and text, windows for all else.
        task: the task to prepare for where metadata.csv has the columns of several; "unlabelled" uses none of them,
            and is the only way to prepare recordings that have none.
        class_names: the classes, in the order of their ids. None takes the labels of metadata.csv, or the names in the
            event files, sorted; a class per sample needs the names: values are names, or whole numbers counting from 0.
        label_column: as the column of that name in metadata.csv, for all files without a label of their own.
        ignore_labels: values per sample, or names of events, that mean "no class".
        target_columns: as the column of that name in metadata.csv, for all files.
        target_names: names for the targets, in order; None takes those of the columns.
        event_unit: "seconds" or "samples" (of the recording), of the starts and ends in event files.
        channels, key, layout, raw_type, raw_channels: as for `tinymyo_hf.recordings.read_recording`.
        validation_subjects, test_subjects: whom to hold out where metadata.csv has no splits; by default the last 15 %
            each, in natural order.
    """

    name: str = "emg_folder"
    protocol: str = "metadata"
    sampling_rate: float | None = None
    rows: str = FROM_PROTOCOL
    task: str | None = None
    class_names: tuple[str, ...] | None = None
    label_column: str | int | None = None
    ignore_labels: tuple[str | int, ...] = ()
    target_columns: tuple[str | int, ...] | None = None
    target_names: tuple[str, ...] | None = None
    event_unit: str = "seconds"
    channels: tuple[str | int, ...] | None = None
    key: str | None = None
    layout: str | None = None
    raw_type: str | None = None
    raw_channels: int | None = None
    validation_subjects: tuple[str, ...] | None = None
    test_subjects: tuple[str, ...] | None = None

    def _check_fields(self) -> None:
        super()._check_fields()
        if self.event_unit not in UNITS:
            raise ConfigError(f"event_unit={self.event_unit!r}: unknown; use one of {', '.join(UNITS)}")


@dataclass(frozen=True)
class FolderRecording(Recording):
    """A recording with what metadata.csv says about it."""

    row: Row = field(kw_only=True)


@dataclass(frozen=True)
class FirstFile:
    """What the first recording tells about all: number of channels, rate in Hz if stated, names of the targets."""

    channels: int
    rate: float | None
    target_names: tuple[str, ...]


class EmgFolder(EmgBuilder):
    """Recordings of one's own, described by a metadata.csv."""

    BUILDER_CONFIG_CLASS = EmgFolderConfig
    PROTOCOLS = ("metadata", "all_train")
    LAYOUT = f"recordings and a {METADATA} with the columns file_name, label, subject, split and sampling_rate"

    @functools.cached_property
    def folder(self) -> Path:
        """The folder with metadata.csv."""
        return find_root(self.root, lambda folder: (folder / METADATA).is_file(), self.LAYOUT)

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The checked lines of metadata.csv."""
        return read_metadata(self.folder)

    @functools.cached_property
    def _task(self) -> str:
        options = {"classification": "label_column", "regression": "target_columns"}
        given = {task: option for task, option in options.items() if getattr(self.config, option) is not None}
        return task_of(self.folder / METADATA, self.rows, self.config.task, given)

    def task(self) -> str:
        """The task whose columns metadata.csv has."""
        return self._task

    @functools.cached_property
    def first_file(self) -> FirstFile:
        """What the first recording tells about all of them."""
        row = self.rows[0]
        read = self._read(row, None)
        targets = ()
        if self.task() == "regression":
            targets = read.target_names if row.target_file is None else self._read_target_file(row).columns
        return FirstFile(len(read.signal), read.sampling_rate, targets)

    @functools.cached_property
    def rate(self) -> float:
        """Hz of all recordings after reading, and resampling if that was asked for."""
        if self.config.sampling_rate is not None:
            return self.config.sampling_rate
        stated = {row.sampling_rate: row for row in reversed(self.rows) if row.sampling_rate is not None}
        if len(stated) > 1:
            examples = ", ".join(f"{row.file_name} (line {row.line}) at {rate:g} Hz" for rate, row in stated.items())
            raise ConfigError(
                f"{METADATA}: the recordings differ in sampling rate: {examples}. Set the option sampling_rate to the "
                "rate to which all are to be resampled"
            )
        rate = next(iter(stated), None) or self.first_file.rate
        if rate is None:
            raise ConfigError(
                f"{self.rows[0].path}: neither the file nor {METADATA} states a sampling rate; add a column "
                "sampling_rate (Hz)"
            )
        return rate

    def extractor_options(self) -> dict:
        """The rate of the files, or resampling to the one configured."""
        mismatch = "error" if self.config.sampling_rate is None else "resample"
        return {"sampling_rate": self.rate, "on_rate_mismatch": mismatch}

    def num_channels(self) -> int:
        """Channels of the first recording; the others must have as many."""
        return self.first_file.channels

    @property
    def selected_channels(self) -> None:
        """Nothing is left to select: the reader takes the option `channels`, which may be names."""
        return None

    def class_names(self) -> tuple[str, ...]:
        """The configured classes, or the labels in metadata.csv or names of events, in natural order."""
        return self._class_names

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        if self.task() not in ("classification", "events"):
            return ()
        if self.config.class_names is not None:
            return tuple(map(str, self.config.class_names))
        if self.task() == "events":
            found = {event.name for row in self.rows for event in self._events(row)[0]}
            return tuple(sorted(found, key=natural_key))
        for row in self.rows:
            if self._label_column(row) is not None:
                raise ConfigError(
                    f"{row.file_name} has a class per sample: set the option class_names to the classes, in the order "
                    "of their numbers"
                )
        return tuple(sorted({row.label for row in self.rows}, key=natural_key))

    def target_names(self) -> tuple[str, ...]:
        """The configured names, or those of the columns in the first file."""
        found, names = self.first_file.target_names, self.config.target_names
        if names is None or self.task() != "regression":
            return found
        if len(names) != len(found):
            raise ConfigError(
                f"target_names has {len(names)} names, but {self.rows[0].file_name} has {len(found)} targets "
                f"({', '.join(found)}); give one name for each"
            )
        return tuple(map(str, names))

    def _info(self) -> datasets.DatasetInfo:
        if self.config.rows == FROM_PROTOCOL:
            rows = "recordings" if self.task() in ("events", "text") else "windows"
            self.config = replace(self.config, rows=rows)
        return super()._info()

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every line of metadata.csv, with its split."""
        all_train = self.config.protocol == "all_train"
        split_of = {} if all_train or self.rows[0].split else self._split_by_subject()
        if not all_train:
            self._warn_of_shared_subjects()
        return [
            FolderRecording(
                str(row.path),
                row.file_name,
                row.subject or "",
                row.session or "",
                "train" if all_train else row.split or split_of[row.subject],
                row=row,
            )
            for row in self.rows
        ]

    def read_recording(self, recording: FolderRecording) -> Signal:
        """Read a file; its class, or classes per sample, become ids; its targets come at the rate of the windows."""
        row = recording.row
        read = self._read(row, self.num_channels())
        rate = read.sampling_rate
        if rate is None:
            raise ConfigError(
                f"{row.path}: neither the file nor {METADATA} states a sampling rate; add a column for it"
            )
        signal, task = Signal(read.signal, rate), self.task()
        if task == "classification":
            return replace(signal, labels=self._labels(row, read))
        if task == "regression":
            return self._with_targets(signal, row, read)
        if task == "events":
            events, ignored = self._events(row)
            placed, notes = place_events(events, self.config.event_unit, rate, read.signal.shape[1])
            self._check_events(events)
            return replace(signal, events=placed, notes=notes | ({IGNORED_EVENTS: ignored} if ignored else {}))
        return replace(signal, text=row.text) if task == "text" else signal

    def _read(self, row: Row, num_channels: int | None) -> files.Recording:
        """The recording's file. Columns with labels or targets are no channels, whatever the task."""
        config = self.config
        with _as_data_error():
            return files.read_recording(
                row.path,
                channels=config.channels,
                label_column=self._label_column(row),
                target_columns=self._target_columns(row) if row.target_file is None else None,
                sampling_rate=row.sampling_rate,
                num_channels=num_channels,
                key=config.key,
                layout=config.layout,
                raw_type=config.raw_type,
                raw_channels=config.raw_channels,
            )

    def _label_column(self, row: Row) -> str | int | None:
        if row.label_column is None and row.label is None:
            return self.config.label_column
        return row.label_column

    def _target_columns(self, row: Row) -> tuple[str | int, ...] | None:
        return self.config.target_columns if row.target_columns is None else row.target_columns

    def _labels(self, row: Row, read: files.Recording) -> np.ndarray:
        if read.labels is None:
            return np.full(read.signal.shape[1], self._class_id(row.label, f"{row.path}"))
        values, first, inverse = np.unique(read.labels, return_index=True, return_inverse=True)
        ids = [self._class_id(value, f"{row.path}, sample {i}") for value, i in zip(values, first, strict=True)]
        return np.array(ids)[inverse]

    def _class_id(self, value: object, where: str) -> int:
        """The id of a class given by name, or by number; `UNLABELLED` for what is to be ignored."""
        names, text = self.class_names(), "" if value is None else str(value)
        if text == "" or text in map(str, self.config.ignore_labels):
            return UNLABELLED
        if text in names:
            return names.index(text)
        if isinstance(value, int | np.integer) and 0 <= value < len(names):
            return int(value)
        raise RecordingError(
            f"{where}: label {text!r} is not a class ({', '.join(names)}); correct it, add it to class_names, or list "
            "it in ignore_labels"
        )

    def _with_targets(self, signal: Signal, row: Row, read: files.Recording) -> Signal:
        """The signal, cut where its targets end, and a target per frame of the processed signal."""
        if row.target_file is None:
            values, rate, where = read.targets, signal.sampling_rate, str(row.path)
        else:
            target_file = self._read_target_file(row)
            values, rate, where = target_file.signal, target_file.sampling_rate, str(row.target_file)
        names = self.target_names()
        if len(values) != len(names):
            raise RecordingError(
                f"{where}: {len(values)} targets where {self.rows[0].file_name} has {len(names)} ({', '.join(names)}); "
                "select the same ones with target_columns"
            )
        length, notes = common_length(values.shape[1], rate, signal.samples.shape[1], signal.sampling_rate, where)
        frames = self._processed_length(length, signal.sampling_rate) // self.config.target_hop
        targets = targets_at_frames(values, rate, frames, self.config.target_hop, self.rate, where)
        return replace(signal, samples=signal.samples[:, :length], targets=targets, notes=notes)

    def _read_target_file(self, row: Row) -> files.Recording:
        """The targets as channels of a recording of their own, a row per frame."""
        with _as_data_error():
            read = files.read_recording(
                row.target_file,
                channels=self._target_columns(row),
                sampling_rate=row.target_sampling_rate,
                layout="time_channels",
            )
        if read.sampling_rate is None:
            raise LayoutError(
                f"{METADATA}, line {row.line}: neither target_sampling_rate nor {row.target_file} says how many "
                "targets come per second; fill in target_sampling_rate (Hz)"
            )
        return read

    def _processed_length(self, samples: int, rate: float) -> int:
        """Samples that the extractor makes of a recording."""
        between = self.config.filter_rate or self.rate
        for from_rate, to_rate in ((rate, between), (between, self.rate)):
            samples = samples if from_rate == to_rate else round(samples * to_rate / from_rate)
        return samples

    def _events(self, row: Row) -> tuple[list[Event], int]:
        """The events of a recording that are not to be ignored, and how many are."""
        events, ignored = read_events(row.event_file), set(map(str, self.config.ignore_labels))
        kept = [event for event in events if event.name not in ignored]
        return kept, len(events) - len(kept)

    def _check_events(self, events: list[Event]) -> None:
        names = set(self.class_names())
        for event in events:
            if event.name not in names:
                raise RecordingError(
                    f"{event.where}: {event.name!r} is not a class ({', '.join(self.class_names())}); correct it, add "
                    "it to class_names, or list it in ignore_labels"
                )

    def _warn_of_shared_subjects(self) -> None:
        splits: dict[str, set[str | None]] = {}
        for row in self.rows:
            splits.setdefault(row.subject or "", set()).add(row.split)
        shared = sorted((subject for subject, of in splits.items() if subject and len(of) > 1), key=natural_key)
        if shared:
            logger.warning(
                f"{METADATA}: subjects {', '.join(shared)} are in several splits, so scores will not tell how well a "
                "model does on unseen people"
            )

    def _split_by_subject(self) -> dict[str, str]:
        for row in self.rows:
            if row.subject is None:
                raise LayoutError(
                    f"{METADATA}, line {row.line}: {row.file_name} has neither split nor subject; fill in one of them "
                    "for every file"
                )
        present = {row.subject for row in self.rows}
        held_out = {"validation": self.config.validation_subjects, "test": self.config.test_subjects}
        groups = {split: tuple(map(str, subjects)) for split, subjects in held_out.items() if subjects}
        if not groups:
            return even_subject_split(present)
        named = {subject for subjects in groups.values() for subject in subjects}
        groups["train"] = tuple(sorted(present - named, key=natural_key))
        return self.split_subjects(present, groups)


@contextlib.contextmanager
def _as_data_error() -> Iterator[None]:
    """What the reader refuses, as the builders' kind of error."""
    try:
        yield
    except SignalError as error:
        raise RecordingError(str(error)) from error
