"""Several corpora as one stream of windows with equal channels: the mix that TinyMyo is pretrained on.

db6 = WindowDataset(load_corpus("ninapro_db6", DB6)[0]["train"], columns=())
pose = ContinuousDataset(load_corpus("emg2pose", POSE)[0]["train"], Cutting(1000, 500))
mix = MixedDataset([db6, pose], probabilities=[0.3, 0.7])
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .errors import ConfigError, DataError
from .torch_view import Epochs

STOPS = ("first_exhausted", "all_exhausted")


class MixedDataset(Epochs, torch.utils.data.IterableDataset):
    """Draws each window from one of several sources, and pads its channels.

    Items: `input_values` float32 (num_channels, time), zero in the channels the source does not have; `channel_mask`
    bool (num_channels,), True where a channel is real; `source`: position of the source.

    Sources with random access are shuffled anew in every epoch and divided among processes and workers here; streaming
    sources divide and shuffle themselves.

    Args:
        sources: views whose items have `input_values` (channels, time) of one length: `WindowDataset`,
            `ContinuousDataset` or their streaming kin. Bring the corpora to one sampling rate when preparing them.
        probabilities: how often each source is drawn, any positive numbers; by default all alike.
        num_channels: of every item, at least those of each source.
        stop: "first_exhausted" ends the epoch when a source has no more windows; "all_exhausted" starts such a source
            again until each has been through once.
        seed: of the draws and of the shuffling.
        rank, world_size: as for `IterableWindowDataset`.

    Raises:
        ConfigError: probabilities that do not fit the sources, an unknown `stop`.
        DataError: while iterating: a source has too many channels, or windows of another length.
    """

    def __init__(
        self,
        sources: Sequence[torch.utils.data.Dataset],
        probabilities: Sequence[float] | None = None,
        num_channels: int = 16,
        stop: str = "first_exhausted",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        weights = np.ones(len(sources)) if probabilities is None else np.asarray(probabilities, np.float64)
        if not len(sources) or weights.shape != (len(sources),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ConfigError(
                f"probabilities={probabilities} for {len(sources)} sources: give at least one source, and a positive "
                "number for each"
            )
        if stop not in STOPS:
            raise ConfigError(f"stop={stop!r}: unknown; use one of {', '.join(STOPS)}")
        super().__init__()
        self.sources = list(sources)
        self.weights = weights
        self.num_channels = num_channels
        self.stop = stop
        self.seed = seed
        self.rank, self.world_size = rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle differently in every epoch; the `Trainer` calls this."""
        super().set_epoch(epoch)
        for source in self.sources:
            if hasattr(source, "set_epoch"):
                source.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict]:
        worker = torch.utils.data.get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self.rank * workers + number, self.world_size * workers
        rng = np.random.default_rng([self.seed, self.epoch, part])
        streams = [self._stream(i, 0, part, parts) for i in range(len(self.sources))]
        drawn, rounds = np.zeros(len(streams), bool), np.zeros(len(streams), np.int64)
        weights = self.weights.copy()
        time: int | None = None
        while weights.any():
            source = int(rng.choice(len(streams), p=weights / weights.sum()))
            item = next(streams[source], None)
            if item is None and not drawn[source]:
                weights[source] = 0  # this worker has no part of a small source
                continue
            if item is None:
                rounds[source] += 1
                if self.stop == "first_exhausted" or rounds[weights > 0].all():
                    return
                streams[source] = self._stream(source, int(rounds[source]), part, parts)
                item = next(streams[source])
            drawn[source] = True
            time = time or item["input_values"].shape[-1]
            yield self._padded(item["input_values"], source, time)

    def _stream(self, source: int, round_: int, part: int, parts: int) -> Iterator[dict]:
        view = self.sources[source]
        if isinstance(view, torch.utils.data.IterableDataset):
            return iter(view)
        order = np.random.default_rng([self.seed, self.epoch, source]).permutation(len(view))[part::parts]
        order = np.random.default_rng([self.seed, self.epoch, source, round_]).permutation(order)
        return (view[int(index)] for index in order)

    def _padded(self, window: torch.Tensor, source: int, time: int) -> dict:
        channels = len(window)
        if channels > self.num_channels or window.shape[-1] != time:
            raise DataError(
                f"source {source}: a window of {channels} channels x {window.shape[-1]} samples does not fit "
                f"{self.num_channels} x {time}: select channels, or prepare it with the window length of the others"
            )
        padded = torch.zeros(self.num_channels, time, dtype=window.dtype)
        padded[:channels] = window
        return {
            "input_values": padded,
            "channel_mask": torch.arange(self.num_channels) < channels,
            "source": source,
        }
