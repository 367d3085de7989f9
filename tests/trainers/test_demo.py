"""The demo, in a reduced form: the whole way from simulated recordings to a prediction, and on with its model."""

import json

import numpy as np
import pytest
from datasets import load_dataset
from typer.testing import CliRunner

from tinymyo_hf.cli import app
from trainers.demo import format_segments, with_truth

TINY = {
    "--model_config.hidden_size": 24,
    "--model_config.num_hidden_layers": 1,
    "--model_config.intermediate_size": 48,
    "--dataset_config.num_subjects": 5,
    "--dataset_config.num_sessions": 1,
    "--dataset_config.num_repetitions": 2,
    "--num_train_epochs": 2,
    "--report_to": "none",
}


def tinymyo(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder and the printed text of one demo."""
    folder = tmp_path_factory.mktemp("demo")
    options = [token for pair in TINY.items() for token in pair]
    text = tinymyo("demo", "--output", folder / "out", "--cache_dir", folder / "cache", *options)
    return folder, text


def test_demo_goes_all_the_way(demo):
    folder, text = demo
    for part in ("[1/4]", "| TinyMyo |", "| LDA |", "TinyMyoForSequenceClassification", "labelled windows", "[done]"):
        assert part in text, part
    assert f"tinymyo predict {folder}/out {folder}/out/recording.csv --sampling-rate 200" in text
    results = json.loads((folder / "out/results.json").read_text())
    assert results["unseen_subjects"] and results["dataset"] == "synthetic" and len(results["labels"]) == 8
    for name in ("README.md", "model.safetensors", "preprocessor_config.json", "confusion_matrix.png", "recording.csv"):
        assert (folder / "out" / name).is_file(), name


def test_what_the_demo_suggests_next_works(demo, tmp_path):
    folder, _ = demo
    out = tinymyo("predict", folder / "out", folder / "out/recording.csv", "--sampling-rate", 200)
    assert "whole recording:" in out
    config = ["--num_subjects", 5, "--num_sessions", 1, "--num_repetitions", 2]
    out = tinymyo("evaluate", folder / "out", "--dataset", "synthetic", "--output", tmp_path / "e", *config)
    first, again = (json.loads((path / "results.json").read_text()) for path in (folder / "out", tmp_path / "e"))
    # the demo may have scored in bfloat16, so a window or two may fall otherwise
    assert again["test"]["accuracy"]["mean"] == pytest.approx(first["test"]["accuracy"]["mean"], abs=0.02)
    assert again["baselines"]["LDA"]["accuracy"] == first["baselines"]["LDA"]["accuracy"]


def test_prepared_windows_can_be_trained_on(demo, tmp_path):
    config = ["--num_subjects", 5, "--num_sessions", 1, "--num_repetitions", 1]
    out = tinymyo("prepare", "synthetic", "--out", tmp_path / "windows", *config)
    assert "is ready" in out
    assert load_dataset(str(tmp_path / "windows"), split="test").features["label"].names[0] == "rest"
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"dataset: {tmp_path / 'windows'}\noutput_dir: {tmp_path / 'run'}\nreport_to: none\nbaselines: false\n"
        "num_train_epochs: 1\nmodel_config: {hidden_size: 24, num_hidden_layers: 1, intermediate_size: 48}\n"
    )
    out = tinymyo("train", recipe, "--learning_rate", "1e-3")
    assert "| TinyMyo |" in out
    card = (tmp_path / "run/README.md").read_text()
    assert f"tinymyo train {recipe} --learning_rate 1e-3" in card


def test_windows_are_compared_with_what_was_recorded():
    truth = np.array(["", "", "fist", "fist", "fist", "fist", "open", "open"])
    spans = [(0, 2, "fist"), (2, 4, "fist"), (4, 6, "fist"), (5, 7, "open"), (6, 8, "fist")]
    windows = [{"start": a / 2, "end": b / 2, "label": label, "score": 1.0} for a, b, label in spans]
    labelled = with_truth(windows, truth, rate=2)
    assert [window["truth"] for window in labelled] == ["", "fist", "fist", "", "open"]
    lines = format_segments(labelled).splitlines()[1:]
    assert [line.split() for line in lines] == [["1.00", "3.00", "fist", "fist"], ["3.00", "4.00", "fist", "open"]]
    assert format_segments(labelled, rows=1).endswith("... 1 more")
