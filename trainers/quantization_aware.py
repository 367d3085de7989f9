"""Quantization-aware training: any task of windows, with a network that computes as int8 inference will.

    tinymyo train uci_emg_qat --model_name_or_path runs/uci_emg_200 --data_dir uci_emg.tar.xz

A checkpoint whose head was trained for the same outputs goes on with it; of any other, the encoder is taken. What is
saved is an ordinary checkpoint, with `activation_ranges.json` beside it: by the name of each layer that was quantized,
the lowest and the highest value of its "input", and of its "output" where it is a convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import TrainerCallback

from tinymyo_hf import TinyMyoConfig
from trainers.arguments import ModelArguments, TrainArguments
from trainers.errors import CheckpointError, RecipeError
from trainers.fake_quantization import calibrate, fake_quantize, observe, remove_fake_quantization
from trainers.models import load_config, load_trained
from trainers.tasks import Scores, Task

RANGES_FILE = "activation_ranges.json"
CALIBRATION_WINDOWS = 256
CALIBRATION_BATCH = 16
FROZEN_SHARE = 0.25  # of the training, at its end
BEFORE = {"int8": "before this training, int8 (simulated)", "float32": "before this training, float32"}


class QuantizationAware(Task):
    """What quantization-aware training adds to a task; classes derive from this and then from that task.

    Attributes:
        model_arguments: which model the training starts from.
    """

    model_arguments: ClassVar[ModelArguments]

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        model = super().build_model(arguments)
        if self._goes_on_with_head(arguments):
            self._take_weights(model, arguments.model_name_or_path)
        fake_quantize(model)
        calibrate(model, self._calibration_batches())
        return model

    def references(self, arguments: TrainArguments) -> dict[str, Scores]:
        """The trained model that the training starts from: quantized without this training, and in float32."""
        references = super().references(arguments)
        if self._goes_on_with_head(self.model_arguments):
            model = self.build_model(self.model_arguments)
            references[BEFORE["int8"]] = self.score_model(model, arguments)
            remove_fake_quantization(model)
            references[BEFORE["float32"]] = self.score_model(model, arguments)
        return references

    def facts(self) -> dict[str, Any]:
        quantization = {
            "weights": "int8, symmetric, one scale per output channel",
            "activations": "uint8, affine, one range per layer",
            "calibration_windows": min(CALIBRATION_WINDOWS, len(self.splits["train"])),
            "frozen_share": FROZEN_SHARE,
        }
        return {**super().facts(), "quantization": quantization}

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        parts, quantization = super().card(results), results["quantization"]
        return parts | {
            "scores": f"{parts['scores']} {cls.family} stands here as an int8 network, simulated: every linear layer "
            "and convolution was\nevaluated, and its weights selected, with weights and inputs rounded to 8 bits. The "
            "weights in this folder are float32.",
            "details": f"""{parts["details"]}

### Quantization-aware training

Weights of linear layers and convolutions: {quantization["weights"]}. Their inputs, and what
convolutions make: {quantization["activations"]}, set on {quantization["calibration_windows"]} training windows, then a
moving average of the extremes of the batches, fixed for the last {100 * quantization["frozen_share"]:g} % of the steps;
`{RANGES_FILE}` has them. Gradients pass the rounding unchanged (straight-through).""",
        }

    def _goes_on_with_head(self, arguments: ModelArguments) -> bool:
        source = arguments.model_name_or_path
        return source is not None and self.model_class.__name__ in (
            load_config(source, TinyMyoConfig).architectures or []
        )

    def _take_weights(self, model: nn.Module, source: str) -> None:
        """Give the model all weights of a trained one, its outputs in the order of the labels.

        Raises:
            CheckpointError: it was trained on other windows or labels, or is of another shape.
        """
        trained, extractor = load_trained(source, self.model_class)
        self.adopt(source, trained, extractor)
        try:
            model.load_state_dict(trained.state_dict())
        except RuntimeError:
            raise CheckpointError(
                f"{source}: model_config gives the head another shape than it was trained with; remove these fields"
            ) from None

    def _calibration_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Training windows from all over the split, the same ones each time."""
        split = self.splits["train"]
        indices = torch.linspace(0, len(split) - 1, min(CALIBRATION_WINDOWS, len(split))).long().tolist()
        for first in range(0, len(indices), CALIBRATION_BATCH):
            batch = self.collate([split[i] for i in indices[first : first + CALIBRATION_BATCH]])
            yield {name: values for name, values in batch.items() if name != "labels"}


class FreezeRanges(TrainerCallback):
    """Ends the observation of ranges `FROZEN_SHARE` before the end of the training."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        observe(model, state.global_step < (1 - FROZEN_SHARE) * state.max_steps)


def quantization_aware(task_class: type[Task], model_arguments: ModelArguments) -> type[Task]:
    """The task with quantization-aware training.

    Raises:
        RecipeError: the model gets adapters.
    """
    if model_arguments.lora:
        raise RecipeError(
            "quantization_aware trains the weights that will be rounded, which adapters would still be added to: "
            "remove lora, or train with it first and then start from the result by --model_name_or_path"
        )
    return type(task_class.__name__, (QuantizationAware, task_class), {"model_arguments": model_arguments})
