"""`pipeline(task, model=...)`: checkpoints load as what they are, and every task refuses the heads of the others."""

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from tinymyo_hf import (
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForFrameClassification,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoModel,
)
from tinymyo_hf.signal import SignalError

TINY = {"hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 24, "num_channels": 4}
TASKS = {
    "emg-classification": TinyMyoForSequenceClassification,
    "emg-regression": TinyMyoForRegression,
    "emg-events": TinyMyoForFrameClassification,
}
MODELS = (*TASKS.values(), TinyMyoForPreTraining, TinyMyoModel)
SIGNAL = np.random.default_rng(0).normal(size=(4, 400))


def make(model_class):
    torch.manual_seed(0)
    stem = {"stem": "convolution", "is_causal": True} if model_class is TinyMyoForFrameClassification else {}
    return model_class(TinyMyoConfig(**TINY, **stem))


def save(model, folder):
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(stride=100).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model_class", MODELS)
def test_a_task_takes_its_own_head_only(model_class, tmp_path):
    folder = save(make(model_class), tmp_path / "model")
    for task, own in TASKS.items():
        if model_class is own:
            loaded = pipeline(task, model=folder, device="cpu")
            assert type(loaded.model) is own and loaded(SIGNAL, sampling_rate=200)
            continue
        right = next((other for other, owner in TASKS.items() if owner is model_class), None)
        fix = f"use pipeline..{right}" if right else "fine-tune it first"
        message = f"model is a {model_class.__name__}, but {task} needs a ...For.*: {fix}"
        with pytest.raises(SignalError, match=message):
            pipeline(task, model=folder, device="cpu")
        with pytest.raises(SignalError, match=f"model is a {model_class.__name__}"):
            pipeline(task, model=make(model_class), feature_extractor=TinyMyoFeatureExtractor(), device="cpu")


@pytest.mark.parametrize("task", TASKS)
def test_without_an_architecture_the_task_decides(task, tmp_path):
    folder = save(make(TASKS[task]), tmp_path / "model")
    expected = pipeline(task, model=folder, device="cpu")(SIGNAL, sampling_rate=200)
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": None}))
    loaded = pipeline(task, model=folder, device="cpu")
    assert type(loaded.model) is TASKS[task]
    np.testing.assert_equal(loaded(SIGNAL, sampling_rate=200), expected)


def test_a_head_trained_since_it_was_loaded_is_used(tmp_path):
    """Before it is saved, its configuration still names the pretrained model."""
    folder = save(make(TinyMyoForPreTraining), tmp_path / "model")
    model = TinyMyoForRegression.from_pretrained(folder)
    assert model.config.architectures == ["TinyMyoForPreTraining"]
    track = pipeline("emg-regression", model=model, feature_extractor=TinyMyoFeatureExtractor(), device="cpu")
    assert track(SIGNAL, sampling_rate=200)["values"].shape == (400, 2)
