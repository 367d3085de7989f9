"""Regression through the engine: what a run writes, learns and refuses, and that a killed run ends as a whole one."""

import json

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_finetune import Killed, kill_at
from tiny_regression import OUTPUTS, make_split
from tiny_run import TINY_MODEL
from transformers import pipeline

from tinymyo_hf import TinyMyoForRegression
from trainers.errors import RecipeError
from trainers.parsing import parse_recipe
from trainers.regression import RegressionTask, target_statistics


def test_run_writes_a_checkpoint_a_card_and_results(train_regression, regression_corpus, tmp_path):
    results = train_regression(plots=True, seeds=[0, 1], baselines=True, num_train_epochs=8)
    folder = tmp_path / "run"
    for name in ("README.md", "traces.png", "per_output.png", "learning_curves.png"):
        assert (folder / name).is_file(), name
    stored = json.loads((folder / "results.json").read_text())
    assert stored["outputs"] == list(OUTPUTS) and stored["frames"] == 20 and stored["test_split"] == "test"
    assert stored["windows"] == {"train": 114, "validation": 38, "test": 76}
    truth = np.array(regression_corpus[0]["train"]["targets"])
    assert stored["target_mean"] == pytest.approx(truth.mean(axis=(0, 1)))
    assert stored["target_std"] == pytest.approx(truth.std(axis=(0, 1)))

    constant, ridge = (stored["baselines"][name] for name in ("Mean of training", "Ridge on RMS"))
    assert stored["test"]["mae"]["count"] == 2 and stored["test"]["mae"]["mean"] < 0.6 * constant["mae"]
    assert ridge["mae"] < 0.6 * constant["mae"] and constant["r2"] == pytest.approx(0, abs=0.1)
    run = stored["runs"][0]
    assert [row["subject"] for row in run["test"]["per_subject"]] == ["e", "f"]
    best = min(run["history"], key=lambda row: row["mae"])
    assert best["best"] and run["validation"]["mae"] == best["mae"]

    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "Ridge on RMS" in card and "selected on the validation split" in card
    assert "MAE" in results["summary"]


def test_what_is_saved_predicts_what_was_scored(train_regression, regression_corpus, tmp_path):
    results = train_regression()
    model = TinyMyoForRegression.from_pretrained(tmp_path / "run")
    assert list(model.config.id2label.values()) == list(OUTPUTS) and model.config.target_length == 20
    test = regression_corpus[0]["test"]
    with torch.inference_mode():
        values = model(input_values=torch.tensor(test["input_values"])).logits.numpy()
    error = np.abs(values - np.array(test["targets"]))
    assert results["runs"][0]["test"]["mae"] == pytest.approx(error.mean(), rel=1e-4)

    trace = results["runs"][0]["test"]["trace"]
    first = test["recording"].index(trace["recording"])
    assert trace["start"] == 0 and trace["rate"] == 20  # frames at 100 Hz
    found, truth = (np.array([text.split() for text in trace[key]], float).T for key in ("prediction", "target"))
    # Before the second window begins, half a window in, there is nothing to blend.
    assert np.allclose(found[:2], values[first, :10:5], rtol=1e-3)
    assert np.allclose(truth[:2], np.array(test["targets"][first])[:10:5], rtol=1e-4)
    assert found.shape == truth.shape == (40, 2)

    track = pipeline("emg-regression", model=str(tmp_path / "run"))
    prediction = track(np.random.default_rng(0).normal(size=(4, 400)), sampling_rate=200)
    assert prediction["values"].shape == (200, 2) and prediction["names"] == list(OUTPUTS)


def test_a_killed_run_continues_to_the_same_weights(train_regression, monkeypatch, tmp_path):
    whole = train_regression(output_dir="whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step=6)
        train_regression(output_dir="killed")
    assert (tmp_path / "killed/seed-0/checkpoint-4").is_dir()
    resumed = train_regression(output_dir="killed")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed["runs"][0]["history"] == whole["runs"][0]["history"] and resumed["test"] == whole["test"]


def test_without_a_test_split_validation_is_reported_and_the_card_says_so(
    train_regression, regression_corpus, tmp_path
):
    data = datasets.DatasetDict({split: regression_corpus[0][split] for split in ("train", "validation")})
    results = train_regression(data=data, num_train_epochs=1, baselines=True)
    assert results["test_split"] == "validation" and "test" not in results["windows"]
    assert results["runs"][0]["test"]["mae"] == pytest.approx(results["runs"][0]["validation"]["mae"])
    assert results["baselines"]["Ridge on RMS"]["windows"] == len(data["validation"])
    assert "selected on the very split that is reported" in (tmp_path / "run/README.md").read_text()


def test_a_new_head_starts_at_the_mean_of_the_targets(regression_corpus, train_regression, tmp_path):
    train_regression(num_train_epochs=1)
    mean, std = target_statistics(regression_corpus[0]["train"])
    task = RegressionTask(*regression_corpus, "tiny")
    values = torch.tensor(regression_corpus[0]["train"]["input_values"])
    for fields in ({"model_config": TINY_MODEL}, {"model_name_or_path": str(tmp_path / "run"), "lora": True}):
        recipe = {"task": "regression", "dataset": "tiny", "output_dir": "unused"} | fields
        model = task.build_model(parse_recipe(recipe)[0]).eval()
        with torch.inference_mode():
            start = model(input_values=values).logits
        assert (start.mean(dim=(0, 1)) - torch.tensor(mean)).abs().lt(torch.tensor(2 * std)).all()


def test_statistics_do_not_depend_on_the_pieces_they_are_read_in(regression_corpus, monkeypatch):
    import trainers.regression as regression

    whole = target_statistics(regression_corpus[0]["train"])
    monkeypatch.setattr(regression, "_ROWS", 7)
    for found, expected in zip(target_statistics(regression_corpus[0]["train"]), whole, strict=True):
        assert found == pytest.approx(expected, rel=1e-12)


def changed(split, change):
    """The split with `change` applied to its targets (windows, frames, outputs)."""
    targets = np.array(split["targets"], np.float32)
    change(targets)
    columns = split.to_dict() | {"targets": targets.tolist()}
    return datasets.Dataset.from_dict(columns, features=split.features)


def test_targets_that_cannot_be_learnt(regression_corpus, train_regression):
    data = regression_corpus[0]

    def refused(message, split, change):
        with pytest.raises(RecipeError, match=message):
            train_regression(data=datasets.DatasetDict(data | {split: changed(data[split], change)}))

    def still(targets):
        targets[..., 1] = 3.0

    def missing(targets):
        targets[40, 2, 0] = np.nan

    refused("tiny: output 2 never changes in its train split", "train", still)
    refused(r"targets of window 40 of its test split \(recording f0\) are not finite", "test", missing)
    without = datasets.DatasetDict({name: split.remove_columns("targets") for name, split in data.items()})
    with pytest.raises(RecipeError, match="tiny has no targets"):
        train_regression(data=without)
    with pytest.raises(RecipeError, match="no windows in its validation split"):
        train_regression(data=datasets.DatasetDict(train=data["train"]))
    with pytest.raises(RecipeError, match="label_smoothing_factor: a regression has no classes"):
        train_regression(output_dir="smooth", label_smoothing_factor=0.1)
    with pytest.raises(RecipeError, match="time_shift moves windows in time but not their targets"):
        train_regression(output_dir="other", augmentations={"time_shift": {}})


def test_a_share_of_the_training_windows(train_regression):
    results = train_regression(train_fraction=0.25, num_train_epochs=1)
    assert results["windows"]["train"] == round(0.25 * 114)
    assert make_split(0, ("a",)).num_rows == 38
