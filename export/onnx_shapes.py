"""Types and shapes of the tensors of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the shapes of all tensors inferred anew.

    onnxruntime infers less when it loads a graph, and without shapes leaves a part of it unfused: quantized ones then
    take up to a quarter longer.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """`TensorProto` type of each tensor of a graph with shapes."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in model.graph.initializer}
