"""The integer program: what is left of a model once it is quantized, and all that the C code is made from.

`export.int8.quantize` makes it, `export.int8.reference` runs it in NumPy, `export.gap9` turns it into C. The arithmetic
of every step is docs/gap9-arithmetic.md. Steps run in order; each writes one tensor, which is called like the step.
Only the residual stream, "hidden_states", is made by one step ("patch_embedding") and changed in place by others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

TABLE_SIZE = 1024
"""Entries of an activation table; its argument has 10 bits."""
FEATURE_LIMIT = 2047
"""Largest magnitude of the features before the head."""
INT8_LIMIT = 127
SCORE_STEPS = 256
"""Steps per octave of the attention scores."""

Layout = Literal["rows", "heads", "transposed"]


@dataclass(frozen=True, eq=False)
class Requant:
    """A ratio of scales in fixed point, `multiplier / 2**shift`, per output or for all (shape ()).

    Attributes:
        multiplier: int32, 2**30 to 2**31 - 1, or 0.
        shift: int32, 1 to 62.
    """

    multiplier: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False)
class Tensor:
    """What the integers of a step's output mean.

    Attributes:
        shape: logical shape; of values (heads, head_size, tokens), without the padding of rows in memory.
        dtype: "int8", "int16" or "int32".
        scale: real value of one step; of logits per output, float32 (outputs,).
        zero_point: integer that stands for 0.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: float | np.ndarray
    zero_point: int = 0


@dataclass(frozen=True, eq=False)
class Step:
    """
    Attributes:
        name: of the module it comes from, unique ("layers.0.mlp.fc1").
        input, output: names of tensors in `Program.tensors` ("input_values" is the window).
    """

    name: str
    input: str
    output: str


@dataclass(frozen=True, eq=False)
class PatchEmbedding(Step):
    """int16 window (channels, samples) -> int16 (tokens, hidden).

    Attributes:
        weight: int8 (hidden, patch_size); bias: int32 (hidden,).
    """

    weight: np.ndarray
    bias: np.ndarray
    requant: Requant


@dataclass(frozen=True, eq=False)
class LayerNorm(Step):
    """int16 (tokens, hidden) -> int8 (tokens, hidden), or (patches, channels * hidden) where `channels` > 1.

    Attributes:
        weight: int16 (hidden,), g; bias: int32 (hidden,), b; shift: n; epsilon: in units of V.
        channels: rows (channel, patch) of the input become (patch, channel) blocks of the output; 1 keeps the order.
    """

    weight: np.ndarray
    bias: np.ndarray
    shift: int
    epsilon: int
    channels: int = 1


@dataclass(frozen=True, eq=False)
class Rotation:
    """
    Attributes:
        cos, sin: int16 (tokens, head_size / 2).
    """

    cos: np.ndarray
    sin: np.ndarray


@dataclass(frozen=True, eq=False)
class Linear(Step):
    """int8 (rows, depth) -> int8 (rows, outputs), or added to an int16 residual stream.

    Attributes:
        weight: int8 (outputs, depth); bias: int32 (outputs,), with the zero point of the input folded in.
        table: int8 (1024,), the activation; None without.
        residual: whether `output` is the residual stream, which the result is added to.
        layout: of the output: "rows" (rows, outputs); "heads" (outputs / head_size, rows, head_size);
            "transposed" (outputs / head_size, head_size, rows).
        head_size: of the latter two, else 0.
        rotation: of rotary positions, applied to every head; None without.
    """

    weight: np.ndarray
    bias: np.ndarray
    requant: Requant
    table: np.ndarray | None = None
    residual: bool = False
    layout: Layout = "rows"
    head_size: int = 0
    rotation: Rotation | None = None


@dataclass(frozen=True, eq=False)
class Attention(Step):
    """Queries and keys int8 (2 * heads, tokens, head_size), values int8 (heads, head_size, tokens) -> int8
    (tokens, heads * head_size).

    Attributes:
        values: name of their tensor (`input` names queries and keys).
        scores: ratio of a product of query and key to a score.
        reciprocal: R, 2**31 to 2**32 - 1; shift: n'.
    """

    values: str
    scores: Requant
    reciprocal: int
    shift: int


@dataclass(frozen=True, eq=False)
class Pool(Step):
    """Mean over the middle axis of int8 (outer, count, inner) -> (outer, inner), in the shape of the output tensor.

    Attributes:
        limit: `FEATURE_LIMIT` makes int16, `INT8_LIMIT` int8.
    """

    outer: int
    count: int
    inner: int
    requant: Requant
    limit: int


@dataclass(frozen=True, eq=False)
class DepthwiseConv(Step):
    """int8 (rows, width) -> int16 (rows, width) within 12 bits; kernel 3 over the rows.

    Attributes:
        weight: int8 (width, 3); bias: int32 (width,), with the zero point of the input folded in.
        table: int16 (1024,), the activation.
        padding: zero point of the input, which lies beyond the ends.
    """

    weight: np.ndarray
    bias: np.ndarray
    requant: Requant
    table: np.ndarray
    padding: int


@dataclass(frozen=True, eq=False)
class Head(Step):
    """int16 (rows, depth) within 12 bits -> int32 logits (rows, outputs).

    Attributes:
        weight: int8 (outputs, depth); bias: int32 (outputs,).
    """

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Program:
    """
    Attributes:
        channels, samples, patch_size: of the window.
        hidden_size, num_heads: of the encoder.
        steps: in order.
        tensors: by name, "input_values" included; the last step's output is "logits".
        target_length: frames that the rows of a regression are interpolated to; None of a classification.
        labels: names of the classes or outputs.
    """

    channels: int
    samples: int
    patch_size: int
    hidden_size: int
    num_heads: int
    steps: tuple[Step, ...]
    tensors: dict[str, Tensor]
    target_length: int | None = None
    labels: tuple[str, ...] = field(default=())

    @property
    def patches(self) -> int:
        return self.samples // self.patch_size

    @property
    def tokens(self) -> int:
        return self.channels * self.patches

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads
