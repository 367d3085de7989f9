"""Evaluation protocols: which recording belongs to which split.

Splits are dicts {"train": ..., "validation": ..., "test": ...} in that order; a split may be left out. Every function
checks that the parts do not overlap: a subject (or session, or repetition) in two splits makes scores worthless.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from .errors import SplitError

SPLITS = ("train", "validation", "test")
SPLIT_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train", "eval": "test"}


def split_name(text: str) -> str:
    """The canonical name ("train", "validation" or "test") of a split written by a user, e.g. "Val"."""
    name = str(text).strip().lower()
    name = SPLIT_ALIASES.get(name, name)
    if name not in SPLITS:
        raise SplitError(f"unknown split {text!r}: write one of {', '.join(SPLITS)}")
    return name


def group_split(groups: Mapping[str, Iterable], what: str) -> dict:
    """Invert {split: members} to {member: split}.

    Args:
        groups: members (subjects, sessions, repetitions) of each split.
        what: singular noun for messages, e.g. "subject".

    Raises:
        SplitError: a member is named in two splits, or a split's name is unknown.
    """
    split_of: dict = {}
    for split, members in groups.items():
        split = split_name(split)
        for member in members:
            if split_of.setdefault(member, split) != split:
                raise SplitError(
                    f"{what} {member!r} is in both the {split_of[member]} and the {split} split: "
                    f"name each {what} in one split only"
                )
    return split_of


def subject_split(
    present: Iterable[str], groups: Mapping[str, Sequence[str]], allow_missing: bool = False
) -> dict[str, str]:
    """The split of each subject that has recordings.

    Args:
        present: subjects found in the data.
        groups: subjects of each split, as the protocol names them.
        allow_missing: accept that subjects named by the protocol have no recording. A split that would be left
            without any subject is an error all the same.

    Returns:
        {subject: split} for the subjects in `present`; a subject that the protocol does not name is an error.
    """
    split_of = group_split(groups, "subject")
    present = set(present)
    missing = [subject for subject in split_of if subject not in present]
    if missing and not allow_missing:
        raise SplitError(
            f"{len(missing)} subjects of the protocol have no recording: {listed(missing)}. Complete the corpus, "
            "or pass allow_missing=True to work with the subjects that are there"
        )
    unknown = sorted(present - split_of.keys())
    if unknown:
        raise SplitError(f"subjects {listed(unknown)} are in no split: name them in the split they belong to")
    for split, members in groups.items():
        if members and not present.intersection(members):
            raise SplitError(f"no subject of the {split} split has a recording ({listed(members)} expected)")
    return {subject: split for subject, split in split_of.items() if subject in present}


def even_subject_split(present: Iterable[str], fractions: tuple[float, float] = (0.15, 0.15)) -> dict[str, str]:
    """Split subjects when a corpus has no protocol of its own: the last ones, in natural order, are held out.

    Args:
        present: subjects found in the data, at least three.
        fractions: shares of subjects for validation and test, each at least one subject.
    """
    subjects = sorted(set(present), key=natural_key)
    if len(subjects) < 3:
        raise SplitError(
            f"a split by subject needs at least 3 subjects, found {len(subjects)} ({', '.join(subjects)}): "
            "add a `split` column to the metadata instead"
        )
    held_out = [max(1, round(fraction * len(subjects))) for fraction in fractions]
    train = len(subjects) - sum(held_out)
    if train < 1:
        raise SplitError(f"fractions {fractions} leave none of the {len(subjects)} subjects for training: lower them")
    borders = {"train": train, "validation": train + held_out[0], "test": len(subjects)}
    return {subject: next(s for s, end in borders.items() if i < end) for i, subject in enumerate(subjects)}


def repetition_split(groups: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The repetitions (counted from 1) of each gesture that each split keeps, for within-subject protocols."""
    group_split(groups, "repetition")
    for split, repetitions in groups.items():
        if not repetitions:
            raise SplitError(f"the {split} split names no repetition: give it at least one")
        if min(repetitions) < 1:
            raise SplitError(f"the {split} split names repetition {min(repetitions)}: repetitions count from 1")
    return {split_name(split): tuple(repetitions) for split, repetitions in groups.items()}


def natural_key(text: str) -> tuple:
    """Sort key that puts "2" before "10" and "s9" before "s10"."""
    # every second part is a number, so parts of two keys always compare
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", str(text))))


def listed(names: Iterable[str]) -> str:
    """Names for a message, in natural order; three or more that count on become "user2 to user9"."""
    runs: list[list[str]] = []
    for name in sorted(set(map(str, names)), key=natural_key):
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def _follows(name: str, other: str) -> bool:
    """Whether `other` is `name` with the number at its end one higher."""
    (stem, number), (other_stem, other_number) = (re.fullmatch(r"(.*?)(\d*)", text).groups() for text in (name, other))
    return stem == other_stem and bool(number and other_number) and int(other_number) == int(number) + 1
