"""Predictions from the command line: checkpoints that must not be used are refused by name."""

import json

import numpy as np
import pytest
import torch

from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForPreTraining, TinyMyoForSequenceClassification
from tinymyo_hf.predictions import PredictionError, classify_file

CONFIG = {"hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 24, "num_channels": 4}


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4, 400)))
    return path


def save(model_class, folder):
    model_class(TinyMyoConfig(**CONFIG)).save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=4).save_pretrained(folder)
    return folder


def damage(folder, what):
    weights, config = folder / "model.safetensors", folder / "config.json"
    if what == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "pickle":
        torch.save({"classifier.weight": torch.zeros(2)}, weights)
    elif what == "pickle under its own name":
        weights.rename(folder / "pytorch_model.bin")
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 48}))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut off", "cannot be loaded as an EMG classifier: .*not fully covered"),
        ("pickle", "cannot be loaded as an EMG classifier: .*header"),
        ("pickle under its own name", "no file named model.safetensors"),
        ("another shape", r"mlp.fc1.bias has the shape \(24,\), but config.json asks for \(48,\)"),
    ],
)
def test_damaged_checkpoints(recording, tmp_path, what, message):
    folder = save(TinyMyoForSequenceClassification, tmp_path / "model")
    assert classify_file(str(folder), recording, sampling_rate=200)["windows"]
    damage(folder, what)
    with pytest.raises(PredictionError, match=f"model.*{message}"):
        classify_file(str(folder), recording, sampling_rate=200)


def test_an_encoder_without_a_trained_head_predicts_nothing(recording, tmp_path):
    folder = save(TinyMyoForPreTraining, tmp_path / "model")
    with pytest.raises(PredictionError, match=r"no trained classifier: it lacks classifier.bias.*fine-tune it first"):
        classify_file(str(folder), recording, sampling_rate=200)
