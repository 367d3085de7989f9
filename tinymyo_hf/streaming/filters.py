"""From a prediction per window to gestures that do not flicker."""

from collections import Counter, deque
from typing import Protocol

import numpy as np

from tinymyo_hf.streaming.chunks import StreamError


class Smoother(Protocol):
    """Turns the probabilities of successive windows into the class that holds."""

    def push(self, probabilities: np.ndarray) -> int | None:
        """(labels,) of the next window -> the class that holds now; None for none."""

    def reset(self, forget: bool) -> None:
        """After a break, windows before it no longer count; with `forget` the class that held does not either."""


class MajorityFilter:
    """A class holds from when it wins `votes` of the last `windows` windows until another does.

    Args:
        votes, windows: more than half of the windows, so that never two classes win at once.
    """

    def __init__(self, votes: int = 3, windows: int = 5):
        if not (1 <= votes <= windows and 2 * votes > windows):
            raise StreamError(f"votes={votes} of {windows}: must be more than half of the windows, at most all")
        self.votes = votes
        self._last: deque[int] = deque(maxlen=windows)
        self._held: int | None = None

    def push(self, probabilities: np.ndarray) -> int | None:
        """(labels,) of the next window -> the class that holds now; None before the first."""
        self._last.append(int(np.argmax(probabilities)))
        label, count = Counter(self._last).most_common(1)[0]
        if count >= self.votes:
            self._held = label
        return self._held

    def reset(self, forget: bool) -> None:
        """The votes so far no longer count; with `forget` the class that held does not either."""
        self._last.clear()
        if forget:
            self._held = None


class HysteresisFilter:
    """A class holds from when its probability reaches `enter` until it falls below `leave`; then none does.

    While one holds, another takes over only when it reaches `enter` and the first has fallen below `leave`.

    Args:
        enter, leave: probabilities, 0 < leave <= enter <= 1.
    """

    def __init__(self, enter: float = 0.7, leave: float = 0.4):
        if not 0 < leave <= enter <= 1:
            raise StreamError(f"enter={enter:g}, leave={leave:g}: must be probabilities with 0 < leave <= enter <= 1")
        self.enter, self.leave = enter, leave
        self._held: int | None = None

    def push(self, probabilities: np.ndarray) -> int | None:
        """(labels,) of the next window -> the class that holds now; None for none."""
        if self._held is not None and probabilities[self._held] < self.leave:
            self._held = None
        if self._held is None:
            best = int(np.argmax(probabilities))
            self._held = best if probabilities[best] >= self.enter else None
        return self._held

    def reset(self, forget: bool) -> None:
        """Nothing but the class that holds is kept; with `forget` that is not either."""
        if forget:
            self._held = None
