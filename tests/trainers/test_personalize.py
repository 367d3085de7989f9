"""Personalization: what is trained on whom, what calibration changes, and what the report says."""

import json

import datasets
import numpy as np
import pytest
import torch
from people import REPETITIONS, WINDOWS, people, person
from tiny_run import LABELS, TINY_MODEL
from torch.utils.data import Subset

import trainers.cohort as cohort_module
import trainers.personalize as personalize
from dataset_builders.torch_view import WindowDataset
from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from trainers import baselines
from trainers.arguments import ModelArguments, PersonalizationArguments
from trainers.calibration import METHODS, EncodedWindows, calibrate, calibration_settings, predict_windows
from trainers.cohort import training_record
from trainers.errors import CheckpointError, RecipeError
from trainers.parsing import parse_recipe
from trainers.personalize_report import ACCURACY, gain_table, plot_shots, shots_table, subject_table, summarize

COMMON = {"num_train_epochs": 8, "per_device_train_batch_size": 10, "layer_decay": 1.0}
FAST = {
    "head": COMMON | {"learning_rate": 5e-2},
    "lora": COMMON | {"learning_rate": 3e-2},
    "full": COMMON | {"learning_rate": 5e-3},
}


@pytest.fixture(scope="module")
def corpus():
    """Five people, two of whom use other muscles; "d" and "e" are the test split."""
    splits = {"train": people("a", "b"), "validation": people("c"), "test": people("d", "e", swapped=("e",))}
    extractor = TinyMyoFeatureExtractor(feature_size=4, window_length=40, stride=40, patch_size=10)
    return datasets.DatasetDict(splits), extractor


@pytest.fixture(scope="module")
def generic(tmp_path_factory):
    """A classifier that knows how people other than "e" move, as a checkpoint."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    model = TinyMyoForSequenceClassification(TinyMyoConfig(**TINY_MODEL, num_channels=4, **labels))
    arguments = PersonalizationArguments(output_dir="unused", report_to="none")
    windows = WindowDataset(people("a", "b"))
    settings = calibration_settings("full", FAST["full"])
    model = calibrate(model, windows, "full", settings, arguments, ModelArguments())
    folder = tmp_path_factory.mktemp("generic")
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=4, window_length=40, stride=40, patch_size=10).save_pretrained(folder)
    return folder


@pytest.fixture
def run_tiny(corpus, monkeypatch, tmp_path):
    """A function that runs a recipe of personalization on the tiny people: its fields as keywords."""
    monkeypatch.setattr(cohort_module, "load_corpus", lambda *args, **kwargs: corpus)
    monkeypatch.setattr(baselines, "RANDOM_FOREST_TREES", 10)

    def run(**fields):
        recipe = {
            "task": "personalization",
            "dataset": "tiny",
            "output_dir": str(tmp_path / "run"),
            "shots": [0, 2],
            "calibration": FAST,
            "report_to": "none",
            "disable_tqdm": True,
        } | fields
        return personalize.run(*parse_recipe(recipe))

    return run


def scores(results, model, shots):
    return {r["subject"]: r["accuracy"] for r in results["rows"] if r["model"] == model and r["shots"] == shots}


def test_a_given_classifier_is_calibrated_to_the_people_of_the_test_split(run_tiny, generic, tmp_path):
    results = run_tiny(protocol="checkpoint", model_name_or_path=str(generic))
    assert results["subjects"] == ["d", "e"]
    assert {split["evaluation"] for split in results["windows"].values()} == {(REPETITIONS - 2) * 3 * WINDOWS}
    for title in ("TinyMyo, head", "TinyMyo, LoRA", "TinyMyo, full"):
        assert scores(results, title, 0) == scores(results, "TinyMyo, head", 0)
        assert scores(results, title, 2)["e"] > scores(results, title, 0)["e"] + 0.2
    assert scores(results, "TinyMyo, head", 0)["d"] > 0.7 > 0.5 > scores(results, "TinyMyo, head", 0)["e"]
    assert scores(results, "LDA, others and own", 0)["e"] < 0.5 < scores(results, "LDA, own only", 2)["e"]
    assert not scores(results, "LDA, own only", 0)

    folder = tmp_path / "run"
    card = (folder / "README.md").read_text()
    assert "is not recorded" in card and "| TinyMyo, LoRA |" in card and "30 to 30 windows per person" in card
    assert (folder / "accuracy.png").stat().st_size > 5000
    stored = json.loads((folder / "results.json").read_text())
    assert stored["rows"] == results["rows"] and stored["scores"]["accuracy"]["TinyMyo, head"]["0"]["count"] == 2


def test_people_are_held_out_in_turn_and_a_killed_run_goes_on(run_tiny, monkeypatch, tmp_path):
    fields = {
        "folds": 3, "methods": ["head"], "shots": [0, 1], "baselines": False,
        "model_config": TINY_MODEL, "num_train_epochs": 1, "early_stopping_patience": 0,
    }  # fmt: skip
    trained = []
    run_seed = personalize.run_seed

    def watch(seed, task, *rest):
        trained.append({name: sorted(set(subjects)) for name, subjects in task.subjects.items()})
        return run_seed(seed, task, *rest)

    monkeypatch.setattr(personalize, "run_seed", watch)
    results = run_tiny(**fields)
    assert trained == [
        {"train": ["c"], "validation": ["b", "e"]},  # "a" and "d" are held out
        {"train": ["a", "d"], "validation": ["c"]},
        {"train": ["b", "e"], "validation": ["a", "d"]},
    ]
    assert sorted(results["subjects"]) == ["a", "b", "c", "d", "e"]
    assert len(results["rows"]) == 5 * 2

    trained.clear()
    (tmp_path / "run/results.json").unlink()
    (tmp_path / "run/seed-0/subject-d.json").unlink()
    again = run_tiny(**fields)
    assert len(trained) == 1, "only the fold of the missing person is visited"
    without_time = [{name: value for name, value in row.items() if name != "seconds"} for row in results["rows"]]
    assert [{n: v for n, v in row.items() if n != "seconds"} for row in again["rows"]] == without_time

    complete = run_tiny(**fields | {"baselines": True})
    assert len(complete["rows"]) == 5 * (2 + 2 * 2 + 2), "rows without the classical models are not taken for finished"


def test_people_with_too_few_repetitions_are_left_out_with_the_reason(run_tiny, generic, monkeypatch, corpus):
    data, extractor = corpus
    short = datasets.concatenate_datasets([data["test"], person("f", 1, repetitions=2)])
    monkeypatch.setattr(
        cohort_module, "load_corpus", lambda *a, **k: (datasets.DatasetDict({**data, "test": short}), extractor)
    )
    fields = {"protocol": "checkpoint", "model_name_or_path": str(generic), "methods": ["head"], "baselines": False}
    results = run_tiny(**fields)
    assert results["subjects"] == ["d", "e"]
    assert results["left_out"] == {"f": "2 repetitions of a gesture where 3 are needed"}
    with pytest.raises(RecipeError, match="nobody in tiny can be personalised to: d has 4 repetitions"):
        run_tiny(**fields, shots=[0, 9], overwrite=True)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_calibration_changes(generic, method):
    model = TinyMyoForSequenceClassification.from_pretrained(generic)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = PersonalizationArguments(output_dir="unused", report_to="none")
    windows = WindowDataset(people("e", swapped=("e",)))
    calibrated = calibrate(
        model, windows, method, calibration_settings(method, FAST[method]), arguments, ModelArguments()
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "the original changed"
    after = calibrated.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    head = {"classifier.weight", "classifier.bias"}
    encoder = {name for name in before if name not in head}
    assert head <= changed
    adapted = {name for name in encoder if name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight"))}
    expected = {"head": set(), "lora": adapted, "full": encoder - {"tinymyo.mask_token"}}
    assert changed == head | expected[method]
    logits, labels = predict_windows(calibrated, windows)
    assert (logits.argmax(1) == labels).mean() > 0.8


def test_the_features_of_the_head_are_what_the_classifier_sees(generic):
    model = TinyMyoForSequenceClassification.from_pretrained(generic).eval()
    windows = WindowDataset(people("d"))
    encoded = EncodedWindows(model, Subset(windows, [7, 3, 50]))
    logits, labels = predict_windows(model, windows)
    rows = torch.stack([encoded[i]["input_values"] for i in range(3)])
    assert torch.allclose(model.classifier(rows), torch.from_numpy(logits[[7, 3, 50]]), atol=1e-5)
    assert [encoded[i]["labels"] for i in range(3)] == labels[[7, 3, 50]].tolist()


def test_a_checkpoint_that_knows_these_people_is_refused(run_tiny, generic, tmp_path):
    record = {"dataset": "tiny", "subject_names": {"train": ["a", "d"], "validation": ["e"]}}
    (tmp_path / "results.json").write_text(json.dumps(record))
    student = tmp_path / "student"
    (student / "seed-1").mkdir(parents=True)
    teacher = {"subject_names": {"train": ["b"]}, "dataset": "tiny", "teacher": {"checkpoint": str(tmp_path)}}
    (student / "results.json").write_text(json.dumps(teacher))
    for checkpoint in (tmp_path, tmp_path / "seed-0", student / "seed-1"):
        with pytest.raises(CheckpointError, match=f"{tmp_path}.* was trained on subjects d"):
            training_record(str(checkpoint), "tiny", ["d", "e"])
    assert training_record(str(student), "tiny", ["f"]).count("was trained on other people") == 2
    assert "was trained on other people" in training_record(str(tmp_path), "tiny", ["f"])
    assert "selected on e" in training_record(str(tmp_path), "tiny", ["e"])
    assert "is not known" in training_record(str(tmp_path), "other", ["d"])
    with pytest.raises(RecipeError, match="has the splits train, validation, test"):
        run_tiny(protocol="checkpoint", model_name_or_path=str(generic), splits=["dev"])
    with pytest.raises(RecipeError, match="subjects a, b of tiny are in its training split"):
        run_tiny(protocol="checkpoint", model_name_or_path=str(generic), splits=["train"], overwrite=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ["head", "magic"]}, "methods .'magic'.: use head, lora, full"),
        ({"calibration": {"head": {"epochs": 3}}}, "calibration.head: unknown field 'epochs'; there are"),
        ({"calibration": {"full": {"learning_rate": "big"}}}, "calibration.full.learning_rate='big': give a number"),
        ({"calibration": {"all": {}}}, "methods .'all'."),
        ({"shots": [-1]}, "of at least 0"),
        ({"lora": True}, "head, lora.. asks for them"),
        ({"train_fraction": 0.5}, "train_fraction has no meaning here"),
        ({"protocol": "checkpoint"}, "needs a trained classifier"),
        ({"protocol": "checkpoint", "model_name_or_path": "x", "folds": 3}, "folds has no meaning"),
        ({"folds": 9}, "folds 9 of 5 subjects"),
        ({"protocol": "other"}, "protocol"),
    ],
)
def test_recipes_that_cannot_be_meant(run_tiny, fields, message):
    with pytest.raises(RecipeError, match=message):
        run_tiny(**fields)


def test_tables_by_hand(tmp_path):
    def row(subject, seed, model, shots, accuracy):
        return {"subject": subject, "seed": seed, "model": model, "shots": shots, "accuracy": accuracy}

    rows = [
        row("1", 0, "TinyMyo, head", 0, 0.5), row("1", 1, "TinyMyo, head", 0, 0.7),
        row("2", 0, "TinyMyo, head", 0, 0.8),
        row("1", 0, "TinyMyo, head", 2, 0.9), row("2", 0, "TinyMyo, head", 2, 0.7),
        row("1", 0, "LDA, own only", 2, 0.8), row("2", 0, "LDA, own only", 2, 0.8),
    ]  # fmt: skip
    summary = summarize(rows, "accuracy")
    assert summary["TinyMyo, head"]["0"] == pytest.approx({"mean": 0.7, "std": np.std([0.6, 0.8], ddof=1), "count": 2})
    assert "| TinyMyo, head | 70.00 ± 14.14 | 80.00 ± 14.14 |" in shots_table(rows, ACCURACY)
    assert "| LDA, own only | – | 80.00 ± 0.00 |" in shots_table(rows, ACCURACY)
    gains = gain_table(rows, ACCURACY)
    assert "| TinyMyo, head | 10.00 ± 28.28 | 1 / 0 / 1 | -10.00 |" in gains and "LDA" not in gains
    assert "| 1 | 60.00 | 90.00 | 80.00 |" in subject_table(rows, ACCURACY)
    plot_shots(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
