"""EMG-EPN-612: takes, windows, splits, malformed and damaged files, and two real users."""

import copy
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import scipy.signal
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

CLASSES = ["noGesture", "waveIn", "waveOut", "pinch", "open", "fist"]
SMALL = {"window_length": 100, "stride": 75, "allow_missing": True}
TAKES = 12


def take(gesture: str | None, length: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    emg = {f"ch{i}": rng.integers(-128, 128, length).tolist() for i in range(1, 9)}
    return {"startPointforGestureExecution": 5, "emg": emg} | ({"gestureName": gesture} if gesture else {})


def section(seed: int, takes: int = TAKES, length: int = 130) -> dict:
    """Takes in the order of the real files: one gesture after the other."""
    gestures = [gesture for gesture in CLASSES for _ in range(takes)]
    return {f"idx_{i}": take(gesture, length, 1000 * seed + i) for i, gesture in enumerate(gestures, 1)}


def write_user(root, group: str, number: int, train: dict, test: dict | None = None):
    path = root / f"{group}JSON" / f"user{number}" / f"user{number}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = {"trainingSamples": train, "testingSamples": test or {}}
    path.write_text(json.dumps({"generalInfo": {}, "userInfo": {"name": path.stem}} | sections))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("epn") / "EMG-EPN612 Dataset"
    write_user(root, "training", 1, section(1), section(2))
    write_user(root, "training", 10, section(3), section(4))
    unlabelled = {name: {"emg": sample["emg"]} for name, sample in section(6).items()}
    write_user(root, "testing", 1, section(5), unlabelled)
    return root


def processed(emg: dict) -> np.ndarray:
    """A take filtered and normalised as documented, with scipy alone."""
    samples = np.array([emg[f"ch{i}"] for i in range(1, 9)], np.float64)
    band = scipy.signal.butter(4, (20, 90), "bandpass", fs=200, output="sos")
    notch = scipy.signal.tf2sos(*scipy.signal.iirnotch(50, 30, fs=200))
    filtered = scipy.signal.sosfiltfilt(np.concatenate([band, notch]), samples)
    return (filtered - filtered.mean(axis=1, keepdims=True)) / filtered.std(axis=1, ddof=1, keepdims=True)


def one_user(tmp_path, edit=None, **options):
    """Table of the training section of a user with one take of each gesture, and what was left out."""
    takes = section(7, takes=1)
    if edit:
        edit(takes)
    write_user(tmp_path, "training", 1, takes, section(8, takes=1))
    write_user(tmp_path, "testing", 1, section(9, takes=1))
    builder = make_builder("epn612", tmp_path, **SMALL | options)
    table = builder.recording_table(builder.recordings[0])
    return table.to_pylist(), table_notes(table.schema)


def test_windows_are_the_filtered_takes(corpus):
    data, extractor = load_corpus("epn612", corpus, protocol="reference", **SMALL)
    assert {split: len(part) for split, part in data.items()} == {"train": 204, "validation": 144, "test": 12}
    assert data["train"].features["label"].names == CLASSES
    assert (extractor.window_length, extractor.band_pass, extractor.sampling_rate) == (100, [20.0, 90.0], 200)
    rows = {row["recording"]: row for split in data.values() for row in split.select(range(12))}
    files = {
        "training/user1/trainingSamples": 1,
        "training/user1/testingSamples": 2,
        "testing/user1/trainingSamples": 5,
    }
    assert {name.rpartition("/")[0] for name in rows} == files.keys()
    for name, row in rows.items():
        recording, _, index = name.rpartition("/")
        raw = section(files[recording])[index]
        np.testing.assert_allclose(row["input_values"], processed(raw["emg"])[:, :100], atol=1e-4)
        assert row["label"] == CLASSES.index(raw["gestureName"]) and row["start"] == 0
        number = int(index.removeprefix("idx_")) - 1
        assert (row["label"], row["repetition"]) == (number // TAKES, number % TAKES + 1)


def test_splits(corpus):
    """Users of the training folder: a section is a split; of the testing folder: the first ten takes of a gesture."""
    data, _ = load_corpus("epn612", corpus, **SMALL)
    taken = {split: set(part["recording"]) for split, part in data.items()}
    assert not taken["train"] & taken["validation"]
    assert not taken["train"] & taken["test"] and not taken["validation"] & taken["test"]
    per_split = {split: Counter(zip(part["subject"], part["session"], strict=True)) for split, part in data.items()}
    assert per_split["validation"].keys() == {(f"training_user{i}", "testingSamples") for i in (1, 10)}
    assert per_split["test"].keys() == {("testing_user1", "trainingSamples")}
    users = ("training_user1", "training_user10", "testing_user1")
    assert per_split["train"].keys() == {(user, "trainingSamples") for user in users}
    of_testing_user = data["train"].filter(lambda row: row["subject"] == "testing_user1")
    assert set(of_testing_user["repetition"]) == set(range(1, 11)) and set(data["test"]["repetition"]) == {11, 12}
    assert Counter(data["test"]["label"]) == dict.fromkeys(range(6), 2)


def test_natural_order_decides_which_takes_are_first(tmp_path):
    """Whatever the order in the file: idx_2 comes before idx_10."""
    takes = {f"idx_{i}": take("fist", 130, i) for i in range(12, 0, -1)}
    write_user(tmp_path, "training", 1, section(1, 1), section(2, 1))
    write_user(tmp_path, "testing", 1, takes)
    data, _ = load_corpus("epn612", tmp_path, protocol="reference", **SMALL)
    assert [name.rpartition("/")[2] for name in data["test"]["recording"]] == ["idx_11", "idx_12"]


def test_windows_of_the_protocols(tmp_path):
    """Paper: a quarter of overlap within the first 1000 samples; reference: only the first window."""

    def longer(takes):
        for i, (name, length) in enumerate(zip(list(takes), (1060, 1000, 990, 260, 90, 20), strict=True)):
            takes[name] = take(CLASSES[i], length, i)

    starts = {label: [] for label in range(6)}
    rows, notes = one_user(tmp_path, longer)
    for row in rows:
        starts[row["label"]].append(row["start"])
    assert starts[0] == starts[1] == list(range(0, 901, 75))
    assert starts[2] == list(range(0, 890, 75)) and starts[3] == [0, 75, 150] and starts[4] == starts[5] == [0]
    assert notes == {}
    short = np.array(rows[-2]["input_values"])
    assert (short[:, 90:] == 0).all() and (short[:, :90] != 0).all()
    np.testing.assert_allclose(short[:, :90], processed(take(CLASSES[4], 90, 4)["emg"]), atol=1e-4)
    assert len(one_user(tmp_path, longer, protocol="reference")[0]) == 6
    rows, _ = one_user(tmp_path, longer, window_length=1000, stride=750)
    assert len(rows) == 6 and np.array(rows[3]["input_values"])[:, 260:].any() == np.False_


def test_takes_left_out_are_counted(tmp_path):
    def edit(takes):
        takes["idx_1"]["gestureName"] = "notProvided"
        del takes["idx_2"]["gestureName"]
        takes |= {f"idx_{i}": take("fist", 130, i) for i in range(7, 33)}  # 27 with the one that was there

    rows, notes = one_user(tmp_path, edit, protocol="reference")
    assert notes == {"takes without a gesture": 2, "takes beyond the 25 of a gesture": 2}
    assert Counter(row["label"] for row in rows) == {2: 1, 3: 1, 4: 1, 5: 25}
    for sample in (takes := section(1, 1)).values():
        del sample["gestureName"]
    with pytest.raises(RecordingError, match=r"user1\.json, trainingSamples: no take has a gesture"):
        one_user(tmp_path, lambda present: present.update(takes))


def test_constant_channel_is_accepted_unless_refused(tmp_path):
    def edit(takes):
        takes["idx_3"]["emg"]["ch4"] = [-1] * 130

    assert len(one_user(tmp_path, edit)[0]) == 6
    with pytest.raises(RecordingError, match=r"idx_3: channel 3 is constant"):
        one_user(tmp_path, edit, allow_constant_channels=False)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda emg: emg.pop("ch7"), "no list ch7 in 'emg'"),
        (lambda emg: emg.update(ch2={"0": 1}), "no list ch2"),
        (lambda emg: emg["ch3"].pop(), "130, 130, 129, 130"),
        (lambda emg: [values.clear() for values in emg.values()], "0, 0, 0"),
        (lambda emg: emg["ch3"].__setitem__(7, "12"), "ch3, sample 7: '12' is no number from -128 to 127"),
        (lambda emg: emg["ch3"].__setitem__(7, None), "ch3, sample 7: None"),
        (lambda emg: emg["ch3"].__setitem__(7, True), "ch3, sample 7: True"),
        (lambda emg: emg["ch3"].__setitem__(7, nested(2)), "ch3, sample 7: a list of 1"),
        (lambda emg: emg["ch3"].__setitem__(7, float("nan")), "ch3, sample 7: nan"),
        (lambda emg: emg["ch8"].__setitem__(129, 1e300), "ch8, sample 129: 1e+300"),
        (lambda emg: emg["ch1"].__setitem__(0, 128), "ch1, sample 0: 128"),
        (lambda emg: emg["ch1"].__setitem__(0, -(10**400)), "ch1, sample 0: a number of more than 20 digits"),
    ],
)
def test_malformed_takes(tmp_path, edit, words):
    with pytest.raises(RecordingError) as caught:
        one_user(tmp_path, lambda takes: edit(takes["idx_5"]["emg"]))
    assert words in str(caught.value) and "user1.json, trainingSamples, idx_5" in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda takes: takes["idx_5"].update(gestureName="thumbUp"), "idx_5: gestureName 'thumbUp' is unknown"),
        (lambda takes: takes["idx_5"].update(gestureName=["fist"]), "idx_5: gestureName a list of 1 is unknown"),
        (lambda takes: takes["idx_5"].update(emg=3), "idx_5: no list ch1, ch2"),
        (
            lambda takes: takes.update(idx_5=[1]),
            "idx_5: a take with 'emg' and 'gestureName' is expected, not a list of 1",
        ),
        (lambda takes: takes.update({"idx_" + "9" * 5000: {}}), "takes are called idx_1 and so on"),
        (lambda takes: takes.clear(), "section 'trainingSamples' has no takes"),
    ],
)
def test_malformed_sections(tmp_path, edit, words):
    with pytest.raises(RecordingError) as caught:
        one_user(tmp_path, edit)
    assert words in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as JSON"),
        (b"[1, 2]", "no section 'trainingSamples' (found: a list of 2)"),
        (b'{"\\ud800": 1}', r"no section 'trainingSamples' (found: '\ud800')"),
        (b"[" * 200_000, "cannot be read as JSON"),
        (b'{"trainingSamples": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"trainingSamples": {"idx_1": "\xff"}}', "cannot be read as JSON"),
        (b'{"trainingSamples": {"idx_1": {"emg": {"ch1": [1, 2', "cannot be read as JSON"),
    ],
)
def test_files_that_are_no_recordings(tmp_path, content, words):
    one_user(tmp_path)
    path = tmp_path / "trainingJSON" / "user1" / "user1.json"
    path.write_bytes(content)
    builder = make_builder("epn612", tmp_path, **SMALL)
    with pytest.raises(RecordingError) as caught:
        builder.recording_table(builder.recordings[0])
    assert words in str(caught.value) and str(path) in str(caught.value)
    str(caught.value).encode()


def test_missing_users_and_data(corpus, tmp_path):
    builder = make_builder("epn612", corpus, **SMALL)
    assert len(builder.recordings) == 6 and len(builder.absent_subjects) == 609
    missing = r"training_user2 to training_user9, training_user11 to training_user306"
    with pytest.raises(SplitError, match=rf"609 subjects .*{missing}.*allow_missing"):
        load_corpus("epn612", corpus, **SMALL | {"allow_missing": False})
    with pytest.raises(ConfigError, match=r"needs data_dir.*zenodo\.org/records/4421500.*download=True"):
        load_corpus("epn612", **SMALL)
    with pytest.raises(LayoutError, match="expected folders trainingJSON and testingJSON"):
        load_corpus("epn612", tmp_path, **SMALL)
    shutil.copytree(corpus / "trainingJSON", tmp_path / "trainingJSON")
    with pytest.raises(SplitError, match="no subject of the test split"):
        load_corpus("epn612", tmp_path, **SMALL)


def test_a_channel_and_a_subject(corpus):
    builder = make_builder("epn612", corpus, channels=[2, 0], subjects=["training_user10"], **SMALL)
    everything = make_builder("epn612", corpus, subjects=["training_user10"], **SMALL)
    two, eight = (
        np.array(b.recording_table(b.recordings[0])["input_values"].to_pylist()) for b in (builder, everything)
    )
    np.testing.assert_array_equal(two, eight[:, [2, 0]])


FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    path = write_user(folder, "training", 1, {f"idx_{i}": take(CLASSES[i], 30, i) for i in range(3)}, section(1, 1, 30))
    write_user(folder, "testing", 1, section(2, 1, 30))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    builder = make_builder("epn612", folder, window_length=40, stride=40, allow_missing=True)
    try:
        for recording in builder.recordings[:2]:
            builder.recording_table(recording)
    except DataError as error:
        assert str(path) in str(error)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@FUZZ
@given(where=st.sampled_from(["file", "section", "take", "emg", "channel", "sample", "gesture"]), value=JSON)
def test_any_value_in_any_place(tmp_path_factory, where, value):
    folder = tmp_path_factory.mktemp("values")
    content = {"trainingSamples": {"idx_1": take("fist", 30, 0)}, "testingSamples": section(1, 1, 30)}
    sample = content["trainingSamples"]["idx_1"]
    if where == "file":
        content = copy.copy(value)
    elif where == "sample":
        sample["emg"]["ch2"][3] = value
    else:
        holder, key = {
            "section": (content, "trainingSamples"),
            "take": (content["trainingSamples"], "idx_1"),
            "emg": (sample, "emg"),
            "channel": (sample["emg"], "ch2"),
            "gesture": (sample, "gestureName"),
        }[where]
        holder[key] = value
    path = write_user(folder, "training", 1, {})
    path.write_text(json.dumps(content))
    write_user(folder, "testing", 1, section(2, 1, 30))
    builder = make_builder("epn612", folder, window_length=40, stride=40, allow_missing=True)
    try:
        builder.recording_table(builder.recordings[0])
    except RecordingError as error:
        assert str(path) in str(error)
        str(error).encode()


def test_two_real_users(shared_dir, tmp_path):
    archive = shared_dir / "data" / "epn612_two_users.tar.xz"
    data, extractor = load_corpus("epn612", archive, cache_dir=tmp_path, allow_missing=True)
    counts = {split: Counter(part["label"]) for split, part in data.items()}
    assert counts == {
        "train": dict.fromkeys(range(6), 35),
        "validation": dict.fromkeys(range(6), 25),
        "test": dict.fromkeys(range(6), 15),
    }
    assert np.array(data["test"][0]["input_values"]).shape == (8, 1000)
    names = data["train"].features["label"].names
    parsed = json.loads(next(tmp_path.rglob("trainingJSON/user1/user1.json")).read_bytes())["trainingSamples"]
    for row in data["train"].select([0, 40, 149]):
        raw = parsed[row["recording"].rpartition("/")[2]]
        assert names[row["label"]] == raw["gestureName"]
        expected, found = processed(raw["emg"])[:, :1000], np.array(row["input_values"])
        np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=1e-4)
        assert (found[:, expected.shape[1] :] == 0).all()
