"""Folders of one's own recordings: every file format, labels of both kinds, splits, and what can be wrong."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from dataset_builders.base import DataError, load_corpus, make_builder

SMALL = {"window_length": 100, "stride": 50}
RNG = np.random.default_rng(0)


def emg(channels: int = 4, samples: int = 400) -> np.ndarray:
    return RNG.normal(0, 1e-4, (channels, samples)).round(7)


def table(signal: np.ndarray, **columns) -> pd.DataFrame:
    return pd.DataFrame({f"ch{i}": row for i, row in enumerate(signal)} | columns)


def write(path, signal: np.ndarray) -> None:
    if path.suffix == ".csv":
        table(signal).to_csv(path, index=False)
    elif path.suffix == ".tsv":
        table(signal).to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        table(signal).to_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, signal)
    elif path.suffix == ".npz":
        np.savez(path, emg=signal, fs=200.0)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"emg": signal.T})
    else:
        with h5py.File(path, "w") as file:
            file["emg"] = signal


def write_metadata(root, rows: list[dict]) -> None:
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)


@pytest.fixture
def folder(tmp_path):
    """Four subjects with two gestures each, in eight formats."""
    root = tmp_path / "mine"
    root.mkdir()
    rows = []
    for i, suffix in enumerate(("csv", "tsv", "parquet", "npy", "npz", "mat", "h5", "csv")):
        name = f"r{i}.{suffix}"
        write(root / name, emg())
        gesture = "fist" if i % 2 else "open"
        rows.append(
            {"file_name": name, "label": gesture, "subject": f"p{i // 2}", "session": "a", "sampling_rate": 200}
        )
    write_metadata(root, rows)
    return root


def edit(folder, line: int, **cells) -> None:
    """Change cells of a line of metadata.csv (1 is the header)."""
    frame = pd.read_csv(folder / "metadata.csv", dtype=object)
    for name, value in cells.items():
        if name not in frame:
            frame[name] = None
        frame.loc[line - 2, name] = value
    frame.to_csv(folder / "metadata.csv", index=False)


def failure(folder, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus("emg_folder", folder, **SMALL | options)
    return str(caught.value)


def test_every_format(folder):
    data, extractor = load_corpus("emg_folder", folder, num_proc=2, **SMALL)
    assert {split: set(part["subject"]) for split, part in data.items()} == {
        "train": {"p0", "p1"},
        "validation": {"p2"},
        "test": {"p3"},
    }
    assert data["train"].features["label"].names == ["fist", "open"]
    assert len(data["train"]) == 4 * 7 and np.array(data["train"]["input_values"]).shape == (28, 4, 100)
    assert (extractor.sampling_rate, extractor.feature_size, extractor.on_rate_mismatch) == (200, 4, "error")
    assert set(data["test"]["recording"]) == {"r6.h5", "r7.csv"} and set(data["test"]["session"]) == {"a"}


def test_archive(folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "mine"), "gztar", tmp_path, "mine")
    assert len(load_corpus("emg_folder", archive, **SMALL)[0]["train"]) == 28


def test_split_column(folder, caplog):
    for line in range(2, 10):
        edit(folder, line, split=("train", "VAL", "test", "train")[line % 4])
    data, _ = load_corpus("emg_folder", folder, **SMALL)
    assert {split: len(part) for split, part in data.items()} == {"train": 28, "validation": 14, "test": 14}
    edit(folder, 5, split=None)
    assert "line 5: no split" in failure(folder)
    edit(folder, 5, split="holdout")
    assert "line 5: unknown split 'holdout'" in failure(folder)


def test_held_out_subjects(folder):
    data, _ = load_corpus("emg_folder", folder, test_subjects=["p0"], validation_subjects=["p1"], **SMALL)
    assert {split: set(part["subject"]) for split, part in data.items()} == {
        "train": {"p2", "p3"},
        "validation": {"p1"},
        "test": {"p0"},
    }
    assert "p9" in failure(folder, test_subjects=["p9"])
    assert "both" in failure(folder, test_subjects=["p0"], validation_subjects=["p0"])


def test_everything_in_one_split(folder):
    edit(folder, 2, subject=None)  # with nobody to hold out
    data, _ = load_corpus("emg_folder", folder, protocol="all_train", **SMALL)
    assert {split: len(part) for split, part in data.items()} == {"train": 56}
    for line in range(2, 10):
        edit(folder, line, split="test")
    data, _ = load_corpus("emg_folder", folder, protocol="all_train", **SMALL)
    assert list(data) == ["train"]


def test_a_label_per_sample(folder):
    for i in range(8):
        (folder / f"r{i}.{('csv', 'tsv', 'parquet', 'npy', 'npz', 'mat', 'h5', 'csv')[i]}").unlink()
    names = np.repeat(["", "open", "fist", "rest"], 110)
    numbers = np.repeat([-1, 0, 1, 9], 110)
    rows = []
    for i, (gesture, subject) in enumerate([(names, "a"), (numbers, "b"), (names, "c")]):
        table(emg(samples=440), gesture=gesture).to_csv(folder / f"s{i}.csv", index=False)
        rows.append({"file_name": f"s{i}.csv", "subject": subject, "sampling_rate": 200, "label_column": "gesture"})
    write_metadata(folder, rows)
    options = {"class_names": ["open", "fist"], "ignore_labels": [-1, 9, "rest"]}
    data, _ = load_corpus("emg_folder", folder, **SMALL, **options)
    for split in ("train", "validation", "test"):
        assert list(data[split]["label"]) == [0, 1] and list(data[split]["start"]) == [110, 220]
    assert "set the option class_names" in failure(folder)
    message = failure(folder, class_names=["open", "fist"], ignore_labels=[-1, 9])
    assert "s0.csv, sample 330: label 'rest' is not a class (open, fist)" in message


def test_rates_that_differ(folder):
    edit(folder, 4, sampling_rate=400)
    message = failure(folder)
    assert "r0.csv (line 2) at 200 Hz" in message and "r2.parquet (line 4) at 400 Hz" in message
    assert "option sampling_rate" in message
    data, extractor = load_corpus("emg_folder", folder, sampling_rate=200, **SMALL)
    assert extractor.on_rate_mismatch == "resample"
    counts = {name: list(data["train"]["recording"]).count(name) for name in set(data["train"]["recording"])}
    assert counts == {"r0.csv": 7, "r1.tsv": 7, "r2.parquet": 3, "r3.npy": 7}


def test_rate_stated_by_nobody_or_by_the_file(folder):
    for line in range(2, 10):
        edit(folder, line, sampling_rate=None)
    assert "add a column sampling_rate" in failure(folder)
    assert "states a sampling rate" in failure(folder, sampling_rate=200)
    for line in range(2, 10):
        edit(folder, line, sampling_rate=500)
    assert "r4.npz: the file states a sampling rate of 200 Hz, but" in failure(folder)


@pytest.mark.parametrize(
    ("line", "cells", "words"),
    [
        (3, {"file_name": "absent.csv"}, ("line 3", "absent.csv does not exist")),
        (3, {"file_name": "../outside.csv"}, ("line 3", "lies outside")),
        (3, {"file_name": None}, ("line 3", "file_name is empty")),
        (3, {"file_name": "r0.csv"}, ("line 3", "already on line 2")),
        (4, {"sampling_rate": "fast"}, ("line 4", "'fast' is not a number")),
        (4, {"sampling_rate": "-200"}, ("line 4", "not a positive number")),
        (5, {"subject": None}, ("line 5", "neither split nor subject")),
        (5, {"label": None}, ("line 5", "neither label nor label_column")),
    ],
)
def test_bad_metadata(folder, line, cells, words):
    edit(folder, line, **cells)
    message = failure(folder)
    for word in ("metadata.csv", *words):
        assert word in message


def test_metadata_that_is_no_table(folder):
    path = folder / "metadata.csv"
    good = path.read_text()
    path.write_text(good + "r9.csv,open\n")
    assert "line 10: not as many cells" in failure(folder)
    path.write_text(good.replace("file_name", "file"))
    assert "no column file_name (found: file, label" in failure(folder)
    path.write_text(good.splitlines()[0] + "\n")
    assert "no recording listed" in failure(folder)
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "UTF-8" in failure(folder)
    path.unlink()
    assert "metadata.csv with the columns" in failure(folder)


def test_labels_outside_the_mapping(folder):
    assert "label 'fist' is not a class (open, rest)" in failure(folder, class_names=["open", "rest"])


def test_other_number_of_channels(folder):
    write(folder / "r3.npy", emg(channels=5))
    message = failure(folder)
    assert "r3.npy" in message and "5 channels" in message


def test_bad_signal_in_a_file(folder):
    signal = emg()
    signal[2, 7] = np.nan
    write(folder / "r3.npy", signal)
    message = failure(folder)
    assert "r3.npy" in message and "channel 2" in message and "sample 7" in message
    assert load_corpus("emg_folder", folder, max_gap=1, **SMALL)
    write(folder / "r3.npy", emg(samples=60))
    assert "60 samples, shorter than one window of 100" in failure(folder)


def test_chosen_channels(folder):
    builder = make_builder("emg_folder", folder, channels=[0, 2], **SMALL)
    assert builder.num_channels() == 2 and len(builder.recording_table(builder.recordings[0])) == 7


def test_editing_metadata_prepares_anew(folder):
    load_corpus("emg_folder", folder, **SMALL)
    edit(folder, 2, label="rest")
    assert load_corpus("emg_folder", folder, **SMALL)[0]["train"].features["label"].names == ["fist", "open", "rest"]
