"""`tinymyo personalize`: recordings of one person make a personal checkpoint that everything else can use."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_run import LABELS, TINY_MODEL
from transformers import pipeline

from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from trainers.errors import RecipeError
from trainers.personal import personalize_checkpoint

FAST = {"learning_rate": 5e-2, "num_train_epochs": 10, "per_device_train_batch_size": 8}
PLAIN = {"band_pass": None, "notch_frequencies": (), "window_length": 40, "stride": 40, "patch_size": 10}


def write_session(path, repetitions=3, seed=0, gestures=LABELS):
    """A csv with a class per sample: each gesture for 5 windows, in which its channel is three times as strong."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(repetitions):
        for index, gesture in enumerate(gestures):
            signal = rng.normal(size=(200, 4))
            signal[:, index] *= 3
            parts.append(pd.DataFrame(signal, columns=list("abcd")).assign(gesture=gesture))
    pd.concat(parts).to_csv(path, index=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier that has learned nothing."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    folder = tmp_path_factory.mktemp("checkpoint")
    TinyMyoForSequenceClassification(TinyMyoConfig(**TINY_MODEL, num_channels=4, **labels)).save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=4, **PLAIN).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    write_session(root / "monday.csv")
    lines = "file_name,label_column,subject,sampling_rate\nmonday.csv,gesture,anna,200\n"
    (root / "metadata.csv").write_text(lines)
    return root


@pytest.fixture
def personalize(checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def run(**options):
        return personalize_checkpoint(checkpoint, folder, tmp_path / "anna", calibration=FAST, **options)

    return run


def test_a_personal_checkpoint_from_a_folder_to_predictions(personalize, tmp_path):
    results = personalize(command="tinymyo personalize ...")
    assert results["windows"] == 3 * 3 * 5 and results["repetitions"] == {name: 3 for name in LABELS}
    assert results["held_out"]["after"]["windows"] == 15
    assert results["held_out"]["before"]["accuracy"] < 0.7 < results["held_out"]["after"]["accuracy"]
    assert "calibrated without it" in results["summary"] and not results["warnings"]
    assert json.loads((tmp_path / "anna/results.json").read_text())["method"] == "head"
    assert "other days" in (tmp_path / "anna/README.md").read_text()

    write_session(tmp_path / "tuesday.csv", repetitions=1, seed=1)
    classify = pipeline("emg-classification", model=str(tmp_path / "anna"))
    signal = pd.read_csv(tmp_path / "tuesday.csv")[list("abcd")].to_numpy().T
    predicted = [window["label"] for window in classify(signal, sampling_rate=200)["windows"]]
    assert np.mean(np.array(predicted) == np.repeat(LABELS, 5)) > 0.7


def test_one_repetition_calibrates_but_measures_nothing(personalize, folder):
    write_session(folder / "monday.csv", repetitions=1)
    results = personalize()
    assert results["held_out"] == {} and "Nothing was measured" in results["summary"]


def test_a_file_per_gesture_is_warned_of(personalize, folder):
    lines = ["file_name,label,subject,sampling_rate"]
    for name in LABELS:
        write_session(folder / f"{name}.csv", gestures=[name], repetitions=1, seed=LABELS.index(name))
        pd.read_csv(folder / f"{name}.csv").drop(columns="gesture").to_csv(folder / f"{name}.csv", index=False)
        lines.append(f"{name}.csv,{name},anna,200")
    (folder / "metadata.csv").write_text("\n".join(lines))
    assert "how strong the muscles were is lost" in personalize()["summary"]


def test_recordings_that_make_no_personal_model(personalize, folder, tmp_path):
    write_session(folder / "monday.csv", gestures=LABELS[:2])
    with pytest.raises(RecipeError, match="no window of open: .*Record at least one repetition"):
        personalize()
    write_session(folder / "ben.csv", seed=2)
    with open(folder / "metadata.csv", "a") as file:
        file.write("ben.csv,gesture,ben,200\n")
    with pytest.raises(RecipeError, match="of 2 people .anna, ben.; .*--subjects"):
        personalize()
    assert personalize(dataset_config={"subjects": ["ben"]})["windows"] == 45
    (tmp_path / "anna/results.json").write_text('{"task": "emg-classification", "runs": []}')  # of a generic model
    with pytest.raises(RecipeError, match="not empty and holds no personal model"):
        personalize()
    (tmp_path / "anna/results.json").unlink()
    with pytest.raises(RecipeError, match="not empty and holds no personal model"):
        personalize()
