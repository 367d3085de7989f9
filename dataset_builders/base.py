"""What all builders share: a list of recordings -> filtered, normalised windows or recordings -> Arrow tables.

A builder names its recordings (`list_recordings`) and reads one (`read_recording`); everything else is here. Recordings
are the shards of `datasets`: `num_proc` and streaming divide the work by recording. Arrays are (channels, time).
"""

import dataclasses
import functools
import importlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

from .archives import open_source
from .checks import check_copies, check_recordings, check_whole, empty_split, keep_recordings
from .chunks import chunk_columns, chunk_features
from .config import EmgBuilderConfig, option_names
from .content import UNLABELLED, Events, Recording, Signal, at_processed_rate, check_lengths
from .download import Download
from .errors import (
    ArchiveError,
    ConfigError,
    DataError,
    LayoutError,
    PreparationError,
    RecordingError,
    SplitError,
    unreadable,
)
from .prepared import load_prepared
from .protocols import SPLITS, group_split, listed, subject_split
from .windows import Windows, cut_windows, nested_array, window_features

logger = datasets.utils.logging.get_logger(__name__)

BUILDERS = (
    "uci_emg",
    "ninapro_db5",
    "ninapro_db6",
    "ninapro_db7",
    "ninapro_db8",
    "epn612",
    "generic_neuromotor",
    "gaddy",
    "emg2pose",
    "emg2qwerty",
    "synthetic",
    "emg_folder",
)
TASKS = ("classification", "regression", "unlabelled", "events", "text")
NO_LABELS = "recordings without a labelled sample"
NOTES = b"notes"
"""Key of a table's metadata with the counts of what was left out (JSON)."""

__all__ = [
    "BUILDERS",
    "UNLABELLED",
    "ArchiveError",
    "ConfigError",
    "DataError",
    "Download",
    "EmgBuilder",
    "EmgBuilderConfig",
    "Events",
    "LayoutError",
    "PreparationError",
    "Recording",
    "RecordingError",
    "Signal",
    "SplitError",
    "load_corpus",
    "make_builder",
]


class EmgBuilder(datasets.ArrowBasedBuilder):
    """Base of the corpora: implement `num_channels`, `list_recordings`, `read_recording` and what `task` needs.

    Columns of the dataset where rows are windows: `input_values` float32 (channels, window_length); `label` or
    `targets` (frames, outputs); `subject`, `session`, `recording` (strings); `repetition` (int32, counted from 1: which
    segment of its gesture in the recording); `start` (int64: first sample of the window in the processed recording).
    Where rows are recordings, see `chunks.chunk_features`.
    """

    BUILDER_CONFIG_CLASS = EmgBuilderConfig
    PROTOCOLS: ClassVar[tuple[str, ...]] = ("paper",)
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    LAYOUT: ClassVar[str | None] = None
    """The raw layout a `data_dir` must have; None for a corpus without files."""
    DOWNLOADS: ClassVar[tuple[Download, ...]] = ()
    """The files that make up the corpus, where its host lets programs fetch them."""

    def task(self) -> str:
        """What the corpus is for, one of `TASKS`; it decides which columns there are."""
        return "classification"

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes (of the events), in the order of their ids; empty where there is no closed set."""
        return ()

    def target_names(self) -> tuple[str, ...]:
        """Names of the regression targets, in order."""
        return ()

    def phone_names(self) -> tuple[str, ...]:
        """Names of the phones of speech, in the order of their ids."""
        return ()

    def metadata_features(self) -> dict[str, datasets.Value]:
        """Further columns; `Signal.metadata` gives their values."""
        return {}

    def num_channels(self) -> int:
        """Channels of every recording, before any are selected."""
        raise NotImplementedError

    def list_recordings(self, root: Path | None) -> list[Recording]:
        """All recordings, in a fixed order, each with its split. `root` is the unpacked `data_dir`."""
        raise NotImplementedError

    def read_recording(self, recording: Recording) -> Signal:
        """The raw content of one recording."""
        raise NotImplementedError

    def read_takes(self, recording: Recording) -> Iterator[Signal]:
        """The parts of a recording that are processed each by itself, with names of their own if there are several."""
        yield self.read_recording(recording)

    def process(self, recording: Recording, signal: Signal) -> np.ndarray:
        """Filter and normalise: float32 (channels, time at the extractor's rate)."""
        return self.extractor.preprocess(signal.samples, signal.sampling_rate, recording.path or recording.name)

    def __init__(self, *args: object, cache_dir: str | None = None, **kwargs: object):
        # `_info` may need the files to tell the number of channels, before the parent class has set its folders
        self._extracted = os.path.join(cache_dir, "extracted_emg") if cache_dir else None
        self.absent_subjects: tuple[str, ...] = ()
        self._last_takes: tuple[Recording, list[tuple[Signal, np.ndarray]]] | None = None
        self.left_out: Counter[str] = Counter()  # by `list_recordings`, counted, for the dataset card
        super().__init__(*args, cache_dir=cache_dir, **kwargs)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_last_takes": None}  # processes are not sent a recording

    @functools.cached_property
    def extractor(self) -> TinyMyoFeatureExtractor:
        """The preprocessing of this configuration; saved beside every model trained on the data."""
        names = [field.name for field in dataclasses.fields(TinyMyoFeatureExtractor)]
        options = {name: getattr(self.config, name) for name in names if hasattr(self.config, name)}
        try:
            return TinyMyoFeatureExtractor(**options | {"feature_size": self.channel_count} | self.extractor_options())
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
            fetch = f"`tinymyo inspect {self.name} --download --data-dir FOLDER` (in Python: download=True) fetches it."
            raise ConfigError(
                f"{self.name} needs data_dir (`--data_dir FOLDER`), a folder or an archive with {self.LAYOUT}.{hint}"
                + (f" {fetch}" if self.DOWNLOADS else "")
            )
        return open_source(self.config.data_dir, self._extracted)

    @functools.cached_property
    def recordings(self) -> list[Recording]:
        """The recordings asked for, checked: each in one split, or shared out among splits by repetition."""
        with unreadable(self.name, LayoutError):
            recordings = self.list_recordings(self.root)
            check_recordings(recordings, self.name)
            check_copies(recordings, self.name)
        if self.config.rows == "recordings":
            check_whole(recordings, self.name)
        for field in ("subject", "session"):
            wanted = getattr(self.config, f"{field}s")
            if wanted is not None:
                recordings = keep_recordings(recordings, field, wanted, self.name)
        return recordings

    @functools.cached_property
    def selected_channels(self) -> list[int] | None:
        """Positions of the channels to keep, or None for all."""
        channels, count = self.config.channels, self.num_channels()
        if channels is None:
            return None
        if {*map(type, channels)} != {int} or len({*channels} & {*range(count)}) < len(channels):
            raise ConfigError(f"{self.name}: channels={list(channels)}: give different positions from 0 to {count - 1}")
        return list(channels)

    @property
    def channel_count(self) -> int:
        """Channels of the dataset."""
        return self.num_channels() if self.selected_channels is None else len(self.selected_channels)

    def split_subjects(self, present: Iterable[str], groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """The split of each subject that has recordings; see `protocols.subject_split`.

        With `allow_missing`, subjects of the protocol without a recording are remembered for the dataset card. Where
        only some `subjects` are asked for, the others need not be there.
        """
        present = set(present)
        if self.config.subjects is not None:
            needed = present.union(self.config.subjects)
            groups = {split: [name for name in names if name in needed] for split, names in groups.items()}
        split_of = subject_split(present, groups, self.config.allow_missing)
        self.absent_subjects = tuple(s for s in group_split(groups, "subject") if s not in present)
        if self.absent_subjects:
            logger.warning(
                f"{self.config.data_dir}: no files of subjects {listed(self.absent_subjects)}; going on without them"
            )
        return split_of

    def _info(self) -> datasets.DatasetInfo:
        if self.config.protocol not in self.PROTOCOLS:
            known = ", ".join(map(repr, self.PROTOCOLS))
            raise ConfigError(f"{self.name}: protocol={self.config.protocol!r} is unknown; use one of {known}")
        return datasets.DatasetInfo(
            description=f"{(self.__doc__ or '').strip()}\n\nPreprocessing: {self.extractor.to_json_string()}",
            features=self._features(),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
        )

    def _features(self) -> datasets.Features:
        config, task, outputs = self.config, self.task(), len(self.target_names())
        classes = self.class_names()
        if config.rows == "windows":
            if task in ("events", "text"):
                raise ConfigError(f'{self.name}: {task} come with whole recordings; use rows="recordings"')
            targets = (config.window_length // config.target_hop, outputs) if task == "regression" else None
            classes = classes if task == "classification" else ()
            features = window_features(self.channel_count, config.window_length, classes, targets)
        else:
            if task == "classification":
                raise ConfigError(f'{self.name}: a class per window needs rows="windows"')
            features = chunk_features(self.channel_count, config, task, classes, outputs, self.phone_names())
        return datasets.Features(features | self.metadata_features())

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
            table = self.recording_table(recording)
            for what, count in table_notes(table.schema).items():
                logger.warning(f"{recording.name}: {what}: {count}")
            yield Key(shard, 0), table.replace_schema_metadata(self.info.features.arrow_schema.metadata)

    def recording_table(self, recording: Recording) -> pa.Table:
        """The rows of one recording, with the columns of the dataset; what was left out is counted in its metadata.

        Raises:
            RecordingError: the recording cannot be used; the message names it and the fix.
        """
        schema = self.info.features.arrow_schema
        tables, notes = [schema.empty_table()], Counter()
        with unreadable(recording.name, RecordingError):
            for signal, processed in self._processed_takes(recording):
                columns = self._columns(recording, signal, processed, notes)
                count = len(columns["start"])
                for name, feature in self.metadata_features().items():
                    columns[name] = pa.array([signal.metadata[name]] * count, feature.pa_type)
                if self._reports_reading(recording):
                    notes.update(signal.notes)
                    notes[NO_LABELS] += signal.labels is not None and bool((signal.labels == UNLABELLED).all())
                tables.append(pa.table({name: columns[name] for name in schema.names}, schema=schema))
        metadata = dict(schema.metadata or {}) | {NOTES: json.dumps(+notes).encode()}
        return pa.concat_tables(tables).replace_schema_metadata(metadata)

    def _processed_takes(self, recording: Recording) -> Iterable[tuple[Signal, np.ndarray]]:
        """Each take with its labels at the rate of the processed signal, and that signal.

        A recording shared out among splits by repetition is kept until another is asked for: whoever converts its
        parts one after the other processes it once.
        """
        if recording.repetitions is None:
            return self._process_takes(recording)
        key = dataclasses.replace(recording, split="", repetitions=None)
        if self._last_takes is None or self._last_takes[0] != key:
            self._last_takes = None  # before the next is read: there is memory for one
            self._last_takes = key, list(self._process_takes(recording))
        return self._last_takes[1]

    def _process_takes(self, recording: Recording) -> Iterator[tuple[Signal, np.ndarray]]:
        for signal in self.read_takes(recording):
            where = recording.path or _take_name(recording, signal)
            check_lengths(signal, where)
            if self.selected_channels is not None:
                signal = dataclasses.replace(signal, samples=signal.samples[self.selected_channels])
            processed = self.process(recording, signal)
            yield at_processed_rate(signal, processed.shape[1], self.config.target_hop, where), processed

    def _reports_reading(self, recording: Recording) -> bool:
        """Whether notes of reading count for this part of a recording: they would else be counted in every split."""
        return recording.repetitions is None or self._first_parts[recording.name] == recording

    @functools.cached_property
    def _first_parts(self) -> dict[str, Recording]:
        return {recording.name: recording for recording in reversed(self.recordings)}

    def _columns(
        self, recording: Recording, signal: Signal, processed: np.ndarray, notes: Counter
    ) -> dict[str, pa.Array]:
        """Columns of one take, without those of `metadata_features`; adds to `notes`."""
        name = _take_name(recording, signal)
        if self.config.rows == "recordings":
            return chunk_columns(processed, signal, recording, self.config, self.info.features, name)
        windows = cut_windows(processed, signal, self.extractor, self.config, recording.repetitions, name)
        notes.update(windows.notes)
        return self._window_columns(windows, recording, name)

    def _window_columns(self, windows: Windows, recording: Recording, name: str) -> dict[str, pa.Array]:
        count = len(windows.starts)
        columns = {
            "input_values": nested_array(windows.values),
            "label": pa.array(windows.labels, pa.int64()),
            "subject": pa.array([recording.subject] * count, pa.string()),
            "session": pa.array([recording.session] * count, pa.string()),
            "repetition": pa.array(windows.repetitions, pa.int32()),
            "recording": pa.array([name] * count, pa.string()),
            "start": pa.array(windows.starts, pa.int64()),
        }
        return columns if windows.targets is None else columns | {"targets": nested_array(windows.targets)}


def _take_name(recording: Recording, signal: Signal) -> str:
    return f"{recording.name}/{signal.name}" if signal.name else recording.name


def table_notes(schema: pa.Schema) -> Counter:
    """What was left out of a table of `recording_table`, counted."""
    return Counter(json.loads((schema.metadata or {}).get(NOTES, b"{}")))


def make_builder(
    name: str,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    download: bool = False,
    **config: object,
) -> EmgBuilder:
    """The builder called `name` (one of `BUILDERS`) with its configuration; see `EmgBuilderConfig` for the options.

    With `download`, the files of the corpus that are not yet in `data_dir` (default: a folder of the cache) are fetched
    from its official source first.
    """
    if name not in BUILDERS:
        raise ConfigError(f"{name!r} is neither a builder ({', '.join(BUILDERS)}) nor a folder made by `prepare`")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    builder_class = getattr(importlib.import_module(f"dataset_builders.{name}"), class_name)
    known = option_names(builder_class.BUILDER_CONFIG_CLASS)
    unknown = sorted(config.keys() - {*known, "version"})
    if unknown:
        raise ConfigError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(sorted(known))}")
    if download:
        from .download import download_corpus

        cache = Path(cache_dir) if cache_dir else Path(datasets.config.HF_DATASETS_CACHE)
        data_dir = download_corpus(builder_class, Path(data_dir) if data_dir else cache / "downloaded_emg" / name)
    directory = str(Path(data_dir).expanduser().resolve()) if data_dir is not None else None
    with unreadable(name, PreparationError):
        return builder_class(data_dir=directory, cache_dir=str(cache_dir) if cache_dir else None, **config)


def load_corpus(
    name_or_folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    streaming: bool = False,
    download: bool = False,
    **config: object,
) -> tuple[datasets.DatasetDict | datasets.IterableDatasetDict, TinyMyoFeatureExtractor]:
    """A corpus, prepared on first use and cached, with the preprocessing that made it.

    Args:
        name_or_folder: one of `BUILDERS`, a folder written by `dataset_builders.prepare`, or the Hub id of one.
        data_dir: folder or archive with the raw files of the builder.
        num_proc: processes that prepare recordings in parallel.
        cache_dir: where prepared data is kept (default: the cache of `datasets`).
        streaming: read raw files (or the prepared folder) as rows are asked for, without preparing or copying them.
        download: fetch missing raw files from the official source.
        config: options of the builder, e.g. `window_length=1000, stride=250`.

    Returns:
        The splits ("train", "validation", "test", as far as the corpus has them) and the feature extractor.

    Raises:
        DataError: a subclass says what is wrong with the data, the options or the disk.
    """
    name = os.path.expanduser(name_or_folder)
    if name not in BUILDERS and (Path(name).is_dir() or "/" in name):
        given = sorted(config) + [option for option, value in (("data_dir", data_dir), ("download", download)) if value]
        if given:
            raise ConfigError(
                f"{name} is already prepared: {', '.join(given)} cannot be changed; leave that out (of a recipe with "
                "`--dataset_config '{}'`), or prepare it again"
            )
        return load_prepared(name, cache_dir, streaming)
    builder = make_builder(name, data_dir, cache_dir, download, **config)
    try:
        if streaming:
            return datasets.IterableDatasetDict(builder.as_streaming_dataset()), builder.extractor
        builder.download_and_prepare(num_proc=num_proc)
    except DataError:
        raise
    except (OSError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise PreparationError(f"{builder.name} could not be written to {builder.cache_dir}: {cause}") from error
    for split, info in builder.info.splits.items():
        if not info.num_examples:
            raise empty_split(builder.name, split)
    return builder.as_dataset(), builder.extractor
