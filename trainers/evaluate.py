"""Score a trained model on a split of a corpus: metrics, tables per subject, plots. What is scored, and how, is the
business of the task that its head belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from torch import nn
from transformers import Trainer, TrainingArguments

from dataset_builders.base import BUILDERS, load_corpus
from trainers.arguments import FAMILIES, DataArguments
from trainers.errors import CheckpointError, EvaluationError
from trainers.finetune import TASKS
from trainers.models import load_config, load_trained
from trainers.report import score_table, scores_by_model, summarize_seeds, write_json, write_text
from trainers.tasks import Task


def evaluate_checkpoint(
    checkpoint: str,
    dataset: str,
    output: str | Path,
    *,
    data_dir: str | None = None,
    split: str = "test",
    batch_size: int | None = None,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    dataset_config: Mapping[str, Any] | None = None,
    baselines: bool = True,
) -> dict[str, Any]:
    """Evaluate a checkpoint and write `results.json`, `report.md` and plots to `output`.

    Windows are prepared as the checkpoint's `preprocessor_config.json` says; a dataset prepared otherwise is refused.

    Args:
        checkpoint: folder or Hub id of a trained model with a head: a classifier, a regression, ...
        dataset: a builder's name, or a prepared folder.
        split: "train", "validation" or "test".
        batch_size: windows at once; by default what the task thinks fit.
        dataset_config: fields of the builder that the preprocessing does not fix (protocol, stride, ...), and those of
            the recipe that say how models are scored (`Task.scoring`).
        baselines: also fit the classical models on the training split, unless that is the split scored.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or was made for other channels, labels or preprocessing.
        EvaluationError: the split is missing or empty.
        RecipeError: the corpus is made for another task.
        DataError: the data cannot be read.
    """
    task_class = task_of(checkpoint)
    model, extractor = load_trained(checkpoint, task_class.model_class)
    config = dict(dataset_config or {})
    scoring = {name: config.pop(name) for name in task_class.scoring if name in config}
    if dataset in BUILDERS:
        config = task_class.options_of(model.config, extractor) | config
    data, found = load_corpus(dataset, data_dir=data_dir, num_proc=num_proc, cache_dir=cache_dir, **config)
    if split not in data or len(data[split]) == 0:
        raise EvaluationError(f"dataset {dataset} has no windows in a split {split!r}; it has {', '.join(data)}")
    with_baselines = baselines and split != "train" and len(data.get("train", ())) > 0
    needed = ("train", split) if with_baselines else (split,)
    task = task_class.from_splits(
        DatasetDict({name: data[name] for name in needed}),
        found,
        DataArguments(dataset=dataset, data_dir=data_dir, cache_dir=cache_dir, dataset_config=config),
    )
    for name, value in scoring.items():
        setattr(task.options, name, value)
    task.adopt(checkpoint, model, extractor)

    output = Path(output)
    scores = task.score(_scorer(model, task, output, batch_size or task.batch_size), split)
    results = {
        "task": task.name,
        "family": task.family,
        "checkpoint": checkpoint,
        "dataset": dataset,
        "split": split,
        **task.facts(),
        "unseen_subjects": False,  # what the checkpoint was trained on is not known here
        "test": summarize_seeds([scores], task.columns),
        "runs": [{"seed": 0, "test": scores, "history": []}],
        "kept_seed": 0,
        "baselines": task.baselines() if with_baselines else {},
    }
    task.write_plots(results, output)
    write_text(output / "report.md", render_report(results))
    write_json(output / "results.json", results)
    return results


def task_of(checkpoint: str) -> type[Task]:
    """The task that the head of a checkpoint was trained for.

    Raises:
        CheckpointError: it has no head, or one of another kind (pretraining).
    """
    architectures = load_config(checkpoint, *FAMILIES).architectures or []
    for task in TASKS.values():
        if task.model_class.__name__ in architectures:
            return task
    raise CheckpointError(
        f"{checkpoint} holds {', '.join(architectures) or 'no architecture'}, which has no trained head to score: "
        "fine-tune it first with `tinymyo train RECIPE --model_name_or_path ...`"
    )


def _scorer(model: nn.Module, task: Task, output: Path, batch_size: int) -> Trainer:
    """A `Trainer` that only predicts."""
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_eval_batch_size=batch_size,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    )
    return Trainer(model=model, args=arguments, data_collator=task.collate)


def render_report(results: Mapping[str, Any]) -> str:
    """The tables of an evaluation as markdown."""
    names = (results["task"], results["family"])  # text is written by models of both families
    task = next(task for task in TASKS.values() if (task.name, task.family) == names)
    part = task.card(results)
    return f"""# `{results["checkpoint"]}` on `{results["dataset"]}`, split {results["split"]}

{results["windows"][results["split"]]:,} {task.unit}.

{score_table(scores_by_model(results), task.columns)}

{part["scores"]}

{part["details"]}
"""
