"""Windows cut on the fly from stored recordings (rows="recordings"), with context around them and random offsets.

`ContinuousDataset` gives random access, `IterableContinuousDataset` streams; both give the same windows. Nothing is
padded here: a window at the edge of its recording has less context, and a recording shorter than a window is a window.
`collate_continuous` makes batches.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import datasets
import numpy as np
import torch

from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

from .errors import ConfigError, DataError
from .stored_rows import KNOWN_COLUMNS, Row, RowBatch
from .torch_view import Epochs, part_of_this_worker

ItemTransform = Callable[[dict], dict]
"""Maps an item to an item, e.g. to turn events into labels or to augment `input_values`."""

IGNORED_LABEL = -100  # what the losses of the library leave out


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut.

    Attributes:
        window_length: samples; None takes recordings whole.
        stride: samples between windows; None is `window_length`.
        context: samples before and after each window that come along, as far as the recording has them.
        jitter: move each window later by a random 0 to stride - 1 samples, as far as the recording goes.
    """

    window_length: int | None = None
    stride: int | None = None
    context: tuple[int, int] = (0, 0)
    jitter: bool = False

    def __post_init__(self) -> None:
        lengths = [value for value in (self.window_length, self.stride) if value is not None]
        if min(self.context) < 0 or any(value < 1 for value in lengths):
            raise ConfigError(f"{self}: window_length and stride must be positive, context not negative")

    @property
    def step(self) -> int:
        """Samples between windows."""
        return self.stride or self.window_length or 1

    def count(self, length: int) -> int:
        """Windows of a recording of `length` samples: at least one."""
        return 1 if self.window_length is None else max(length - self.window_length, 0) // self.step + 1

    def window(self, index: int, length: int, rng: np.random.Generator | None) -> tuple[int, int]:
        """First sample of window `index` and the one after its last; `rng` draws the offset."""
        if self.window_length is None:
            return 0, length
        first = index * self.step
        left_over = length - first - self.window_length
        if self.jitter and rng is not None and left_over > 0:
            first += int(rng.integers(min(self.step, left_over)))
        return first, min(first + self.window_length, length)

    def extent(self, window: tuple[int, int], length: int) -> tuple[int, int]:
        """The window with its context."""
        return max(window[0] - self.context[0], 0), min(window[1] + self.context[1], length)


class _Cut(Epochs):
    """Options and cutting that both views share."""

    def __init__(
        self,
        features: datasets.Features,
        cutting: Cutting,
        columns: Sequence[str],
        transform: ItemTransform | None,
        target_hop: int,
        extractor: TinyMyoFeatureExtractor | None,
        seed: int,
    ):
        if not isinstance(getattr(features.get("input_values"), "feature", None), datasets.List):
            raise ConfigError("the dataset has no column input_values of (channels, time) lists")
        if "recording_length" not in features:
            raise ConfigError(
                'rows of this dataset are windows: use WindowDataset, or prepare it with rows="recordings"'
            )
        if any(value % target_hop for value in (cutting.window_length or 0, cutting.step) if cutting.window_length):
            raise ConfigError(f"{cutting}: window_length and stride must be multiples of target_hop={target_hop}")
        super().__init__()
        missing = [name for name in columns if name not in features or name in KNOWN_COLUMNS]
        if missing:
            others = ", ".join(name for name in features if name not in KNOWN_COLUMNS)
            raise ConfigError(f"no further column {', '.join(missing)}; the dataset has {others}")
        self.cutting = cutting
        self.columns = tuple(columns)
        self.transform = transform
        self.target_hop = target_hop
        self.extractor = extractor
        self.seed = seed
        names = features["events"].feature["name"] if "events" in features else None
        self.event_classes = names.names if isinstance(names, datasets.ClassLabel) else None
        self.read_columns = [c for c in features if c in KNOWN_COLUMNS or c in self.columns]

    def _generator(self, recording: str, index: int) -> np.random.Generator | None:
        """For the offset of a window, the same in whatever order and process it is cut."""
        place = [self.seed, self.epoch, zlib.crc32(recording.encode()), index]
        return np.random.default_rng(place) if self.cutting.jitter else None

    def _item(self, rows: Sequence[Row], window: tuple[int, int]) -> dict:
        """The item for a window, from the rows that it and its context touch."""
        length = rows[0].recording_length
        first, last = self.cutting.extent(window, length)
        samples = np.empty((len(rows[0].samples), last - first), np.float32)
        for row in rows:
            start, stop = max(first, row.start), min(last, row.stop)
            if start < stop:
                samples[:, start - first : stop - first] = row.samples[:, start - row.start : stop - row.start]
        if self.extractor is not None:
            samples = self.extractor.normalize_windows(samples)
        item: dict = {
            "input_values": torch.from_numpy(samples),
            "recording": rows[0].recording,
            "start": window[0],
            "context": (window[0] - first, last - window[1]),
        }
        if rows[0].events is not None:
            end = length if window[1] == length else window[1] - 1
            events = [e for row in rows for e in row.events if window[0] <= e["start"] <= end]
            item["event_names"] = [event["name"] for event in events]
            if self.event_classes is not None:
                item["event_ids"] = torch.tensor(item["event_names"], dtype=torch.long)
                item["event_names"] = [self.event_classes[name] for name in item["event_names"]]
            item["event_starts"] = torch.tensor([event["start"] - window[0] for event in events], dtype=torch.float64)
            item["event_ends"] = torch.tensor([event["end"] - window[0] for event in events], dtype=torch.float64)
        for name in ("targets", "phones"):
            if getattr(rows[0], name) is not None:
                item[name] = torch.from_numpy(self._frames(rows, name, window))
        item |= {column: rows[0].others[column] for column in self.columns}
        return item if self.transform is None else self.transform(item)

    def _frames(self, rows: Sequence[Row], name: str, window: tuple[int, int]) -> np.ndarray:
        """Frames of the window itself; with jitter, from the frame in which it begins."""
        hop = self.target_hop
        frames = np.concatenate([getattr(row, name) for row in rows])
        if self.cutting.window_length is None:
            return frames
        if len(frames) != rows[-1].stop // hop - rows[0].start // hop:
            raise DataError(
                f"{rows[0].recording}: its {name} are not aligned with its samples, a frame per {hop}: take recordings "
                "whole (window_length=None), leave such recordings out, or correct target_hop"
            )
        first = window[0] // hop - rows[0].start // hop
        return frames[first : first + (window[1] - window[0]) // hop]


class ContinuousDataset(_Cut, torch.utils.data.Dataset):
    """Map-style view: item i is a window as a dictionary.

    - `input_values`: float32 (channels, time), the window with its context; `context`: (before, after) in samples.
    - `recording`, and `start`: first sample of the window proper in it.
    - where the dataset has events: `event_names`, and `event_starts`, `event_ends` float64 in samples relative to the
      window's first, of the events that start at or after its first sample and not after its last (in a window that
      ends with the recording: all up to its end).
    - where it has them: `targets` (frames, outputs) and `phones` (frames,) of the window proper.

    Args:
        hf_dataset: a split whose rows are recordings; whole recordings may have been selected or filtered out.
        cutting: window, stride, context, jitter.
        columns: other columns to return, e.g. "text".
        transform: applied to each item.
        target_hop: samples per frame of targets and phones.
        extractor: normalises each window, with its context, if that is its `normalization_scope`: stored recordings
            are then not normalised.
        seed: of the random offsets, which differ by window and epoch (`set_epoch`).
    """

    def __init__(
        self,
        hf_dataset: datasets.Dataset,
        cutting: Cutting,
        columns: Sequence[str] = (),
        transform: ItemTransform | None = None,
        target_hop: int = 1,
        extractor: TinyMyoFeatureExtractor | None = None,
        seed: int = 0,
    ):
        super().__init__(hf_dataset.features, cutting, columns, transform, target_hop, extractor, seed)
        self.hf_dataset = hf_dataset
        starts = np.asarray(hf_dataset.data.column("start"))
        lengths = np.asarray(hf_dataset.data.column("recording_length"))
        indices = hf_dataset._indices
        self._order = None if indices is None else indices.column(0).to_numpy()  # of the rows in the table
        if self._order is not None:
            starts, lengths = starts[self._order], lengths[self._order]
        self._row_starts = starts
        self._first_rows = np.flatnonzero(starts == 0)
        if len(starts) and (starts[0] or (np.diff(starts) <= 0).sum() != len(self._first_rows) - 1):
            raise DataError(
                "the rows of some recording are not all there or not in order: select, filter and shuffle whole "
                "recordings only (the loader shuffles windows)"
            )
        self._lengths = lengths[self._first_rows]
        self._first_windows = np.cumsum([0, *map(cutting.count, self._lengths.tolist())])

    def __len__(self) -> int:
        return int(self._first_windows[-1])

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        index %= len(self)
        recording = int(np.searchsorted(self._first_windows, index, side="right")) - 1
        length = int(self._lengths[recording])
        number = index - int(self._first_windows[recording])
        window = self.cutting.window(number, length, self._generator(self._name(recording), number))
        return self._item(self._rows_with(recording, *self.cutting.extent(window, length)), window)

    def __getstate__(self) -> dict:
        # views into the mapped file are made anew in a worker process, not sent to it
        return {name: value for name, value in self.__dict__.items() if name != "_batches"}

    @cached_property
    def _batches(self) -> tuple[list[RowBatch], np.ndarray]:
        """The record batches of the table, and the first row of each."""
        batches = self.hf_dataset.data.table.select(self.read_columns).to_batches()
        return [RowBatch(batch) for batch in batches], np.cumsum([0, *map(len, batches)])

    def _place(self, index: int) -> tuple[RowBatch, int]:
        """The batch that row `index` is in, and where in it."""
        batches, first_rows = self._batches
        row = index if self._order is None else int(self._order[index])
        number = int(np.searchsorted(first_rows, row, side="right")) - 1
        return batches[number], row - int(first_rows[number])

    def _name(self, recording: int) -> str:
        batch, i = self._place(int(self._first_rows[recording]))
        return batch.cells["recording"][i].as_py()

    def _rows_with(self, recording: int, first: int, last: int) -> list[Row]:
        """The rows of a recording that hold samples `first` to `last` - 1."""
        begin = int(self._first_rows[recording])
        more = recording + 1 < len(self._first_rows)
        end = int(self._first_rows[recording + 1]) if more else len(self._row_starts)
        starts = self._row_starts[begin:end]
        low = begin + int(np.searchsorted(starts, first, side="right")) - 1
        high = begin + int(np.searchsorted(starts, last, side="left"))
        rows = [batch.row(i) for batch, i in map(self._place, range(low, high))]
        torn = any((a.recording, a.stop) != (b.recording, b.start) for a, b in zip(rows, rows[1:], strict=False))
        if torn or rows[-1].stop < last:
            raise DataError(f"{rows[0].recording}: rows are missing; select and filter whole recordings only")
        return rows


class IterableContinuousDataset(_Cut, torch.utils.data.IterableDataset):
    """Streaming view with the items of `ContinuousDataset`, in order; memory is bounded by a window and a few rows.

    Shards are divided among nodes and then among workers, and come in another order in every epoch but the first.

    Args:
        hf_dataset: a streaming split whose rows are recordings, e.g. of `load_corpus(..., streaming=True)`. Shuffling
            it would tear recordings apart: only the order of shards may be shuffled, with
            `shuffle(seed, buffer_size=1, max_buffer_input_shards=1)`.
        cutting, columns, transform, target_hop, extractor, seed: as for `ContinuousDataset`.
        rank, world_size: as for `IterableWindowDataset`.
    """

    def __init__(
        self,
        hf_dataset: datasets.IterableDataset,
        cutting: Cutting,
        columns: Sequence[str] = (),
        transform: ItemTransform | None = None,
        target_hop: int = 1,
        extractor: TinyMyoFeatureExtractor | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        super().__init__(hf_dataset.features, cutting, columns, transform, target_hop, extractor, seed)
        view = hf_dataset.select_columns(self.read_columns).with_format("arrow")
        if view.num_shards < world_size:
            raise ConfigError(f"{view.num_shards} shards cannot be divided among {world_size} processes: use fewer")
        # by whole shards: recordings must not be torn apart
        self._arrow = view.shard(world_size, rank, contiguous=False) if world_size > 1 else view

    def __iter__(self) -> Iterator[dict]:
        part = part_of_this_worker(self._arrow, self.epoch)
        buffer: deque[Row] = deque()
        index = 0  # of the recording's next window
        for row in () if part is None else _rows_of(part):
            if row.start == 0:
                _check_end(buffer)
                buffer.clear()
                index = 0
            if (row.recording, row.start) != (
                (buffer[-1].recording, buffer[-1].stop) if buffer else (row.recording, 0)
            ):
                raise DataError(f"{row.recording}: {_TORN}")
            buffer.append(row)
            while index < self.cutting.count(row.recording_length):
                window = self.cutting.window(index, row.recording_length, self._generator(row.recording, index))
                first, last = self.cutting.extent(window, row.recording_length)
                while len(buffer) > 1 and buffer[0].stop <= first:
                    buffer.popleft()
                if last > row.stop:
                    break
                yield self._item([r for r in buffer if r.start < last], window)
                index += 1
        _check_end(buffer)


_TORN = (
    "rows are missing or out of order; of a stream only the order of shards may be shuffled: "
    "shuffle(seed, buffer_size=1, max_buffer_input_shards=1)"
)


def _rows_of(stream: datasets.IterableDataset) -> Iterator[Row]:
    for table in stream.iter(batch_size=1):
        for batch in table.to_batches():
            decoded = RowBatch(batch)
            yield from (decoded.row(i) for i in range(len(batch)))


def _check_end(rows: Sequence[Row]) -> None:
    """Raise if the last rows of a recording were not there."""
    if rows and rows[-1].stop != rows[-1].recording_length:
        raise DataError(f"{rows[-1].recording}: {_TORN}")


def collate_continuous(items: Sequence[dict]) -> dict:
    """Pad items to one batch.

    `input_values` (batch, channels, time) is padded with zeros on the right, and `attention_mask` (batch, time) is 1
    where a sample is real; `labels` and `phones` (batch, longest) are padded with -100, `targets` (batch, frames,
    outputs) with zeros; whole numbers are stacked; everything else is collected in lists.
    """
    signals = [item["input_values"] for item in items]
    longest = max(signal.shape[-1] for signal in signals)
    padded = signals[0].new_zeros(len(signals), len(signals[0]), longest)
    mask = torch.zeros(len(signals), longest, dtype=torch.long)
    for i, signal in enumerate(signals):
        padded[i, :, : signal.shape[-1]] = signal
        mask[i, : signal.shape[-1]] = 1
    batch: dict = {"input_values": padded, "attention_mask": mask}
    for name in items[0].keys() - {"input_values"}:
        values = [item[name] for item in items]
        if name in ("labels", "phones", "targets") and torch.is_tensor(values[0]):
            padding = 0.0 if name == "targets" else IGNORED_LABEL
            batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)
        else:
            batch[name] = torch.tensor(values) if isinstance(values[0], int) else values
    return batch


__all__ = [
    "ContinuousDataset",
    "Cutting",
    "IterableContinuousDataset",
    "collate_continuous",
]
