"""From an ONNX graph in float32 to one in float16, for half the size and for machines that compute in it.

onnxruntime's converter rounds what passes between two nodes that stay in float32, and casts a tensor twice that two of
them read; hence this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from export.extras import need
from export.onnx_shapes import element_types, with_shapes

if TYPE_CHECKING:
    import onnx

# Take float32 only, or sum over so much that float16 does not do.
_FLOAT32_KINDS = {"Range", "Resize", "CumSum", "InstanceNormalization"}
_LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with weights and computations in float16; inputs and outputs stay float32.

    Angles of rotary positions stay float32 as well: they grow with the length of the window, and float16 has no digits
    for them.

    Args:
        model: in float32; it is not changed.

    Raises:
        ImportError: onnx is missing; the message names the extra.
    """
    need("onnx")
    half = with_shapes(model)
    _Conversion(half).run()
    return with_shapes(half)


class _Conversion:
    """Of a graph, in place. A tensor is in the precision of the node that makes it; casts stand between the two."""

    def __init__(self, model: onnx.ModelProto):
        from onnx import TensorProto

        self.float32, self.float16 = TensorProto.FLOAT, TensorProto.FLOAT16
        self.graph = model.graph
        types = element_types(model)
        self.floats = {name for name, kind in types.items() if kind == self.float32}
        self.full_nodes = _nodes_of_angles(self.graph.node) | {
            node.name for node in self.graph.node if node.op_type in _FLOAT32_KINDS
        }
        self.weights = {weight.name: weight for weight in self.graph.initializer}
        self.half_tensors: set[str] = set()
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for node in self.graph.node:
            self._convert(node, self.float32 if node.name in self.full_nodes else self.float16)
        self._cast_outputs()
        used = {name for node in self.nodes for name in node.input}
        weights = [weight for weight in self.weights.values() if weight.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(weights)

    def _convert(self, node: onnx.NodeProto, precision: int) -> None:
        for i, name in enumerate(node.input):
            # What is cast to a type of its own takes any.
            if name in self.floats and node.op_type != "Cast":
                node.input[i] = self._in_precision(name, precision)
        if precision == self.float16:
            self._convert_attributes(node)
            self.half_tensors.update(name for name in node.output if name in self.floats)
        self.nodes.append(node)

    def _in_precision(self, name: str, precision: int) -> str:
        """Name of a float tensor in a precision, which a weight or a cast is added for where there is none."""
        if name in self.weights:
            return self._half_weight(name) if precision == self.float16 else name
        if (name in self.half_tensors) == (precision == self.float16):
            return name
        if (name, precision) not in self.casts:
            self.casts[name, precision] = self._add_cast(name, _suffixed(name, precision == self.float16), precision)
        return self.casts[name, precision]

    def _half_weight(self, name: str) -> str:
        from onnx import numpy_helper

        renamed = _suffixed(name, True)
        if renamed not in self.weights:
            values = numpy_helper.to_array(self.weights[name])
            self.weights[renamed] = numpy_helper.from_array(_half(values), renamed)
        return renamed

    def _add_cast(self, name: str, result: str, precision: int) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node("Cast", [name], [result], name=f"Cast_{result}", to=precision))
        return result

    def _convert_attributes(self, node: onnx.NodeProto) -> None:
        from onnx import numpy_helper

        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == self.float32:
                attribute.i = self.float16
            elif attribute.HasField("t") and attribute.t.data_type == self.float32:
                attribute.t.CopyFrom(numpy_helper.from_array(_half(numpy_helper.to_array(attribute.t))))

    def _cast_outputs(self) -> None:
        """Outputs keep their names; what made them gets another one."""
        for output in self.graph.output:
            if output.name not in self.half_tensors:
                continue
            renamed = _suffixed(output.name, True)
            for node in self.nodes:
                node.input[:] = [renamed if name == output.name else name for name in node.input]
                node.output[:] = [renamed if name == output.name else name for name in node.output]
            self._add_cast(renamed, output.name, self.float32)


def _suffixed(name: str, half: bool) -> str:
    return f"{name}.float{16 if half else 32}"


def _half(values: np.ndarray) -> np.ndarray:
    """Infinite only where it was."""
    finite = np.clip(values, -_LARGEST, _LARGEST)
    return np.where(np.isinf(values), values, finite).astype(np.float16)


def _nodes_of_angles(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Cosines and sines, and all they are computed from."""
    nodes = list(nodes)
    makers = {output: node for node in nodes for output in node.output}
    found: set[str] = set()
    unseen = [node for node in nodes if node.op_type in ("Cos", "Sin")]
    while unseen:
        node = unseen.pop()
        if node.name not in found:
            found.add(node.name)
            unseen += [makers[name] for name in node.input if name in makers]
    return found
