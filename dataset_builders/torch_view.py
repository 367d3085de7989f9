"""Windows of a prepared dataset as torch tensors: a fast map-style view and a streaming one.

Both read Arrow buffers directly; `with_format("torch")` goes through Python lists and is some fifty times slower.
"""

from collections.abc import Callable, Iterator, Sequence

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
        self._arrow = hf_dataset.with_format("arrow", columns=["input_values", *self.columns])

    def __len__(self) -> int:
        return len(self._arrow)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        return _items(self._arrow[list(indices)], self.window_shape, self.columns, self.transform)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All windows and labels at once, for classical models: float32 (windows, channels, time), int64 (windows,).

        Transforms are not applied. The memory needed is that of all the windows.
        """
        table = self.hf_dataset.with_format("arrow", columns=["input_values", "label"])[:]
        values = _values(table["input_values"]).to_numpy(zero_copy_only=False)
        return values.reshape(-1, *self.window_shape), table["label"].to_numpy()


class IterableWindowDataset(torch.utils.data.IterableDataset):
    """Streaming view with the items of `WindowDataset`; shards are divided among nodes and then among workers.

    Args:
        hf_dataset: a streaming split (`load_dataset(..., streaming=True)` or `as_streaming_dataset`), also after
            `shuffle`.
        transform, columns: as for `WindowDataset`.
        rank, world_size: this process and how many there are; by default those of `torch.distributed`, if it runs.
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
            yield from _items(table, self.window_shape, self.columns, self.transform)

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


def _values(column: pa.ChunkedArray) -> pa.Array:
    """The samples of a column of windows, flat; copied if the column has several chunks."""
    windows = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return windows.flatten().flatten()


def _items(
    table: pa.Table, shape: tuple[int, int], columns: Sequence[str], transform: WindowTransform | None
) -> list[dict]:
    windows = torch.from_dlpack(_values(table["input_values"])).reshape(-1, *shape)
    if table["input_values"].num_chunks == 1:
        windows = windows.clone()  # still the mapped file, where writing in place would crash the process
    if transform is not None:
        windows = transform(windows)
    items = [{"input_values": window} for window in windows.unbind()]
    for column in columns:
        name = "labels" if column == "label" else column
        for item, value in zip(items, table[column].to_pylist(), strict=True):
            item[name] = value
    return items
