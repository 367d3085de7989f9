"""The mix of corpora: shares, padding, division among workers and nodes, ends."""

from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch

from dataset_builders.base import ConfigError, DataError
from dataset_builders.mix import MixedDataset
from dataset_builders.torch_view import IterableWindowDataset, WindowDataset
from dataset_builders.windows import nested_array, window_features


def rows(source: int, count: int, channels: int, time: int = 20) -> datasets.Dataset:
    """Windows filled with source * 1000 + their number."""
    values = np.full((count, channels, time), 1000 * source, np.float32) + np.arange(count)[:, None, None]
    features = window_features(channels, time)
    columns = {name: pa.array([""] * count) for name in ("subject", "session", "recording")}
    columns |= {"repetition": pa.array([1] * count, pa.int32()), "start": pa.array([0] * count)}
    table = pa.table({"input_values": nested_array(values)} | columns).select(list(features))
    return datasets.Dataset(table.cast(features.arrow_schema))


def number(item: dict) -> int:
    return int(item["input_values"][0, 0])


def test_shares_padding_and_mask():
    sources = [WindowDataset(rows(first, 3000, channels)) for first, channels in ((1, 14), (10, 12), (20, 16))]
    mix = MixedDataset(sources, [0.5, 0.2, 0.3])
    items = list(mix)
    counts = Counter(item["source"] for item in items)
    assert max(counts.values()) == 3000  # ends with the first source to run out
    assert [counts[i] / len(items) for i in range(3)] == pytest.approx([0.5, 0.2, 0.3], abs=0.02)
    for item in items[:50]:
        channels = (14, 12, 16)[item["source"]]
        assert item["input_values"].shape == (16, 20) and item["channel_mask"].tolist() == [
            i < channels for i in range(16)
        ]
        assert (item["input_values"][:channels] == number(item)).all() and not item["input_values"][channels:].any()
    starts = [1000, 10_000, 20_000]
    assert all(0 <= number(item) - starts[item["source"]] < 3000 for item in items)
    assert max(Counter(map(number, items)).values()) == 1


def test_epochs_differ_and_repeat():
    mix = MixedDataset([WindowDataset(rows(1, 50, 4)), WindowDataset(rows(2, 50, 8))])
    first = list(map(number, mix))
    assert first == list(map(number, mix))
    mix.set_epoch(1)
    assert first != list(map(number, mix))


def test_the_epoch_reaches_workers_that_persist():
    stream = IterableWindowDataset(rows(2, 50, 6).to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=9))
    mix = MixedDataset([WindowDataset(rows(1, 50, 4)), stream], stop="all_exhausted")
    loader = torch.utils.data.DataLoader(mix, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        mix.set_epoch(epoch)
        epochs.append([[number(item) for item in loader if item["source"] == source] for source in (0, 1)])
    assert epochs[0] == epochs[2] and epochs[0][0] != epochs[1][0] and epochs[0][1] != epochs[1][1]


def test_all_exhausted_goes_through_every_source():
    mix = MixedDataset([WindowDataset(rows(1, 10, 4)), WindowDataset(rows(2, 200, 8))], stop="all_exhausted")
    numbers = list(map(number, mix))
    assert {n for n in numbers if n >= 2000} == set(range(2000, 2200))
    repeats = Counter(n for n in numbers if n < 2000)
    assert set(repeats) == set(range(1000, 1010)) and max(repeats.values()) - min(repeats.values()) <= 1


def test_workers_and_nodes_get_different_windows():
    sources = [WindowDataset(rows(1, 100, 4)), WindowDataset(rows(2, 100, 4))]
    seen = []
    for rank in (0, 1):
        mix = MixedDataset(sources, rank=rank, world_size=2, stop="all_exhausted")
        seen.append([number(item) for item in torch.utils.data.DataLoader(mix, batch_size=None, num_workers=2)])
    assert set(seen[0]) | set(seen[1]) == {*range(1000, 1100), *range(2000, 2100)}
    assert not set(seen[0]) & set(seen[1])


def test_streams_can_be_mixed_in_and_a_worker_without_a_shard_goes_on():
    stream = IterableWindowDataset(rows(2, 30, 6).to_iterable_dataset(num_shards=1))
    mix = MixedDataset([WindowDataset(rows(1, 40, 4)), stream], stop="all_exhausted")
    seen = {number(item) for item in torch.utils.data.DataLoader(mix, batch_size=None, num_workers=2)}
    assert seen == {*range(1000, 1040), *range(2000, 2030)}


def test_batches_collate():
    mix = MixedDataset([WindowDataset(rows(1, 40, 4)), WindowDataset(rows(2, 40, 8))], num_channels=8)
    batch = next(iter(torch.utils.data.DataLoader(mix, batch_size=5)))
    assert batch["input_values"].shape == (5, 8, 20) and batch["channel_mask"].shape == (5, 8)


@pytest.mark.parametrize("probabilities", [[1.0], [0.5, 0.0], [0.5, -1.0], [0.5, float("nan")]])
def test_impossible_probabilities(probabilities):
    sources = [WindowDataset(rows(1, 4, 4)), WindowDataset(rows(2, 4, 4))]
    with pytest.raises(ConfigError, match="probabilities"):
        MixedDataset(sources, probabilities)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="stop='never'"):
        MixedDataset([WindowDataset(rows(1, 4, 4))], stop="never")
    with pytest.raises(ConfigError, match="0 sources"):
        MixedDataset([])
    with pytest.raises(DataError, match="source 0: a window of 20 channels"):
        list(MixedDataset([WindowDataset(rows(1, 4, 20))]))
    with pytest.raises(DataError, match="prepare it with the window length of the others"):
        list(MixedDataset([WindowDataset(rows(1, 4, 4)), WindowDataset(rows(1, 4, 4, 40))]))
