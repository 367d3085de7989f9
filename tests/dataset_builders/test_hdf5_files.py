"""HDF5 files: fields in blocks, incomplete and hostile datasets, and damage that the library does not survive."""

import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from dataset_builders import hdf5_files
from dataset_builders.errors import RecordingError
from dataset_builders.hdf5_files import check_timestamps, open_group, read_fields

ROW = np.dtype([("time", "f8"), ("emg", "f4", (4,)), ("label", "i2")])
FIELDS = {"time": ("f", ()), "emg": ("f", (4,))}


def rows(count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    table = np.zeros(count, ROW)
    table["time"], table["emg"], table["label"] = np.arange(count) / 2000, rng.normal(size=(count, 4)), range(count)
    return table


def write(path: Path, table: np.ndarray | None = None, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("recording")
        group.attrs["side"] = "left"
        group.create_dataset("series", data=rows() if table is None else table, **options)
    return path


def failure(path: Path, fields: dict = FIELDS) -> str:
    with pytest.raises(RecordingError) as caught:
        read_fields(path, "recording", "series", fields)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("options", [{}, {"chunks": (64,)}, {"chunks": (50,), "compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("block", [1, 1000, 1 << 20])
def test_fields_whatever_the_blocks(tmp_path, monkeypatch, options, block):
    monkeypatch.setattr(hdf5_files, "BLOCK_BYTES", block)
    read = read_fields(write(tmp_path / "a.hdf5", **options), "recording", "series", FIELDS)
    assert read.keys() == FIELDS.keys() and (read["time"].dtype, read["emg"].dtype) == (np.float64, np.float32)
    for name, values in read.items():
        np.testing.assert_array_equal(values, rows()[name])


def test_group_and_its_attributes(tmp_path):
    path = write(tmp_path / "a.hdf5")
    with open_group(path, "recording") as group:
        assert group.attrs["side"] == "left"
    with (
        pytest.raises(RecordingError, match=r"a\.hdf5: no group 'other' \(found: recording\)"),
        open_group(path, "other"),
    ):
        pass
    with pytest.raises(RecordingError, match=r"a\.hdf5: cannot be read as HDF5.*nothing"), open_group(path) as group:
        group["nothing"]
    for content, words in ((None, "is missing"), (b"", "is empty"), (b"no HDF5", "cannot be read as HDF5")):
        other = tmp_path / "b.hdf5"
        if content is not None:
            other.write_bytes(content)
        with pytest.raises(RecordingError, match=f"b.hdf5.*{words}"), open_group(other):
            pass


def test_fields_that_are_not_as_expected(tmp_path):
    path = write(tmp_path / "a.hdf5")
    assert "no field 'joints' (found: time, emg, label)" in failure(path, {"joints": ("f", (20,))})
    assert "field 'emg': float32 (4,) in a row where floating-point numbers (16,)" in failure(
        path, {"emg": ("f", (16,))}
    )
    assert "field 'label': int16 () in a row where floating-point" in failure(path, {"label": ("f", ())})
    assert "shape is (10, 30)" in failure(write(tmp_path / "b.hdf5", rows().reshape(10, 30)))
    assert "no field 'time' (found: none)" in failure(write(tmp_path / "c.hdf5", np.arange(9.0)))
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file.create_group("recording/series")
    assert "dataset recording/series: there is none (found: series)" in failure(tmp_path / "d.hdf5")


def test_incomplete_datasets(tmp_path):
    """The library would fill in zeros."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        series = file.create_dataset("recording/series", 300, ROW, chunks=(64,))
        series[:100] = rows(100)
    assert "2 of its 5 chunks are there" in failure(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file.create_dataset("recording/series", 300, ROW)
    assert "0 of its 7800 bytes are there" in failure(tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file.create_dataset("recording/series", 10**15, ROW, chunks=(1000,))
    assert "is more than the file can hold" in failure(tmp_path / "c.hdf5")


def test_values_in_other_files(tmp_path):
    """A recording must not read what else lies on the disk."""
    secret = tmp_path / "secret"
    secret.write_bytes(rows().tobytes())
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("recording/series", 300, ROW, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    write(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        layout = h5py.VirtualLayout((300,), ROW)
        layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "recording/series", (300,))
        file.create_group("recording").create_virtual_dataset("series", layout)
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file.create_group("recording")["series"] = h5py.ExternalLink("other.hdf5", "recording/series")
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["recording"] = h5py.ExternalLink("other.hdf5", "recording")
    for name, words in zip("abcd", ["values lie in other files"] * 2 + ["lies in another file"] * 2, strict=True):
        assert words in failure(tmp_path / f"{name}.hdf5")


def test_timestamps():
    times = 1.6e9 + np.arange(1000) / 2000
    assert check_timestamps(times, 2000, "a") == 0
    times[400:] += 0.01
    times[700:] += 0.0002
    assert check_timestamps(times, 2000, "a") == 1 and check_timestamps(times, 2000, "a", tolerance=0.3) == 2
    times[5] = times[4]  # which makes the next step twice as long
    assert check_timestamps(times, 2000, "a") == 2
    times[5] = times[4] - 1e-4
    with pytest.raises(
        RecordingError, match=r"a, field 'time', sample 5: [0-9.]+ s comes after [0-9.]+ s; times must not go back"
    ):
        check_timestamps(times, 2000, "a")
    times[3] = np.nan
    with pytest.raises(RecordingError, match="a, field 'time', sample 3: nan is no time"):
        check_timestamps(times, 2000, "a")


def in_a_child(path: Path) -> str:
    """The message about a file that might take the process with it."""
    code = (
        "import sys\n"
        "from dataset_builders.hdf5_files import *\n"
        "try:\n"
        "    with open_group(sys.argv[1], 'recording') as group: dict(group.attrs)\n"
        f"    read_fields(sys.argv[1], 'recording', 'series', {FIELDS})\n"
        "except RecordingError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (24, 2**64 - 15),  # length of the only text: wraps around to no length
        (48, 0),  # length of the free space after it
    ],
)
def test_heaps_that_the_library_would_walk_for_ever(tmp_path, offset, value):
    path = write(tmp_path / "a.hdf5")
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    assert struct.unpack_from("<H6xQ", content, heap + 16) == (1, 4)
    assert struct.unpack_from("<H6xQ", content, heap + 40)[0] == 0
    struct.pack_into("<Q", content, heap + offset, value)
    path.write_bytes(content)
    assert f"heap of texts is damaged at byte {heap + offset - 8}" in in_a_child(path)


def test_types_that_the_library_would_crash_on(tmp_path):
    """Numbers of a type unknown to numpy would be converted into too small a buffer."""
    path = write(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        odd = h5py.h5t.IEEE_F64LE.copy()
        odd.set_fields(59, 48, 11, 0, 48)
        odd.set_precision(60)
        compound = h5py.h5t.create(h5py.h5t.COMPOUND, 24)
        compound.insert(b"time", 0, odd)
        compound.insert(b"emg", 8, h5py.h5t.array_create(h5py.h5t.IEEE_F32LE, (4,)))
        del file["recording/series"]
        h5py.h5d.create(file["recording"].id, b"series", compound, h5py.h5s.create_simple((5,)))
    assert "of a type that no computer uses" in in_a_child(path)
