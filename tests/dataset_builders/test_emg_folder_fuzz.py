"""Damaged files in a folder of one's own: whatever they hold, only the builders' errors come out."""

import contextlib

import numpy as np
import pandas as pd
import pytest
from folder_files import FORMATS, RAW, write_recording
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builders.base import DataError, make_builder

OPTIONS = {"window_length": 20, "stride": 20, "class_names": ["rest", "fist"], **RAW}
EXAMPLES = 25
RNG = np.random.default_rng(0)

fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_metadata(root, rows: list[dict]) -> None:
    pd.DataFrame([{"split": "train", "sampling_rate": 200} | row for row in rows]).to_csv(
        root / "metadata.csv", index=False
    )


def write_example(path) -> tuple[str, str]:
    emg = RNG.normal(0, 1, (4, 60)).astype(np.float32)
    return write_recording(path, emg, np.repeat([0, 1], 30), np.stack([np.arange(60) / 60, np.ones(60)]))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_recordings(tmp_path, name, task):
    """The second recording of a folder; the first one, which tells the number of channels, is sound."""
    (tmp_path / "sound").mkdir()
    label_column, target_columns = write_example(tmp_path / "sound" / name)
    write_example(tmp_path / name)
    columns = {"label_column": label_column, "target_columns": target_columns}
    write_metadata(tmp_path, [{"file_name": file} | columns for file in (f"sound/{name}", name)])
    builder = make_builder("emg_folder", tmp_path, task=task, **OPTIONS)
    recording = builder.recordings[1]
    assert len(builder.recording_table(recording)) == (2 if task == "classification" else 3)
    content = (tmp_path / name).read_bytes()

    @fuzzed
    @given(damaged(content))
    def run(data):
        (tmp_path / name).write_bytes(data)
        try:
            table = builder.recording_table(recording)
        except DataError as error:
            assert str(tmp_path / name) in str(error) or name in str(error)
        else:
            assert np.isfinite(np.array(table["input_values"].to_pylist(), dtype=float)).all()

    run()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_first_recording(tmp_path, name):
    label_column, _ = write_example(tmp_path / name)
    write_metadata(tmp_path, [{"file_name": name, "label_column": label_column}])
    content = (tmp_path / name).read_bytes()

    @settings(fuzzed, max_examples=8)
    @given(damaged(content))
    def run(data):
        (tmp_path / name).write_bytes(data)
        with contextlib.suppress(DataError):
            make_builder("emg_folder", tmp_path, **OPTIONS)

    run()


COMPANIONS = {
    "e.csv": b"name,start,end\ntap,0.05,0.1\npinch,0.15,\n",
    "e.tsv": b"name\tstart\tend\ntap\t0.05\t0.1\npinch\t0.15\t0.2\n",
    "e.json": b'[{"name": "tap", "start": 0.05, "end": 0.1}, {"name": "pinch", "start": 0.15}]',
    "t.csv": b"a,b\n" + b"".join(b"%d.5,-%d\n" % (i, i) for i in range(30)),
}


@pytest.mark.parametrize("name", COMPANIONS)
def test_damaged_events_and_targets(tmp_path, name):
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", RNG.normal(size=(60, 4)))
        (tmp_path / f"{i}_{name}").write_bytes(COMPANIONS[name])
    column = {"t.csv": {"target_file": f"1_{name}", "target_sampling_rate": 100}}.get(name, {"event_file": f"1_{name}"})
    first = {key: value.replace("1_", "0_") if isinstance(value, str) else value for key, value in column.items()}
    write_metadata(tmp_path, [{"file_name": "0.npy"} | first, {"file_name": "1.npy"} | column])
    options = OPTIONS | {"class_names": None}
    builder = make_builder("emg_folder", tmp_path, **options)
    assert len(builder.recording_table(builder.recordings[1])) == (3 if name == "t.csv" else 1)

    @fuzzed
    @given(damaged(COMPANIONS[name]))
    def run(data):
        (tmp_path / f"1_{name}").write_bytes(data)
        with contextlib.suppress(DataError):
            builder.recording_table(builder.recordings[1])
        with contextlib.suppress(DataError):
            make_builder("emg_folder", tmp_path, **options)

    run()


@fuzzed
@given(st.data())
def test_damaged_metadata(tmp_path, data):
    np.save(tmp_path / "0.npy", RNG.normal(size=(60, 4)))
    text = b"file_name,label,subject,session,split,sampling_rate,target_columns,text,event_file\n"
    text += b"0.npy,rest,1,a,train,200,,,\n1.npy,,2,a,test,200.0,0;1,hello,e.csv\n"
    (tmp_path / "metadata.csv").write_bytes(data.draw(damaged(text)))
    with contextlib.suppress(DataError):
        builder = make_builder("emg_folder", tmp_path, **OPTIONS)
        for recording in builder.recordings:
            builder.recording_table(recording)
