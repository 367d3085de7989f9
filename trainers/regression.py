"""Regression of trajectories (joint angles, degrees of actuation, forces): a task of `finetune.run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from dataset_builders.base import BUILDERS, make_builder
from dataset_builders.prepared import prepared_target_names
from dataset_builders.torch_view import WindowDataset, collate_windows, window_shape
from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForRegression
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoRegressionHead
from trainers.arguments import DataArguments, ModelArguments, RegressionArguments
from trainers.augmentation import AUGMENTATIONS_IN_TIME
from trainers.errors import RecipeError
from trainers.models import build_model, check_patches
from trainers.regression_baselines import run_baselines
from trainers.regression_metrics import REGRESSION_METRICS, regression_metrics
from trainers.regression_report import models_of, plot_regression, score_rows, typical_trace
from trainers.report import Column, plot_histories
from trainers.subsets import training_fraction
from trainers.tasks import Scores, Task, read_corpus, split_facts

COLUMNS = (
    Column("mae", "MAE", metric_type="mae"),
    Column("rmse", "RMSE", metric_type="rmse"),
    Column("r2", "R2", digits=3, metric_type="r2"),
)
_ROWS = 4096  # whose targets are read at a time


class RegressionTask(Task):
    """Windows with a trajectory each.

    Attributes:
        labels: names of the targets, in order.
        num_channels: electrodes per window.
        num_frames: targets of each output per window.
        subjects: split -> (windows,) names.
    """

    name = "emg-regression"
    model_class = TinyMyoForRegression
    columns = COLUMNS

    def __init__(
        self,
        data: datasets.DatasetDict,
        extractor: TinyMyoFeatureExtractor,
        corpus: str,
        outputs: Sequence[str] = (),
    ):
        """`data`: splits with the columns input_values, targets, subject, recording and start; `outputs`: names of the
        targets, by default numbers."""
        views = {name: WindowDataset(split) for name, split in data.items()}
        super().__init__(views, extractor, corpus, collate_windows)
        first = next(iter(views.values()))
        self.num_channels = first.window_shape[0]
        self.num_frames, count = window_shape(first.hf_dataset.features, "targets")
        self.labels = list(outputs) or [f"output {i + 1}" for i in range(count)]
        self.subjects = {name: list(split["subject"]) for name, split in data.items()}

    @classmethod
    def load(cls, data: DataArguments, arguments: RegressionArguments) -> RegressionTask:
        wrong = [name for name in AUGMENTATIONS_IN_TIME if name in arguments.augmentations]
        if wrong:
            raise RecipeError(
                f"augmentations: {wrong[0]} moves windows in time but not their targets; remove it from a regression"
            )
        if arguments.label_smoothing_factor:
            raise RecipeError("label_smoothing_factor: a regression has no classes; leave it out")
        corpus, extractor = read_corpus(data, ("train", "validation"))
        corpus["train"] = training_fraction(corpus["train"], data.train_fraction, data.train_fraction_seed)
        return cls.from_splits(corpus, extractor, data)

    @classmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> RegressionTask:
        check_columns(next(iter(corpus.values())).features, data.dataset)
        task = cls(corpus, extractor, data.dataset, output_names(data))
        for name, split in corpus.items():
            check_targets(split, name, task.labels, data.dataset)
        return task

    @cached_property
    def target_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each output over the training windows, float64 (outputs,)."""
        return target_statistics(self.splits["train"].hf_dataset)

    def describe_outputs(self) -> str:
        return f"{len(self.labels)} outputs ({', '.join(self.labels)}), {self.num_frames} frames per window"

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        head = {
            "num_channels": self.num_channels,
            "target_length": self.num_frames,
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: index for index, name in enumerate(self.labels)},
        }
        model = build_model(self.model_class, arguments, head)
        check_patches(model.config, self.extractor)
        start_at_mean(model, *self.target_statistics)
        return model

    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        scores = regression_metrics(prediction.predictions, prediction.label_ids)
        return {name: scores[name] for name in REGRESSION_METRICS if scores[name] is not None}

    def score(self, trainer: Trainer, split: str) -> Scores:
        output = trainer.predict(self.splits[split], metric_key_prefix="test")
        predictions, targets = output.predictions, output.label_ids
        rows, window = self.splits[split].hf_dataset, self.extractor
        trace = typical_trace(
            predictions, targets, rows["recording"], rows["start"], window.window_length, window.sampling_rate
        )
        scores = regression_metrics(predictions, targets, self.subjects[split], self.labels)
        return {"loss": output.metrics["test_loss"], **scores, "trace": trace}

    def baselines(self) -> dict[str, Scores]:
        train, test = self.splits["train"], self.test_split
        recordings = list(train.hf_dataset["recording"])
        return run_baselines(
            train, self.splits[test], self.extractor.patch_size, self.labels, recordings, self.subjects[test]
        )

    def facts(self) -> dict[str, Any]:
        facts = {"outputs": self.labels, "frames": self.num_frames, **split_facts(self, self.subjects)}
        if "train" in self.splits:
            facts["target_mean"], facts["target_std"] = (values.tolist() for values in self.target_statistics)
        return facts

    @classmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        plot_regression(results, folder)
        plot_histories(results, cls.columns, folder)

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        outputs, window = results["outputs"], results["window"]
        counted = (
            f"Windows start every {window['stride']} samples: a frame counts in each of those that cover it."
            if window["stride"] < window["length"]
            else "Windows do not overlap: every frame counts once."
        )
        return {
            "model": (
                f"Surface-EMG regression of {len(outputs)} outputs ({', '.join(outputs)}), "
                f"{results['frames']} frames per window."
            ),
            "use": (
                'track = pipeline("emg-regression", model="PATH_OR_HUB_ID")\n'
                f'print(track("recording.csv", sampling_rate={window["sampling_rate"]:g})["values"])'
            ),
            "scores": (
                "MAE and RMSE in the unit of the targets. Every score is computed for each output over all frames of "
                f"the split; the table\nshows the mean over the outputs. {counted}\nEach model saw the same windows. "
                "The baselines are a constant, and ridge regression (alpha chosen on held-out training\nrecordings) "
                "and a random forest on the RMS of each channel in each patch of the window."
            ),
            "details": f"""### By output (MAE / RMSE / R2)

{score_rows(models_of(results, "per_output", "output"), "output")}

### By subject (MAE / RMSE / R2)

{score_rows(models_of(results, "per_subject", "subject"), "subject")}

![By output](per_output.png)

![Predicted and true](traces.png)""",
            "limits": f"Measured only on the subjects, electrodes and movements of `{results['dataset']}`.",
        }


def output_names(data: DataArguments) -> tuple[str, ...]:
    """Names of the targets of a corpus; empty where a prepared folder does not tell."""
    if data.dataset in BUILDERS:
        return make_builder(data.dataset, data.data_dir, data.cache_dir, **data.dataset_config).target_names()
    return prepared_target_names(data.dataset)


def check_columns(features: datasets.Features, corpus: str) -> None:
    """Raise `RecipeError` unless rows are windows with targets."""
    if "targets" not in features:
        raise RecipeError(
            f"dataset {corpus} has no targets: train it with another task than regression, or prepare it with targets"
        )
    if "recording_length" in features:
        raise RecipeError(
            f"dataset {corpus} stores recordings, regression trains on windows: add `rows: windows` to dataset_config, "
            "or prepare it so"
        )


def read_targets(split: datasets.Dataset) -> Iterator[np.ndarray]:
    """The targets of a split in pieces, float32 (windows, frames, outputs)."""
    shape = window_shape(split.features, "targets")
    for table in split.select_columns("targets").with_format("arrow").iter(batch_size=_ROWS):
        yield table["targets"].combine_chunks().flatten().flatten().to_numpy().reshape(-1, *shape)


def check_targets(split: datasets.Dataset, name: str, outputs: Sequence[str], corpus: str) -> None:
    """Raise `RecipeError` for targets that nothing can be learnt from: not finite, of an output that never changes, or
    as many as there are no names for."""
    lowest, highest = np.inf, -np.inf
    for piece, targets in enumerate(read_targets(split)):
        if targets.shape[2] != len(outputs):
            raise RecipeError(
                f"dataset {corpus}: {targets.shape[2]} targets, but {len(outputs)} names ({', '.join(outputs)}); "
                "prepare it again"
            )
        wrong = np.flatnonzero(~np.isfinite(targets).all(axis=(1, 2)))
        if wrong.size:
            row = piece * _ROWS + int(wrong[0])
            raise RecipeError(
                f"dataset {corpus}: targets of window {row} of its {name} split (recording {split[row]['recording']}) "
                "are not finite numbers; correct the recording or leave it out"
            )
        lowest, highest = np.minimum(lowest, targets.min((0, 1))), np.maximum(highest, targets.max((0, 1)))
    still = [output for output, low, high in zip(outputs, lowest, highest, strict=True) if low == high]
    if still and name == "train":
        raise RecipeError(
            f"dataset {corpus}: {', '.join(still)} never changes in its train split; check the column, or leave it out "
            "of the targets"
        )


def target_statistics(split: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each output over all frames, float64 (outputs,)."""
    count, mean, deviation = 0, 0.0, 0.0
    for targets in read_targets(split):
        values = targets.astype(np.float64).reshape(-1, targets.shape[2])
        here = values.mean(axis=0)
        total = count + len(values)
        deviation = deviation + np.square(values - here).sum(axis=0)
        deviation = deviation + np.square(here - mean) * count * len(values) / total
        mean = mean + (here - mean) * len(values) / total
        count = total
    return mean, np.sqrt(deviation / count)


@torch.no_grad()
def start_at_mean(model: nn.Module, mean: np.ndarray, std: np.ndarray) -> None:
    """Let a fresh head predict the mean of the targets, with weights of their scale.

    The model predicts in the unit of the targets, and the loss is in that unit too; without this, the first epoch goes
    into reaching their mean and scale.
    """
    for head in model.modules():  # with adapters there are two: the original, and the copy that is trained
        if isinstance(head, TinyMyoRegressionHead):
            head.conv2.bias.copy_(torch.from_numpy(mean))
            head.conv2.weight.mul_(torch.from_numpy(std)[:, None, None])
