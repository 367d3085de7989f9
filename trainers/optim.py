"""Optimisation shared by every kind of training: layer-wise learning-rate decay, weight averaging, and the `Trainer`
that uses both.

The schedules are the library's own: `lr_scheduler_type: cosine_with_min_lr` with `lr_scheduler_kwargs: {min_lr: ...}`
and a fractional `warmup_steps`. Its minimum is a ratio of the peak, so every layer decays to the same fraction of its
own peak.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from trainers.augmentation import Augmentation
from trainers.errors import DivergenceError, RecipeError

WEIGHT_AVERAGE_FILE = "weight_average.safetensors"

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:patch_embedding|stem|mask_token|feature_extractor|feature_projection|pos_conv_embed)(?:\.|$)"
    r"|^tiny_biomoe\."  # which is no stack of layers: all below the head alike
)
_NEVER_DECAYS = re.compile(r"mask_token$|norm\.|\.bias\.weight$")


def layer_index(name: str, num_layers: int) -> int:
    """Depth of a parameter: 0 for what makes tokens or frames of samples, positions, the mask token, and all of
    Tiny-BioMoE below its head; 1..num_layers for the encoder layers; and num_layers + 1 for everything above them
    (final norm and heads)."""
    layer = _LAYER.search(name)
    if layer:
        return int(layer.group(1)) + 1
    return 0 if _EMBEDDING.search(name) else num_layers + 1


def layer_wise_parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    encoder_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Optimizer groups with `lr = learning_rate * layer_decay ** (top - depth)`; the head is the top, with factor 1.
    All below it are also multiplied by `encoder_lr_factor`.

    Biases, also of attention, norms and the mask token get no weight decay. Frozen parameters are left out. The
    head's group comes first, so the learning rate the `Trainer` logs is the peak one.

    Raises:
        RecipeError: `layer_decay` or `encoder_lr_factor` outside (0, 1], or nothing to train.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise RecipeError(f"layer_decay must be in (0, 1], got {layer_decay}; 1 treats every layer alike")
    if not 0.0 < encoder_lr_factor <= 1.0:
        raise RecipeError(f"encoder_lr_factor must be in (0, 1], got {encoder_lr_factor}; freeze_encoder is for 0")
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise RecipeError("no trainable parameter is left: every layer, the head included, is frozen")
    layers = [int(found.group(1)) for name, _ in model.named_parameters() if (found := _LAYER.search(name))]
    num_layers = max(layers, default=-1) + 1

    members: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in trainable:
        decays = parameter.ndim > 1 and not _NEVER_DECAYS.search(name)
        members[layer_index(name, num_layers), decays].append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate
            * layer_decay ** (num_layers + 1 - depth)
            * (encoder_lr_factor if depth <= num_layers else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
            "layer": depth,
        }
        for (depth, decays), parameters in sorted(members.items(), key=lambda item: item[0], reverse=True)
    ]


class WeightAverage:
    """Exponential moving average of the trainable weights.

    The decay warms up as (1 + step) / (10 + step), so that short runs are not held back by the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0.0 < decay < 1.0:
            raise RecipeError(f"ema_decay must be in (0, 1), got {decay}")
        self.decay = decay
        self.values = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [weights[n].detach() for n in self.values], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name in self.values:
                parameter.copy_(self.values[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside the block `model` holds the average; afterwards its own weights again."""
        raw = {n: p.detach().clone() for n, p in model.named_parameters() if n in self.values}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name in raw:
                        parameter.copy_(raw[name])

    def save(self, folder: str | Path) -> None:
        save_file(self.values, Path(folder) / WEIGHT_AVERAGE_FILE)

    def load(self, folder: str | Path) -> None:
        stored = load_file(Path(folder) / WEIGHT_AVERAGE_FILE)
        for name, value in self.values.items():
            value.copy_(stored[name])


class _UpdateAverage(TrainerCallback):
    def __init__(self, trainer: LayerwiseTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.weight_average.update(self.trainer.model, state.global_step)


class _TellEpoch(TrainerCallback):
    """Tells the training windows which epoch begins. The library does so in a single process; in several, the epoch
    gets no further than a sampler that shuffles."""

    def __init__(self, trainer: LayerwiseTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(int(state.epoch or 0))


Guide = Callable[[torch.Tensor, Any, dict[str, Any], float], torch.Tensor]
"""`guide(loss, outputs, inputs, share)` -> the loss to train on: what a teacher adds to the loss of the labels.

`outputs` are the model's on the batch `inputs`, which is augmented; `share` is what a mean over this batch has to be
multiplied by to be on the scale of `loss`, which may be divided by the items of all accumulated batches already.
"""


class LayerwiseTrainer(Trainer):
    """`Trainer` with layer-wise learning rates, train-time augmentation and weight averaging.

    Args:
        layer_decay: factor between the learning rates of neighbouring layers.
        augmentation: applied to `input_values` on the training device. Its generator is seeded from the run's seed, the
            process and the step, so a resumed run draws what the uninterrupted run would have drawn.
        ema_decay: if set, the averaged weights are what is evaluated and what the best model is loaded with;
            checkpoints keep the raw weights, from which training resumes, with the average beside them.
        guide: makes the loss of a training batch another one; evaluation reports the loss as it was.
    """

    def __init__(
        self,
        *args: Any,
        layer_decay: float = 1.0,
        augmentation: Augmentation | None = None,
        ema_decay: float | None = None,
        guide: Guide | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.guide = guide
        self.add_callback(_TellEpoch(self))
        self.set_up(self.model, layer_decay, augmentation, ema_decay)

    def set_up(
        self, model: nn.Module, layer_decay: float, augmentation: Augmentation | None, ema_decay: float | None
    ) -> None:
        """Begin the training of `model`, which is on its device; the other arguments are those of the class."""
        self.layer_decay = layer_decay
        self.augmentation = augmentation
        self.weight_average = None if ema_decay is None else WeightAverage(model, ema_decay)
        self._update: tuple[int, list[dict[str, Any]]] = (-1, [])  # (optimizer step, its micro-batches so far)
        self.pop_callback(_UpdateAverage)
        if self.weight_average is not None:
            self.add_callback(_UpdateAverage(self))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            factor = getattr(self.args, "encoder_lr_factor", 1.0)  # pretraining has its own arguments
            groups = layer_wise_parameter_groups(
                model, self.args.learning_rate, self.args.weight_decay, self.layer_decay, factor
            )
            optimizer_class, optimizer_kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **optimizer_kwargs)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As the library's, and multiplied by `lr_drop_factor` after each of `lr_drop_epochs` (of `TrainArguments`)."""
        created = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        drops = getattr(self.args, "lr_drop_epochs", ())  # pretraining has its own arguments
        if created and drops:
            if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
                raise RecipeError(
                    f"lr_drop_epochs: cannot be joined with lr_scheduler_type={self.args.lr_scheduler_type}; "
                    "constant_with_warmup is usual"
                )
            steps = [epoch * num_training_steps / self.args.num_train_epochs for epoch in drops]
            factor = self.args.lr_drop_factor
            scheduler.lr_lambdas = [
                lambda step, given=given: given(step) * factor ** sum(step >= drop for drop in steps)
                for given in scheduler.lr_lambdas
            ]
        return scheduler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """As the library's, on augmented windows; a loss that is not finite is a `DivergenceError`."""
        if self._update[0] != self.state.global_step:
            self._update = (self.state.global_step, [])
        if self.augmentation is not None:
            inputs = self._prepare_inputs(inputs)
            values = inputs["input_values"]
            inputs = {**inputs, "input_values": self.augmentation(values, self._step_generator(values.device))}
        self._update[1].append(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise self._diverged(f"the loss is {loss.item():g}", [inputs])
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """That of the labels; in training, what `guide` makes of it."""
        loss, outputs = self.label_loss(model, inputs, num_items_in_batch)
        if self.guide is not None and model.training:
            divided = self.compute_loss_func is not None  # as all of ours do, by the items of the accumulated batches
            share = 1.0 / self.current_gradient_accumulation_steps if divided else 1.0
            loss = self.guide(loss, outputs, inputs, share)
        return (loss, outputs) if return_outputs else loss

    def label_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """The loss of the labels, as the library has it, and the outputs of the model."""
        return super().compute_loss(model, dict(inputs), True, num_items_in_batch)  # a copy: it takes the labels out

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Called before every step of the optimizer, which would make all weights NaN.
        norm = super()._get_grad_norm(model, grad_norm)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # sharded weights have the former
        if not self.args.fp16 and not np.isfinite(value):  # float16 skips such steps and lowers its scale
            raise self._diverged(f"the norm of the gradient is {value:g}", self._update[1])
        return norm

    def _diverged(self, what: str, batches: list[dict[str, Any]]) -> DivergenceError:
        output = self.args.output_dir
        good = get_last_checkpoint(output) if Path(output).is_dir() else None
        return DivergenceError(
            f"step {self.state.global_step + 1} (epoch {self.state.epoch or 0:.2f}): {what}. Its batch: "
            f"{'; '.join(self.describe_batch(batch) for batch in batches)}. Training stopped before this step changed "
            f"any weight; {f'{good} is the last good checkpoint' if good else 'no checkpoint had been written'}. Lower "
            "learning_rate, raise warmup_steps, or look into these windows"
        )

    def describe_batch(self, inputs: dict[str, Any]) -> str:
        """What a message says about a batch: how many of its windows hold values that are not finite."""
        finite = inputs["input_values"].isfinite().flatten(1).all(dim=1)
        wrong = (~finite).nonzero().flatten().tolist()
        if not wrong:
            return f"{len(finite)} windows, all finite"
        return f"{len(wrong)} of {len(finite)} windows are not finite, the first at position {wrong[0]}"

    def _step_generator(self, device: torch.device) -> torch.Generator:
        # Hashed, because the CPU's generator takes the lowest 32 bits of its seed alone.
        place = [self.args.seed, self.args.process_index, self._update[0], len(self._update[1])]
        return torch.Generator(device).manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        with self.weight_average.applied(self.model) if self.weight_average else nullcontext():
            return super().evaluation_loop(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.weight_average is not None and self.args.should_save:
            self.weight_average.save(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.weight_average is not None:
            self.weight_average.load(resume_from_checkpoint)

    def load_best_model(self) -> None:
        """Load the weights of the best checkpoint named by `self.state`, as the end of training does."""
        self._load_best_model()

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.weight_average is not None:
            self.weight_average.load(self.state.best_model_checkpoint)
            self.weight_average.copy_to(self.model)
            self.weight_average = None  # the model itself now holds it
            self.pop_callback(_UpdateAverage)


def classification_loss(
    label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None
) -> Callable[..., torch.Tensor]:
    """Cross-entropy for `Trainer(compute_loss_func=...)`; `class_weights` (classes,) average 1 over the windows.

    With gradient accumulation the sum is divided by the windows of the whole accumulated batch.
    """

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        weight = None if class_weights is None else class_weights.to(logits.device)
        total = nn.functional.cross_entropy(
            logits, labels, weight=weight, reduction="sum", label_smoothing=label_smoothing
        )
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def balanced_class_weights(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """(windows,) class ids -> (num_labels,) float32, inversely proportional to the class frequency; their average over
    the windows is 1. A class without windows gets 0."""
    counts = torch.bincount(labels, minlength=num_labels).float()
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), torch.zeros(()))
