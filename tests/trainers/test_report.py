"""Tables, plots and files of a report."""

import json

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from trainers.classification import COLUMNS, ClassificationTask
from trainers.classification_report import plot_confusion_matrix, subject_table
from trainers.model_card import write_model_card
from trainers.report import (
    Column,
    format_score,
    markdown_table,
    mean_and_std,
    plot_learning_curves,
    score_table,
    summarize_seeds,
    write_json,
)

SCORES = {"accuracy": 0.9, "accuracy_macro": 0.8, "f1_macro": 0.85, "auroc_macro": None, "cohen_kappa": 0.7}


def per_subject(*accuracies):
    rows = zip("ab", accuracies, strict=True)
    return [{"subject": name, "windows": 10, "accuracy": value, "f1_macro": value} for name, value in rows]


@pytest.fixture
def results():
    test = SCORES | {
        "per_subject": per_subject(0.5, 1.0),
        "confusion_matrix": [[8, 2], [1, 9]],
        "auroc_undefined_classes": [1],
    }
    history = [
        {"epoch": 1.0, "train_loss": 1.2, "validation_loss": 1.1, "accuracy": 0.5, "f1_macro": 0.4, "best": False},
        {"epoch": 2.0, "train_loss": 0.9, "validation_loss": 1.0, "accuracy": 0.6, "f1_macro": 0.5, "best": True},
    ]
    runs = [{"seed": seed, "test": test, "history": history, "train_seconds": 10.0} for seed in (0, 1)]
    return {
        "dataset": "synthetic",
        "labels": ["rest", "fist"],
        "windows": {"train": 100, "validation": 20, "test": 20},
        "subjects": {"train": 5, "validation": 1, "test": 2},
        "unseen_subjects": True,
        "window": {"length": 200, "stride": 100, "sampling_rate": 200, "seconds": 1.0},
        "parameters": {"total": 3_572_550, "trainable": 3_572_550},
        "kept_seed": 1,
        "test": summarize_seeds([run["test"] for run in runs], COLUMNS),
        "test_split": "test",
        "baselines": {"LDA": test, "Random forest": test},
        "runs": runs,
        "arguments": {
            "model": {"model_name_or_path": None, "preset": "tinymyo-base"},
            "data": {"train_fraction": 1.0},
        },
        "hyperparameters": {"learning_rate": 5e-4},
        "command": "tinymyo train synthetic",
        "environment": {"hardware": "CPU, test", "torch": "2", "transformers": "5"},
    }


def test_scores_as_their_columns_show_them():
    percent, degrees = Column("accuracy", "Accuracy", 100), Column("mae", "MAE (degrees)", digits=1)
    assert format_score(percent, {"mean": 0.93631, "std": 0.0041}) == "93.63 ± 0.41"
    assert format_score(percent, 0.5) == "50.00" and format_score(percent, None) == "undefined"
    assert format_score(degrees, {"mean": 8.77, "std": None}) == "8.8"
    two = mean_and_std([0.2, None, 0.4])
    assert two == {"mean": pytest.approx(0.3), "std": pytest.approx(0.02**0.5), "count": 2}
    assert mean_and_std([0.2]) == {"mean": 0.2, "std": None, "count": 1}
    assert mean_and_std([None]) == {"mean": None, "std": None, "count": 0}


def test_tables():
    assert markdown_table(["A", "B"], [["x", 1]]) == "| A | B |\n| --- | ---: |\n| x | 1 |"
    table = score_table({"Net": summarize_seeds([SCORES, SCORES], COLUMNS), "LDA": SCORES}, COLUMNS)
    assert "| Net | 90.00 ± 0.00 | 85.00 ± 0.00 | 80.00 ± 0.00 | undefined | 70.00 ± 0.00 |" in table
    assert "| LDA | 90.00 | 85.00 | 80.00 | undefined | 70.00 |" in table
    table = subject_table({"Net": per_subject(0.5, 1.0), "LDA": per_subject(0.25, 0.75)})
    assert "| a | 10 | 50.00 | 25.00 |" in table and "| b | 10 | 100.00 | 75.00 |" in table


def test_plots_are_whole_pictures(results, tmp_path):
    ClassificationTask.write_plots(results, tmp_path)
    many = [[i * j for i in range(25)] for j in range(25)]
    plot_confusion_matrix(many, [f"gesture {i}" for i in range(25)], tmp_path / "m.png")
    names = {"confusion_matrix.png", "learning_curves.png", "per_subject.png", "m.png"}
    assert {path.name for path in tmp_path.iterdir()} == names  # and nothing half-written
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.verify()
            assert min(image.size) > 300


def test_model_card_has_metadata_the_hub_reads(results, tmp_path):
    write_model_card(results, ClassificationTask, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "time-series-classification" and card.data.license == "apache-2.0"
    measured = {entry.metric_type: entry.metric_value for entry in card.data.eval_results}
    assert measured == {"accuracy": 90.0, "f1": 85.0}  # the undefined AUROC is left out, not written as 0
    for text in ("TinyMyo, 2 seeds", "Random forest", "No test subject", "tinymyo train synthetic", "AUROC (absent"):
        assert text in card.text, text


def test_a_fine_tuned_model_is_not_given_a_licence_of_its_own(results, tmp_path):
    results["arguments"]["model"]["model_name_or_path"] = "someone/encoder"
    write_model_card(results, ClassificationTask, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None and card.data.base_model == "someone/encoder"
    assert "The licence of `someone/encoder` holds" in card.text


def test_curves_show_a_single_evaluation_and_name_the_score_as_its_column_does(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr("trainers.report.save_figure", lambda figure, path: figures.append(figure))
    row = {"epoch": 1.0, "train_loss": 1.2, "validation_loss": 1.1, "mae": 0.5}
    plot_learning_curves({"seed 0": [row]}, (Column("mae", "MAE"),), tmp_path / "curves.png")
    lines = [line for axes in figures[0].axes for line in axes.get_lines()]
    assert [line.get_label() for line in lines] == ["training", "validation", "MAE"]
    assert all(line.get_marker() != "None" for line in lines)  # a line through one point is invisible


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]
