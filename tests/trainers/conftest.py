"""Fixtures that train: the tiny corpus, and runs on it."""

import datasets
import pytest
from tiny_regression import make_corpus
from tiny_run import TINY_MODEL, make_split

import trainers.evaluate as evaluate
import trainers.finetune as finetune
import trainers.regression_baselines as regression_baselines
import trainers.tasks as tasks
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.classification import ClassificationTask
from trainers.parsing import parse_recipe
from trainers.regression import RegressionTask


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
def recipe_reader(monkeypatch, tmp_path):
    """Given a corpus and fields of a recipe, a function that reads that recipe with further fields, on the corpus or on
    other data; what is run of it writes to "run" in the test's folder."""

    def of(corpus, **usual):
        def read(data=None, **fields):
            for module in (tasks, evaluate):
                monkeypatch.setattr(module, "load_corpus", lambda *args, **kwargs: (data or corpus[0], corpus[1]))
            quiet = {"report_to": "none", "baselines": False, "disable_tqdm": True}
            where = {"dataset": "tiny", "output_dir": str(tmp_path / "run")}
            return parse_recipe(where | quiet | usual | fields)

        return read

    return of


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


@pytest.fixture(scope="session")
def regression_corpus():
    """As `tiny_corpus`, with targets."""
    return make_corpus()


@pytest.fixture
def train_regression(regression_corpus, monkeypatch, tmp_path):
    """As `train_tiny`, on the corpus with targets or on other `data` with the same preprocessing."""
    monkeypatch.setitem(regression_baselines.FOREST, "n_estimators", 10)

    def train(plots=False, data=None, **fields):
        recipe = {
            "task": "regression",
            "dataset": "tiny",
            "output_dir": "run",
            "num_train_epochs": 3,
            "learning_rate": 3e-3,
            "model_config": TINY_MODEL,
            "report_to": "none",
            "baselines": False,
            "disable_tqdm": True,
        } | fields
        recipe["output_dir"] = str(tmp_path / recipe["output_dir"])
        splits, extractor = regression_corpus
        with monkeypatch.context() as patch:
            patch.setattr(tasks, "load_corpus", lambda *args, **kwargs: (data or splits, extractor))
            if not plots:
                patch.setattr(RegressionTask, "write_plots", classmethod(lambda *args: None))
            return finetune.run(*parse_recipe(recipe))

    return train
