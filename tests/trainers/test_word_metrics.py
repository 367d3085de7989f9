"""Errors of recognised speech: by hand, against an edit distance of its own, empty texts, what cannot be scored."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import EvaluationError
from trainers.word_metrics import WordErrorRate, word_errors

TEXTS = st.lists(st.sampled_from(["a", "b", "cd", "dc"]), max_size=5).map(" ".join)


def edit_distance(target, found):
    row = list(range(len(found) + 1))
    for i, wanted in enumerate(target, 1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(found, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != got))
    return row[-1]


def test_by_hand():
    scores = word_errors(["the cat sat", "", "on it", "x y"], ["the bat sat", "noise", "on", "x y z"])
    items = scores.pop("items")
    assert scores == {
        "wer": pytest.approx(100 * 3 / 7),
        "cer": pytest.approx(100 * (1 + 3 + 2) / (11 + 5 + 3)),
        **{"substitutions": 1, "deletions": 1, "insertions": 1, "words": 7, "utterances": 3, "empty": 1},
    }
    assert items[1] is None
    assert items[2] == {"wer": 50, "cer": 60, "substitutions": 0, "deletions": 1, "insertions": 0, "words": 2}
    assert [item["wer"] for item in items if item] == pytest.approx([100 / 3, 50, 50])


def test_many_insertions_make_more_than_a_hundred_percent():
    assert word_errors(["a"], ["b c d"])["wer"] == 300
    assert word_errors(["a b"], [""]) == word_errors(["a b"], ["  "])
    assert word_errors(["a b"], [""])["deletions"] == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_rates_against_an_edit_distance(pairs):
    references, predictions = zip(*pairs, strict=True)
    scored = [(said, found) for said, found in pairs if said]
    if not scored:
        with pytest.raises(EvaluationError, match="nothing was said"):
            word_errors(references, predictions)
        return
    scores = word_errors(references, predictions)
    words = sum(edit_distance(said.split(), found.split()) for said, found in scored)
    assert scores["wer"] == pytest.approx(100 * words / sum(len(said.split()) for said, _ in scored))
    assert scores["substitutions"] + scores["deletions"] + scores["insertions"] == words
    characters = sum(edit_distance(said, found) for said, found in scored)
    assert scores["cer"] == pytest.approx(100 * characters / sum(len(said) for said, _ in scored))


def test_as_a_metric():
    metric = WordErrorRate()
    metric.add_batch(predictions=["a"], references=["a b"])
    metric.add_batch(predictions=["c"], references=["c d"])
    assert metric.compute()["wer"] == 50


def test_what_cannot_be_scored():
    with pytest.raises(EvaluationError, match="1 predictions for 2 references"):
        word_errors(["a", "b"], ["a"])
    with pytest.raises(EvaluationError, match="nothing was said in the 0 utterances"):
        word_errors([], [])
