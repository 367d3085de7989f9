"""What a model costs: multiply-accumulate operations, counted while it runs on tensors without data."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

aten = torch.ops.aten
ATTENTION_PREFIX = "aten::_scaled_dot_product"


def count_macs(model: PreTrainedModel, input_shape: Sequence[int]) -> dict[str, int]:
    """Multiply-accumulate operations of one forward pass, by module.

    Counted are matrix products, convolutions and the two products of attention, all of its pairs of tokens even where
    it is causal; not what is linear in the number of activations (norms, activation functions, softmax, rotation).
    Figures that papers call FLOPs are often these.

    Args:
        model: one whose forward pass needs nothing but its main input. It is copied to the meta device, where nothing
            is computed.
        input_shape: of the model's main input, with the batch: (1, channels, time).

    Returns:
        "total", and for every module by its name ("tinymyo.layers.0.mlp.fc1") what it and its children do, where that
        is not 0, in the order of the modules.

    Example:
        >>> from tinymyo_hf import TinyMyoConfig, TinyMyoForSequenceClassification
        >>> config = TinyMyoConfig(num_channels=8, num_labels=6)
        >>> count_macs(TinyMyoForSequenceClassification(config), (1, 8, 1000))["total"]
        1908642816
    """
    model = copy.deepcopy(model).to("meta").eval()
    counter = _Counter()
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, args, name=name: counter.running.append(name))
        module.register_forward_hook(lambda module, args, output: counter.running.pop() and None)
    with torch.no_grad(), counter:
        model(**{model.main_input_name: torch.empty(tuple(input_shape), device="meta")})
    counts = {}
    for name, _ in model.named_modules():
        inside = sum(macs for at, macs in counter.macs.items() if not name or f"{at}.".startswith(f"{name}."))
        if inside or not name:
            counts[name or "total"] = inside
    return counts


class _Counter(TorchDispatchMode):
    """Adds up what every operator does, for the innermost module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.macs: dict[str, int] = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        output = operator(*args, **(kwargs or {}))
        macs = _macs_of(operator, args, output)
        if macs:
            at = self.running[-1] if self.running else ""
            self.macs[at] = self.macs.get(at, 0) + macs
        return output


def _macs_of(operator: torch._ops.OpOverload, args: tuple, output: object) -> int:
    if operator.name().startswith(ATTENTION_PREFIX):
        query, key, value = args[:3]  # (batch, heads, tokens, head_dim)
        return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    count = OPERATORS.get(operator.overloadpacket)
    return count(args, output) if count else 0


def _matrix_product(position: int) -> Callable[[tuple, torch.Tensor], int]:
    """Of an operator whose argument at `position` is the left matrix, (..., rows, inner)."""
    return lambda args, output: output.numel() * args[position].shape[-1]


def _convolution(args: tuple, output: torch.Tensor) -> int:
    signal, weight, transposed = args[0], args[1], args[6]
    # weight: (out, in / groups, *kernel), or (in, out / groups, *kernel) if transposed
    return (signal if transposed else output).numel() * weight.shape[1:].numel()


OPERATORS = {
    aten.mm: _matrix_product(0),
    aten.bmm: _matrix_product(0),
    aten.addmm: _matrix_product(1),
    aten.baddbmm: _matrix_product(1),
    aten.mv: _matrix_product(0),
    aten.addmv: _matrix_product(1),
    aten.dot: lambda args, output: args[0].numel(),
    aten.convolution: _convolution,
}
