"""Shares of a training split: of every class alike, nested, and repeatable."""

from collections import Counter

import pytest
from tiny_run import make_split

from trainers.errors import RecipeError
from trainers.parsing import parse_recipe
from trainers.subsets import training_fraction


def test_a_share_of_each_class():
    split = make_split(96, 0, ("a", "b"))
    tenth = training_fraction(split, 0.1)
    assert Counter(tenth["label"]) == {0: 3, 1: 3, 2: 3}  # 32 windows of each
    assert set(tenth["start"]) < set(training_fraction(split, 0.5)["start"]) < set(split["start"])
    assert tenth["start"] == training_fraction(split, 0.1)["start"] != training_fraction(split, 0.1, seed=1)["start"]
    assert Counter(training_fraction(split, 0.001)["label"]) == {0: 1, 1: 1, 2: 1}
    assert training_fraction(split, 1.0) is split


def test_a_run_learns_from_the_share_alone(train_tiny):
    results = train_tiny(train_fraction=0.25, num_train_epochs=1)
    assert results["windows"] == {"train": 24, "validation": 48, "test": 60}


def test_shares_that_are_none():
    for share in (0.0, 1.5, -0.1):
        with pytest.raises(RecipeError, match="train_fraction"):
            parse_recipe({"dataset": "synthetic", "output_dir": "x", "report_to": "none", "train_fraction": share})
