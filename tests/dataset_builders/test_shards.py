"""Parts and shards: resumed by recording, bounded row groups, notes carried along."""

import os
import signal
import time
from glob import glob

import pyarrow.parquet as pq
import pytest
from test_hub import FORK, contents

from dataset_builders.base import PreparationError, load_corpus, make_builder
from dataset_builders.hub import prepare
from dataset_builders.shards import plan_shards, shard_notes

MANY = {"num_subjects": 40, "num_sessions": 2, "num_repetitions": 1, "hold": 1.1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """80 recordings in 32 + 16 + 16 shards: those of the train split hold one or two each."""
    return prepare("synthetic", None, tmp_path_factory.mktemp("whole") / "out", **MANY)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_within_a_shard_and_resumed_by_recording(prepared, tmp_path, num_proc):
    output, partial = tmp_path / "out", tmp_path / "out.incomplete"
    process = FORK.Process(target=prepare, args=("synthetic", None, output, num_proc), kwargs=MANY)
    process.start()
    # by `glob`, which bears with folders that are removed meanwhile
    while len(glob(f"{partial}/data/*.parquet")) < 5 or not glob(f"{partial}/parts/*/*.arrow"):
        assert process.is_alive()
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    time.sleep(0.3)  # workers notice that their parent is gone
    prepare("synthetic", None, output, num_proc, **MANY)
    assert contents(output) == contents(prepared)
    assert not (output / "parts").exists()


def test_parts_are_not_converted_again(prepared, tmp_path, monkeypatch):
    output, partial = tmp_path / "out", tmp_path / "out.incomplete"
    builder = make_builder("synthetic", **MANY)
    original, converted = type(builder).recording_table, []

    def failing(self, recording):
        if len(converted) == 5:
            raise PreparationError("stop")
        converted.append(recording.name)
        return original(self, recording)

    monkeypatch.setattr(type(builder), "recording_table", failing)
    with pytest.raises(PreparationError, match="stop"):
        prepare("synthetic", None, output, **MANY)
    assert list(partial.glob("parts/*/*.arrow"))  # in the middle of a shard
    before = list(converted)
    converted.append("the sixth")  # lets the next run go on
    prepare("synthetic", None, output, **MANY)
    assert contents(output) == contents(prepared)
    again = converted[len(before) + 1 :]
    assert not set(before) & set(again) and len(before) + len(again) == 80


def test_parts_of_another_plan_are_not_used(prepared, tmp_path, monkeypatch):
    """As a newer version may list the recordings in another order, or divide them otherwise."""
    output = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("dataset_builders.shards.SHARDS_PER_SPLIT", 3)
        patched.setattr("dataset_builders.hub.write_card", lambda *_: os._exit(1))
        process = FORK.Process(target=prepare, args=("synthetic", None, output), kwargs=MANY)
        process.start()
        process.join()
    assert list((tmp_path / "out.incomplete" / "data").glob("*-of-00003.parquet"))
    assert contents(prepare("synthetic", None, output, **MANY)) == contents(prepared)


def test_recordings_without_a_window_leave_a_folder_that_can_be_read(uci_dir, tmp_path):
    path = next(uci_dir.glob("01/1_*.txt"))
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(line[: line.rindex("\t")] + "\t0" for line in lines)]) + "\n")
    folder = prepare("uci_emg", uci_dir, tmp_path / "out", window_length=100)
    for options in ({}, {"streaming": True}):
        data, _ = load_corpus(folder, cache_dir=tmp_path / "cache", **options)
        assert {row["session"] for row in data["train"]} == {"2"}
    assert "- recordings without a labelled sample: 1\n" in (folder / "README.md").read_text()


def test_large_corpora_get_more_shards(uci_dir, monkeypatch):
    monkeypatch.setattr("dataset_builders.shards.SHARDS_PER_SPLIT", 1)
    builder = make_builder("uci_emg", uci_dir)
    assert [len(shard.recordings) for shard in plan_shards(builder)] == [2, 2, 2]
    size = max(os.path.getsize(recording.path) for recording in builder.recordings)
    monkeypatch.setattr("dataset_builders.shards.SHARD_BYTES", size)
    assert [len(shard.recordings) for shard in plan_shards(builder)] == [1] * 6


def test_notes_are_summed_over_recordings(uci_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_builders.shards.SHARDS_PER_SPLIT", 1)
    folder = prepare("uci_emg", uci_dir, tmp_path / "out", window_length=260, stride=260)
    assert {file.name.split("-")[0]: dict(shard_notes(file)) for file in (folder / "data").iterdir()} == {
        split: {"segments shorter than a window": 12} for split in ("train", "validation", "test")
    }


def test_row_groups_are_small_and_gather_short_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_builders.shards.SHARDS_PER_SPLIT", 1)
    monkeypatch.setattr("dataset_builders.shards.ROW_GROUP_BYTES", 60 * 8 * 200 * 4)
    folder = prepare("synthetic", None, tmp_path / "out", **MANY)
    metadata = pq.read_metadata(folder / "data" / "train-00000-of-00001.parquet")
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert max(rows) <= 60 and 1 < len(rows) < 48
