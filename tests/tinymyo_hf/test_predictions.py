"""`tinymyo predict` for every kind of model: what is printed and written, and checkpoints that must not be used."""

import csv
import json

import numpy as np
import pytest
import torch
from transformers import pipeline
from typer.testing import CliRunner

from tinymyo_hf import (
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForFrameClassification,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
)
from tinymyo_hf.cli import app
from tinymyo_hf.predictions import PredictionError, predict_file

CONFIG = {"hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 24, "num_channels": 4}
HEADS = {
    "emg-classification": (TinyMyoForSequenceClassification, {}, {}),
    "emg-regression": (TinyMyoForRegression, {"target_length": 50, "id2label": {0: "flexion", 1: "grip"}}, {}),
    "emg-events": (
        TinyMyoForFrameClassification,
        {"stem": "convolution", "is_causal": True, "id2label": {0: "index_press", 1: "thumb_click"}},
        {"normalization": "none", "stride": 100},
    ),
}


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4, 730)) * (1 + 50 * (np.arange(730) // 150 % 2)))
    return path


def save(model_class, folder, config=None, settings=None):
    torch.manual_seed(0)
    model = model_class(TinyMyoConfig(**CONFIG, **config or {}))
    for name, parameter in model.named_parameters():
        if name.startswith(("frame_classifier", "regressor.conv2")):
            torch.nn.init.normal_(parameter, std=3)
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=4, **settings or {}).save_pretrained(folder)
    return str(folder)


def save_for(task, folder):
    return save(HEADS[task][0], folder, *HEADS[task][1:])


def tinymyo(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_trajectory(recording, tmp_path):
    folder = save_for("emg-regression", tmp_path / "model")
    expected = pipeline("emg-regression", model=folder, device="cpu")(str(recording), sampling_rate=200)
    arguments = ("predict", folder, recording, "--sampling-rate", 200)

    out = tinymyo(*arguments, "--output", tmp_path / "new/t.csv")
    assert "182 frames at 50 Hz, from 0.01 to 3.63 s" in out and "182 frames written" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("grip"))
    grip = expected["values"][:, 1]
    assert [float(number) for number in row[1:]] == pytest.approx([grip.mean(), grip.min(), grip.max()], rel=1e-3)

    rows = read_csv(tmp_path / "new/t.csv")
    assert list(rows[0]) == ["time", "flexion", "grip"]
    np.testing.assert_array_equal([float(row["time"]) for row in rows], expected["times"])
    written = np.array([[row["flexion"], row["grip"]] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(written, expected["values"])
    assert max(len(row["grip"]) for row in rows) < 14  # the digits of float32

    tinymyo(*arguments, "--output", tmp_path / "t.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), np.column_stack([expected["times"], expected["values"]]))
    tinymyo(*arguments, "--output", tmp_path / "t.json", "--stride", 100, "--batch-size", 2)
    stored = json.loads((tmp_path / "t.json").read_text())
    assert stored["names"] == ["flexion", "grip"] and stored["sampling_rate"] == 50
    other = pipeline("emg-regression", model=folder, device="cpu")(str(recording), sampling_rate=200, stride=100)
    np.testing.assert_allclose(stored["values"], other["values"], rtol=1e-5, atol=1e-5)
    assert not np.allclose(other["values"], expected["values"])
    assert np.shape(stored["values"]) == (182, 2) and len(stored["times"]) == 182
    assert not list(tmp_path.rglob("*.partial"))


def test_events(recording, tmp_path):
    folder = save_for("emg-events", tmp_path / "model")
    expected = pipeline("emg-events", model=folder, device="cpu")(str(recording), sampling_rate=200)["events"]
    assert len(expected) > 3
    out = tinymyo("predict", folder, recording, "--sampling-rate", 200, "--output", tmp_path / "e.csv")
    assert f"{len(expected)} events written" in out and "whole recording: " in out
    first = out.splitlines()[1].split()
    assert first[1] == expected[0]["gesture"] and float(first[0]) == pytest.approx(expected[0]["time"], abs=1e-3)
    rows = read_csv(tmp_path / "e.csv")
    assert [float(row["time"]) for row in rows] == [event["time"] for event in expected]
    assert [row["gesture"] for row in rows] == [event["gesture"] for event in expected]
    tinymyo("predict", folder, recording, "--sampling-rate", 200, "--output", tmp_path / "e.json")
    assert [event["gesture"] for event in json.loads((tmp_path / "e.json").read_text())["events"]] == [
        event["gesture"] for event in expected
    ]


def test_no_events(recording, tmp_path):
    folder = save_for("emg-events", tmp_path / "model")
    model = TinyMyoForFrameClassification.from_pretrained(folder)
    torch.nn.init.zeros_(model.frame_classifier.weight)
    torch.nn.init.constant_(model.frame_classifier.bias, -9)
    model.save_pretrained(folder)
    out = tinymyo("predict", folder, recording, "--sampling-rate", 200, "--output", tmp_path / "e.csv")
    assert "no events" in out and "0 events written" in out
    assert (tmp_path / "e.csv").read_text() == "time,gesture,score\n"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("emg-classification", "windows are written as .csv or .json"),
        ("emg-regression", "frames are written as .csv, .json or .npy"),
        ("emg-events", "events are written as .csv or .json"),
    ],
)
def test_files_of_another_kind(recording, tmp_path, task, message):
    folder = save_for(task, tmp_path / "model")
    arguments = ("predict", folder, recording, "--sampling-rate", 200, "--output")
    assert f"x.txt: {message}; change the name" in tinymyo(*arguments, tmp_path / "x.txt", code=2)
    if task != "emg-regression":
        assert message in tinymyo(*arguments, tmp_path / "x.npy", code=2)


def test_a_failure_leaves_the_old_file(recording, tmp_path, monkeypatch):
    prediction = predict_file(save_for("emg-regression", tmp_path / "model"), recording, sampling_rate=200)
    path = tmp_path / "t.npy"
    prediction.write(path)
    before = path.read_bytes()
    monkeypatch.setattr("numpy.save", lambda file, array: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prediction.write(path)
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))


def damage(folder, what):
    weights, config = folder / "model.safetensors", folder / "config.json"
    if what == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "pickle":
        torch.save({"classifier.weight": torch.zeros(2)}, weights)
    elif what == "pickle under its own name":
        weights.rename(folder / "pytorch_model.bin")
    elif what == "another head":
        fields = json.loads(config.read_text())
        config.write_text(json.dumps(fields | {"architectures": ["TinyMyoForRegression"]}))
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 48}))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut off", "cannot be loaded as a model of EMG: .*not fully covered"),
        ("pickle", "cannot be loaded as a model of EMG: .*header"),
        ("pickle under its own name", "no file named model.safetensors"),
        ("another head", "is not whole: it lacks regressor.conv1.bias"),
        ("another shape", r"mlp.fc1.bias has the shape \(24,\), but config.json asks for \(48,\)"),
    ],
)
def test_damaged_checkpoints(recording, tmp_path, what, message):
    folder = tmp_path / "model"
    save_for("emg-classification", folder)
    assert predict_file(str(folder), recording, sampling_rate=200).result["windows"]
    damage(folder, what)
    with pytest.raises(PredictionError, match=f"model.*{message}"):
        predict_file(str(folder), recording, sampling_rate=200)


def test_an_encoder_without_a_trained_head_predicts_nothing(recording, tmp_path):
    folder = save(TinyMyoForPreTraining, tmp_path / "model")
    with pytest.raises(PredictionError, match="predicts nothing, it holds TinyMyoForPreTraining: fine-tune it first"):
        predict_file(folder, recording, sampling_rate=200)
