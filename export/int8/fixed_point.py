"""The arithmetic of docs/gap9-arithmetic.md on NumPy arrays, exact, and how real numbers become its constants.

Functions take integer arrays of any shape and width and compute in int64, which holds every intermediate by the bounds
of the page.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from export.errors import ExportError
from export.int8.program import TABLE_SIZE, Requant

INT32_LIMIT = 2**31
VARIANCE_LIMIT = 2**51
"""V of a layer norm is below."""
NORM_STEPS = 4096
"""Steps of one standard deviation behind the first half of a layer norm."""
GAIN_LIMIT = 8191
OFFSET_LIMIT = 2**29
NORM_SHIFT_LIMIT = 30
_FLOAT32_LIMIT, _FLOAT64_LIMIT = 2**24, 2**53


def clamp(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """`values` saturated to low..high."""
    return np.clip(values, low, high)


def clamp8(values: np.ndarray) -> np.ndarray:
    """`values` saturated to -128..127, as int8."""
    return np.clip(values, -128, 127).astype(np.int8)


def clamp16(values: np.ndarray) -> np.ndarray:
    """`values` saturated to -32768..32767, as int16."""
    return np.clip(values, -32768, 32767).astype(np.int16)


def shift_rounding(values: np.ndarray, shift: int | np.ndarray) -> np.ndarray:
    """int64 `values / 2**shift`, rounded to nearest and halves up; shift 1..62."""
    shift = np.asarray(shift, np.int64)
    return (values + (np.int64(1) << (shift - 1))) >> shift


def requant(acc: np.ndarray, ratio: Requant) -> np.ndarray:
    """int64 (..., outputs): `acc` (..., outputs) times `ratio`, of each output or of all, rounded to nearest.

    Raises:
        ExportError: a sum does not fit 32 bits.
    """
    acc = np.asarray(acc, np.int64)
    if acc.size and (acc.min() < -INT32_LIMIT or acc.max() >= INT32_LIMIT):
        raise ExportError("a sum does not fit 32 bits: its inputs, weights or bias are too large.")
    return shift_rounding(acc * np.asarray(ratio.multiplier, np.int64), ratio.shift)


def requant_of(ratio: float | np.ndarray) -> Requant:
    """The fixed-point number nearest to `ratio` (a scalar, or one per output); 0 stays 0.

    Raises:
        ExportError: a ratio is negative, not finite, or not within about 2**-32 .. 2**30.
    """
    ratio = np.asarray(ratio, np.float64)
    if not np.isfinite(ratio).all() or (ratio < 0).any():
        raise ExportError(f"{_offending(ratio, ~(np.isfinite(ratio) & (ratio >= 0)))} is no ratio of scales.")
    multiplier, exponent = _mantissa(ratio, bits=31)
    shift = np.where(ratio > 0, 31 - exponent, 1)
    outside = (shift < 1) | (shift > 62)
    if outside.any():
        raise ExportError(f"the ratio of scales {_offending(ratio, outside)} is not within 2**-32 .. 2**30.")
    return Requant(multiplier.astype(np.int32), shift.astype(np.int32))


def reciprocal_of(ratio: float) -> tuple[int, int]:
    """R and n' of attention, `R / 2**n'` being nearest to `ratio`, the scale of values over that of the output.

    Raises:
        ExportError: the ratio is not positive and finite, or not within about 2**-31 .. 2**31.
    """
    if not (np.isfinite(ratio) and ratio > 0):
        raise ExportError(f"{ratio} is no ratio of scales.")
    mantissa, exponent = _mantissa(np.asarray(ratio, np.float64), bits=32)
    shift = 32 - int(exponent)
    if not 1 <= shift <= 62:
        raise ExportError(f"the ratio of scales {ratio} is not within 2**-31 .. 2**31.")
    return int(mantissa), shift


def gain_of(weight: np.ndarray, bias: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, int]:
    """g int16, b int32 and n of a layer norm from its real weight and bias, and the scale of its int8 output; n is the
    largest (1..30) with which all fit.

    Raises:
        ExportError: they do not fit with any n: the scale is too small for them.
    """
    weight, bias = np.asarray(weight, np.float64) / (NORM_STEPS * scale), np.asarray(bias, np.float64) / scale
    for shift in range(NORM_SHIFT_LIMIT, 0, -1):
        gain, offset = np.rint(weight * 2.0**shift), np.rint(bias * 2.0**shift)
        if np.abs(gain).max() <= GAIN_LIMIT and np.abs(offset).max() <= OFFSET_LIMIT:
            return gain.astype(np.int16), offset.astype(np.int32), shift
    raise ExportError(f"the scale {scale} of the output is too small for its weight or bias, or they are not finite.")


def epsilon_of(epsilon: float, width: int, scale: float) -> int:
    """A layer norm's epsilon in units of V, at least 1, for `width` inputs of `scale`."""
    return max(1, round(epsilon * width * width / scale**2))


def activation_table(
    function: Callable[[np.ndarray], np.ndarray], step: float, scale: float, zero_point: int, low: int, high: int
) -> np.ndarray:
    """int64 (1024,), within low..high: `function` of `step * (-512 .. 511)`, in `scale` around `zero_point`."""
    argument = step * np.arange(-TABLE_SIZE // 2, TABLE_SIZE // 2)
    return clamp(np.rint(function(argument) / scale) + zero_point, low, high).astype(np.int64)


def table_index(values: np.ndarray) -> np.ndarray:
    """Where an activation table holds its result for `values`, which saturate to 10 bits."""
    return np.clip(values, -TABLE_SIZE // 2, TABLE_SIZE // 2 - 1) + TABLE_SIZE // 2


def rotation_tables(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of `angles` (tokens, head_size / 2) in 2**-15, int16."""
    return tuple(
        np.minimum(32767, np.rint(32768 * function(np.asarray(angles, np.float64)))).astype(np.int16)
        for function in (np.cos, np.sin)
    )


def exponentials() -> np.ndarray:
    """uint16 (256,), T of attention: 255 * 256 * 2**(-f / 256)."""
    return np.rint(255 * 256 * 2.0 ** (-np.arange(256) / 256)).astype(np.uint16)


def isqrt32(values: np.ndarray) -> np.ndarray:
    """int64, square roots of 0 .. 2**32 - 1 rounded down."""
    # Below 2**32 a root that is no integer is at least 2**-17 away from the next one, much more than doubles err.
    return np.sqrt(np.asarray(values, np.float64)).astype(np.int64)


def reciprocal_root(variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """r and k of a layer norm, int64: `r / 2**k` is about `4096 / sqrt(variance)`.

    Args:
        variance: V, 1 .. 2**51 - 1.

    Raises:
        ExportError: V is outside of that.
    """
    variance = np.asarray(variance, np.int64)
    if variance.size and not 1 <= variance.min() <= variance.max() < VARIANCE_LIMIT:
        raise ExportError("the variance of a row is not within 1 .. 2**51 - 1: check epsilon and width.")
    length = np.frexp(variance.astype(np.float64))[1].astype(np.int64)
    even = ((length + 1) & ~1) - 32
    normal = (variance >> np.maximum(even, 0)) << np.maximum(-even, 0)
    return (2**32 - 1) // isqrt32(normal), 20 + even // 2


def quantize_window(window: np.ndarray, scale: float) -> np.ndarray:
    """int16 `window / scale`, divided in float64, rounded to nearest, halves to even, saturating.

    Raises:
        ExportError: a sample is not finite.
    """
    window = np.asarray(window, np.float64)
    if not np.isfinite(window).all():
        raise ExportError("the window has samples that are not finite.")
    return clamp16(np.rint(window / scale))


def matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int64 (..., n, m), the exact product of (..., n, k) and (..., k, m), whose dtypes have at most 16 bits.

    Floating-point libraries do it, as fast as they can: sums of integers below the limit of a mantissa are exact in
    whatever order they are made.

    Raises:
        ExportError: a product could exceed 2**53.
    """
    bound = left.shape[-1] * _magnitude(left.dtype) * _magnitude(right.dtype)
    if bound > _FLOAT64_LIMIT:
        raise ExportError(f"products of {left.shape} {left.dtype} and {right.shape} {right.dtype} may exceed 2**53.")
    dtype = np.float32 if bound <= _FLOAT32_LIMIT else np.float64
    return np.matmul(left.astype(dtype), right.astype(dtype)).astype(np.int64)


def _magnitude(dtype: np.dtype) -> int:
    return max(-int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def _mantissa(ratio: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 m of exactly `bits` bits and e: `ratio` is nearest to `m * 2**(e - bits)`; m is 0 where it is 0."""
    fraction, exponent = np.frexp(ratio)
    mantissa = np.rint(fraction * 2.0**bits).astype(np.int64)
    carried = mantissa == 2**bits
    return np.where(carried, 2 ** (bits - 1), mantissa), exponent.astype(np.int64) + carried


def _offending(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].flat[0]) if values.ndim else float(values)
