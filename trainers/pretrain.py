"""Pretrain an encoder by masked reconstruction of the windows of several corpora ("TinyMyo", section 3.1).

    model, data, arguments = parse_recipe("pretrain_synthetic")
    results = run(model, data, arguments)

An output folder holds the pretrained model (`config.json`, `model.safetensors`, `preprocessor_config.json`), which
loads into every head, the model card `README.md`, `results.json`, the curves, `reconstructions/` with a picture per
evaluation, and `seed-N/` with checkpoints and the TensorBoard log. Started again, an interrupted run continues from
its last complete checkpoint, and ends with the weights it would have had without the interruption.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, set_seed
from transformers.trainer import TRAINING_ARGS_NAME

from dataset_builders.torch_view import collate_windows
from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForPreTraining
from tinymyo_hf.quiet import quiet
from trainers.arguments import DataArguments, ModelArguments
from trainers.callbacks import use_readable_progress
from trainers.corpora import Corpus, load_corpora, make_mixes
from trainers.errors import RecipeError
from trainers.models import build_model, for_use, parameter_counts
from trainers.pretrain_arguments import PretrainingArguments, ProbeArguments
from trainers.pretrain_report import COLUMNS, summarize, write_plots, write_pretraining_card
from trainers.pretrain_trainer import PretrainingTrainer
from trainers.probe import LinearProbe
from trainers.reconstruction import plot_reconstructions
from trainers.report import write_json
from trainers.runs import claim_output, describe_environment, last_complete_checkpoint, remove_checkpoints
from trainers.window_mix import WindowMix

HYPERPARAMETERS = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "adam_beta1", "adam_beta2",
    "max_grad_norm", "windows_per_epoch", "bf16", "torch_compile", "seed",
)  # fmt: skip


def run(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: PretrainingArguments,
    command: str | None = None,
) -> dict[str, Any]:
    """Train to the end, or continue, and write the output folder.

    Args:
        data_arguments: `num_proc` and `cache_dir` are used for every corpus.
        command: the command line that reproduces the run, for the model card.

    Returns:
        The content of `results.json`; empty in all processes but the main one.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described.
        DivergenceError: the loss or the gradient stopped being a finite number.
    """
    _check(model_arguments, data_arguments, arguments)
    output = Path(arguments.output_dir)
    main = arguments.process_index == 0
    settings = _settings(model_arguments, arguments)
    with arguments.main_process_first(desc="preparing windows"):
        if main:
            claim_output(output, settings, arguments.overwrite)
        corpora = load_corpora(arguments.mix, data_arguments.num_proc, data_arguments.cache_dir)
    if (output / "results.json").is_file():
        if main:
            print(f"finished earlier, see {output}", flush=True)
        return json.loads((output / "results.json").read_text(encoding="utf-8")) if main else {}

    set_seed(arguments.seed)
    channels = arguments.num_channels or max(corpus.channels for corpus in corpora)
    model = build_model(TinyMyoForPreTraining, model_arguments, {"num_channels": channels})
    train, validation = make_mixes(corpora, arguments, model.config.patch_size, model.config.mask_ratio)
    if main:
        print(_describe(corpora, train, arguments), flush=True)
    trainer = _make_trainer(model, corpora, (train, validation), data_arguments, arguments)
    seconds = _train_or_resume(trainer)
    evaluations = _evaluations(trainer.state)
    if not evaluations or evaluations[-1]["step"] != trainer.state.global_step:
        trainer.evaluate()  # the report is on the weights that are kept
    with quiet():
        trainer.save_model(str(output))  # in every process: sharded weights are gathered
    if not main:
        return {}
    (output / TRAINING_ARGS_NAME).unlink()  # run.json says the same, and is no pickle
    _common_extractor(corpora, model.config.patch_size).save_pretrained(output)
    results = {
        "task": "emg-pretraining",
        "corpora": [corpus.facts for corpus in corpora],
        "windows_per_epoch": dict(zip([corpus.name for corpus in corpora], train.counts, strict=True)),
        "window": {"length": train.time, "sampling_rate": corpora[0].extractor.sampling_rate, "channels": channels},
        "batch": _batch_size(arguments),
        "probe": arguments.probe,
        "mask_ratio": model.config.mask_ratio,
        "validation_windows": arguments.validation_windows,
        "parameters": parameter_counts(model),
        "train_seconds": round(seconds, 1),
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch, 2),
        "losses": _losses(trainer.state),
        "evaluations": _evaluations(trainer.state),
        "arguments": settings,
        "hyperparameters": {name: arguments.to_dict()[name] for name in HYPERPARAMETERS} | model_arguments.model_config,
        "command": command,
        "environment": describe_environment(arguments.device),
    }
    results["summary"] = summarize(results, output)
    write_plots(results, output)
    write_pretraining_card(results, output)
    write_json(output / "results.json", results)  # last: it says that nothing is missing
    remove_checkpoints(Path(trainer.args.output_dir))
    return results


def _check(model_arguments: ModelArguments, data_arguments: DataArguments, arguments: PretrainingArguments) -> None:
    for name in ("lora", "freeze_encoder"):
        if getattr(model_arguments, name):
            raise RecipeError(f"{name} has no meaning in pretraining: remove it (it is for fine-tuning)")
    for name in ("dataset", "data_dir", "dataset_config"):
        if getattr(data_arguments, name):
            raise RecipeError(f"{name} has no meaning in pretraining: remove it (list corpora instead)")
    if data_arguments.train_fraction != 1.0:
        raise RecipeError("train_fraction has no meaning in pretraining: remove it (it is for windows with labels)")
    if arguments.n_gpu > 1:
        raise RecipeError(
            f"{arguments.n_gpu} GPUs, one process: start with `torchrun --nproc_per_node {arguments.n_gpu} -m "
            "trainers.run RECIPE`, or choose one with CUDA_VISIBLE_DEVICES=0"
        )


def _make_trainer(
    model: TinyMyoForPreTraining,
    corpora: Sequence[Corpus],
    mixes: tuple[WindowMix, WindowMix],
    data_arguments: DataArguments,
    arguments: PretrainingArguments,
) -> PretrainingTrainer:
    training = copy.copy(arguments)
    training.output_dir = str(Path(arguments.output_dir) / f"seed-{arguments.seed}")
    probe = None
    sampling_rate = corpora[0].extractor.sampling_rate
    if arguments.probe is not None:
        with arguments.main_process_first(desc="preparing the probe"):
            probe = LinearProbe.load(
                ProbeArguments.read(arguments.probe),
                sampling_rate,
                model.config.patch_size,
                data_arguments.num_proc,
                data_arguments.cache_dir,
            )
    trainer = PretrainingTrainer(
        model=model,
        args=training,
        train_dataset=mixes[0],
        eval_dataset=mixes[1],
        data_collator=collate_windows,
        corpora=[corpus.name for corpus in corpora if "validation" in corpus.splits],
        train_corpora=[corpus.name for corpus in corpora],
        probe=probe,
    )
    use_readable_progress(trainer, COLUMNS)
    if arguments.reconstructions:
        folder = Path(arguments.output_dir) / "reconstructions"
        trainer.add_callback(_Reconstructions(trainer, arguments.reconstructions, sampling_rate, folder))
    return trainer


class _Reconstructions(TrainerCallback):
    """Draws some validation windows after each evaluation."""

    def __init__(self, trainer: PretrainingTrainer, count: int, sampling_rate: float, folder: Path):
        mix = trainer.eval_dataset
        positions = [(2 * i + 1) * len(mix) // (2 * count) for i in range(min(count, len(mix)))]
        self.batch = collate_windows(mix.__getitems__(positions))
        self.titles = [f"{trainer.corpora[source]}, window {mix.place(p)[1]}" for p, source in
                       zip(positions, self.batch["source"].tolist(), strict=True)]  # fmt: skip
        self.trainer, self.sampling_rate, self.folder = trainer, sampling_rate, folder

    def on_evaluate(self, args, state, control, **kwargs):
        outputs = self.trainer.reconstruct(self.batch)
        if state.is_world_process_zero:
            path = self.folder / f"step-{state.global_step:07d}.png"
            plot_reconstructions(self.batch, outputs, self.trainer.patch_size, self.sampling_rate, self.titles, path)


def _train_or_resume(trainer: PretrainingTrainer) -> float:
    """Train to the end; returns the seconds of this start."""
    started = time.perf_counter()
    with trainer.args.main_process_first(desc="looking for a checkpoint"):
        checkpoint = last_complete_checkpoint(Path(trainer.args.output_dir))
    with quiet():
        if checkpoint is None:
            trainer.train()
        else:
            if trainer.is_world_process_zero():
                print(f"continuing from {checkpoint}", flush=True)
            trainer.train(resume_from_checkpoint=str(checkpoint))
    return time.perf_counter() - started


def _common_extractor(corpora: Sequence[Corpus], patch_size: int) -> TinyMyoFeatureExtractor:
    """The preprocessing of the first corpus, for any number of channels where they differ in it."""
    extractor = for_use(corpora[0].extractor)
    extractor.patch_size = patch_size
    if len({corpus.channels for corpus in corpora}) > 1:
        extractor.feature_size = None
    return extractor


def _losses(state: TrainerState) -> list[dict[str, float]]:
    return [
        {name: entry[name] for name in ("step", "epoch", "loss", "learning_rate", "grad_norm") if name in entry}
        for entry in state.log_history
        if "loss" in entry
    ]


def _evaluations(state: TrainerState) -> list[dict[str, float]]:
    ignored = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    return [
        {"step": entry["step"], "epoch": entry["epoch"]}
        | {
            name.removeprefix("eval_"): value
            for name, value in entry.items()
            if name.startswith("eval_") and name.removeprefix("eval_") not in ignored
        }
        for entry in state.log_history
        if "eval_loss" in entry
    ]


def _batch_size(arguments: PretrainingArguments) -> dict[str, int]:
    sizes = {
        "windows": arguments.train_batch_size,
        "accumulation": arguments.gradient_accumulation_steps,
        "processes": arguments.world_size,
    }
    return sizes | {"total": sizes["windows"] * sizes["accumulation"] * sizes["processes"]}


def _describe(corpora: Sequence[Corpus], train: WindowMix, arguments: PretrainingArguments) -> str:
    lines = []
    for corpus, count in zip(corpora, train.counts, strict=True):
        windows = ", ".join(f"{split} {number:,}" for split, number in corpus.facts["windows"].items())
        lines.append(f"{corpus.name}: {corpus.channels} channels, windows: {windows}; {count:,} per epoch")
    batch = _batch_size(arguments)
    rate = corpora[0].extractor.sampling_rate
    lines.append(
        f"mix: {len(train):,} windows of {train.num_channels} channels x {train.time} samples ({train.time / rate:g} s "
        f"at {rate:g} Hz) per epoch, in batches of {batch['total']} ({batch['windows']} x {batch['accumulation']} "
        f"micro-batches x {batch['processes']} processes)"
    )
    return "\n".join(lines)


def _settings(model_arguments: ModelArguments, arguments: PretrainingArguments) -> dict[str, Any]:
    """The recipe as plain data: the training fields that differ from the defaults, without the places of raw data."""
    defaults = PretrainingArguments(
        output_dir=arguments.output_dir, corpora=arguments.corpora, use_cpu=arguments.use_cpu
    ).to_dict()
    training = {name: value for name, value in arguments.to_dict().items() if value != defaults.get(name)}
    corpora = [{name: value for name, value in c.items() if name != "data_dir"} for c in arguments.corpora]
    training.pop("corpora", None)
    if arguments.probe is not None:
        training["probe"] = {name: value for name, value in arguments.probe.items() if name != "data_dir"}
    training["task"] = arguments.TASK
    return {"model": asdict(model_arguments), "data": {"corpora": corpora}, "training": training}
