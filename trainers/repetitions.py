"""Which repetitions of a person's gestures calibrate a model, and which tell how good it became.

A repetition is one performance of a gesture: the windows of one recording that share a label and a repetition number.
All windows of a repetition go the same way, and what is evaluated on is the same for every number of repetitions that
calibrate, so scores at 0, 1, 2, ... repetitions are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np

from dataset_builders.protocols import natural_key
from trainers.errors import EvaluationError, RecipeError


@dataclass(frozen=True)
class WindowOrigins:
    """Where windows come from: arrays (windows,) of equal length.

    Attributes:
        label: class ids.
        subject, session, recording: names.
        repetition: number of the repetition within the recording.
        start: first sample of the window in the processed recording.
    """

    label: np.ndarray
    subject: np.ndarray
    session: np.ndarray
    recording: np.ndarray
    repetition: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, dataset: datasets.Dataset) -> WindowOrigins:
        """Those of a split as the builders make it."""
        return cls(**{name: np.asarray(dataset[name][:]) for name in cls.__dataclass_fields__})

    def of_subject(self, subject: str) -> np.ndarray:
        """Rows of one subject, in ascending order."""
        return np.flatnonzero(self.subject == subject)


@dataclass(frozen=True)
class ShotSplit:
    """The windows of one subject, as rows of the corpus.

    Attributes:
        calibration: shots -> rows of the first so many repetitions of every gesture; empty at 0 shots.
        evaluation: rows that no number of shots calibrates with.
    """

    calibration: dict[int, np.ndarray]
    evaluation: np.ndarray


def repetition_ranks(origins: WindowOrigins, rows: np.ndarray) -> np.ndarray:
    """Which repetition of its gesture each window of one subject belongs to, counted from 0 in the order of sessions,
    recordings (both in natural order) and repetition numbers.

    Args:
        rows: (n,) the subject's windows.

    Returns:
        int64 (n,).
    """
    labels = origins.label[rows].tolist()
    performances = [
        (natural_key(session), natural_key(recording), int(repetition))
        for session, recording, repetition in zip(
            origins.session[rows], origins.recording[rows], origins.repetition[rows], strict=True
        )
    ]
    by_label: dict[int, set[tuple]] = {}
    for label, performance in zip(labels, performances, strict=True):
        by_label.setdefault(label, set()).add(performance)
    rank_of = {
        (label, performance): rank
        for label, found in by_label.items()
        for rank, performance in enumerate(sorted(found))
    }
    ranks = [rank_of[pair] for pair in zip(labels, performances, strict=True)]
    return np.array(ranks, dtype=np.int64)


def repetition_counts(origins: WindowOrigins, rows: np.ndarray) -> dict[int, int]:
    """Class id -> repetitions that one subject made of it."""
    ranks, labels = repetition_ranks(origins, rows), origins.label[rows]
    return {int(label): int(ranks[labels == label].max()) + 1 for label in np.unique(labels)}


def split_repetitions(
    origins: WindowOrigins,
    rows: np.ndarray,
    shots: Sequence[int],
    window_length: int,
    evaluation_repetitions: int | None = None,
) -> ShotSplit:
    """Divide the windows of one subject.

    Args:
        rows: (n,) the subject's windows.
        shots: numbers of repetitions to calibrate with, at least 0.
        window_length: samples per window. Windows cut on a grid may reach into the neighbouring repetition: of those
            that share samples with an evaluation window none calibrates.
        evaluation_repetitions: evaluate on the last so many repetitions of each gesture; None: on all that follow the
            first `max(shots)`.

    Raises:
        RecipeError: no shots, or fewer than none.
        EvaluationError: a gesture has too few repetitions.
    """
    check_shots(shots, evaluation_repetitions)
    ranks, labels, most = repetition_ranks(origins, rows), origins.label[rows], max(shots)
    counts = repetition_counts(origins, rows)
    needed = most + (evaluation_repetitions or 1)
    short = [label for label, count in counts.items() if count < needed]
    if short:
        raise EvaluationError(
            f"subject {origins.subject[rows[0]]} has {counts[short[0]]} repetitions of class {short[0]}, but shots "
            f"up to {most} and {evaluation_repetitions or 1} for evaluation need {needed}: lower shots or "
            "evaluation_repetitions, or record more"
        )
    first = most
    if evaluation_repetitions is not None:
        first = np.array([counts[label] for label in labels.tolist()]) - evaluation_repetitions
    evaluated = ranks >= first
    free = ~evaluated & ~_shares_samples(origins, rows, rows[evaluated], window_length)
    calibration = {count: rows[free & (ranks < count)] for count in sorted(set(shots))}
    for count, chosen in calibration.items():
        if count and set(origins.label[chosen].tolist()) != counts.keys():
            raise EvaluationError(
                f"subject {origins.subject[rows[0]]}: no window of a gesture's first {count} repetitions is free of "
                "samples that are evaluated: lower stride or window_length"
            )
    return ShotSplit(calibration, rows[evaluated])


def check_shots(shots: Sequence[int], evaluation_repetitions: int | None = None) -> None:
    """Raise `RecipeError` for numbers of repetitions that cannot be meant."""
    if not shots or min(shots) < 0:
        raise RecipeError(f"shots {list(shots)}: give numbers of repetitions of at least 0, for instance [0, 1, 2]")
    if evaluation_repetitions is not None and evaluation_repetitions < 1:
        raise RecipeError(f"evaluation_repetitions {evaluation_repetitions}: evaluate on at least 1 repetition")


def _shares_samples(origins: WindowOrigins, rows: np.ndarray, others: np.ndarray, window_length: int) -> np.ndarray:
    """bool (n,): whether each window of `rows` has samples in common with any of `others`."""
    starts: dict[str, list[int]] = {}
    for row in others.tolist():
        starts.setdefault(origins.recording[row], []).append(int(origins.start[row]))
    sorted_starts = {recording: np.sort(values) for recording, values in starts.items()}
    shared = np.zeros(len(rows), dtype=bool)
    for index, row in enumerate(rows.tolist()):
        found = sorted_starts.get(origins.recording[row])
        if found is not None:
            start = int(origins.start[row])
            after = np.searchsorted(found, start - window_length, side="right")
            shared[index] = after < len(found) and found[after] < start + window_length
    return shared


def subject_groups(subjects: Sequence[str], folds: int | None = None) -> list[tuple[str, ...]]:
    """The subjects whom each fold holds out; one fold per subject if `folds` is None.

    Subjects are dealt in natural order like cards, so groups differ by at most one in size and every subject is held
    out once.

    Raises:
        RecipeError: fewer than 3 folds or more folds than subjects: a fold tests one group, selects weights on the
            next and trains on the rest.
    """
    ordered = sorted(set(subjects), key=natural_key)
    count = len(ordered) if folds is None else folds
    if not 3 <= count <= len(ordered):
        raise RecipeError(
            f"folds {count} of {len(ordered)} subjects: a fold tests one group of subjects, selects weights on the "
            "next and trains on the others, so there must be 3 folds or more, and no more than subjects"
        )
    return [tuple(ordered[first::count]) for first in range(count)]


def personalizable(
    origins: WindowOrigins,
    subjects: Sequence[str],
    shots: Sequence[int],
    num_labels: int,
    evaluation_repetitions: int | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The subjects with enough repetitions of every gesture, and of the others why they are left out.

    Every number of shots is scored on the same people, so somebody with too few repetitions for one is in none.
    """
    needed = max(shots) + (evaluation_repetitions or 1)
    kept, left_out = [], {}
    for subject in sorted(set(subjects), key=natural_key):
        counts = repetition_counts(origins, origins.of_subject(subject))
        fewest = min(counts.get(label, 0) for label in range(num_labels))
        if fewest >= needed:
            kept.append(subject)
        else:
            left_out[subject] = f"{fewest} repetitions of a gesture where {needed} are needed"
    return kept, left_out


def describe_split(split: ShotSplit, origins: WindowOrigins) -> Mapping[str, int | dict[str, int]]:
    """Numbers of windows, for a report: `{"evaluation", "calibration": {shots: windows}, "recordings"}`."""
    return {
        "evaluation": len(split.evaluation),
        "calibration": {str(shots): len(rows) for shots, rows in split.calibration.items()},
        "recordings": len(set(origins.recording[split.evaluation].tolist())),
    }
