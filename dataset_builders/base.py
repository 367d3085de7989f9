"""What all builders share: a list of recordings -> filtered, normalised windows -> Arrow tables.

A builder names its recordings (`list_recordings`) and reads one (`read_recording`); everything else is here. Recordings
are the shards of `datasets`: `num_proc` and streaming divide the work by recording. Arrays are (channels, time).
"""

import dataclasses
import functools
import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

from .archives import open_source, source_fingerprint
from .errors import (
    ArchiveError,
    ConfigError,
    DataError,
    LayoutError,
    PreparationError,
    RecordingError,
    SplitError,
)
from .protocols import SPLITS

logger = datasets.utils.logging.get_logger(__name__)

BUILDERS = ("uci_emg", "synthetic", "emg_folder")
UNLABELLED = -1

__all__ = [
    "BUILDERS",
    "UNLABELLED",
    "ArchiveError",
    "ConfigError",
    "DataError",
    "EmgBuilder",
    "EmgBuilderConfig",
    "LayoutError",
    "PreparationError",
    "Recording",
    "RecordingError",
    "Signal",
    "SplitError",
    "load_corpus",
    "make_builder",
]


@dataclass(frozen=True)
class Recording:
    """One recording and its place in the corpus.

    Attributes:
        path: file to read; empty for generated recordings.
        name: unique within the corpus, stable across machines.
        subject, session: as written in the corpus.
        split: "train", "validation" or "test".
        repetitions: keep only these repetitions (counted from 1) of each gesture; None keeps all.
    """

    path: str
    name: str
    subject: str
    session: str
    split: str
    repetitions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Signal:
    """Raw content of a recording.

    Attributes:
        samples: (channels, time), any real type and unit.
        sampling_rate: Hz.
        labels: class id of each sample, int (time,); `UNLABELLED` where there is none.
    """

    samples: np.ndarray
    sampling_rate: float
    labels: np.ndarray


@dataclass
class EmgBuilderConfig(datasets.BuilderConfig):
    """Everything that shapes the data of a builder; all of it is part of the cache's name.

    Attributes:
        protocol: which splits (and, where sources disagree, which preprocessing); see the builder.
        sampling_rate: Hz at which the signal is processed.
        window_length, stride: in samples. No window spans a change of label.
        patch_size: samples per token of the model; `window_length` is a multiple.
        band_pass: edges in Hz, or None; with `band_pass_order`.
        notch_frequencies: Hz, with `notch_quality`; empty for none.
        filter_mode: "zero_phase" (offline) or "causal" (as in live use).
        normalization: "zscore", "minmax" or "none", per channel over the "recording" or the "window"
            (`normalization_scope`).
        max_gap: longest run of NaN samples that is interpolated instead of refused.
        allow_constant_channels: accept dead channels.
        allow_missing: accept that subjects named by the protocol have no recording.
    """

    version: str | datasets.Version | None = "1.0.0"
    protocol: str = "paper"
    sampling_rate: float | None = 200.0
    window_length: int = 200
    stride: int = 100
    patch_size: int = 20
    band_pass: tuple[float, float] | None = (20.0, 90.0)
    band_pass_order: int = 4
    notch_frequencies: tuple[float, ...] = (50.0,)
    notch_quality: float = 30.0
    filter_mode: str = "zero_phase"
    normalization: str = "zscore"
    normalization_scope: str = "recording"
    max_gap: int = 0
    allow_constant_channels: bool = False
    allow_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in dataclasses.fields(self):  # YAML and JSON have lists only; equal settings get equal names
            value = getattr(self, field.name)
            if isinstance(value, list):
                setattr(self, field.name, tuple(value))

    def shaping_fields(self) -> dict:
        """The fields that shape the data, without where it comes from."""
        skipped = ("name", "data_dir", "data_files", "description")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skipped}
        return fields | {"version": str(self.version)}

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: readable window and a hash of all settings and of the source files."""
        source = source_fingerprint(self.data_dir) if self.data_dir else ""
        text = json.dumps([self.shaping_fields(), source], sort_keys=True, default=str)
        return f"{self.window_length}x{self.stride}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class EmgBuilder(datasets.ArrowBasedBuilder):
    """Base of the corpora: implement `list_recordings`, `read_recording` and `class_names`.

    Columns of the dataset: `input_values` float32 (channels, window_length); `label`; `subject`, `session`,
    `recording` (strings); `repetition` (int32, counted from 1: which segment of its gesture in the recording); `start`
    (int64: first sample of the window in the processed recording).
    """

    BUILDER_CONFIG_CLASS = EmgBuilderConfig
    PROTOCOLS: ClassVar[tuple[str, ...]] = ("paper",)
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    LAYOUT: ClassVar[str | None] = None
    """The raw layout a `data_dir` must have; None for a corpus without files."""

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their ids."""
        raise NotImplementedError

    def num_channels(self) -> int:
        """Channels of every recording."""
        raise NotImplementedError

    def list_recordings(self, root: Path | None) -> list[Recording]:
        """All recordings, in a fixed order, each with its split. `root` is the unpacked `data_dir`."""
        raise NotImplementedError

    def read_recording(self, recording: Recording) -> Signal:
        """The raw content of one recording."""
        raise NotImplementedError

    def __init__(self, *args: object, cache_dir: str | None = None, **kwargs: object):
        # `_info` may need the files to tell the number of channels, before the parent class has set its folders
        self._extracted = os.path.join(cache_dir, "extracted_emg") if cache_dir else None
        super().__init__(*args, cache_dir=cache_dir, **kwargs)

    @functools.cached_property
    def extractor(self) -> TinyMyoFeatureExtractor:
        """The preprocessing of this configuration; saved beside every model trained on the data."""
        config = self.config
        names = {field.name for field in dataclasses.fields(EmgBuilderConfig)}
        names -= {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
        names -= {"protocol", "allow_missing"}
        options = {name: getattr(config, name) for name in names} | self.extractor_options()
        try:
            return TinyMyoFeatureExtractor(feature_size=self.num_channels(), **options)
        except SignalError as error:
            raise ConfigError(f"{self.name}: {error}") from error

    def extractor_options(self) -> dict:
        """Fields of the feature extractor that the configuration does not give as they are."""
        return {}

    @functools.cached_property
    def root(self) -> Path | None:
        """The folder with the raw files (an archive is extracted on first use); None for a generated corpus."""
        if self.LAYOUT is None:
            return None
        if self.config.data_dir is None:
            hint = f" Get it from {self.HOMEPAGE}." if self.HOMEPAGE else ""
            raise ConfigError(f"{self.name} needs data_dir, a folder or an archive with {self.LAYOUT}.{hint}")
        return open_source(self.config.data_dir, self._extracted)

    @functools.cached_property
    def recordings(self) -> list[Recording]:
        """All recordings, checked: each belongs to one split, or is shared out among splits by repetition."""
        recordings = self.list_recordings(self.root)
        _check_recordings(recordings, self.name)
        return recordings

    def _info(self) -> datasets.DatasetInfo:
        if self.config.protocol not in self.PROTOCOLS:
            known = ", ".join(map(repr, self.PROTOCOLS))
            raise ConfigError(f"{self.name}: protocol={self.config.protocol!r} is unknown; use one of {known}")
        return datasets.DatasetInfo(
            description=f"{(self.__doc__ or '').strip()}\n\nPreprocessing: {self.extractor.to_json_string()}",
            features=window_features(self.num_channels(), self.config.window_length, self.class_names()),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
        )

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        by_split = {split: [r for r in self.recordings if r.split == split] for split in SPLITS}
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"recordings": recordings})
            for split, recordings in by_split.items()
            if recordings
        ]

    def _download_and_prepare(self, dl_manager: object, verification_mode: object, **kwargs: object) -> None:
        # files of a preparation that was killed would otherwise move along into the finished folder
        for left_over in filter(Path.is_file, Path(self._output_dir).iterdir()):
            left_over.unlink()
        super()._download_and_prepare(dl_manager, verification_mode, **kwargs)

    def _generate_tables(self, recordings: list[Recording]) -> Iterator[tuple[Key, pa.Table]]:
        for shard, recording in enumerate(recordings):
            yield Key(shard, 0), self.recording_table(recording)

    def recording_table(self, recording: Recording) -> pa.Table:
        """The windows of one recording, with the columns of the dataset.

        Raises:
            RecordingError: the recording cannot be used; the message names it and the fix.
        """
        signal = self.read_recording(recording)
        try:
            processed = self.extractor.preprocess(
                signal.samples, signal.sampling_rate, recording.path or recording.name
            )
        except SignalError as error:
            raise RecordingError(str(error)) from error
        labels = _labels_at_rate(signal.labels, processed.shape[1])
        windows, labels, repetitions, starts = self._cut(recording, processed, labels)
        count = len(starts)
        columns = {
            "input_values": nested_array(windows),
            "label": pa.array(labels, pa.int64()),
            "subject": pa.array([recording.subject] * count, pa.string()),
            "session": pa.array([recording.session] * count, pa.string()),
            "repetition": pa.array(repetitions, pa.int32()),
            "recording": pa.array([recording.name] * count, pa.string()),
            "start": pa.array(starts, pa.int64()),
        }
        return pa.table(columns, schema=self.info.features.arrow_schema)

    def _cut(
        self, recording: Recording, processed: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Windows (n, C, W), labels, repetitions and starts (n,) of a processed recording."""
        length, channels = self.config.window_length, processed.shape[0]
        if processed.shape[1] < length:
            raise RecordingError(
                f"{recording.name}: {processed.shape[1]} samples, shorter than one window of {length}; "
                "remove the recording or lower window_length"
            )
        parts, label_parts, repetition_parts, start_parts = [np.empty((0, channels, length), np.float32)], [], [], []
        segments = label_segments(labels)
        for start, stop, label, repetition in segments:
            wanted = recording.repetitions is None or repetition in recording.repetitions
            if stop - start < length or not wanted:
                continue
            windows, starts = self.extractor.windows(processed[:, start:stop])
            parts.append(windows)
            start_parts.append(starts + start)
            label_parts.append(np.full(len(starts), label))
            repetition_parts.append(np.full(len(starts), repetition))
        if not segments:
            logger.warning(f"{recording.name}: no labelled sample, so no window")
        elif max(stop - start for start, stop, _, _ in segments) < length:
            longest = max(stop - start for start, stop, _, _ in segments)
            raise RecordingError(
                f"{recording.name}: its longest segment of one label has {longest} samples, shorter than one window "
                f"of {length}; lower window_length"
            )
        empty = [np.empty(0, np.int64)]
        metadata = (np.concatenate(empty + part) for part in (label_parts, repetition_parts, start_parts))
        return np.concatenate(parts), *metadata


def window_features(channels: int, window_length: int, class_names: tuple[str, ...]) -> datasets.Features:
    """Columns of a prepared dataset; the shape of a window is part of the type."""
    window = datasets.List(datasets.List(datasets.Value("float32"), length=window_length), length=channels)
    return datasets.Features(
        {
            "input_values": window,
            "label": datasets.ClassLabel(names=list(class_names)),
            "subject": datasets.Value("string"),
            "session": datasets.Value("string"),
            "repetition": datasets.Value("int32"),
            "recording": datasets.Value("string"),
            "start": datasets.Value("int64"),
        }
    )


def nested_array(windows: np.ndarray) -> pa.Array:
    """(windows, channels, time) as fixed-size lists of fixed-size lists, copying nothing but what is not contiguous."""
    values = pa.array(np.ascontiguousarray(windows, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(
        pa.FixedSizeListArray.from_arrays(values, windows.shape[2]), windows.shape[1]
    )


def label_segments(labels: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Runs of one label as (start, stop, label, repetition), unlabelled runs left out.

    The repetition counts the runs of that label from 1.
    """
    borders = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(labels)]])
    seen: dict[int, int] = {}
    segments = []
    for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        label = int(labels[start])
        if label != UNLABELLED:
            seen[label] = seen.get(label, 0) + 1
            segments.append((start, stop, label, seen[label]))
    return segments


def make_builder(
    name: str, data_dir: str | os.PathLike | None = None, cache_dir: str | os.PathLike | None = None, **config: object
) -> EmgBuilder:
    """The builder called `name` (one of `BUILDERS`) with its configuration; see `EmgBuilderConfig` for the options."""
    if name not in BUILDERS:
        raise ConfigError(f"{name!r} is neither a builder ({', '.join(BUILDERS)}) nor a folder made by `prepare`")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    builder_class = getattr(importlib.import_module(f"dataset_builders.{name}"), class_name)
    known = {field.name for field in dataclasses.fields(builder_class.BUILDER_CONFIG_CLASS)}
    unknown = sorted(config.keys() - known)
    if unknown:
        options = ", ".join(sorted(known - {"name", "version", "data_dir", "data_files", "description"}))
        raise ConfigError(f"{name} has no option {', '.join(unknown)}; its options are {options}")
    directory = str(Path(data_dir).expanduser().resolve()) if data_dir is not None else None
    return builder_class(data_dir=directory, cache_dir=str(cache_dir) if cache_dir else None, **config)


def load_corpus(
    name_or_folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    **config: object,
) -> tuple[datasets.DatasetDict, TinyMyoFeatureExtractor]:
    """Windows of a corpus, prepared on first use and cached, with the preprocessing that made them.

    Args:
        name_or_folder: a builder ("uci_emg", "synthetic", "emg_folder"), or a folder written by
            `dataset_builders.hub.prepare`.
        data_dir: folder or archive with the raw files of the builder.
        num_proc: processes that prepare recordings in parallel.
        cache_dir: where prepared data is kept (default: the cache of `datasets`).
        config: options of the builder, e.g. `window_length=1000, stride=250`.

    Returns:
        The splits ("train", "validation", "test", as far as the corpus has them) and the feature extractor.

    Raises:
        DataError: a subclass says what is wrong with the data, the options or the disk.
    """
    if str(name_or_folder) not in BUILDERS and Path(name_or_folder).is_dir():
        return _load_prepared(Path(name_or_folder), data_dir, cache_dir, config)
    builder = make_builder(str(name_or_folder), data_dir, cache_dir, **config)
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except DataError:
        raise
    except (OSError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise PreparationError(f"{builder.name} could not be written to {builder.cache_dir}: {cause}") from error
    return builder.as_dataset(), builder.extractor


def _load_prepared(
    folder: Path, data_dir: object, cache_dir: object, config: dict
) -> tuple[datasets.DatasetDict, TinyMyoFeatureExtractor]:
    if not (folder / "preprocessor_config.json").is_file():
        raise LayoutError(
            f"{folder} is not a prepared dataset (no preprocessor_config.json). Recordings of your own are read with "
            f'load_corpus("emg_folder", data_dir="{folder}")'
        )
    given = sorted(config) + (["data_dir"] if data_dir is not None else [])
    if given:
        raise ConfigError(f"{folder} is already prepared: {', '.join(given)} cannot be changed; prepare it again")
    try:
        data = datasets.load_dataset(str(folder), cache_dir=str(cache_dir) if cache_dir else None)
        return data, TinyMyoFeatureExtractor.from_pretrained(folder)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise LayoutError(
            f"{folder} cannot be read as a prepared dataset ({error.__cause__ or error}): copy it again if files are "
            "missing or cut off, or prepare it again"
        ) from error


def _labels_at_rate(labels: np.ndarray, length: int) -> np.ndarray:
    """Labels of a recording that was resampled to `length` samples: those of the nearest earlier sample."""
    if len(labels) == length:
        return labels
    return labels[np.minimum(np.arange(length) * len(labels) // length, len(labels) - 1)]


def _check_recordings(recordings: list[Recording], corpus: str) -> None:
    if not recordings:
        raise LayoutError(f"{corpus}: no recording found")
    kept: dict[str, set[int]] = {}
    for recording in recordings:
        if recording.name in kept and not (recording.repetitions and kept[recording.name]):
            raise LayoutError(f"{corpus}: recording {recording.name} is listed twice: name each file once")
        repetitions = set(recording.repetitions or ())
        if shared := repetitions & kept.get(recording.name, set()):
            raise SplitError(f"{corpus}: repetitions {sorted(shared)} of {recording.name} are in two splits")
        kept[recording.name] = repetitions | kept.get(recording.name, set())
    if not any(recording.split == "train" for recording in recordings):
        raise SplitError(f"{corpus}: no recording is in the train split: assign some")
