"""Ninapro: archives as downloaded, missing and surplus files, and recordings that cannot be used."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ninapro_files import (
    SMALL,
    load,
    movement_file,
    movement_track,
    table,
    values,
    write_mat,
    write_small_db5,
    write_small_db7,
    zipped,
)

from dataset_builders.base import (
    ArchiveError,
    ConfigError,
    DataError,
    LayoutError,
    RecordingError,
    SplitError,
    make_builder,
    table_notes,
)
from tinymyo_hf.recording_formats import read_mat


@pytest.fixture
def db5(tmp_path):
    """A DB5 of one person to damage."""
    return write_small_db5(tmp_path / "db5", (1,))


def test_archives_as_downloaded(tmp_path):
    db5 = write_small_db5(tmp_path / "db5")
    expected = values(load(5, db5)["test"])
    for subject in (1, 2):
        zipped(db5 / f"s{subject}", tmp_path / "zips" / f"s{subject}.zip", f"s{subject}")
    np.testing.assert_array_equal(values(load(5, tmp_path / "zips")["test"]), expected)
    # one of them unpacked beside the archive, the other not
    shutil.unpack_archive(tmp_path / "zips" / "s2.zip", tmp_path / "zips")
    np.testing.assert_array_equal(values(load(5, tmp_path / "zips")["test"]), expected)
    shutil.make_archive(str(tmp_path / "all"), "zip", db5)
    np.testing.assert_array_equal(values(load(5, tmp_path / "all.zip")["test"]), expected)
    (tmp_path / "zips" / "s1.zip").write_bytes((tmp_path / "zips" / "s1.zip").read_bytes()[:5000])
    with pytest.raises(ArchiveError, match=r"s1\.zip is truncated or corrupt"):
        load(5, tmp_path / "zips")


def test_archives_of_db7_have_no_folder(tmp_path):
    db7 = write_small_db7(tmp_path / "Subjects")
    for subject in (1, 22):
        zipped(db7 / f"Subject_{subject}", tmp_path / "zips" / f"Subject_{subject}.zip", "")
    np.testing.assert_array_equal(values(load(7, tmp_path / "zips")["test"]), values(load(7, db7)["test"]))


def test_missing_and_surplus_files(db5, tmp_path):
    with pytest.raises(SplitError, match=r"9 subjects of the protocol have no recording: 2 to 10\."):
        load(5, db5, allow_missing=False)
    builder = make_builder("ninapro_db5", db5, **SMALL)
    assert len(builder.recordings) == 9 and builder.absent_subjects == tuple("23456789") + ("10",)
    only = make_builder("ninapro_db5", db5, subjects=("1",), allow_missing=False)  # the others are not asked for
    assert {r.subject for r in only.recordings} == {"1"} and only.absent_subjects == ()
    with pytest.raises(SplitError, match="1 subjects of the protocol have no recording: 3"):
        load(5, db5, subjects=("1", "3"), allow_missing=False)
    shutil.copytree(db5 / "s1", db5 / "copy")
    with pytest.raises(LayoutError, match=r"S1_E1_A1.mat is there twice: .*copy.* and .*s1.*; remove one"):
        load(5, db5)
    shutil.rmtree(db5 / "copy")
    write_small_db5(db5, tuple(range(2, 11)))
    (db5 / "s3" / "S3_E2_A1.mat").unlink()
    with pytest.raises(LayoutError, match="no file for E2 of subject 3"):
        load(5, db5, allow_missing=False)
    assert set(load(5, db5, subjects=("3",))["test"]["session"]) == {"E1", "E3"}
    with pytest.raises(LayoutError, match="there are files of E3, but the corpus has E1, E2 only"):
        load(7, db5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match=r"expected files S1_E1_A1.mat to S10_E3_A1.mat.*instructions/DB5.html"):
        load(5, tmp_path / "empty")
    with pytest.raises(ConfigError, match="needs data_dir.*download=True"):
        load(5, None)


def test_variables_that_are_not_needed_stay_packed(db5):
    """Damage in one of them does not matter."""
    path = db5 / "s1" / "S1_E1_A1.mat"
    expected = table(db5)
    variables = scipy.io.loadmat(path)
    write_mat(path, {name: variables[name] for name in ("acc", "emg", "restimulus", "rerepetition")})
    content = bytearray(path.read_bytes())
    end_of_acc = 128 + 8 + int.from_bytes(content[132:136], "little")
    content[end_of_acc - 4] ^= 1  # its checksum
    path.write_bytes(content)
    assert table(db5).equals(expected)
    with pytest.raises(ValueError, match="damaged"):
        read_mat(path)


def test_lengths_that_differ(db5):
    path = db5 / "s1" / "S1_E1_A1.mat"
    labels, repetitions = movement_track((1, 12), 6, 60, 40)
    whole = table(db5, split="test", normalization="none", band_pass=None, notch_frequencies=())
    movement_file(path, 16, (labels, repetitions), seed=11, restimulus=labels[:-3], rerepetition=repetitions[:-1])
    cut = table(db5, split="test", normalization="none", band_pass=None, notch_frequencies=())
    assert cut["input_values"].slice(0, 6).equals(whole["input_values"].slice(0, 6))
    assert table_notes(table(db5).schema) == {
        "samples of emg after the last of restimulus": 3,
        "samples of rerepetition after the last of restimulus": 2,
        "samples that belong to no repetition, so to no split": 40,
    }
    movement_file(path, 16, (labels, repetitions), restimulus=labels[:-60])
    with pytest.raises(RecordingError, match=r"S1_E1_A1.mat: 1240 samples of 'emg', but 1180 of 'restimulus'"):
        table(db5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rerepetition": None}, ("no numeric variable 'rerepetition'", "download it again")),
        ({"emg": np.zeros((1240, 12), np.float32)}, ("variable 'emg': 12 columns", "16")),
        ({"emg": np.zeros((0, 0))}, ("variable 'emg': shape (0, 0)",)),
        ({"restimulus": np.full(1240, 13)}, ("sample 0: movement 13", "movements 1 to 12")),
        ({"restimulus": np.full(1240, 1.5)}, ("'restimulus', sample 0: 1.5 is not a whole number",)),
        ({"restimulus": np.full(1240, np.nan)}, ("'restimulus', sample 0: nan is not",)),
        ({"rerepetition": np.full(1240, -1)}, ("'rerepetition', sample 0: -1 is not",)),
        ({"restimulus": np.zeros((1240, 2))}, ("'restimulus': 2 columns",)),
        ({"emg": np.full((1240, 16), np.nan)}, ("channel 0", "missing", "max_gap")),
    ],
)
def test_unusable_recordings(db5, changes, words):
    movement_file(db5 / "s1" / "S1_E1_A1.mat", 16, movement_track((1, 12), 6, 60, 40), **changes)
    with pytest.raises(RecordingError) as caught:
        table(db5)
    for word in ("S1_E1_A1.mat", *words):
        assert word in str(caught.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("version", ["5", "5 packed", "7.3"])
def test_damaged_files(damaged_db5, version, data):
    """Whatever the bytes, the recording is read or refused by name."""
    builder, valid = damaged_db5
    path = Path(builder.recordings[0].path)
    path.write_bytes(data.draw(damaged(valid[version])))
    try:
        builder.recording_table(builder.recordings[0])
    except DataError as error:
        assert path.stem in str(error)


@pytest.fixture(scope="module")
def damaged_db5(tmp_path_factory):
    """A builder of one recording, and the bytes of that recording in each version of the format."""
    path = tmp_path_factory.mktemp("damaged") / "S1_E1_A1.mat"
    track = movement_track((1,), 6, 30, 20)
    valid = {v: movement_file(path, 16, track, 0, v, acc=None).read_bytes() for v in ("5", "5 packed", "7.3")}
    return make_builder("ninapro_db5", path.parent, **SMALL), valid
