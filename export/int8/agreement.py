"""An integer program beside the float graph it was made from: how far their logits are apart, and what both score.

agreement = compare(graph, program, windows.values, windows.labels)
agreement.top1, agreement.score                   # 0.998, {"fp32": 0.937, "int8": 0.936}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.comparison import Tally
from export.int8.fixed_point import quantize_window
from export.int8.float_interpreter import run_float
from export.int8.nodes import INPUT, Graph
from export.int8.program import Program
from export.int8.ranges import Say, quiet
from export.int8.reference import GROUP, logits, run

_TOLD_EVERY = 16 * GROUP
"""Windows."""


@dataclass(frozen=True)
class Agreement:
    """
    Attributes:
        windows: compared.
        top1: share of windows that both give the same class; None of a regression.
        correlation: Pearson's, of all logits.
        sqnr: signal-to-noise ratio of the logits in dB, the signal being their standard deviation around the mean of
            each output.
        maximum, mean: of the absolute differences of logits.
        metric: "accuracy", or "mae" of a regression; None without labels.
        score: {"fp32": .., "int8": ..}, of the metric.
    """

    windows: int
    top1: float | None
    correlation: float
    sqnr: float
    maximum: float
    mean: float
    metric: str | None
    score: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def compare(
    graph: Graph,
    program: Program,
    windows: np.ndarray,
    labels: np.ndarray | None = None,
    say: Say = quiet,
    integers_of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Agreement:
    """
    Args:
        windows: float32 (count, channels, samples).
        labels: class ids (count,), or targets (count, frames, outputs).
        integers_of: int16 windows to int32 logits, by default with the reference: another engine of the program.

    Raises:
        ExportError: windows that are not as the program says.
    """
    kind = "classes" if program.target_length is None else "values"
    tally, products, scores = Tally(kind), np.zeros(5), np.zeros(2)
    scale = program.tensors[INPUT].scale
    for start in range(0, len(windows), GROUP):
        part = windows[start : start + GROUP]
        integers = (integers_of or (lambda inputs: run(program, inputs)))(quantize_window(part, scale))
        pair = run_float(graph, part), logits(program, integers)
        tally.add(*pair)
        products += _products(*pair)
        if labels is not None:
            scores += [_score(values, labels[start : start + GROUP]) for values in pair]
        done = min(start + GROUP, len(windows))
        if done % _TOLD_EVERY == 0 or done == len(windows):
            say(f"comparison: {done} of {len(windows)} windows")
    difference = tally.difference()
    scored = labels is not None
    return Agreement(
        windows=len(windows),
        top1=difference.agreement,
        correlation=_correlation(products, tally.count),
        sqnr=_decibels(difference.relative),
        maximum=difference.maximum,
        mean=difference.mean,
        metric=("accuracy" if kind == "classes" else "mae") if scored else None,
        score=dict(zip(("fp32", "int8"), (scores / len(windows)).tolist(), strict=True)) if scored else {},
    )


def signal_to_noise(expected: np.ndarray, found: np.ndarray) -> float:
    """dB, of logits (windows, ..., outputs), as in `Agreement`."""
    tally = Tally("values")
    tally.add(expected, found)
    return _decibels(tally.difference().relative)


def _decibels(relative: float) -> float:
    return float(-20 * np.log10(max(relative, 1e-12)))


def _products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sums of both, of their squares, and of their product."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    return np.array([values.sum() for values in (first, second, first**2, second**2, first * second)])


def _correlation(products: np.ndarray, count: int) -> float:
    first, second, first_square, second_square, product = products / count
    spread = np.sqrt(max(first_square - first**2, 0) * max(second_square - second**2, 0))
    return float((product - first * second) / spread) if spread > 0 else 0.0


def _score(values: np.ndarray, labels: np.ndarray) -> float:
    """Sum over windows: of right decisions, or of mean absolute errors."""
    if labels.ndim == 1:
        return float((values.argmax(-1) == labels).sum())
    return float(np.abs(values.astype(np.float64) - labels).mean(axis=(1, 2)).sum())
