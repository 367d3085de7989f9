"""Int8 by torchao: quantized in PyTorch's own graph ("PT2E"), before a runtime's format is made of it.

graph = quantize_pt2e(model, windows)        # ONNX, as `export.graph.trace` makes it, with int8 layers
quantizer = pt2e_quantizer(model, windows)   # for other exporters of the library
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from export.extras import need
from export.graph import OPSET, Dimension, trace

if TYPE_CHECKING:
    import onnx
    import torch
    from transformers import PreTrainedModel
    from transformers.exporters import PT2EQuantizer


def pt2e_quantizer(
    model: PreTrainedModel,
    windows: np.ndarray,
    keep_float: Collection[str] = (),
    dynamic: bool = False,
    weight_bits: Literal[7, 8] = 8,
    batch_size: int = 1,
) -> PT2EQuantizer:
    """What the exporters of the library quantize a model of the family with.

    Args:
        model: to be exported.
        windows: float32 (windows, channels, time) to calibrate on.
        keep_float, dynamic, weight_bits: as for `export.pt2e_layers.Int8Layers`.
        batch_size: of the calls for calibration; graphs with a fixed batch take no other one than their own.

    Raises:
        ImportError: torchao is missing; the message names the extra.
    """
    need("torchao", extra="pt2e")
    from transformers.exporters import PT2EQuantizer

    from export.pt2e_layers import Int8Layers

    starts = range(0, len(windows), batch_size)
    batches = [_inputs(model, windows[start : start + batch_size]) for start in starts]
    return PT2EQuantizer(Int8Layers(keep_float, dynamic, weight_bits), calibration_dataset=batches)


def _inputs(model: PreTrainedModel, windows: np.ndarray) -> dict[str, torch.Tensor]:
    """As the model takes them; half of the tokens are masked in pretraining, always the same ones."""
    import torch

    inputs = {"input_values": torch.from_numpy(windows)}
    if type(model).__name__.endswith("ForPreTraining"):
        batch, channels, samples = windows.shape
        tokens = (batch, channels * samples // model.config.patch_size)
        inputs["bool_masked_pos"] = torch.from_numpy(np.random.default_rng(0).random(tokens) < 0.5)
    return inputs


def quantize_pt2e(
    model: PreTrainedModel,
    windows: np.ndarray,
    keep_float: Collection[str] = (),
    dynamic: Sequence[Dimension] = ("batch", "time"),
    opset: int = OPSET,
    length: int | None = None,
    batch_size: int = 32,
) -> onnx.ModelProto:
    """The ONNX graph of a model with int8 layers, static ranges, quantized and dequantized where they begin; weights
    have 7 bits, for the reason that `export.onnx_quantization` gives.

    Args:
        model: any model of the family; it is not changed.
        windows: float32 (windows, channels, time), preprocessed, of which ranges are measured: the smallest and the
            largest value.
        keep_float: names of layers to leave as they are.
        dynamic, opset, length: as for `export.graph.trace`.
        batch_size: windows in a call while ranges are measured, where "batch" is dynamic.

    Raises:
        ExportError: as `export.graph.trace`.
        ImportError: onnx, onnxscript or torchao are missing; the message names the extra.
    """
    batch_size = batch_size if "batch" in dynamic else 1
    quantizer = pt2e_quantizer(model, windows, keep_float, weight_bits=7, batch_size=batch_size)
    graph = trace(model, dynamic, opset, length, quantizer)
    _fold_transposes(graph)
    _name_layers(graph)
    return graph


def _fold_transposes(graph: onnx.ModelProto) -> None:
    """Weights stored as their layers take them: onnxruntime has no int8 kernel for those it would have to transpose."""
    from onnx import helper, numpy_helper

    makers = {node.output[0]: node for node in graph.graph.node}
    weights = {weight.name: weight for weight in graph.graph.initializer}
    for node in list(graph.graph.node):
        stored = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if stored is None or stored.op_type != "DequantizeLinear" or stored.input[0] not in weights:
            continue
        weight = weights[stored.input[0]]
        transposed = np.ascontiguousarray(numpy_helper.to_array(weight).T)
        weight.CopyFrom(numpy_helper.from_array(transposed, weight.name))
        del stored.attribute[:]
        stored.attribute.append(helper.make_attribute("axis", 1))
        stored.output[0] = node.output[0]
        graph.graph.node.remove(node)


def _name_layers(graph: onnx.ModelProto) -> None:
    """Layers and their weights named after modules, as in graphs that are not quantized; biases tell which they are."""
    makers = {node.output[0]: node for node in graph.graph.node}
    users = {name: node for node in graph.graph.node for name in node.input}
    names = {weight.name: weight.name for weight in graph.graph.initializer}
    for node in graph.graph.node:
        stored = makers.get(node.input[1]) if len(node.input) > 1 else None
        if stored is None or stored.op_type != "DequantizeLinear" or stored.input[0] not in names:
            continue
        added = node.input[2:] or users[node.output[0]].input
        module = next((name.removesuffix(".bias") for name in added if name.endswith(".bias")), None)
        if module is not None:
            node.name = module
            names[stored.input[0]], names[stored.input[1]] = f"{module}.weight", f"{module}.weight_scale"
    for weight in graph.graph.initializer:
        weight.name = names[weight.name]
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
