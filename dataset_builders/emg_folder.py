"""A folder of one's own recordings: csv, tsv, txt, parquet, npy, npz, mat or hdf5 files and a metadata.csv.

metadata.csv has one line per file and these columns, of which only file_name is always needed:

- file_name: path of the recording within the folder.
- label: the class of the whole recording; or label_column: the column (of an array file: the variable) that holds a
  class per sample. The option `label_column` says the same for all files at once.
- subject, session: who and when.
- split: train, validation or test for every file; without it, subjects are held out.
- sampling_rate: Hz, unless the files state it.

How a file is read (what is a channel, what is time) is documented in `tinymyo_hf.recordings`.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

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
from .folder_metadata import METADATA, Row, read_metadata
from .protocols import even_subject_split, natural_key, subject_split


@dataclass
class EmgFolderConfig(EmgBuilderConfig):
    """How to read the files, in addition to the preprocessing in `EmgBuilderConfig`.

    Attributes:
        sampling_rate: Hz to resample to; None takes the rate of the files, which must then agree.
        class_names: the classes, in the order of their ids. None takes the labels of metadata.csv, sorted; a class per
            sample needs the names: values are names, or whole numbers counting from 0.
        label_column: as the column of that name in metadata.csv, for all files.
        ignore_labels: values per sample that mean "no class".
        channels, key, layout: as for `tinymyo_hf.recordings.read_recording`.
        validation_subjects, test_subjects: whom to hold out where metadata.csv has no splits; by default the last 15 %
            each, in natural order.
    """

    name: str = "emg_folder"
    protocol: str = "metadata"
    sampling_rate: float | None = None
    class_names: tuple[str, ...] | None = None
    label_column: str | int | None = None
    ignore_labels: tuple[str | int, ...] = ()
    channels: tuple[str | int, ...] | None = None
    key: str | None = None
    layout: str | None = None
    validation_subjects: tuple[str, ...] | None = None
    test_subjects: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FolderRecording(Recording):
    """A recording with what metadata.csv says about it."""

    label: str | None = None
    label_column: str | int | None = None
    sampling_rate: float | None = None


class EmgFolder(EmgBuilder):
    """Recordings of one's own, described by a metadata.csv."""

    BUILDER_CONFIG_CLASS = EmgFolderConfig
    PROTOCOLS = ("metadata",)
    LAYOUT = f"recordings and a {METADATA} with the columns file_name, label, subject, split and sampling_rate"

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The checked lines of metadata.csv."""
        root = find_root(self.root, lambda folder: (folder / METADATA).is_file(), self.LAYOUT)
        rows = read_metadata(root)
        for row in rows:
            if row.label is None and self._label_column(row) is None:
                raise LayoutError(
                    f"{root / METADATA}, line {row.line}: {row.file_name} has neither label nor label_column; "
                    "fill in one of them"
                )
        return rows

    @functools.cached_property
    def first_file(self) -> files.Recording:
        """The first recording; it tells how many channels all must have."""
        return self._read(self.rows[0].path, self._label_column(self.rows[0]), self.rows[0].sampling_rate, None)

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
        rate = next(iter(stated), None) or self.first_file.sampling_rate
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

    selected_channels = None  # `channels` selects while reading

    def num_channels(self) -> int:
        """Channels of the first recording; the others must have as many."""
        return len(self.first_file.signal)

    def class_names(self) -> tuple[str, ...]:
        """The configured classes, or the labels in metadata.csv in natural order."""
        if self.config.class_names is not None:
            return tuple(map(str, self.config.class_names))
        for row in self.rows:
            if self._label_column(row) is not None:
                raise ConfigError(
                    f"{row.file_name} has a class per sample: set the option class_names to the classes, in the order "
                    "of their numbers"
                )
        return tuple(sorted({row.label for row in self.rows}, key=natural_key))

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every line of metadata.csv, with its split."""
        split_of = {} if self.rows[0].split else self._split_by_subject()
        self._warn_of_shared_subjects()
        return [
            FolderRecording(
                str(row.path),
                row.file_name,
                row.subject or "",
                row.session or "",
                row.split or split_of[row.subject],
                label=row.label,
                label_column=self._label_column(row),
                sampling_rate=row.sampling_rate,
            )
            for row in self.rows
        ]

    def read_recording(self, recording: FolderRecording) -> Signal:
        """Read a file; its class, or classes per sample, become ids."""
        path = Path(recording.path)
        read = self._read(path, recording.label_column, recording.sampling_rate, self.num_channels())
        rate = read.sampling_rate
        if rate is None:
            raise ConfigError(f"{path}: neither the file nor {METADATA} states a sampling rate; add a column for it")
        if recording.label_column is None:
            labels = np.full(read.signal.shape[1], self._class_id(recording.label, f"{path}"))
        else:
            values, inverse = np.unique(read.labels, return_inverse=True)
            first = {value: int(np.flatnonzero(inverse == i)[0]) for i, value in enumerate(values)}
            ids = [self._class_id(value, f"{path}, sample {first[value]}") for value in values]
            labels = np.array(ids)[inverse]
        return Signal(read.signal, rate, labels)

    def _label_column(self, row: Row) -> str | int | None:
        return self.config.label_column if row.label_column is None else row.label_column

    def _read(
        self, path: Path, label_column: str | int | None, rate: float | None, num_channels: int | None
    ) -> files.Recording:
        config = self.config
        try:
            return files.read_recording(
                path,
                channels=config.channels,
                label_column=label_column,
                sampling_rate=rate,
                num_channels=num_channels,
                key=config.key,
                layout=config.layout,
            )
        except SignalError as error:
            raise RecordingError(str(error)) from error

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
        return subject_split(present, groups, self.config.allow_missing)
