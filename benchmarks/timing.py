"""Alternating timer shared by the measurements."""

import statistics
from collections.abc import Callable, Mapping

from export.measuring import interleaved


def alternate(candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2) -> dict[str, float]:
    """Median seconds of each candidate; one call of each in turn, so that all see the same disturbances."""
    return {name: statistics.median(times) for name, times in interleaved(candidates, repeats, warmup).items()}
