"""What integer programs promise: that no step leaves the widths of docs/gap9-arithmetic.md, whatever the window is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from export.errors import ExportError
from export.int8.fixed_point import GAIN_LIMIT, INT32_LIMIT, NORM_SHIFT_LIMIT, OFFSET_LIMIT, VARIANCE_LIMIT
from export.int8.program import (
    FEATURE_LIMIT,
    INT8_LIMIT,
    TABLE_SIZE,
    Attention,
    DepthwiseConv,
    Head,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Pool,
    Program,
    Requant,
    Step,
)

WIDTH_LIMIT = 1024
"""Largest hidden size of a layer norm."""
_LARGEST = {"int8": 128, "int16": 32768}


def check_bounds(program: Program) -> None:
    """
    Raises:
        ExportError: a constant of a step is out of range, or a window exists for which a sum exceeds its width; the
            message names the step.
    """
    if program.samples % program.patch_size:
        raise ExportError(f"{program.samples} samples are no whole number of patches of {program.patch_size}.")
    for step in program.steps:
        try:
            _CHECKS[type(step)](step, program)
        except ExportError as error:
            raise ExportError(f"{step.name}: {error}") from error


def _patch_embedding(step: PatchEmbedding, program: Program) -> None:
    _check_requant(step.requant)
    _check_products(step.weight, step.bias, _LARGEST["int16"])


def _layer_norm(step: LayerNorm, program: Program) -> None:
    width = len(step.weight)
    _need(width <= WIDTH_LIMIT, f"{width} features are more than {WIDTH_LIMIT}, which the 32 bits of a row allow")
    _need(_largest(step.weight) <= GAIN_LIMIT, f"its weight exceeds {GAIN_LIMIT}")
    _need(_largest(step.bias) <= OFFSET_LIMIT, f"its bias exceeds {OFFSET_LIMIT}")
    _need(1 <= step.shift <= NORM_SHIFT_LIMIT, f"its shift {step.shift} is not within 1 .. {NORM_SHIFT_LIMIT}")
    variance = (width * _LARGEST["int16"]) ** 2
    _need(1 <= step.epsilon < VARIANCE_LIMIT - variance, f"its epsilon {step.epsilon} is less than 1 or too large")


def _linear(step: Linear, program: Program) -> None:
    _check_requant(step.requant)
    _check_products(step.weight, step.bias, _LARGEST["int8"])
    if step.table is not None:
        _check_table(step.table, np.int8, INT8_LIMIT + 1)


def _attention(step: Attention, program: Program) -> None:
    _check_requant(step.scores)
    _, head_size, tokens = program.tensors[step.values].shape
    _need(head_size * 128 * 128 < INT32_LIMIT, f"heads of {head_size} exceed the 32 bits of a score")
    _need(tokens * 255 * 128 < INT32_LIMIT, f"{tokens} tokens exceed the 32 bits of a weighted sum of values")
    _need(2**31 <= step.reciprocal < 2**32, f"R = {step.reciprocal} is not within 2**31 .. 2**32 - 1")
    _need(1 <= step.shift <= 62, f"its shift {step.shift} is not within 1 .. 62")


def _pool(step: Pool, program: Program) -> None:
    _check_requant(step.requant)
    _need(
        step.limit in (FEATURE_LIMIT, INT8_LIMIT), f"its limit {step.limit} is neither {FEATURE_LIMIT} nor {INT8_LIMIT}"
    )
    _need(step.count * 128 < INT32_LIMIT, f"the sum of {step.count} values exceeds 32 bits")
    for name, size in ((step.input, step.outer * step.count * step.inner), (step.output, step.outer * step.inner)):
        _need(math.prod(program.tensors[name].shape) == size, f"{name} does not have {size} elements, as the step says")


def _depthwise(step: DepthwiseConv, program: Program) -> None:
    _check_requant(step.requant)
    _check_products(step.weight, step.bias, _LARGEST["int8"])
    _check_table(step.table, np.int16, FEATURE_LIMIT)
    _need(-128 <= step.padding <= 127, f"its padding {step.padding} is no int8")


def _head(step: Head, program: Program) -> None:
    _check_products(step.weight, step.bias, FEATURE_LIMIT)


_CHECKS: dict[type[Step], Callable[..., None]] = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Attention: _attention,
    Pool: _pool,
    DepthwiseConv: _depthwise,
    Head: _head,
}


def _check_requant(ratio: Requant) -> None:
    multiplier, shift = np.asarray(ratio.multiplier, np.int64), np.asarray(ratio.shift)
    normal = (multiplier >= 2**30) & (multiplier < 2**31) | (multiplier == 0)
    _need(normal.all(), "a multiplier is not within 2**30 .. 2**31 - 1")
    _need(((shift >= 1) & (shift <= 62)).all(), "a shift is not within 1 .. 62")


def _check_products(weight: np.ndarray, bias: np.ndarray, largest: int) -> None:
    """Every partial sum, whatever the order, is within 32 bits for inputs up to `largest`."""
    _need(weight.dtype == np.int8 and _largest(weight) <= INT8_LIMIT, "its weights are not int8 in -127 .. 127")
    sums = np.abs(weight.astype(np.int64)).sum(axis=1) * largest + np.abs(bias.astype(np.int64))
    _need((sums < INT32_LIMIT).all(), "its weights and bias can exceed the 32 bits of a sum")


def _check_table(table: np.ndarray, dtype: type, largest: int) -> None:
    _need(table.shape == (TABLE_SIZE,) and table.dtype == dtype, f"its table is not {np.dtype(dtype)} ({TABLE_SIZE},)")
    _need(_largest(table) <= largest, f"its table exceeds {largest}")


def _largest(values: np.ndarray) -> int:
    return int(np.abs(values.astype(np.int64)).max(initial=0))


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ExportError(f"{otherwise}.")
