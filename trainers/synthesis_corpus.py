"""What speech synthesis needs of a corpus: a log-mel spectrum and phones of every utterance."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy as np

from tinymyo_hf.audio import NUM_MELS
from trainers.errors import RecipeError
from trainers.speech_corpus import Utterance

_ROWS = 256  # whose lengths are read at a time


def check_targets(split: datasets.Dataset, utterances: Sequence[Utterance], name: str, corpus: str) -> None:
    """Raise `RecipeError` for targets that are no log-mel spectra, and for an utterance without targets, with another
    number of phones, or, read aloud, with another number of frames than its EMG has.

    Args:
        utterances: those of the split that are used.
        name, corpus: of the split and the dataset, for messages.
    """
    bands = split.features["targets"].feature.length
    if bands != NUM_MELS:
        raise RecipeError(
            f"dataset {corpus}: its targets have {bands} numbers per frame, log-mel spectra of speech {NUM_MELS}; "
            "prepare it with these, or train a regression"
        )
    targets, phones = _frames(split, "targets"), _frames(split, "phones")
    for utterance in utterances:
        found = targets[utterance.index], phones[utterance.index]
        needed = found[0] if utterance.silent else utterance.frames
        if not found[0] or set(found) != {needed}:
            raise RecipeError(
                f"dataset {corpus}, {name} split: {utterance.name} has {found[0]} frames of targets, {found[1]} phones "
                f"and {utterance.frames} frames of EMG; it needs as many of each, silent speech as many targets as "
                "phones: prepare it again, or leave it out"
            )


def training_share(utterances: Sequence[Utterance], fraction: float, seed: int) -> list[Utterance]:
    """A random share of the utterances, in their order; at least one of any."""
    order = np.random.default_rng(seed).permutation(len(utterances))
    count = min(len(utterances), max(1, round(fraction * len(utterances))))
    return [utterances[i] for i in np.sort(order[:count])]


def _frames(split: datasets.Dataset, column: str) -> np.ndarray:
    """Frames of each recording: int64 (recordings,)."""
    counts: list[int] = []
    for table in split.select_columns([column, "start"]).with_format("arrow").iter(batch_size=_ROWS):
        lengths = table[column].combine_chunks().value_lengths().to_pylist()
        for start, length in zip(table["start"].to_pylist(), lengths, strict=True):
            if start:
                counts[-1] += length
            else:
                counts.append(length)
    return np.array(counts)
