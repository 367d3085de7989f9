"""emg2pose: signals, joint angles, metadata.csv, splits, bad files, and the real sample."""

import csv
import shutil
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.signal
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builders.base import (
    DataError,
    LayoutError,
    SplitError,
    load_corpus,
    make_builder,
    table_notes,
)

ROW = np.dtype([("time", "f8"), ("joint_angles", "f4", (20,)), ("emg", "f4", (16,))])
COLUMNS = "session,user,stage,start,end,side,filename,moving_hand,held_out_user,held_out_stage,split,generalization"
LENGTH = 500
SMALL = {"chunk_length": 200}


def series(seed: int, length: int = LENGTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    table = np.zeros(length, ROW)
    table["time"] = 1_670_313_600.5 + np.arange(length) / 2000
    table["emg"] = rng.normal(0, 3, (length, 16))
    table["joint_angles"] = rng.uniform(-1, 1, (length, 20))
    return table


def write(path: Path, table: np.ndarray, **attributes: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("emg2pose")
        described = {"session": "s", "user": "u", "stage": "Fist", "side": "left", "sample_rate": 2000.0}
        group.attrs.update(described | attributes)
        group.create_dataset("timeseries", data=table)


def line(name: str, user: str, split: str, generalization: str = "") -> dict[str, str]:
    session, _, side = name.rpartition("_")
    held_out = {"held_out_user": str("user" in generalization), "held_out_stage": str("stage" in generalization)}
    row = {"session": session, "user": user, "stage": "Fist", "start": "0.0", "end": "1.0", "side": side}
    row |= {"filename": name, "moving_hand": "both", "split": split, "generalization": generalization}
    return row | held_out


LINES = [
    line("2022-a-1_left", "u1", "train"),
    line("2022-a-1_right", "u1", "train"),
    line("2022-a-2_left", "u1", "val", "stage"),
    line("2022-b-1_left", "u2", "val", "user"),
    line("2022-c-10_left", "u3", "test", "user_stage"),
    line("2022-c-9_left", "u1", "test", "stage"),
]


def write_metadata(root: Path, lines: list[dict[str, str]] = LINES, name: str = "metadata.csv") -> Path:
    with open(root / name, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS.split(","))
        writer.writeheader()
        writer.writerows(lines)
    return root / name


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "emg2pose_data"
    for seed, row in enumerate(LINES):
        write(root / f"{row['filename']}.hdf5", series(seed))
    write_metadata(root)
    return root


def seed_of(name: str) -> int:
    return next(i for i, row in enumerate(LINES) if row["filename"] == name)


def whole(rows) -> dict[str, dict[str, np.ndarray]]:
    """Recordings put together from their rows: samples (channels, time), targets (frames, outputs)."""
    parts: dict[str, dict[str, list]] = {}
    for row in rows:
        of = parts.setdefault(row["recording"], {"input_values": [], "targets": []})
        assert row["start"] == sum(np.shape(values)[1] for values in of["input_values"])
        of["input_values"].append(np.array(row["input_values"]))
        of["targets"].append(np.reshape(row.get("targets", []), (-1, 20)))
    return {
        name: {"input_values": np.concatenate(of["input_values"], 1), "targets": np.concatenate(of["targets"])}
        for name, of in parts.items()
    }


def filtered(emg: np.ndarray) -> np.ndarray:
    """(time, channels) -> (channels, time), filtered as documented, with scipy alone."""
    band = scipy.signal.butter(4, (20, 450), "bandpass", fs=2000, output="sos")
    notch = scipy.signal.tf2sos(*scipy.signal.iirnotch(50, 30, fs=2000))
    return scipy.signal.sosfiltfilt(np.concatenate([band, notch]), emg.T.astype(np.float64))


def failure(root: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus("emg2pose", root, **SMALL | options)
    return str(caught.value)


def test_recordings_are_the_filtered_signals(corpus):
    data, extractor = load_corpus("emg2pose", corpus, **SMALL)
    assert {split: len(part) for split, part in data.items()} == {"train": 6, "validation": 6, "test": 6}
    assert "targets" not in data["train"].features and "label" not in data["train"].features
    assert (extractor.normalization, extractor.normalization_scope, extractor.sampling_rate) == (
        "minmax",
        "window",
        2000,
    )
    found = whole([row for part in data.values() for row in part])
    assert list(found)[-2:] == ["2022-c-9_left", "2022-c-10_left"]
    for name, values in found.items():
        raw = series(seed_of(name))
        np.testing.assert_allclose(values["input_values"], filtered(raw["emg"]), atol=1e-4)
    zscored = whole(load_corpus("emg2pose", corpus, protocol="reference", **SMALL)[0]["train"])
    for name, values in zscored.items():
        expected = filtered(series(seed_of(name))["emg"])
        expected = (expected - expected.mean(1, keepdims=True)) / expected.std(1, ddof=1, keepdims=True)
        np.testing.assert_allclose(values["input_values"], expected, atol=1e-4)


def test_splits_are_those_of_the_metadata(corpus):
    data, _ = load_corpus("emg2pose", corpus, **SMALL)
    names = {split: set(part["recording"]) for split, part in data.items()}
    assert names == {
        "train": {"2022-a-1_left", "2022-a-1_right"},
        "validation": {"2022-a-2_left", "2022-b-1_left"},
        "test": {"2022-c-9_left", "2022-c-10_left"},
    }
    known = set(data["train"]["subject"])
    for split in ("validation", "test"):
        for row in data[split]:
            assert ("user" in row["generalization"]) == (row["subject"] not in known)
    row = data["test"][-1]
    described = {name: row[name] for name in ("subject", "session", "stage", "side", "moving_hand", "generalization")}
    assert described == {
        "subject": "u3",
        "session": "2022-c-10",
        "stage": "Fist",
        "side": "left",
        "moving_hand": "both",
        "generalization": "user_stage",
    }


def test_joint_angles(corpus):
    """Stretches in which the motion capture worked, out of the recording filtered as a whole."""
    table = series(0)
    table["joint_angles"][:40] = table["joint_angles"][150:160] = 0
    table["joint_angles"][200, :19] = 0  # one joint is not at 0
    table["joint_angles"][300, 4] = np.nan
    write(corpus / "2022-a-1_left.hdf5", table)
    options = {"targets": True, "window_length": 120, "stride": 60, "chunk_length": 60}
    builder = make_builder("emg2pose", corpus, **options)
    assert len(builder.target_names()) == 20 and builder.target_names()[5] == "index MCP flexion"
    found = builder.recording_table(builder.recordings[0])
    assert table_notes(found.schema) == {
        "samples without joint angles (motion capture failed)": 51,
        "samples in stretches with joint angles shorter than a window": 110,
    }
    stretches = whole(found.to_pylist())
    assert stretches.keys() == {"2022-a-1_left/160", "2022-a-1_left/301"}
    for name, part in (("2022-a-1_left/160", slice(160, 300)), ("2022-a-1_left/301", slice(301, 500))):
        expected = filtered(table["emg"])[:, part]
        np.testing.assert_allclose(stretches[name]["input_values"], expected, atol=1e-4)
        np.testing.assert_array_equal(stretches[name]["targets"], table["joint_angles"][part])
    two = make_builder("emg2pose", corpus, channels=[5, 2], **options)
    chosen = whole(two.recording_table(two.recordings[0]).to_pylist())["2022-a-1_left/160"]["input_values"]
    np.testing.assert_allclose(chosen, filtered(table["emg"])[[5, 2], 160:300], atol=1e-4)


def test_frames_of_several_samples(corpus):
    data, _ = load_corpus("emg2pose", corpus, targets=True, target_hop=20, window_length=100, stride=100, **SMALL)
    expected = series(0)["joint_angles"].reshape(25, 20, 20).mean(axis=1)
    frames = whole(data["train"])["2022-a-1_left"]["targets"]
    np.testing.assert_allclose(frames, expected, atol=1e-6)


def test_recordings_without_angles_are_left_out(corpus, caplog):
    table = series(0)
    table["joint_angles"] = 0
    write(corpus / "2022-a-1_left.hdf5", table)
    data, _ = load_corpus("emg2pose", corpus, targets=True, window_length=100, stride=100, **SMALL)
    assert set(data["train"]["recording"]) == {"2022-a-1_right"}
    assert "2022-a-1_left.hdf5: no stretch with joint angles is as long as a window" in caplog.text


def test_windows(corpus):
    options = {"rows": "windows", "window_length": 200, "stride": 100, "targets": True, "target_hop": 10}
    data, _ = load_corpus("emg2pose", corpus, **options)
    assert list(data["train"]["start"][:4]) == [0, 100, 200, 300] and len(data["train"]) == 8
    row = data["train"][1]
    window = filtered(series(0)["emg"])[:, 100:300]
    low, high = window.min(axis=1, keepdims=True), window.max(axis=1, keepdims=True)
    np.testing.assert_allclose(row["input_values"], 2 * (window - low) / (high - low) - 1, atol=1e-4)
    expected = series(0)["joint_angles"][100:300].reshape(20, 10, 20).mean(axis=1)
    np.testing.assert_allclose(row["targets"], expected, atol=1e-6)


def test_gaps_are_counted_and_going_back_is_refused(corpus):
    path = corpus / "2022-a-1_left.hdf5"
    table = series(0)
    table["time"][300:] += 0.5
    write(path, table)
    builder = make_builder("emg2pose", corpus, **SMALL)
    assert table_notes(builder.recording_table(builder.recordings[0]).schema) == {"gaps in the timestamps": 1}
    table["time"][400] -= 1
    write(path, table)
    assert "2022-a-1_left.hdf5, field 'time', sample 400" in failure(corpus)


def test_nothing_is_opened_to_list_the_recordings(corpus, monkeypatch):
    """25,253 files of 17 MB each."""
    monkeypatch.setattr(h5py, "File", None)
    assert len(make_builder("emg2pose", corpus, **SMALL).recordings) == 6


def test_metadata_apart_and_archive(corpus, tmp_path):
    expected = whole(load_corpus("emg2pose", corpus, **SMALL)[0]["test"])
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (corpus / "metadata.csv").rename(downloads / "emg2pose_metadata.csv")
    with tarfile.open(downloads / "emg2pose_dataset.tar", "w") as archive:
        archive.add(corpus, "emg2pose_dataset")
    found = whole(load_corpus("emg2pose", downloads, cache_dir=tmp_path / "cache", **SMALL)[0]["test"])
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name]["input_values"], values["input_values"])


def test_without_metadata(corpus, caplog):
    (corpus / "metadata.csv").unlink()
    for path in corpus.glob("*_right.hdf5"):
        with h5py.File(path, "a") as file:
            file["emg2pose"].attrs.update(user="u7", session="s7", stage="Open", side="right")
    data, _ = load_corpus("emg2pose", corpus, **SMALL)
    assert data.keys() == {"train"} and len(set(data["train"]["recording"])) == 6
    assert "no metadata.csv, which has the splits" in caplog.text
    row = data["train"].filter(lambda row: row["recording"] == "2022-a-1_right")[0]
    assert (row["subject"], row["session"], row["stage"], row["side"]) == ("u7", "s7", "Open", "right")
    assert row["generalization"] == ""
    with h5py.File(corpus / "2022-a-1_left.hdf5", "a") as file:
        file["emg2pose"].attrs["user"] = 7
    assert "2022-a-1_left.hdf5, attribute 'user' of /emg2pose: not a text" in failure(corpus)


def test_missing_and_surplus_files(corpus, caplog):
    (corpus / "2022-b-1_left.hdf5").unlink()
    assert "metadata.csv: 1 of its 6 files are not there: 2022-b-1_left. Complete the corpus" in failure(corpus)
    write(corpus / "2022-z-1_left.hdf5", series(99))
    builder = make_builder("emg2pose", corpus, allow_missing=True, **SMALL)
    assert [recording.name for recording in builder.recordings if recording.split == "validation"] == ["2022-a-2_left"]
    assert builder.absent_subjects == ("u2",)
    assert "1 files are not listed and left out" in caplog.text and "going on without them" in caplog.text
    (corpus / "elsewhere").mkdir()
    shutil.copy(corpus / "2022-a-1_left.hdf5", corpus / "elsewhere")
    assert "2022-a-1_left.hdf5 is there twice" in failure(corpus)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text.replace(",split,", ",parts,"), "no column split"),
        (lambda text: text.replace("\n", ",more\n").replace("generalization,more", "generalization"), "line 2"),
        (lambda text: text.replace("2022-a-2_left", "2022-a-1_left.hdf5"), "line 4: 2022-a-1_left is listed twice"),
        (lambda text: text.replace(",u2,", ",,"), "line 5: filename, session, user"),
        (lambda text: text.replace(",val,", ",holdout,"), "line 4: unknown split 'holdout'"),
        (lambda text: text.splitlines()[0], "no recording listed"),
        (lambda text: text + '"', "cannot be read as CSV"),
    ],
)
def test_malformed_metadata(corpus, edit, words):
    path = corpus / "metadata.csv"
    path.write_text(edit(path.read_text().replace("\r", "")))
    message = failure(corpus)
    assert str(path) in message and words in message


def test_bad_recordings(corpus):
    path = corpus / "2022-a-1_left.hdf5"
    for edit, words in (
        (lambda: write(path, series(0), sample_rate=1000.0), "sampled at 1000.0 Hz instead of 2000 Hz"),
        (lambda: write(path, series(0), sample_rate="fast"), "attribute 'sample_rate' of /emg2pose: not a number"),
        (lambda: write(path, series(0)[:0]), "no samples"),
        (lambda: write(path, series(0)[["time", "emg"]]), "no field 'joint_angles'"),
        (lambda: path.write_bytes(path.read_bytes()[:1000]), "cannot be read as HDF5"),
        (lambda: path.write_bytes(b""), "is empty"),
    ):
        edit()
        message = failure(corpus, targets=True)
        assert str(path) in message and words in message, message
    table = series(0)
    table["emg"][7, 3] = np.nan
    write(path, table)
    assert "channel 3" in failure(corpus) and "sample 7" in failure(corpus)


def test_no_data(tmp_path):
    with pytest.raises(LayoutError, match=r"does not hold the corpus: expected files SESSION_SIDE\.hdf5"):
        load_corpus("emg2pose", tmp_path)
    with pytest.raises(DataError, match=r"needs data_dir.*facebookresearch/emg2pose"):
        load_corpus("emg2pose")


FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "a_left.hdf5"
    write(path, series(0, 60))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        builder = make_builder("emg2pose", folder, targets=True, window_length=20, stride=20, **SMALL)
        for recording in builder.recordings:
            builder.recording_table(recording)
    except DataError as error:
        assert str(path) in str(error)


@FUZZ
@given(st.data())
def test_damaged_metadata(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    for row in LINES[:3]:
        (folder / f"{row['filename']}.hdf5").write_bytes(row["filename"].encode())
    path = write_metadata(folder, LINES[:3])
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        recordings = make_builder("emg2pose", folder, allow_missing=True, **SMALL).recordings
        assert {recording.name for recording in recordings} <= {row["filename"] for row in LINES}
    except SplitError as error:
        assert "no recording is in the train split" in str(error) or f"{path}, line" in str(error)
    except DataError as error:
        assert str(path) in str(error)


def test_real_sample(shared_dir, tmp_path):
    archive = shared_dir / "data" / "emg2pose_sample.tar.xz"
    builder = make_builder("emg2pose", archive, cache_dir=tmp_path, targets=True, chunk_length=40, window_length=100)
    table = builder.recording_table(builder.recordings[0])
    rows = table.to_pylist()
    assert [np.shape(row["input_values"]) for row in rows] == [(16, 40), (16, 40), (16, 20)]
    assert {(row["subject"], row["side"], row["stage"]) for row in rows} == {
        ("d387095792", "right", "IndividualFingerPointingSnap_both")
    }
    with h5py.File(next(tmp_path.rglob("test_data.hdf5"))) as file:
        raw = file["emg2pose/timeseries"][()]
    found = whole(rows)["test_data"]
    np.testing.assert_allclose(found["input_values"], filtered(raw["emg"]), atol=1e-5)
    np.testing.assert_array_equal(found["targets"], raw["joint_angles"].astype(np.float32))
    assert table_notes(table.schema) == {"gaps in the timestamps": 99}  # its times count samples, not seconds
