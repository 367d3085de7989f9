"""8-bit arithmetic, simulated in floating point: what int8 inference computes, with gradients.

    fake_quantize(model)
    calibrate(model, batches)
    ...  # train
    ranges = remove_fake_quantization(model)

Linear layers and 1-d convolutions get weights and inputs that are rounded as in an ONNX graph of QuantizeLinear and
DequantizeLinear: weights to int8, symmetric, a scale per output channel; inputs to uint8, affine, a range per layer.
Sums, biases and everything between these layers stay as they are. The gradient passes the rounding as if it were not
there; for inputs beyond the range, which are cut off, it is 0.

Parameters keep their names. While a model is fake-quantized, each layer has a buffer `input_range` besides, so that
checkpoints of the training hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

RANGE_STEP = 0.01  # of the moving average: how far a batch moves the range towards its own
_TINY = 1e-12  # in place of a scale of 0


class _FakeQuantized(nn.Module):
    """What a layer is made into.

    Attributes:
        input_range: (2,) lowest and highest input, 0 included; both 0 until the first one was seen.
        observing: whether batches of the training move the range.
        calibrating: whether any batch widens the range to its own.
    """

    weight: torch.Tensor
    input_range: torch.Tensor
    observing: bool
    calibrating: bool
    plain_class: type[nn.Module]

    def quantized_input(self, hidden_states: torch.Tensor) -> torch.Tensor:
        values = hidden_states.float()
        if (self.calibrating or self.observing and self.training) and values.numel():  # stochastic depth may leave none
            self._observe(values.detach())
        low, high = self.input_range
        scale = ((high - low) / 255).clamp(min=_TINY)
        zero_point = (-low / scale).round().int()
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255).to(hidden_states.dtype)

    def quantized_weight(self) -> torch.Tensor:
        weight = self.weight.float()
        scale = (weight.detach().flatten(1).abs().amax(1) / 127).clamp(min=_TINY)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -127, 127).to(self.weight.dtype)

    @torch.no_grad()
    def _observe(self, values: torch.Tensor) -> None:
        low, high = torch.aminmax(values)
        seen = torch.stack((low.clamp(max=0), high.clamp(min=0)))
        if self.calibrating:
            low, high = self.input_range
            moved = torch.stack((torch.minimum(low, seen[0]), torch.maximum(high, seen[1])))
        else:
            moved = torch.where(self.input_range.any(), self.input_range.lerp(seen, RANGE_STEP), seen)
        self.input_range.copy_(moved)


class FakeQuantizedLinear(_FakeQuantized, nn.Linear):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.quantized_input(hidden_states), self.quantized_weight(), self.bias)


class FakeQuantizedConv1d(_FakeQuantized, nn.Conv1d):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(self.quantized_input(hidden_states), self.quantized_weight(), self.bias)


def fake_quantize(model: nn.Module) -> None:
    """Fake-quantize all linear layers and 1-d convolutions of a model, in place. Their ranges are still to be found:
    `calibrate`, or some steps of training."""
    for layer in model.modules():
        made_into = {nn.Linear.forward: FakeQuantizedLinear, nn.Conv1d.forward: FakeQuantizedConv1d}.get(
            type(layer).forward
        )
        if made_into is not None:
            layer.plain_class, layer.observing, layer.calibrating = type(layer), True, False
            layer.register_buffer("input_range", torch.zeros(2, device=layer.weight.device))
            layer.__class__ = made_into


def remove_fake_quantization(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Make the model the plain one again, in place.

    Returns:
        Name of each layer that was fake-quantized -> its lowest and highest input.
    """
    ranges = {}
    for name, layer in list(fake_quantized_layers(model)):
        ranges[name] = tuple(layer.input_range.tolist())
        layer.__class__ = layer.plain_class
        del layer.input_range, layer.plain_class, layer.observing, layer.calibrating
    return ranges


def fake_quantized_layers(model: nn.Module) -> Iterator[tuple[str, _FakeQuantized]]:
    """The layers that are fake-quantized, by name."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, _FakeQuantized))


def observe(model: nn.Module, observing: bool) -> None:
    """Let the batches of the training move the ranges, or freeze them."""
    for _, layer in fake_quantized_layers(model):
        layer.observing = observing


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """Set all ranges to the lowest and highest inputs over some batches, of the network without dropout."""
    layers = [layer for _, layer in fake_quantized_layers(model)]
    training = model.training
    model.eval()
    for layer in layers:
        layer.input_range.zero_()
        layer.calibrating = True
    try:
        for batch in batches:
            model(**batch)
    finally:
        model.train(training)
        for layer in layers:
            layer.calibrating = False
