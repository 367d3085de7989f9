"""The mix of corpora: which window, and which mask, is at which position of which epoch."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dataset_builders import load_corpus
from dataset_builders.torch_view import collate_windows
from trainers.corpora import Corpus, evenly_spaced
from trainers.errors import RecipeError
from trainers.pretrain_arguments import CorpusArguments
from trainers.window_mix import WindowMix, apportion

SIZES, CHANNELS, TIME, PATCH = (30, 12), (4, 2), 40, 10


class Numbered(Dataset):
    """Windows whose every sample is their own number."""

    def __init__(self, size, channels):
        self.size, self.channels = size, channels

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"input_values": torch.full((self.channels, TIME), float(index))}


def make_mix(**options):
    sources = [Numbered(size, channels) for size, channels in zip(SIZES, CHANNELS, strict=True)]
    return WindowMix(sources, CHANNELS, TIME, PATCH, **options)


def drawn(mix):
    """(source, number) of every window of the epoch, read from the items themselves."""
    items = mix.__getitems__(range(len(mix)))
    return [(item["source"], int(item["input_values"][0, 0])) for item in items]


def test_an_epoch_has_every_window_once_in_another_order_each_time():
    mix = make_mix()
    orders = []
    for epoch in range(3):
        mix.set_epoch(epoch)
        orders.append(drawn(mix))
    everything = [(source, number) for source, size in enumerate(SIZES) for number in range(size)]
    assert all(sorted(order) == everything for order in orders)
    assert len(set(map(tuple, [*orders, everything]))) == 4
    assert drawn(make_mix(seed=1)) != orders[0] == drawn(make_mix())


def test_shares_are_kept_and_no_window_returns_before_all_were_drawn():
    mix = make_mix(weights=[1, 3], windows_per_epoch=20)
    counts = [Counter(), Counter()]
    for epoch in range(6):
        mix.set_epoch(epoch)
        windows = drawn(mix)
        assert Counter(source for source, _ in windows) == {0: 5, 1: 15}
        for source, number in windows:
            counts[source][number] += 1
    # 6 epochs draw 30 of the 30 windows of the first source, and 90 of the 12 of the second.
    assert set(counts[0].values()) == {1} and len(counts[0]) == 30
    assert set(counts[1].values()) == {7, 8} and len(counts[1]) == 12


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [(10, [1, 1, 1], [4, 3, 3]), (7, [0.3, 0.7], [2, 5]), (42, [30, 12], [30, 12]), (3, [0.01, 0.99], [0, 3])],
)
def test_apportion(total, weights, expected):
    assert apportion(total, weights) == expected


@pytest.mark.parametrize("ratio", [0.5, 0.3, 0.84])
def test_exactly_so_many_real_tokens_are_masked_and_never_padding(ratio):
    mix = make_mix(mask_ratio=ratio, num_channels=5)
    masks = set()
    for item in mix.__getitems__(range(len(mix))):
        channels = CHANNELS[item["source"]]
        mask = item["bool_masked_pos"].view(5, TIME // PATCH)
        assert mask.sum() == int(channels * (TIME // PATCH) * ratio + 1e-9)
        assert not mask[channels:].any()
        assert item["channel_mask"].tolist() == [True] * channels + [False] * (5 - channels)
        assert not item["input_values"][channels:].any()
        masks.add(tuple(mask.flatten().tolist()))
    assert len(masks) > 20


def test_masks_are_new_in_every_epoch_and_cover_all_tokens():
    mix = make_mix()
    masks = []
    for epoch in range(40):
        mix.set_epoch(epoch)
        masks.append(mix[0]["bool_masked_pos"])
    share = torch.stack(masks).float().mean(dim=0)
    assert len({tuple(mask.tolist()) for mask in masks}) > 30
    assert (share[:8] > 0.2).all() and (share[:8] < 0.8).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_position_has_the_same_item_however_it_is_fetched(workers):
    mix = make_mix()
    mix.set_epoch(3)
    expected = [mix[position] for position in range(len(mix))]
    loader = DataLoader(
        make_mix(), batch_size=5, num_workers=workers, collate_fn=collate_windows, persistent_workers=workers > 0
    )
    for epoch in (1, 3):  # workers that live on learn of the new epoch
        loader.dataset.set_epoch(epoch)
        batches = list(loader)
    for name, values in expected[0].items():
        found = torch.cat([batch[name] for batch in batches])
        assert torch.equal(found, torch.stack([torch.as_tensor(item[name]) for item in expected])), (name, values)


def test_an_epoch_is_cut_to_whole_batches():
    assert len(make_mix(batch_size=8)) == 40
    with pytest.raises(RecipeError, match="42 windows, fewer than a batch of 64"):
        make_mix(batch_size=64)
    with pytest.raises(RecipeError, match="none of corpus 1"):
        make_mix(weights=[1, 1e-3])


def test_validation_is_the_same_in_every_epoch():
    mix = make_mix(shuffle=False)
    first = mix.__getitems__(range(len(mix)))
    mix.set_epoch(5)
    assert drawn(mix) == [(source, number) for source, size in enumerate(SIZES) for number in range(size)]
    again = mix.__getitems__(range(len(mix)))
    assert all(torch.equal(a["bool_masked_pos"], b["bool_masked_pos"]) for a, b in zip(first, again, strict=True))


def test_no_channel_mask_where_nothing_is_padded():
    mix = WindowMix([Numbered(4, 3), Numbered(4, 3)], [3, 3], TIME, PATCH)
    assert "channel_mask" not in mix[0]


def test_windows_cut_from_recordings_move_with_the_epoch(tmp_path):
    # A ramp tells where a window begins; the shorter recording has no whole window and is left out.
    for name, samples in (("long", 400), ("short", 30)):
        np.save(tmp_path / f"{name}.npy", np.stack([np.arange(samples), -np.arange(samples)], 1).astype(np.float32))
    (tmp_path / "metadata.csv").write_text(
        "file_name,subject,split,sampling_rate\nlong.npy,a,train,200\nshort.npy,b,train,200\n"
    )
    data, extractor = load_corpus(
        "emg_folder",
        data_dir=tmp_path,
        cache_dir=tmp_path / "cache",
        task="unlabelled",
        rows="recordings",
        window_length=TIME,
        stride=TIME,
        band_pass=None,
        notch_frequencies=(),
        normalization="none",
    )
    corpus = Corpus("ramps", CorpusArguments("emg_folder", jitter=True), data, extractor)
    assert corpus.channels == 2 and corpus.facts["windows"] == {"train": 10}
    mix = WindowMix([corpus.view("train")], [2], TIME, PATCH)
    starts = []
    for epoch in range(3):
        mix.set_epoch(epoch)
        windows = torch.stack([item["input_values"] for item in mix.__getitems__(range(len(mix)))])
        assert torch.equal(windows[:, 0], windows[:, 0, :1] + torch.arange(TIME))
        starts.append(sorted(windows[:, 0, 0].tolist()))
    # One window begins in each stretch of 40 samples, somewhere else in each epoch.
    assert all([int(start // TIME) for start in epoch] == list(range(10)) for epoch in starts)
    assert starts[0] != starts[1] != starts[2]
    assert mix.recording(0, 3) == "long.npy"


def test_evenly_spaced():
    view = Numbered(10, 1)
    assert [int(item["input_values"][0, 0]) for item in (lambda v: [v[i] for i in range(len(v))])(
        evenly_spaced(view, 4))] == [0, 3, 6, 9]  # fmt: skip
    assert evenly_spaced(view, 10) is view
