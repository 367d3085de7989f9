"""What checks of a plan demand of regions of any memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from export.gap9.schedule import PlanError, Region

ALIGNMENT = 8


class PlanCheckError(PlanError):
    """A plan that is not sound; the message names the step, the buffer and the numbers that do not agree."""


def demand(holds: bool, message: str) -> None:
    if not holds:
        raise PlanCheckError(f"{message}; make the plan anew")


def check_aligned(regions: Iterable[tuple[str, Region]], what: str) -> None:
    for name, region in regions:
        aligned = region.offset >= 0 and region.offset % ALIGNMENT == 0
        demand(aligned, f"{what}{name} is at {region.offset}, which is no multiple of {ALIGNMENT}")


def check_disjoint(regions: Iterable[tuple[str, Region]], what: str) -> None:
    ordered = sorted(regions, key=lambda item: (item[1].offset, item[1].end))
    for (name, region), (other, following) in pairwise(ordered):
        demand(region.end <= following.offset, f"{what}{name} and {other} overlap at {following.offset}")
