"""Fine-tune a model, from scratch or from a pretrained encoder, and report it beside classical baselines.

    model, data, arguments = parse_recipe("uci_emg_200", ["--data_dir", "uci_emg.tar.xz"])
    results = run(model, data, arguments)

What is trained on what is the business of a `Task`. An output folder holds the checkpoint of the seed that validated
best (`config.json`, `model.safetensors`, `preprocessor_config.json`), the model card `README.md`, `results.json`,
plots, and `seed-N/` with each run's weights and TensorBoard log. Started again, an interrupted run continues from its
last complete checkpoint.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, TrainerState, set_seed

from tinymyo_hf.quiet import quiet
from trainers.arguments import DataArguments, ModelArguments, TrainArguments
from trainers.augmentation import make_augmentation
from trainers.callbacks import use_readable_progress
from trainers.classification import ClassificationTask
from trainers.ctc import CTCTask
from trainers.errors import RecipeError
from trainers.events import EventsTask
from trainers.fake_quantization import remove_fake_quantization
from trainers.image_classification import ImageClassificationTask
from trainers.model_card import write_model_card
from trainers.models import merged, parameter_counts
from trainers.optim import LayerwiseTrainer
from trainers.quantization_aware import RANGES_FILE, FreezeRanges, quantization_aware
from trainers.recognition import RecognitionTask
from trainers.regression import RegressionTask
from trainers.report import format_score, score_table, scores_by_model, summarize_seeds, write_json
from trainers.runs import claim_output, describe_environment, last_complete_checkpoint, remove_checkpoints
from trainers.synthesis import SpeechSynthesisTask
from trainers.tasks import Task

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "image_classification": ImageClassificationTask,
    "regression": RegressionTask,
    "events": EventsTask,
    "ctc": CTCTask,
    "speech_recognition": RecognitionTask,
    "speech_synthesis": SpeechSynthesisTask,
}
HYPERPARAMETERS = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "lr_drop_epochs", "lr_drop_factor", "warmup_steps",
    "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "adam_beta1",
    "adam_beta2", "max_grad_norm", "layer_decay", "encoder_lr_factor", "label_smoothing_factor", "class_weights",
    "early_stopping_patience",
    "teacher_name_or_path", "temperature", "alpha", "beta", "teacher_logits",
    "metric_for_best_model", "images", "augmentations", "context", "loss_span", "alignment_weight", "jitter",
    "ema_decay", "bf16", "torch_compile",
    "silent", "voiced", "silent_alignment", "target_features", "target_scale", "packing", "piece_length", "max_samples",
    "max_shift", "plateau_patience", "plateau_factor", "phone_weight", "beam_size", "test_beam_size", "lm_weight",
    "word_score", "lm_path", "lexicon_path",
)  # fmt: skip
NOT_SCORES = (
    "eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time"
)  # fmt: skip


def run(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainArguments,
    command: str | None = None,
    task_class: type[Task] | None = None,
) -> dict[str, Any]:
    """Train one model per seed, evaluate each once on the test split, and write the output folder.

    Args:
        arguments: of the task to train, e.g. `ClassificationArguments`.
        command: the command line that reproduces the run, for the model card.
        task_class: what to train; by default the one of `TASKS` that the arguments belong to.

    Returns:
        The content of `results.json`; empty in all processes but the main one.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described; nothing was trained.
    """
    output = Path(arguments.output_dir)
    augmentation = make_augmentation(arguments.augmentations)  # before anything slow, for its errors
    main = arguments.process_index == 0
    task_class = task_of(model_arguments, arguments, task_class)
    task_class.complete(model_arguments, arguments)
    settings = describe_settings(model_arguments, data_arguments, arguments)
    with arguments.main_process_first(desc="preparing windows"):
        if main:
            claim_output(output, settings, arguments.overwrite)
        task = task_class.load(data_arguments, arguments)
    if main:
        print(task.describe(), flush=True)
    references = task.references(arguments)
    baselines = _baselines(task, model_arguments, output) if arguments.baselines and main else {}
    runs = [
        run_seed(seed, task, model_arguments, arguments, augmentation, output / f"seed-{seed}")
        for seed in arguments.seeds
    ]
    if not main:
        return {}

    sign = 1 if arguments.greater_is_better else -1
    kept = max(runs, key=lambda result: sign * result["validation"][arguments.selection_metric])
    for source in (output / f"seed-{kept['seed']}").iterdir():
        if source.is_file() and source.name != "result.json":
            shutil.copyfile(source, output / source.name)
    results = {
        "task": task.name,
        "family": task.family,
        "dataset": data_arguments.dataset,
        **task.facts(),
        "parameters": kept["parameters"],
        "kept_seed": kept["seed"],
        "test": summarize_seeds([result["test"] for result in runs], task.columns),
        "validation": summarize_seeds([result["validation"] for result in runs], task.columns),
        "baselines": references | baselines,
        "runs": runs,
        "arguments": settings,
        "hyperparameters": _hyperparameters(model_arguments, arguments),
        "command": command,
        "environment": describe_environment(arguments.device),
    }
    results["summary"] = _summary(results, task, output)
    write_json(output / "results.json", results)
    task.write_plots(results, output)
    write_model_card(results, type(task), output)
    return results


def task_of(
    model_arguments: ModelArguments, arguments: TrainArguments, task_class: type[Task] | None = None
) -> type[Task]:
    """What the arguments train: `task_class`, or else that of `TASKS`; quantization-aware if they say so.

    Raises:
        RecipeError: the model cannot be trained quantization-aware.
    """
    task_class = task_class or TASKS[arguments.TASK]
    return quantization_aware(task_class, model_arguments) if arguments.quantization_aware else task_class


def run_seed(
    seed: int,
    task: Task,
    model_arguments: ModelArguments,
    arguments: TrainArguments,
    augmentation: Any,
    folder: Path,
) -> dict[str, Any]:
    """Train, select on validation and test one model in `folder`; what an earlier start left there is continued."""
    finished = folder / "result.json"
    if finished.is_file():
        if arguments.process_index == 0:
            print(f"seed {seed}: finished earlier, see {folder}", flush=True)
        return json.loads(finished.read_text(encoding="utf-8"))
    if not arguments.load_best_model_at_end:
        raise RecipeError("load_best_model_at_end: false would report other weights than it saves; leave it out")
    set_seed(seed)
    task.reseed(seed)
    model = task.build_model(model_arguments)
    trainer = make_trainer(model, task, arguments_of_seed(arguments, seed, folder), augmentation)
    seconds = _train_or_resume(trainer, folder, seed)
    history = learning_history(trainer.state)
    kept = next((row for row in history if row["best"]), history[-1])
    result = {
        "seed": seed,
        "parameters": parameter_counts(model),
        "train_seconds": round(seconds, 1),
        "epochs": round(trainer.state.epoch, 2),
        "history": history,
        "validation": {"loss": kept["validation_loss"]} | {c.key: kept[c.key] for c in task.columns if c.key in kept},
        "test": task.score(trainer, task.test_split),
    }
    if trainer.is_world_process_zero():
        _save(model, task, folder)
        write_json(finished, result)
        remove_checkpoints(folder)
    return result


def make_trainer(model: nn.Module, task: Task, arguments: TrainArguments, augmentation: Any = None) -> LayerwiseTrainer:
    """The `Trainer` of a task, which trains on its "train" split and selects on "validation".

    Raises:
        RecipeError: `metric_for_best_model` is no score of the task.
    """
    known = ["loss", *(column.key for column in task.columns)]
    if arguments.selection_metric not in known:
        raise RecipeError(f"metric_for_best_model={arguments.selection_metric}: choose from {', '.join(known)}")
    callbacks = []
    if arguments.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    if arguments.quantization_aware:
        callbacks.append(FreezeRanges())
    trainer = task.trainer_class(
        model=model,
        args=arguments,
        train_dataset=task.splits["train"],
        eval_dataset=task.splits["validation"],
        data_collator=task.collate,
        compute_metrics=task.headline,
        compute_loss_func=task.loss(arguments),
        guide=task.guide(arguments),
        callbacks=callbacks,
        layer_decay=arguments.layer_decay,
        augmentation=augmentation,
        ema_decay=arguments.ema_decay,
    )
    use_readable_progress(trainer, task.columns)
    return trainer


def arguments_of_seed(arguments: TrainArguments, seed: int, folder: Path) -> TrainArguments:
    """The arguments of the run of one seed, in its own folder."""
    arguments = copy.copy(arguments)
    arguments.seed = arguments.data_seed = seed
    arguments.output_dir = str(folder)
    arguments.label_names = ["labels"]  # the library cannot tell through the wrapper of LoRA
    return arguments


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


def _save(model: nn.Module, task: Task, folder: Path) -> None:
    ranges = remove_fake_quantization(model)
    if ranges:
        write_json(folder / RANGES_FILE, ranges)
    with quiet():
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(folder / "adapter")
        merged(model).save_pretrained(folder)
    task.save_processors(folder)


def _baselines(task: Task, model_arguments: ModelArguments, output: Path) -> dict[str, Any]:
    stored = output / "baselines.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    task.build_model(model_arguments)  # for its errors: fitting the baselines can take long
    results = task.baselines()
    for name, scores in results.items():
        shown = ", ".join(f"{c.title} {format_score(c, scores[c.key])}" for c in task.columns[:2])
        print(f"{name}: {task.test_split} {shown} (fitted in {scores['fit_seconds']:.1f} s)", flush=True)
    write_json(stored, results)
    return results


def _summary(results: dict[str, Any], task: Task, folder: Path) -> str:
    table = score_table(scores_by_model(results), task.columns)
    return (
        f"Split {task.test_split} of {results['dataset']}:\n\n{table}\n\n"
        f"Model, model card, results.json and plots are in {folder}"
    )


def learning_history(state: TrainerState) -> list[dict[str, Any]]:
    """The library's log -> one row per evaluation; `best` marks the one whose weights were kept."""
    rows: list[dict[str, Any]] = []
    loss = None
    for entry in state.log_history:
        loss = entry.get("loss", loss)
        if "eval_loss" not in entry:
            continue
        scores = {
            name.removeprefix("eval_"): value
            for name, value in entry.items()
            if name.startswith("eval_") and name not in NOT_SCORES
        }
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


def _hyperparameters(model_arguments: ModelArguments, arguments: TrainArguments) -> dict[str, Any]:
    training = arguments.to_dict()
    chosen = {name: training[name] for name in HYPERPARAMETERS if name in training}
    if "max_samples" in chosen:
        chosen.pop("per_device_train_batch_size")  # batches are made by their samples
    if model_arguments.freeze_encoder:
        chosen["freeze_encoder"] = True
    if arguments.quantization_aware:
        chosen["quantization_aware"] = True
    if model_arguments.lora:
        chosen |= {name: value for name, value in asdict(model_arguments).items() if name.startswith("lora")}
    return chosen | model_arguments.model_config


def describe_settings(
    model_arguments: ModelArguments, data_arguments: DataArguments, arguments: TrainArguments
) -> dict[str, Any]:
    """The three groups of a recipe as plain data: the training fields that differ from the library's defaults."""
    defaults = type(arguments)(output_dir=arguments.output_dir, use_cpu=arguments.use_cpu).to_dict()
    training = {name: value for name, value in arguments.to_dict().items() if value != defaults.get(name)}
    training |= arguments.kind()
    return {"model": asdict(model_arguments), "data": asdict(data_arguments), "training": training}
