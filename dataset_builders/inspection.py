"""What is in a corpus, a recording or a prepared folder: who, what, how long, and what is wrong with the signals.

    survey = inspect_corpus(make_builder("uci_emg", "EMG_data.zip"), limit=10)
    print(survey.report())

One take is in memory at a time. `dataset_builders.inspection_plot` draws one.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinymyo_hf.recordings import read_recording
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

from .base import EmgBuilder
from .content import UNLABELLED, Events, Recording, Signal
from .errors import DataError, LayoutError, RecordingError
from .inspection_report import report, warnings
from .protocols import SPLITS
from .signal_quality import ChannelQuality

PREPROCESSOR = "preprocessor_config.json"
COLUMNS = ("input_values", "scale", "label", "events", "recording", "start")  # that are read of a prepared folder


@dataclass
class Survey:
    """What has been seen.

    Attributes:
        title: what was looked at.
        unit: what `recordings` counts: "recordings", or "rows" of a prepared folder.
        class_names: in the order of their ids; `UNLABELLED` has none.
        recordings: how many there are; `read` says how many have been looked through.
        subjects, sessions, splits: recordings (rows of a prepared folder) of each.
        rates: takes per sampling rate in Hz, None where it is not known.
        durations: of the takes, in samples, with their rate.
        classes, segments: samples per class id and rate; runs of each.
        events: how often each occurs.
        texts, characters, targets: texts and their length; outputs of a regression.
        notes: what reading left out, counted.
        unreadable: messages of recordings that could not be read.
        quality: of the channels; None as long as nothing has been read.
        first: the first take, for a picture, with its recording's name.
    """

    title: str
    class_names: tuple[str, ...] = ()
    unit: str = "recordings"
    recordings: int = 0
    read: int = 0
    subjects: Counter = field(default_factory=Counter)
    sessions: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)
    rates: Counter = field(default_factory=Counter)
    durations: list[tuple[int, float | None]] = field(default_factory=list)
    classes: Counter = field(default_factory=Counter)
    segments: Counter = field(default_factory=Counter)
    events: Counter = field(default_factory=Counter)
    texts: int = 0
    characters: int = 0
    targets: int = 0
    notes: Counter = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    quality: ChannelQuality | None = None
    first: tuple[str, Signal] | None = None

    def add(self, signal: Signal, name: str) -> None:
        """Count in a take; nothing of it is kept but for the first."""
        channels, length = signal.samples.shape
        rate = signal.sampling_rate or None
        if self.quality is None:
            self.quality = ChannelQuality(channels)
        if self.quality.channels != channels:
            raise RecordingError(
                f"{name}: {channels} channels where the recordings before have {self.quality.channels}; take it out, "
                "or look at it by itself"
            )
        self.first = self.first or (name, signal)
        self.quality.add(signal.samples, rate)
        self.rates[rate] += 1
        self.durations.append((length, rate))
        self.notes.update(signal.notes)
        self.targets = self.targets if signal.targets is None else signal.targets.shape[1]
        if signal.labels is not None and length:
            self._add_labels(np.asarray(signal.labels), rate)
        if signal.events is not None:
            self.events.update(signal.events.names)
        if signal.text is not None:
            self.texts += 1
            self.characters += len(signal.text)

    def _add_labels(self, labels: np.ndarray, rate: float | None) -> None:
        starts = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1])
        for start, stop in zip(starts, [*starts[1:], len(labels)], strict=True):
            label = int(labels[start])
            self.classes[label, rate] += int(stop - start)
            self.segments[label] += label != UNLABELLED

    def warnings(self) -> list[str]:
        """What a reader should know before using the data, in plain words."""
        return warnings(self)

    def report(self) -> str:
        """Tables and warnings as text."""
        return report(self)


def inspect_corpus(builder: EmgBuilder, limit: int | None = None) -> Survey:
    """Look through the raw recordings of a corpus.

    Args:
        builder: as made by `make_builder`; its protocol says which recording is in which split.
        limit: read so many recordings only, spread evenly over the corpus.

    Raises:
        DataError: there are no recordings, or none that can be read; single unreadable ones are listed in the survey.
    """
    survey = Survey(f"{builder.name}, protocol {builder.config.protocol}", builder.class_names())
    for recording in builder.recordings:
        survey.splits[recording.split] += 1
    files = list({recording.name: recording for recording in builder.recordings}.values())
    survey.recordings = len(files)
    for recording in files:
        survey.subjects[recording.subject] += 1
        survey.sessions[recording.session] += 1
    failure = None
    for recording in datasets.utils.tqdm(_spread(files, limit), unit=" recordings", desc=f"Inspecting {builder.name}"):
        try:
            _add_recording(survey, builder, recording)
        except (DataError, SignalError) as error:
            survey.unreadable.append(str(error))
            failure = error
    if survey.quality is None:
        raise failure if isinstance(failure, DataError) else RecordingError(str(failure))
    return survey


def _add_recording(survey: Survey, builder: EmgBuilder, recording: Recording) -> None:
    for signal in builder.read_takes(recording):
        survey.add(signal, f"{recording.name}/{signal.name}" if signal.name else recording.name)
    survey.read += 1


def inspect_file(path: str | Path, label_column: int | str | None = None, **options: object) -> Survey:
    """Look through one recording of one's own.

    Args:
        path: csv, tsv, txt, parquet, npy, npz, mat or hdf5.
        label_column, options: as for `tinymyo_hf.recordings.read_recording`.

    Raises:
        SignalError: the file cannot be read; the message names file, place and fix.
    """
    read = read_recording(path, label_column=label_column, **options)
    names, labels = (), None
    if read.labels is not None:
        values, labels = np.unique(read.labels, return_inverse=True)
        names = tuple(map(str, values))
        if names[:1] == ("",):  # an empty cell is no class
            names, labels = names[1:], labels - 1
    survey = Survey(str(path), names, recordings=1, read=1)
    survey.add(Signal(read.signal, read.sampling_rate or 0.0, labels), Path(path).name)
    return survey


def is_prepared(folder: str | Path) -> bool:
    """Whether a folder was written by `dataset_builders.prepare`."""
    return (Path(folder) / PREPROCESSOR).is_file()


def inspect_prepared(folder: str | Path, limit: int | None = None) -> Survey:
    """Look through a folder written by `prepare`: its rows count as takes, and signals are those after filtering.

    Args:
        folder: with parquet shards and the preprocessing.
        limit: read the signals of so many rows only, spread evenly; all rows are counted.

    Raises:
        DataError: it is no such folder, or files are missing or damaged.
    """
    folder = Path(folder)
    try:
        rate = TinyMyoFeatureExtractor.from_pretrained(folder).sampling_rate
        shards = [path for split in SPLITS for path in sorted((folder / "data").glob(f"{split}-*.parquet"))]
        if not shards:
            raise LayoutError(f"{folder / 'data'} holds no parquet files: copy the folder again, or prepare it again")
        names, event_names = _class_names(shards[0])
        survey = Survey(f"{folder} (prepared: filtered, rows are windows or parts of recordings)", names, "rows")
        _count_rows(survey, shards)
        for name, signal in _rows(shards, rate, survey.recordings, limit, event_names):
            survey.add(signal, name)
            survey.read += 1
    except DataError:
        raise
    except Exception as error:  # on damaged files Arrow and JSON raise almost anything
        raise LayoutError(
            f"{folder} cannot be read as a prepared dataset ({error}): copy it again, or prepare it again"
        ) from error
    return survey


def _class_names(shard: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the labels, and of the events."""
    metadata = pq.read_schema(shard).metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    event = features.get("events", {}).get("feature", {}).get("name", {})
    return tuple(features.get("label", {}).get("names", ())), tuple(event.get("names", ()))


def _count_rows(survey: Survey, shards: list[Path]) -> None:
    for shard in shards:
        table = pq.read_table(shard, columns=["subject", "session"])
        survey.recordings += len(table)
        survey.subjects.update(table["subject"].to_pylist())
        survey.sessions.update(table["session"].to_pylist())
        survey.splits[shard.name.split("-")[0]] += len(table)


def _rows(
    shards: list[Path], rate: float, count: int, limit: int | None, event_names: tuple[str, ...]
) -> Iterator[tuple[str, Signal]]:
    """The rows wanted of all shards, one row group in memory at a time."""
    wanted = set(_spread(range(count), limit))
    first = 0
    for shard in datasets.utils.tqdm(shards, unit=" files", desc="Inspecting"):
        with pq.ParquetFile(shard) as file:
            columns = [c for c in file.schema_arrow.names if c in COLUMNS]
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                inside = [row - first for row in range(first, first + size) if row in wanted]
                first += size
                if inside:
                    yield from _signals(file.read_row_group(group, columns).take(inside), rate, event_names)


def _signals(table: pa.Table, rate: float, event_names: tuple[str, ...]) -> Iterator[tuple[str, Signal]]:
    for row in range(len(table)):
        channels = table["input_values"][row].values
        samples = np.stack([channels[i].values.to_numpy(zero_copy_only=False) for i in range(len(channels))])
        if "scale" in table.column_names:
            samples = samples * table["scale"][row].as_py()
        label = table["label"][row].as_py() if "label" in table.column_names else None
        labels = None if label is None else np.full(samples.shape[1], label)
        start, events = table["start"][row].as_py(), None
        if "events" in table.column_names:
            events = _events(table["events"][row].as_py(), start, event_names)
        name = f"{table['recording'][row]}, from sample {start}"
        yield name, Signal(samples, rate, labels, events=events)


def _events(entries: list[dict], start: int, names: tuple[str, ...]) -> Events:
    """The events of a row that begins at sample `start`; their names may be stored as numbers."""
    starts, ends = (np.array([entry[edge] for entry in entries], np.float64) - start for edge in ("start", "end"))
    return Events(tuple(names[e["name"]] if names else str(e["name"]) for e in entries), starts, ends)


def _spread(items: list | range, limit: int | None) -> list:
    """`limit` of the items, evenly spaced."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]
