"""Error rates of decoded text: CER and the insertions, deletions and substitutions it consists of.

The convention is that of speech recognition: an insertion is a character that was decoded but not typed, a deletion
one that was typed but not decoded. (The emg2qwerty release counts the edits the other way round, from the decoded text
to the typed one: its IER is the DER here and its DER the IER; its CER is the same.) Rates are percentages of the
characters typed, micro-averaged: edits of all sequences together over characters of all together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from rapidfuzz.distance import Levenshtein

from trainers.errors import EvaluationError
from trainers.metrics import OfflineMetric

TEXT_RATES = ("cer", "ier", "der", "ser")


@dataclass(frozen=True)
class Errors:
    """Counts of one sequence, or the sum of several.

    Attributes:
        insertions, deletions, substitutions: edits of a shortest path from the target to the prediction. There can be
            several such paths; their number of edits is the same.
        target_length: characters of the target.
    """

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    target_length: int = 0

    @property
    def total(self) -> int:
        """All edits: the Levenshtein distance."""
        return self.insertions + self.deletions + self.substitutions

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
            self.target_length + other.target_length,
        )

    def rates(self) -> dict[str, float | None]:
        """`TEXT_RATES` in percent; None for each where nothing was typed."""
        counts = (self.total, self.insertions, self.deletions, self.substitutions)
        if not self.target_length:
            return dict.fromkeys(TEXT_RATES)
        return {rate: 100.0 * count / self.target_length for rate, count in zip(TEXT_RATES, counts, strict=True)}


def character_errors(prediction: Sequence[int] | str, target: Sequence[int] | str) -> Errors:
    """The edits that make `prediction` of `target`.

    Args:
        prediction: ids without blanks, as the decoders give them, or text.
        target: ids or text likewise; may be empty.

    Examples:
        >>> character_errors("hxllo!", "hello")
        Errors(insertions=1, deletions=0, substitutions=1, target_length=5)
    """
    edits = Counter(edit.tag for edit in Levenshtein.editops(_sequence(target), _sequence(prediction)))
    return Errors(edits["insert"], edits["delete"], edits["replace"], len(target))


def text_scores(errors: Sequence[Errors], subjects: Sequence[str] | None = None) -> dict[str, Any]:
    """All scores of several sequences; plain types.

    Args:
        errors: of each sequence.
        subjects: whose each sequence is; adds `per_subject`.

    Returns:
        The pooled `TEXT_RATES` in percent (None where nothing was typed in any sequence), `insertions`, `deletions`,
        `substitutions`, `characters` (typed), `sequences`, and `empty`, how many of these had nothing typed (what was
        decoded there counts as insertions). `per_subject`: a row for each, sorted by name, {"subject", ...all of the
        above}. `subject_cer_mean`: mean over the subjects who typed, None if nobody did.

    Raises:
        EvaluationError: not one subject per sequence.
    """
    if subjects is not None and len(subjects) != len(errors):
        raise EvaluationError(f"{len(subjects)} subjects for {len(errors)} sequences; give one for each sequence")
    scores = _pooled(errors)
    if subjects is not None:
        names = [str(subject) for subject in subjects]
        scores["per_subject"] = [
            {"subject": name} | _pooled([e for e, subject in zip(errors, names, strict=True) if subject == name])
            for name in sorted(set(names))
        ]
        rates = [row["cer"] for row in scores["per_subject"] if row["cer"] is not None]
        scores["subject_cer_mean"] = sum(rates) / len(rates) if rates else None
    return scores


def _pooled(errors: Sequence[Errors]) -> dict[str, Any]:
    total = sum(errors, Errors())
    return total.rates() | {
        "insertions": total.insertions,
        "deletions": total.deletions,
        "substitutions": total.substitutions,
        "characters": total.target_length,
        "sequences": len(errors),
        "empty": sum(not e.target_length for e in errors),
    }


def _sequence(ids: Sequence[int] | str) -> Sequence[int] | str:
    """Text as it is; ids as plain numbers, which are compared faster than those of numpy or torch."""
    return ids if isinstance(ids, str) else [int(i) for i in ids]


_IDS = datasets.List(datasets.Value("int64"))


class CharacterErrorRate(OfflineMetric):
    """`cer` and what belongs to it in percent, as `text_scores` gives them.

    `predictions` and `references` hold one list of ids per sequence, without blanks or padding; `subjects`, whose each
    sequence is, may be given besides.

    Examples:
        >>> CharacterErrorRate().compute(predictions=[[1, 2, 3]], references=[[1, 2]])["cer"]
        50.0
    """

    FEATURES = {"predictions": _IDS, "references": _IDS}

    def _compute(
        self,
        predictions: Sequence[Sequence[int]],
        references: Sequence[Sequence[int]],
        subjects: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        if not any(references):
            raise EvaluationError(
                f"nothing was typed in the {len(references)} sequences, so there is no error rate; evaluate sessions "
                "with keystrokes"
            )
        errors = [character_errors(ids, target) for ids, target in zip(predictions, references, strict=True)]
        return text_scores(errors, subjects)
