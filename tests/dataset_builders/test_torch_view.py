"""Tensor views: right items, safe to write to, every window once across nodes and workers."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataset_builders.base import ConfigError, load_corpus, make_builder
from dataset_builders.torch_view import IterableWindowDataset, WindowDataset, collate_windows, window_shape

TINY = {"num_subjects": 5, "num_sessions": 2, "num_repetitions": 1, "hold": 1.5, "window_length": 100, "stride": 50}

ARRANGEMENTS = [
    lambda d: d,
    lambda d: d.shuffle(seed=1),
    lambda d: d.select([5, 2, 90]),
    lambda d: d.select(range(7, 99)),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_corpus("synthetic", cache_dir=tmp_path_factory.mktemp("cache"), **TINY)[0]["train"]


def identity(rows) -> list[tuple]:
    return sorted(zip(rows["recording"], map(int, rows["start"]), strict=True))


def test_items(data):
    view = WindowDataset(data)
    item = view[3]
    assert item["input_values"].shape == (8, 100) and item["input_values"].dtype == torch.float32
    assert item["labels"] == data[3]["label"]
    np.testing.assert_array_equal(item["input_values"].numpy(), np.float32(data[3]["input_values"]))
    assert len(view) == len(data)


@pytest.mark.parametrize("arrange", ARRANGEMENTS)
def test_batches(data, arrange):
    part = arrange(data)
    view = WindowDataset(part, columns=("label", "subject", "start"))
    batch = next(iter(DataLoader(view, batch_size=3, collate_fn=collate_windows)))
    np.testing.assert_array_equal(batch["input_values"].numpy(), np.float32(part[:3]["input_values"]))
    assert batch["labels"].tolist() == part[:3]["label"] and batch["subject"] == part[:3]["subject"]
    assert batch["start"].dtype == torch.int64


def test_without_labels(data):
    assert set(WindowDataset(data, columns=())[0]) == {"input_values"}


def test_transform_sees_whole_batches(data):
    shapes = []

    def double(windows):
        shapes.append(tuple(windows.shape))
        return windows * 2

    items = WindowDataset(data, transform=double).__getitems__([0, 1, 2])
    np.testing.assert_allclose(items[1]["input_values"].numpy(), 2 * np.float32(data[1]["input_values"]))
    assert shapes == [(3, 8, 100)]


def test_writing_to_an_item_leaves_the_data_alone(data):
    view = WindowDataset(data, transform=lambda windows: windows.mul_(0))
    assert view[0]["input_values"].abs().sum() == 0 and view.__getitems__([0, 1])[1]["input_values"].abs().sum() == 0
    view = WindowDataset(data)
    view[0]["input_values"].zero_()
    assert view[0]["input_values"].abs().sum() > 0
    stream = IterableWindowDataset(data.to_iterable_dataset(), transform=lambda windows: windows.mul_(0))
    assert next(iter(stream))["input_values"].abs().sum() == 0 and view[0]["input_values"].abs().sum() > 0


def test_arrays(data):
    windows, labels = WindowDataset(data.shuffle(seed=3)).arrays()
    order = data.shuffle(seed=3)
    assert windows.shape == (len(data), 8, 100) and labels.dtype == np.int64
    np.testing.assert_array_equal(windows[-1], np.float32(order[-1]["input_values"]))
    assert labels.tolist() == order["label"][:]


def test_pickled_views_carry_no_windows(data):
    view = WindowDataset(data.shuffle(seed=0))
    expected = view[7]["input_values"]
    packed = pickle.dumps(view)
    assert len(packed) < 100_000
    assert torch.equal(pickle.loads(packed)[7]["input_values"], expected)


def test_positions_as_in_lists(data):
    view = WindowDataset(data)
    assert torch.equal(view[-1]["input_values"], view[len(view) - 1]["input_values"])
    with pytest.raises(IndexError):
        view[len(view)]


def test_unknown_columns_are_named(data):
    for make in (WindowDataset, lambda d, **columns: IterableWindowDataset(d.to_iterable_dataset(), **columns)):
        with pytest.raises(ConfigError, match="no column lable; the dataset has input_values, label, subject"):
            make(data, columns=("lable",))
    with pytest.raises(ConfigError, match="no column targets"):
        WindowDataset(data.remove_columns("label")).arrays()


def test_other_datasets_are_refused():
    speech = make_builder("synthetic", preset="speech").as_streaming_dataset("train")
    with pytest.raises(TypeError, match="rows of this dataset are recordings, not windows: use ContinuousDataset"):
        IterableWindowDataset(speech)
    flat = datasets.Dataset.from_dict({"input_values": [[1.0, 2.0]], "label": [0]})
    with pytest.raises(TypeError, match="fixed-size lists"):
        WindowDataset(flat)
    assert window_shape(make_builder("synthetic").info.features) == (8, 200)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2, 7])
def test_streaming_covers_every_window_once(data, workers):
    stream = make_builder("synthetic", **TINY).as_streaming_dataset("train")
    view = IterableWindowDataset(stream, columns=("label", "recording", "start"), read_size=16)
    rows = {"recording": [], "start": []}
    for batch in DataLoader(view, batch_size=32, num_workers=workers, collate_fn=collate_windows):
        rows["recording"] += batch["recording"]
        rows["start"] += batch["start"].tolist()
    assert identity(rows) == identity(data)


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_streaming_divides_among_nodes(data, nodes):
    stream = make_builder("synthetic", **TINY).as_streaming_dataset("train")
    rows = {"recording": [], "start": []}
    for rank in range(nodes):
        part = list(IterableWindowDataset(stream, columns=("recording", "start"), rank=rank, world_size=nodes))
        assert part
        rows["recording"] += [item["recording"] for item in part]
        rows["start"] += [item["start"] for item in part]
    assert identity(rows) == identity(data)


def test_streamed_items_equal_those_of_the_map_style_view(data):
    stream = make_builder("synthetic", **TINY).as_streaming_dataset("train")
    for left, right, _ in zip(IterableWindowDataset(stream), WindowDataset(data), range(40), strict=False):
        assert torch.equal(left["input_values"], right["input_values"]) and left["labels"] == right["labels"]


def test_epochs_shuffle_streams_anew():
    stream = make_builder("synthetic", **TINY).as_streaming_dataset("train").shuffle(seed=0, buffer_size=50)
    view = IterableWindowDataset(stream, columns=("start",))
    first = [item["start"] for item in view]
    view.set_epoch(1)
    second = [item["start"] for item in view]
    assert first != second and sorted(first) == sorted(second)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_epoch_reaches_workers_that_persist(workers):
    stream = make_builder("synthetic", **TINY).as_streaming_dataset("train").shuffle(seed=0, buffer_size=50)
    view = IterableWindowDataset(stream, columns=("recording", "start"))
    loader = DataLoader(view, batch_size=None, num_workers=workers, persistent_workers=True)
    first = [(item["recording"], item["start"]) for item in loader]
    view.set_epoch(1)
    second = [(item["recording"], item["start"]) for item in loader]
    assert first != second and sorted(first) == sorted(second)
