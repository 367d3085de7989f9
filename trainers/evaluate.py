"""Score a trained classifier on a split of a corpus: metrics, per-subject table, plots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from dataset_builders.base import BUILDERS, EmgBuilderConfig, load_corpus
from dataset_builders.torch_view import WindowDataset, collate_windows
from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from trainers.baselines import run_baselines
from trainers.classification import COLUMNS
from trainers.classification_report import plot_classification, subject_table, subjects_by_model
from trainers.errors import CheckpointError, EvaluationError
from trainers.metrics import classification_metrics
from trainers.models import load_trained
from trainers.report import score_table, scores_by_model, summarize_seeds, write_json, write_text

# The fields of the preprocessing that a builder takes; what only says how to cut or check may differ from training.
SHARED_FIELDS = sorted(
    {field.name for field in dataclasses.fields(EmgBuilderConfig)} & set(TinyMyoFeatureExtractor().to_dict())
)
FREE_FIELDS = {"stride", "max_gap", "allow_constant_channels"}


def evaluate_checkpoint(
    checkpoint: str,
    dataset: str,
    output: str | Path,
    *,
    data_dir: str | None = None,
    split: str = "test",
    batch_size: int = 64,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    dataset_config: Mapping[str, Any] | None = None,
    baselines: bool = True,
) -> dict[str, Any]:
    """Evaluate a checkpoint and write `results.json`, `report.md` and plots to `output`.

    Windows are prepared as the checkpoint's `preprocessor_config.json` says; a dataset prepared otherwise is refused.

    Args:
        checkpoint: folder or Hub id of a trained classifier.
        dataset: a builder's name, or a prepared folder.
        split: "train", "validation" or "test".
        dataset_config: fields of the builder that the preprocessing does not fix (protocol, stride, ...).
        baselines: also fit LDA and a random forest on the training split, unless that is the split scored.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or was made for other channels, labels or preprocessing.
        EvaluationError: the split is missing or empty.
        DataError: the data cannot be read.
    """
    model, extractor = load_trained(checkpoint, TinyMyoForSequenceClassification)
    config = dict(dataset_config or {})
    if dataset in BUILDERS:
        config = {name: getattr(extractor, name) for name in SHARED_FIELDS} | config
    data, found = load_corpus(dataset, data_dir=data_dir, num_proc=num_proc, cache_dir=cache_dir, **config)
    check_preprocessing(checkpoint, extractor, dataset, found)
    if split not in data or len(data[split]) == 0:
        raise EvaluationError(f"dataset {dataset} has no windows in a split {split!r}; it has {', '.join(data)}")
    label_ids = match_labels(checkpoint, model.config.id2label, data[split].features["label"].names)

    view = WindowDataset(data[split])
    channels = view.window_shape[0]
    if model.config.channel_fusion == "concat" and channels != model.config.num_channels:
        raise CheckpointError(f"{checkpoint} takes {model.config.num_channels} channels, {dataset} has {channels}")
    logits, labels = predict_windows(model, view, batch_size)
    subjects = list(data[split]["subject"])
    scores = classification_metrics(logits[:, label_ids], labels, subjects)
    results = {
        "checkpoint": checkpoint,
        "dataset": dataset,
        "split": split,
        "labels": data[split].features["label"].names,
        "unseen_subjects": False,  # what the checkpoint was trained on is not known here
        "test": summarize_seeds([scores], COLUMNS),
        "runs": [{"seed": 0, "test": scores, "history": []}],
        "kept_seed": 0,
        "baselines": _baselines(data, split, view) if baselines else {},
    }
    output = Path(output)
    plot_classification(results, output)
    write_text(output / "report.md", render_report(results))
    write_json(output / "results.json", results)
    return results


def render_report(results: Mapping[str, Any]) -> str:
    """The tables of an evaluation as markdown."""
    return f"""# `{results["checkpoint"]}` on `{results["dataset"]}`, split {results["split"]}

{results["runs"][0]["test"]["windows"]:,} windows; percent.

{score_table(scores_by_model(results), COLUMNS)}

## By subject (accuracy, percent)

{subject_table(subjects_by_model(results))}

![Accuracy by subject](per_subject.png)

![Confusion matrix](confusion_matrix.png)
"""


def check_preprocessing(
    checkpoint: str, trained: TinyMyoFeatureExtractor, dataset: str, found: TinyMyoFeatureExtractor
) -> None:
    """Raise `CheckpointError`, naming the field, for windows made otherwise than the checkpoint's training windows."""
    for name in SHARED_FIELDS:
        if name not in FREE_FIELDS and getattr(trained, name) != getattr(found, name):
            raise CheckpointError(
                f"{checkpoint} was trained with {name}={getattr(trained, name)}, but the windows of {dataset} have "
                f"{name}={getattr(found, name)}: prepare the dataset with the checkpoint's preprocessor_config.json"
            )


def match_labels(checkpoint: str, id2label: Mapping[int, str], names: list[str]) -> list[int]:
    """The model's output for each class of the dataset, by name; `CheckpointError` if the classes are not the same."""
    ids = {label: int(index) for index, label in id2label.items()}
    if set(ids) != set(names):
        raise CheckpointError(
            f"{checkpoint} was trained on the labels {', '.join(ids)}, the dataset has {', '.join(names)}: "
            "give both the same names, or fine-tune the checkpoint on this dataset"
        )
    return [ids[name] for name in names]


@torch.inference_mode()
def predict_windows(model: nn.Module, view: WindowDataset, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Logits (windows, classes) and labels (windows,) of all windows, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    logits, labels = [], []
    loader = DataLoader(view, batch_size=batch_size, collate_fn=collate_windows)
    for batch in tqdm(loader, desc="evaluating", unit="batch"):
        logits.append(model(input_values=batch["input_values"].to(device)).logits.float().cpu())
        labels.append(batch["labels"])
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def _baselines(data: DatasetDict, split: str, view: WindowDataset) -> dict[str, Any]:
    train: Dataset | None = data.get("train") if split != "train" else None
    if train is None or len(train) == 0:
        return {}
    names = data[split].features["label"].names
    return run_baselines(WindowDataset(train), view, len(names), list(data[split]["subject"]))
