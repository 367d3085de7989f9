"""Windows cut from stored recordings, compared with the arrays the recordings were made from."""

import dataclasses

import datasets
import numpy as np
import pytest
import torch

from dataset_builders.base import ConfigError, DataError, EmgBuilder, EmgBuilderConfig, Events, Recording, Signal
from dataset_builders.chunks import quantize
from dataset_builders.continuous_view import (
    ContinuousDataset,
    Cutting,
    IterableContinuousDataset,
    collate_continuous,
)

LENGTHS = {"a": 1000, "b": 430, "c": 90, "d": 777}
HOP = 5


def raw(name: str) -> np.ndarray:
    """Integers times 1e-5, (2, time)."""
    rng = np.random.default_rng(ord(name))
    return rng.integers(-900, 900, (2, LENGTHS[name])).astype(np.float32) * np.float32(1e-5)


def events_of(name: str) -> list[tuple[str, float, float]]:
    rng = np.random.default_rng(1000 + ord(name))
    starts = np.sort(rng.uniform(0, LENGTHS[name] - 1, LENGTHS[name] // 20)).round(1)
    starts[:2] = np.round(starts[:2])  # some lie exactly on a sample
    return [("xyz"[i % 3], float(start), float(start) + 3.5) for i, start in enumerate(np.sort(starts))]


def frames_of(name: str) -> np.ndarray:
    return np.arange(LENGTHS[name] // HOP * 3, dtype=np.float32).reshape(-1, 3)


class Toy(EmgBuilder):
    """Four recordings of two channels, with events, targets and phones."""

    def task(self):
        return "events"

    def num_channels(self):
        return 2

    def target_names(self):
        return "u", "v", "w"

    def phone_names(self):
        return "p", "q"

    def metadata_features(self):
        return {"side": datasets.Value("string")}

    def list_recordings(self, root):
        return [Recording("", name, f"s{name}", "1", "train") for name in LENGTHS]

    def read_recording(self, recording):
        name = recording.name
        names, starts, ends = zip(*events_of(name), strict=True)
        return Signal(
            raw(name),
            100,
            targets=frames_of(name),
            events=Events(names, np.array(starts), np.array(ends)),
            phones=np.arange(LENGTHS[name] // HOP) % 2,
            metadata={"side": "left" if name in "ab" else "right"},
            step=1e-5,
        )


def toy(tmp_path, **options):
    """The toy corpus, stored."""
    config = {
        "rows": "recordings",
        "chunk_length": 100,
        "band_pass": None,
        "notch_frequencies": (),
        "normalization": "none",
        "sampling_rate": 100,
        "target_hop": HOP,
    } | options
    return Toy(cache_dir=str(tmp_path), **config)


@pytest.fixture
def stored(tmp_path):
    builder = toy(tmp_path)
    builder.download_and_prepare()
    return builder.as_dataset(split="train")


@pytest.mark.parametrize("chunk_length", [35, 100, 5000, None])
@pytest.mark.parametrize("sample_type", ["float32", "int16"])
def test_whole_recordings_come_back(tmp_path, chunk_length, sample_type):
    builder = toy(tmp_path, chunk_length=chunk_length, sample_type=sample_type)
    builder.download_and_prepare()
    data = builder.as_dataset(split="train")
    assert len(data) == sum(-(-length // (chunk_length or 5000)) for length in LENGTHS.values())
    streamed = builder.as_streaming_dataset(split="train")
    for view in (
        ContinuousDataset(data, Cutting(), ["side"]),
        IterableContinuousDataset(streamed, Cutting(), ["side"]),
    ):
        items = list(view)
        assert [item["recording"] for item in items] == list(LENGTHS)
        for item in items:
            name = item["recording"]
            np.testing.assert_array_equal(item["input_values"], raw(name))
            np.testing.assert_array_equal(item["targets"], frames_of(name))
            np.testing.assert_array_equal(item["phones"], np.arange(LENGTHS[name] // HOP) % 2)
            events = zip(item["event_names"], item["event_starts"], item["event_ends"], strict=True)
            assert [(a, float(b), float(c)) for a, b, c in events] == events_of(name)
            assert item["side"] == ("left" if name in "ab" else "right")


def test_a_last_row_too_short_for_a_frame(tmp_path):
    builder = toy(tmp_path, chunk_length=775)  # of d, 2 samples are left for the last row
    builder.download_and_prepare()
    item = ContinuousDataset(builder.as_dataset(split="train"), Cutting())[3]
    np.testing.assert_array_equal(item["targets"], frames_of("d"))
    np.testing.assert_array_equal(item["phones"], np.arange(777 // HOP) % 2)


def test_events_after_the_last_sample_belong_to_the_last_window(tmp_path, monkeypatch):
    events = Events(("x",) * 3, np.array([429.0, 429.5, 429.75]), np.full(3, 430.0))
    whole = Toy.read_recording
    monkeypatch.setattr(Toy, "list_recordings", lambda self, root: [Recording("", "b", "sb", "1", "train")])
    monkeypatch.setattr(Toy, "read_recording", lambda self, r: dataclasses.replace(whole(self, r), events=events))
    builder = toy(tmp_path)
    builder.download_and_prepare()
    data = builder.as_dataset(split="train")
    assert ContinuousDataset(data, Cutting())[0]["event_starts"].tolist() == [429.0, 429.5, 429.75]
    assert ContinuousDataset(data, Cutting(30, 400), target_hop=HOP)[1]["event_starts"].tolist() == [29.0, 29.5, 29.75]
    unsorted = Events(events.names, events.starts[::-1], events.ends)
    monkeypatch.setattr(Toy, "read_recording", lambda self, r: dataclasses.replace(whole(self, r), events=unsorted))
    with pytest.raises(DataError, match="b: the events are not in the order of their starts"):
        builder.recording_table(builder.recordings[0])


def test_ids_of_events_of_a_closed_set(tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "class_names", lambda self: ("z", "y", "x"))
    builder = toy(tmp_path)
    builder.download_and_prepare()
    item = ContinuousDataset(builder.as_dataset(split="train"), Cutting())[0]
    assert item["event_names"] == [name for name, _, _ in events_of("a")]
    assert item["event_ids"].tolist() == ["zyx".index(name) for name in item["event_names"]]


def expected_windows(length: int, stride: int, context: tuple[int, int]) -> list[tuple]:
    """(recording, first, samples with context, event names) of every window, from the definition."""
    windows = []
    for name, total in LENGTHS.items():
        first = 0
        while first == 0 or first + length <= total:
            last = min(first + length, total)
            samples = raw(name)[:, max(0, first - context[0]) : last + context[1]]
            names = [event for event, start, _ in events_of(name) if first <= start <= last - 1]
            windows.append((name, first, samples, names))
            first += stride
    return windows


@pytest.mark.parametrize(
    ("length", "stride", "context"), [(200, 200, (0, 0)), (150, 60, (45, 20)), (35, 5, (300, 300))]
)
def test_windows_with_context(stored, tmp_path, length, stride, context):
    cutting = Cutting(length, stride, context)
    expected = expected_windows(length, stride, context)
    view = ContinuousDataset(stored, cutting, target_hop=HOP)
    assert len(view) == len(expected)
    streamed = IterableContinuousDataset(toy(tmp_path).as_streaming_dataset(split="train"), cutting, target_hop=HOP)
    for items in (view, streamed):
        for item, (name, first, samples, names) in zip(items, expected, strict=True):
            assert (item["recording"], item["start"]) == (name, first)
            np.testing.assert_array_equal(item["input_values"], samples)
            assert item["event_names"] == names
            before, after = item["context"]
            inside = samples[:, before : samples.shape[1] - after]
            np.testing.assert_array_equal(inside, raw(name)[:, first : first + length])
            frames = frames_of(name)[first // HOP : (first + inside.shape[1]) // HOP]
            np.testing.assert_array_equal(item["targets"], frames)


def test_events_between_samples_belong_to_one_window_at_most(stored):
    """An event between the last sample of a window and the first of the next is in neither, as in the reference."""
    items = list(ContinuousDataset(stored, Cutting(100, 100), target_hop=HOP))
    for name, length in LENGTHS.items():
        found = sum(len(item["event_names"]) for item in items if item["recording"] == name)
        covered = max(length // 100 * 100, min(length, 100))
        inside = [s for _, s, _ in events_of(name) if s <= covered - 1 and not (s % 100 > 99)]
        assert found == len(inside)


def test_jitter_moves_windows_differently_in_every_epoch(stored):
    cutting = Cutting(100, 50, jitter=True)
    view = ContinuousDataset(stored, cutting, target_hop=HOP)
    plain = ContinuousDataset(stored, Cutting(100, 50), target_hop=HOP)
    first = [item["start"] for item in view]
    assert first == [item["start"] for item in view]  # the same epoch again
    moved = np.array(first) - [item["start"] for item in plain]
    assert len(view) == len(plain) and moved.min() >= 0 and moved.max() < 50 and len(set(moved)) > 10
    for item in view:
        start = item["start"]
        np.testing.assert_array_equal(item["input_values"], raw(item["recording"])[:, start : start + 100])
        assert len(item["targets"]) == min(100, LENGTHS[item["recording"]]) // HOP
    view.set_epoch(1)
    assert [item["start"] for item in view] != first


def starts_of(view, **options) -> list[tuple[str, int]]:
    loader = torch.utils.data.DataLoader(view, batch_size=None, **options)
    return sorted((item["recording"], item["start"]) for item in loader)


def test_offsets_depend_on_the_window_not_on_who_cuts_it(stored, tmp_path):
    cutting, stream = Cutting(100, 50, (10, 10), jitter=True), toy(tmp_path).as_streaming_dataset(split="train")
    view = ContinuousDataset(stored, cutting, target_hop=HOP)
    streamed = IterableContinuousDataset(stream, cutting, target_hop=HOP)
    some = ContinuousDataset(stored.filter(lambda row: row["subject"] != "sa"), cutting, target_hop=HOP)
    for epoch in (0, 1):
        for dataset in (view, streamed, some):
            dataset.set_epoch(epoch)
        expected = starts_of(view)
        assert starts_of(streamed) == starts_of(streamed, num_workers=2) == expected
        assert starts_of(some) == [place for place in expected if place[0] != "a"]


def test_the_epoch_reaches_workers_that_persist(stored, tmp_path):
    cutting, stream = Cutting(100, 50, jitter=True), toy(tmp_path).as_streaming_dataset(split="train")
    for view in (
        ContinuousDataset(stored, cutting, target_hop=HOP),
        IterableContinuousDataset(stream, cutting, target_hop=HOP),
    ):
        loader = torch.utils.data.DataLoader(view, batch_size=None, num_workers=2, persistent_workers=True)
        seen = []
        for epoch in (0, 3):
            view.set_epoch(epoch)
            seen.append(sorted((item["recording"], item["start"]) for item in loader))
            assert seen[-1] == starts_of(view)
        assert seen[0] != seen[1]


def test_windows_are_normalised_when_they_are_cut(tmp_path):
    builder = toy(tmp_path, normalization="minmax", normalization_scope="window")
    builder.download_and_prepare()
    view = ContinuousDataset(
        builder.as_dataset(split="train"), Cutting(200, 100), target_hop=HOP, extractor=builder.extractor
    )
    for item in view:
        window = raw(item["recording"])[:, item["start"] : item["start"] + 200]
        low, high = window.min(1, keepdims=True), window.max(1, keepdims=True)
        np.testing.assert_allclose(item["input_values"], 2 * (window - low) / (high - low) - 1, atol=1e-4)


def test_select_shuffle_and_workers(stored):
    whole = stored.filter(lambda row: row["subject"] != "sb")
    view = ContinuousDataset(whole, Cutting(100), target_hop=HOP)
    assert {item["recording"] for item in view} == {"a", "c", "d"}
    loader = torch.utils.data.DataLoader(view, batch_size=4, num_workers=2, collate_fn=collate_continuous)
    batches = list(loader)
    assert sum(len(batch["input_values"]) for batch in batches) == len(view)
    with pytest.raises(DataError, match="not all there or not in order"):
        ContinuousDataset(stored.shuffle(seed=0), Cutting(100))
    torn = stored.filter(lambda row: row["start"] != 300)
    with pytest.raises(DataError, match="rows are missing"):
        list(ContinuousDataset(torn, Cutting(100, 20), target_hop=HOP))
    glued = stored.filter(lambda row: row["start"] < 200 if row["recording"] == "a" else row["start"] >= 200)
    with pytest.raises(DataError, match="rows are missing"):  # a to sample 200, b from there on
        _ = ContinuousDataset(glued.filter(lambda row: row["recording"] in "ab"), Cutting(300), target_hop=HOP)[0]


def test_streaming_workers_share_recordings(tmp_path):
    stream = toy(tmp_path).as_streaming_dataset(split="train")
    view = IterableContinuousDataset(stream, Cutting(100, 100), target_hop=HOP)
    loader = torch.utils.data.DataLoader(view, batch_size=None, num_workers=2)
    seen = sorted((item["recording"], item["start"]) for item in loader)
    assert seen == sorted((name, first) for name, first, _, _ in expected_windows(100, 100, (0, 0)))
    halves = [IterableContinuousDataset(stream, Cutting(), rank=rank, world_size=2) for rank in (0, 1)]
    names = [{item["recording"] for item in half} for half in halves]
    assert names[0] | names[1] == set(LENGTHS) and not names[0] & names[1]


def test_processes_get_whole_recordings_however_many_they_are(tmp_path):
    stream = toy(tmp_path).as_streaming_dataset(split="train")
    for nodes in (2, 3, 4):
        parts = [IterableContinuousDataset(stream, Cutting(), rank=rank, world_size=nodes) for rank in range(nodes)]
        for workers in (0, 2):
            found = [[name for name, _ in starts_of(part, num_workers=workers)] for part in parts]
            assert all(found) and sorted(sum(found, [])) == list(LENGTHS)
    with pytest.raises(ConfigError, match="4 shards cannot be divided among 5 processes"):
        IterableContinuousDataset(stream, Cutting(), rank=0, world_size=5)


def test_of_a_stream_only_shards_may_be_shuffled(tmp_path, stored):
    stream = toy(tmp_path).as_streaming_dataset(split="train")
    view = IterableContinuousDataset(stream.shuffle(3, buffer_size=1, max_buffer_input_shards=1), Cutting())
    orders = set()
    for epoch in range(4):
        view.set_epoch(epoch)
        orders.add(tuple(item["recording"] for item in view))
    assert len(orders) > 1 and {tuple(sorted(order)) for order in orders} == {tuple(LENGTHS)}
    with pytest.raises(DataError, match="out of order; .* buffer_size=1"):
        list(IterableContinuousDataset(stream.shuffle(3), Cutting()))
    torn = stored.filter(lambda row: (row["recording"], row["start"]) != ("a", 900)).to_iterable_dataset()
    with pytest.raises(DataError, match="a: rows are missing"):
        list(IterableContinuousDataset(torn, Cutting(100, 300), target_hop=HOP))


def test_batches_are_padded(stored):
    view = ContinuousDataset(
        stored, Cutting(), ["side"], lambda item: item | {"labels": torch.arange(len(item["side"]))}
    )
    batch = collate_continuous([view[0], view[2]])
    assert batch["input_values"].shape == (2, 2, 1000) and batch["attention_mask"].sum(1).tolist() == [1000, 90]
    assert not batch["input_values"][1, :, 90:].any()
    assert batch["labels"].tolist() == [[0, 1, 2, 3, -100], [0, 1, 2, 3, 4]]
    assert batch["targets"].shape == (2, 200, 3) and batch["phones"][1, 18:].unique().tolist() == [-100]
    assert batch["side"] == ["left", "right"] and batch["start"].tolist() == [0, 0]


def test_int16_refuses_what_it_would_change(tmp_path):
    builder = toy(tmp_path, sample_type="int16", normalization="zscore")
    with pytest.raises(DataError, match=r"a: channel 0, sample 0: .* not a multiple of 1e-05"):
        builder.recording_table(builder.recordings[0])


@pytest.mark.parametrize(
    "options",
    [
        {"rows": "windows"},
        {"rows": "lines"},
        {"chunk_length": 0},
        {"chunk_length": 101},
        {"rows": "windows", "sample_type": "int16"},
        {"channels": (0, 2)},
        {"channels": (1, 1)},
    ],
)
def test_impossible_options(tmp_path, options):
    with pytest.raises(ConfigError):
        toy(tmp_path, **options)


def test_wrong_views_are_refused(stored, tmp_path):
    windows = datasets.Dataset.from_dict({"input_values": [[[0.0, 1.0]]]})
    with pytest.raises(ConfigError, match="rows of this dataset are windows|WindowDataset"):
        ContinuousDataset(windows, Cutting(10))
    with pytest.raises(ConfigError, match="multiples of target_hop=5"):
        ContinuousDataset(stored, Cutting(101), target_hop=5)
    with pytest.raises(ConfigError, match="must be positive"):
        Cutting(0)


@pytest.mark.parametrize("column", ["sides", "recording_length"])
def test_unknown_columns_are_named(stored, column):
    with pytest.raises(ConfigError, match=f"no further column {column}; the dataset has subject, session, side"):
        ContinuousDataset(stored, Cutting(), [column])


def test_the_whole_range_of_int16_is_stored():
    samples = np.float32([[-32768, 0, 32767]]) * np.float32(1e-6)
    whole, scale = quantize(samples, 1e-6, "x")
    assert whole.tolist() == [[-32768, 0, 32767]]
    np.testing.assert_array_equal(whole * scale, samples)
    for outside in (32768, -32769, 0.5, np.nan):
        with pytest.raises(DataError, match="x: channel 0, sample 1"):
            quantize(np.float32([[0, outside]]), 1, "x")


def test_channels_are_selected_before_they_are_processed(tmp_path):
    builder = toy(tmp_path, channels=(1,))
    table = builder.recording_table(builder.recordings[2])
    np.testing.assert_array_equal(np.array(table["input_values"][0].as_py()), raw("c")[1:])
    assert builder.extractor.feature_size == 1


def test_subjects_are_kept_or_named(tmp_path):
    assert [r.name for r in toy(tmp_path, subjects=["sb", "sd"]).recordings] == ["b", "d"]
    with pytest.raises(ConfigError, match="no recording of subject 7; there are sa, sb, sc, sd"):
        _ = toy(tmp_path, subjects=7).recordings


def test_fields_left_to_the_protocol():
    class Config(EmgBuilderConfig):
        PROTOCOL_FIELDS = {"paper": {"band_pass": None}, "reference": {"band_pass": (20.0, 90.0)}}

    assert Config(band_pass="protocol").band_pass is None
    assert Config(band_pass="protocol", protocol="reference").band_pass == (20.0, 90.0)
    assert Config(band_pass=(5.0, 50.0)).band_pass == (5.0, 50.0)
