"""CLER, the classification error rate of discrete gestures, with the misses and false activations it leaves out.

CLER (Kaifosh et al., Nature, 2025; TinyMyo, section 3.2.2) is, for each gesture, the share of its detected events that
were taken for another gesture, and the mean of that over the gestures. Events that were missed and predictions that
belong to no event do not enter it: a detector that reports a single event it is sure of has a CLER of 0. They are
counted beside it, per hour of recording.

Two choices. A matched event counts whatever it was taken for; the code of the dataset's authors leaves out predictions
of a gesture that does not occur in the recording. And where no event was matched, CLER is undefined (None); that code
gives 0, the best score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from tinymyo_hf.event_detection import TimedEvents
from trainers.errors import EvaluationError
from trainers.event_alignment import match_events
from trainers.metrics import OfflineMetric


@dataclass(frozen=True)
class EventCounts:
    """What the scores follow from; the sum of two is that of both recordings together.

    Attributes:
        confusion: int64 (gestures, gestures), matched events: rows are the truth, columns the predictions.
        missed: (gestures,) events without a prediction.
        false: (gestures,) predictions without an event.
        dropped: predicted releases of a finger that was not pressed.
        seconds: recorded.
    """

    confusion: np.ndarray
    missed: np.ndarray
    false: np.ndarray
    dropped: int
    seconds: float

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(
            self.confusion + other.confusion,
            self.missed + other.missed,
            self.false + other.false,
            self.dropped + other.dropped,
            self.seconds + other.seconds,
        )

    def error_rates(self) -> list[float | None]:
        """Per gesture, 1 - correct / matched events (rule 6); None where none was matched."""
        matched = self.confusion.sum(axis=1).tolist()
        correct = self.confusion.diagonal().tolist()
        return [1 - c / m if m else None for c, m in zip(correct, matched, strict=True)]

    def cler(self) -> float | None:
        """Mean of the error rates; None where no event was matched."""
        return _mean(self.error_rates())

    def f1(self) -> float:
        """2 correct / (events + predictions that count): wrong gestures, misses and false activations alike."""
        total = 2 * self.confusion.sum() + self.missed.sum() + self.false.sum()
        return float(2 * self.confusion.trace() / total) if total else 0.0


def count_events(truth: TimedEvents, predicted: TimedEvents, names: Sequence[str], seconds: float) -> EventCounts:
    """Compare the events of one recording.

    Args:
        truth: in the order of the corpus.
        predicted: as from `detect_events`, in order of time.
        names: of the labels; see `match_events`.
        seconds: length of the recording.

    Raises:
        EvaluationError: a label outside `names`, a time that is not finite, an event outside the recording.
    """
    for kind, events in (("true", truth), ("predicted", predicted)):
        _check(events, len(names), kind, seconds)
    if np.any(np.diff(predicted.times) < 0):
        raise EvaluationError("predicted events must be in order of time, as those of detect_events are: sort them")
    pairs, kept = match_events(truth, predicted, names)
    confusion = np.zeros((len(names), len(names)), np.int64)
    missed, false = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for i, j in pairs:
        if i is not None and j is not None:
            confusion[truth.labels[i], predicted.labels[j]] += 1
        elif i is not None:
            missed[truth.labels[i]] += 1
        else:
            false[predicted.labels[j]] += 1
    return EventCounts(confusion, missed, false, int((~kept).sum()), float(seconds))


def event_scores(recordings: Sequence[EventCounts], names: Sequence[str]) -> dict[str, Any]:
    """All scores of several recordings; plain types.

    Returns:
        `cler`, the mean over the recordings in which it is defined (the figure of the dataset's authors);
        `cler_pooled`, from the counts of all together; `f1`; `misses_per_hour`, `false_activations_per_hour` (of
        predictions that count), `dropped_releases_per_hour`; `events`, `recordings`, `hours`; `per_gesture`, a row for
        each gesture with `gesture`, `events`, `matched`, `correct`, `error` (None where none was matched) and the two
        rates; `confusion_matrix` (gestures, gestures), rows: truth; `missed` and `false` (gestures,).

    Raises:
        EvaluationError: no recordings.
    """
    if not recordings:
        raise EvaluationError("no recordings to score: the split is empty")
    total = sum(recordings[1:], recordings[0])
    hours = total.seconds / 3600
    events = total.confusion.sum(axis=1) + total.missed
    rows = [
        {
            "gesture": name,
            "events": int(events[i]),
            "matched": int(total.confusion[i].sum()),
            "correct": int(total.confusion[i, i]),
            "error": error,
            "misses_per_hour": float(total.missed[i] / hours),
            "false_activations_per_hour": float(total.false[i] / hours),
        }
        for i, (name, error) in enumerate(zip(names, total.error_rates(), strict=True))
    ]
    return {
        "cler": _mean([counts.cler() for counts in recordings]),
        "cler_pooled": total.cler(),
        "f1": total.f1(),
        "misses_per_hour": float(total.missed.sum() / hours),
        "false_activations_per_hour": float(total.false.sum() / hours),
        "dropped_releases_per_hour": total.dropped / hours,
        "events": int(events.sum()),
        "recordings": len(recordings),
        "hours": hours,
        "per_gesture": rows,
        "confusion_matrix": total.confusion.tolist(),
        "missed": total.missed.tolist(),
        "false": total.false.tolist(),
    }


_EVENTS = {"labels": datasets.List(datasets.Value("int64")), "times": datasets.List(datasets.Value("float64"))}


class Cler(OfflineMetric):
    """`cler` and what belongs to it, as `event_scores` gives them.

    `predictions` and `references` hold one entry per recording, {"labels": ids, "times": seconds}; also needed are
    `names` of the labels, and `seconds`, the length of each recording.

    Examples:
        >>> events = [{"labels": [0, 1], "times": [1.0, 2.0]}]
        >>> scores = Cler().compute(predictions=events, references=events, names=["up", "down"], seconds=[60.0])
        >>> scores["cler"], scores["misses_per_hour"]
        (0.0, 0.0)
    """

    FEATURES = {"predictions": _EVENTS, "references": _EVENTS}

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Sequence]],
        references: Sequence[Mapping[str, Sequence]],
        names: Sequence[str],
        seconds: Sequence[float],
    ) -> dict[str, Any]:
        if len(seconds) != len(references):
            raise EvaluationError(f"seconds has {len(seconds)} values for {len(references)} recordings; give one each")
        counts = [
            count_events(_events(truth), _events(predicted), names, length)
            for truth, predicted, length in zip(references, predictions, seconds, strict=True)
        ]
        return event_scores(counts, names)


def _events(entry: Mapping[str, Sequence]) -> TimedEvents:
    return TimedEvents(np.asarray(entry["labels"], np.int64), np.asarray(entry["times"], np.float64))


def _check(events: TimedEvents, gestures: int, kind: str, seconds: float) -> None:
    if len(events.labels) != len(events.times):
        raise EvaluationError(f"{len(events.labels)} labels and {len(events.times)} times of {kind} events")
    if len(events) and not 0 <= events.labels.min() <= events.labels.max() < gestures:
        raise EvaluationError(
            f"labels of {kind} events range from {events.labels.min()} to {events.labels.max()}, outside the "
            f"{gestures} gestures"
        )
    outside = np.flatnonzero(~((events.times >= 0) & (events.times <= seconds)))
    if outside.size:
        raise EvaluationError(
            f"{kind} event {outside[0]} is at {events.times[outside[0]]:g} s, outside its recording of {seconds:g} s; "
            "times are in seconds from its first sample"
        )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
