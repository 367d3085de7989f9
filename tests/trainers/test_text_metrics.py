"""Error rates of text: hand cases, pooling, people, empty targets, speed."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import EvaluationError
from trainers.text_metrics import CharacterErrorRate, Errors, character_errors, text_scores


@pytest.mark.parametrize(
    ("prediction", "target", "insertions", "deletions", "substitutions"),
    [
        ("hello", "hello", 0, 0, 0),
        ("", "hello", 0, 5, 0),
        ("hello", "", 5, 0, 0),
        ("", "", 0, 0, 0),
        ("helo", "hello", 0, 1, 0),
        ("helllo", "hello", 1, 0, 0),
        ("hallo", "hello", 0, 0, 1),
        ("xhelo", "hello", 1, 1, 0),
        ([3, 1, 2], [1, 2], 1, 0, 0),
        ([1, 9], [1, 2, 3], 0, 1, 1),
    ],
)
def test_edits_by_hand(prediction, target, insertions, deletions, substitutions):
    errors = character_errors(prediction, target)
    assert errors.total == insertions + deletions + substitutions
    assert errors == Errors(insertions, deletions, substitutions, len(target))


def distance(a, b):
    """Levenshtein's distance by its recursion."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


SEQUENCES = st.lists(st.integers(0, 3), max_size=9)


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, SEQUENCES)
def test_edits_are_as_few_as_possible_and_make_up_for_the_lengths(prediction, target):
    errors = character_errors(np.array(prediction, np.int64), np.array(target, np.int64))
    assert errors.total == distance(prediction, target)
    assert errors.insertions - errors.deletions == len(prediction) - len(target)


def test_rates_are_pooled_over_characters_and_given_per_person():
    pairs = [("abcd", "abcd"), ("", "ab"), ("xbcdefgh", "abcdefgh"), ("z", ""), ("q", "")]
    errors = [character_errors(*pair) for pair in pairs]
    scores = text_scores(errors, ["b", "b", "a", "a", "c"])
    # 14 characters: 2 deleted, 1 substituted, and 2 inserted where nothing was typed
    assert {rate: scores[rate] for rate in ("cer", "ier", "der", "ser")} == pytest.approx(
        {"cer": 500 / 14, "ier": 200 / 14, "der": 200 / 14, "ser": 100 / 14}
    )
    assert (scores["characters"], scores["sequences"], scores["empty"]) == (14, 5, 2)
    rows = {row["subject"]: row for row in scores["per_subject"]}
    assert list(rows) == ["a", "b", "c"]
    assert (rows["a"]["cer"], rows["a"]["ier"], rows["a"]["ser"]) == (25.0, 12.5, 12.5)
    assert rows["b"]["cer"] == rows["b"]["der"] == pytest.approx(100 / 3)
    assert (rows["c"]["cer"], rows["c"]["insertions"], rows["c"]["empty"]) == (None, 1, 1)
    assert scores["subject_cer_mean"] == pytest.approx((25 + 100 / 3) / 2)
    assert "per_subject" not in text_scores(errors)


def test_metric_works_offline():
    scores = CharacterErrorRate().compute(predictions=[[1, 2, 3], []], references=[[1, 2], [4, 4]], subjects=["a", "b"])
    assert (scores["cer"], scores["ier"], scores["der"]) == (75.0, 25.0, 50.0)
    assert [row["cer"] for row in scores["per_subject"]] == [50.0, 100.0]


def test_nothing_typed():
    scores = text_scores([character_errors("b", ""), character_errors("", "")], ["a", "b"])
    assert (scores["cer"], scores["ier"], scores["insertions"], scores["empty"]) == (None, None, 1, 2)
    assert scores["subject_cer_mean"] is None
    with pytest.raises(EvaluationError, match="nothing was typed in the 2 sequences"):
        CharacterErrorRate().compute(predictions=[[1], []], references=[[], []])


def test_every_sequence_is_of_a_subject():
    with pytest.raises(EvaluationError, match="2 subjects for 1 sequences"):
        text_scores([Errors(target_length=1)], ["x", "y"])


def test_long_sessions_are_fast():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 98, 20_000)
    prediction = np.where(rng.uniform(size=20_000) < 0.3, rng.integers(0, 98, 20_000), target)[:-500]
    start = time.process_time()
    errors = character_errors(prediction, target)
    assert time.process_time() - start < 5  # the table of a plain implementation has 4e8 cells
    assert errors.target_length == 20_000 and errors.total <= 0.3 * 20_000 + 500
