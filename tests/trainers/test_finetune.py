"""The fine-tuning run: what it writes, what it learns, and that a killed run ends as an uninterrupted one."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import LABELS, TINY_MODEL
from transformers import TrainerCallback, TrainerState

import trainers.finetune as finetune
import trainers.tasks as tasks
from tinymyo_hf import TinyMyoForSequenceClassification
from trainers.callbacks import EvaluationLines
from trainers.classification import ClassificationTask
from trainers.errors import RecipeError
from trainers.models import load_trained


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


def kill_at(monkeypatch, step):
    """Every trainer made from now on dies after that many steps, in the middle of an epoch."""
    make_trainer = finetune.make_trainer

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Killed

    def make_mortal(*args):
        trainer = make_trainer(*args)
        trainer.add_callback(Kill())
        return trainer

    monkeypatch.setattr(finetune, "make_trainer", make_mortal)


def test_run_writes_a_checkpoint_a_card_and_results(train_tiny, tmp_path):
    results = train_tiny(plots=True, seeds=[0, 1], baselines=True, report_to="tensorboard", num_train_epochs=4)
    folder = tmp_path / "run"
    for name in ("README.md", "confusion_matrix.png", "learning_curves.png", "per_subject.png", "seed-1/runs"):
        assert (folder / name).exists(), name
    assert not list(folder.rglob("checkpoint-*")), "trainer checkpoints are left behind"
    assert not list(folder.rglob("*.bin")), "a pickle is left behind"

    stored = json.loads((folder / "results.json").read_text())
    assert stored["labels"] == list(LABELS)
    assert stored["windows"] == {"train": 96, "validation": 48, "test": 60}
    assert stored["test"]["accuracy"]["count"] == 2 and stored["test"]["accuracy"]["std"] is not None
    assert stored["test"] == results["test"]
    assert set(stored["baselines"]) == {"LDA", "Random forest"}
    assert [row["subject"] for row in stored["runs"][0]["test"]["per_subject"]] == ["d", "e"]
    losses = [row["train_loss"] for row in stored["runs"][0]["history"]]
    assert losses[-1] < losses[0]

    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "model-index" in card and "Random forest" in card and "± " in card

    model, extractor = load_trained(str(folder), TinyMyoForSequenceClassification)
    assert model.config.id2label == dict(enumerate(LABELS)) and model.config.num_channels == 4
    assert extractor.window_length == 40 and extractor.patch_size == 10


@pytest.mark.parametrize("extra", [{}, {"ema_decay": 0.9, "augmentations": {"gaussian_noise": {"std": 0.2}}}])
def test_a_killed_run_continues_to_the_same_weights(train_tiny, monkeypatch, tmp_path, extra):
    whole = train_tiny(output_dir="whole", **extra)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step=5)
        train_tiny(output_dir="killed", **extra)
    assert (tmp_path / "killed/seed-0/checkpoint-3").is_dir()
    (tmp_path / "killed/seed-0/checkpoint-6").mkdir()  # a checkpoint cut short by the kill
    (tmp_path / "killed/seed-0/checkpoint-6/model.safetensors").write_bytes(b"\0")

    resumed = train_tiny(output_dir="killed", **extra)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed["runs"][0]["history"] == whole["runs"][0]["history"]
    assert resumed["test"] == whole["test"]


@pytest.mark.parametrize("fields", [{"early_stopping_patience": 1, "learning_rate": 1e-7, "num_train_epochs": 20}, {}])
def test_a_run_killed_after_training_is_not_trained_further(train_tiny, monkeypatch, fields):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ClassificationTask, "score", lambda *args: (_ for _ in ()).throw(Killed))
        train_tiny(**fields)
    resumed, whole = train_tiny(**fields), train_tiny(output_dir="whole", **fields)
    assert len(resumed["runs"][0]["history"]) < 20
    assert resumed["runs"][0]["history"] == whole["runs"][0]["history"]
    assert resumed["test"] == whole["test"]


def test_finished_seeds_are_reused_and_new_ones_added(train_tiny, capsys):
    train_tiny(num_train_epochs=1)
    results = train_tiny(num_train_epochs=1, seeds=[0, 1])
    assert "seed 0: finished earlier" in capsys.readouterr().out
    assert [run["seed"] for run in results["runs"]] == [0, 1]


def test_another_run_is_not_overwritten_unasked(train_tiny, tmp_path):
    train_tiny(num_train_epochs=1)
    with pytest.raises(RecipeError, match="learning_rate: 0.002 there, 0.01 here.*--overwrite"):
        train_tiny(num_train_epochs=1, learning_rate=1e-2)
    results = train_tiny(num_train_epochs=1, learning_rate=1e-2, overwrite=True)
    assert results["hyperparameters"]["learning_rate"] == 1e-2

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("keep")
    with pytest.raises(RecipeError, match="not empty and holds no run"):
        train_tiny(output_dir="mine", overwrite=True)


def test_fine_tuning_options(train_tiny, tmp_path):
    train_tiny(num_train_epochs=1)
    pretrained = {"model_name_or_path": str(tmp_path / "run"), "model_config": {}, "num_train_epochs": 1}
    before = load_file(tmp_path / "run/model.safetensors")

    frozen = train_tiny(output_dir="frozen", freeze_encoder=True, **pretrained)
    assert frozen["parameters"]["trainable"] == 24 * 4 * 3 + 3
    after = load_file(tmp_path / "frozen/model.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("tinymyo."))
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])

    options = {"ema_decay": 0.5, "class_weights": "balanced", "gradient_accumulation_steps": 2}
    lora = train_tiny(output_dir="lora", lora=True, **options, **pretrained)
    assert lora["parameters"]["trainable"] < lora["parameters"]["total"] / 2
    assert (tmp_path / "lora/seed-0/adapter/adapter_config.json").is_file()
    merged = load_file(tmp_path / "lora/model.safetensors")
    assert merged.keys() == before.keys()  # a plain checkpoint: the pipeline needs no peft
    name = "tinymyo.layers.0.attention.qkv.weight"
    assert not torch.equal(merged[name], before[name])


def test_a_recipe_that_was_refused_can_be_corrected_in_its_folder(train_tiny, tmp_path):
    with pytest.raises(RecipeError, match="num_channels is 4 by the data"):
        train_tiny(model_config=TINY_MODEL | {"num_channels": 3}, baselines=True)
    assert not (tmp_path / "run/baselines.json").exists()  # refused before they are fitted, which can take long
    results = train_tiny(num_train_epochs=1)
    assert json.loads((tmp_path / "run/run.json").read_text()) == results["arguments"]
    with pytest.raises(RecipeError, match="holds another run .num_train_epochs: 1"):
        train_tiny(num_train_epochs=2)


def test_bf16_autocast_on_cpu(train_tiny):
    results = train_tiny(bf16=True, num_train_epochs=1)
    assert results["hyperparameters"]["bf16"] and results["test"]["accuracy"]["mean"] > 0


def test_corpora_that_cannot_be_learned_from(tiny_corpus, train_tiny, monkeypatch):
    data, extractor = tiny_corpus
    without = type(data)({split: data[split] for split in ("train", "test")})
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "load_corpus", lambda *a, **k: (without, extractor))
        with pytest.raises(RecipeError, match="no windows in its validation split"):
            train_tiny()
    with pytest.raises(RecipeError, match="no multiple of the model's patch_size 12"):
        train_tiny(output_dir="other", model_config=TINY_MODEL | {"patch_size": 12})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric_for_best_model": "acuracy"}, "metric_for_best_model=acuracy: choose from loss, accuracy, f1_macro"),
        ({"load_best_model_at_end": False}, "report other weights than it saves"),
    ],
)
def test_fields_that_would_select_nothing(fields, message, train_tiny, tmp_path):
    with pytest.raises(RecipeError, match=message):
        train_tiny(**fields)
    assert not (tmp_path / "run/seed-0").exists()


@pytest.mark.parametrize(("metric", "marked"), [("accuracy", True), (None, False)])
def test_the_best_evaluation_is_marked_where_one_is_kept(metric, marked, capsys):
    state = TrainerState(epoch=1.0, is_world_process_zero=True)
    arguments = SimpleNamespace(metric_for_best_model=metric, greater_is_better=True, num_train_epochs=2)
    lines = EvaluationLines(metric or "loss")
    lines.on_evaluate(arguments, state, None, metrics={"eval_loss": 0.5, "eval_accuracy": 0.9})
    assert ("(best)" in capsys.readouterr().out) is marked
