"""Calibrate a trained classifier to one person with a few labelled windows of theirs.

"head" trains the last linear layer on the encoder's features, which are computed once: seconds on a CPU. "lora" trains
low-rank adapters and the head (Hu et al. 2021), "full" every weight, lower layers more slowly. All start from the head
that the classifier has, and keep the last weights: somebody who calibrates has no windows to spare for validation.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, ProgressCallback, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from dataset_builders.torch_view import collate_windows
from tinymyo_hf import TinyMyoForSequenceClassification
from tinymyo_hf.quiet import quiet
from trainers.arguments import ClassificationArguments, ModelArguments
from trainers.errors import RecipeError
from trainers.models import choose_trainable, merged
from trainers.optim import LayerwiseTrainer, classification_loss

METHODS = ("head", "lora", "full")
# head: the best of a dozen pairs of rate and epochs on the validation subjects of UCI EMG; the others: not searched.
CALIBRATION: dict[str, dict[str, float]] = {
    "head": {"learning_rate": 5e-4, "num_train_epochs": 20},
    "lora": {"learning_rate": 1e-3, "num_train_epochs": 8},
    "full": {"learning_rate": 1e-4, "num_train_epochs": 8, "layer_decay": 0.75},
}
COMMON = {"per_device_train_batch_size": 32, "weight_decay": 0.01, "warmup_steps": 0.1, "layer_decay": 1.0}


def calibration_settings(method: str, changes: Mapping[str, Any]) -> dict[str, float]:
    """The training fields of a method: its defaults, with those in `changes` replaced.

    Raises:
        RecipeError: an unknown method or field, or a value that is no number.
    """
    if method not in METHODS:
        raise RecipeError(f"method {method!r} is unknown; use one of {', '.join(METHODS)}")
    if not isinstance(changes, Mapping):
        raise RecipeError(f"calibration.{method}={changes!r}: give a mapping, for instance {{learning_rate: 1.0e-3}}")
    settings = COMMON | CALIBRATION[method]
    for name, value in changes.items():
        if name not in settings:
            raise RecipeError(f"calibration.{method}: unknown field {name!r}; there are {', '.join(settings)}")
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise RecipeError(f"calibration.{method}.{name}={value!r}: give a number such as {settings[name]:g}")
    return settings | dict(changes)


def calibrate(
    model: TinyMyoForSequenceClassification,
    windows: Dataset,
    method: str,
    settings: Mapping[str, float],
    arguments: ClassificationArguments,
    adapters: ModelArguments,
    seed: int = 0,
) -> TinyMyoForSequenceClassification:
    """A copy of `model` trained on `windows`; `model` stays as it is.

    Args:
        windows: items as of `WindowDataset`, the calibration repetitions.
        method: one of `METHODS`.
        settings: from `calibration_settings`.
        arguments: what the settings leave open: schedule, label smoothing, bf16, ...
        adapters: its `lora_` fields describe the adapters.
        seed: of the order of windows and of dropout.

    Raises:
        RecipeError: the adapters fit no layer.
        DivergenceError: the loss stopped being finite.
    """
    set_seed(seed)
    model = copy.deepcopy(model)
    parts = dataclasses.replace(adapters, lora=method == "lora", freeze_encoder=method == "head")
    trained = choose_trainable(model, parts)
    if method == "head":
        windows, trained = EncodedWindows(model, windows), Head(model)
    trainer = LayerwiseTrainer(
        model=trained,
        args=_quiet_arguments(arguments, settings, seed),
        train_dataset=windows,
        data_collator=collate_windows,
        compute_loss_func=classification_loss(arguments.label_smoothing_factor),
        layer_decay=settings["layer_decay"],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with quiet():
        trainer.train()
    model = model if method == "head" else merged(trained)
    return model.requires_grad_(True).eval()


class Head(nn.Module):
    """The last layer of a classifier, for inputs that its encoder has seen already."""

    def __init__(self, model: TinyMyoForSequenceClassification):
        super().__init__()
        self.config = model.config
        self.classifier = model.classifier  # shared: the model is trained with it

    def forward(self, input_values: torch.Tensor, labels: torch.Tensor | None = None) -> SequenceClassifierOutput:
        """`input_values` (batch, features) -> `logits` (batch, classes)."""
        return SequenceClassifierOutput(logits=self.classifier(input_values))


class EncodedWindows(Dataset):
    """What the last layer of a classifier sees of each window: {"input_values": (features,), "labels": int}."""

    def __init__(self, model: TinyMyoForSequenceClassification, windows: Dataset):
        seen: list[torch.Tensor] = []
        hook = model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
        try:
            _, labels = predict_windows(model, windows)
        finally:
            hook.remove()
        self.features, self.labels = torch.cat(seen), labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"input_values": self.features[index], "labels": self.labels[index]}


@torch.no_grad()
def predict_windows(
    model: TinyMyoForSequenceClassification, windows: Dataset, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (windows, classes) and labels (windows,) of all windows, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    logits, labels = [], []
    for batch in DataLoader(windows, batch_size=batch_size, collate_fn=collate_windows):
        logits.append(model(input_values=batch["input_values"].to(device)).logits.float().cpu())
        labels.append(batch["labels"])
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def _quiet_arguments(
    arguments: ClassificationArguments, settings: Mapping[str, float], seed: int
) -> ClassificationArguments:
    """Those of a training that only trains: nothing is evaluated, saved or logged on the way."""
    arguments = copy.copy(arguments)
    for name, value in settings.items():
        setattr(arguments, name, value)
    arguments.eval_strategy = arguments.logging_strategy = IntervalStrategy.NO
    arguments.save_strategy = SaveStrategy.NO
    arguments.load_best_model_at_end = False
    arguments.max_steps = -1  # a limit of the generic training; here the epochs count
    arguments.disable_tqdm = True
    arguments.report_to = []
    arguments.seed = arguments.data_seed = seed
    arguments.label_names = ["labels"]  # the library cannot tell through the wrapper of LoRA
    return arguments
