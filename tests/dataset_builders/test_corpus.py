"""What all builders share: configuration, caching, streaming, several processes, errors."""

import dataclasses
import hashlib
import json
import pickle
import re
from pathlib import Path

import datasets
import numpy as np
import pytest

from dataset_builders.base import (
    ConfigError,
    DataError,
    EmgBuilder,
    EmgBuilderConfig,
    LayoutError,
    PreparationError,
    Recording,
    RecordingError,
    SplitError,
    load_corpus,
    make_builder,
    table_notes,
)
from dataset_builders.checks import check_recordings
from dataset_builders.content import Events, Signal, at_processed_rate
from dataset_builders.hub import prepare
from dataset_builders.windows import label_segments, nested_array

TINY = {"num_subjects": 3, "num_sessions": 2, "num_repetitions": 1, "hold": 1.5}
OTHER_VALUES = {
    "protocol": "within_subject",
    "band_pass": None,
    "notch_frequencies": (),
    "filter_mode": "causal",
    "normalization": "none",
    "normalization_scope": "window",
    "allow_constant_channels": True,
    "allow_missing": True,
    "version": "9.9.9",
    "subjects": ("01", "02"),
    "sessions": ("1",),
    "channels": (0, 3),
    "sample_type": None,  # int16 needs rows that are recordings
    "rows": None,
    "window_labels": "first_sample",
    "pad_end": True,
    "filter_rate": 1000.0,
    "resampling": "linear",
    "soft_limit": 50.0,
}


def digest(data: datasets.Dataset) -> str:
    """Hash of the content of all columns."""
    table = data.with_format("arrow")[:]
    digest = hashlib.sha256(table["input_values"].combine_chunks().flatten().flatten().to_numpy().tobytes())
    digest.update(repr([table[name].to_pylist() for name in table.column_names if name != "input_values"]).encode())
    return digest.hexdigest()


def test_every_option_is_in_the_name_of_the_cache():
    base = make_builder("synthetic", **TINY).config_id
    for field in dataclasses.fields(EmgBuilderConfig):
        if field.name in ("name", "data_dir", "data_files", "description"):
            continue
        value = OTHER_VALUES.get(field.name, getattr(EmgBuilderConfig, field.name))
        if field.name not in OTHER_VALUES:
            value = value * 2 or 1
        if value is None and field.name in ("rows", "sample_type"):
            continue  # have a test of their own
        assert make_builder("synthetic", **TINY | {"num_repetitions": 3}, **{field.name: value}).config_id != base
    assert make_builder("synthetic", **TINY, window_length=200).config_id == base
    assert make_builder("synthetic", **TINY, band_pass=[20, 90.0], sampling_rate=200).config_id == base


def test_editing_the_raw_files_changes_the_name_of_the_cache(uci_dir):
    base = make_builder("uci_emg", uci_dir).config_id
    path = next(uci_dir.rglob("*.txt"))
    path.write_bytes(path.read_bytes() + b"\r\n")
    assert make_builder("uci_emg", uci_dir).config_id != base


def test_second_load_reads_the_cache(monkeypatch):
    first, _ = load_corpus("synthetic", **TINY)
    monkeypatch.setattr("dataset_builders.synthetic.Synthetic.read_recording", None)
    second, extractor = load_corpus("synthetic", **TINY)
    assert digest(second["train"]) == digest(first["train"]) and extractor.feature_size == 8


def test_processes_and_streaming_give_the_same_windows(tmp_path):
    one, _ = load_corpus("synthetic", cache_dir=tmp_path / "1", **TINY)
    two, _ = load_corpus("synthetic", cache_dir=tmp_path / "2", num_proc=2, **TINY)
    streamed = make_builder("synthetic", cache_dir=tmp_path / "3", **TINY).as_streaming_dataset()
    for split in one:
        assert digest(one[split]) == digest(two[split])
        rows = list(streamed[split])
        assert streamed[split].num_shards == 2
        again = datasets.Dataset.from_list(rows, features=one[split].features)
        assert digest(again) == digest(one[split])


def test_left_overs_of_a_killed_preparation_are_removed(tmp_path):
    builder = make_builder("synthetic", cache_dir=tmp_path, **TINY)
    partial = tmp_path / (builder.cache_dir + ".incomplete")
    partial.mkdir(parents=True)
    (partial / "synthetic-train-00007-00000-of-NNNNN.arrow").write_bytes(b"half")
    load_corpus("synthetic", cache_dir=tmp_path, **TINY)
    assert not [p for p in tmp_path.rglob("*") if "NNNNN" in p.name or p.name.endswith(".incomplete")]


def test_errors_come_through_processes_unchanged(uci_dir, tmp_path):
    path = uci_dir / "01" / "2_raw_data_12-12_22.03.16.txt"
    path.write_bytes(path.read_bytes() + b"1\t2\r\n")
    for num_proc in (None, 2):
        with pytest.raises(DataError, match=r"2_raw_data_12-12_22.03.16.txt, line 3\d\d\d: 2 columns"):
            load_corpus("uci_emg", uci_dir, cache_dir=tmp_path / "cache", num_proc=num_proc, window_length=100)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_files_that_vanish_and_folders_that_are_files(uci_dir, tmp_path):
    builder = make_builder("uci_emg", uci_dir, window_length=100)
    path = Path(builder.recordings[0].path)
    path.unlink()
    with pytest.raises(RecordingError, match=f"{re.escape(path.name)}.* No such file"):
        builder.recording_table(builder.recordings[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(PreparationError, match="Not a directory"):
        load_corpus("synthetic", cache_dir=tmp_path / "file" / "cache", **TINY)


def test_full_disk(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.arrow_writer.ArrowWriter.write_table", full)
    with pytest.raises(PreparationError, match="No space left on device"):
        load_corpus("synthetic", cache_dir=tmp_path, **TINY)
    assert not list(tmp_path.rglob("*.arrow")) and not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window_lenght": 100}, "no option window_lenght; its options are .*window_length"),
        ({"window_length": 130}, "patch_size"),
        ({"window_length": 0}, "window_length"),
        ({"stride": -5}, "stride"),
        ({"band_pass": (20, 120)}, "below 100 Hz"),
        ({"notch_frequencies": (150,)}, "notch_frequencies"),
        ({"normalization": "robust"}, "normalization='robust'"),
        ({"filter_mode": "online"}, "filter_mode"),
        ({"protocol": "mine"}, "protocol='mine' is unknown; use one of 'unseen_subjects', 'within_subject'"),
        ({"num_subjects": 0}, "num_subjects"),
        ({"num_subjects": 2}, "at least 3"),
        ({"sampling_rate": 300}, "divisor of 1000"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(DataError, match=words):
        load_corpus("synthetic", **TINY | options)


def test_unknown_builder_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="uci_emg, .*synthetic, emg_folder"):
        load_corpus("uci")
    with pytest.raises(LayoutError, match="emg_folder"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 8}, r"channels=\[8\]: give different positions from 0 to 7"),
        ({"channels": "emg1"}, r"channels=\['emg1'\]: give different positions"),
        ({"channels": (True,)}, "give different positions"),
        ({"channels": (1.0,)}, "give different positions"),
        ({"channels": ()}, "give different positions"),
        ({"subjects": []}, r"subjects=\(\): name at least one"),
        ({"subjects": [1, 2]}, "no recording of subject 1, 2; there are 01 to 03"),
        ({"pad_end": "no"}, "pad_end='no': must be True or False"),
        ({"rows": "window"}, "rows='window': unknown; use one of windows, recordings"),
        ({"stride": 1.5}, "stride=1.5: must be a positive whole number"),
    ],
)
def test_slips_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        load_corpus("synthetic", **TINY | options)


def test_numbers_of_numpy_and_ranges_are_plain_options():
    plain = make_builder("synthetic", **TINY, channels=(0, 1, 2), window_length=100)
    same = make_builder("synthetic", **TINY, channels=range(3), window_length=np.int64(100))
    assert same.config_id == plain.config_id and json.dumps(same.config.shaping_fields())
    assert (
        make_builder("synthetic", **TINY, channels=np.array([0, 1, 2]), window_length=100).config_id == same.config_id
    )


class Shared(EmgBuilder):
    """Three gestures after one another in each of two recordings, shared out among the splits by repetition."""

    LABELS = np.repeat([-1, 0, 1, 0, 1, 0], 200)

    def num_channels(self):
        return 2

    def class_names(self):
        return ("a", "b")

    def list_recordings(self, root):
        shares = {"train": (1,), "validation": (2,), "test": (3,)}
        return [Recording("", f"r{i}", "s", "1", split, kept) for i in range(2) for split, kept in shares.items()]

    def read_recording(self, recording):
        samples = np.random.default_rng(0).normal(size=(2, len(self.LABELS)))
        labels = self.LABELS if recording.name == "r0" else np.full(len(self.LABELS), -1)
        return Signal(samples, 200, labels, notes={"read": 1})


WHOLE = {"band_pass": None, "notch_frequencies": (), "stride": 200}


def test_what_a_recording_lacks_is_counted_once(tmp_path):
    builder = Shared(cache_dir=str(tmp_path), **WHOLE)
    notes = [dict(table_notes(builder.recording_table(recording).schema)) for recording in builder.recordings]
    assert notes == [{"read": 1}, {}, {}, {"read": 1, "recordings without a labelled sample": 1}, {}, {}]


def test_a_pickled_builder_carries_no_signal(tmp_path):
    builder = Shared(cache_dir=str(tmp_path), **WHOLE)
    empty = len(pickle.dumps(builder))
    table = builder.recording_table(builder.recordings[0])
    packed = pickle.dumps(builder)
    assert len(packed) < empty + 5000
    assert pickle.loads(packed).recording_table(builder.recordings[0]).equals(table)


@pytest.mark.parametrize("window_labels", ["segment", "first_sample", "center_sample"])
def test_repetitions_are_counted_however_windows_are_labelled(tmp_path, window_labels):
    builder = Shared(cache_dir=str(tmp_path), window_labels=window_labels, **WHOLE)
    tables = [builder.recording_table(recording) for recording in builder.recordings[:3]]
    assert [table["start"].to_pylist() for table in tables] == [[200, 400], [600, 800], [1000]]
    assert [table["repetition"].to_pylist() for table in tables] == [[1, 1], [2, 2], [3]]
    assert [table["label"].to_pylist() for table in tables] == [[0, 1], [0, 1], [0]]


def test_a_recording_shared_out_cannot_be_stored_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(Shared, "task", lambda self: "unlabelled")
    builder = Shared(cache_dir=str(tmp_path), rows="recordings", **WHOLE)
    with pytest.raises(SplitError, match=r'repetitions of a recording \(r0\) .* use rows="windows"'):
        _ = builder.recordings


def test_a_split_without_a_window_is_an_error(tmp_path):
    options = TINY | {"num_repetitions": 3, "protocol": "within_subject", "hold": 1.1, "stride": 200}
    label = {"window_labels": "first_sample", "window_length": 3000, "stride": 3000}
    with pytest.raises(SplitError, match="recordings of the train split have no window"):
        load_corpus("synthetic", **options | label)
    with pytest.raises(SplitError, match="recordings of the train split have no window"):
        prepare("synthetic", None, tmp_path / "out", **options | label)
    assert not (tmp_path / "out").exists()


def test_label_segments():
    labels = np.array([-1, -1, 0, 0, 1, 0, -1, 0, 0])
    assert label_segments(labels) == [(2, 4, 0, 1), (4, 5, 1, 1), (5, 6, 0, 2), (7, 9, 0, 3)]
    assert label_segments(np.full(4, -1)) == []


def test_labels_targets_and_events_follow_a_resampled_signal():
    labels = np.repeat([0, 1, 2], 100)
    ramp = np.arange(300, dtype=np.float32)[:, None] * [1, -2]
    events = Events(("a", "b"), np.array([30.0, 299.0]), np.array([60.0, 299.0]))
    signal = Signal(np.zeros((2, 300)), 100.0, labels, labels + 1, ramp, events)
    for length in (600, 60):
        resampled = at_processed_rate(signal, length, 1, "x")
        np.testing.assert_array_equal(resampled.labels, np.repeat([0, 1, 2], length // 3))
        np.testing.assert_array_equal(resampled.repetitions, np.repeat([1, 2, 3], length // 3))
        np.testing.assert_allclose(resampled.events.starts[0], length / 10)
        assert resampled.events.starts[1] < length
        expected = np.minimum(np.arange(length) * 300 / length, 299)  # a ramp stays a ramp, from the same sample on
        np.testing.assert_allclose(resampled.targets[:, 0], expected, atol=1e-4)
        np.testing.assert_allclose(resampled.targets[:, 1], -2 * resampled.targets[:, 0], rtol=1e-6)


def test_nested_array_is_the_windows():
    windows = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(np.array(nested_array(windows[:, :, ::2]).to_pylist()), windows[:, :, ::2])


def test_recordings_are_checked():
    train = Recording("", "a", "1", "", "train")
    with pytest.raises(LayoutError, match="no recording"):
        check_recordings([], "x")
    with pytest.raises(LayoutError, match="a is listed twice"):
        check_recordings([train, dataclasses.replace(train, split="test")], "x")
    with pytest.raises(SplitError, match="train"):
        check_recordings([dataclasses.replace(train, split="test")], "x")
    with pytest.raises(SplitError, match="a is in 'val', which is none of"):
        check_recordings([dataclasses.replace(train, split="val")], "x")
    halves = [
        dataclasses.replace(train, repetitions=(1, 2)),
        dataclasses.replace(train, split="test", repetitions=(2,)),
    ]
    with pytest.raises(SplitError, match=r"repetitions \[2\] of a"):
        check_recordings(halves, "x")


def test_copied_files_are_refused(uci_dir):
    first = uci_dir / "01" / "1_raw_data_11-12_22.03.16.txt"
    copy = uci_dir / "31" / "1_raw_data_11-12_22.03.16.txt"
    copy.write_bytes(first.read_bytes())
    with pytest.raises(LayoutError, match="01/1_raw.* and .*31/1_raw.* have the same content: remove the copies"):
        _ = make_builder("uci_emg", uci_dir).recordings
    content = bytearray(first.read_bytes())
    content[-4] ^= 1  # another value in the last line only
    copy.write_bytes(content)
    assert len(make_builder("uci_emg", uci_dir).recordings) == 6
