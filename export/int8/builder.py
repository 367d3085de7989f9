"""The integer program of a graph, once it is known which range each of its tensors covers.

    tensors = quantized_tensors(graph)            # which ranges are needed, and of which values
    program = build_program(graph, ranges)

The arithmetic is docs/gap9-arithmetic.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.int8 import program as integer
from export.int8.activations import Argument, argument_of, function_of
from export.int8.fixed_point import (
    INT32_LIMIT,
    activation_table,
    epsilon_of,
    gain_of,
    reciprocal_of,
    requant_of,
    rotation_tables,
)
from export.int8.nodes import (
    INPUT,
    OUTPUT,
    Attention,
    DepthwiseConv,
    Fuse,
    Graph,
    LayerNorm,
    Linear,
    Node,
    PatchEmbedding,
    Pool,
    Rotate,
    preactivation,
)
from export.int8.program import FEATURE_LIMIT, INT8_LIMIT, SCORE_STEPS, Program, Requant, Tensor
from export.int8.ranges import Range

RESIDUAL = "hidden_states"
_SMALLEST_RATIO = 2.0**-31
"""Of scales that a `Requant` holds."""

Kind = Literal["int8", "activation", "features", "int16"]
"""Of a tensor: int8 around 0, int8 with a zero point, int16 within 12 bits, int16."""
_LIMITS = {"int8": INT8_LIMIT, "features": FEATURE_LIMIT, "int16": 32767}


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor of the program.

    Attributes:
        sources: tensors of the graph whose values it has to hold.
        node: that makes it, or the first of several.
    """

    kind: Kind
    sources: tuple[str, ...]
    node: Node | None


def quantized_tensors(graph: Graph) -> dict[str, QuantizedTensor]:
    """All tensors of a graph's program but the logits, by the names that they have there."""
    consumers = _consumers(graph)
    tensors = {INPUT: QuantizedTensor("int16", (INPUT,), None)}
    for node in graph.nodes:
        if node.output == OUTPUT or isinstance(node, Rotate | Fuse):
            continue
        if isinstance(node, PatchEmbedding) or isinstance(node, Linear) and node.residual:
            found = tensors.get(RESIDUAL, QuantizedTensor("int16", (), node))
            tensors[RESIDUAL] = QuantizedTensor("int16", (*found.sources, node.output), found.node)
            continue
        rotated = [after.output for after in consumers[node.output] if isinstance(after, Rotate)]
        kind: Kind = "int8"
        if isinstance(node, DepthwiseConv) or any(after.output == OUTPUT for after in consumers[node.output]):
            kind = "features"
        elif isinstance(node, Linear) and node.activation:
            kind = "activation"
        tensors[node.output] = QuantizedTensor(kind, (node.output, *rotated), node)
    return tensors


def build_program(graph: Graph, ranges: Mapping[str, Range], labels: Sequence[str] = ()) -> Program:
    """
    Args:
        ranges: of every tensor of `quantized_tensors`, each with a limit above 0; and of what goes into activations, by
            the name of `preactivation`.
        labels: of the classes or outputs.

    Raises:
        ExportError: ranges so far apart that no constants of the arithmetic stand for their ratio.
    """
    return _Builder(graph, ranges).build(labels)


def outline(graph: Graph) -> Program:
    """A program with the steps and shapes of the graph's, to plan with before ranges are known; its constants mean
    nothing."""
    everywhere = Range(-1.0, 1.0)
    return build_program(graph, dict.fromkeys((*graph.shapes, *map(preactivation, graph.nodes), RESIDUAL), everywhere))


def _consumers(graph: Graph) -> dict[str, list[Node]]:
    """Tensor -> nodes that read it."""
    consumers: dict[str, list[Node]] = {name: [] for name in graph.shapes}
    for node in graph.nodes:
        for name in node.inputs:
            consumers[name].append(node)
    return consumers


class _Builder:
    """Appends steps in the order of the nodes."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range]):
        self.graph, self.ranges = graph, ranges
        self.consumers = _consumers(graph)
        self.kinds = quantized_tensors(graph)
        self.tensors = {name: self._tensor(name, entry.kind, ranges[name]) for name, entry in self.kinds.items()}
        self.names = {source: name for name, entry in self.kinds.items() for source in entry.sources}
        self.names |= {node.output: self.names[node.inputs[0]] for node in graph.nodes if isinstance(node, Fuse)}
        self.steps: list[integer.Step] = []

    def build(self, labels: Sequence[str]) -> Program:
        makers = {
            PatchEmbedding: self._patch_embedding,
            LayerNorm: self._layer_norm,
            Attention: self._attention,
            Pool: self._pool,
            DepthwiseConv: self._depthwise,
        }
        for node in self.graph.nodes:
            if isinstance(node, Linear):
                self.steps.append(self._head(node) if node.output == OUTPUT else self._linear(node))
            elif type(node) in makers:
                self.steps.append(makers[type(node)](node))
        channels, samples = self.graph.shapes[INPUT]
        embedding = self.graph.nodes[0]
        return Program(
            channels=channels,
            samples=samples,
            patch_size=embedding.weight.shape[1],
            hidden_size=embedding.weight.shape[0],
            num_heads=next(node.heads for node in self.graph.nodes if isinstance(node, Attention)),
            steps=tuple(self.steps),
            tensors=self.tensors,
            target_length=self.graph.target_length,
            labels=tuple(labels),
        )

    # --- tensors

    def _tensor(self, name: str, kind: Kind, covered: Range) -> Tensor:
        dtype = "int8" if kind in ("int8", "activation") else "int16"
        shape = self._shape(name, self.kinds[name].node)
        if kind != "activation":
            return Tensor(shape, dtype, covered.limit / _LIMITS[kind])
        scale = (covered.high - covered.low) / 255
        return Tensor(shape, dtype, scale, zero_point=int(np.rint(-128 - covered.low / scale)))

    def _shape(self, name: str, node: Node | None) -> tuple[int, ...]:
        if node is None or name == RESIDUAL:
            return self.graph.shapes[node.output if node else name]
        for after in self.consumers[name]:
            if isinstance(after, Fuse):
                return self.graph.shapes[after.output]
        layout, heads = self._layout(node)
        tokens, width = self.graph.shapes[node.output]
        return {
            "rows": (tokens, width),
            "heads": (2 * heads, tokens, width // (2 * heads or 1)),
            "transposed": (heads, width // (heads or 1), tokens),
        }[layout]

    def _layout(self, node: Node) -> tuple[integer.Layout, int]:
        """Of what a node makes, and the heads of the attention that reads it."""
        for after in self.consumers[node.output]:
            attention = self.consumers[after.output][0] if isinstance(after, Rotate) else after
            if isinstance(attention, Attention):
                return ("transposed" if node.output == attention.inputs[1] else "heads"), attention.heads
        return "rows", 0

    def _input(self, node: Node) -> Tensor:
        return self.tensors[self.names[node.inputs[0]]]

    def _where(self, node: Node) -> dict[str, str]:
        """The fields of every step."""
        output = OUTPUT if node.output == OUTPUT else self.names[node.output]
        return {"name": node.name, "input": self.names[node.inputs[0]], "output": output}

    # --- steps

    def _patch_embedding(self, node: PatchEmbedding) -> integer.PatchEmbedding:
        scale = self.tensors[RESIDUAL].scale
        weight, bias, ratio = _scaled(node.weight, node.bias, self._input(node), scale)
        return integer.PatchEmbedding(**self._where(node), weight=weight, bias=bias, requant=ratio)

    def _layer_norm(self, node: LayerNorm) -> integer.LayerNorm:
        where = self._where(node)
        weight, bias, shift = gain_of(node.weight, node.bias, self.tensors[where["output"]].scale)
        epsilon = epsilon_of(node.eps, len(node.weight), self._input(node).scale)
        fuse = next((after for after in self.consumers[node.output] if isinstance(after, Fuse)), None)
        channels = fuse.channels if fuse else 1
        return integer.LayerNorm(**where, weight=weight, bias=bias, shift=shift, epsilon=epsilon, channels=channels)

    def _linear(self, node: Linear) -> integer.Linear:
        where, states = self._where(node), self._input(node)
        output = self.tensors[where["output"]]
        scale, bias, table = output.scale, node.bias, None
        if node.activation:
            argument = self._argument(node, output)
            scale, bias = argument.step, bias - argument.middle
            table = _table(node, argument, output, -128, 127).astype(np.int8)
        weight, bias, ratio = _scaled(node.weight, bias, states, scale)
        layout, heads = self._layout(node)
        rotate = next((after for after in self.consumers[node.output] if isinstance(after, Rotate)), None)
        return integer.Linear(
            **where,
            weight=weight,
            bias=bias,
            requant=ratio,
            table=table,
            residual=node.residual is not None,
            layout=layout,
            head_size=self.tensors[RESIDUAL].shape[1] // heads if heads else 0,
            rotation=_rotation(rotate) if rotate else None,
        )

    def _attention(self, node: Attention) -> integer.Attention:
        query_key, values = (self.tensors[self.names[name]].scale for name in node.inputs)
        reciprocal, shift = reciprocal_of(values / self.tensors[node.output].scale)
        return integer.Attention(
            **self._where(node),
            values=self.names[node.inputs[1]],
            scores=requant_of(query_key**2 * node.scaling * np.log2(np.e) * SCORE_STEPS),
            reciprocal=reciprocal,
            shift=shift,
        )

    def _pool(self, node: Pool) -> integer.Pool:
        ratio = self._input(node).scale / (node.count * self.tensors[node.output].scale)
        return integer.Pool(
            **self._where(node),
            outer=node.outer,
            count=node.count,
            inner=node.inner,
            requant=requant_of(ratio),
            limit=_LIMITS[self.kinds[node.output].kind],
        )

    def _depthwise(self, node: DepthwiseConv) -> integer.DepthwiseConv:
        states, output = self._input(node), self.tensors[node.output]
        argument = self._argument(node, output)
        weight, bias, ratio = _scaled(node.weight, node.bias - argument.middle, states, argument.step)
        return integer.DepthwiseConv(
            **self._where(node),
            weight=weight,
            bias=bias,
            requant=ratio,
            table=_table(node, argument, output, -FEATURE_LIMIT, FEATURE_LIMIT).astype(np.int16),
            padding=states.zero_point,
        )

    def _head(self, node: Linear) -> integer.Head:
        states = self._input(node)
        weight, bias, scales = _quantized(node.weight, node.bias, states, largest=FEATURE_LIMIT)
        scales = (states.scale * scales).astype(np.float32)
        self.tensors[OUTPUT] = Tensor(self.graph.shapes[OUTPUT], "int32", scales)
        return integer.Head(**self._where(node), weight=weight, bias=bias)

    def _argument(self, node: Linear | DepthwiseConv, output: Tensor) -> Argument:
        low, high = (-128, 127) if output.dtype == "int8" else (-FEATURE_LIMIT, FEATURE_LIMIT)
        reach = Range(*(output.scale * (end - output.zero_point) for end in (low, high)))
        return argument_of(node.activation, self.ranges[preactivation(node)], reach, output.scale)


def _table(node: Linear | DepthwiseConv, argument: Argument, output: Tensor, low: int, high: int) -> np.ndarray:
    function = function_of(node.activation)
    return activation_table(
        lambda values: function(values + argument.middle), argument.step, output.scale, output.zero_point, low, high
    )


def _rotation(node: Rotate) -> integer.Rotation:
    return integer.Rotation(*rotation_tables(np.arctan2(node.sin, node.cos, dtype=np.float64)))


def _scaled(
    weight: np.ndarray, bias: np.ndarray, states: Tensor, scale: float
) -> tuple[np.ndarray, np.ndarray, Requant]:
    """int8 weights, int32 bias and ratio of a linear map to an output of `scale`."""
    largest = {"int8": 128, "int16": 32768}[states.dtype]
    least = _SMALLEST_RATIO * scale / states.scale
    weight, bias, scales = _quantized(weight, bias, states, largest, least)
    return weight, bias, requant_of(states.scale * scales / scale)


def _quantized(
    weight: np.ndarray, bias: np.ndarray, states: Tensor, largest: int, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 weights (outputs, depth), int32 bias with the zero point of the input folded in, and the scale of each row:
    that of its largest weight, but at least `least`, and so large that no sum exceeds 32 bits.

    Args:
        largest: magnitude of the input.
    """
    weight, bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    magnitudes = np.abs(weight)
    reach = largest + abs(states.zero_point)
    # Rounded weights exceed the real ones by half a step at most, and the bias by one.
    room = INT32_LIMIT - 2 - reach * weight.shape[1] / 2
    fitting = (np.abs(bias) / states.scale + reach * magnitudes.sum(axis=1)) / room
    scales = np.maximum(np.maximum(magnitudes.max(axis=1) / INT8_LIMIT, fitting), least)
    scales = np.where(scales > 0, scales, 1.0)
    rounded = np.clip(np.rint(weight / scales[:, None]), -INT8_LIMIT, INT8_LIMIT)
    bias = np.rint(bias / (states.scale * scales)) - states.zero_point * rounded.sum(axis=1)
    return rounded.astype(np.int8), bias.astype(np.int32), scales
