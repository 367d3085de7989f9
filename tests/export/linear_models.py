"""Stand-ins for models, small enough to write their graphs by hand: a linear map of means over time, or of samples."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tinymyo_hf import TinyMyoConfig

CHANNELS, LABELS, PATCH = 3, 4, 5
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(CHANNELS, LABELS)).astype(np.float32)
BIAS = RNG.normal(size=LABELS).astype(np.float32)


class LinearForSequenceClassification(nn.Module):
    """logits (batch, labels) = mean over time of (batch, channels, time) @ WEIGHT + BIAS."""

    per_sample = False

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.config = TinyMyoConfig(num_channels=CHANNELS, num_labels=LABELS, patch_size=PATCH)
        self.scale = scale

    def forward(self, input_values):
        means = input_values.transpose(1, 2) if self.per_sample else input_values.mean(-1)
        return {"logits": self.scale * (means @ torch.from_numpy(WEIGHT) + torch.from_numpy(BIAS))}


class LinearForRegression(LinearForSequenceClassification):
    """logits (batch, time, outputs) of every sample."""

    per_sample = True


class LinearForFrameClassification(LinearForRegression):
    """As before, as events."""


def linear_graph(
    model: nn.Module, bias=BIAS, batch="batch", time="time", output="logits", divide_by: int | None = None
) -> onnx.ModelProto:
    """The graph of a stand-in; `divide_by` takes the mean as a sum over so many samples, right at one length only."""
    weights = [
        numpy_helper.from_array(np.float32(model.scale) * WEIGHT, "weight"),
        numpy_helper.from_array((np.float32(model.scale) * bias).astype(np.float32), "bias"),
        numpy_helper.from_array(np.array([2]), "axes"),
        numpy_helper.from_array(np.float32(divide_by or 1), "samples"),
    ]
    if model.per_sample:
        nodes = [helper.make_node("Transpose", ["input_values"], ["means"], perm=(0, 2, 1))]
    elif divide_by is None:
        nodes = [helper.make_node("ReduceMean", ["input_values", "axes"], ["means"], keepdims=0)]
    else:
        nodes = [
            helper.make_node("ReduceSum", ["input_values", "axes"], ["sums"], keepdims=0),
            helper.make_node("Div", ["sums", "samples"], ["means"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["means", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], [output]),
    ]
    shape = [batch, time, LABELS] if model.per_sample else [batch, LABELS]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input_values", TensorProto.FLOAT, [batch, CHANNELS, time])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class HidingForPreTraining(nn.Module):
    """reconstruction (batch, tokens, patch): the samples, and `hidden` in the place of tokens that are masked."""

    def __init__(self, hidden: float = 0.0):
        super().__init__()
        self.config = TinyMyoConfig(num_channels=CHANNELS, patch_size=PATCH)
        self.hidden = hidden

    def forward(self, input_values, bool_masked_pos):
        patches = input_values.unflatten(-1, (-1, PATCH)).flatten(1, 2)
        return {"reconstruction": torch.where(bool_masked_pos[..., None], self.hidden, patches)}


def hiding_graph() -> onnx.ModelProto:
    """The graph of `HidingForPreTraining()`, for any number of channels."""
    weights = [
        numpy_helper.from_array(np.array([0, -1, PATCH]), "shape"),
        numpy_helper.from_array(np.array([2]), "axes"),
        numpy_helper.from_array(np.float32(0), "hidden"),
    ]
    nodes = [
        helper.make_node("Reshape", ["input_values", "shape"], ["patches"]),
        helper.make_node("Unsqueeze", ["bool_masked_pos", "axes"], ["mask"]),
        helper.make_node("Where", ["mask", "hidden", "patches"], ["reconstruction"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["batch", "channels", "time"]),
        helper.make_tensor_value_info("bool_masked_pos", TensorProto.BOOL, ["batch", "tokens"]),
    ]
    outputs = [helper.make_tensor_value_info("reconstruction", TensorProto.FLOAT, ["batch", "tokens", PATCH])]
    graph = helper.make_graph(nodes, "hiding", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
