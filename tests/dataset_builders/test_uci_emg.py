"""UCI EMG: layout, labels, splits, malformed files, and the real corpus."""

import tarfile
import zipfile

import numpy as np
import pytest
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from uci_files import GESTURES, uci_lines, write_uci_file

from dataset_builders.base import (
    ConfigError,
    DataError,
    LayoutError,
    RecordingError,
    SplitError,
    load_corpus,
    make_builder,
)
from dataset_builders.torch_view import WindowDataset

SMALL = {"window_length": 100, "stride": 50}


def windows(data, split="train"):
    return np.array(data[split]["input_values"], dtype=np.float32)


def test_windows_and_columns(uci_dir):
    data, extractor = load_corpus("uci_emg", uci_dir, **SMALL)
    assert {split: len(part) for split, part in data.items()} == {"train": 84, "validation": 84, "test": 84}
    part = data["train"]
    assert windows(data).shape == (84, 8, 100)
    assert part.features["label"].names[0] == "hand at rest" and part.features["label"].names[5] == "ulnar deviations"
    assert set(part["label"]) == set(range(6))
    assert {s: set(data[s]["subject"]) for s in data} == {"train": {"01"}, "validation": {"25"}, "test": {"31"}}
    assert set(part["session"]) == {"1", "2"} and set(part["repetition"]) == {1, 2}
    assert set(part["recording"]) == {f"01/{i}_raw_data_1{i}-12_22.03.16.txt" for i in (1, 2)}
    assert (extractor.feature_size, extractor.window_length, extractor.band_pass) == (8, 100, [20.0, 90.0])


def test_windows_equal_the_feature_extractor(uci_dir):
    """A window is the preprocessed recording at `start`, of one class throughout."""
    data, extractor = load_corpus("uci_emg", uci_dir, **SMALL)
    builder = make_builder("uci_emg", uci_dir, **SMALL)
    signal = builder.read_recording(builder.recordings[0])
    processed = extractor.preprocess(signal.samples, 200)
    assert signal.samples.dtype == np.float64 and np.abs(signal.samples).max() < 1e-3
    for row in data["train"].select(range(42)):
        span = slice(row["start"], row["start"] + 100)
        np.testing.assert_array_equal(np.float32(row["input_values"]), processed[:, span])
        assert set(signal.labels[span]) == {row["label"]}


def test_class_7_is_dropped_and_splits_segments(uci_dir):
    lines = uci_lines([(1, 150), (7, 300), (1, 150), (2, 99), (0, 50)])
    write_uci_file(uci_dir / "01" / "1_raw_data_11-12_22.03.16.txt", lines)
    part = load_corpus("uci_emg", uci_dir, **SMALL)[0]["train"].filter(lambda row: row["session"] == "1")
    assert list(part["label"]) == [0, 0, 0, 0]
    assert list(part["repetition"]) == [1, 1, 2, 2] and list(part["start"]) == [0, 50, 450, 500]


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("blank", [False, True])
def test_line_ends_and_trailing_blank_lines(uci_dir, end, blank):
    expected = windows(load_corpus("uci_emg", uci_dir, **SMALL)[0])
    path = uci_dir / "01" / "1_raw_data_11-12_22.03.16.txt"
    lines = path.read_bytes().decode().split("\r\n")[:-1]
    write_uci_file(path, [*lines, "", ""] if blank else lines, end)
    np.testing.assert_array_equal(windows(load_corpus("uci_emg", uci_dir, **SMALL)[0]), expected)


@pytest.mark.parametrize(
    ("line", "edit", "words"),
    [
        (17, lambda cells: cells[:7], ("line 17", "7 columns", "10")),
        (18, lambda cells: [*cells, "3"], ("line 18", "11 columns")),
        (19, lambda cells: [cells[0], "1e-0x", *cells[2:]], ("line 19", "channel1", "'1e-0x'", "not a number")),
        (20, lambda cells: [*cells[:3], "nan", *cells[4:]], ("channel 2", "sample 18", "max_gap")),
        (21, lambda cells: [*cells[:3], "", *cells[4:]], ("channel 2", "sample 19", "max_gap")),
        (22, lambda cells: [*cells[:3], "-inf", *cells[4:]], ("channel 2", "sample 20", "infinite")),
        (23, lambda cells: [*cells[:9], "9"], ("line 23", "'class'", "'9' is not a class")),
        (24, lambda cells: [*cells[:9], "1.5"], ("line 24", "'class'", "'1.5' is not a class")),
        (25, lambda cells: [*cells[:9], ""], ("line 25", "'' is not a class")),
    ],
)
def test_malformed_lines(uci_dir, line, edit, words):
    path = uci_dir / "25" / "2_raw_data_12-12_22.03.16.txt"
    lines = path.read_bytes().decode().split("\r\n")[:-1]
    lines[line - 1] = "\t".join(edit(lines[line - 1].split("\t")))
    write_uci_file(path, lines)
    with pytest.raises(RecordingError) as caught:
        load_corpus("uci_emg", uci_dir, **SMALL)
    for word in (path.name, *words):
        assert word in str(caught.value)


def test_a_missing_sample_is_interpolated_on_request(uci_dir):
    path = uci_dir / "01" / "1_raw_data_11-12_22.03.16.txt"
    lines = path.read_bytes().decode().split("\r\n")[:-1]
    for row, cell in ((300, "nan"), (301, "")):
        cells = lines[row].split("\t")
        lines[row] = "\t".join([*cells[:3], cell, *cells[4:]])
    write_uci_file(path, lines)
    with pytest.raises(RecordingError, match="max_gap=0"):
        load_corpus("uci_emg", uci_dir, **SMALL)
    data, _ = load_corpus("uci_emg", uci_dir, max_gap=2, **SMALL)
    assert np.isfinite(windows(data)).all()


def test_constant_channel(uci_dir):
    path = uci_dir / "31" / "1_raw_data_11-12_22.03.16.txt"
    lines = path.read_bytes().decode().split("\r\n")[:-1]
    flat = [lines[0]] + ["\t".join([*line.split("\t")[:4], "0", *line.split("\t")[5:]]) for line in lines[1:]]
    write_uci_file(path, flat)
    with pytest.raises(RecordingError, match=r"1_raw_data.*channel 3 is constant.*allow_constant_channels"):
        load_corpus("uci_emg", uci_dir, **SMALL)
    load_corpus("uci_emg", uci_dir, allow_constant_channels=True, **SMALL)


def test_too_short(uci_dir):
    path = uci_dir / "01" / "1_raw_data_11-12_22.03.16.txt"
    write_uci_file(path, uci_lines([(1, 90)]))
    with pytest.raises(RecordingError, match=r"1_raw_data.*90 samples.*window of 100"):
        load_corpus("uci_emg", uci_dir, **SMALL)
    write_uci_file(path, uci_lines([(0, 90), (1, 80)]))
    with pytest.raises(RecordingError, match=r"longest segment of one label has 80 samples.*window_length"):
        load_corpus("uci_emg", uci_dir, **SMALL)


def test_header_without_the_columns(uci_dir):
    write_uci_file(uci_dir / "01" / "1_raw_data_11-12_22.03.16.txt", ["a\tb\tc", "1\t2\t3"])
    with pytest.raises(RecordingError, match="'class': no column has that name"):
        load_corpus("uci_emg", uci_dir, **SMALL)


def test_official_zip_layout(uci_dir, tmp_path):
    expected = windows(load_corpus("uci_emg", uci_dir, **SMALL)[0])
    with zipfile.ZipFile(tmp_path / "emg+data+for+gestures.zip", "w") as bundle:
        for path in sorted(uci_dir.rglob("*.txt")):
            bundle.write(path, path.relative_to(uci_dir.parent))
        bundle.writestr("__MACOSX/EMG_data_for_gestures-master/01/._1_raw_data_11-12_22.03.16.txt", b"\0")
    data, _ = load_corpus("uci_emg", tmp_path / "emg+data+for+gestures.zip", **SMALL)
    np.testing.assert_array_equal(windows(data), expected)


def test_missing_subjects_and_data(uci_dir, tmp_path, caplog):
    with pytest.raises(SplitError, match="33 subjects .* 02 to 24, 26 to 30"):
        load_corpus("uci_emg", uci_dir, allow_missing=False, **SMALL)
    with pytest.raises(ConfigError, match=r"needs data_dir.*archive\.ics\.uci\.edu/dataset/481"):
        load_corpus("uci_emg", **SMALL)
    (tmp_path / "other").mkdir()
    with pytest.raises(LayoutError, match="expected folders 01 to 36"):
        load_corpus("uci_emg", tmp_path / "other", **SMALL)
    for path in (uci_dir / "31").iterdir():
        path.unlink()
    with pytest.raises(SplitError, match="no subject of the test split"):
        load_corpus("uci_emg", uci_dir, **SMALL)


def test_within_subject_protocol(uci_dir, caplog):
    """Series 1 of everyone is for training, series 2 for testing; who lacks one is left out."""
    options = {"protocol": "within_subject", **SMALL}
    data, _ = load_corpus("uci_emg", uci_dir, **options)
    assert {split: set(part["session"]) for split, part in data.items()} == {"train": {"1"}, "test": {"2"}}
    assert {split: set(part["subject"]) for split, part in data.items()} == dict.fromkeys(data, {"01", "25", "31"})
    assert not set(data["train"]["recording"]) & set(data["test"]["recording"])
    by_subject, _ = load_corpus("uci_emg", uci_dir, **SMALL)
    same = by_subject["validation"].filter(lambda row: row["session"] == "2")
    np.testing.assert_array_equal(
        windows(data, "test")[np.array(data["test"]["subject"]) == "25"], np.array(same["input_values"], np.float32)
    )
    write_uci_file(uci_dir / "25" / "3_raw_data_13-12_22.03.16.txt", uci_lines(GESTURES, seed=3))
    next((uci_dir / "31").glob("1_*")).unlink()
    builder = make_builder("uci_emg", uci_dir, **options)
    assert [(r.subject, r.session, r.split) for r in builder.recordings] == [
        (subject, session, split) for subject in ("01", "25") for session, split in (("1", "train"), ("2", "test"))
    ]
    assert "subjects 31 lack series 1 or 2" in caplog.text and "31" in builder.absent_subjects
    for subject in ("01", "25"):
        next((uci_dir / subject).glob("2_*")).unlink()
    with pytest.raises(SplitError, match="no subject has series 1 and 2"):
        load_corpus("uci_emg", uci_dir, **options)


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    for subject in ("01", "25", "31"):
        write_uci_file(folder / subject / "1_raw_data_x.txt", uci_lines([(1, 30), (2, 30)], seed=int(subject)))
    path = folder / "01" / "1_raw_data_x.txt"
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    builder = make_builder("uci_emg", folder, window_length=20, stride=20)
    try:
        builder.recording_table(builder.recordings[0])
    except DataError as error:
        assert path.name in str(error)


def test_real_files(shared_dir, tmp_path):
    """Three subjects of the real corpus."""
    with tarfile.open(shared_dir / "data" / "uci_emg.tar.xz") as bundle:
        for member in bundle:
            if member.isfile() and member.name.split("/")[-2] in ("01", "26", "32"):
                target = tmp_path / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(bundle.extractfile(member).read())
    builder = make_builder("uci_emg", tmp_path)
    tables = {recording.name: builder.recording_table(recording) for recording in builder.recordings}
    counts = {name[:4]: len(table) for name, table in tables.items()}
    assert counts == {"01/1": 201, "01/2": 187, "26/1": 189, "26/2": 173, "32/1": 204, "32/2": 237}
    values = np.concatenate([table["input_values"].combine_chunks().flatten().flatten() for table in tables.values()])
    assert np.isfinite(values).all() and 0.3 < values.std() < 3


def test_the_whole_real_corpus(shared_dir, tmp_path):
    """Counts as with the reference implementation's windowing."""
    data, _ = load_corpus("uci_emg", shared_dir / "data" / "uci_emg.tar.xz", cache_dir=tmp_path, num_proc=2)
    assert {split: len(part) for split, part in data.items()} == {"train": 8108, "validation": 1785, "test": 2023}
    subjects = {split: set(part["subject"]) for split, part in data.items()}
    assert not subjects["train"] & subjects["validation"] and not subjects["test"] & subjects["train"]


def test_a_linear_model_within_subjects(shared_dir, tmp_path):
    """Labels and signals of the real corpus line up."""
    archive = shared_dir / "data" / "uci_emg.tar.xz"
    subjects = ["07", "20", "32"]
    data, _ = load_corpus("uci_emg", archive, cache_dir=tmp_path, protocol="within_subject", subjects=subjects)
    for subject in subjects:
        rms, labels = {}, {}
        for split, part in data.items():
            samples, of = WindowDataset(part.filter(lambda row, who=subject: row["subject"] == who)).arrays()
            rms[split], labels[split] = np.sqrt((samples**2).mean(axis=2)), of
        model = LinearDiscriminantAnalysis().fit(rms["train"], labels["train"])
        assert model.score(rms["test"], labels["test"]) > 0.95


def test_segments_of_the_writer():
    assert sum(length for _, length in GESTURES) + 1 == len(uci_lines(GESTURES))


def test_the_published_file_that_ends_in_half_a_line(uci_dir):
    lines = uci_lines(GESTURES)
    name = "1_raw_data_10-51_07.04.16.txt"
    write_uci_file(uci_dir / "34" / name, [*lines, lines[-1].rsplit("\t", 1)[0]])
    builder = make_builder("uci_emg", uci_dir)
    recording = next(r for r in builder.recordings if r.name == f"34/{name}")
    signal = builder.read_recording(recording)
    assert signal.samples.shape[1] == len(lines) - 1 and signal.notes == {"last lines without a class": 1}
    write_uci_file(uci_dir / "34" / name, lines)
    assert builder.read_recording(recording).samples.shape[1] == len(lines) - 1
    assert not any(builder.read_recording(recording).notes.values())
    other = uci_dir / "34" / "2_raw_data_10-53_07.04.16.txt"
    write_uci_file(other, [*lines, lines[-1].rsplit("\t", 1)[0]])
    builder = make_builder("uci_emg", uci_dir)
    recording = next(r for r in builder.recordings if r.path == str(other))
    with pytest.raises(RecordingError, match="line"):
        builder.recording_table(recording)
