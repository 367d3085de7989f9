"""Words of recognition: greedy, and by a beam search over a lexicon with a language model, both of the training texts.

The words of validation and test never get into the lexicon or the language model: the released code takes its lexicon
from all splits, which tells the decoder what was said.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import cached_file

from tinymyo_hf.lexicon import LexiconError, lexicon_of, read_lexicon, write_lexicon
from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.ctc_trainer import collapse
from trainers.errors import RecipeError
from trainers.speech_arguments import RecognitionArguments
from trainers.speech_corpus import Utterance
from trainers.word_metrics import word_errors

LEXICON_FILE, MODEL_FILE = "lexicon.txt", "lm.arpa"
ORDER = 4
EXAMPLES = 12
RATES = ("wer", "cer")
COUNTS = ("substitutions", "deletions", "insertions", "words", "utterances")


class Words:
    """A lexicon and a language model, and how they are used.

    Attributes:
        lexicon: the words that can be recognised, sorted.
        model: file of the language model; None without one.
    """

    def __init__(self, lexicon: Sequence[str], model: Path | None, arguments: RecognitionArguments):
        self.lexicon, self.model, self.arguments = list(lexicon), model, arguments
        self._folder: tempfile.TemporaryDirectory | None = None

    @classmethod
    def of_texts(cls, texts: Iterable[str], arguments: RecognitionArguments) -> Words:
        """Those of the recipe, or else made of training texts, which are normalised.

        Raises:
            RecipeError: a file of the recipe cannot be used.
        """
        texts = list(texts)
        lexicon = lexicon_of(texts) if arguments.lexicon_path is None else _read(arguments.lexicon_path)
        if arguments.lm_path is not None:
            return cls(lexicon, _existing(arguments.lm_path), arguments)
        from tinymyo_hf.language_model import build_language_model

        folder = tempfile.TemporaryDirectory(prefix="tinymyo_lm_")
        words = cls(lexicon, Path(folder.name) / MODEL_FILE, arguments)
        words._folder = folder  # which lasts as long as this object
        build_language_model(texts, words.model, order=ORDER)
        return words

    @classmethod
    def of_checkpoint(cls, checkpoint: str, arguments: RecognitionArguments) -> Words | None:
        """Those of the arguments, or else those saved beside a model; None if there is no lexicon.

        Raises:
            RecipeError: as of `of_texts`.
        """
        lexicon, model = (
            path or cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False)
            for path, name in ((arguments.lexicon_path, LEXICON_FILE), (arguments.lm_path, MODEL_FILE))
        )
        if lexicon is None:
            return None
        return cls(_read(lexicon), None if model is None else _existing(model), arguments)

    def save(self, folder: Path) -> None:
        """Write both beside a model: `lexicon.txt` and `lm.arpa`, the latter also where KenLM's own format was given,
        which readers tell by the content."""
        write_lexicon(self.lexicon, folder / LEXICON_FILE)
        if self.model is not None:
            shutil.copyfile(self.model, folder / MODEL_FILE)

    def decoder(self, tokenizer: EmgCharacterTokenizer, beam_size: int) -> Any | None:
        """A `WordBeamDecoder`; None, and a note, where the packages it needs are not installed.

        Raises:
            RecipeError: the lexicon and the language model do not go together, or the options do not.
        """
        try:
            import flashlight.lib.text.decoder  # noqa: F401
        except ImportError:
            print("no word decoder, scores are greedy: pip install 'tinymyo-hf[ctc]'", flush=True)
            return None
        from tinymyo_hf.decoding_words import WordBeamDecoder

        of = self.arguments
        try:
            return WordBeamDecoder(tokenizer, self.lexicon, self.model, beam_size, of.lm_weight, of.word_score)
        except ValueError as error:
            raise RecipeError(f"lexicon_path, lm_path: {error}") from error


def _read(lexicon_path: str) -> list[str]:
    try:
        return read_lexicon(lexicon_path)
    except LexiconError as error:
        raise RecipeError(f"lexicon_path: {error}") from error


def _existing(lm_path: str) -> Path:
    path = Path(lm_path).expanduser()
    if not path.is_file():
        raise RecipeError(f"lm_path: {path}: no such file; make one with `tinymyo build-lm TEXT --out {path.name}`")
    return path


@dataclass(frozen=True)
class Recognised:
    """An utterance and what was made of it.

    Attributes:
        greedy, beam: text by the best label of every frame, by the word decoder (None without one).
        seconds: that network and greedy decoding took, and the beam search.
    """

    utterance: Utterance
    greedy: str
    beam: str | None
    seconds: tuple[float, float]


def greedy_text(frame_ids: np.ndarray, tokenizer: EmgCharacterTokenizer) -> str:
    """(frames,) best ids, padded with negative ones -> words, apart by one space each."""
    return " ".join(tokenizer.decode(collapse(frame_ids, tokenizer.pad_token_id)).split())


def recognise(
    utterance: Utterance, logits: np.ndarray, tokenizer: EmgCharacterTokenizer, decoder: Any | None, seconds: float
) -> Recognised:
    """Text of the logits (frames, vocabulary) of an utterance, for which the network took `seconds`."""
    started = time.perf_counter()
    greedy = greedy_text(logits.argmax(-1), tokenizer)
    middle = time.perf_counter()
    beam = None if decoder is None else decoder.decode(logits)
    return Recognised(utterance, greedy, beam, (seconds + middle - started, time.perf_counter() - middle))


def recognition_scores(found: Sequence[Recognised], frame_rate: float) -> dict[str, Any]:
    """All scores of a split: greedy `wer` and `cer` in percent, `wer_lm` and `cer_lm` of the beam search (absent
    without one), counts of words and errors, `per_mode`, examples and real-time factors (of one process on this
    machine).

    Args:
        frame_rate: frames of the model per second.
    """
    scores = _rates(found)
    modes = sorted({item.utterance.mode for item in found})
    scores["per_mode"] = [
        {"mode": mode} | _rates([item for item in found if item.utterance.mode == mode]) for mode in modes
    ]
    seconds = sum(item.utterance.frames for item in found) / frame_rate
    scores["real_time_factor"] = sum(item.seconds[0] for item in found) / seconds
    if "wer_lm" in scores:
        scores["real_time_factor_lm"] = sum(sum(item.seconds) for item in found) / seconds
    scores["examples"] = [
        {
            "recording": item.utterance.name,
            "mode": item.utterance.mode,
            "said": item.utterance.text,
            "greedy": item.greedy,
            "beam": item.beam,
        }
        for item in found[:: max(len(found) // EXAMPLES, 1)][:EXAMPLES]
    ]
    return scores


def _rates(found: Sequence[Recognised]) -> dict[str, Any]:
    said = [item.utterance.text for item in found]
    greedy = word_errors(said, [item.greedy for item in found])
    scores: dict[str, Any] = {name: greedy[name] for name in (*RATES, *COUNTS)}
    if all(item.beam is not None for item in found):
        beam: Mapping[str, Any] = word_errors(said, [item.beam for item in found])
        scores |= {f"{name}_lm": beam[name] for name in (*RATES, *COUNTS[:3])}
    return scores
