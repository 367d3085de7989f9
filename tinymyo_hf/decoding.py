"""From the logits of a CTC model to ids and text: greedy, or a beam search with an optional language model.

Logits are (frames, vocabulary) of one sequence, or (batch, frames, vocabulary); numpy arrays or tensors, any scale
(they are normalised). Each decoder has a form for whole sequences and one for live ones, which gives the same result
for any way of cutting the sequence into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .decoding_beam import Beam, BeamOptions, Prefix
from .decoding_lm import CharacterLanguageModel, LanguageModelError

if TYPE_CHECKING:
    from .characters import CharacterSet

__all__ = [
    "BeamSearchDecoder",
    "BeamStream",
    "DecodingError",
    "GreedyStream",
    "Hypothesis",
    "LanguageModelError",
    "greedy_decode",
]

BLANK = 98  # of the character set of emg2qwerty


class DecodingError(ValueError):
    """Logits that cannot be decoded, or options that no decoder can work with."""


def greedy_decode(logits: ArrayLike, lengths: ArrayLike | None = None, blank: int = BLANK) -> list[list[int]]:
    """The best label of every frame, repetitions collapsed, blanks left out.

    Args:
        logits: (batch, frames, vocabulary).
        lengths: (batch,) frames of each sequence that are no padding; None for all.
        blank: id of the blank.

    Returns:
        The ids of each sequence.

    Raises:
        DecodingError: another shape, lengths that do not fit, or NaN within a sequence.

    Examples:
        >>> greedy_decode(np.eye(3)[[[0, 0, 2, 0, 1]]], blank=2)
        [[0, 0, 1]]
    """
    if np.ndim(logits) != 3:
        raise DecodingError(f"logits have the shape {tuple(np.shape(logits))}; pass (batch, frames, vocabulary)")
    best = _best_labels(logits, blank)
    batch, frames = best.shape
    lengths = np.full(batch, frames) if lengths is None else _to_numpy(lengths)
    if lengths.shape != (batch,) or (batch and not 0 <= lengths.min() <= lengths.max() <= frames):
        raise DecodingError(f"lengths must be {batch} numbers from 0 to {frames}, one for each sequence")
    inside = np.arange(frames) < lengths[:, None]
    _check_numbers(best, inside)
    before = np.concatenate([np.full((batch, 1), blank), best[:, :-1]], axis=1)
    kept = inside & (best != blank) & (best != before)
    return [row[keep].tolist() for row, keep in zip(best, kept, strict=True)]


class GreedyStream:
    """Greedy decoding of a live sequence.

    Examples:
        >>> stream = GreedyStream(blank=2)
        >>> stream.push(np.eye(3)[[0, 0]]), stream.push(np.eye(3)[[0, 2, 0]])
        ([0], [0])
    """

    def __init__(self, blank: int = BLANK):
        self.blank = blank
        self.reset()

    def reset(self) -> None:
        """Begins another sequence."""
        self._last = self.blank

    def push(self, logits: ArrayLike) -> list[int]:
        """The ids that the next frames, (frames, vocabulary), add.

        Raises:
            DecodingError: another shape, or NaN.
        """
        if np.ndim(logits) != 2:
            raise DecodingError(f"logits have the shape {tuple(np.shape(logits))}; pass (frames, vocabulary)")
        if not len(logits):
            return []
        best = _best_labels(logits, self.blank)
        _check_numbers(best[None], np.ones((1, len(best)), bool))
        before = np.concatenate([[self._last], best[:-1]])
        self._last = int(best[-1])
        return best[(best != self.blank) & (best != before)].tolist()


@dataclass(frozen=True)
class Hypothesis:
    """What has been decoded so far.

    Attributes:
        added: ids that became stable with the last push: all hypotheses of the beam begin with what is stable, and it
            is never taken back.
        tail: ids of the best hypothesis behind what is stable; the next push may change them.
        score: natural log of the probability of the best hypothesis, scores of the language model included.
    """

    added: tuple[int, ...]
    tail: tuple[int, ...]
    score: float
    _history: list[int] = field(repr=False)
    _length: int = field(repr=False)
    _tokens: Sequence[str] = field(repr=False)

    @property
    def stable_ids(self) -> list[int]:
        """All ids that are stable."""
        return self._history[: self._length]

    @property
    def ids(self) -> list[int]:
        """The ids of the best hypothesis, the stable ones first."""
        return [*self.stable_ids, *self.tail]

    @property
    def stable(self) -> str:
        """The text that is stable."""
        return "".join(self._tokens[i] for i in self.stable_ids)

    @property
    def text(self) -> str:
        """The text of the best hypothesis, which begins with the stable one."""
        return "".join(self._tokens[i] for i in self.ids)


class BeamSearchDecoder:
    """Prefix beam search, with a character language model where there is one.

    A hypothesis is scored by the probability that the model gives it, in natural log, and with a language model by
    `lm_weight` times its log10 score and `insertion_bonus` for every key, as in the emg2qwerty release, whose values
    are the defaults. Backspace takes back score and bonus of the key before it, and stays in the text.

    Args:
        tokenizer: names the characters and the blank; or a `CharacterVocabulary`.
        beam_size: hypotheses that are kept after each frame.
        lm_path: a KenLM model, ARPA or binary; see `tinymyo_hf.decoding_lm` for what it is trained on. None for none.
        lm_weight, insertion_bonus: as above; without a language model neither counts.
        max_labels_per_step: so many of the most probable labels of a frame, the blank among them, are looked at.
        max_delay: what the best hypothesis has had for so many frames is settled: others that differ there are dropped.
            None (as in the release) never settles, and two readings of one key can then stand beside each other until
            many later keys are as doubtful; live text is stable at the latest after this delay.

    Raises:
        DecodingError: sizes or a delay below 1.
        LanguageModelError: a language model that cannot be used.
    """

    def __init__(
        self,
        tokenizer: CharacterSet,
        beam_size: int = 50,
        lm_path: str | Path | None = None,
        lm_weight: float = 2.0,
        insertion_bonus: float = 2.0,
        max_labels_per_step: int = 10,
        max_delay: int | None = None,
    ):
        counts = {"beam_size": beam_size, "max_labels_per_step": max_labels_per_step, "max_delay": max_delay}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise DecodingError(f"{name} is {value}; give 1 or more")
        self.options = BeamOptions(beam_size, max_labels_per_step, lm_weight, insertion_bonus, max_delay)
        self.blank: int = tokenizer.pad_token_id
        ids = tokenizer.get_vocab()
        self.tokens: list[str] = sorted(ids, key=ids.__getitem__)
        self.language_model = None
        if lm_path is not None:
            self.language_model = CharacterLanguageModel(lm_path, self.tokens, self.blank)

    def decode(self, logits: ArrayLike) -> Hypothesis:
        """The best hypothesis of a whole sequence, (frames, vocabulary).

        Raises:
            DecodingError: another shape, or logits that are not numbers.
        """
        stream = self.stream()
        stream.push(logits)
        return stream.finish()

    def stream(self) -> BeamStream:
        """Decodes a live sequence; several can go on at a time."""
        return BeamStream(self)


class BeamStream:
    """Beam search over a live sequence; made by `BeamSearchDecoder.stream`."""

    def __init__(self, decoder: BeamSearchDecoder):
        self._decoder = decoder
        self._beam = Beam(len(decoder.tokens), decoder.blank, decoder.options, decoder.language_model)
        self._stable: list[int] = []
        self._finished = False

    def push(self, logits: ArrayLike) -> Hypothesis:
        """What is decoded after the next frames, (frames, vocabulary), of which there may be none.

        Raises:
            DecodingError: another shape, logits that are not numbers, or the stream is finished.
        """
        if self._finished:
            raise DecodingError("the stream is finished; begin another with stream()")
        frames = log_probabilities(logits, len(self._decoder.tokens))
        count = min(self._decoder.options.max_labels_per_step, frames.shape[1])
        considered = np.argsort(-frames, axis=1, kind="stable")[:, :count]
        for frame, labels in zip(frames, considered, strict=True):
            self._beam.step(frame, labels)
        return self._advance(self._beam.settled())

    def finish(self) -> Hypothesis:
        """The result, all of it stable: nothing comes after."""
        if not self._finished:
            self._beam.end()
            self._finished = True
        return self._advance(_labels_after(self._beam.best()[0], len(self._stable)))

    def _advance(self, added: list[int]) -> Hypothesis:
        best, score = self._beam.best()
        self._stable += added
        tail = _labels_after(best, len(self._stable))
        tokens = self._decoder.tokens
        return Hypothesis(tuple(added), tuple(tail), score, self._stable, len(self._stable), tokens)


def _labels_after(prefix: Prefix, depth: int) -> list[int]:
    """The labels of a prefix behind the first `depth`."""
    labels: list[int] = []
    node: Prefix | None = prefix
    while node is not None and node.depth > depth:
        labels.append(node.label)
        node = node.parent
    return labels[::-1]


def _to_numpy(values: Any) -> np.ndarray:
    """An array of what may be a tensor on any device, of any type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # numpy has no bfloat16
    return np.asarray(values)


def _best_labels(logits: Any, blank: int) -> np.ndarray:
    """(..., vocabulary) -> (...), the best labels; -1 where logits are NaN. Of tensors only these are copied."""
    logits = logits if hasattr(logits, "detach") else np.asarray(logits)
    if not 0 <= blank < logits.shape[-1]:
        raise DecodingError(f"the blank is id {blank}, but the vocabulary has {logits.shape[-1]} ids; pass its blank")
    if 0 in logits.shape:
        return np.zeros(tuple(logits.shape[:-1]), np.int64)
    best, values = _to_numpy(logits.argmax(-1)), logits.max(-1)
    values = _to_numpy(getattr(values, "values", values))  # of a tensor: with the indices
    return np.where(np.isnan(values), -1, best)


def _check_numbers(best: np.ndarray, inside: np.ndarray) -> None:
    faulty = np.argwhere((best < 0) & inside)
    if len(faulty):
        raise DecodingError(
            f"the logits of sequence {faulty[0][0]}, frame {faulty[0][1]}, are not numbers (NaN); the model has "
            "diverged or its input is damaged"
        )


def log_probabilities(logits: ArrayLike, vocabulary: int) -> np.ndarray:
    """(frames, vocabulary) log probabilities in float64, natural log; `DecodingError` if the logits have none."""
    values = _to_numpy(logits).astype(np.float64)
    if values.ndim != 2 or values.shape[1] != vocabulary:
        raise DecodingError(
            f"logits have the shape {values.shape}; pass (frames, {vocabulary}), the vocabulary of the tokenizer"
        )
    if not len(values):
        return values
    top = values.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        frame = int(np.argwhere(~np.isfinite(top))[0][0])
        raise DecodingError(
            f"the logits of frame {frame} are not numbers (NaN or infinite); the model has diverged or its input is "
            "damaged"
        )
    values = values - top
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))
