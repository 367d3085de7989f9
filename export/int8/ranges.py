"""Ranges of a network's tensors: what their values are on calibration windows, and which of them 8 bits should cover.

    histograms, logits = collect(graph, windows)
    ranges = {name: METHODS["mse"](histogram, symmetric=True) for name, histogram in histograms.items()}

Windows go through the float network once; of every tensor only a histogram is kept, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from export.calibration import CalibrationError
from export.int8.float_interpreter import WINDOWS_AT_ONCE, run_float
from export.int8.nodes import INPUT, Graph

BINS = 8192
_TOLD_EVERY = 64
"""Windows."""
_SMALLEST = 2.0**-40
"""Half the width of a histogram before any value came: far below what a network computes with."""
_LEVELS = 255
"""Steps of an asymmetric range of 8 bits; a symmetric one has as many less one."""
_CANDIDATES = 2.0 ** -np.linspace(0, 5, 61)
"""Limits that `mse` tries, as shares of the largest value."""

Say = Callable[[str], None]


def quiet(message: str) -> None:
    """Who is told of progress where nobody asks."""


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`; those beyond saturate."""

    low: float
    high: float

    @property
    def limit(self) -> float:
        """The largest magnitude."""
        return max(-self.low, self.high)


class Histogram:
    """How often values occur, in bins of equal width over -limit..limit. The limit is a power of two and grows with the
    values, two bins becoming one, so that no second pass is needed.

    Attributes:
        counts: int64 (BINS,).
        limit: of the bins.
        lowest, highest: of the values themselves, and 0 where all lie on one side of it.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = _SMALLEST
        self.lowest = self.highest = 0.0

    def add(self, values: np.ndarray) -> None:
        """Finite values of any shape."""
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        self._grow(max(-self.lowest, self.highest))
        bins = ((values * np.float32(1 / self.limit) + 1) * np.float32(BINS / 2)).astype(np.int32)
        self.counts += np.bincount(bins.ravel().clip(max=BINS - 1), minlength=BINS)

    def joined(self, *others: Histogram) -> Histogram:
        """Of the values of all of them."""
        result = Histogram()
        for part in (self, *others):
            result.lowest, result.highest = min(result.lowest, part.lowest), max(result.highest, part.highest)
        result._grow(max(part.limit for part in (self, *others)))
        for part in (self, *others):
            widened = Histogram()
            widened.counts, widened.limit = part.counts, part.limit
            widened._grow(result.limit)
            result.counts = result.counts + widened.counts
        return result

    @property
    def edges(self) -> np.ndarray:
        """Of the bins, (BINS + 1,)."""
        return np.linspace(-self.limit, self.limit, BINS + 1)

    @property
    def centres(self) -> np.ndarray:
        """Of the bins, (BINS,)."""
        return self.edges[:-1] + self.limit / BINS

    def saturating(self, kept: Range) -> float:
        """Share of the values beyond a range, to the width of a bin."""
        low, high = min(kept.low, 0.0), max(kept.high, 0.0)
        low, high = (-np.inf if self.lowest >= low else low), (np.inf if self.highest <= high else high)
        outside = (self.centres < low) | (self.centres > high)
        return float(self.counts[outside].sum() / self.counts.sum())

    def _grow(self, limit: float) -> None:
        while self.limit < limit:
            grown = np.zeros_like(self.counts)
            grown[BINS // 4 : 3 * BINS // 4] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts, self.limit = grown, 2 * self.limit


# --- which range to take -------------------------------------------------------------------------------------------


class Method(Protocol):
    def __call__(self, histogram: Histogram, symmetric: bool) -> Range:
        """The range to cover: around 0 where it is to be symmetric, otherwise with 0 inside."""


def minmax(histogram: Histogram, symmetric: bool) -> Range:
    """All values seen."""
    return Range(histogram.lowest, histogram.highest)


def percentile(percent: float) -> Method:
    """A method that keeps so many percent of the values, and cuts as many at either end; of an asymmetric range only
    the upper one, as `mse`."""

    def method(histogram: Histogram, symmetric: bool) -> Range:
        below = np.cumsum(histogram.counts) / histogram.counts.sum()
        cut = (1 - percent / 100) / 2
        first, last = np.searchsorted(below, cut, side="right"), np.searchsorted(below, 1 - cut)
        edges = histogram.edges
        low, high = edges[first], edges[min(last, BINS - 1) + 1]
        low = np.clip(low, histogram.lowest, 0.0) if symmetric else histogram.lowest
        return Range(float(low), float(np.clip(high, 0.0, histogram.highest)))

    return method


def mse(histogram: Histogram, symmetric: bool) -> Range:
    """The range with the least mean square of the error, of rounding and of what is cut off. Of an asymmetric one,
    which the output of an activation has, only the upper end is cut: the other is bounded by the activation."""
    values, low = histogram.centres, 0.0 if symmetric else histogram.lowest
    if symmetric:
        values = np.abs(values)
    largest = max(-histogram.lowest, histogram.highest) if symmetric else histogram.highest
    limits = largest * _CANDIDATES
    order = np.argsort(values, kind="stable")
    counts, values = histogram.counts[order], values[order]
    # Sums over the values beyond each limit, of (value - limit) ** 2.
    powers = [np.append(np.cumsum((counts * values**power)[::-1])[::-1], 0.0) for power in (0, 1, 2)]
    zeroth, first, second = (power[np.searchsorted(values, limits)] for power in powers)
    cut = second - 2 * limits * first + limits**2 * zeroth
    steps = limits / (_LEVELS // 2) if symmetric else (limits - low) / _LEVELS
    best = limits[np.argmin(cut + (counts.sum() - zeroth) * steps**2 / 12)]
    return Range(-float(best) if symmetric else low, float(best))


METHODS: dict[str, Method] = {
    "minmax": minmax,
    "percentile_99.999": percentile(99.999),
    "percentile_99.99": percentile(99.99),
    "percentile_99.9": percentile(99.9),
    "mse": mse,
}


# --- over windows --------------------------------------------------------------------------------------------------


def collect(graph: Graph, windows: np.ndarray, say: Say = quiet) -> tuple[dict[str, Histogram], np.ndarray]:
    """Histograms of all tensors, by name, and the logits of each window.

    Args:
        windows: float32 (count, channels, samples).
        say: told how far it has come.

    Raises:
        CalibrationError: a tensor that becomes NaN or infinite.
    """
    histograms: dict[str, Histogram] = {}

    def observe(name: str, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise CalibrationError(
                f"{name}: NaN or infinite for a calibration window; train the model again, or leave such windows out"
            )
        histograms.setdefault(name, Histogram()).add(values)

    logits = []
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        logits.append(run_float(graph, windows[start : start + WINDOWS_AT_ONCE], observe))
        done = min(start + WINDOWS_AT_ONCE, len(windows))
        if done % _TOLD_EVERY == 0 or done == len(windows):
            say(f"ranges: {done} of {len(windows)} windows")
    return histograms, np.concatenate(logits)


def join(first: Mapping[str, Histogram], second: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """Of the same tensors over two sets of windows."""
    return {name: histogram.joined(second[name]) for name, histogram in first.items()}


def check_windows(windows: np.ndarray, graph: Graph, least: int) -> np.ndarray:
    """Calibration windows as float32.

    Raises:
        CalibrationError: of another shape than the graph's, too few, NaN or infinite, or nothing but one value.
    """
    windows = np.asarray(windows)
    channels, samples = graph.shapes[INPUT]
    if windows.ndim != 3 or windows.shape[1:] != (channels, samples) or windows.dtype.kind not in "fiu":
        raise CalibrationError(
            f"windows: of shape {windows.shape} and type {windows.dtype}; give numbers (windows, {channels}, "
            f"{samples}), or build the graph for such windows"
        )
    if len(windows) < least:
        raise CalibrationError(f"windows: {len(windows)}; give at least {least}")
    windows = windows.astype(np.float32, copy=False)
    if not np.isfinite(windows).all():
        window, channel, sample = np.argwhere(~np.isfinite(windows))[0]
        raise CalibrationError(
            f"windows: window {window} has {windows[window, channel, sample]} at sample {sample} of channel {channel}; "
            "interpolate such samples, or leave the window out"
        )
    if windows.min() == windows.max():
        raise CalibrationError(
            f"windows: every sample of {INPUT} is {windows.flat[0]:g}, which gives no range; give windows of real "
            "signals"
        )
    return windows
