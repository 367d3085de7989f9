"""Fine-tune a classifier, from scratch or from a pretrained encoder, and report it beside two classical baselines.

    model, data, arguments = parse_recipe("uci_emg_200", ["--data_dir", "uci_emg.tar.xz"])
    results = run(model, data, arguments)

An output folder holds the checkpoint of the seed that validated best (`config.json`, `model.safetensors`,
`preprocessor_config.json`), the model card `README.md`, `results.json`, plots, and `seed-N/` with each run's weights
and TensorBoard log. Started again, an interrupted run continues from its last complete checkpoint.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from torch import nn
from transformers import EarlyStoppingCallback, EvalPrediction, TrainerState, set_seed

from dataset_builders.base import load_corpus
from dataset_builders.torch_view import WindowDataset, collate_windows
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.quiet import quiet
from trainers.arguments import DataArguments, FinetuneArguments, ModelArguments
from trainers.augmentation import make_augmentation
from trainers.baselines import run_baselines
from trainers.callbacks import use_readable_progress
from trainers.errors import RecipeError
from trainers.metrics import HEADLINE_METRICS, classification_metrics
from trainers.model_card import write_model_card
from trainers.models import build_classifier, merged, parameter_counts
from trainers.optim import LayerwiseTrainer, balanced_class_weights, classification_loss
from trainers.report import summarize_seeds, write_json, write_plots
from trainers.runs import claim_output, describe_environment, last_complete_checkpoint, remove_checkpoints

SPLITS = ("train", "validation", "test")
HYPERPARAMETERS = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "num_train_epochs",
    "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "adam_beta1", "adam_beta2",
    "max_grad_norm", "layer_decay", "label_smoothing_factor", "class_weights", "early_stopping_patience",
    "metric_for_best_model", "augmentations", "ema_decay", "bf16", "torch_compile",
)  # fmt: skip


@dataclass
class Task:
    """The windows of one corpus and what its head must know.

    Attributes:
        views: split -> windows as tensors.
        subjects: split -> (windows,) names.
        labels: class names in the order of their ids.
        num_channels: electrodes per window.
        extractor: the preprocessing that made the windows; saved beside the model.
    """

    views: dict[str, WindowDataset]
    subjects: dict[str, list[str]]
    labels: list[str]
    num_channels: int
    extractor: TinyMyoFeatureExtractor


def make_task(data: DatasetDict, extractor: TinyMyoFeatureExtractor, name: str) -> Task:
    """Check that a corpus has what a classifier needs.

    Raises:
        RecipeError: a split is missing or empty.
    """
    for split in SPLITS:
        if split not in data or len(data[split]) == 0:
            raise RecipeError(
                f"dataset {name} has no windows in its {split} split; fine-tuning needs {', '.join(SPLITS)}: "
                "name subjects for that split in dataset_config, or in the metadata of your folder"
            )
    views = {split: WindowDataset(data[split]) for split in SPLITS}
    return Task(
        views=views,
        subjects={split: list(data[split]["subject"]) for split in SPLITS},
        labels=list(data["train"].features["label"].names),
        num_channels=views["train"].window_shape[0],
        extractor=extractor,
    )


def run(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: FinetuneArguments,
    command: str | None = None,
) -> dict[str, Any]:
    """Train one model per seed, evaluate each once on the test split, and write the output folder.

    Args:
        command: the command line that reproduces the run, for the model card.

    Returns:
        The content of `results.json`.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described; nothing was trained.
    """
    output = Path(arguments.output_dir)
    augmentation = make_augmentation(arguments.augmentations)  # before anything slow, for its errors
    main = arguments.process_index == 0
    settings = _settings(model_arguments, data_arguments, arguments)
    with arguments.main_process_first(desc="preparing windows"):
        if main:
            claim_output(output, settings, arguments.overwrite)
        data, extractor = load_corpus(
            data_arguments.dataset,
            data_dir=data_arguments.data_dir,
            num_proc=data_arguments.num_proc,
            cache_dir=data_arguments.cache_dir,
            **data_arguments.dataset_config,
        )
    task = make_task(data, extractor, data_arguments.dataset)
    if main:
        print(_describe(task, data_arguments.dataset), flush=True)
    baselines = _baselines(task, output) if arguments.baselines and main else {}
    runs = [
        run_seed(seed, task, model_arguments, arguments, augmentation, output / f"seed-{seed}")
        for seed in arguments.seeds
    ]
    if not main:
        return {}

    sign = 1 if arguments.greater_is_better else -1
    metric = arguments.metric_for_best_model.removeprefix("eval_")
    kept = max(runs, key=lambda result: sign * result["validation"][metric])
    for source in (output / f"seed-{kept['seed']}").iterdir():
        if source.is_file() and source.name != "result.json":
            shutil.copyfile(source, output / source.name)
    results = {
        "task": "emg-classification",
        "dataset": data_arguments.dataset,
        "labels": task.labels,
        "windows": {split: len(view) for split, view in task.views.items()},
        "subjects": {split: len(set(names)) for split, names in task.subjects.items()},
        "unseen_subjects": set(task.subjects["train"]).isdisjoint(task.subjects["test"]),
        "window": describe_window(extractor),
        "parameters": kept["parameters"],
        "kept_seed": kept["seed"],
        "test": summarize_seeds([result["test"] for result in runs]),
        "validation": summarize_seeds([result["validation"] for result in runs]),
        "baselines": baselines,
        "runs": runs,
        "arguments": settings,
        "hyperparameters": _hyperparameters(model_arguments, arguments),
        "command": command,
        "environment": describe_environment(arguments.device),
    }
    write_json(output / "results.json", results)
    write_plots(results, output)
    write_model_card(results, output)
    return results


def run_seed(
    seed: int,
    task: Task,
    model_arguments: ModelArguments,
    arguments: FinetuneArguments,
    augmentation: Any,
    folder: Path,
) -> dict[str, Any]:
    """Train, select on validation and test one model in `folder`; what an earlier start left there is continued."""
    finished = folder / "result.json"
    if finished.is_file():
        if arguments.process_index == 0:
            print(f"seed {seed}: finished earlier, see {folder}", flush=True)
        return json.loads(finished.read_text(encoding="utf-8"))
    set_seed(seed)
    model = build_classifier(model_arguments, task.labels, task.num_channels)
    patch_size = model.config.patch_size
    if task.extractor.window_length % patch_size:
        raise RecipeError(
            f"windows of {task.extractor.window_length} samples are no multiple of the model's patch_size "
            f"{patch_size}: change dataset_config.window_length or model_config.patch_size"
        )
    task.extractor.patch_size = patch_size
    trainer = _make_trainer(model, task, _arguments_of_seed(arguments, seed, folder), augmentation)
    seconds = _train_or_resume(trainer, folder, seed)
    history = learning_history(trainer.state)
    kept = next((row for row in history if row["best"]), history[-1])
    result = {
        "seed": seed,
        "parameters": parameter_counts(model),
        "train_seconds": round(seconds, 1),
        "epochs": round(trainer.state.epoch, 2),
        "history": history,
        "validation": {"loss": kept["validation_loss"]} | {n: kept[n] for n in HEADLINE_METRICS if n in kept},
        "test": _evaluate_on_test(trainer, task),
    }
    if trainer.is_world_process_zero():
        _save(model, task.extractor, folder)
        write_json(finished, result)
        remove_checkpoints(folder)
    return result


def _make_trainer(model: nn.Module, task: Task, arguments: FinetuneArguments, augmentation: Any) -> LayerwiseTrainer:
    weights = None
    if arguments.class_weights == "balanced":
        labels = torch.tensor(task.views["train"].hf_dataset["label"][:])
        weights = balanced_class_weights(labels, len(task.labels))
    callbacks = []
    if arguments.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    trainer = LayerwiseTrainer(
        model=model,
        args=arguments,
        train_dataset=task.views["train"],
        eval_dataset=task.views["validation"],
        data_collator=collate_windows,
        compute_metrics=_headline,
        compute_loss_func=classification_loss(arguments.label_smoothing_factor, weights),
        callbacks=callbacks,
        layer_decay=arguments.layer_decay,
        augmentation=augmentation,
        ema_decay=arguments.ema_decay,
    )
    use_readable_progress(trainer)
    return trainer


def _arguments_of_seed(arguments: FinetuneArguments, seed: int, folder: Path) -> FinetuneArguments:
    arguments = copy.copy(arguments)
    arguments.seed = arguments.data_seed = seed
    arguments.output_dir = str(folder)
    arguments.label_names = ["labels"]  # the library cannot tell through the wrapper of LoRA
    return arguments


def _headline(prediction: EvalPrediction) -> dict[str, float]:
    scores = classification_metrics(prediction.predictions, prediction.label_ids)
    return {name: scores[name] for name in HEADLINE_METRICS if scores[name] is not None}


def _train_or_resume(trainer: LayerwiseTrainer, folder: Path, seed: int) -> float:
    """Train to the end and load the best weights; returns the seconds of this start."""
    started = time.perf_counter()
    with trainer.args.main_process_first(desc="looking for a checkpoint"):
        checkpoint = last_complete_checkpoint(folder)
    with quiet():
        if checkpoint is None:
            trainer.train()
        else:
            if trainer.is_world_process_zero():
                print(f"seed {seed}: continuing from {checkpoint}", flush=True)
            state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
                trainer.state = state  # early stopping had ended it: only the last steps after training are missing
                trainer.load_best_model()
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint))
    return time.perf_counter() - started


def _evaluate_on_test(trainer: LayerwiseTrainer, task: Task) -> dict[str, Any]:
    output = trainer.predict(task.views["test"], metric_key_prefix="test")
    scores = classification_metrics(output.predictions, output.label_ids, task.subjects["test"])
    return {"loss": output.metrics["test_loss"], **scores}


def _save(model: nn.Module, extractor: TinyMyoFeatureExtractor, folder: Path) -> None:
    with quiet():
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(folder / "adapter")
        merged(model).save_pretrained(folder)
    extractor.save_pretrained(folder)


def _baselines(task: Task, output: Path) -> dict[str, Any]:
    stored = output / "baselines.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    results = run_baselines(task.views["train"], task.views["test"], len(task.labels), task.subjects["test"])
    for name, scores in results.items():
        print(
            f"{name}: test accuracy {100 * scores['accuracy']:.2f}, macro F1 {100 * scores['f1_macro']:.2f} "
            f"(fitted in {scores['fit_seconds']:.1f} s)",
            flush=True,
        )
    write_json(stored, results)
    return results


def learning_history(state: TrainerState) -> list[dict[str, Any]]:
    """The library's log -> one row per evaluation; `best` marks the one whose weights were kept."""
    rows: list[dict[str, Any]] = []
    loss = None
    for entry in state.log_history:
        loss = entry.get("loss", loss)
        if "eval_loss" not in entry:
            continue
        scores = {name: entry[f"eval_{name}"] for name in HEADLINE_METRICS if f"eval_{name}" in entry}
        rows.append(
            {
                "epoch": entry["epoch"],
                "step": entry["step"],
                "train_loss": loss,
                "validation_loss": entry["eval_loss"],
                **scores,
                "best": entry["step"] == state.best_global_step,
            }
        )
    return rows


def describe_window(extractor: TinyMyoFeatureExtractor) -> dict[str, float]:
    """Window and stride in samples and in seconds."""
    return {
        "length": extractor.window_length,
        "stride": extractor.stride,
        "sampling_rate": extractor.sampling_rate,
        "seconds": extractor.window_length / extractor.sampling_rate,
    }


def _describe(task: Task, name: str) -> str:
    window = describe_window(task.extractor)
    counts = ", ".join(
        f"{split} {len(task.views[split]):,} (subjects: {len(set(task.subjects[split]))})" for split in SPLITS
    )
    return (
        f"{name}: {len(task.labels)} classes, {task.num_channels} channels, windows of {window['length']} samples "
        f"({window['seconds']:g} s at {window['sampling_rate']:g} Hz): {counts}"
    )


def _hyperparameters(model_arguments: ModelArguments, arguments: FinetuneArguments) -> dict[str, Any]:
    training = arguments.to_dict()
    chosen = {name: training[name] for name in HYPERPARAMETERS}
    if model_arguments.freeze_encoder:
        chosen["freeze_encoder"] = True
    if model_arguments.lora:
        chosen |= {name: value for name, value in asdict(model_arguments).items() if name.startswith("lora")}
    return chosen | model_arguments.model_config


def _settings(
    model_arguments: ModelArguments, data_arguments: DataArguments, arguments: FinetuneArguments
) -> dict[str, Any]:
    """The three groups of a recipe as plain data: the training fields that differ from the library's defaults."""
    defaults = FinetuneArguments(output_dir=arguments.output_dir, use_cpu=arguments.use_cpu).to_dict()
    training = {name: value for name, value in arguments.to_dict().items() if value != defaults.get(name)}
    return {"model": asdict(model_arguments), "data": asdict(data_arguments), "training": training}
