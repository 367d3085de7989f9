"""What differs between training a classifier, a regression and a detector of events: the contract of `finetune.run`.

A task holds the prepared splits of one corpus, makes the model and the loss, and scores and reports what was trained.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from torch import nn
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, SequenceFeatureExtractor, Trainer

from dataset_builders.base import load_corpus
from dataset_builders.continuous_view import ContinuousDataset
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.arguments import DataArguments, ModelArguments, TrainArguments
from trainers.callbacks import use_readable_progress
from trainers.checkpoint_fit import check_fit, check_preprocessing, fixed_options, match_labels, reorder_outputs
from trainers.errors import RecipeError
from trainers.models import for_use
from trainers.optim import Guide, LayerwiseTrainer
from trainers.report import Column

Scores = dict[str, Any]


class Task(ABC):
    """The splits of a corpus, and what it takes to train on them.

    Attributes:
        name: "emg-classification", ...: in `results.json`, and the name of the pipeline.
        family: what reports call the models.
        model_class: of the models it trains.
        trainer_class: what trains them.
        columns: the scores of tables, the headline first.
        unit: what reports call the items of a split.
        batch_size: of evaluations outside of a training.
        scoring: fields of its arguments that change how a trained model is scored; `tinymyo evaluate` takes them too.
        splits: "train", "validation", and "test" where the protocol has one.
        extractor: the preprocessing that made the windows; saved beside the model.
        corpus: its name, for messages and reports.
        collate: items -> batch.
        labels: what the outputs of the model are, in order.
        num_channels: electrodes.
        subjects: split -> (windows,) names.
    """

    name: ClassVar[str]
    family: ClassVar[str] = "TinyMyo"
    model_class: ClassVar[type[PreTrainedModel]]
    trainer_class: ClassVar[type[LayerwiseTrainer]] = LayerwiseTrainer
    columns: ClassVar[tuple[Column, ...]]
    unit: ClassVar[str] = "windows"
    batch_size: ClassVar[int] = 64
    scoring: ClassVar[tuple[str, ...]] = ()
    labels: list[str]
    num_channels: int
    subjects: dict[str, list[str]]

    def __init__(
        self,
        splits: Mapping[str, torch.utils.data.Dataset],
        extractor: SequenceFeatureExtractor,
        corpus: str,
        collate: Callable[[Sequence[dict]], dict],
    ):
        self.splits = dict(splits)
        self.extractor = extractor
        self.corpus = corpus
        self.collate = collate

    @classmethod
    def complete(cls, model: ModelArguments, arguments: TrainArguments) -> None:
        """Fill in what the recipe leaves to the model, before anything is prepared: by default nothing.

        Raises:
            RecipeError, CheckpointError: the model cannot be made.
        """
        return None

    @classmethod
    @abstractmethod
    def load(cls, data: DataArguments, arguments: TrainArguments) -> Task:
        """Prepare the corpus and check that it has what the task needs.

        Raises:
            RecipeError: a split is missing or empty, or the corpus is made for another task.
            DataError: the data cannot be read.
        """

    @classmethod
    @abstractmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> Task:
        """The task on splits that are prepared already, whichever there are: to score, "train" is not needed.

        Args:
            data: where the splits come from.
            seed: of what is random about the training windows.

        Raises:
            RecipeError: the corpus is made for another task.
        """

    @classmethod
    def options_of(cls, config: PreTrainedConfig, extractor: SequenceFeatureExtractor) -> dict[str, Any]:
        """Options of a builder that a trained model leaves no choice about."""
        return fixed_options(config, extractor)

    def adopt(self, checkpoint: str, model: PreTrainedModel, extractor: SequenceFeatureExtractor) -> None:
        """Make a trained model, with its preprocessing, one for these splits: its outputs get the order of `labels`.

        Raises:
            CheckpointError: it was trained on windows made otherwise, or with other channels or labels.
        """
        check_preprocessing(checkpoint, extractor, self.corpus, self.extractor)
        check_fit(checkpoint, model.config, self)
        reorder_outputs(model, match_labels(checkpoint, model.config.id2label, self.labels))

    def reseed(self, seed: int) -> None:
        """Begin the run of a seed: what is random about the places of training windows is drawn from it."""
        windows = self.splits["train"]
        while isinstance(windows, torch.utils.data.Subset):
            windows = windows.dataset
        if isinstance(windows, ContinuousDataset):
            windows.seed = seed

    @property
    def test_split(self) -> str:
        """The split that is scored at the end: "validation" where the protocol has no test split."""
        return next(name for name in ("test", "validation", "train") if name in self.splits)

    @property
    def window(self) -> dict[str, float]:
        """Length, stride, sampling rate and seconds of a window."""
        return describe_window(self.extractor)

    def save_processors(self, folder: Path) -> None:
        """Write what a user needs beside the model to `folder`: the preprocessing."""
        for_use(self.extractor).save_pretrained(folder)

    def describe(self) -> str:
        """One line about the data."""
        window = self.window
        return (
            f"{self.corpus}: {self.describe_outputs()}, {self.num_channels} channels, windows of {window['length']} "
            f"samples ({window['seconds']:g} s at {window['sampling_rate']:g} Hz): "
            f"{describe_splits(self, self.subjects)}"
        )

    @abstractmethod
    def describe_outputs(self) -> str:
        """What is predicted, for `describe`: "6 classes"."""

    @abstractmethod
    def build_model(self, arguments: ModelArguments) -> nn.Module:
        """The model to train.

        Raises:
            RecipeError, CheckpointError: it cannot be made, or does not fit the windows.
        """

    def loss(self, arguments: TrainArguments) -> Callable[..., torch.Tensor] | None:
        """`compute_loss_func` of the `Trainer`; None for the model's own loss."""
        return None

    def guide(self, arguments: TrainArguments) -> Guide | None:
        """What adds to that loss in training, a teacher say; None for nothing. Asked for once per run, by all processes
        at the same time."""
        return None

    def references(self, arguments: TrainArguments) -> dict[str, Scores]:
        """Trained models to stand beside those of the run: name -> scores of `test_split`. Asked for by all processes
        at the same time."""
        return {}

    @abstractmethod
    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        """The scores shown, and selected by, during training."""

    @abstractmethod
    def score(self, trainer: Trainer, split: str) -> Scores:
        """All scores of a split, those of `columns` among them; plain types."""

    def score_model(self, model: nn.Module, arguments: TrainArguments) -> Scores:
        """`score` of `test_split`, of a model that is trained already."""
        arguments = copy.copy(arguments)
        arguments.label_names = ["labels"]
        trainer = Trainer(
            model=model,
            args=arguments,
            eval_dataset=self.splits["validation"],
            data_collator=self.collate,
            compute_loss_func=self.loss(arguments),
        )
        use_readable_progress(trainer)
        return self.score(trainer, self.test_split)

    @abstractmethod
    def baselines(self) -> dict[str, Scores]:
        """What a user would pick otherwise, fitted on the training split: name -> scores of `test_split`."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What `results.json` says about the data: at least `windows` and `subjects` per split, `unseen_subjects`,
        `window`."""

    @classmethod
    @abstractmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        """Draw what `results.json` says into `folder`."""

    @classmethod
    @abstractmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        """Parts of the model card: "model" (what it is, one sentence), "use" (Python code), "scores" (what the table
        does not say), "details" (further sections and pictures), "limits"."""


def read_corpus(data: DataArguments, required: Sequence[str]) -> tuple[datasets.DatasetDict, TinyMyoFeatureExtractor]:
    """The prepared corpus of a recipe, empty splits left out.

    Raises:
        RecipeError: one of the required splits is missing or empty.
        DataError: the data cannot be read.
    """
    splits, extractor = load_corpus(
        data.dataset,
        data_dir=data.data_dir,
        num_proc=data.num_proc,
        cache_dir=data.cache_dir,
        **data.dataset_config,
    )
    for split in required:
        if split not in splits or len(splits[split]) == 0:
            raise RecipeError(
                f"dataset {data.dataset} has no windows in its {split} split; training needs {', '.join(required)}: "
                "name subjects for that split in dataset_config, or in the metadata of your folder"
            )
    return datasets.DatasetDict({name: split for name, split in splits.items() if len(split)}), extractor


def describe_window(extractor: TinyMyoFeatureExtractor) -> dict[str, float]:
    """Window and stride in samples and in seconds."""
    return {
        "length": extractor.window_length,
        "stride": extractor.stride,
        "sampling_rate": extractor.sampling_rate,
        "seconds": extractor.window_length / extractor.sampling_rate,
    }


def describe_splits(task: Task, subjects: Mapping[str, Sequence[str]]) -> str:
    """`train 8,108 (subjects: 22), validation ...`."""
    return ", ".join(
        f"{name} {len(split):,} (subjects: {len(set(subjects[name]))})" for name, split in task.splits.items()
    )


def split_facts(task: Task, subjects: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What `Task.facts` says of any corpus of windows. `subjects`: split -> the subject of each window."""
    return {
        "windows": {name: len(split) for name, split in task.splits.items()},
        "subjects": {name: len(set(names)) for name, names in subjects.items()},
        "subject_names": {name: sorted(set(names)) for name, names in subjects.items()},
        "unseen_subjects": "train" in subjects and set(subjects["train"]).isdisjoint(subjects[task.test_split]),
        "window": task.window,
        "test_split": task.test_split,
    }
