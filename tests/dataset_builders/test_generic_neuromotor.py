"""Generic neuromotor interface: parts, events, splits, damaged and hostile files."""

import contextlib
import lzma
import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builders.base import (
    ConfigError,
    DataError,
    LayoutError,
    RecordingError,
    SplitError,
    load_corpus,
    make_builder,
    table_notes,
)
from dataset_builders.generic_neuromotor import GESTURES, read_corpus
from dataset_builders.pandas_frames import read_frame, unpickled_array

PANDAS_FILE = Path(__file__).parent / "fixtures" / "pandas_frames.h5.xz"
"""Tables `prompts` and `stages` written by `DataFrame.to_hdf` (pandas 2.0.3, PyTables 3.8.0)."""

RATE = 2000
BEGIN = 1_645_824_198.824576  # seconds: the clock of the recordings is that of Unix
SMALL = {"window_length": 400, "stride": 400, "chunk_length": 300}
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_frame(file: h5py.File, key: str, names: list, times: np.ndarray, protocol: int = 4) -> None:
    """A table with the columns `name` and `time` as pandas' fixed format has it: text is a pickled array of objects."""
    group = file.create_group(key)
    group.attrs["pandas_type"] = np.bytes_("frame")
    group["axis0"] = np.array([b"name", b"time"])
    group["axis1"] = np.arange(len(names))
    pickled = pickle.dumps(np.array(names, object).reshape(-1, 1), protocol)
    text = group.create_dataset("block0_values", (1,), h5py.vlen_dtype(np.uint8), chunks=(1,), maxshape=(None,))
    text[0] = np.frombuffer(pickled, np.uint8)
    group["block0_items"] = np.array([b"name"])
    group["block1_items"] = np.array([b"time"])
    group["block1_values"] = np.asarray(times, np.float64).reshape(-1, 1)


def write_recording(folder, subject, prompts=(), length=4000, seed=None, **changes) -> np.ndarray:
    """A file of the corpus; returns its samples (length, 16). `prompts` are (name, sample) pairs, on a regular clock.

    changes: `times` of the samples, attribute `task`, `protocol` of the pickle, `compression`, `no_prompts`.
    """
    rows = np.empty(length, [("emg", "<f4", (16,)), ("time", "<f8")])
    rows["emg"] = np.random.default_rng(subject if seed is None else seed).normal(0, 2, (length, 16))
    rows["time"] = changes.get("times", BEGIN + np.arange(length) / RATE)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"discrete_gestures_user_{subject:03d}_dataset_000.hdf5", "w") as file:
        data = file.create_dataset("data", data=rows, compression=changes.get("compression"))
        data.attrs["task"] = changes.get("task", "discrete_gestures")
        if "no_prompts" not in changes:
            times = [BEGIN + sample / RATE for _, sample in prompts]
            write_frame(file, "prompts", [name for name, _ in prompts], times, changes.get("protocol", 4))
        write_frame(file, "stages", ["static_arm_in_lap"], [BEGIN])
    return rows["emg"].copy()


def write_corpus(folder, lines) -> None:
    """The CSV file; lines are (dataset, first sample, last sample, split)."""
    text = "\n".join(f"{name},{BEGIN + a / RATE:.9f},{BEGIN + b / RATE:.9f},{split}" for name, a, b, split in lines)
    (folder / "discrete_gestures_corpus.csv").write_text(f"dataset,start,end,split\n{text}\n")


def dataset(subject: int) -> str:
    return f"discrete_gestures_user_{subject:03d}_dataset_000"


def stored(part) -> dict[str, dict]:
    """What each recording of a split holds: samples (16, length), events [(name, position)], its columns."""
    found: dict[str, dict] = {}
    for row in part:
        entry = found.setdefault(row["recording"], {"samples": [], "events": [], "row": row})
        assert row["start"] == sum(block.shape[1] for block in entry["samples"])
        entry["samples"].append(np.array(row["input_values"], np.float32))
        for event in row["events"]:
            assert row["start"] <= event["start"] < row["start"] + len(row["input_values"][0])
            assert event["end"] == event["start"]
            entry["events"].append((part.features["events"].feature["name"].int2str(event["name"]), event["start"]))
    for entry in found.values():
        entry["samples"] = np.concatenate(entry["samples"], axis=1)
        assert entry["samples"].shape == (16, entry["row"]["recording_length"])
    return found


def only_signal(folder, **options):
    builder = make_builder("generic_neuromotor", folder, **SMALL, **options)
    return builder.read_recording(builder.recordings[0])


PROMPTS = [
    *[("index_press", 0), ("index_release", 10.25), ("thumb_in", 299.5), ("thumb_in", 300)],
    *[("thumb_up", 3199.75), ("middle_press", 3200), ("middle_release", 3599), ("thumb_out", 3999)],
]


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_paper_protocol_cuts_every_recording_in_time(tmp_path, compression):
    emg = {i: write_recording(tmp_path, i, PROMPTS, 4000, compression=compression) for i in (0, 2, 11)}
    data, extractor = load_corpus("generic_neuromotor", tmp_path, **SMALL)
    borders = {"train": (0, 3200), "validation": (3200, 3600), "test": (3600, 4000)}
    for split, (first, last) in borders.items():
        recordings = stored(data[split])
        assert list(recordings) == [f"{dataset(i)}/{split}" for i in emg]
        for i, recording in zip(emg, recordings.values(), strict=True):
            np.testing.assert_array_equal(recording["samples"], emg[i][first:last].T)
            assert (recording["row"]["subject"], recording["row"]["session"]) == (f"user_{i:03d}", "dataset_000")
            assert recording["row"]["offset"] == first
            expected = [(name, sample - first) for name, sample in PROMPTS if first <= sample < last]
            assert [name for name, _ in recording["events"]] == [name for name, _ in expected]
            at = [position for _, position in recording["events"]]
            # the last event of train lies between its last sample and the first one of validation
            np.testing.assert_allclose(at, [position for _, position in expected], atol=1e-3)
    assert data["train"].features["events"].feature["name"].names == list(GESTURES)
    assert (extractor.sampling_rate, extractor.band_pass, extractor.normalization) == (2000, None, "none")


@pytest.mark.parametrize("length", [10, 11, 4003])
def test_paper_protocol_shares_no_sample(tmp_path, length):
    for i in range(3):
        write_recording(tmp_path, i, [("thumb_up", k) for k in range(length)], length)
    builder = make_builder("generic_neuromotor", tmp_path, **SMALL)
    for i in range(3):
        parts = [r for r in builder.recordings if r.subject == f"user_{i:03d}"]
        assert {r.split for r in parts} == {"train", "validation", "test"}
        covered, events = [], 0
        for part in parts:
            signal = builder.read_recording(part)
            covered += range(signal.metadata["offset"], signal.metadata["offset"] + signal.samples.shape[1])
            events += len(signal.events.names)
        assert sorted(covered) == list(range(length)) and events == length
        assert signal.samples.shape[1] == pytest.approx(length / 10, abs=1)


def test_reference_protocol_takes_the_stages_of_the_table(tmp_path):
    emg = [write_recording(tmp_path, i, PROMPTS, 4000) for i in range(3)]
    lines = [
        *[(dataset(0) + ".hdf5", 2000, 3200, "train"), (dataset(0), 100.5, 300, "train")],
        *[(dataset(1), 0, 1000, "val"), (dataset(1), 3100, 9999, "train")],
        *[(dataset(2), 600, 800, "test"), (dataset(2), 0, 200, "test"), (dataset(2), 300, 400, "test")],
    ]
    write_corpus(tmp_path, lines)
    data, _ = load_corpus("generic_neuromotor", tmp_path, protocol="reference", **SMALL)
    expected = {
        "train": {
            f"{dataset(0)}/01": (0, 101, 300),
            f"{dataset(0)}/02": (0, 2000, 3200),
            f"{dataset(1)}/02": (1, 3100, 4000),
        },
        "validation": {f"{dataset(1)}/01": (1, 0, 1000)},
        "test": {f"{dataset(2)}/01": (2, 0, 800)},
    }
    for split, parts in expected.items():
        recordings = stored(data[split])
        assert list(recordings) == list(parts)
        for name, (i, first, last) in parts.items():
            np.testing.assert_array_equal(recordings[name]["samples"], emg[i][first:last].T)
            names = [gesture for gesture, sample in PROMPTS if first <= sample < last]
            assert [gesture for gesture, _ in recordings[name]["events"]] == names
            assert recordings[name]["row"]["offset"] == first


def test_reference_test_stages_are_joined_only_without_others_between(tmp_path):
    write_corpus(tmp_path, [("a", 0, 10, "test"), ("a", 10, 20, "train"), ("a", 20, 30, "test"), ("a", 40, 50, "test")])
    stages = read_corpus(tmp_path / "discrete_gestures_corpus.csv")["a"]
    assert [(s.split, round((s.end - s.start) * RATE)) for s in stages] == [("test", 10), ("train", 10), ("test", 30)]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("a,0,10,train\na,9.9,20,val", SplitError, ("a:", "10.0", "9.9", "two splits")),
        ("a,0,30,test\na,5,6,train", SplitError, ("overlaps",)),
        ("a,0,1,test\na,2,3,train\na,0.5,2.5,test", SplitError, ("overlaps",)),
        ("a,0,10,trains", SplitError, ("line 2", "'trains'")),
        ("a,0,10,train\na,x,10,train", LayoutError, ("line 3", "'x'")),
        ("a,10,10,train", LayoutError, ("line 2", "before the end")),
        ("a,nan,10,train", LayoutError, ("line 2",)),
        (",0,10,train", LayoutError, ("line 2", "dataset")),
        ("a,0", LayoutError, ("line 2",)),
        ("", LayoutError, ("no lines",)),
    ],
)
def test_faulty_tables(tmp_path, text, error, words):
    path = tmp_path / "discrete_gestures_corpus.csv"
    path.write_text(f"dataset,start,end,split\n{text}\n")
    with pytest.raises(error) as caught:
        read_corpus(path)
    assert all(word in str(caught.value) for word in (*words, "discrete_gestures_corpus.csv"))


def test_table_without_column(tmp_path):
    path = tmp_path / "discrete_gestures_corpus.csv"
    path.write_text("dataset,start,split\n")
    with pytest.raises(LayoutError, match="line 1: no column end"):
        read_corpus(path)


def test_files_and_table_must_agree(tmp_path):
    for i in range(2):
        write_recording(tmp_path, i, PROMPTS)
    with pytest.raises(LayoutError, match=r"needs discrete_gestures_corpus\.csv"):
        make_builder("generic_neuromotor", tmp_path, protocol="reference").recordings  # noqa: B018
    lines = [(dataset(0), 0, 100, "train"), (dataset(1), 0, 100, "val"), (dataset(7), 0, 100, "test")]
    write_corpus(tmp_path, lines)
    with pytest.raises(SplitError, match="1 of the 3 .* no file: discrete_gestures_user_007.*allow_missing"):
        make_builder("generic_neuromotor", tmp_path, protocol="reference").recordings  # noqa: B018
    builder = make_builder("generic_neuromotor", tmp_path, protocol="reference", allow_missing=True)
    assert [r.split for r in builder.recordings] == ["train", "validation"]
    assert builder.absent_subjects == ("user_007",)
    write_recording(tmp_path, 3, PROMPTS)
    with pytest.raises(SplitError, match="no line for discrete_gestures_user_003"):
        make_builder("generic_neuromotor", tmp_path, protocol="reference", allow_missing=True).recordings  # noqa: B018


def test_archive_beside_the_table(tmp_path):
    source = tmp_path / "source"
    emg = write_recording(source, 0, PROMPTS)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    with tarfile.open(corpus / "full_data.tar", "w") as archive:
        archive.add(source, "full_data")
    write_corpus(corpus, [(dataset(0), 0, 4000, "train")])
    builder = make_builder("generic_neuromotor", corpus, tmp_path / "cache", protocol="reference", **SMALL)
    np.testing.assert_array_equal(builder.read_recording(builder.recordings[0]).samples, emg.T)


def test_layout_errors(tmp_path):
    tmp_path.joinpath("x").mkdir()
    with pytest.raises(LayoutError, match="does not hold the corpus"):
        make_builder("generic_neuromotor", tmp_path).recordings  # noqa: B018
    write_recording(tmp_path / "a", 0, PROMPTS)
    write_recording(tmp_path / "b", 0, PROMPTS)
    with pytest.raises(LayoutError, match="is there twice"):
        make_builder("generic_neuromotor", tmp_path).recordings  # noqa: B018
    os.rename(tmp_path / "b" / f"{dataset(0)}.hdf5", tmp_path / "b" / "discrete_gestures_anna.hdf5")
    with pytest.raises(LayoutError, match="discrete_gestures_anna"):
        make_builder("generic_neuromotor", tmp_path).recordings  # noqa: B018
    with pytest.raises(ConfigError, match="'published' is unknown"):
        make_builder("generic_neuromotor", tmp_path, protocol="published")


def test_left_out_prompts_are_counted_once(tmp_path):
    prompts = [("thumb_up", -1), ("pause", -1), ("pause", 5), ("thumb_up", 7), ("snap", 3300), ("thumb_up", 4100)]
    write_recording(tmp_path, 0, prompts)
    builder = make_builder("generic_neuromotor", tmp_path, **SMALL)
    notes = sum((table_notes(builder.recording_table(r).schema) for r in builder.recordings), start=Counter())
    assert notes == {
        "prompts that are no gesture of the corpus": 2,
        "gestures before the first sample of the file": 1,
        "gestures after the last sample of the file": 1,
    }


def test_events_follow_the_clock_of_the_samples(tmp_path):
    """Times with a gap of a second: positions are those of the samples, wherever the clock jumps."""
    times = BEGIN + np.arange(1000) / RATE
    times[400:] += 1
    prompts = [("thumb_up", 100), ("thumb_down", 399 + 2001 / 2), ("thumb_in", 2000 + 500), ("thumb_up", 50)]
    write_recording(tmp_path, 0, prompts, 1000, times=times)
    signal = only_signal(tmp_path)
    assert signal.events.names == ("thumb_up", "thumb_up", "thumb_down", "thumb_in")
    np.testing.assert_allclose(signal.events.starts, [50, 100, 399.5, 500], atol=1e-3)
    assert signal.notes["gaps in the timestamps"] == 1


def no_data(file):
    del file["data"]


def other_fields(file):
    del file["data"]
    file["data"] = np.zeros(10, [("emg", "<f4", (8,)), ("time", "<f8")])


def empty(file):
    del file["data"]
    file["data"] = np.zeros(0, [("emg", "<f4", (16,)), ("time", "<f8")])


def prompt_at_nan(file):
    file["prompts/block1_values"][1, 0] = np.nan


def numbers_for_names(file):
    del file["prompts/block0_values"]
    file["prompts/block0_values"] = np.zeros((8, 1))


def shorter_column(file):
    del file["prompts/block1_values"]
    file["prompts/block1_values"] = np.zeros((7, 1))


def no_table(file):
    del file["prompts"]
    file.create_group("prompts")


def other_pickle(file):
    file["prompts/block0_values"][0] = np.frombuffer(pickle.dumps({"name": ["thumb_up"]}), np.uint8)


def times_set(row, value):
    def change(file):
        rows = file["data"][:]
        rows["time"][row] = value
        file["data"][:] = rows

    return change


def half_the_rate(file):
    rows = file["data"][:]
    rows["time"] = BEGIN + np.arange(len(rows)) / 1000
    file["data"][:] = rows


def other_task(file):
    file["data"].attrs["task"] = "handwriting"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_data, ("'data'",)),
        (other_fields, ("'emg'", "(16,)")),
        (empty, ("no samples",)),
        (prompt_at_nan, ("prompt 1", "nan")),
        (numbers_for_names, ("'prompts'", "`name`")),
        (shorter_column, ("prompts", "length")),
        (no_table, ("prompts", "no table of pandas")),
        (lambda file: file.__delitem__("prompts"), ("no table 'prompts'",)),
        (other_pickle, ("block0_values", "not a pickled array")),
        (times_set(20, BEGIN), ("sample 20", "back")),
        (times_set(21, np.nan), ("sample 21", "nan")),
        (half_the_rate, ("1 ms apart", "2000 Hz")),
        (other_task, ("'handwriting'", "'discrete_gestures'")),
    ],
)
def test_faulty_files(tmp_path, change, words):
    write_recording(tmp_path, 0, PROMPTS)
    path = tmp_path / f"{dataset(0)}.hdf5"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(RecordingError) as caught:
        only_signal(tmp_path)
    assert all(word in str(caught.value) for word in (str(path), *words)), str(caught.value)


def test_a_damaged_type_of_the_pickled_text_does_not_crash_the_library(tmp_path):
    write_recording(tmp_path, 0, PROMPTS)
    path = tmp_path / f"{dataset(0)}.hdf5"
    sequence_of_bytes = bytes.fromhex("19 00 00 00 10 00 00 00 10 00 00 00 01 00 00 00")
    assert sequence_of_bytes in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(sequence_of_bytes, b"\x19\x08" + sequence_of_bytes[2:]))
    with pytest.raises(RecordingError, match="neither numbers nor pickled text"):
        only_signal(tmp_path)


def test_stage_without_samples(tmp_path):
    write_recording(tmp_path, 0, PROMPTS)
    write_corpus(tmp_path, [(dataset(0), 9000, 9999, "train")])
    with pytest.raises(RecordingError, match="no sample from .* correct discrete_gestures_corpus"):
        only_signal(tmp_path, protocol="reference")


def test_recording_without_prompts(tmp_path):
    write_recording(tmp_path, 0, [])
    assert only_signal(tmp_path).events.names == ()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_age(protocol):
    texts = np.array([["a", "b"], ["c", "a"], [None, "é"]], object)
    for array in (texts, np.asfortranarray(texts), texts.T):
        np.testing.assert_array_equal(unpickled_array(pickle.dumps(array, protocol), "here"), array)


def test_tables_of_pandas_itself(tmp_path):
    path = tmp_path / "frames.h5"
    path.write_bytes(lzma.decompress(PANDAS_FILE.read_bytes()))
    with h5py.File(path) as file:
        prompts, stages = (read_frame(file[name], name) for name in ("prompts", "stages"))
        with h5py.File(tmp_path / "ours.h5", "w") as ours:
            write_frame(ours, "prompts", list(prompts["name"]), prompts["time"])
            for name, values in ours["prompts"].items():
                assert (values.dtype, values.shape) == (file["prompts"][name].dtype, file["prompts"][name].shape), name
    assert list(prompts["name"]) == ["index_press", "index_release", "thumb_up", "index_press", "pause"]
    assert list(prompts["time"]) == [1.5, 2.25, 3.0, 4.0, 4.5]
    assert {name: list(column) for name, column in stages.items()} == {
        "name": ["static_arm_in_lap", "thumbs"],
        "start": [1, 2],
        "end": [2, 3],
        "posture": ["lap", "front"],
    }


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_hostile_pickle_is_not_run(tmp_path):
    target = tmp_path / "made"
    attacks = [Hostile(target), np.array([["thumb_up"], [Hostile(target)]], object)]
    pickle.loads(pickle.dumps(attacks[0]))
    assert target.is_dir()  # the attack works where pickles are loaded
    target.rmdir()
    for attack in attacks:
        with pytest.raises(RecordingError, match="not a pickled array of text"):
            unpickled_array(pickle.dumps(attack), "file")
    assert not target.exists()


@FUZZ
@given(st.data())
def test_damaged_pickles(data):
    valid = pickle.dumps(np.array([["thumb_up"], ["thumb_down"], ["thumb_up"]], object), data.draw(st.integers(2, 5)))
    with contextlib.suppress(DataError):
        unpickled_array(data.draw(damaged(valid)), "file")


@FUZZ
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    write_recording(folder, 0, PROMPTS[:3], 200)
    path = folder / f"{dataset(0)}.hdf5"
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    builder = make_builder("generic_neuromotor", folder, **SMALL)
    try:
        for recording in builder.recordings:
            builder.recording_table(recording)
    except DataError as error:
        assert str(path) in str(error)


@FUZZ
@given(st.data())
def test_damaged_tables(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "discrete_gestures_corpus.csv"
    write_corpus(path.parent, [("a", 0, 10, "train"), ("b", 10, 20, "val"), ("b", 30, 40, "test")])
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        read_corpus(path)
    except DataError as error:
        assert str(path) in str(error)
