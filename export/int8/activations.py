"""Which arguments the 1024 entries of an activation table stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erf, expit

from export.int8.nodes import Activation
from export.int8.program import TABLE_SIZE
from export.int8.ranges import Range

_FLAT = 0.25
"""Steps of the output by which an activation may differ from 0 where its table ends."""
_FUNCTIONS: dict[Activation, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda values: 0.5 * values * (1 + erf(values * 0.5**0.5)),
    "silu": lambda values: values * expit(values),
}
_GRID = np.linspace(-20.0, 0.0, 20001)


@dataclass(frozen=True)
class Argument:
    """Entry i of a table stands for `middle + step * (i - 512)`."""

    step: float
    middle: float


def function_of(activation: Activation) -> Callable[[np.ndarray], np.ndarray]:
    """In float64."""
    return _FUNCTIONS[activation]


def argument_of(activation: Activation, seen: Range, reach: Range, step: float) -> Argument:
    """The arguments that matter: from where the activation is no longer 0, or the lowest one seen, to where its output
    saturates. The fewer they are, the finer is the table.

    Args:
        seen: what goes into the activation.
        reach: of its output, whose steps are `step` wide.
    """
    function = _FUNCTIONS[activation]
    bent = _GRID[np.abs(function(_GRID)) > _FLAT * step]
    low = max(seen.low, float(bent[0])) if len(bent) else 0.0
    high = max(_inverse(function, reach.high), low + step)
    width = (high - low) / (TABLE_SIZE - 1)
    return Argument(width, low + TABLE_SIZE / 2 * width)


def _inverse(function: Callable[[np.ndarray], np.ndarray], value: float) -> float:
    """Where the function, which rises from 0 on and stays below the identity, has a value; 0 of negative ones."""
    low, high = 0.0, 2 * max(value, 0.0) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(np.float64(middle)) < value else (low, middle)
    return high if value > 0 else 0.0
