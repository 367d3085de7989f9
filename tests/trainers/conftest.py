"""Fixtures that train: the tiny corpus, and runs on it."""

import datasets
import pytest
from tiny_run import TINY_MODEL, make_split

import trainers.finetune as finetune
import trainers.tasks as tasks
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.classification import ClassificationTask
from trainers.parsing import parse_recipe


@pytest.fixture(scope="session")
def tiny_corpus():
    """`(DatasetDict, feature extractor)`, as `load_corpus` returns them."""
    splits = {
        "train": make_split(96, 0, ("a", "b")),
        "validation": make_split(48, 1, ("c",)),
        "test": make_split(60, 2, ("d", "e")),
    }
    extractor = TinyMyoFeatureExtractor(feature_size=4, window_length=40, stride=20, patch_size=10)
    return datasets.DatasetDict(splits), extractor


@pytest.fixture
def train_tiny(tiny_corpus, monkeypatch, tmp_path):
    """A function that runs a recipe on the tiny corpus: its fields as keywords, `output_dir` in the test's folder.

    Plots, which take longer than such a training, are drawn only on request.
    """
    monkeypatch.setattr(tasks, "load_corpus", lambda *args, **kwargs: tiny_corpus)

    def train(plots=False, **fields):
        recipe = {
            "dataset": "tiny",
            "output_dir": "run",
            "num_train_epochs": 3,
            "learning_rate": 2e-3,
            "model_config": TINY_MODEL,
            "report_to": "none",
            "baselines": False,
            "disable_tqdm": True,
        } | fields
        recipe["output_dir"] = str(tmp_path / recipe["output_dir"])
        with monkeypatch.context() as patch:
            if not plots:
                patch.setattr(ClassificationTask, "write_plots", classmethod(lambda *args: None))
            return finetune.run(*parse_recipe(recipe))

    return train
