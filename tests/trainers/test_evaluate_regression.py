"""Scoring a regression on a corpus: the figures of its own run, outputs matched by name, other targets refused."""

import datasets
import numpy as np
import pytest
from tiny_regression import OUTPUTS

import trainers.evaluate as evaluate
import trainers.regression as regression
from dataset_builders.hub import prepare
from dataset_builders.prepared import prepared_target_names
from dataset_builders.simulation.kinematics import TARGET_NAMES
from tinymyo_hf import TinyMyoForRegression
from trainers.errors import CheckpointError, RecipeError
from trainers.evaluate import evaluate_checkpoint


@pytest.fixture
def use(regression_corpus, monkeypatch):
    """A function that sets what `load_corpus` returns to the evaluation."""

    def set_corpus(data=regression_corpus[0]):
        monkeypatch.setattr(evaluate, "load_corpus", lambda *args, **kwargs: (data, regression_corpus[1]))

    set_corpus()
    return set_corpus


def test_figures_of_the_training_run_are_found_again(train_regression, use, regression_corpus, tmp_path, monkeypatch):
    trained = train_regression()["runs"][0]["test"]
    checkpoint = str(tmp_path / "run")
    results = evaluate_checkpoint(checkpoint, "tiny", tmp_path / "evaluation")
    found = results["runs"][0]["test"]
    for name in ("mae", "rmse", "r2"):
        assert found[name] == pytest.approx(trained[name], rel=1e-5)
    assert [row["subject"] for row in found["per_subject"]] == ["e", "f"]
    assert "Ridge on RMS" in results["baselines"]
    report = (tmp_path / "evaluation/report.md").read_text()
    assert "| Ridge on RMS |" in report and "MAE" in report
    names = {"report.md", "results.json", "traces.png", "per_output.png"}
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == names

    # the same targets in another order, with their names
    test = regression_corpus[0]["test"]
    swapped = test.to_dict() | {"targets": np.array(test["targets"], np.float32)[..., ::-1].tolist()}
    use(datasets.DatasetDict(test=datasets.Dataset.from_dict(swapped, features=test.features)))
    monkeypatch.setattr(regression, "prepared_target_names", lambda name: OUTPUTS[::-1])
    monkeypatch.setattr(regression.RegressionTask, "write_plots", classmethod(lambda *args: None))
    again = evaluate_checkpoint(checkpoint, "tiny", tmp_path / "swapped")
    assert again["outputs"] == list(OUTPUTS[::-1]) and again["baselines"] == {}
    rows = again["runs"][0]["test"]["per_output"]
    assert [row["mae"] for row in rows] == pytest.approx([row["mae"] for row in found["per_output"]][::-1])

    monkeypatch.setattr(regression, "prepared_target_names", lambda name: ("wrist", "elbow"))
    with pytest.raises(CheckpointError, match="trained on the labels output 1, output 2, the dataset has wrist, elbow"):
        evaluate_checkpoint(checkpoint, "tiny", tmp_path / "other")


def test_other_targets_are_not_compared(train_regression, use, regression_corpus, tmp_path, tiny_corpus):
    train_regression(num_train_epochs=1)
    checkpoint = str(tmp_path / "run")
    use(tiny_corpus[0])
    with pytest.raises(RecipeError, match="tiny has no targets"):
        evaluate_checkpoint(checkpoint, "tiny", tmp_path / "evaluation")
    test = regression_corpus[0]["test"]
    coarse = np.array(test["targets"], np.float32)[:, ::2]
    features = test.features | {"targets": datasets.List(datasets.List(datasets.Value("float32"), 2), 10)}
    columns = test.to_dict() | {"targets": coarse.tolist()}
    use(datasets.DatasetDict(test=datasets.Dataset.from_dict(columns, features=datasets.Features(features))))
    with pytest.raises(CheckpointError, match="predicts 20 frames per window, the targets of tiny have 10"):
        evaluate_checkpoint(checkpoint, "tiny", tmp_path / "evaluation")


def test_a_prepared_folder_keeps_the_names_of_its_targets(tmp_path, monkeypatch):
    """A corpus simulated, prepared, trained on, and scored by its builder, which the checkpoint tells the rest."""
    from tiny_run import TINY_MODEL

    import trainers.finetune as finetune
    from trainers.parsing import parse_recipe

    options = {"preset": "kinematics", "num_subjects": 3, "num_sessions": 1, "num_repetitions": 2, "duration": 8.0}
    folder = prepare("synthetic", None, tmp_path / "windows", target_hop=10, **options)
    assert prepared_target_names(folder) == TARGET_NAMES
    monkeypatch.setattr(regression.RegressionTask, "write_plots", classmethod(lambda *args: None))
    recipe = {
        "task": "regression",
        "dataset": str(folder),
        "cache_dir": str(tmp_path / "cache"),
        "output_dir": str(tmp_path / "run"),
        "num_train_epochs": 1,
        "model_config": TINY_MODEL | {"patch_size": 20},
        "report_to": "none",
        "baselines": False,
        "disable_tqdm": True,
    }
    trained = finetune.run(*parse_recipe(recipe))
    model = TinyMyoForRegression.from_pretrained(tmp_path / "run")
    assert tuple(model.config.id2label.values()) == TARGET_NAMES and model.config.target_length == 20
    scored = evaluate_checkpoint(
        str(tmp_path / "run"),
        "synthetic",
        tmp_path / "evaluation",
        cache_dir=str(tmp_path / "cache"),
        dataset_config=options,
        baselines=False,
    )
    assert scored["frames"] == 20
    assert scored["test"]["mae"]["mean"] == pytest.approx(trained["test"]["mae"]["mean"], rel=1e-5)
