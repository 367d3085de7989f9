"""Places of buffers in one memory, such that none overlaps another that lives at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from export.gap9.slabs import aligned

_ATTEMPTS = 20


@dataclass(frozen=True)
class Request:
    """A buffer that needs a place from the step `first` to the step `last`, both included."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Request) -> bool:
        """Whether both live at some step."""
        return self.first <= other.last and other.first <= self.last


def live_bytes(requests: Sequence[Request], steps: int) -> list[int]:
    """Bytes of all buffers that live at each step."""
    totals = [0] * steps
    for request in requests:
        for step in range(request.first, request.last + 1):
            totals[step] += aligned(request.size)
    return totals


def peak(requests: Sequence[Request], offsets: dict[str, int]) -> int:
    """The end of the buffer that reaches furthest."""
    return max((offsets[request.name] + request.size for request in requests), default=0)


def place(requests: Sequence[Request], enough: int) -> dict[str, int]:
    """Offsets by name, with as small a peak as is found; the search ends early once it is at most `enough`.

    Buffers are placed one after the other, each as low as those before it allow. The order decides: large ones first,
    or those that live long; what ends up on top is then placed earlier, again and again.
    """
    best: dict[str, int] = {}
    for order in _ORDERS:
        queue = sorted(requests, key=order)
        for _ in range(_ATTEMPTS):
            offsets = _first_fit(queue)
            if not best or peak(requests, offsets) < peak(requests, best):
                best = offsets
            if not requests or peak(requests, best) <= enough:
                return best
            top = max(queue, key=lambda request: offsets[request.name] + request.size)
            if queue[0] is top:
                break
            queue.remove(top)
            queue.insert(0, top)
    return best


_ORDERS: tuple[Callable[[Request], tuple], ...] = (
    lambda request: (-request.size, request.first, request.name),
    lambda request: (-request.size * (request.last - request.first + 1), request.first, request.name),
    lambda request: (request.first - request.last, -request.size, request.first, request.name),
)


def _first_fit(queue: Sequence[Request]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    placed: list[Request] = []
    for request in queue:
        offset = 0
        for start, end in sorted((offsets[o.name], offsets[o.name] + o.size) for o in placed if o.meets(request)):
            if start >= offset + request.size:
                break
            offset = max(offset, aligned(end))
        offsets[request.name] = offset
        placed.append(request)
    return offsets
