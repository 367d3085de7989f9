"""Which predicted event belongs to which true one: the alignment on which CLER is based (rules 3 to 5).

Rules of Kaifosh et al. (Nature, 2025), as TinyMyo uses them (section 3.2.2). What the papers leave open follows the
code of the first: there are two alignments, one for the states (predictions on the left), and, without the predictions
dropped there, one that counts (true events on the left).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinymyo_hf.event_detection import PRESS, RELEASE, ROUNDING, TimedEvents

TOLERANCE = (-0.05, 0.25)
"""s; a prediction may come so much earlier or later than its event."""

Alignment = list[tuple[int | None, int | None]]
_LEFT, _RIGHT, _BOTH = 0, 1, 2
_Cost = tuple[int, float]


@dataclass(frozen=True)
class Intervals:
    """A sequence of events, each with the stretch of time in which it may be matched.

    `starts` and `ends` (events,) do not decrease, in s; an event whose end lies before its start matches nothing.
    """

    labels: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, events: TimedEvents, before: float = 0.0, after: float = 0.0) -> Intervals:
        """Events from `before` to `after` seconds around their times (rule 3): starts made a running maximum, ends a
        running minimum from the last. Only events that are not in order of time are changed by that."""
        times = np.asarray(events.times, np.float64)
        starts = np.maximum.accumulate(times + before - ROUNDING)
        ends = np.minimum.accumulate((times + after + ROUNDING)[::-1])[::-1]
        return cls(np.asarray(events.labels), times, starts, ends)


def align(left: Intervals, right: Intervals) -> Alignment:
    """Needleman-Wunsch, time-bounded (rule 4).

    Costs are compared lexicographically: mismatches (a gap or two different labels are one), then the summed
    difference in time. Only events whose intervals overlap are matched. Of equal costs, a gap for the left event comes
    before one for the right event, and that before a match.

    The events that can be matched with left event i are a range of the right ones that only moves on, so the table of
    costs is computed within this band: beside it, only gaps are possible, and the result is that of the whole table.

    Returns:
        Pairs (left index or None, right index or None), from first to last.
    """
    first = np.searchsorted(right.ends, left.starts, side="left")
    last = np.maximum(np.searchsorted(right.starts, left.ends, side="right"), first)
    bands = [(0, 0), *zip(first.tolist(), last.tolist(), strict=True)]
    steps = _fill(left, right, bands)

    path: Alignment = []
    i, j = len(left.labels), len(right.labels)
    while i or j:
        low, high = bands[i]
        step = steps[i][min(j, high) - low] if i else _RIGHT
        if j > high and step == _BOTH:
            step = _RIGHT  # above the band, only a gap for the left event can come before one for the right event
        if step == _LEFT:
            i -= 1
            path.append((i, None))
        elif step == _RIGHT:
            j -= 1
            path.append((None, j))
        else:
            i, j = i - 1, j - 1
            path.append((i, j))
    return path[::-1]


def _fill(left: Intervals, right: Intervals, bands: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The best last step for every cell (left events so far, right events so far) of the bands."""
    names, times = right.labels.tolist(), right.times.tolist()
    row: list[_Cost] = [(0, 0.0)]
    steps: list[list[int]] = [[_RIGHT]]
    for i, (label, time) in enumerate(zip(left.labels.tolist(), left.times.tolist(), strict=True), 1):
        above, band = row, bands[i - 1]
        low, high = bands[i]
        # all right events before the band are behind: a gap for the left event is never worse than any other step
        mismatches, difference = _cost(above, band, low)
        row, row_steps = [(mismatches + 1, difference)], [_LEFT]
        for j in range(low + 1, high + 1):
            gap_left, gap_right, match = _cost(above, band, j), row[-1], _cost(above, band, j - 1)
            costs = (
                (gap_left[0] + 1, gap_left[1]),
                (gap_right[0] + 1, gap_right[1]),
                (match[0] + (label != names[j - 1]), match[1] + abs(time - times[j - 1])),
            )
            best = min(costs)
            row.append(best)
            row_steps.append(costs.index(best))
        steps.append(row_steps)
    return steps


def _cost(row: list[_Cost], band: tuple[int, int], j: int) -> _Cost:
    """Of cell `j` of a row that was computed within a band; above the band, every right event costs a gap."""
    gaps = max(j - band[1], 0)
    mismatches, difference = row[j - gaps - band[0]]
    return mismatches + gaps, difference


def reachable_predictions(truth: TimedEvents, predicted: TimedEvents, names: Sequence[str]) -> np.ndarray:
    """Which predictions count, bool (predictions,): a release counts only while its finger is pressed (rule 5).

    The finger's state follows the true events: pressed after its press ("index_press"), neutral after any other event.
    Along the alignment, a prediction is checked before the state advances by the true event it is matched with. Where
    nothing is pressed, all releases are dropped, and while a finger is pressed, those of other fingers.
    """
    fingers = [name.removesuffix(RELEASE) if name.endswith(RELEASE) else None for name in names]
    presses = [name.removesuffix(PRESS) if name.endswith(PRESS) else None for name in names]
    true_labels, labels = truth.labels.tolist(), predicted.labels.tolist()
    kept = np.zeros(len(predicted), bool)
    pressed: str | None = None
    for i, j in align(Intervals.of(predicted), Intervals.of(truth, *TOLERANCE)):
        if i is not None:
            finger = fingers[labels[i]]
            kept[i] = finger is None or finger == pressed
        if j is not None:
            pressed = presses[true_labels[j]]
    return kept


def match_events(truth: TimedEvents, predicted: TimedEvents, names: Sequence[str]) -> tuple[Alignment, np.ndarray]:
    """Pairs (true event or None, prediction or None), and which predictions count, bool (predictions,).

    Args:
        truth, predicted: events of one recording; the predictions in order of time.
        names: of the labels; "X_press" and "X_release" are the two events of a finger X.
    """
    kept = reachable_predictions(truth, predicted, names)
    of = np.flatnonzero(kept)
    left = TimedEvents(predicted.labels[of], predicted.times[of])
    pairs = align(Intervals.of(truth, *TOLERANCE), Intervals.of(left))
    return [(i, None if j is None else int(of[j])) for i, j in pairs], kept
