"""From the logits of a CTC model to words: a beam search over a lexicon with a word language model, by flashlight.

The score of a sequence of words is the natural log of the probability of its best alignment (the maximum over
alignments, not their sum, as in the published decoding), plus `lm_weight` times the log10 score that the language model
gives the words and the end of the sentence, plus `word_score` for each word. Between words the model has to write a
space; before the first and after the last it may.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .decoding import DecodingError, log_probabilities
from .decoding_lm import LanguageModelError, unreadable
from .lexicon import LexiconError, lexicon_of, read_lexicon

if TYPE_CHECKING:
    from .characters import CharacterSet

__all__ = ["LexiconError", "WordBeamDecoder", "WordHypothesis", "lexicon_of"]

UNKNOWN = "<unk>"
_IMPOSSIBLE = -1e4  # natural log; -inf would make differences of scores undefined


@dataclass(frozen=True)
class WordHypothesis:
    """What was said.

    Attributes:
        text: words, apart by one space each.
        score: as this module defines it.
    """

    text: str
    score: float


class WordBeamDecoder:
    """Beam search for the best sequence of words of a lexicon.

    The defaults are those of the silent speech papers: `lm_weight` 2 and a beam of 150 on the validation split, of 1500
    on the test split.

    Args:
        tokenizer: names the characters and the blank; a space is among the characters. Or a `CharacterVocabulary`.
        lexicon: the words, in characters of the tokenizer, or the path of a lexicon file (`tinymyo_hf.lexicon`);
            nothing else can be recognised.
        lm_path: a KenLM model of words in the spelling of the lexicon, ARPA or binary. None for none.
        beam_size: hypotheses that are kept after each frame.
        lm_weight: of the language model; without one it does not count.
        word_score: added for each word; above 0 for more and shorter words.
        beam_threshold: hypotheses that score so much worse than the best are dropped, in natural log. Whatever the beam
            size, a lower value makes the search faster.

    Attributes:
        words: the lexicon, sorted.
        unknown_words: how many of them the language model does not know and scores as `<unk>`.

    Raises:
        DecodingError: options that no search can work with, a tokenizer without space, or flashlight is not installed.
        LexiconError: an empty lexicon, or words with characters that the tokenizer does not have.
        LanguageModelError: a language model that is missing, unreadable, or knows none of the words.
    """

    def __init__(
        self,
        tokenizer: CharacterSet,
        lexicon: Sequence[str] | str | Path,
        lm_path: str | Path | None = None,
        beam_size: int = 150,
        lm_weight: float = 2.0,
        word_score: float = 0.0,
        beam_threshold: float = 50.0,
    ):
        _check_options(beam_size, lm_weight, word_score, beam_threshold)
        if " " not in tokenizer.characters:
            raise DecodingError(
                "the tokenizer has no space, which parts words; use one with the characters of speech "
                "(tinymyo_hf.speech_text.SPEECH_CHARACTERS)"
            )
        library = _flashlight()
        from flashlight.lib.text.dictionary import Dictionary

        self._ids = tokenizer.get_vocab()
        self._space, self._blank = self._ids[" "], int(tokenizer.pad_token_id)
        self.words = self._checked(lexicon)
        self._lm = library.ZeroLM() if lm_path is None else _load(lm_path, Dictionary([*self.words, UNKNOWN]))
        start = self._lm.start(False)
        scores = [self._lm.score(start, i)[1] for i in range(len(self.words) + 1)]
        # KenLM scores what it does not know as <unk>, which no word that it knows is likely to score alike
        self.unknown_words = 0 if lm_path is None else scores[:-1].count(scores[-1])
        if self.unknown_words == len(self.words):
            raise LanguageModelError(
                f"{lm_path}: the language model knows none of the {len(self.words)} words of the lexicon (such as "
                f"{self.words[0]!r}); it must be one of words, in small letters and without punctuation as the lexicon"
            )
        self._trie = self._trie_of(library, scores)
        options = library.LexiconDecoderOptions(
            beam_size=beam_size,
            beam_size_token=len(self._ids),
            beam_threshold=beam_threshold,
            lm_weight=lm_weight,
            word_score=word_score,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=False,
            criterion_type=library.CriterionType.CTC,
        )
        self._decoder = library.LexiconDecoder(
            options, self._trie, self._lm, self._space, self._blank, len(self.words), [], False
        )

    def decode(self, logits: ArrayLike) -> str:
        """The best text of one utterance.

        Args:
            logits: (frames, vocabulary), an array or a tensor of any scale; frames of padding are to be cut off.

        Raises:
            DecodingError: another shape, such as another vocabulary, or logits that are not numbers.
        """
        return self.hypothesis(logits).text

    def hypothesis(self, logits: ArrayLike) -> WordHypothesis:
        """The best text and its score; arguments and errors as of `decode`.

        A beam that is so small that it holds nothing but unfinished words at the end gives the words before these, and
        a score with no meaning.
        """
        frames = np.maximum(log_probabilities(logits, len(self._ids)), _IMPOSSIBLE)
        # words of the lexicon end with a space; one more frame writes that of the last, at no cost
        end = np.full((1, len(self._ids)), _IMPOSSIBLE)
        end[0, self._space] = 0.0
        emissions = np.ascontiguousarray(np.concatenate([frames, end]), dtype=np.float32)
        best = self._decoder.decode(emissions.ctypes.data, *emissions.shape)[0]
        return WordHypothesis(" ".join(self.words[i] for i in best.words if i >= 0), best.score)

    def _checked(self, lexicon: Sequence[str] | str | Path) -> list[str]:
        """The words, each once, sorted: scores that tie are settled in the same way whatever the order."""
        words = sorted(set(read_lexicon(lexicon) if isinstance(lexicon, str | Path) else lexicon))
        if not words:
            raise LexiconError("the lexicon is empty; give the words of the training texts (lexicon_of)")
        known = {c for c, i in self._ids.items() if i not in (self._space, self._blank)}
        if wrong := [word for word in words if not word or not known.issuperset(word)]:
            listed = ", ".join(repr(word) for word in wrong[:10])
            file = f"{lexicon}: " if isinstance(lexicon, str | Path) else ""
            raise LexiconError(
                f"{file}{len(wrong)} words of the lexicon have characters that the tokenizer does not have, or none: "
                f"{listed}{' ...' if len(wrong) > 10 else ''}; normalise the texts that they come from, as lexicon_of "
                "and `tinymyo build-lm --normalize` do"
            )
        return words

    def _trie_of(self, library: Any, scores: Sequence[float]) -> Any:
        """The words by their characters; a node knows the best score that a word below it can begin a sentence with."""
        trie = library.Trie(len(self._ids), self._space)
        for i, word in enumerate(self.words):
            trie.insert([*(self._ids[character] for character in word), self._space], i, scores[i])
        trie.smear(library.SmearingMode.MAX)
        return trie


def _check_options(beam_size: int, lm_weight: float, word_score: float, beam_threshold: float) -> None:
    if beam_size < 1:
        raise DecodingError(f"beam_size is {beam_size}; give 1 or more")
    if not beam_threshold > 0:
        raise DecodingError(f"beam_threshold is {beam_threshold}; give a number above 0, such as 50")
    for name, value in {"lm_weight": lm_weight, "word_score": word_score}.items():
        if not math.isfinite(value):
            raise DecodingError(f"{name} is {value}; give a number")


def _flashlight() -> Any:
    try:
        from flashlight.lib.text import decoder
    except ImportError as error:
        raise DecodingError(
            "the word decoder needs the package flashlight-text: pip install 'tinymyo-hf[ctc]'"
        ) from error
    return decoder


def _load(path: str | Path, dictionary: Any) -> Any:
    path = Path(path).expanduser()
    if not path.is_file():
        make = f"make one with `tinymyo build-lm TEXT --out {path.name}`"
        raise LanguageModelError(f"{path}: no such language model; {make}")
    try:
        from flashlight.lib.text.decoder.kenlm import KenLM
    except ImportError as error:
        raise LanguageModelError(
            "this flashlight-text was built without KenLM, which reads language models; install its wheel from PyPI"
        ) from error
    try:
        return KenLM(str(path), dictionary)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise unreadable(path, " ".join(str(error).split())) from error
