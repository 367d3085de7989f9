"""Which operations of a traced graph torchao quantizes, and how: the layers with weights, as int8."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver, PlaceholderObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

_LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv1d.default, torch.ops.aten.conv1d.padding)
_ANNOTATION = "quantization_annotation"
# Below the smallest scale that matters; torch's own default would flush narrow ranges to zero.
_EPS = 2.0**-20


class Int8Layers(Quantizer):
    """Linear layers and convolutions: weights int8, symmetric, with one scale per output channel; inputs int8, with a
    scale and a zero point. What layers make, and all between them, stays in float.

    Args:
        keep_float: names of modules to leave as they are.
        dynamic: inputs get their range from themselves in every call, and convolutions stay in float; otherwise ranges
            are those of calibration.
        weight_bits: of the weights.
    """

    def __init__(self, keep_float: Collection[str] = (), dynamic: bool = False, weight_bits: Literal[7, 8] = 8):
        super().__init__()
        self.keep_float = set(keep_float)
        self.kinds = _LAYERS[:1] if dynamic else _LAYERS
        self.inputs = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            is_dynamic=dynamic,
            observer_or_fake_quant_ctr=(PlaceholderObserver if dynamic else MinMaxObserver).with_args(eps=_EPS),
        )
        largest = 2 ** (weight_bits - 1) - 1
        self.weights = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-largest,
            quant_max=largest,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=_EPS),
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark the layers of a graph."""
        for node in model.graph.nodes:
            if self._is_quantized(node):
                node.meta[_ANNOTATION] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: self.inputs, node.args[1]: self.weights}, _annotated=True
                )
        return model

    def _is_quantized(self, node: Node) -> bool:
        """Weights that are computed, as normalised ones are, are no layer's own."""
        if node.target not in self.kinds or node.args[1].op != "get_attr":
            return False
        return node.args[1].target.removesuffix(".weight") not in self.keep_float

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: what is no layer was left alone."""
