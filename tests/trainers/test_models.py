"""Where a model comes from: presets, checkpoints, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import LABELS, TINY_MODEL

from tinymyo_hf import (
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForFrameClassification,
    TinyMyoForPreTraining,
    TinyMyoForSequenceClassification,
)
from trainers.arguments import ModelArguments
from trainers.errors import CheckpointError, RecipeError
from trainers.models import build_model, for_use, load_trained


@pytest.fixture
def pretrained(tmp_path):
    """A pretraining checkpoint, with decoder and mask token."""
    folder = tmp_path / "pretrained"
    TinyMyoForPreTraining(TinyMyoConfig(**TINY_MODEL)).save_pretrained(folder)
    return folder


def build(labels=LABELS, channels=4, **fields):
    label2id = {label: index for index, label in enumerate(labels)}
    head = {"num_channels": channels, "id2label": dict(enumerate(labels)), "label2id": label2id}
    return build_model(TinyMyoForSequenceClassification, ModelArguments(**fields), head)


def load(folder):
    return load_trained(str(folder), TinyMyoForSequenceClassification)


def test_a_preset_with_the_labels_and_channels_of_the_data():
    model = build(preset="tinymyo-ninapro-db5", model_config={"num_hidden_layers": 1, "drop_path_rate": 0.3})
    assert model.config.num_channels == 4 and model.config.num_labels == 3 and model.config.drop_path_rate == 0.3
    assert model.config.hidden_size == 192 and len(model.tinymyo.layers) == 1


def test_a_pretrained_encoder_under_a_new_head(pretrained):
    model = build(model_name_or_path=str(pretrained), channels=6)
    stored = load_file(pretrained / "model.safetensors")
    for name, value in model.tinymyo.state_dict().items():
        assert torch.equal(value, stored[f"tinymyo.{name}"]), name
    assert model.classifier.in_features == 24 * 6 and model.config.label2id["open"] == 2


def test_pretraining_goes_on_with_the_whole_checkpoint(pretrained, tmp_path):
    model = build_model(TinyMyoForPreTraining, ModelArguments(model_name_or_path=str(pretrained)), {"num_channels": 4})
    stored = load_file(pretrained / "model.safetensors")
    assert model.training and model.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_a_classifiers_own_head_is_not_reused(tmp_path):
    first = build(model_config=TINY_MODEL)
    first.save_pretrained(tmp_path)
    second = build(model_name_or_path=str(tmp_path), labels=("x", "y", "z"))
    assert torch.equal(first.tinymyo.norm.weight, second.tinymyo.norm.weight)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def build_detector(channels=4, **fields):
    head = {"num_channels": channels, "stem": "convolution", "is_causal": True}
    return build_model(TinyMyoForFrameClassification, ModelArguments(**fields), head, new_encoder_parts=("stem",))


@pytest.mark.parametrize("how", ["freeze_encoder", "lora"])
def test_a_new_stem_is_trained_whole_under_a_frozen_encoder(how, pretrained, tmp_path):
    model = build_detector(model_name_or_path=str(pretrained), **{how: True})
    trains = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert sum("stem." in name for name in trains) == 4 and any("frame_classifier" in name for name in trains)
    assert not any("layers." in name and "lora" not in name for name in trains)
    model(torch.randn(1, 4, 60), labels=torch.zeros(1, 4, 2)).loss.backward()
    assert all(w.grad.abs().sum() > 0 for n, w in model.named_parameters() if "stem." in n and w.requires_grad)

    whole = build_detector(model_name_or_path=str(pretrained))
    whole.save_pretrained(tmp_path)
    model = build_detector(model_name_or_path=str(tmp_path), **{how: True})  # whose stem has learned
    assert not any("stem." in name for name, weight in model.named_parameters() if weight.requires_grad)
    stem = {name.split("stem.")[1]: weight for name, weight in model.named_parameters() if "stem." in name}
    assert all(torch.equal(weight, stem[name]) for name, weight in whole.tinymyo.stem.named_parameters())
    model = build_detector(channels=5, model_name_or_path=str(tmp_path), **{how: True})  # joins other channels: new
    assert any("stem.convolution" in n or "stem.modules" in n for n, w in model.named_parameters() if w.requires_grad)


def test_an_encoder_of_frames_under_a_head_of_patches(tmp_path):
    with pytest.raises(RecipeError, match="preset tinymyo-neuromotor has an encoder with stem=convolution"):
        build(preset="tinymyo-neuromotor")
    build_detector(model_config=TINY_MODEL).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="has an encoder with stem=convolution, which is for `task: events`"):
        build(model_name_or_path=str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_config": {"num_channels": 8}}, "num_channels is 4 by the data and the task, not 8"),
        ({"preset": "huge"}, "unknown preset 'huge'; choose from tinymyo-base"),
        ({"model_config": {"width": 3}}, "TinyMyoConfig has no field 'width'"),
        ({"model_config": {"hidden_size": 25}}, "must be a multiple of num_attention_heads"),
        ({"model_config": {"hidden_size": "big"}}, "hidden_size.*expected int"),
        ({"model_config": TINY_MODEL, "lora": True, "lora_target_modules": ["nothing"]}, "lora_target_modules"),
    ],
)
def test_model_fields_that_cannot_be_used(fields, message):
    with pytest.raises(RecipeError, match=message):
        build(**fields)


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        ({"hidden_size": 48}, "has another shape for 26 weights"),
        ({"num_hidden_layers": 3}, "lacks 12 weights"),
        ({"num_hidden_layers": 1}, "has, beyond the configured model, 12 weights"),
    ],
)
def test_a_checkpoint_of_another_shape(pretrained, model_config, message):
    name, value = next(iter(model_config.items()))
    with pytest.raises(CheckpointError, match=f"another shape: {name} .{TINY_MODEL[name]} there, {value} in model_con"):
        build(model_name_or_path=str(pretrained), model_config=model_config)

    config = json.loads((pretrained / "config.json").read_text())
    (pretrained / "config.json").write_text(json.dumps(config | model_config))  # of another checkpoint
    with pytest.raises(CheckpointError, match=message):
        build(model_name_or_path=str(pretrained))


def test_checkpoints_that_are_none(tmp_path, pretrained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for missing in (str(tmp_path / "missing"), "runs/missing", "missing"):  # and not looked for on the Hub
        with pytest.raises(CheckpointError, match=f"{missing}: no such checkpoint"):
            build(model_name_or_path=missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no config.json.*tinymyo convert"):
        build(model_name_or_path=str(tmp_path / "empty"))

    weights = load_file(pretrained / "model.safetensors")
    (pretrained / "model.safetensors").unlink()
    torch.save(weights, pretrained / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="read from safetensors only"):
        build(model_name_or_path=str(pretrained))
    (pretrained / "model.safetensors").write_bytes((pretrained / "pytorch_model.bin").read_bytes())
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        build(model_name_or_path=str(pretrained))

    config = json.loads((pretrained / "config.json").read_text())
    (pretrained / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="a bert checkpoint; a tinymyo checkpoint is needed"):
        build(model_name_or_path=str(pretrained))


def test_a_trained_model_with_its_preprocessing(tmp_path, pretrained):
    with pytest.raises(CheckpointError, match="not TinyMyoForSequenceClassification: fine-tune it first"):
        load(pretrained)
    model = TinyMyoForSequenceClassification(TinyMyoConfig(**TINY_MODEL, num_channels=4, num_labels=3))
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="preprocessor_config.json"):
        load(tmp_path)
    TinyMyoFeatureExtractor(window_length=40, patch_size=10).save_pretrained(tmp_path)
    loaded, extractor = load(tmp_path)
    assert not loaded.training and extractor.window_length == 40

    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "classifier.bias": torch.zeros(7)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="has another shape for 1 weights .classifier.bias"):
        load(tmp_path)


def test_a_saved_model_refuses_recordings_at_another_rate():
    trained = TinyMyoFeatureExtractor(feature_size=4, sampling_rate=500.0, on_rate_mismatch="resample")
    saved = for_use(trained)
    assert saved.on_rate_mismatch == "error" and trained.on_rate_mismatch == "resample"
    assert saved.to_dict() | {"on_rate_mismatch": "resample"} == trained.to_dict()
