"""Windows of a prepared dataset as torch tensors: a fast map-style view and a streaming one.

Both read Arrow buffers directly; `with_format("torch")` goes through Python lists and is some fifty times slower.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.distributed import split_dataset_by_node

from .errors import ConfigError

WindowTransform = Callable[[torch.Tensor], torch.Tensor]
"""Maps windows (batch, channels, time) to windows of the same shape, drawing anew for each window of the batch."""


class Epochs:
    """Number of the epoch, of which random draws depend; it reaches the workers of a `DataLoader`, also persistent
    ones."""

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """As last set, in this process or in the one that started it."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle differently in every epoch; the `Trainer` calls this."""
        self._epoch.fill_(epoch)


class WindowDataset(torch.utils.data.Dataset):
    """Map-style view: item i is {"input_values": float32 (channels, time), "labels": int or float32 (frames, outputs)}.

    `DataLoader` and the `Trainer` fetch whole batches through `__getitems__`; use `collate_windows` to stack them.

    Args:
        hf_dataset: a split of a prepared dataset, also after `select`, `filter` or `shuffle`.
        transform: applied to the windows of a batch at once; see `WindowTransform`.
        columns: other columns to return; "label" and "targets" come as "labels", the rest under their own names. By
            default the labels or targets, where the dataset has them.
    """

    def __init__(
        self,
        hf_dataset: datasets.Dataset,
        transform: WindowTransform | None = None,
        columns: Sequence[str] | None = None,
    ):
        self.hf_dataset = hf_dataset
        self.transform = transform
        self.columns = _columns(hf_dataset.features, columns)
        self.window_shape = window_shape(hf_dataset.features)

    def __len__(self) -> int:
        return len(self.hf_dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        rows = self._rows[np.asarray(indices)]
        values = {name: self._values(name, rows) for name in self.columns}
        return _items(torch.from_numpy(self._gather("input_values", rows)), values, self.transform)

    def __getstate__(self) -> dict:
        # views into the mapped file are made anew in a worker process, not sent to it
        cached = ("_rows", "_matrices", "_cells")
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All windows with their labels or targets at once, for classical models.

        Returns:
            float32 (windows, channels, time), and labels int64 (windows,) or targets float32 (windows, frames,
            outputs). Transforms are not applied. The memory needed is that of all the windows.
        """
        _columns(self.hf_dataset.features, ["label" if "label" in self.hf_dataset.features else "targets"])
        windows = self._gather("input_values", self._rows)
        if "label" in self.hf_dataset.features:
            return windows, self.hf_dataset.data.column("label").to_numpy()[self._rows]
        return windows, self._gather("targets", self._rows)

    @cached_property
    def _rows(self) -> np.ndarray:
        """Row of the underlying table for each item: `select`, `filter` and `shuffle` only rearrange these."""
        indices = self.hf_dataset._indices
        return np.arange(len(self.hf_dataset)) if indices is None else indices.column(0).to_numpy().astype(np.int64)

    @cached_property
    def _matrices(self) -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
        """For each column of matrices the values in each chunk of the table, not copied, and each chunk's first row."""
        found = {}
        for name in {"input_values", *self.columns, "targets"} & self.hf_dataset.features.keys():
            if name in ("input_values", "targets"):
                shape = window_shape(self.hf_dataset.features, name)
                chunks = self.hf_dataset.data.column(name).chunks
                views = [_flat(chunk).to_numpy().reshape(-1, *shape) for chunk in chunks]
                found[name] = views, np.cumsum([0, *map(len, views)])
        return found

    def _gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        chunks, first_rows = self._matrices[name]
        which = np.searchsorted(first_rows, rows, side="right") - 1
        matrices = np.empty((len(rows), *window_shape(self.hf_dataset.features, name)), np.float32)
        for i, (chunk, row) in enumerate(zip(which.tolist(), (rows - first_rows[which]).tolist(), strict=True)):
            matrices[i] = chunks[chunk][row]
        return matrices

    def _values(self, name: str, rows: np.ndarray) -> Sequence:
        """One value of a column for each row."""
        return torch.from_numpy(self._gather(name, rows)) if name == "targets" else self._cells[name][rows].tolist()

    @cached_property
    def _cells(self) -> dict[str, np.ndarray]:
        names = [name for name in self.columns if name != "targets"]
        return {name: self.hf_dataset.data.column(name).to_numpy() for name in names}


class IterableWindowDataset(Epochs, torch.utils.data.IterableDataset):
    """Streaming view with the items of `WindowDataset`; shards are divided among nodes and then among workers.

    Args:
        hf_dataset: a streaming split (`load_dataset(..., streaming=True)` or `as_streaming_dataset`), also after
            `shuffle`.
        transform, columns: as for `WindowDataset`.
        rank, world_size: this process and how many share the stream, e.g. those of `torch.distributed` in a training
            loop of your own. The `Trainer` and accelerate divide a stream among processes themselves: leave it to them.
        read_size: windows read and transformed at a time.
    """

    def __init__(
        self,
        hf_dataset: datasets.IterableDataset,
        transform: WindowTransform | None = None,
        columns: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
        read_size: int = 256,
    ):
        super().__init__()
        self.transform = transform
        self.columns = _columns(hf_dataset.features, columns)
        self.read_size = read_size
        self.window_shape = window_shape(hf_dataset.features)
        self.target_shape = window_shape(hf_dataset.features, "targets") if "targets" in self.columns else None
        view = hf_dataset.select_columns(["input_values", *self.columns]).with_format("arrow")
        self._arrow = split_dataset_by_node(view, rank, world_size) if world_size > 1 else view

    def __iter__(self) -> Iterator[dict]:
        part = part_of_this_worker(self._arrow, self.epoch)
        if part is None:
            return
        for table in part.iter(batch_size=self.read_size):
            windows = _tensor(table["input_values"], self.window_shape)
            values = {name: self._values(table[name], name) for name in self.columns}
            yield from _items(windows, values, self.transform)

    def _values(self, column: pa.ChunkedArray, name: str) -> Sequence:
        if name == "targets":
            return _tensor(column, self.target_shape)
        return column.to_numpy().tolist()


def part_of_this_worker(stream: datasets.IterableDataset, epoch: int) -> datasets.IterableDataset | None:
    """This worker's shards of a stream, None if there are fewer shards than workers and none is left for it."""
    worker = torch.utils.data.get_worker_info()
    if worker is not None and worker.num_workers > 1:
        workers = min(worker.num_workers, stream.num_shards)
        if worker.id >= workers:
            return None
        stream = stream.shard(workers, worker.id, contiguous=False)
    stream.set_epoch(epoch)
    return stream


def collate_windows(items: Sequence[dict]) -> dict:
    """Stack items: {"input_values": (batch, channels, time), "labels": (batch,)}; text columns become lists."""
    batch: dict = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if isinstance(first, torch.Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.tensor(values) if isinstance(first, int | float) else values
    return batch


def window_shape(features: datasets.Features, name: str = "input_values") -> tuple[int, int]:
    """Shape of the matrices in a column of a prepared dataset: (channels, time) of the windows."""
    outer = (features or {}).get(name)
    inner = getattr(outer, "feature", None)
    if "recording_length" in (features or {}) and name == "input_values":
        raise TypeError("rows of this dataset are recordings, not windows: use ContinuousDataset, which cuts them")
    if not all(isinstance(part, datasets.List) and part.length > 0 for part in (outer, inner)):
        raise TypeError(
            f"{name} must be fixed-size lists (channels, time) as the builders write them, not {outer}: "
            "cast_column it to List(List(Value('float32'), length=time), length=channels)"
        )
    return outer.length, inner.length


def _columns(features: datasets.Features, columns: Sequence[str] | None) -> tuple[str, ...]:
    if columns is not None:
        missing = [name for name in columns if name not in (features or {})]
        if missing:
            raise ConfigError(f"no column {', '.join(missing)}; the dataset has {', '.join(features or {})}")
        return tuple(columns)
    return tuple(name for name in ("label", "targets") if name in (features or {}))


def _tensor(column: pa.ChunkedArray, shape: tuple[int, int]) -> torch.Tensor:
    """A column of matrices; copied, because writing in place to a mapped file would crash the process."""
    return torch.from_numpy(_flat(column.combine_chunks()).to_numpy().copy().reshape(-1, *shape))


def _flat(windows: pa.Array) -> pa.Array:
    """The samples of windows, one after the other."""
    return windows.flatten().flatten()


def _items(windows: torch.Tensor, values: dict[str, Sequence], transform: WindowTransform | None) -> list[dict]:
    if transform is not None:
        windows = transform(windows)
    items = [{"input_values": window} for window in windows.unbind()]
    for column, cells in values.items():
        name = "labels" if column in ("label", "targets") else column
        for item, cell in zip(items, cells, strict=True):
            item[name] = cell
    return items
