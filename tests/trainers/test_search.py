"""Hyper-parameter search: trials are runs like any other, kept through interruptions, chosen by validation only."""

import gc
import json

import optuna
import pytest
import yaml
from tiny_run import TINY_MODEL
from tiny_typing import tiny_typing
from typer.testing import CliRunner

import trainers.search_report as search_report
import trainers.tasks as tasks
from tinymyo_hf.cli import app
from trainers.classification import ClassificationTask
from trainers.errors import RecipeError
from trainers.parsing import parse_recipe
from trainers.run import run_recipe
from trainers.search import search
from trainers.search_space import DEFAULT_SPACE, read_space

SPACE = {
    "learning_rate": {"low": "1e-3", "high": 1e-2, "log": True},  # what YAML makes of 1e-3
    "per_device_train_batch_size": {"choices": [8, 16]},
    "model_config.hidden_dropout_prob": {"low": 0.0, "high": 0.3},
    "label_smoothing_factor": {"low": 0.0, "high": 0.2},
    "ema_decay": {"choices": [0.5, 0.9]},
    "layer_decay": {"low": 0.5, "high": 1.0},
}


@pytest.fixture(autouse=True)
def nothing_to_collect():
    """The library collects garbage several times after a trial, which takes long with all that tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def recipe(tiny_corpus, monkeypatch, tmp_path):
    """A recipe on the tiny corpus, as a file."""
    monkeypatch.setattr(tasks, "load_corpus", lambda *args, **kwargs: tiny_corpus)
    path = tmp_path / "tiny.yaml"
    fields = {
        "dataset": "tiny",
        "output_dir": str(tmp_path / "run"),
        "num_train_epochs": 2,
        "model_config": TINY_MODEL,
        "report_to": "none",
        "baselines": False,
        "disable_tqdm": True,
        "seeds": [3, 4],
        "search_space": SPACE,
    }
    path.write_text(yaml.safe_dump(fields))
    return path


def test_search_continues_and_its_best_recipe_gives_the_best_score(recipe, tmp_path, monkeypatch):
    scored = []
    output = tmp_path / "search"
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "score", lambda self, trainer, split: scored.append(split))
        with patch.context() as without_picture:
            without_picture.setattr(search_report, "_plot", lambda *args: None)
            first = search(recipe, output, trials=1, overrides=["--weight_decay", "0.5"])
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{output}/study.db")
        killed = study.ask()
        values = {parameter.name: parameter.suggest(killed) for parameter in read_space(SPACE)}
        results = search(recipe, output, trials=2, overrides=["--weight_decay", "0.5"])
    assert not scored, "the search scored a split by itself: only the evaluations of training count"

    rows = results["trials"]
    assert rows[0] == first["trials"][0]
    assert [row["state"] for row in rows] == ["complete", "fail", "complete"]
    assert rows[2]["values"] == values != rows[0]["values"]
    assert rows[0]["values"].keys() == SPACE.keys() and 1e-3 <= rows[0]["values"]["learning_rate"] <= 1e-2
    assert results["best"]["score"] == max(rows[0]["score"], rows[2]["score"])
    assert json.loads((output / "search.json").read_text()) == results
    assert f"| {results['best']['number']} | complete (best) | " in (output / "search.md").read_text()
    assert (output / "search.png").read_bytes().startswith(b"\x89PNG")
    assert not list(output.rglob("checkpoint-*"))

    best = yaml.safe_load((output / "best.yaml").read_text())
    assert best["base"] == "../tiny.yaml" and best["weight_decay"] == 0.5
    assert best["model_config"].keys() == {*TINY_MODEL, "hidden_dropout_prob"}
    monkeypatch.setattr(ClassificationTask, "write_plots", classmethod(lambda *args: None))
    run = run_recipe(output / "best.yaml", ["--seeds", "3", "--output_dir", str(tmp_path / "best")])
    assert run["validation"]["accuracy"]["mean"] == results["best"]["score"]
    assert run["hyperparameters"]["learning_rate"] == results["best"]["values"]["learning_rate"]

    with pytest.raises(RecipeError, match=r"search holds a search with other settings \(training\)"):
        search(recipe, output, trials=2, overrides=["--weight_decay", "0.1"])


def test_default_space_fits_the_recipes_of_the_package():
    for parameter in read_space(None):
        for value in parameter.bounds():
            parse_recipe("uci_emg_200", [f"--{parameter.name}={value}", "--report_to", "none"])
    assert {parameter.name for parameter in read_space(None)} == DEFAULT_SPACE.keys()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rat": {"low": 1, "high": 2}}, "unknown field 'learning_rat'"),
        ({"learning_rate": [1e-4, 1e-3]}, r"search_space, learning_rate: write \{low"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-4}}, "low .* must be below high"),
        ({"learning_rate": {"low": 0, "high": 1e-4, "log": True}}, "needs low above 0"),
        ({"learning_rate": {"low": "small", "high": 1}}, "search_space, learning_rate"),
        ({"class_weights": {"choices": ["none", "some"]}}, "class_weights.*balanced"),
        ({"class_weights": {"choices": []}}, "choices must be a list"),
        ({"dataset_config.stride": {"choices": [10, 20]}}, "dataset_config must be the same in every trial"),
        ({"seeds": {"choices": [0, 1]}}, "seeds must be the same"),
        ({"model_config.hidden_droput": {"low": 0.0, "high": 0.1}}, "no field 'hidden_droput'"),
        ([1], "must name fields and their ranges"),
    ],
)
def test_spaces_that_cannot_be_searched(recipe, tmp_path, space, message):
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"search_space": space}))
    with pytest.raises(RecipeError, match=message):
        search(recipe, tmp_path / "search", trials=1)


def test_typing(tmp_path, monkeypatch):
    """A rate that goes by the size of the model is filled in; what decides how windows are read is not searched."""
    corpus = tiny_typing(tmp_path / "corpus")
    monkeypatch.setattr(tasks, "load_corpus", lambda *args, **kwargs: corpus)
    monkeypatch.setattr(search_report, "_plot", lambda *args: None)
    network = {
        "conv_dim": [8, 8, 8], "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    fields = {
        "task": "ctc", "dataset": "tiny", "output_dir": str(tmp_path / "run"), "preset": "semg-transformer-tiny",
        "model_config": network, "context": [400, 100], "num_train_epochs": 1, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1, "report_to": "none", "baselines": False, "disable_tqdm": True,
    }  # fmt: skip

    def search_for(**space):
        path = tmp_path / "typing.yaml"
        path.write_text(yaml.safe_dump(fields | {"search_space": space}))
        return search(path, tmp_path / "search", trials=1)

    for name, values in (("loss_span", ["all", "window"]), ("alignment_weight", [0.1, 1.0])):
        with pytest.raises(RecipeError, match=f"search_space: {name}"):
            search_for(**{name: {"choices": values}})
    results = search_for(weight_decay={"low": 0.0, "high": 0.3})
    assert [trial["state"] for trial in results["trials"]] == ["complete"]


def test_searches_that_cannot_start_or_end(recipe, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file.txt").touch()
    other = CliRunner().invoke(app, ["search", str(recipe), "--trials", "1", "--output", str(tmp_path / "other")])
    assert other.exit_code == 2 and "holds no search: name a new or empty folder with --output" in other.output
    diverging = {"learning_rate": {"choices": [1e30]}}
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"search_space": diverging}))
    with pytest.raises(RecipeError, match="no trial came to its end"):
        search(recipe, tmp_path / "search", trials=1)
