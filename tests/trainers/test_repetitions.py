"""Repetitions for calibration and for evaluation: disjoint, whole, and the same evaluation whatever the shots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import EvaluationError, RecipeError
from trainers.repetitions import (
    WindowOrigins,
    personalizable,
    repetition_counts,
    repetition_ranks,
    split_repetitions,
    subject_groups,
)


def origins(*performances, windows=3, stride=100):
    """Windows of performances (label, session, recording, repetition) by one subject, one after the other in time."""
    rows = [performance for performance in performances for _ in range(windows)]
    label, session, recording, repetition = (np.array(column) for column in zip(*rows, strict=True))
    start = np.arange(len(rows)) * stride
    return WindowOrigins(label, np.array(["a"] * len(rows)), session, recording, repetition, start)


def two_series(first="1", second="2"):
    """Two gestures, two series of two repetitions each, as in UCI EMG; the second series is stored first."""
    return origins(
        *((label, series, f"{series}.txt", repetition)
          for series in (second, first) for repetition in (1, 2) for label in (0, 1)),
    )  # fmt: skip


def test_repetitions_are_ranked_by_session_then_recording_then_number():
    assert repetition_ranks(two_series(), np.arange(24)).tolist() == [2] * 6 + [3] * 6 + [0] * 6 + [1] * 6
    ten = two_series(first="9", second="10")  # natural order: 9 before 10
    assert repetition_ranks(ten, np.arange(24)).tolist() == [2] * 6 + [3] * 6 + [0] * 6 + [1] * 6


def test_a_file_per_repetition_and_gestures_counted_by_themselves():
    files = origins((0, "1", "fist_1", 1), (0, "1", "fist_2", 1), (0, "1", "fist_10", 1), (1, "1", "open_1", 1))
    assert repetition_ranks(files, np.arange(12)).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 3
    assert repetition_counts(files, np.arange(12)) == {0: 3, 1: 1}


def test_by_hand():
    split = split_repetitions(two_series(), np.arange(24), [0, 1, 2], window_length=100)
    assert split.calibration[0].tolist() == []
    assert split.calibration[1].tolist() == list(range(12, 18))
    assert split.calibration[2].tolist() == list(range(12, 24))
    assert split.evaluation.tolist() == list(range(12))

    last = split_repetitions(two_series(), np.arange(24), [1], window_length=100, evaluation_repetitions=1)
    assert last.calibration[1].tolist() == list(range(12, 18))
    assert last.evaluation.tolist() == list(range(6, 12))


@st.composite
def corpora(draw):
    """Windows in any order, of any number of repetitions, cut on a grid of any stride."""
    counts = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    performances = [(label, f"{r % 2}", f"{r % 3}", r) for label, count in enumerate(counts) for r in range(count)]
    made = origins(
        *draw(st.permutations(performances)), windows=draw(st.integers(1, 4)), stride=draw(st.integers(20, 150))
    )
    return made, counts


def reaches_into_evaluation(windows, counts, most, last):
    """Whether every window of some gesture's first repetitions shares samples with one that is evaluated."""
    ranks = repetition_ranks(windows, np.arange(len(windows.label)))
    first = np.array([most if last is None else counts[label] - last for label in windows.label])
    evaluated = np.flatnonzero(ranks >= first)

    def is_free(i):
        same = evaluated[windows.recording[evaluated] == windows.recording[i]]
        return (np.abs(windows.start[same] - windows.start[i]) >= 100).all()

    return any(
        not any(is_free(i) for i in np.flatnonzero((windows.label == label) & (ranks < shots) & (ranks < first)))
        for shots in range(1, most + 1)
        for label in range(len(counts))
    )


@settings(max_examples=60, deadline=None)
@given(corpora(), st.data())
def test_no_repetition_and_no_sample_on_both_sides(made, data):
    windows, counts = made
    most = data.draw(st.integers(0, min(counts) - 1))
    last = data.draw(st.one_of(st.none(), st.integers(1, min(counts) - most)))
    rows = np.arange(len(windows.label))
    try:
        split = split_repetitions(windows, rows, range(most + 1), 100, last)
    except EvaluationError as error:
        assert "free of samples" in str(error) and reaches_into_evaluation(windows, counts, most, last)
        return
    alone = split_repetitions(windows, rows, [most], 100, last)
    assert alone.evaluation.tolist() == split.evaluation.tolist()
    assert alone.calibration[most].tolist() == split.calibration[most].tolist()

    def performances(chosen):
        return {
            (windows.label[i], windows.session[i], windows.recording[i], windows.repetition[i]) for i in chosen.tolist()
        }

    for shots, chosen in split.calibration.items():
        assert performances(chosen).isdisjoint(performances(split.evaluation))
        assert len(performances(chosen)) <= shots * len(counts)
        for i in chosen.tolist():
            same = split.evaluation[windows.recording[split.evaluation] == windows.recording[i]]
            assert (np.abs(windows.start[same] - windows.start[i]) >= 100).all()
    assert set(windows.label[split.evaluation]) == set(range(len(counts)))
    evaluated = [count if last is None else last for count in counts]
    expected = sum(n - most if last is None else n for n in evaluated)
    assert len(performances(split.evaluation)) == expected


def test_windows_that_reach_into_the_evaluation_do_not_calibrate():
    grid = origins((0, "1", "r", 1), (0, "1", "r", 2), windows=4, stride=50)
    split = split_repetitions(grid, np.arange(8), [1], window_length=100)
    assert split.evaluation.tolist() == [4, 5, 6, 7]  # the first starts at 200
    assert split.calibration[1].tolist() == [0, 1, 2]  # the fourth covers 150 to 250


def test_too_few_repetitions():
    with pytest.raises(EvaluationError, match="subject a has 4 repetitions of class 0, but shots up to 4 .* need 5"):
        split_repetitions(two_series(), np.arange(24), [0, 4], 100)
    for shots in ([], [-1, 2]):
        with pytest.raises(RecipeError, match="of at least 0"):
            split_repetitions(two_series(), np.arange(24), shots, 100)
    with pytest.raises(RecipeError, match="at least 1 repetition"):
        split_repetitions(two_series(), np.arange(24), [1], 100, evaluation_repetitions=0)
    kept, left_out = personalizable(two_series(), ["a"], [0, 2], 2)
    assert kept == ["a"] and not left_out
    assert personalizable(two_series(), ["a"], [0, 2], 3)[1] == {"a": "0 repetitions of a gesture where 3 are needed"}


def test_every_subject_is_held_out_once():
    subjects = ["s10", "s9", "s1", "s2", "s3"]
    assert subject_groups(subjects) == [("s1",), ("s2",), ("s3",), ("s9",), ("s10",)]
    assert subject_groups(subjects, 3) == [("s1", "s9"), ("s2", "s10"), ("s3",)]
    for folds in (2, 6):
        with pytest.raises(RecipeError, match="3 folds or more"):
            subject_groups(subjects, folds)
