"""What a TinyMyo computes, as a short list of nodes between named tensors.

A tensor has the name of the node that makes it, but for the first, "input_values" (channels, samples), and the last,
"logits". Nodes have the names of the PyTorch model's modules, without the leading "tinymyo.". Shapes are those of one
window; tokens are channel-major, token = channel * patches + patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

INPUT, OUTPUT = "input_values", "logits"
Activation = Literal["gelu", "silu"]


@dataclass(frozen=True, eq=False)
class Node:
    """Attributes:
    name: of the module that it stands for.
    inputs: names of the tensors it reads.
    output: name of the tensor it makes.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, eq=False)
class PatchEmbedding(Node):
    """(channels, samples) -> (tokens, d): one linear map of every patch. `weight` (d, patch), `bias` (d,)."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerNorm(Node):
    """(tokens, d) -> (tokens, d), over the last axis. `weight` and `bias` (d,)."""

    weight: np.ndarray
    bias: np.ndarray
    eps: float


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """(rows, in) -> (rows, out): `weight` (out, in), `bias` (out,), then the activation (GELU is the exact one) or a
    second input (rows, out) that is added, never both."""

    weight: np.ndarray
    bias: np.ndarray
    activation: Activation | None = None

    @property
    def residual(self) -> str | None:
        """Name of the tensor that is added."""
        return self.inputs[1] if len(self.inputs) > 1 else None


@dataclass(frozen=True, eq=False)
class Rotate(Node):
    """Rotary positions of queries and keys: (tokens, heads * size) -> the same, every head rotated alike.

    Within a head the pairs are (0, size / 2), (1, size / 2 + 1), ...: the linear map before it has its rows ordered so.

    Attributes:
        heads: of the queries and of the keys together.
        cos, sin: (tokens, size / 2), the angle of token and pair.
    """

    heads: int
    cos: np.ndarray
    sin: np.ndarray


@dataclass(frozen=True, eq=False)
class Attention(Node):
    """Queries beside keys (tokens, 2 * d), and values (tokens, d) -> (tokens, d).

    Of each, head h has the columns h * size to (h + 1) * size - 1, with size = d / heads. The output of a head is
    softmax(scaling * queries @ keys.T) @ values.
    """

    heads: int
    scaling: float


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """The mean over the middle axis of its input seen as (outer, count, inner): of the tokens of each channel, of all
    tokens, or of the channels."""

    outer: int
    count: int
    inner: int


@dataclass(frozen=True, eq=False)
class Fuse(Node):
    """(channels * patches, d) -> (patches, channels * d): the tokens of all channels side by side."""

    channels: int


@dataclass(frozen=True, eq=False)
class DepthwiseConv(Node):
    """(patches, width) -> (patches, width): over the patch before, itself and the patch after, each column by itself,
    with zeros beyond the ends. `weight` (width, 3), `bias` (width,)."""

    weight: np.ndarray
    bias: np.ndarray
    activation: Activation | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A model for windows of one size.

    Attributes:
        nodes: in the order in which they run.
        shapes: of all tensors.
        target_length: frames that the (patches, outputs) of a regression are interpolated to; None of a classifier.
    """

    nodes: tuple[Node, ...]
    shapes: Mapping[str, tuple[int, ...]]
    target_length: int | None = None

    def last_uses(self) -> dict[str, int]:
        """Tensor -> index of the last node that reads it; "logits" is read after all."""
        uses = {name: index for index, node in enumerate(self.nodes) for name in node.inputs}
        return uses | {OUTPUT: len(self.nodes)}


def preactivation(node: Linear | DepthwiseConv) -> str:
    """Name under which what goes into a node's activation is observed; the graph has no such tensor."""
    return f"{node.name}.preactivation"


def count_macs(graph: Graph) -> dict[str, int]:
    """Multiply-accumulate operations for one window, by the names of the nodes that have any, in their order.

    As `tinymyo_hf.count_macs` counts them: matrix products, convolutions, and both products of attention.
    """
    counts = {node.name: _macs_of(node, graph.shapes) for node in graph.nodes}
    return {name: count for name, count in counts.items() if count}


def _macs_of(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    rows, width = shapes[node.output]
    if isinstance(node, PatchEmbedding | Linear | DepthwiseConv):
        return rows * width * node.weight.shape[1]
    if isinstance(node, Attention):
        return 2 * rows * rows * width
    return 0
