"""Reading users' files: every format, the rules for channels and time, and what is refused with which words."""

import os
import random

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io

from tinymyo_hf.recordings import RecordingError, read_recording

X = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
LABELS = np.repeat([0, 1, 2, 5], 25)


def write_table(path, separator, header=True, labels=LABELS, end="\n"):
    lines = [separator.join(["time", "c1", "c2", "c3", "c4", "class"])] if header else []
    lines += [
        separator.join([str(5 * i), *(repr(float(v)) for v in X[:, i]), str(labels[i])]) for i in range(X.shape[1])
    ]
    path.write_text(end.join(lines) + end, newline="")
    return path


@pytest.fixture
def files(tmp_path):
    """One recording in every binary format: (path, options that read labels and rate)."""
    np.save(tmp_path / "a.npy", np.vstack([X, LABELS]).T)
    np.savez(tmp_path / "a.npz", emg=X, fs=200, y=LABELS, notes=np.array(["text"]), pickled=np.array([None, {}]))
    content = {"emg": X.T, "acc": X[:3].T, "y": LABELS[:, None], "fs": 200.0, "note": "text", "s": {"angles": X[:2]}}
    scipy.io.savemat(tmp_path / "plain.mat", content)
    scipy.io.savemat(tmp_path / "packed.mat", content, do_compression=True)
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["emg"], file["y"], file["fs"] = X, LABELS[None], np.array([[200.0]])  # as MATLAB stores X.T, y', fs
        file["note"] = np.zeros((4, 1), np.uint16)
        file["note"].attrs["MATLAB_class"] = np.bytes_(b"char")
    with open(tmp_path / "v73.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["subject/emg"], file["subject/y"] = X.T, LABELS
        file["subject/emg"].attrs["sampling_rate"] = 200.0
    table = pa.table({"time": np.arange(100.0), **{f"c{i}": X[i] for i in range(4)}, "y": LABELS})
    pq.write_table(table.replace_schema_metadata({"sampling_rate": "200"}), tmp_path / "a.parquet")
    return {
        tmp_path / "a.npy": {"label_column": -1, "sampling_rate": 200},
        tmp_path / "a.npz": {"label_column": "y"},
        tmp_path / "plain.mat": {"label_column": "y"},
        tmp_path / "packed.mat": {"label_column": "y"},
        tmp_path / "v73.mat": {"label_column": "y"},
        tmp_path / "a.h5": {"label_column": "subject/y"},
        tmp_path / "a.parquet": {"label_column": "y"},
    }


def test_binary_formats(files):
    for path, options in files.items():
        recording = read_recording(path, num_channels=4, **options)
        np.testing.assert_array_equal(recording.signal, X, err_msg=path.name)
        np.testing.assert_array_equal(recording.labels, LABELS, err_msg=path.name)
        assert recording.labels.dtype == np.int64
        assert recording.sampling_rate == 200
        assert len(recording.columns) == 4


@pytest.mark.parametrize(
    ("suffix", "separator"), [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".txt", "\t"), (".txt", " ")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_tables(tmp_path, suffix, separator, end):
    path = write_table(tmp_path / f"a{suffix}", separator, end=end)
    recording = read_recording(path, label_column="class")
    np.testing.assert_array_equal(recording.signal, X)
    np.testing.assert_array_equal(recording.labels, LABELS)
    assert recording.columns == ("c1", "c2", "c3", "c4")
    assert recording.sampling_rate is None
    assert read_recording(path).labels is None  # neither time nor class is taken as a channel


def test_columns_are_selectable(tmp_path):
    path = write_table(tmp_path / "a.csv", ",", labels=np.where(LABELS > 0, "fist", "rest"))
    recording = read_recording(path, channels=["c3", 1, -2], label_column="class", sampling_rate=200)
    np.testing.assert_array_equal(recording.signal, X[[2, 0, 3]])
    assert recording.columns == ("c3", "c1", "c4")
    assert set(recording.labels) == {"rest", "fist"}
    assert recording.sampling_rate == 200
    bare = write_table(tmp_path / "bare.txt", " ", header=False)
    np.testing.assert_array_equal(read_recording(bare, channels=[1, 2], label_column=5).signal, X[:2])
    np.save(tmp_path / "a.npy", X)
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npy", channels=[2, 0]).signal, X[[2, 0]])


def test_empty_cells_comments_quotes_and_long_files(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('# made by hand\n\n"a","b"\n1,2\n\n,"3.5"\nnan,4\n')
    np.testing.assert_array_equal(read_recording(path).signal, [[1, np.nan, np.nan], [2, 3.5, 4]])
    path.write_text("a,b\n" + "1,2\n" * 120_000)
    assert read_recording(path).signal.shape == (2, 120_000)


@pytest.mark.parametrize(
    ("first", "columns"),
    [
        ("0,1,2,3", ("0", "1", "2", "3")),  # as pandas writes a table without names
        ("time,1,2,3", ("1", "2", "3")),
        (",0,1,2", ("0", "1", "2")),
        ("1,2,3,4", None),
        ("0.5,,0.5,0.5", None),
    ],
)
def test_first_row_is_told_from_names(tmp_path, first, columns):
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\n0.5,1,1,1\n0.5,2,2,2\n")
    recording = read_recording(path)
    assert recording.signal.shape == ((4, 3) if columns is None else (len(columns), 2))
    assert recording.columns == (columns or ("0", "1", "2", "3"))


def test_real_recording(shared_dir):
    import tarfile

    with tarfile.open(shared_dir / "data" / "uci_emg.tar.xz") as archive:
        member = next(m for m in archive if m.name.endswith(".txt") and "README" not in m.name)
        text = archive.extractfile(member).read()
    path = os.path.join(os.environ["HF_HOME"], "uci.txt")
    with open(path, "wb") as file:
        file.write(text)
    recording = read_recording(path, label_column="class", num_channels=8)
    assert recording.signal.shape == (8, len(recording.labels)) == (8, text.count(b"\n") - 1)
    assert set(recording.labels) <= set(range(8))


def test_layout_of_arrays(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, X)
    np.testing.assert_array_equal(read_recording(path).signal, X)  # 25 times as long as wide
    np.save(path, X[:, :4])
    with pytest.raises(RecordingError, match=r'array \(4, 4\) is time is not clear.*layout="time_channels"'):
        read_recording(path)
    np.testing.assert_array_equal(read_recording(path, layout="time_channels").signal, X[:, :4].T)
    np.testing.assert_array_equal(read_recording(path, layout="channels_time").signal, X[:, :4])
    np.save(path, X[:, :9])  # 4 x 9
    with pytest.raises(RecordingError, match="not clear"):
        read_recording(path)
    np.testing.assert_array_equal(read_recording(path, num_channels=4).signal, X[:, :9])
    np.testing.assert_array_equal(read_recording(path, num_channels=9).signal, X[:, :9].T)
    np.save(path, X[0])
    np.testing.assert_array_equal(read_recording(path).signal, X[:1])


def test_one_of_several_variables(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, first=X, second=2 * X)
    with pytest.raises(RecordingError, match=r"key.*first \(4, 100\), second \(4, 100\)"):
        read_recording(path)
    np.testing.assert_array_equal(read_recording(path, key="second").signal, 2 * X)
    with pytest.raises(RecordingError, match="key='third': no such variable"):
        read_recording(path, key="third")
    with h5py.File(tmp_path / "compound.h5", "w") as file:
        file["timeseries"] = np.zeros(50, dtype=[("time", "f8"), ("emg", "f4", (3,))])
    assert read_recording(tmp_path / "compound.h5").signal.shape == (3, 50)


def test_contradicting_rates(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, emg=X, fs=1000)
    assert read_recording(path, sampling_rate=1000).sampling_rate == 1000
    with pytest.raises(RecordingError, match="a.npz: the file states.*1000 Hz, but sampling_rate=200"):
        read_recording(path, sampling_rate=200)
    np.savez(path, emg=X, fs=1000, srate=2000)
    with pytest.raises(RecordingError, match="several sampling rates"):
        read_recording(path)


TABLE = "time,c1,c2\n0,1,2\n5,3,4\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TABLE + "10,x,6\n", {}, r"a.csv, line 4, column 'c1': 'x' is not a number.*channels"),
        (TABLE + "10,1_0,6\n", {}, r"a.csv, line 4, column 'c1': '1_0' is not a number"),
        ("# c\n0.1,x,0.2\n0.3,0.4,0.5\n", {}, r"a.csv, line 2: 'x' stands among numbers"),
        (TABLE + "10,5\n", {}, r"a.csv, line 4: 2 columns where the first row has 3.*cut off"),
        (TABLE + "10,5,6,7\n", {}, r"line 4: 4 columns"),
        ("\n# c\n" + TABLE + "\n10,,y\n", {}, r"line 7, column 'c2': 'y'"),
        ("time,c1,c2\n", {}, "a header but no samples"),
        ("", {}, "the file is empty"),
        ("\n\n", {}, "no rows"),
        (TABLE, {"channels": ["c9"]}, r"channels 'c9': no column has that name; the columns are time, c1, c2"),
        (TABLE, {"channels": [3]}, "channels 3: there are 3 columns"),
        (TABLE, {"label_column": "class"}, "label_column 'class': no column"),
        (TABLE, {"channels": []}, "none of the columns"),
        ("a,a\n1,2\n", {"channels": ["a"]}, "2 columns have that name"),
        ("1,2\n3,4\n", {"channels": ["c1"]}, "no header: give positions"),
        ("time,class\n1,2\n", {}, "none of the columns"),
        ("\n".join(f"{i},1" for i in range(30)), {}, r"column 0 rises.*channels=\[1\]"),
        ("a;b\n1,5;2,5\n", {}, r"line 2, column 'a': '1,5'"),
        (TABLE, {"num_channels": 3}, r"2 channels \(c1, c2\) where 3 are expected"),
        (TABLE, {"layout": "sideways"}, "layout='sideways'.*channels_time"),
    ],
)
def test_refused_tables(tmp_path, text, options, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=message):
        read_recording(path, **options)


def test_refused_files(tmp_path):
    def refuse(name, message, content=b"", **options):
        path = tmp_path / name
        if content:
            path.write_bytes(content)
        with pytest.raises(RecordingError, match=message) as caught:
            read_recording(path, **options)
        assert str(path) in str(caught.value)

    refuse("missing.csv", "no such file")
    refuse("a.wav", "'.wav' cannot be read; use one of .csv")
    refuse("latin.csv", "UTF-8", "größe,b\n1,2\n".encode("latin-1"))
    for name in ("a.npy", "a.npz", "a.mat", "a.h5", "a.parquet"):
        refuse(name, "cannot be read as a", b"not what the name says" * 20)
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    refuse("objects.npy", "holds Python objects")
    np.savez(tmp_path / "objects.npz", emg=np.array([{}, []], dtype=object))
    refuse("objects.npz", "no numeric arrays")
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    refuse("cube.npy", r"shape \(2, 3, 4\); a recording has the two axes")
    np.savez(tmp_path / "labels.npz", emg=X, y=LABELS[:-1])
    refuse("labels.npz", r"label_column='y' has shape \(99,\).*100 samples", label_column="y")
    pq.write_table(pa.table({"a": ["x", "y"]}), tmp_path / "text.parquet")
    refuse("text.parquet", "column 'a': its values are not numbers")


def test_damaged_files_raise_our_error_only(tmp_path, files):
    """A few of many: truncations and changed bytes, in every format."""
    rng = random.Random(0)
    texts = [write_table(tmp_path / f"a{suffix}", ",") for suffix in (".csv", ".txt")]
    for path in (*files, *texts):
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.3 else whole)
            for _ in range(rng.choice((1, 3, 30))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            target = tmp_path / f"damaged{path.suffix}"
            target.write_bytes(damaged)
            try:
                assert read_recording(target).signal.ndim == 2
            except RecordingError as error:
                assert str(target) in str(error)


TARGETS = np.stack([np.linspace(0, 1, 100), np.linspace(5, -5, 100)]).astype(np.float32)


def test_targets_and_labels_of_one_file(tmp_path):
    """Channels, label and two targets, by name where the format has names, in every format."""
    table = pa.table({**{f"c{i}": X[i] for i in range(4)}, "y": LABELS, "angle": TARGETS[0], "force": TARGETS[1]})
    pq.write_table(table, tmp_path / "a.parquet")
    for suffix, separator in ((".csv", ","), (".tsv", "\t"), (".txt", " ")):
        rows = [separator.join(table.column_names)]
        rows += [separator.join(map(repr, map(float, row))) for row in np.vstack([X, LABELS, TARGETS]).T]
        (tmp_path / f"a{suffix}").write_text("\n".join(rows))
    together = np.vstack([X, LABELS, TARGETS]).T
    np.save(tmp_path / "a.npy", together)
    together.astype("<f4").tofile(tmp_path / "a.raw")
    np.savez(tmp_path / "a.npz", emg=X, y=LABELS, angle=TARGETS[0], force=TARGETS[1])
    scipy.io.savemat(tmp_path / "a.mat", {"emg": X.T, "y": LABELS, "angle": TARGETS[0], "force": TARGETS[1]})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["emg"], file["y"] = X.T, LABELS
        file["angle"], file["force"] = TARGETS[0], TARGETS[1][:, None]
    for path in sorted(tmp_path.iterdir()):
        positions = path.suffix in (".npy", ".raw")
        recording = read_recording(
            path,
            label_column="4" if positions else "y",
            target_columns=["5", -1] if positions else ["angle", "force"],
            num_channels=4,
            raw_type="float32",
            raw_channels=7,
        )
        np.testing.assert_allclose(recording.signal, X, err_msg=path.name)
        np.testing.assert_array_equal(recording.labels, LABELS, err_msg=path.name)
        np.testing.assert_allclose(recording.targets, TARGETS, err_msg=path.name)
        assert recording.target_names == (("5", "6") if positions else ("angle", "force"))
    assert read_recording(tmp_path / "a.csv").targets is None


def test_one_variable_with_several_targets(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        compound = np.zeros(100, dtype=[("time", "f8"), ("joint_angles", "f4", (2,)), ("emg", "f4", (4,))])
        compound["joint_angles"], compound["emg"] = TARGETS.T, X.T
        file["emg2pose/timeseries"] = compound
    name = "emg2pose/timeseries/joint_angles"
    recording = read_recording(tmp_path / "a.h5", target_columns=[name])
    np.testing.assert_array_equal(recording.signal, X)
    np.testing.assert_array_equal(recording.targets, TARGETS)
    assert recording.target_names == (f"{name}_0", f"{name}_1")
    np.savez(tmp_path / "a.npz", emg=X, angles=TARGETS[:, :-1])
    with pytest.raises(RecordingError, match=r"target_columns='angles' has shape \(2, 99\).*each of the 100"):
        read_recording(tmp_path / "a.npz", target_columns=["angles"])
    # without a usual name, what is neither label nor target is the signal
    np.savez(tmp_path / "a.npz", electrodes=X, angles=TARGETS)
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npz", target_columns=["angles"]).signal, X)


def test_channels_that_are_variables(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"ch1": X[0], "ch2": X[1][:, None], "y": LABELS, "short": X[2, :50]})
    recording = read_recording(tmp_path / "a.mat", channels=["ch2", "ch1"], label_column="y")
    np.testing.assert_array_equal(recording.signal, X[[1, 0]])
    np.testing.assert_array_equal(recording.labels, LABELS)
    assert recording.columns == ("ch2", "ch1")
    with pytest.raises(RecordingError, match="differ in samples.*short 50"):
        read_recording(tmp_path / "a.mat", channels=["ch2", "short"])
    with pytest.raises(RecordingError, match="channels='ch9': no such variable. The file holds ch1"):
        read_recording(tmp_path / "a.mat", channels=["ch1", "ch9"])


def test_digits_are_a_name_where_something_is_called_so(tmp_path):
    np.savez(tmp_path / "a.npz", **{"emg": X, "1": LABELS})
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npz", label_column="1").labels, LABELS)
    path = tmp_path / "a.csv"
    path.write_text("2,1,0\n" + "".join(f"{i % 3},{i % 5},{i % 7}\n" for i in range(50)))  # counts down: data
    np.testing.assert_array_equal(read_recording(path, label_column="2").labels[:4], [0, 0, 1, 2])
    path.write_text("0,1,2,3\n" + "0.5,1,7,1\n" * 3)  # counts up: names
    assert set(read_recording(path, label_column="2").labels) == {7}
    path.write_text("b,2,a\n" + "0.5,1,7\n" * 3)
    assert set(read_recording(path, label_column="2").labels) == {1}


@pytest.mark.parametrize("raw_type", ["int8", "int16", "int32", "float32", "float64"])
def test_binary_files_without_a_header(tmp_path, raw_type):
    values = np.random.default_rng(1).integers(-128, 128, (300, 4))
    stored = values.astype(np.dtype(raw_type).newbyteorder("<"))
    for suffix in (".dat", ".bin", ".raw"):
        stored.tofile(tmp_path / f"a{suffix}")
        recording = read_recording(tmp_path / f"a{suffix}", raw_type=raw_type, raw_channels=4)
        np.testing.assert_array_equal(recording.signal, values.T)
        assert recording.signal.dtype in (np.float32, np.float64)
    by_channel = read_recording(tmp_path / "a.dat", raw_type=raw_type, raw_channels=300, layout="channels_time")
    np.testing.assert_array_equal(by_channel.signal, values)


def test_refused_binary_files(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(49))
    for options, message in (
        ({}, r"a.dat: the file does not say what it holds; state raw_type \(int8, int16"),
        ({"raw_type": "int16", "raw_channels": 8}, "49 bytes are not whole samples of 8 x int16"),
        ({"raw_type": "int8", "raw_channels": 8}, "49 bytes are not whole samples of 8 x int8"),
        ({"raw_type": "int12", "raw_channels": 8}, "raw_type='int12': unknown"),
        ({"raw_type": "int16", "raw_channels": 0}, "raw_channels=0: must be"),
        ({"raw_type": "int8", "raw_channels": 7, "key": "emg"}, None),
    ):
        if message is None:
            assert read_recording(path, **options).signal.shape == (7, 7)
            continue
        with pytest.raises(RecordingError, match=message):
            read_recording(path, **options)


def test_hdf5_that_claims_more_than_it_can_hold(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("emg", (8, 10**10), "f8", chunks=(8, 1000))  # never written: 640 GB of fill values
    with pytest.raises(RecordingError, match="emg claims 640000000000 bytes"):
        read_recording(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["emg"], file["nothing"] = X, h5py.Empty("f4")
    np.testing.assert_array_equal(read_recording(tmp_path / "a.h5").signal, X)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", ["", "# made by a device\n\n", "\ufeff"])
@pytest.mark.parametrize("header", ["a,b,y\n", '"a","b","y"\n', ""])
def test_tables_of_numbers_alone_read_as_any_other(tmp_path, end, before, header):
    """The quick way (numbers only) and the careful one (here because of a missing cell) give the same values."""
    rows = [f"{i % 7}.5,-{i}e-3,{i // 10}" for i in range(40)]
    path = tmp_path / "a.csv"
    found = []
    for last in ("1,2,9", "1,,9"):
        path.write_bytes(
            (before + header + "\n".join([*rows[:20], "", *rows[20:], last, ""])).replace("\n", end).encode()
        )
        found.append(read_recording(path, label_column=2))
    quick, careful = found
    assert quick.columns == careful.columns == (("a", "b") if header else ("0", "1"))
    np.testing.assert_array_equal(quick.signal[:, :-1], careful.signal[:, :-1])
    np.testing.assert_array_equal(quick.signal[:, -1], [1, 2])
    np.testing.assert_array_equal(quick.labels, careful.labels)
    assert quick.labels.dtype == careful.labels.dtype == np.int64 and quick.labels[25] == 2
