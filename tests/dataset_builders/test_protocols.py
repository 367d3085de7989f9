"""Splits: complete, disjoint, and explicit about who is missing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.base import SplitError
from dataset_builders.protocols import (
    even_subject_split,
    group_split,
    listed,
    natural_key,
    repetition_split,
    split_name,
    subject_split,
)

GROUPS = {"train": ("01", "02"), "validation": ("03",), "test": ("04", "05")}


def test_subject_split():
    split = subject_split(["01", "02", "03", "04", "05"], GROUPS)
    assert split == {"01": "train", "02": "train", "03": "validation", "04": "test", "05": "test"}


def test_missing_subjects_are_listed_unless_allowed():
    with pytest.raises(SplitError, match="2 subjects .* 02, 05.*allow_missing"):
        subject_split(["01", "03", "04"], GROUPS)
    assert subject_split(["01", "03", "04"], GROUPS, allow_missing=True).keys() == {"01", "03", "04"}


def test_an_empty_split_is_an_error_even_so():
    with pytest.raises(SplitError, match="no subject of the validation split"):
        subject_split(["01", "04"], GROUPS, allow_missing=True)


def test_subject_outside_the_protocol():
    with pytest.raises(SplitError, match="99 are in no split"):
        subject_split(["01", "02", "03", "04", "05", "99"], GROUPS)


def test_subject_in_two_splits():
    with pytest.raises(SplitError, match="'01' is in both"):
        group_split({"train": ["01"], "test": ["01"]}, "subject")


@given(st.sets(st.integers(0, 500), min_size=3, max_size=60))
@settings(max_examples=30, deadline=None)
def test_even_split_covers_everyone_once(numbers):
    split = even_subject_split(map(str, numbers))
    assert set(split) == set(map(str, numbers)) and set(split.values()) == {"train", "validation", "test"}
    assert sum(value == "train" for value in split.values()) >= sum(value == "test" for value in split.values())


def test_even_split_needs_three():
    with pytest.raises(SplitError, match="at least 3"):
        even_subject_split(["a", "b"])


def test_repetition_split():
    assert repetition_split({"train": [1, 3], "val": [2]}) == {"train": (1, 3), "validation": (2,)}
    for groups in ({"train": [1], "test": [1]}, {"train": []}, {"train": [0]}):
        with pytest.raises(SplitError):
            repetition_split(groups)


def test_names():
    assert split_name(" Val ") == "validation"
    with pytest.raises(SplitError, match="unknown split 'holdout'"):
        split_name("holdout")
    assert sorted(["s10", "s9", "a2b", "s"], key=natural_key) == ["a2b", "s", "s9", "s10"]


def test_names_are_listed_in_runs():
    assert listed(["u9", "u10", "u2", "u3", "u4", "x", "u12"]) == "u2 to u4, u9, u10, u12, x"
    assert listed(["01", "02", "03", "11"]) == "01 to 03, 11"
    assert listed([]) == "" and listed(["a", "b", "c"]) == "a, b, c"
