"""Classification of windows: the task of `finetune.run` for gestures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from dataset_builders.torch_view import WindowDataset, collate_windows
from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from trainers.arguments import ClassificationArguments, DataArguments, ModelArguments
from trainers.baselines import run_baselines
from trainers.classification_report import plot_classification, subject_table, subjects_by_model
from trainers.errors import RecipeError
from trainers.metrics import HEADLINE_METRICS, classification_metrics
from trainers.models import build_model, check_patches
from trainers.optim import balanced_class_weights, classification_loss
from trainers.report import Column, plot_histories
from trainers.subsets import training_fraction
from trainers.tasks import Scores, Task, read_corpus, split_facts

SPLITS = ("train", "validation", "test")
COLUMNS = (
    Column("accuracy", "Accuracy", 100, metric_type="accuracy"),
    Column("f1_macro", "Macro F1", 100, metric_type="f1"),
    Column("accuracy_macro", "Macro accuracy", 100),
    Column("auroc_macro", "Macro AUROC", 100, metric_type="roc_auc"),
    Column("cohen_kappa", "Cohen kappa", 100),
)


class ClassificationTask(Task):
    """Windows with a class each.

    Attributes:
        labels: class names in the order of their ids.
        num_channels: electrodes per window.
        subjects: split -> (windows,) names.
    """

    name = "emg-classification"
    model_class = TinyMyoForSequenceClassification
    columns = COLUMNS

    def __init__(self, data: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, corpus: str):
        """`data`: splits with the columns input_values, label and subject."""
        super().__init__(
            {name: WindowDataset(split) for name, split in data.items()}, extractor, corpus, collate_windows
        )
        self.subjects = {name: list(split["subject"]) for name, split in data.items()}
        first = next(iter(self.splits.values()))
        self.labels = list(first.hf_dataset.features["label"].names)
        self.num_channels = first.window_shape[0]

    @classmethod
    def load(cls, data: DataArguments, arguments: ClassificationArguments) -> ClassificationTask:
        corpus, extractor = read_corpus(data, SPLITS)
        corpus["train"] = training_fraction(corpus["train"], data.train_fraction, data.train_fraction_seed)
        return cls.from_splits(corpus, extractor, data)

    @classmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> ClassificationTask:
        if "label" not in next(iter(corpus.values())).features:
            raise RecipeError(
                f"dataset {data.dataset} has no labels: train it with `task: regression`, `task: events` or "
                "`task: pretraining`, or prepare it with classes"
            )
        return cls(corpus, extractor, data.dataset)

    def describe_outputs(self) -> str:
        return f"{len(self.labels)} classes"

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        head = {
            "num_channels": self.num_channels,
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
        }
        model = build_model(self.model_class, arguments, head)
        check_patches(model.config, self.extractor)
        return model

    def loss(self, arguments: ClassificationArguments):
        weights = None
        if arguments.class_weights == "balanced":
            labels = torch.tensor(self.splits["train"].hf_dataset["label"][:])
            weights = balanced_class_weights(labels, len(self.labels))
        return classification_loss(arguments.label_smoothing_factor, weights)

    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        scores = classification_metrics(prediction.predictions, prediction.label_ids)
        return {name: scores[name] for name in HEADLINE_METRICS if scores[name] is not None}

    def score(self, trainer: Trainer, split: str) -> Scores:
        output = trainer.predict(self.splits[split], metric_key_prefix="test")
        scores = classification_metrics(output.predictions, output.label_ids, self.subjects[split])
        return {"loss": output.metrics["test_loss"], **scores}

    def baselines(self) -> dict[str, Scores]:
        test = self.test_split
        return run_baselines(self.splits["train"], self.splits[test], len(self.labels), self.subjects[test])

    def facts(self) -> dict[str, Any]:
        return {"labels": self.labels, **split_facts(self, self.subjects)}

    @classmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        plot_classification(results, folder)
        plot_histories(results, cls.columns, folder)

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        labels, rate = results["labels"], results["window"]["sampling_rate"]
        undefined = sorted({labels[i] for run in results["runs"] for i in run["test"]["auroc_undefined_classes"]})
        absent = f" Classes without AUROC (absent from the test split): {', '.join(undefined)}." if undefined else ""
        return {
            "model": f"Surface-EMG classifier of {len(labels)} classes: {', '.join(labels)}.",
            "use": (
                'classify = pipeline("emg-classification", model="PATH_OR_HUB_ID")\n'
                f'print(classify("recording.csv", sampling_rate={rate:g}))'
            ),
            "scores": (
                "Percent; each model saw the same windows. The baselines are linear discriminant analysis and a random "
                "forest on\ntime-domain features (mean absolute value, RMS, waveform length, zero crossings, "
                f"slope-sign changes, log variance).{absent}"
            ),
            "details": f"""### By subject (accuracy, percent)

{subject_table(subjects_by_model(results))}

![Accuracy by subject](per_subject.png)

![Confusion matrix](confusion_matrix.png)""",
            "limits": f"Measured only on the subjects, electrodes and gestures of `{results['dataset']}`.",
        }
