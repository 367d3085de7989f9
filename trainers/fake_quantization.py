"""8-bit arithmetic, simulated in floating point: what int8 inference computes, with gradients.

    fake_quantize(model)
    calibrate(model, batches)
    ...  # train
    ranges = remove_fake_quantization(model)

Linear layers and 1-d convolutions get weights and inputs that are rounded as in an ONNX graph of QuantizeLinear and
DequantizeLinear: weights to int8, symmetric, a scale per output channel; inputs to uint8, affine, a range per layer. So
are the outputs of convolutions, which int8 inference computes from end to end. Sums, biases and everything between
these layers stay as they are. The gradient passes the rounding as if it were not there; for values beyond the range,
which are cut off, it is 0.

Parameters keep their names. While a model is fake-quantized, each layer has buffers with its ranges besides, so that
checkpoints of the training hold them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

RANGE_STEP = 0.01  # of the moving average: how far a batch moves a range towards its own
_TINY = 1e-12  # in place of a scale of 0

Ranges = dict[str, dict[str, tuple[float, float]]]
"""Name of a layer -> "input", and "output" of a convolution -> the lowest and the highest value."""


class _FakeQuantized(nn.Module):
    """What a layer is made into. Each of its ranges is a buffer (2,), the lowest and the highest value with 0 between
    them; both are 0 until a value was seen.

    Attributes:
        ranges: their names.
        observing: whether batches of the training move the ranges.
        calibrating: whether any batch widens them to its own.
    """

    ranges: tuple[str, ...] = ("input",)
    weight: torch.Tensor
    observing: bool
    calibrating: bool
    plain_class: type[nn.Module]

    def range_of(self, name: str) -> torch.Tensor:
        return getattr(self, f"{name}_range")

    def quantized(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """`states` rounded, of any shape; `name` is that of their range."""
        values = states.float()
        if (self.calibrating or self.observing and self.training) and values.numel():  # stochastic depth may leave none
            self._observe(self.range_of(name), values.detach())
        low, high = self.range_of(name)
        scale = ((high - low) / 255).clamp(min=_TINY)
        zero_point = (-low / scale).round().int()
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255).to(states.dtype)

    def quantized_weight(self) -> torch.Tensor:
        weight = self.weight.float()
        scale = (weight.detach().flatten(1).abs().amax(1) / 127).clamp(min=_TINY)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -127, 127).to(self.weight.dtype)

    @torch.no_grad()
    def _observe(self, kept: torch.Tensor, values: torch.Tensor) -> None:
        low, high = torch.aminmax(values)
        seen = torch.stack((low.clamp(max=0), high.clamp(min=0)))
        if self.calibrating:
            kept.copy_(torch.stack((torch.minimum(kept[0], seen[0]), torch.maximum(kept[1], seen[1]))))
        else:
            kept.copy_(torch.where(kept.any(), kept.lerp(seen, RANGE_STEP), seen))


class FakeQuantizedLinear(_FakeQuantized, nn.Linear):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.quantized("input", hidden_states), self.quantized_weight(), self.bias)


class FakeQuantizedConv1d(_FakeQuantized, nn.Conv1d):
    ranges = ("input", "output")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        output = self._conv_forward(self.quantized("input", hidden_states), self.quantized_weight(), self.bias)
        return self.quantized("output", output)


def fake_quantize(model: nn.Module) -> None:
    """Fake-quantize all linear layers and 1-d convolutions of a model, in place. Their ranges are still to be found:
    `calibrate`, or some steps of training."""
    for layer in model.modules():
        made_into = {nn.Linear.forward: FakeQuantizedLinear, nn.Conv1d.forward: FakeQuantizedConv1d}.get(
            type(layer).forward
        )
        if made_into is not None:
            layer.plain_class, layer.observing, layer.calibrating = type(layer), True, False
            layer.__class__ = made_into
            for name in layer.ranges:
                layer.register_buffer(f"{name}_range", torch.zeros(2, device=layer.weight.device))


def remove_fake_quantization(model: nn.Module) -> Ranges:
    """Make the model the plain one again, in place; return the ranges that it had, if any."""
    ranges: Ranges = {}
    for name, layer in list(fake_quantized_layers(model)):
        ranges[name] = {kind: tuple(layer.range_of(kind).tolist()) for kind in layer.ranges}
        for kind in layer.ranges:
            delattr(layer, f"{kind}_range")
        layer.__class__ = layer.plain_class
        del layer.plain_class, layer.observing, layer.calibrating
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
    """Set all ranges to the lowest and highest values over some batches, of the network without dropout."""
    layers = [layer for _, layer in fake_quantized_layers(model)]
    training = model.training
    model.eval()
    for layer in layers:
        layer.calibrating = True
        for name in layer.ranges:
            layer.range_of(name).zero_()
    try:
        for batch in batches:
            model(**batch)
    finally:
        model.train(training)
        for layer in layers:
            layer.calibrating = False
