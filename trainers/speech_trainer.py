"""The `Trainer` of silent speech: packed batches, a learning rate that halves on plateaus, whole utterances scored.

A batch is what `SpeechCollator` makes of utterances: `input_values` (P, channels, time) and `attention_mask` (P, time),
packed or padded, `lengths` (utterances,) in frames, and the targets of a task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import TrainerCallback

from trainers.errors import RecipeError
from trainers.optim import LayerwiseTrainer
from trainers.speech_arguments import SpeechArguments
from trainers.speech_batches import SAMPLES_PER_FRAME, SizeAwareBatches, pack, pad, unpack


@dataclass(frozen=True)
class SpeechCollator:
    """Items with `input_values` (channels, time) -> `input_values`, `attention_mask` and `lengths` (utterances,) in
    frames. Tasks add their targets.

    Attributes:
        piece_length: samples of the pieces that utterances are packed into; None pads whole utterances.
    """

    piece_length: int | None = None

    def __call__(self, items: Sequence[dict]) -> dict[str, Any]:
        signals = [item["input_values"] for item in items]
        values, mask = pad(signals) if self.piece_length is None else pack(signals, self.piece_length)
        lengths = torch.tensor([signal.shape[1] // SAMPLES_PER_FRAME for signal in signals])
        return {"input_values": values, "attention_mask": mask, "lengths": lengths}


def utterance_frames(frames: torch.Tensor, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Frames (P, F, ...) of a batch, packed or padded -> (n_i, ...) of each utterance."""
    return unpack(frames, inputs["lengths"].tolist(), inputs["attention_mask"])


class PlateauRate:
    """Factor of the learning rate: linear from 0 during warm-up, then 1, and multiplied by `factor` whenever more than
    `patience` evaluations in a row were no better than the best, as of torch's `ReduceLROnPlateau` (a score counts as
    better when it beats the best by a 10,000th). Evaluations during warm-up can be the best, but are never counted as
    no better.

    Its state is kept with that of `LambdaLR`, which calls it with the number of steps.
    """

    THRESHOLD = 1e-4

    def __init__(self, warmup_steps: int, patience: int, factor: float, greater_is_better: bool):
        self.warmup_steps, self.patience, self.factor = warmup_steps, patience, factor
        self.sign = 1 if greater_is_better else -1
        self.best: float | None = None
        self.not_better = 0
        self.scale = 1.0

    def __call__(self, step: int) -> float:
        return self.scale * min(1.0, step / max(self.warmup_steps, 1))

    def evaluated(self, score: float, step: int) -> bool:
        """Take in the score after `step` steps; whether the rate falls."""
        better = self.best is None or self.sign * (score - self.best) > self.THRESHOLD * abs(self.best)
        if better and not math.isnan(score):
            self.best, self.not_better = score, 0
        elif step >= self.warmup_steps:
            self.not_better += 1
        if self.not_better <= self.patience:
            return False
        self.scale, self.not_better = self.scale * self.factor, 0
        return True


class _TellSampler(TrainerCallback):
    """Which epoch begins: the library gets it no further than to samplers that it made itself."""

    def __init__(self, sampler: SizeAwareBatches):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch or 0))


class SpeechTrainer(LayerwiseTrainer):
    """`LayerwiseTrainer` for utterances; a task says what its loss is, and what of its outputs evaluation keeps.

    Datasets have `lengths`, the samples of each utterance; items are whole utterances.
    """

    args: SpeechArguments

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Losses are means over their own batch: to be averaged over accumulated batches.
        self.model_accepts_loss_kwargs = False

    def batch_loss(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of a batch, the mean over its utterances or frames.

        Args:
            outputs: of the model, for `input_values` and `attention_mask`.
            inputs: the batch; `utterance_frames` takes outputs apart.
        """
        raise NotImplementedError

    def kept_outputs(self, outputs: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """What evaluation keeps of a batch, and the labels to compare it with: (utterances, ...) tensors of at most a
        few numbers per frame. Padding is -100."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader:
        # Each process takes its share by itself: the library would divide batches of different sizes wrongly.
        arguments, dataset = self.args, self.train_dataset
        sampler = SizeAwareBatches(
            dataset.lengths, arguments.max_samples, arguments.seed, arguments.process_index, arguments.world_size
        )
        self.pop_callback(_TellSampler)
        self.add_callback(_TellSampler(sampler))
        workers = arguments.dataloader_num_workers
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=self.train_collator,
            num_workers=workers,
            pin_memory=arguments.dataloader_pin_memory,
            persistent_workers=arguments.dataloader_persistent_workers and workers > 0,
            prefetch_factor=arguments.dataloader_prefetch_factor,
        )

    @property
    def train_collator(self) -> Any:
        """As `data_collator`, which pads for evaluation, packed as the recipe says."""
        if self.args.packing == "utterances":
            return self.data_collator
        return type(self.data_collator)(self.args.piece_length)

    def num_examples(self, dataloader: DataLoader) -> int:
        return len(dataloader.dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def label_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """`batch_loss`, and the outputs of the model."""
        outputs = model(input_values=inputs["input_values"], attention_mask=inputs["attention_mask"])
        return self.batch_loss(outputs, inputs), outputs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, Any, Any]:
        """Loss of a batch, and what `kept_outputs` keeps of it."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.label_loss(model, inputs)
        loss = loss.detach().mean()
        if prediction_loss_only:
            return loss, None, None
        kept, labels = self.kept_outputs(outputs, inputs)
        return loss, kept, labels

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and plateaus; the library's where `plateau_patience` is -1."""
        if self.args.plateau_patience < 0:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            self._plateau = PlateauRate(
                self.args.get_warmup_steps(num_training_steps),
                self.args.plateau_patience,
                self.args.plateau_factor,
                bool(self.args.greater_is_better),
            )
            rates = [self._plateau] * len(optimizer.param_groups)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _evaluate(self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False) -> dict:
        # Called before a checkpoint is written, which thereby holds the rate that goes on from here.
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        if self.args.plateau_patience >= 0 and not skip_scheduler:
            score = metrics.get(f"eval_{self.args.selection_metric}")
            if score is None:
                raise RecipeError(
                    f"metric_for_best_model={self.args.selection_metric}: evaluation gives no such score, so that the "
                    "learning rate cannot follow it; choose another"
                )
            if self._plateau.evaluated(score, self.state.global_step):
                self._lower_rate()
        return metrics

    def _lower_rate(self) -> None:
        """Let the next step have the new rate; the scheduler itself changes it one step later."""
        scheduler = self.lr_scheduler
        for group, rate in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = rate * self._plateau(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
