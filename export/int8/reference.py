"""The golden model: runs an integer program in NumPy, as docs/gap9-arithmetic.md says, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from export.errors import ExportError
from export.int8.bounds import check_bounds
from export.int8.fixed_point import (
    clamp,
    clamp8,
    clamp16,
    exponentials,
    matmul,
    reciprocal_root,
    requant,
    shift_rounding,
    table_index,
)
from export.int8.program import (
    FEATURE_LIMIT,
    Attention,
    DepthwiseConv,
    Head,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Pool,
    Program,
    Rotation,
    Step,
)

GROUP = 16
"""Windows that go through the steps together, which bounds memory."""
Values = dict[str, np.ndarray]


def run(program: Program, window: np.ndarray, observe: Callable[[str, np.ndarray], None] | None = None) -> np.ndarray:
    """Logits of a window as integers, int32 (rows, outputs); of windows, (windows, rows, outputs).

    Args:
        window: int16 (channels, samples), or (windows, channels, samples).
        observe: called with the name and output of every step right after it ran, in the shape of `program.tensors`;
            of many windows, group after group (of at most `GROUP`), with their axis in front.

    Raises:
        ExportError: the window is not as the program says, or a step breaks a bound of the arithmetic (it is named).
    """
    window = np.asarray(window)
    expected = (program.channels, program.samples)
    if window.dtype != np.int16 or window.shape[-2:] != expected or window.ndim not in (2, 3):
        raise ExportError(
            f"the window is {window.dtype} {window.shape}: give int16 {expected}, made by quantize_window."
        )
    check_bounds(program)
    if window.ndim == 2:
        see = observe and (lambda name, values: observe(name, values[0]))
        return _run_group(program, window[None], see)[0]
    groups = [_run_group(program, window[i : i + GROUP], observe) for i in range(0, len(window), GROUP)]
    return np.concatenate(groups) if groups else np.zeros((0, *program.tensors["logits"].shape), np.int32)


def logits(program: Program, integers: np.ndarray) -> np.ndarray:
    """float32 logits from what `run` returns, (..., rows, outputs).

    Returns:
        (..., labels) of a classification; (..., target_length, outputs) of a regression, rows interpolated linearly
        (as torch does with `align_corners=False`).
    """
    scale = np.asarray(program.tensors["logits"].scale, np.float32)
    values = integers.astype(np.float32) * scale
    return values[..., 0, :] if program.target_length is None else _interpolate(values, program.target_length)


def _run_group(program: Program, windows: np.ndarray, observe: Callable[[str, np.ndarray], None] | None) -> np.ndarray:
    values: Values = {"input_values": windows}
    for step in program.steps:
        try:
            result = _RUN[type(step)](step, values)
        except ExportError as error:
            raise ExportError(f"{step.name}: {error}") from error
        tensor = program.tensors[step.output]
        if isinstance(step, Pool):
            result = result.reshape(-1, *tensor.shape)
        if result.shape[1:] != tuple(tensor.shape) or result.dtype != tensor.dtype:
            raise ExportError(
                f"{step.name}: made {result.dtype} {result.shape[1:]}, but its tensor {step.output} is declared as "
                f"{tensor.dtype} {tuple(tensor.shape)}."
            )
        values[step.output] = result
        if observe is not None:
            observe(step.name, result)
    return values["logits"]


# One function per class of steps; arrays have the windows of a group as first axis.


def _patch_embedding(step: PatchEmbedding, values: Values) -> np.ndarray:
    windows = values[step.input]
    patches = windows.reshape(len(windows), -1, step.weight.shape[1])  # row = channel * patches + patch
    return clamp16(requant(matmul(patches, step.weight.T) + step.bias, step.requant))


def _layer_norm(step: LayerNorm, values: Values) -> np.ndarray:
    x = values[step.input].astype(np.int64)
    width = x.shape[-1]
    total = x.sum(axis=-1, keepdims=True)
    variance = width * (x * x).sum(axis=-1, keepdims=True) - total * total + step.epsilon
    reciprocal, shift = reciprocal_root(variance)
    normal = shift_rounding((width * x - total) * reciprocal, shift)
    y = clamp8(shift_rounding(normal * step.weight + step.bias, step.shift))
    if step.channels == 1:
        return y
    y = y.reshape(len(y), step.channels, -1, width).transpose(0, 2, 1, 3)
    return y.reshape(len(y), -1, step.channels * width)


def _linear(step: Linear, values: Values) -> np.ndarray:
    scaled = requant(matmul(values[step.input], step.weight.T) + step.bias, step.requant)
    if step.residual:
        return clamp16(values[step.output] + scaled)
    y = clamp8(scaled) if step.table is None else step.table[table_index(scaled)]
    if step.layout == "rows":
        return y
    y = y.reshape(*y.shape[:2], -1, step.head_size)  # (windows, rows, heads, head_size)
    if step.layout == "transposed":
        return np.ascontiguousarray(y.transpose(0, 2, 3, 1))
    y = np.ascontiguousarray(y.transpose(0, 2, 1, 3))
    return y if step.rotation is None else _rotate(y, step.rotation)


def _rotate(x: np.ndarray, rotation: Rotation) -> np.ndarray:
    """(..., tokens, head_size), pairs (j, j + head_size / 2)."""
    first, second = np.split(x.astype(np.int64), 2, axis=-1)
    cos, sin = rotation.cos, rotation.sin
    turned = np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return clamp8(shift_rounding(turned, 15))


def _attention(step: Attention, values: Values) -> np.ndarray:
    query, key = np.split(values[step.input], 2, axis=1)  # each (windows, heads, tokens, head_size)
    value = values[step.values]  # (windows, heads, head_size, tokens)
    output = np.empty(query.shape, np.int8)
    for where in np.ndindex(query.shape[:2]):
        scores = clamp16(requant(matmul(query[where], key[where].T), step.scores))
        weights = attention_weights(scores)
        reciprocal = step.reciprocal // weights.sum(axis=-1, keepdims=True, dtype=np.int64)
        output[where] = clamp8(shift_rounding(matmul(weights, value[where].T) * reciprocal, step.shift))
    return output.transpose(0, 2, 1, 3).reshape(len(output), query.shape[2], -1)


def attention_weights(scores: np.ndarray) -> np.ndarray:
    """uint8 p, the largest of each row 255, of int16 scores (..., tokens)."""
    scores = scores.astype(np.int64)
    below = scores.max(axis=-1, keepdims=True) - scores
    # Entries of the table have 16 bits, of which a shift by 16 and more leaves nothing.
    exact = _exponentials()[below & 255] >> (below >> 8).clip(max=16)
    return np.diff((np.cumsum(exact, axis=-1) + 128) >> 8, axis=-1, prepend=0).astype(np.uint8)


@cache
def _exponentials() -> np.ndarray:
    return exponentials().astype(np.int64)


def _pool(step: Pool, values: Values) -> np.ndarray:
    x = values[step.input]
    total = x.reshape(len(x), step.outer, step.count, step.inner).sum(axis=2, dtype=np.int64)
    y = clamp(requant(total, step.requant), -step.limit, step.limit)
    return y.astype(np.int16 if step.limit == FEATURE_LIMIT else np.int8)  # (windows, outer, inner)


def _depthwise(step: DepthwiseConv, values: Values) -> np.ndarray:
    x = np.pad(values[step.input].astype(np.int64), ((0, 0), (1, 1), (0, 0)), constant_values=step.padding)
    rows = x.shape[1] - 2
    acc = sum(x[:, j : j + rows] * step.weight[:, j] for j in range(3)) + step.bias
    return step.table[table_index(requant(acc, step.requant))]


def _head(step: Head, values: Values) -> np.ndarray:
    return (matmul(values[step.input], step.weight.T) + step.bias).astype(np.int32)


_RUN: dict[type[Step], Callable[..., np.ndarray]] = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Attention: _attention,
    Pool: _pool,
    DepthwiseConv: _depthwise,
    Head: _head,
}


def _interpolate(rows: np.ndarray, length: int) -> np.ndarray:
    """(..., rows, outputs) -> (..., length, outputs)."""
    count = rows.shape[-2]
    source = np.maximum((np.arange(length) + 0.5) * count / length - 0.5, 0)
    low = np.minimum(source.astype(np.int64), count - 1)
    high = np.minimum(low + 1, count - 1)
    weight = (source - low).astype(np.float32)[:, None]
    return rows[..., low, :] * (1 - weight) + rows[..., high, :] * weight
