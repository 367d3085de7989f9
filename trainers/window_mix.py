"""Windows of several corpora, masked, in an order that depends on the seed and the epoch alone.

Position p of an epoch is the same window with the same mask in whatever process, worker or micro-batch it is fetched,
and before or after a restart. That makes a resumed run equal to an uninterrupted one, and several processes equal to
one with a larger batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dataset_builders.errors import DataError
from dataset_builders.torch_view import Epochs
from trainers.errors import RecipeError

# What random numbers are drawn for: equal seeds must not give equal streams.
_SHUFFLE, _PASS, _MASK = 1, 2, 3


class WindowMix(Epochs, torch.utils.data.Dataset):
    """Position -> one masked window.

    Items: `input_values` float32 (num_channels, time), zero in the channels a source does not have; `bool_masked_pos`
    bool (num_channels * patches,), True for exactly `floor(mask_ratio * real tokens)` of the real tokens; `position`;
    `source`; and, if some source has fewer channels, `channel_mask` bool (num_channels,).

    An epoch has `windows_per_epoch` windows, divided among the sources by their weights, in shuffled order. Every
    window of a source is drawn once before any is drawn again, across epochs. With the default weights and length, each
    epoch has every window once.

    Args:
        sources: map-style views whose items have `input_values` (channels, time).
        channels: of the windows of each source.
        time: samples of each window.
        patch_size: samples per token.
        mask_ratio: share of the real tokens that are masked.
        num_channels: channels of every item.
        weights: shares of the sources in an epoch, by default their numbers of windows.
        windows_per_epoch: by default the windows of all sources.
        batch_size: the epoch is cut to whole batches of so many windows; 1 leaves it whole.
        seed: of order and masks.
        shuffle: otherwise the windows come in order and have the same masks in every epoch, for validation.

    Raises:
        RecipeError: an epoch has no whole batch, or some source no window in it.
        DataError: while fetching: a window has another shape than announced.
    """

    def __init__(
        self,
        sources: Sequence[torch.utils.data.Dataset],
        channels: Sequence[int],
        time: int,
        patch_size: int,
        mask_ratio: float = 0.5,
        num_channels: int | None = None,
        weights: Sequence[float] | None = None,
        windows_per_epoch: int | None = None,
        batch_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ):
        super().__init__()
        self.sources = list(sources)
        self.channels = list(channels)
        self.time = time
        self.patches = time // patch_size
        self.mask_ratio = mask_ratio
        self.num_channels = max(channels) if num_channels is None else num_channels
        self.padded = min(channels) < self.num_channels
        self.seed = seed
        self.shuffle = shuffle
        sizes = np.array([len(source) for source in self.sources])
        self._first = np.cumsum([0, *sizes])  # number of each source's first window, counting through all of them
        total = int(sizes.sum()) if windows_per_epoch is None else windows_per_epoch
        self.counts = apportion(total, sizes if weights is None else weights)
        if not all(self.counts):
            raise RecipeError(
                f"an epoch of {total} windows has none of corpus {self.counts.index(0)}: raise windows_per_epoch or "
                "its probability"
            )
        self._length = total // batch_size * batch_size
        if not self._length:
            raise RecipeError(
                f"an epoch has {total} windows, fewer than a batch of {batch_size}: lower per_device_train_batch_size "
                "or gradient_accumulation_steps"
            )
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> dict:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict]:
        order = self._epoch_order()
        places = [self._place(int(order[position])) for position in positions]
        items: list[dict | None] = [None] * len(places)
        for source in {source for source, _ in places}:
            mine = [i for i, place in enumerate(places) if place[0] == source]
            for i, window in zip(mine, self._fetch(source, [places[i][1] for i in mine]), strict=True):
                items[i] = self._item(window, source, int(positions[i]))
        return items

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_order": None}  # workers make their own

    def set_epoch(self, epoch: int) -> None:
        """Another order, other masks and, where sources move their windows, other offsets; the `Trainer` calls this."""
        super().set_epoch(epoch)
        for source in self.sources:
            if hasattr(source, "set_epoch"):
                source.set_epoch(epoch)

    def place(self, position: int) -> tuple[int, int]:
        """The source of the window at a position of the current epoch, and its index there."""
        return self._place(int(self._epoch_order()[position]))

    def recording(self, source: int, index: int) -> str:
        """Name of the recording that a window of a source is from, where the source knows it."""
        view = self.sources[source]
        if hasattr(view, "hf_dataset") and "recording_length" not in view.hf_dataset.features:
            return view.hf_dataset[index].get("recording", f"window {index}")
        return view[index].get("recording", f"window {index}")

    def _place(self, number: int) -> tuple[int, int]:
        source = int(np.searchsorted(self._first, number, side="right")) - 1
        return source, number - int(self._first[source])

    def _epoch_order(self) -> np.ndarray:
        epoch = self.epoch if self.shuffle else 0
        if self._order is None or self._order[0] != epoch:
            parts = [first + self._drawn(i, epoch) for i, first in enumerate(self._first[:-1])]
            order = np.concatenate(parts)
            if self.shuffle:
                np.random.default_rng([self.seed, _SHUFFLE, epoch]).shuffle(order)
            self._order = epoch, order
        return self._order[1]

    def _drawn(self, source: int, epoch: int) -> np.ndarray:
        """Indices of a source's windows in an epoch: the next ones of its endless shuffled passes."""
        size, count = len(self.sources[source]), self.counts[source]
        if not self.shuffle:
            return np.arange(count)
        begin = epoch * count
        first_pass, last_pass = begin // size, (begin + count - 1) // size
        passes = [
            np.random.default_rng([self.seed, _PASS, source, number]).permutation(size)
            for number in range(first_pass, last_pass + 1)
        ]
        return np.concatenate(passes)[begin - first_pass * size :][:count]

    def _fetch(self, source: int, indices: list[int]) -> list[torch.Tensor]:
        view = self.sources[source]
        items = view.__getitems__(indices) if hasattr(view, "__getitems__") else [view[index] for index in indices]
        windows = [item["input_values"] for item in items]
        for index, window in zip(indices, windows, strict=True):
            if tuple(window.shape) != (self.channels[source], self.time):
                raise DataError(
                    f"corpus {source}, window {index}: {tuple(window.shape)} (channels, samples) where "
                    f"{(self.channels[source], self.time)} were expected: prepare the corpus again"
                )
        return windows

    def _item(self, window: torch.Tensor, source: int, position: int) -> dict:
        channels = len(window)
        item = {"bool_masked_pos": self._mask(channels, position), "position": position, "source": source}
        if not self.padded:
            return item | {"input_values": window}
        values = window.new_zeros(self.num_channels, self.time)
        values[:channels] = window
        return item | {"input_values": values, "channel_mask": torch.arange(self.num_channels) < channels}

    def _mask(self, channels: int, position: int) -> torch.Tensor:
        epoch = self.epoch if self.shuffle else 0
        rng = np.random.default_rng([self.seed, _MASK, int(self.shuffle), epoch, position])
        real = channels * self.patches  # tokens are channel-major and padding comes last
        # A product such as 75 * 0.84 may come out just below the whole number it stands for.
        count = int(real * self.mask_ratio + 1e-3)
        mask = torch.zeros(self.num_channels * self.patches, dtype=torch.bool)
        mask[torch.from_numpy(rng.permutation(real)[:count])] = True
        return mask


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total` and are proportional to `weights`, those cut off most being rounded up."""
    shares = np.asarray(weights, np.float64) * total / np.sum(weights, dtype=np.float64)
    counts = np.floor(shares + 1e-9).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: total - counts.sum()]] += 1
    return counts.tolist()
