"""Scoring a detector of events on a corpus: the figures of its own run."""

import datasets
import pytest
from tiny_events import tiny_gestures

import trainers.evaluate as evaluate
import trainers.finetune as finetune
import trainers.tasks as tasks
from trainers.evaluate import evaluate_checkpoint
from trainers.parsing import parse_recipe

TINY = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}


def test_figures_of_the_training_run_are_found_again(tmp_path, monkeypatch):
    corpus, extractor = tiny_gestures(tmp_path / "corpus")
    for module in (tasks, evaluate):
        monkeypatch.setattr(module, "load_corpus", lambda *args, **kwargs: (corpus, extractor))
    recipe = {
        "task": "events",
        "dataset": "tiny",
        "output_dir": str(tmp_path / "run"),
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "model_config": TINY,
        "report_to": "none",
        "baselines": False,
        "disable_tqdm": True,
    }
    trained = finetune.run(*parse_recipe(recipe))["runs"][0]["test"]
    corpus = datasets.DatasetDict(test=corpus["test"])  # to score, nothing else is needed
    results = evaluate_checkpoint(str(tmp_path / "run"), "tiny", tmp_path / "evaluation")
    found = results["runs"][0]["test"]
    assert found["per_recording"] == trained["per_recording"]
    assert found["misses_per_hour"] == pytest.approx(trained["misses_per_hour"])
    assert "Misses/h" in (tmp_path / "evaluation/report.md").read_text()
