"""Folders for each task: labels and targets in every format, targets at their own rate, events, text, no labels."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from folder_files import FORMATS, RAW, write_recording

from dataset_builders.base import DataError, load_corpus, make_builder, table_notes

RAW_SIGNAL = {"band_pass": None, "notch_frequencies": (), "normalization": "none"}
SMALL = {"window_length": 100, "stride": 50} | RAW_SIGNAL
RNG = np.random.default_rng(0)


def write_metadata(root, rows: list[dict]) -> None:
    splits = ("train", "validation", "test")
    rows = [{"split": splits[min(i, 2)], "sampling_rate": 200} | row for i, row in enumerate(rows)]
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)


def write_emg(path, samples: int = 400, channels: int = 4) -> np.ndarray:
    emg = RNG.normal(0, 1, (channels, samples)).astype(np.float32)
    np.save(path, emg.T)
    return emg


def failure(root, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus("emg_folder", root, **SMALL | options)
    return str(caught.value)


@pytest.fixture
def every_format(tmp_path):
    """One file per format, each with labels and targets, and what was written into them."""
    written, rows = {}, []
    for i, name in enumerate(FORMATS):
        emg = RNG.normal(0, 1, (4, 330)).astype(np.float32)
        state = np.repeat([1, 0, 7], 110)
        targets = np.stack([np.sin(np.arange(330) / 30 + i), np.arange(330) / 100]).astype(np.float32)
        label_column, target_columns = write_recording(tmp_path / name, emg, state, targets)
        written[name] = emg, targets
        rows.append({"file_name": name, "label_column": label_column, "target_columns": target_columns, "subject": i})
    write_metadata(tmp_path, rows)
    return tmp_path, written


def rows_of(data) -> list[dict]:
    return [row for part in data.values() for row in part.with_format("numpy")]


def test_labels_in_every_format(every_format):
    root, written = every_format
    options = {"task": "classification", "class_names": ["rest", "fist"], "ignore_labels": [7]}
    data, extractor = load_corpus("emg_folder", root, **SMALL, **RAW, **options)
    assert "targets" not in data["train"].features and extractor.feature_size == 4
    seen = {}
    for row in rows_of(data):
        emg, _ = written[row["recording"]]
        np.testing.assert_allclose(row["input_values"], emg[:, row["start"] :][:, :100], atol=1e-6)
        seen.setdefault(row["recording"], []).append((int(row["label"]), int(row["start"])))
    assert seen == {name: [(1, 0), (0, 110)] for name in FORMATS}  # the last third is to be ignored


def test_targets_in_every_format(every_format):
    root, written = every_format
    data, _ = load_corpus("emg_folder", root, task="regression", target_names=["angle", "force"], **SMALL, **RAW)
    assert "label" not in data["train"].features
    starts = {}
    for row in rows_of(data):
        emg, targets = written[row["recording"]]
        np.testing.assert_allclose(row["input_values"], emg[:, row["start"] :][:, :100], atol=1e-6)
        np.testing.assert_allclose(row["targets"], targets[:, row["start"] :][:, :100].T, atol=1e-6)
        starts.setdefault(row["recording"], []).append(int(row["start"]))
    assert starts == {name: [0, 50, 100, 150, 200] for name in FORMATS}


def test_tasks_that_mix(every_format):
    root, _ = every_format
    message = failure(root, class_names=["rest", "fist"], ignore_labels=[7], **RAW)
    assert "lines 2, 3, 4, 5, 6, ... for classification (label_column) and regression (target_columns)" in message
    frame = pd.read_csv(root / "metadata.csv", dtype=object)
    frame.loc[1, "target_columns"] = None
    frame.loc[2, "label_column"] = None
    frame.drop(columns=["target_columns"]).to_csv(root / "metadata.csv", index=False)
    assert "line 4: a.txt has neither label nor label_column nor target_file" in failure(root, **RAW)
    frame.to_csv(root / "metadata.csv", index=False)
    assert "line 3: a.tsv has neither target_file nor target_columns" in failure(root, task="regression", **RAW)
    assert "line 4 for regression" in failure(root, **RAW)
    assert "task='sleep': unknown; use one of classification" in failure(root, task="sleep", **RAW)
    frame.loc[1, "label"] = "rest"
    frame.to_csv(root / "metadata.csv", index=False)
    assert "line 3: both label and label_column" in failure(root, **RAW)


def write_targets(path, values: np.ndarray, rate: float) -> None:
    """Targets (frames, outputs) by the name's format; the last two state their rate."""
    if path.suffix in (".csv", ".tsv", ".parquet"):
        frame = pd.DataFrame({"time": np.arange(len(values)) / rate, "a": values[:, 0], "b": values[:, 1]})
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"glove": values})
    elif path.suffix == ".npz":
        np.savez(path, glove=values, fs=rate)
    else:
        with h5py.File(path, "w") as file:
            file["glove"] = values
            file["glove"].attrs["sampling_rate"] = rate


@pytest.mark.parametrize("hop", [1, 20])
@pytest.mark.parametrize(("emg_rate", "target_rate"), [(200, 50), (500, 30), (250, 1000)])
def test_targets_at_a_rate_of_their_own(tmp_path, hop, emg_rate, target_rate):
    """Targets that say what time it is tell the time of every frame after resampling of both."""
    seconds, rows = 3, []
    times = np.arange(seconds * target_rate) / target_rate
    for name in ("t.csv", "t.tsv", "t.parquet", "t.npy", "t.mat", "t.npz", "t.h5"):
        recording = f"{name[2:]}.npy"
        write_emg(tmp_path / recording, seconds * emg_rate)
        write_targets(tmp_path / name, np.stack([times, 10 - 2 * times], axis=1), target_rate)
        rate = None if name[2:] in ("npz", "h5") else target_rate
        row = {"file_name": recording, "target_file": name, "target_sampling_rate": rate, "sampling_rate": emg_rate}
        rows.append(row)
    write_metadata(tmp_path, rows)
    data, _ = load_corpus("emg_folder", tmp_path, sampling_rate=200, target_hop=hop, **SMALL | {"stride": 100})
    found = rows_of(data)
    assert len(found) == 7 * 6
    for row in found:
        frames = row["start"] + hop * np.arange(100 // hop) + (hop - 1) / 2  # their middles, in samples
        expected = np.minimum(frames / 200, times[-1])  # the last target holds
        np.testing.assert_allclose(row["targets"], np.stack([expected, 10 - 2 * expected], axis=1), atol=1e-5)


def test_selected_targets(tmp_path):
    for i in range(3):
        write_emg(tmp_path / f"{i}.npy")
        write_targets(tmp_path / f"{i}.csv", RNG.normal(size=(400, 2)), 200)
    rows = [{"file_name": f"{i}.npy", "target_file": f"{i}.csv", "target_sampling_rate": 200} for i in range(3)]
    write_metadata(tmp_path, rows)
    builder = make_builder("emg_folder", tmp_path, target_columns=["b"], **SMALL)
    assert builder.target_names() == ("b",) and builder.task() == "regression"
    expected = pd.read_csv(tmp_path / "1.csv")["b"].to_numpy()[100:200]
    found = np.array(builder.recording_table(builder.recordings[1])["targets"].to_pylist())[2, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "target_names has 2 names, but 0.npy has 1 targets (b)" in failure(
        tmp_path, target_columns=["b"], target_names=["x", "y"]
    )
    write_metadata(tmp_path, [row | {"target_columns": "a" if i else "a;b"} for i, row in enumerate(rows)])
    assert "1.csv: 1 targets where 0.npy has 2 (a, b)" in failure(tmp_path)


@pytest.mark.parametrize(
    ("frames", "kept", "notes"),
    [
        (100, 400, {}),
        (98, 392, {"samples after the last target": 8}),
        (103, 400, {"targets after the last sample": 3}),
        (80, None, "0.csv: 80 targets at 50 Hz last 1.6 s, but the recording lasts 2 s; correct target_sampling_rate"),
        (200, None, "last 4 s, but the recording lasts 2 s"),
    ],
)
def test_targets_that_end_before_or_after_the_signal(tmp_path, frames, kept, notes):
    write_emg(tmp_path / "0.npy", 400)
    write_targets(tmp_path / "0.csv", RNG.normal(size=(frames, 2)), 50)
    row = {"file_name": "0.npy", "target_file": "0.csv", "target_sampling_rate": 50}
    write_metadata(tmp_path, [row])
    if kept is None:
        assert notes in failure(tmp_path)
        return
    builder = make_builder("emg_folder", tmp_path, rows="recordings", **SMALL)
    table = builder.recording_table(builder.recordings[0])
    assert len(table["targets"][0]) == kept == table["recording_length"][0].as_py()
    assert dict(table_notes(table.schema)) == notes


def test_targets_that_cannot_be_used(tmp_path):
    write_emg(tmp_path / "0.npy")
    values = RNG.normal(size=(400, 2))
    values[7, 1] = np.nan
    write_targets(tmp_path / "t.csv", values, 200)
    row = {"file_name": "0.npy", "target_file": "t.csv", "target_sampling_rate": 200}
    write_metadata(tmp_path, [row])
    assert "t.csv: target 1 of row 7 (from 0) is not a finite number" in failure(tmp_path)
    write_metadata(tmp_path, [row | {"target_sampling_rate": None}])
    message = failure(tmp_path)
    assert "line 2" in message and "says how many targets come per second" in message
    write_metadata(tmp_path, [row | {"target_sampling_rate": 0}])
    assert "line 2: target_sampling_rate 0 is not a positive number" in failure(tmp_path)
    write_metadata(tmp_path, [row | {"target_file": "absent.csv"}])
    assert "line 2" in failure(tmp_path) and "correct target_file" in failure(tmp_path)
    write_metadata(tmp_path, [row | {"target_file": "../t.csv"}])
    assert "../t.csv lies outside" in failure(tmp_path)
    write_metadata(tmp_path, [row | {"target_columns": "knee"}])
    assert "t.csv: channels 'knee': no column has that name; the columns are time, a, b" in failure(tmp_path)


EVENTS = [("pinch", 0.5, 0.9), ("tap", 0.25, None), ("pinch", 1.75, 2.5)]


def write_events(path, events=EVENTS, factor: float = 1.0) -> None:
    entries = [
        {"name": name, "start": start * factor, "end": None if end is None else end * factor}
        for name, start, end in events
    ]
    if path.suffix == ".json":
        path.write_text(json.dumps(entries))
    else:
        pd.DataFrame(entries).to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")


@pytest.fixture
def with_events(tmp_path):
    """Three recordings of 2 s at 500 Hz, their events in three formats."""
    for i, suffix in enumerate(("csv", "tsv", "json")):
        write_emg(tmp_path / f"{i}.npy", 1000)
        write_events(tmp_path / f"{i}_events.{suffix}")
    rows = [
        {"file_name": f"{i}.npy", "event_file": f"{i}_events.{suffix}", "sampling_rate": 500}
        for i, suffix in enumerate(("csv", "tsv", "json"))
    ]
    write_metadata(tmp_path, rows)
    return tmp_path


def test_events(with_events):
    data, _ = load_corpus("emg_folder", with_events, sampling_rate=200, chunk_length=150, **SMALL)
    for part in data.values():
        assert [len(row["events"]) for row in part] == [2, 0, 1]  # rows of 150 samples: 0.75 s
        assert part.features["events"].feature["name"].names == ["pinch", "tap"]
        events = [event for row in part for event in row["events"]]
        assert [event["name"] for event in events] == [1, 0, 0]
        np.testing.assert_allclose([event["start"] for event in events], [50, 100, 350])
        np.testing.assert_allclose([event["end"] for event in events], [50, 180, 400])  # the last one cut at the end


def test_events_in_samples_and_ignored_ones(with_events):
    for i, suffix in enumerate(("csv", "tsv", "json")):
        write_events(with_events / f"{i}_events.{suffix}", factor=500)
    assert "0_events.csv, line 3: 'tap' starts at 125 seconds, outside the recording of 2 seconds" in failure(
        with_events
    )
    builder = make_builder("emg_folder", with_events, event_unit="samples", ignore_labels=["tap"], **SMALL)
    table = builder.recording_table(builder.recordings[2])
    assert [(e["name"], e["start"], e["end"]) for e in table["events"][0].as_py()] == [(0, 250, 450), (0, 875, 1000)]
    notes = {"events named in ignore_labels": 1, "events that end after the recording, cut at its end": 1}
    assert dict(table_notes(table.schema)) == notes and builder.class_names() == ("pinch",)
    message = failure(with_events, event_unit="samples", class_names=["pinch"])
    assert "0_events.csv, line 3: 'tap' is not a class (pinch)" in message
    assert "event_unit='minutes': unknown" in failure(with_events, event_unit="minutes")
    assert 'use rows="recordings"' in failure(with_events, rows="windows")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("e.csv", "name,begin\na,1\n", "line 1: the columns are name, begin; events need name, start"),
        ("e.csv", "", "line 1: the columns are missing"),
        ("e.csv", "name,start,end\na,1\n", "line 2: not as many cells"),
        ("e.csv", "name,start,end\na,0.1,\nb,soon,\n", "line 3: start is 'soon', which is no number"),
        ("e.csv", "name,start,end\na,,\n", "line 2: start is None"),
        ("e.csv", "name,start,end\na,nan,\n", "line 2: start is 'nan'"),
        ("e.csv", "name,start,end\n,1,\n", "line 2: name is None; write what happened"),
        ("e.tsv", "name\tstart\tend\na\t1\t0.5\n", "line 2: 'a' ends at 0.5, before its start at 1"),
        ("e.csv", "name,start\na,-0.1\n", "line 2: 'a' starts at -0.1 seconds, outside the recording of 2 seconds"),
        ("e.csv", "name,start\na,2\n", "line 2: 'a' starts at 2 seconds, outside"),
        ("e.json", '{"name": "a", "start": 1}', "not a list; write the events as a list of objects"),
        ("e.json", '[{"name": "a", "start": 1}, 5]', "event 1: not an object with name, start and end"),
        ("e.json", '[{"name": "a", "start": true}]', "event 0: start is True, which is no number"),
        ("e.json", '[{"name": "a", "start": 1', "not a list of events as .json"),
        ("e.json", '[{"name": "a", "start": ' + "1" * 5000 + "}]", "not a list of events as .json"),
        ("e.json", '[{"name": "a", "start": ' + "1" * 4000 + "}]", "event 0: start is"),
        ("e.json", "[" * 100_000, "not a list of events as .json"),
        ("e.json", '[{"name": 3, "start": 1}]', "event 0: name is 3"),
        ("e.txt", "a 1 2\n", "events are read from .csv, .tsv, .json files"),
    ],
)
def test_damaged_events(with_events, name, text, words):
    (with_events / name).write_text(text)
    rows = [{"file_name": "0.npy", "event_file": name, "sampling_rate": 500}]
    write_metadata(with_events, rows)
    message = failure(with_events)
    assert name in message and words in message


def test_a_recording_without_events(with_events):
    (with_events / "0_events.csv").write_text("name,start,end\n")
    data, _ = load_corpus("emg_folder", with_events, **SMALL)
    assert data["train"]["events"][0] == [] and len(data["test"]["events"][0]) == 3


def test_text(tmp_path):
    said = ["good morning", 'she said "no", twice', "größer als 3 €"]
    emg = [write_emg(tmp_path / f"{i}.npy", 150 + i) for i in range(3)]
    write_metadata(tmp_path, [{"file_name": f"{i}.npy", "text": text} for i, text in enumerate(said)])
    data, _ = load_corpus("emg_folder", tmp_path, **SMALL)
    found = rows_of(data)
    assert [row["text"] for row in found] == said
    for row, expected in zip(found, emg, strict=True):
        np.testing.assert_allclose(row["input_values"], expected, atol=1e-6)


def test_unlabelled_only_if_asked_for(tmp_path):
    for i in range(3):
        write_emg(tmp_path / f"{i}.npy")
    write_metadata(tmp_path, [{"file_name": f"{i}.npy"} for i in range(3)])
    message = failure(tmp_path)
    assert "line 2: 0.npy has neither label nor" in message and 'set task="unlabelled"' in message
    data, _ = load_corpus("emg_folder", tmp_path, task="unlabelled", **SMALL)
    assert "label" not in data["train"].features and len(data["train"]) == 7
    whole, _ = load_corpus("emg_folder", tmp_path, task="unlabelled", **SMALL | {"rows": "recordings"})
    assert whole["test"]["recording_length"][:] == [400]


def test_labels_are_no_channels_whatever_the_task(every_format):
    root, written = every_format
    builder = make_builder("emg_folder", root, task="unlabelled", **SMALL, **RAW)
    assert builder.num_channels() == 4
    for recording in builder.recordings:
        table = builder.recording_table(recording)
        assert "label" not in table.column_names
        np.testing.assert_allclose(table["input_values"][0].as_py(), written[recording.name][0][:, :100], atol=1e-6)


def test_a_label_of_its_own_goes_before_the_option(tmp_path):
    for i in range(3):
        emg = write_emg(tmp_path / f"{i}.npy")
        if i:
            np.save(tmp_path / f"{i}.npy", np.vstack([emg, np.repeat([0, 1], 200)]).T)
    labels = ["fist", None, None]
    write_metadata(tmp_path, [{"file_name": f"{i}.npy", "label": label} for i, label in enumerate(labels)])
    data, _ = load_corpus("emg_folder", tmp_path, label_column=4, class_names=["rest", "fist"], **SMALL)
    assert list(data["train"]["label"]) == [1] * 7
    assert list(data["test"]["label"]) == [0] * 3 + [1] * 3
