"""When the parameters of each step start to be loaded from L3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from export.gap9.assumptions import Assumptions

_FIGURES = Assumptions()
MARGIN = 1.5
"""Times that a load may take longer than modelled, or the steps in front of it less, before a step waits."""
LOADS = 4
"""Loads that are under way at the same time (`LOADS` of runtime/network_run.c)."""


def issue_times(cycles: Sequence[float], sizes: Mapping[int, int]) -> dict[int, int]:
    """The step before which the load for each step is to start: as late as all are still there in time, but one step
    earlier at least. Loads follow one another, in the order of their steps.

    Args:
        cycles: of every step.
        sizes: bytes to load, by index of the step that needs them.
    """
    starts = [0.0, *accumulate(cycles)]
    issued: dict[int, int] = {}
    latest = float("inf")
    needed = sorted(sizes)
    for number, index in reversed(list(enumerate(needed))):
        latest = min(starts[index], latest) - MARGIN * (_FIGURES.l3_setup + sizes[index] / _FIGURES.l3_bytes)
        # One more load has to wait for the oldest, which has arrived when its step runs.
        earliest = needed[number - LOADS] + 1 if number >= LOADS else 0
        in_time = (step for step in range(index - 1, earliest, -1) if starts[step] <= latest)
        issued[index] = next(in_time, earliest)
    return issued


def delay(issued: dict[int, int], first: int, last: int) -> bool:
    """Start one load a step later: of those under way early somewhere in the steps `first` to `last`, the one that is
    needed last, so that loads still start in the order of their steps.

    Returns:
        Whether there is any.
    """
    early = [index for index, start in issued.items() if start < index and start <= last and first < index]
    if not early:
        return False
    issued[max(early)] += 1
    return True
