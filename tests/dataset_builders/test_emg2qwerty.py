"""emg2qwerty: sessions, keystrokes, splits, damaged files."""

import json
import shutil
import tarfile

import h5py
import numpy as np
import pytest
import yaml
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builders.base import (
    DataError,
    LayoutError,
    RecordingError,
    SplitError,
    load_corpus,
    make_builder,
    table_notes,
)
from dataset_builders.emg2qwerty import CHARACTERS, character_of, parse_keystrokes
from dataset_builders.emg2qwerty_splits import read_split_file
from dataset_builders.hub import prepare

RATE = 2000
BEGIN = 1_608_247_041.25  # seconds
SMALL = {"window_length": 400, "stride": 400, "chunk_length": 300}
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

KEYS = [("t", 0), ("Key.space", 250.5), ("T", 299.75), ("Key.backspace", 300), ("’", 640), ("Key.enter", 999)]
TYPED = "t T⌫'⏎"


def session(user: str, number: int) -> str:
    return f"2020-12-1{number}-160824704{number}-keystrokes-dca-study@1-{user}"


def keystroke(key: str, sample: float, held: float = 40) -> dict:
    return {"key": key, "start": BEGIN + sample / RATE, "end": BEGIN + (sample + held) / RATE, "ascii": 0}


def write_session(folder, name, user="u0", keys=KEYS, length=1000, seed=0, **changes) -> np.ndarray:
    """A session file; returns its samples (32, length), left before right. `keys` are (key, sample) pairs.

    changes: `times` of the samples, `keystrokes` as text, any attribute by name (None leaves it out), `compression`.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    rows = np.empty(length, [("emg_right", "<f4", (16,)), ("time", "<f8"), ("emg_left", "<f4", (16,))])
    rows["emg_left"], rows["emg_right"] = rng.normal(0, 30, (2, length, 16))
    rows["time"] = changes.get("times", BEGIN + np.arange(length) / RATE)
    # what was on the screen is not always a text
    prompts = [{"name": "text_prompt", "payload": payload, "start": BEGIN, "end": BEGIN} for payload in (None, {})]
    attributes = {
        "session_name": name,
        "user": user,
        "condition": "on_keyboard",
        "duration_mins": length / RATE / 60,
        "keystrokes": json.dumps([keystroke(*key) for key in keys]),
        "prompts": json.dumps(prompts),
    } | {key: value for key, value in changes.items() if key not in ("times", "compression")}
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        group = file.create_group("emg2qwerty")
        group.create_dataset("timeseries", data=rows, compression=changes.get("compression"))
        for key, value in attributes.items():
            if value is not None:
                group.attrs[key] = value
    return np.concatenate([rows["emg_left"].T, rows["emg_right"].T])


def write_split(path, **splits) -> None:
    """A split file as the corpus's own: train, val and test are lists of (user, number of the session)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = {
        split: [{"user": user, "session": session(user, number)} for user, number in members]
        for split, members in splits.items()
    }
    text = yaml.safe_dump({"user": path.stem, "dataset": lists}, sort_keys=False)
    path.write_text(f"# @package _global_\n{text}")


GENERIC = {
    "train": [("71409769", 0), ("71409769", 1), ("09456349", 0)],
    "val": [("71409769", 2), ("09456349", 1)],
    "test": [("8d193c13-cd70", 0), ("8d193c13-cd70", 1)],
}


@pytest.fixture
def corpus(tmp_path):
    """Sessions of three users in the layout of the archive, with the generic split and one of a user."""
    root = tmp_path / "emg2qwerty-data-2021-08"
    for members in GENERIC.values():
        for user, number in members:
            write_session(root, session(user, number), user)
    write_session(root, session("8d193c13-cd70", 2), "8d193c13-cd70")
    write_session(root, session("71409769", 3), "71409769")  # in no split
    write_split(root / "generic.yaml", **GENERIC)
    own = {split: [("8d193c13-cd70", number)] for split, number in (("train", 2), ("val", 0), ("test", 1))}
    write_split(root / "config" / "user" / "user0.yaml", **own)
    (root / "metadata.csv").write_text("session,user,duration_mins,num_keystrokes\nx,71409769,1.0,3\n")
    return root


def stored(part) -> dict[str, dict]:
    """What each session of a split holds: samples (32, length), events (character, start, end), its columns."""
    found: dict[str, dict] = {}
    names = part.features["events"].feature["name"]
    for row in part:
        entry = found.setdefault(row["recording"], {"samples": [], "events": [], "row": row})
        assert row["start"] == sum(block.shape[1] for block in entry["samples"])
        entry["samples"].append(np.array(row["input_values"], np.float32))
        for event in row["events"]:
            assert row["start"] <= event["start"] < row["start"] + len(row["input_values"][0])
            entry["events"].append((names.int2str(event["name"]), event["start"], event["end"]))
    for entry in found.values():
        entry["samples"] = np.concatenate(entry["samples"], axis=1)
        assert entry["samples"].shape == (32, entry["row"]["recording_length"])
    return found


def test_generic_protocol(corpus):
    data, extractor = load_corpus("emg2qwerty", corpus, **SMALL)
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        sessions = stored(data[split])
        assert list(sessions) == [session(*member) for member in GENERIC[key]]
        assert [entry["row"]["subject"] for entry in sessions.values()] == [user for user, _ in GENERIC[key]]
    user, number = GENERIC["train"][1]
    entry = stored(data["train"])[session(user, number)]
    np.testing.assert_array_equal(entry["samples"], write_session(corpus, session(user, number), user))
    assert "".join(name for name, _, _ in entry["events"]) == TYPED
    np.testing.assert_allclose([start for _, start, _ in entry["events"]], [at for _, at in KEYS], atol=1e-3)
    ends = [min(at + 40, 999) for _, at in KEYS]  # the last key is held beyond the end
    np.testing.assert_allclose([end for _, _, end in entry["events"]], ends, atol=1e-3)
    assert entry["row"]["session"] == entry["row"]["session_name"] == session(user, number)
    assert (entry["row"]["condition"], entry["row"]["duration_mins"]) == ("on_keyboard", 1000 / RATE / 60)
    assert (extractor.sampling_rate, extractor.band_pass, extractor.normalization) == (2000, None, "none")


@pytest.mark.parametrize("user", ["generic", "user0"])
def test_no_session_is_in_two_splits(corpus, user):
    builder = make_builder("emg2qwerty", corpus, user=user, **SMALL)
    splits = {
        split: {(r.subject, r.path) for r in builder.recordings if r.split == split}
        for split in ("train", "validation", "test")
    }
    sessions = [path for members in splits.values() for _, path in members]
    assert len(sessions) == len(set(sessions)) == {"generic": 7, "user0": 3}[user]
    users = {split: {subject for subject, _ in members} for split, members in splits.items()}
    if user == "generic":
        assert not users["test"] & (users["train"] | users["validation"])
    else:
        assert users == dict.fromkeys(users, {"8d193c13-cd70"})


def test_class_ids_are_those_of_the_character_set():
    places = {0: "a", 25: "z", 26: "A", 51: "Z", 52: "0", 61: "9", 62: "!", 93: "~", 94: "⌫", 95: "⏎", 96: " ", 97: "⇧"}
    assert {i: CHARACTERS[i] for i in places} == places
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 98


def ids(keys):
    return [CHARACTERS.index(character) for key in keys if (character := character_of(key)) is not None]


def test_keys_become_characters():
    assert ids("\n\r\b\x08") == [95, 95, 94, 94]
    assert ids("\u2019\u201d\u2014") == [68, 63, 74]
    assert ids(["Key.shift", "Key.space", "⏎", "⇧", "⌫", "é", "Ä"]) == [97, 96, 95, 97, 94, 4, 26]
    assert ids(["Key.tab", "Key.shift_l", "Key.ctrl", "", "ab", "ß", "猫", "\x00", "⇥"]) == []


def test_left_out_keystrokes_are_counted(corpus):
    keys = [("a", -1), ("Key.tab", -1), ("b", 5, -3), ("Key.tab", 6), ("c", 7), ("d", 999.5), ("e", 2000)]
    write_session(corpus, session("71409769", 0), keys=keys)
    builder = make_builder("emg2qwerty", corpus, **SMALL)
    table = builder.recording_table(builder.recordings[0])
    assert table_notes(table.schema) == {
        "keystrokes outside the recording": 4,
        "keystrokes of keys outside the character set": 1,
        "keystrokes without a release after the press": 1,
    }
    events = [event for row in table["events"].to_pylist() for event in row]
    assert [CHARACTERS[event["name"]] for event in events] == ["b", "c"]
    np.testing.assert_allclose([event["end"] for event in events], [5, 47], atol=1e-3)


def test_keystrokes_follow_the_clock_of_the_samples(corpus):
    times = BEGIN + np.arange(1000) / RATE
    times[400:] += 1
    keys = [("a", 399 + 2001 / 2, 0), ("b", 2000 + 500)]
    write_session(corpus, session("71409769", 0), keys=keys, times=times)
    signal = first_signal(corpus)
    np.testing.assert_allclose(signal.events.starts, [399.5, 500], atol=1e-3)
    np.testing.assert_allclose(signal.events.ends, [399.5, 540], atol=1e-3)
    assert signal.notes["gaps in the timestamps"] == 1


def first_signal(root):
    builder = make_builder("emg2qwerty", root, **SMALL)
    return builder.read_recording(builder.recordings[0])


def test_session_without_keystrokes_and_release(corpus):
    write_session(corpus, session("71409769", 0), keys=[], compression="gzip")
    assert first_signal(corpus).events.names == ()
    keys = [{"key": "a", "start": BEGIN}, {"key": "b", "start": int(BEGIN) + 1, "end": None}]
    write_session(corpus, session("71409769", 0), keystrokes=json.dumps(keys), length=3000)
    signal = first_signal(corpus)
    assert signal.events.names == ("a", "b")
    np.testing.assert_allclose(signal.events.ends, [0, 1500], atol=1e-3)


def test_prepared_folder_keeps_the_characters(corpus, tmp_path):
    prepare("emg2qwerty", corpus, tmp_path / "out", **SMALL)
    data, _ = load_corpus(tmp_path / "out")
    assert data["test"].features["events"].feature["name"].names == list(CHARACTERS)
    assert {"".join(name for name, _, _ in entry["events"]) for entry in stored(data["test"]).values()} == {TYPED}


def test_archive_beside_the_split_file(corpus, tmp_path):
    folder = tmp_path / "download"
    folder.mkdir()
    with tarfile.open(folder / "emg2qwerty-data-2021-08.tar.gz", "w:gz") as archive:
        archive.add(corpus, "emg2qwerty-data-2021-08")
    shutil.copy(corpus / "generic.yaml", folder)
    builder = make_builder("emg2qwerty", folder, tmp_path / "cache", **SMALL)
    assert [r.name for r in builder.recordings] == [session(*member) for part in GENERIC.values() for member in part]


def test_split_by_a_column_of_the_metadata(corpus):
    (corpus / "generic.yaml").unlink()
    with pytest.raises(LayoutError, match=r"Copy generic\.yaml from .* column `split`"):
        make_builder("emg2qwerty", corpus).recordings  # noqa: B018
    rows = [
        *(("71409769", 0, "train"), ("71409769", 1, "val"), ("71409769", 2, "")),
        ("8d193c13-cd70", 0, "test"),
    ]
    lines = [f"{number},{user},{session(user, number)},{split}" for user, number, split in rows]
    (corpus / "metadata.csv").write_text("\n".join(["n,user,session,split", *lines]))
    builder = make_builder("emg2qwerty", corpus)
    assert [(r.subject, r.name, r.split) for r in builder.recordings] == [
        (user, session(user, number), {"val": "validation"}.get(split, split)) for user, number, split in rows if split
    ]


def test_split_file_elsewhere_counts_by_its_content(corpus, tmp_path):
    path = tmp_path / "mine.yaml"
    write_split(path, **GENERIC | {"train": GENERIC["train"][:1]})
    builder = make_builder("emg2qwerty", corpus, split_file=str(path))
    assert len(builder.recordings) == 5
    moved = shutil.copy(path, tmp_path / "moved.yaml")
    assert make_builder("emg2qwerty", corpus, split_file=str(moved)).config_id == builder.config_id
    write_split(path, **GENERIC)
    assert make_builder("emg2qwerty", corpus, split_file=str(path)).config_id != builder.config_id
    with pytest.raises(LayoutError, match="no such file"):
        make_builder("emg2qwerty", corpus, split_file="nowhere.yaml").recordings  # noqa: B018


def test_missing_split_file(corpus):
    with pytest.raises(LayoutError, match=r"Copy user5\.yaml from https://github\.com/facebookresearch/emg2qwerty"):
        make_builder("emg2qwerty", corpus, user="user5").recordings  # noqa: B018


def test_absent_sessions(corpus):
    (corpus / f"{session('09456349', 0)}.hdf5").unlink()
    with pytest.raises(SplitError, match=rf"1 of the 7 sessions .*{session('09456349', 0)}.*allow_missing"):
        make_builder("emg2qwerty", corpus).recordings  # noqa: B018
    builder = make_builder("emg2qwerty", corpus, allow_missing=True)
    assert len(builder.recordings) == 6 and builder.absent_subjects == ()
    (corpus / f"{session('09456349', 1)}.hdf5").unlink()
    with pytest.raises(SplitError, match="all of users 09456349"):
        make_builder("emg2qwerty", corpus).recordings  # noqa: B018
    builder = make_builder("emg2qwerty", corpus, allow_missing=True)
    assert len(builder.recordings) == 5 and builder.absent_subjects == ("09456349",)
    for number in (0, 1):
        (corpus / f"{session('8d193c13-cd70', number)}.hdf5").unlink()
    with pytest.raises(SplitError, match="no session of the test split"):
        make_builder("emg2qwerty", corpus, allow_missing=True).recordings  # noqa: B018


def test_layout_errors(tmp_path, corpus):
    with pytest.raises(LayoutError, match="does not hold the corpus"):
        make_builder("emg2qwerty", corpus / "config").recordings  # noqa: B018
    name = f"{session('71409769', 0)}.hdf5"
    (corpus / "copy").mkdir()
    shutil.copy(corpus / name, corpus / "copy" / name)
    with pytest.raises(LayoutError, match="is there twice"):
        make_builder("emg2qwerty", corpus).recordings  # noqa: B018


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": [("a", 0)], "val": [("a", 0)]}, ("session", "both the train and the validation")),
        ({"train": [("a", 0)], "test": [("a", 1)]}, ("users a", "test split", "not seen")),
        ({"train": [("a", 0)], "val": [("b", 1)], "test": [("b", 0)]}, ("users b",)),
        ({"train": [("a", 0)], "dev2": [("b", 1)]}, ("dataset", "'dev2'")),
        ({"train": []}, ("no session",)),
    ],
)
def test_splits_that_leak(tmp_path, splits, words):
    write_split(tmp_path / "generic.yaml", **splits)
    with pytest.raises(SplitError) as caught:
        read_split_file(tmp_path / "generic.yaml", "generic")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("generic.yaml", "dataset: [1", ("not valid YAML",)),
        ("generic.yaml", "[" * 1500, ("not valid YAML",)),
        ("generic.yaml", "- a", ("no mapping `dataset`",)),
        ("generic.yaml", "dataset: 5", ("no mapping `dataset`",)),
        ("generic.yaml", "dataset: {train: 5}", ("dataset.train is not a list",)),
        ("generic.yaml", "dataset: {train: [{user: 5}]}", ("dataset.train[0]", "`session`")),
        ("generic.yaml", "dataset: {train: [{user: a, session: [b]}]}", ("dataset.train[0]",)),
        ("generic.yaml", "dataset: {train: [a]}", ("dataset.train[0]",)),
        ("generic.yaml", "dataset: !!python/object/apply:os.getcwd []", ("no mapping",)),
        ("metadata.csv", "session,split\na,train", ("line 1", "no column user")),
        ("metadata.csv", "session,user,split\na,,train", ("line 2", "empty")),
        ("metadata.csv", "session,user,split\na,b,train\nc,d,exam", ("line 3", "'exam'")),
        ("metadata.csv", "session,user,split\na", ("no session",)),
    ],
)
def test_faulty_split_files(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_split_file(tmp_path / name, "generic")
    assert all(word in str(caught.value) for word in (*words, str(tmp_path / name)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keystrokes": "[{"}, ("'keystrokes'", "not valid JSON")),
        ({"keystrokes": "[" * 100_000}, ("not valid JSON",)),
        ({"keystrokes": "{}"}, ("not a list",)),
        ({"keystrokes": "[5]"}, ("item 0", "`key`")),
        ({"keystrokes": '[{"key": 5, "start": 1}]'}, ("item 0", "`key`")),
        ({"keystrokes": '[{"key": "a", "start": "1"}]'}, ("item 0", "`start`")),
        ({"keystrokes": '[{"key": "a", "start": NaN}]'}, ("item 0", "`start`")),
        ({"keystrokes": f'[{{"key": "a", "start": 1{"0" * 400}}}]'}, ("item 0", "`start`")),
        ({"keystrokes": '[{"key": "a", "start": true}]'}, ("item 0", "`start`")),
        ({"keystrokes": '[{"key": "a", "start": 1, "end": "x"}]'}, ("item 0", "`end`", "'x'")),
        ({"keystrokes": '[{"key": "a", "start": 2}, {"key": "a", "start": 1}]'}, ("item 1", "before the one before")),
        ({"keystrokes": None}, ("no attribute 'keystrokes'",)),
        ({"keystrokes": 5}, ("'keystrokes'", "not a text")),
        ({"condition": None}, ("no attribute 'condition'",)),
        ({"duration_mins": "long"}, ("'duration_mins'", "not a number")),
        ({"duration_mins": [1.0, 2.0]}, ("'duration_mins'", "not a number")),
        ({"condition": np.bytes_(b"\xff")}, ("'condition'", "UTF-8")),
        ({"times": BEGIN - np.arange(1000) / RATE}, ("sample 1", "back")),
        ({"times": BEGIN + np.arange(1000) / 1000}, ("1 ms apart",)),
        ({"times": BEGIN + np.where(np.arange(1000) == 7, np.inf, 0)}, ("sample 7", "inf")),
        ({"length": 0, "times": []}, ("no samples",)),
    ],
)
def test_faulty_sessions(corpus, changes, words):
    name = session("71409769", 0)
    write_session(corpus, name, **changes)
    with pytest.raises(RecordingError) as caught:
        first_signal(corpus)
    assert all(word in str(caught.value) for word in (str(corpus / f"{name}.hdf5"), *words)), str(caught.value)


def test_attributes_as_bytes(corpus):
    name = session("71409769", 0)
    text = json.dumps([keystroke("a", 3)]).encode()
    write_session(corpus, name, keystrokes=np.bytes_(text), condition=np.bytes_(b"on_keyboard"))
    signal = first_signal(corpus)
    assert signal.events.names == ("a",) and signal.metadata["condition"] == "on_keyboard"


def test_a_damaged_type_of_an_attribute_does_not_crash_the_library(corpus):
    """A text whose type turned into another sequence of variable length, one bit away."""
    path = corpus / f"{session('71409769', 0)}.hdf5"
    text = bytes.fromhex("19 01 01 00 10 00 00 00")
    assert text in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(text, bytes.fromhex("19 00 01 00 10 00 00 00")))
    with pytest.raises(RecordingError, match="'session_name' of /emg2qwerty: not a text"):
        first_signal(corpus)


@pytest.mark.parametrize(("field", "width"), [("emg_left", 8), ("emg_right", None)])
def test_other_fields(corpus, field, width):
    kinds = [("emg_left", "<f4", (16,)), ("emg_right", "<f4", (16,)), ("time", "<f8")]
    kinds = [
        (name, kind, *((width,) if name == field else shape)) for name, kind, *shape in kinds if width or name != field
    ]
    path = corpus / f"{session('71409769', 0)}.hdf5"
    with h5py.File(path, "r+") as file:
        del file["emg2qwerty/timeseries"]
        file["emg2qwerty/timeseries"] = np.zeros(10, kinds)
    with pytest.raises(RecordingError, match=f"'timeseries'.*'{field}' with .16,"):
        first_signal(corpus)


@FUZZ
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    write_session(folder, session("a", 0), keys=KEYS[:3], length=40)
    write_split(folder / "generic.yaml", train=[("a", 0)])
    path = folder / f"{session('a', 0)}.hdf5"
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    builder = make_builder("emg2qwerty", folder, **SMALL)
    try:
        builder.recording_table(builder.recordings[0])
    except DataError as error:
        assert str(path) in str(error)


@FUZZ
@given(st.data())
def test_damaged_keystrokes(data):
    valid = json.dumps([keystroke(*key) for key in KEYS]).encode()
    try:
        keystrokes = parse_keystrokes(data.draw(damaged(valid)).decode("utf-8", "replace"), "session.hdf5")
    except DataError as error:
        assert "session.hdf5" in str(error)
    else:
        assert all(isinstance(k.key, str) and np.isfinite(k.start) for k in keystrokes)


@pytest.mark.parametrize("name", ["generic.yaml", "metadata.csv"])
@FUZZ
@given(data=st.data())
def test_damaged_split_files(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("fuzz")
    write_split(folder / "generic.yaml", train=[("a", 0), ("a", 1)], val=[("a", 2)], test=[("b", 0)])
    (folder / "metadata.csv").write_text("session,user,split\nx,a,train\ny,a,val\nz,b,test\n")
    path = folder / name
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        read_split_file(path, "generic")
    except DataError as error:
        assert str(path) in str(error)
