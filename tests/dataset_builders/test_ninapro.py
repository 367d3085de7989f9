"""Ninapro DB5 to DB8: layouts, labels, splits, and values against plain computations from the variables written."""

import numpy as np
import pytest
import scipy.io
import scipy.signal
from ninapro_files import (
    SMALL,
    load,
    movement_file,
    movement_track,
    muscle_noise,
    table,
    values,
    write_db5_tree,
    write_mat,
    write_small_db5,
    write_small_db6,
    write_small_db7,
    write_small_db8,
)

from dataset_builders.base import RecordingError, make_builder, table_notes

WRITERS = {5: write_small_db5, 6: write_small_db6, 7: write_small_db7, 8: write_small_db8}
PROTOCOLS = ("paper", "reference")
UNFILTERED = {"band_pass": None, "notch_frequencies": ()}
SPLIT_REPETITIONS = {
    (5, "paper"): ({1, 3, 4, 6}, {2}, {5}),
    (5, "reference"): ({1, 2, 5}, {4, 6}, {3}),
    (6, "paper"): (set(range(1, 9)), {9, 10}, {11, 12}),
    (6, "reference"): (set(range(1, 9)), {9, 10}, {11, 12}),
    (7, "paper"): ({1, 2, 3, 4}, {5}, {6}),
    (7, "reference"): ({1, 2, 3, 4}, {5}, {6}),
}
# Krasoulis et al. 2019, equation S2, as a matrix: (5, 18)
ACTUATION = np.zeros((5, 18))
ACTUATION[0, [0, 1, 3, 16]] = 0.639, 0.383, -0.639, -0.19
ACTUATION[1, 2] = 1
ACTUATION[2, [4, 5]] = ACTUATION[3, [6, 7]] = 0.4, 0.6
ACTUATION[4, [9, 10, 12, 13]] = 0.1667, 0.3333, 0.1667, 0.3333


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A small tree of each database; not to be changed by a test."""
    root = tmp_path_factory.mktemp("ninapro")
    return {number: write(root / f"db{number}") for number, write in WRITERS.items()}


@pytest.fixture
def db5(tmp_path):
    """A DB5 of one person to damage."""
    return write_small_db5(tmp_path / "db5", (1,))


def covered(data):
    """For each split the samples in its windows, as (recording, sample)."""
    return {
        split: {
            (name, i)
            for name, start in zip(part["recording"], part["start"], strict=True)
            for i in range(start, start + 40)
        }
        for split, part in data.items()
    }


def standard(emg):
    """(time, channels), each channel with mean 0 and deviation 1."""
    return (emg - emg.mean(axis=0, dtype=float)) / emg.std(axis=0, ddof=1, dtype=float)


def assert_filtered(made, starts, emg, rate, low, high):
    """The windows are those of the filtered recording, but for how the filter starts, which tells in short ones."""
    windows = np.array(made["input_values"].to_pylist(), np.float32)
    expected = np.stack([plain(emg, rate, low, high)[s : s + 40].T for s in starts])
    assert windows.shape == expected.shape and np.corrcoef(windows.ravel(), expected.ravel())[0, 1] > 0.98
    assert 0.9 < windows.std() / expected.std() < 1.1


def plain(emg, rate, low, high):
    """(time, channels) filtered and standardised channel by channel, with the calls of the released code."""
    b, a = scipy.signal.butter(4, [low / (rate / 2), high / (rate / 2)], btype="bandpass")
    c, d = scipy.signal.iirnotch(50, 30, rate)
    columns = [scipy.signal.filtfilt(c, d, scipy.signal.filtfilt(b, a, column)) for column in emg.T.astype(float)]
    return standard(np.stack(columns, axis=1))


@pytest.mark.parametrize(("number", "protocol"), SPLIT_REPETITIONS)
def test_splits_by_repetition(corpora, number, protocol):
    """Each split has its repetitions of every recording; the others have none of them."""
    data = load(number, corpora[number], protocol)
    recordings = {file.stem for file in corpora[number].rglob("*.mat")}
    for split, repetitions in zip(("train", "validation", "test"), SPLIT_REPETITIONS[number, protocol], strict=True):
        pairs = set(zip(data[split]["recording"], data[split]["repetition"], strict=True))
        assert pairs == {(name, repetition) for name in recordings for repetition in repetitions}
    samples = covered(data)
    shared = [samples[a] & samples[b] for a, b in (("train", "validation"), ("train", "test"), ("validation", "test"))]
    if protocol == "paper":
        assert not any(shared)
    else:  # windows on a grid over the borders of repetitions, as in the released code
        assert any(shared)


@pytest.mark.parametrize(
    ("number", "protocol", "rate", "band", "notches", "normalization", "window"),
    [
        (5, "paper", 200, [20, 90], [50], "zscore", (200, 50)),
        (5, "reference", 200, [20, 90], [50], "zscore", (200, 50)),
        (6, "paper", 2000, [20, 450], [50], "minmax", (1000, 500)),
        (6, "reference", 2000, [20, 450], [50], "zscore", (1000, 500)),
        (7, "paper", 2000, [20, 450], [50], "minmax", (1000, 500)),
        (7, "reference", 2000, [20, 450], [50], "zscore", (1000, 500)),
        (8, "paper", 2000, None, [], "zscore", (200, 200)),
        (8, "reference", 1111, [20, 90], [50], "zscore", (200, 200)),
    ],
)
def test_published_preprocessing(number, protocol, rate, band, notches, normalization, window):
    extractor = make_builder(f"ninapro_db{number}", protocol=protocol).extractor
    assert (extractor.sampling_rate, extractor.band_pass, extractor.band_pass_order) == (rate, band, 4)
    assert (extractor.notch_frequencies, extractor.notch_quality, extractor.filter_mode) == (notches, 30, "zero_phase")
    assert (extractor.normalization, extractor.normalization_scope) == (normalization, "recording")
    assert (extractor.window_length, extractor.stride) == window


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_splits_of_db8_by_session(corpora, protocol):
    data = load(8, corpora[8], protocol)
    sessions = {split: set(part["session"]) for split, part in data.items()}
    if protocol == "paper":
        assert sessions == {"train": {"A1", "A2"}, "validation": {"A3"}}
    else:
        assert sessions == {"train": {"A1"}, "validation": {"A2"}, "test": {"A3"}}
    assert {(s, r) for part in data.values() for s, r in zip(part["subject"], part["recording"], strict=True)} == {
        (str(s), f"S{s}_E1_A{a}") for s in (1, 12) for a in (1, 2, 3)
    }


def test_db5_columns_and_classes(corpora):
    data = load(5, corpora[5])
    part = data["train"]
    assert {split: len(rows) for split, rows in data.items()} == {"train": 192, "validation": 48, "test": 48}
    assert values(part).shape == (192, 16, 40)
    assert set(part["subject"]) == {"1", "2"} and set(part["session"]) == {"E1", "E2", "E3"}
    names = part.features["label"].names
    assert len(names) == len(set(names)) == 53
    assert [names[i] for i in (0, 1, 12, 13, 29, 30, 52)] == [
        "rest",
        "index flexion",
        "thumb extension",
        "thumb up",
        "wrist extension with closed hand",
        "large diameter grasp",
        "cut something with an index finger extension grasp",
    ]
    labels = {session: set() for session in ("E1", "E2", "E3")}
    for row in part.remove_columns("input_values"):
        labels[row["session"]].add(row["label"])
    assert labels == {"E1": {0, 1, 12}, "E2": {0, 13, 29}, "E3": {0, 30, 52}}


def test_db5_reference_is_the_plain_computation(corpora):
    """Filter, standardise, cut on a grid, label and split by the first sample."""
    variables = scipy.io.loadmat(corpora[5] / "s2" / "S2_E3_A1.mat")
    labels, repetitions = variables["restimulus"].ravel(), variables["rerepetition"].ravel()
    emg = np.concatenate([standard(variables["emg"]), np.zeros((40, 16))])
    expected = {"train": [], "validation": [], "test": []}
    for start in range(0, len(labels) - 40 + 28, 28):
        for split, kept in zip(expected, ((1, 2, 5), (4, 6), (3,)), strict=True):
            if repetitions[start] in kept:
                label = int(labels[start])
                expected[split].append((start, label + 29 if label else 0, emg[start : start + 40].T))
    for split, rows in expected.items():
        made = table(corpora[5], "S2_E3_A1", split, protocol="reference", stride=28, **UNFILTERED)
        assert made["start"].to_pylist() == [start for start, _, _ in rows]
        assert made["label"].to_pylist() == [label for _, label, _ in rows]
        windows = np.array(made["input_values"].to_pylist(), np.float32)
        np.testing.assert_allclose(windows, np.stack([window for *_, window in rows]), atol=1e-5)
    assert expected["validation"][-1][0] + 40 > len(labels)  # zero-padded
    starts = [start for start, _, _ in expected["test"]]
    made = table(corpora[5], "S2_E3_A1", "test", protocol="reference", stride=28)
    assert_filtered(made, starts, variables["emg"], 200, 20, 90)


def test_db5_paper_windows_keep_the_transitions(corpora):
    """A stretch of 60 samples of movement and 40 of rest has windows at 0, 20, 40 and, rest, at 60."""
    variables = scipy.io.loadmat(corpora[5] / "s1" / "S1_E2_A1.mat")
    emg = standard(variables["emg"])
    made = table(corpora[5], "S1_E2_A1", "test", **UNFILTERED)
    first = 40 + 4 * 100  # repetition 5 of the first movement; the second has its own after six repetitions
    starts = [first + 600 * movement + i for movement in (0, 1) for i in (0, 20, 40, 60)]
    assert made["start"].to_pylist() == starts
    assert made["label"].to_pylist() == [13, 13, 13, 0, 29, 29, 29, 0]
    windows = np.array(made["input_values"].to_pylist(), np.float32)
    np.testing.assert_allclose(windows, np.stack([emg[s : s + 40].T for s in starts]), atol=1e-5)
    assert_filtered(table(corpora[5], "S1_E2_A1", "test"), starts, variables["emg"], 200, 20, 90)
    # the published 1000-sample windows are longer than any movement, and fit into a repetition all the same
    assert set(table(corpora[5], "S1_E2_A1", "test", window_length=100)["start"].to_pylist()) == {first, first + 600}


def test_rest_without_a_repetition(db5):
    """Belongs to the repetition before it in "paper"; to no split in "reference"."""
    path = db5 / "s1" / "S1_E1_A1.mat"
    joined = {split: table(db5, split=split) for split in ("train", "validation", "test")}
    movement_file(path, 16, movement_track((1, 12), 6, 60, 40, rest_carries=False), seed=11)
    for split, before in joined.items():
        made = table(db5, split=split)
        assert made.equals(before) and 0 in made["label"].to_pylist()
        starts = table(db5, split=split, protocol="reference")["start"].to_numpy()
        assert ((starts - 40) % 100 < 60).all()
    assert table_notes(joined["train"].schema) == {"samples that belong to no repetition, so to no split": 40}
    assert table_notes(joined["test"].schema) == {}
    notes = table_notes(table(db5, protocol="reference").schema)
    assert notes == {"samples that belong to no repetition, so to no split": 40 + 12 * 40}


def test_movements_without_a_repetition_are_left_out(db5):
    labels, repetitions = movement_track((1, 12), 6, 60, 40)
    repetitions[640:655] = 0  # as movement 12 sets in
    movement_file(db5 / "s1" / "S1_E1_A1.mat", 16, (labels, repetitions))
    made = table(db5)
    covered = {i for start in made["start"].to_pylist() for i in range(start, start + 40)}
    assert covered & set(range(640, 740)) == set(range(655, 735))
    assert table_notes(made.schema) == {"samples that belong to no repetition, so to no split": 40 + 15}


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_other_versions_of_matlab(db5, version):
    expected = table(db5)
    movement_file(db5 / "s1" / "S1_E1_A1.mat", 16, movement_track((1, 12), 6, 60, 40), 11, version)
    assert table(db5).equals(expected)


def test_subjects_sessions_and_channels(corpora):
    data = load(5, corpora[5], subjects=("2",), sessions=("E2",), channels=(0, 9))
    whole = load(5, corpora[5])["test"]
    kept = [i for i, name in enumerate(whole["recording"]) if name == "S2_E2_A1"]
    assert set(data["train"]["recording"]) == {"S2_E2_A1"}
    np.testing.assert_array_equal(values(data["test"]), values(whole)[kept][:, [0, 9]])


def test_db6_columns_and_grasps(corpora, tmp_path):
    data = load(6, corpora[6])
    assert values(data["test"]).shape[1:] == (14, 40) and len(set(data["train"]["session"])) == 10
    assert data["train"].features["label"].names[1:] == [f"grasp {i}" for i in (1, 3, 4, 6, 9, 10, 11)]
    assert set(data["train"]["label"]) == {0, 1, 7}
    assert np.abs(values(data["train"])).max() <= 1  # scaled to [-1, 1] over the recording
    path = tmp_path / "S1_D1_T1.mat"
    track = movement_track((1, 11), 12, 60, 40)
    emg = muscle_noise(track[0], 16, np.random.default_rng(11))
    movement_file(path, 16, track, emg=np.delete(emg, [8, 9], axis=1))
    fourteen = table(tmp_path, "S1_D1_T1", number=6)
    assert fourteen.equals(table(corpora[6], "S1_D1_T1", number=6))
    movement_file(path, 16, track, emg=emg)
    with pytest.raises(RecordingError, match="columns 8 and 9 hold values"):
        table(tmp_path, "S1_D1_T1", number=6)
    movement_file(path, 16, movement_track((1, 5), 12, 60, 40))
    with pytest.raises(RecordingError, match="grasp 5, but the grasps are 1, 3, 4"):
        table(tmp_path, "S1_D1_T1", number=6)


@pytest.mark.parametrize("number", [6, 7])
def test_pretraining_reference_is_the_plain_computation(corpora, number):
    """Label and split by the centre of the window; z-score."""
    name = {6: "S1_D3_T2", 7: "S22_E2_A1"}[number]
    variables = scipy.io.loadmat(next(corpora[number].rglob(f"{name}.mat")))
    emg = variables["emg"] if number == 7 else np.delete(variables["emg"], [8, 9], axis=1)
    labels, repetitions = variables["restimulus"].ravel(), variables["rerepetition"].ravel()
    held_out = (11, 12) if number == 6 else (6,)
    starts = [s for s in range(0, len(labels) - 40 + 1, 20) if repetitions[s + 20] in held_out]
    made = table(corpora[number], name, "test", number, protocol="reference", **UNFILTERED)
    assert made["start"].to_pylist() == starts
    ids = {0: 0, 1: 1, 11: 7} if number == 6 else {i: i for i in range(41)}
    assert made["label"].to_pylist() == [ids[int(labels[s + 20])] for s in starts]
    windows = np.array(made["input_values"].to_pylist(), np.float32)
    np.testing.assert_allclose(windows, np.stack([standard(emg)[s : s + 40].T for s in starts]), atol=1e-5)
    made = table(corpora[number], name, "test", number, protocol="reference")
    assert_filtered(made, starts, emg, 2000, 20, 450)


def test_db7_numbers_of_the_second_exercise(corpora, tmp_path):
    data = load(7, corpora[7])
    assert values(data["test"]).shape[1:] == (12, 40) and set(data["train"]["label"]) == {0, 1, 17, 18, 40}
    write_small_db7(tmp_path, (1,), first_of_e2=1)
    assert set(load(7, tmp_path)["train"]["label"]) == {0, 1, 17, 18, 40}
    movement_file(tmp_path / "Subject_1" / "S1_E2_A1.mat", 12, movement_track((1, 24), 6, 60, 40))
    with pytest.raises(RecordingError, match="movement 24, but this file has movements 1 to 23"):
        load(7, tmp_path)


def test_db8_targets(corpora):
    """Windows of the samples with a whole glove reading, and the matrix times the glove."""
    variables = scipy.io.loadmat(corpora[8] / "S12_E1_A2.mat")
    whole = ~np.isnan(variables["glove"]).any(axis=1)
    emg, glove = variables["emg"][whole].astype(float), variables["glove"][whole]
    made = table(corpora[8], "S12_E1_A2", number=8, stride=40)
    starts = list(range(0, 895 - 40 + 1, 40))
    assert made["start"].to_pylist() == starts
    targets = np.array(made["targets"].to_pylist(), np.float32)
    assert targets.shape == (22, 40, 5)
    np.testing.assert_allclose(
        targets, np.stack([glove[s : s + 40] @ ACTUATION.T for s in starts]), rtol=1e-5, atol=1e-4
    )
    windows = np.array(made["input_values"].to_pylist(), np.float32)
    np.testing.assert_allclose(windows, np.stack([standard(emg)[s : s + 40].T for s in starts]), atol=1e-5)
    assert table_notes(made.schema) == {"samples without a complete glove reading": 5}
    reference = table(corpora[8], "S12_E1_A2", "validation", 8, stride=40, protocol="reference")
    assert_filtered(reference, starts, emg, 1111, 20, 90)
    tens = table(corpora[8], "S12_E1_A2", number=8, stride=40, target_hop=10)
    means = targets.reshape(22, 4, 10, 5).mean(axis=2)
    np.testing.assert_allclose(np.array(tens["targets"].to_pylist()), means, rtol=1e-4, atol=1e-3)


def test_db8_names_and_bad_gloves(corpora, tmp_path):
    builder = make_builder("ninapro_db8", corpora[8], **SMALL)
    assert builder.task() == "regression" and len(builder.target_names()) == 5
    assert (builder.extractor.band_pass, builder.extractor.sampling_rate) == (None, 2000)
    path = tmp_path / "S1_E1_A1.mat"
    emg = np.random.default_rng(0).random((900, 16))
    for glove, words in (
        (np.zeros((900, 22)), "variable 'glove': 22 columns, but this database has 18"),
        (np.full((900, 18), np.nan), "'glove': no sample is complete"),
        (np.zeros((800, 18)), "900 samples of 'emg', but 800 of 'glove'"),
    ):
        write_mat(path, {"emg": emg, "glove": glove})
        with pytest.raises(RecordingError, match=words):
            table(tmp_path, number=8)
    write_mat(path, {"emg": emg, "glove": np.zeros((896, 18))})
    notes = table_notes(table(tmp_path, number=8).schema)
    assert notes == {"samples of emg after the last of glove": 4}


@pytest.mark.parametrize(("number", "count"), [(5, 10), (6, 20), (7, 22), (8, 36)])
def test_downloads_are_the_whole_corpus(number, count):
    builder_class = type(make_builder(f"ninapro_db{number}"))
    urls = [download.url for download in builder_class.DOWNLOADS]
    assert len(set(urls)) == count and all(url.startswith("https://ninapro.hevs.ch/files/DB") for url in urls)


def test_the_tree_of_realistic_length(tmp_path):
    """Here with shorter movements: every class, every repetition."""
    write_db5_tree(tmp_path, subjects=1, seconds=0.3, rest_seconds=0.2)
    data = load(5, tmp_path)
    assert set(data["train"]["label"]) == set(range(53))
    assert len(data["test"]) == 52 * (1 + (100 - 40) // 20)
