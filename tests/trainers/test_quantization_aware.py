"""Quantization-aware training through the engine: what it starts from, saves and reports, and that it resumes."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from test_finetune import Killed, kill_at
from tiny_events import tiny_gestures
from tiny_run import TINY_MODEL
from transformers import TrainerCallback

import trainers.finetune as finetune
import trainers.tasks as tasks
from tinymyo_hf import TinyMyoForSequenceClassification
from trainers.errors import CheckpointError, RecipeError
from trainers.fake_quantization import fake_quantized_layers
from trainers.models import load_trained
from trainers.parsing import parse_recipe
from trainers.quantization_aware import BEFORE, RANGES_FILE
from trainers.run import run_recipe

LAYERS = 1 + 2 * 4 + 1  # patches, two blocks, head


def test_a_trained_classifier_goes_on_and_is_saved_as_an_ordinary_one(train_tiny, tmp_path):
    before = train_tiny(output_dir="float", num_train_epochs=4)
    fields = {"model_name_or_path": str(tmp_path / "float"), "model_config": {}}
    results = train_tiny(quantization_aware=True, num_train_epochs=1, learning_rate=1e-6, **fields)
    reference = results["baselines"][BEFORE["float32"]]
    assert {name: reference[name] for name in ("accuracy", "loss")} == pytest.approx(
        {name: before["runs"][0]["test"][name] for name in ("accuracy", "loss")}
    )
    int8, after = results["baselines"][BEFORE["int8"]]["loss"], results["runs"][0]["test"]["loss"]
    assert int8 != reference["loss"] and int8 == pytest.approx(reference["loss"], abs=0.05)
    assert after == pytest.approx(int8, abs=0.01)  # hardly trained: the head is still the one that had learnt
    assert after != reference["loss"]

    folder = tmp_path / "run"
    assert load_file(folder / "model.safetensors").keys() == load_file(tmp_path / "float/model.safetensors").keys()
    model, _ = load_trained(str(folder), TinyMyoForSequenceClassification)
    ranges = json.loads((folder / RANGES_FILE).read_text())
    assert len(ranges) == LAYERS and all(low <= 0 <= high for layer in ranges.values() for low, high in layer.values())
    assert all(hasattr(model.get_submodule(name), "weight") for name in ranges)

    card = (folder / "README.md").read_text()
    assert "int8 network, simulated" in card and "Quantization-aware training" in card
    assert BEFORE["int8"] in card and "`quantization_aware` | `True`" in card

    taught = {"task": "distillation", "student_task": "classification", "teacher_name_or_path": str(folder)}
    recipe = {**results["arguments"]["training"], **taught, "dataset": "tiny", "model_config": TINY_MODEL}
    results = run_recipe(recipe | {"output_dir": str(tmp_path / "student"), "use_cpu": True, "max_steps": 2})
    assert results["baselines"].keys() == {"teacher"} and results["quantization"]["calibration_windows"] == 96


def test_ranges_move_until_the_last_quarter_and_a_killed_run_ends_the_same(train_tiny, monkeypatch, tmp_path):
    fields = {"quantization_aware": True, "num_train_epochs": 4, "ema_decay": 0.9}
    with monkeypatch.context() as patch:
        ranges = watch_ranges(patch)
        whole = train_tiny(output_dir="whole", **fields)
    moved = [not torch.equal(*pair) for pair in itertools.pairwise(ranges)]
    assert moved == [True] * 8 + [False] * 3  # 12 steps, of which 9 observe

    for step in (5, 11):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, step=step)
            train_tiny(output_dir="killed", **fields)
    resumed = train_tiny(output_dir="killed", **fields)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "killed" / RANGES_FILE).read_text() == (tmp_path / "whole" / RANGES_FILE).read_text()
    assert resumed["test"] == whole["test"] and BEFORE["int8"] not in whole["baselines"]


def watch_ranges(monkeypatch):
    """The ranges of all layers after each step, (2 * layers,); filled while a model trains."""
    seen = []
    make_trainer = finetune.make_trainer

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(torch.cat([layer.input_range.clone() for _, layer in fake_quantized_layers(model)]))

    def make_watched(*args):
        trainer = make_trainer(*args)
        trainer.add_callback(Watch())
        return trainer

    monkeypatch.setattr(finetune, "make_trainer", make_watched)
    return seen


def test_a_trained_regression_goes_on(train_regression, tmp_path):
    train_regression(output_dir="float", num_train_epochs=1)
    fields = {"quantization_aware": True, "num_train_epochs": 1, "learning_rate": 1e-6}
    fields |= {"model_name_or_path": str(tmp_path / "float"), "model_config": {}}
    results = train_regression(output_dir="int8", **fields)
    assert results["baselines"].keys() == {*BEFORE.values()}
    assert results["runs"][0]["test"]["mae"] == pytest.approx(results["baselines"][BEFORE["float32"]]["mae"], rel=0.05)
    with pytest.raises(CheckpointError, match="head another shape"):
        train_regression(output_dir="wider", **fields | {"model_config": {"regression_hidden_size": 8}})


def test_a_detector_of_events(monkeypatch, tmp_path):
    corpus = tiny_gestures(tmp_path / "corpus")
    monkeypatch.setattr(tasks, "load_corpus", lambda *args, **kwargs: corpus)
    recipe = {
        "task": "events",
        "quantization_aware": True,
        "dataset": "tiny",
        "output_dir": str(tmp_path / "run"),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_steps": 2,
        "model_config": TINY_MODEL | {"num_hidden_layers": 1, "patch_size": 20},
        "report_to": "none",
        "baselines": False,
        "disable_tqdm": True,
    }
    finetune.run(*parse_recipe(recipe))
    ranges = json.loads((tmp_path / "run" / RANGES_FILE).read_text())
    assert len(ranges) == 1 + 4 + 1 and ranges["tinymyo.stem.convolution"].keys() == {"input", "output"}
    assert ranges["tinymyo.stem.convolution"]["input"][1] > 5  # compressed, of amplitude 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora": True}, "remove lora"),
        ({"task": "personalization"}, "a personalization cannot be trained so"),
        ({"task": "ctc"}, "a ctc cannot be trained so"),
    ],
)
def test_what_cannot_be_joined(train_tiny, fields, message):
    with pytest.raises(RecipeError, match=message):
        train_tiny(quantization_aware=True, **fields)


def test_the_recipe_of_the_package():
    _, _, arguments = parse_recipe("uci_emg_qat")
    assert arguments.quantization_aware
