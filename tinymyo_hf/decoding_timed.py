"""Decoding frame by frame, with the frame that each character comes from: for time stamps, in files and live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import ArrayLike

from .characters import CharacterSet
from .decoding import BeamSearchDecoder, DecodingError, GreedyStream

DECODERS = ("greedy", "beam")

TimedId = tuple[int, int]
"""An id and the frame it comes from, counted from 0."""


class TimedDecoder(Protocol):
    """Decodes one sequence."""

    def push(self, logits: ArrayLike) -> list[TimedId]:
        """The ids that are settled by the next frames, (frames, vocabulary); none of them is ever taken back."""

    def finish(self) -> list[TimedId]:
        """The ids that are left when no more frames come."""


class TimedGreedy:
    """Greedy decoding; a character comes from the first frame in which it is the best label."""

    def __init__(self, blank: int):
        self._stream = GreedyStream(blank)
        self._frame = 0

    def push(self, logits: ArrayLike) -> list[TimedId]:
        """See `TimedDecoder`."""
        found = [(i, frame) for frame in range(len(logits)) for i in self._stream.push(logits[frame : frame + 1])]
        first, self._frame = self._frame, self._frame + len(logits)
        return [(i, first + frame) for i, frame in found]

    def finish(self) -> list[TimedId]:
        """Nothing is ever left."""
        return []


class TimedBeam:
    """Beam search; a character comes from the frame since which the best hypothesis has it at its place."""

    def __init__(self, decoder: BeamSearchDecoder):
        self._stream = decoder.stream()
        self._pending: list[TimedId] = []  # of the best hypothesis, not settled
        self._frame = 0

    def push(self, logits: ArrayLike) -> list[TimedId]:
        """See `TimedDecoder`."""
        settled: list[TimedId] = []
        for frame in range(len(logits)):
            hypothesis = self._stream.push(logits[frame : frame + 1])
            settled += self._advance(hypothesis.added, hypothesis.tail)
            self._frame += 1
        return settled

    def finish(self) -> list[TimedId]:
        """See `TimedDecoder`."""
        self._frame = max(self._frame - 1, 0)  # what the end changes comes from the last frame
        hypothesis = self._stream.finish()
        return self._advance(hypothesis.added, hypothesis.tail)

    def _advance(self, added: tuple[int, ...], tail: tuple[int, ...]) -> list[TimedId]:
        ids = [*added, *tail]
        same = 0
        while same < min(len(ids), len(self._pending)) and ids[same] == self._pending[same][0]:
            same += 1
        now = self._pending[:same] + [(i, self._frame) for i in ids[same:]]
        self._pending = now[len(added) :]
        return now[: len(added)]


def timed_decoder(
    tokenizer: CharacterSet, decoder: str = "greedy", lm_path: str | Path | None = None, **options: Any
) -> Callable[[], TimedDecoder]:
    """What makes a decoder for each sequence.

    Args:
        tokenizer: of the model; or its `CharacterVocabulary`.
        decoder: "greedy" or "beam".
        lm_path: a KenLM model for the beam search, see `BeamSearchDecoder`.
        options: further arguments of `BeamSearchDecoder`: beam_size, lm_weight, insertion_bonus, max_labels_per_step.

    Raises:
        DecodingError: another decoder, or options of the beam search for the greedy one.
        LanguageModelError: a language model that cannot be used.
    """
    if decoder not in DECODERS:
        raise DecodingError(f"decoder={decoder!r}: unknown; use one of {', '.join(DECODERS)}")
    if decoder == "greedy":
        given = [*(["lm_path"] if lm_path is not None else []), *options]
        if given:
            raise DecodingError(f"{', '.join(given)}: greedy decoding has no use for it; set decoder to beam")
        blank = tokenizer.pad_token_id
        return lambda: TimedGreedy(blank)
    search = BeamSearchDecoder(tokenizer, lm_path=lm_path, **options)
    return lambda: TimedBeam(search)
