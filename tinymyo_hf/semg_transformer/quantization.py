"""Linear layers of an sEMG transformer in 8-bit integers, for CPUs: a quarter of the memory, and less time.

Weights have a scale per output; activations are rounded as they come, with a scale per frame. So a frame's result
depends on no other frame, and a quantized model streams as exactly as another.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from .modeling_semg_transformer import SEMGTransformerLayer, SEMGTransformerPreTrainedModel

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer with weights in int8: (..., in_features) -> (..., out_features), on a CPU.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer("bias", bias.clone())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1])
        scale = _scale(rows)
        sums = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight.t())
        # sums * scale of the frame * scale of the output + bias
        product = torch.addcmul(self.bias, sums * scale, self.scale)
        return product.view(*states.shape[:-1], -1)

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}"


def quantize_dynamic(model: SEMGTransformerPreTrainedModel) -> SEMGTransformerPreTrainedModel:
    """A copy of a model with the linear layers of its blocks in int8, for inference on a CPU.

    Convolutions, norms, feature projection and CTC head, where rounding costs most and a tenth of the time at most is
    spent, stay as they are. The copy works wherever the model does: forward passes, streams, `session_logits`.

    Args:
        model: in evaluation mode, float32, on the CPU.

    Raises:
        ValueError: the model is in training mode, in another type or on another device.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first; int8 is for inference.")
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(
            f"int8 is for float32 models on a CPU, this one is {model.dtype} on {model.device}: call "
            "model.float().cpu() first."
        )
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, SEMGTransformerLayer):
            for parent in (layer.attention, layer.feed_forward):
                for name, linear in list(parent.named_children()):
                    if isinstance(linear, nn.Linear):
                        setattr(parent, name, Int8Linear(linear.weight.detach(), linear.bias.detach()))
    return model


def join_projections(linears: Sequence[nn.Module]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Several linear layers of the same inputs as one, their outputs side by side: fewer and larger products."""
    if all(type(linear) is nn.Linear for linear in linears):
        weight = torch.cat([linear.weight for linear in linears])
        bias = torch.cat([linear.bias for linear in linears])
        return lambda states: nn.functional.linear(states, weight, bias)
    if all(type(linear) is Int8Linear for linear in linears):
        joined = copy.copy(linears[0])
        joined._buffers = {
            name: torch.cat([linear.get_buffer(name) for linear in linears]) for name in ("weight", "scale", "bias")
        }
        return joined
    return lambda states: torch.cat([linear(states) for linear in linears], dim=-1)


def _scale(rows: torch.Tensor) -> torch.Tensor:
    """(rows, values) -> (rows, 1), by which to divide each row for values between -127 and 127."""
    return rows.abs().amax(-1, keepdim=True).clamp_(min=torch.finfo(rows.dtype).tiny * LARGEST) / LARGEST


__all__ = ["Int8Linear", "join_projections", "quantize_dynamic"]
