"""The people of a corpus for personalization: whose windows a model is trained on, and to whom it is calibrated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from dataset_builders.base import BUILDERS, load_corpus
from dataset_builders.protocols import natural_key
from dataset_builders.torch_view import WindowDataset
from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from trainers.arguments import DataArguments
from trainers.baselines import features_and_labels
from trainers.checkpoint_fit import SHARED_FIELDS, check_fit, check_preprocessing, match_labels, reorder_outputs
from trainers.classification import ClassificationTask
from trainers.errors import CheckpointError, RecipeError
from trainers.models import load_trained
from trainers.repetitions import WindowOrigins, subject_groups


@dataclass(frozen=True)
class Fold:
    """People whose models start from the same generic one.

    Attributes:
        name: of the folder of the generic model; "" where it is given.
        subjects: who are held out, and personalised to.
        others: rows that the generic model is trained on.
        validation: rows that select its weights; empty where it is given.
    """

    name: str
    subjects: tuple[str, ...]
    others: np.ndarray
    validation: np.ndarray


class Cohort:
    """All windows of a corpus, whatever their split.

    Attributes:
        data: their dataset; `windows` is its view as tensors.
        origins: where each window comes from.
        split: (windows,) names of the splits.
        labels: class names in the order of their ids.
        extractor: the preprocessing that made them.
    """

    def __init__(self, splits: Mapping[str, datasets.Dataset], extractor: TinyMyoFeatureExtractor, name: str):
        first = next(iter(splits.values()))
        if "label" not in first.features:
            raise RecipeError(f"dataset {name} has no labels: personalization needs a corpus with classes")
        self.data = datasets.concatenate_datasets(list(splits.values()))
        self.windows = WindowDataset(self.data)
        self.origins = WindowOrigins.of(self.data)
        self.split = np.repeat(list(splits), [len(split) for split in splits.values()])
        self.labels = list(first.features["label"].names)
        self.extractor = extractor
        self.name = name

    @classmethod
    def load(cls, data: DataArguments, checkpoint: str | None, extractor: TinyMyoFeatureExtractor | None) -> Cohort:
        """Prepare the corpus; with a checkpoint, as its preprocessing says.

        Raises:
            RecipeError: the corpus is made for another task.
            CheckpointError: the windows were made otherwise than those the checkpoint was trained on.
            DataError: the data cannot be read.
        """
        config = data.dataset_config
        if extractor is not None and data.dataset in BUILDERS:
            config = {name: getattr(extractor, name) for name in SHARED_FIELDS} | config
        splits, found = load_corpus(
            data.dataset, data_dir=data.data_dir, num_proc=data.num_proc, cache_dir=data.cache_dir, **config
        )
        if extractor is not None:
            check_preprocessing(checkpoint, extractor, data.dataset, found)
        return cls({name: split for name, split in splits.items() if len(split)}, found, data.dataset)

    @cached_property
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Time-domain features (windows, features) and class ids (windows,) for the classical models."""
        return features_and_labels(self.windows)

    def subjects(self, splits: Sequence[str] | None = None) -> list[str]:
        """Those of some splits, or of all, in natural order."""
        chosen = np.ones(len(self.split), bool) if splits is None else np.isin(self.split, splits)
        return sorted(set(self.origins.subject[chosen].tolist()), key=natural_key)

    def rows(self, subjects: Sequence[str]) -> np.ndarray:
        """The windows of these subjects."""
        return np.flatnonzero(np.isin(self.origins.subject, subjects))

    def part(self, rows: np.ndarray) -> datasets.Dataset:
        """These windows as a dataset of their own."""
        return self.data.select(rows, keep_in_memory=True)

    def folds(self, count: int | None) -> list[Fold]:
        """Leave-subjects-out: every group is held out once; the next one selects the weights, the rest train."""
        groups = subject_groups(self.subjects(), count)
        folds = []
        for index, group in enumerate(groups):
            following = groups[(index + 1) % len(groups)]
            others = [subject for subject in self.subjects() if subject not in group and subject not in following]
            folds.append(Fold(f"fold-{index + 1}", group, self.rows(others), self.rows(following)))
        return folds

    def given_fold(self, splits: Sequence[str]) -> Fold:
        """For a given model: the subjects of some splits, and as others those of the training split.

        Raises:
            RecipeError: there is no such split, or it shares subjects with the training split.
        """
        missing = [split for split in splits if split not in self.split]
        if missing or not splits:
            known = ", ".join(dict.fromkeys(self.split.tolist()))
            raise RecipeError(f"splits {list(splits)}: dataset {self.name} has the splits {known}; name some of these")
        subjects = self.subjects(splits)
        both = sorted(set(subjects) & set(self.subjects(["train"])), key=natural_key)
        if both:
            raise RecipeError(
                f"splits {list(splits)}: subjects {', '.join(both[:5])} of {self.name} are in its training split too; "
                "choose a protocol that splits by subject, in dataset_config"
            )
        return Fold("", tuple(subjects), np.flatnonzero(self.split == "train"), np.empty(0, np.int64))

    def load_classifier(self, checkpoint: str) -> TinyMyoForSequenceClassification:
        """A trained classifier whose outputs are this corpus's classes, in their order.

        Raises:
            CheckpointError: it cannot be loaded, or is for other gestures or another number of channels.
        """
        model, _ = load_trained(checkpoint, TinyMyoForSequenceClassification)
        check_fit(checkpoint, model.config, self.task({"train": self.data}))
        reorder_outputs(model, match_labels(checkpoint, model.config.id2label, self.labels))
        return model

    def task(self, splits: Mapping[str, datasets.Dataset]) -> ClassificationTask:
        """Training on parts of these windows."""
        return ClassificationTask(datasets.DatasetDict(splits), self.extractor, self.name)


def training_record(checkpoint: str, dataset: str, subjects: Sequence[str]) -> str:
    """What is known about whether a checkpoint was trained on these subjects, as a sentence for the report.

    A folder that `tinymyo train` made has a `results.json` that names its subjects; those of single seeds lie in it. A
    distilled model has learned of the subjects of its teacher too.

    Raises:
        CheckpointError: it was trained on some of them.
    """
    record = _results_of(Path(checkpoint))
    own = _own_record(checkpoint, record, dataset, subjects)
    teacher = record.get("teacher")
    return f"{own} Its teacher: {training_record(teacher['checkpoint'], dataset, subjects)}" if teacher else own


def _results_of(checkpoint: Path) -> dict[str, Any]:
    place = checkpoint.parent if re.fullmatch(r"seed-\d+", checkpoint.name) else checkpoint
    file = place / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _own_record(checkpoint: str, record: Mapping[str, Any], dataset: str, subjects: Sequence[str]) -> str:
    names = record.get("subject_names")
    if names is None:
        return (
            f"Whom `{checkpoint}` was trained on is not recorded. If these people were among them, the scores say "
            "nothing about new people."
        )
    if record["dataset"] != dataset:
        return (
            f"`{checkpoint}` was trained on `{record['dataset']}`, this is `{dataset}`: whether they have people in "
            "common is not known."
        )
    trained = sorted(set(names["train"]) & set(subjects), key=natural_key)
    if trained:
        raise CheckpointError(
            f"{checkpoint} was trained on subjects {', '.join(trained[:5])}: to be personalised to them, it must not "
            "have seen them; choose other splits, or a checkpoint trained without them"
        )
    selected = sorted(set(names.get("validation", ())) & set(subjects), key=natural_key)
    chosen = f" Its weights were selected on {', '.join(selected)}, which favours it there." if selected else ""
    return f"`{checkpoint}` was trained on other people, as its results.json records.{chosen}"
