"""Error rates of recognised speech: WER and CER by jiwer, as the silent speech papers report them.

Rates are percentages, micro-averaged: edits of all utterances together over the words (characters, spaces among them)
said in all together. An insertion is a word that was recognised but not said. Utterances where nothing was said have
no rate and are left out of every count but `empty`, as in the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from typing import Any

import datasets
import jiwer

from trainers.errors import EvaluationError
from trainers.metrics import OfflineMetric

__all__ = ["WordErrorRate", "word_errors"]


def word_errors(references: Sequence[str], predictions: Sequence[str]) -> dict[str, Any]:
    """The errors of recognised texts; plain types.

    Args:
        references: what was said. Both are compared as they are: pass both through
            `tinymyo_hf.speech_text.normalize_text`, unless they come from there.
        predictions: what was recognised, one text for each of `references`; may be empty texts.

    Returns:
        `wer` and `cer` in percent; `substitutions`, `deletions` and `insertions` of words; `words` said; `utterances`
        scored; `empty`, references without a word, which are not scored; `items`, the same for each utterance in turn
        (without `utterances` and `empty`), None where the reference is empty.

    Raises:
        EvaluationError: not one prediction per reference, or no reference with a word.

    Examples:
        >>> scores = word_errors(["the old man", ""], ["the man", "a"])
        >>> round(scores["wer"], 1), scores["deletions"], scores["empty"]
        (33.3, 1, 1)
    """
    if len(references) != len(predictions):
        raise EvaluationError(f"{len(predictions)} predictions for {len(references)} references; give one for each")
    said = [bool(reference.split()) for reference in references]
    if not any(said):
        raise EvaluationError(
            f"nothing was said in the {len(references)} utterances, so there is no error rate; evaluate a split whose "
            "utterances have text"
        )
    scored = [list(compress(texts, said)) for texts in (references, predictions)]
    words, characters = jiwer.process_words(*scored), jiwer.process_characters(*scored)
    items = [
        {"wer": _rate(*spoken), "cer": _rate(*spelled)} | _word_counts(*spoken)
        for spoken, spelled in zip(_alignments(words), _alignments(characters), strict=True)
    ]
    counts = {name: sum(item[name] for item in items) for name in ("substitutions", "deletions", "insertions", "words")}
    remaining = iter(items)
    return {
        "wer": 100.0 * words.wer,
        "cer": 100.0 * characters.cer,
        **counts,
        "utterances": len(items),
        "empty": len(said) - len(items),
        "items": [next(remaining) if is_scored else None for is_scored in said],
    }


def _alignments(output: jiwer.WordOutput | jiwer.CharacterOutput) -> list[tuple[Counter[str], int]]:
    """Of each utterance how many units every kind of edit has, and how many units were said."""
    found = []
    for chunks, said in zip(output.alignments, output.references, strict=True):
        edits = Counter[str]()
        for chunk in chunks:
            edits[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        found.append((edits, len(said)))
    return found


def _rate(edits: Counter[str], said: int) -> float:
    return 100.0 * (edits.total() - edits["equal"]) / said


def _word_counts(edits: Counter[str], said: int) -> dict[str, int]:
    return {
        "substitutions": edits["substitute"],
        "deletions": edits["delete"],
        "insertions": edits["insert"],
        "words": said,
    }


class WordErrorRate(OfflineMetric):
    """`wer` and what belongs to it, as `word_errors` gives them; `predictions` and `references` are texts.

    Examples:
        >>> WordErrorRate().compute(predictions=["a b"], references=["a c"])["wer"]
        50.0
    """

    FEATURES = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        return word_errors(references, predictions)
