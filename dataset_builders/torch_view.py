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

WindowTransform = Callable[[torch.Tensor], torch.Tensor]
"""Maps windows (batch, channels, time) to windows of the same shape, drawing anew for each window of the batch."""


class WindowDataset(torch.utils.data.Dataset):
    """Map-style view: item i is {"input_values": float32 (channels, time), "labels": int}.

    `DataLoader` and the `Trainer` fetch whole batches through `__getitems__`; use `collate_windows` to stack them.

    Args:
        hf_dataset: a split of a prepared dataset, also after `select`, `filter` or `shuffle`.
        transform: applied to the windows of a batch at once; see `WindowTransform`.
        columns: other columns to return; "label" comes as "labels", the rest under their own names.
    """

    def __init__(
        self,
        hf_dataset: datasets.Dataset,
        transform: WindowTransform | None = None,
        columns: Sequence[str] = ("label",),
    ):
        self.hf_dataset = hf_dataset
        self.transform = transform
        self.columns = tuple(columns)
        self.window_shape = window_shape(hf_dataset.features)

    def __len__(self) -> int:
        return len(self.hf_dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        rows = self._rows[np.asarray(indices)]
        values = {column: cells[rows].tolist() for column, cells in self._cells.items()}
        return _items(torch.from_numpy(self._gather(rows)), values, self.transform)

    def __getstate__(self) -> dict:
        # views into the mapped file are made anew in a worker process, not sent to it
        cached = ("_rows", "_chunks", "_cells")
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All windows and labels at once, for classical models: float32 (windows, channels, time), int64 (windows,).

        Transforms are not applied. The memory needed is that of all the windows.
        """
        return self._gather(self._rows), self.hf_dataset.data.column("label").to_numpy()[self._rows]

    @cached_property
    def _rows(self) -> np.ndarray:
        """Row of the underlying table for each item: `select`, `filter` and `shuffle` only rearrange these."""
        indices = self.hf_dataset._indices
        return np.arange(len(self.hf_dataset)) if indices is None else indices.column(0).to_numpy().astype(np.int64)

    @cached_property
    def _chunks(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The windows of each chunk of the table, (windows, channels, time), not copied; and each chunk's first row."""
        chunks = self.hf_dataset.data.column("input_values").chunks
        views = [_flat(chunk).to_numpy().reshape(-1, *self.window_shape) for chunk in chunks]
        return views, np.cumsum([0, *map(len, views)])

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        chunks, first_rows = self._chunks
        which = np.searchsorted(first_rows, rows, side="right") - 1
        windows = np.empty((len(rows), *self.window_shape), np.float32)
        for i, (chunk, row) in enumerate(zip(which.tolist(), (rows - first_rows[which]).tolist(), strict=True)):
            windows[i] = chunks[chunk][row]
        return windows

    @cached_property
    def _cells(self) -> dict[str, np.ndarray]:
        return {column: self.hf_dataset.data.column(column).to_numpy() for column in self.columns}


class IterableWindowDataset(torch.utils.data.IterableDataset):
    """Streaming view with the items of `WindowDataset`; shards are divided among nodes and then among workers.

    Args:
        hf_dataset: a streaming split (`load_dataset(..., streaming=True)` or `as_streaming_dataset`), also after
            `shuffle`.
        transform, columns: as for `WindowDataset`.
        rank, world_size: this process and how many there are; by default those of `torch.distributed`, if it runs. The
            `Trainer` and accelerate divide a stream among processes themselves: give world_size=1 there, or windows
            are lost.
        read_size: windows read and transformed at a time.
    """

    def __init__(
        self,
        hf_dataset: datasets.IterableDataset,
        transform: WindowTransform | None = None,
        columns: Sequence[str] = ("label",),
        rank: int | None = None,
        world_size: int | None = None,
        read_size: int = 256,
    ):
        if world_size is None and torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.transform = transform
        self.columns = tuple(columns)
        self.read_size = read_size
        self.window_shape = window_shape(hf_dataset.features)
        view = hf_dataset.select_columns(["input_values", *self.columns]).with_format("arrow")
        self._arrow = split_dataset_by_node(view, rank or 0, world_size) if world_size and world_size > 1 else view

    def set_epoch(self, epoch: int) -> None:
        """Shuffle differently in every epoch; the `Trainer` calls this."""
        self._arrow.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict]:
        part = self._of_this_worker()
        if part is None:
            return
        for table in part.iter(batch_size=self.read_size):
            # copied, because writing in place to a mapped file would crash the process
            samples = _flat(table["input_values"].combine_chunks()).to_numpy().copy()
            windows = torch.from_numpy(samples.reshape(-1, *self.window_shape))
            values = {column: table[column].to_numpy().tolist() for column in self.columns}
            yield from _items(windows, values, self.transform)

    def _of_this_worker(self) -> datasets.IterableDataset | None:
        worker = torch.utils.data.get_worker_info()
        if worker is None or worker.num_workers == 1:
            return self._arrow
        workers = min(worker.num_workers, self._arrow.num_shards)
        return self._arrow.shard(workers, worker.id, contiguous=False) if worker.id < workers else None


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


def window_shape(features: datasets.Features) -> tuple[int, int]:
    """(channels, time) of the windows of a prepared dataset."""
    outer = (features or {}).get("input_values")
    inner = getattr(outer, "feature", None)
    if not all(isinstance(part, datasets.List) and part.length > 0 for part in (outer, inner)):
        raise TypeError(
            f"input_values must be fixed-size lists (channels, time) as the builders write them, not {outer}: "
            "cast_column it to List(List(Value('float32'), length=time), length=channels)"
        )
    return outer.length, inner.length


def _flat(windows: pa.Array) -> pa.Array:
    """The samples of windows, one after the other."""
    return windows.flatten().flatten()


def _items(windows: torch.Tensor, values: dict[str, list], transform: WindowTransform | None) -> list[dict]:
    if transform is not None:
        windows = transform(windows)
    items = [{"input_values": window} for window in windows.unbind()]
    for column, cells in values.items():
        name = "labels" if column == "label" else column
        for item, cell in zip(items, cells, strict=True):
            item[name] = cell
    return items
