"""How "emg-to-text" reads utterances of silent speech, with a TinyMyo."""

from typing import Any, ClassVar

import numpy as np

from tinymyo_hf.decoding import BeamSearchDecoder, DecodingError, greedy_decode
from tinymyo_hf.decoding_alignment import align_ids
from tinymyo_hf.tasks.base import EmgTask
from tinymyo_hf.tasks.utterances import UtteranceReader

LEXICON_FILE = "lexicon.txt"
LANGUAGE_MODEL_FILE = "lm.arpa"

OPTIONS = {
    "greedy": (),
    "beam": ("lm_path", "beam_size", "lm_weight", "insertion_bonus", "max_labels_per_step"),
    "words": ("lm_path", "lexicon_path", "beam_size", "lm_weight", "word_score"),
}
"""What can be chosen for each decoder."""


class SpeechText(UtteranceReader):
    """The words said aloud, or mouthed, in whole utterances."""

    takes_batches: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = (LEXICON_FILE, LANGUAGE_MODEL_FILE)

    def __init__(self, task: EmgTask):
        super().__init__(task)
        self.vocabulary = task.vocabulary
        self._made: tuple[dict[str, Any], Any] | None = None  # the last decoder: a language model loads slowly

    def text(self, output: dict[str, Any], **options: Any) -> dict[str, Any]:
        """What `pipeline("emg-to-text")` returns for "logits" (1, frames or more, vocabulary).

        Raises:
            DecodingError, LanguageModelError: options that no decoder can work with.
        """
        logits = output["logits"][0, : output["frames"]]
        if self._made is None or self._made[0] != options:
            self._made = (options, self._decoder(**options))
        text = self._made[1](logits)
        return {"text": text, "words": self._words(text, logits)}

    def _decoder(self, decoder: str = "greedy", **options: Any) -> Any:
        """logits (frames, vocabulary) -> text"""
        if decoder not in OPTIONS:
            raise DecodingError(f"decoder={decoder!r}: unknown; use one of {', '.join(OPTIONS)}")
        if others := [name for name in options if name not in OPTIONS[decoder]]:
            fits = [other for other, names in OPTIONS.items() if set(others) <= set(names)]
            fix = f"set decoder to {' or '.join(fits)}" if fits else "no decoder takes them together"
            raise DecodingError(f"{', '.join(others)}: the decoder {decoder!r} has no use for it; {fix}")
        if decoder == "greedy":
            return lambda logits: self._spell(greedy_decode(logits[None], blank=self.vocabulary.pad_token_id)[0])
        if decoder == "beam":
            search = BeamSearchDecoder(self.vocabulary, **options)
            return lambda logits: self._spell(search.decode(logits).ids)
        return self._word_decoder(**options)

    def _spell(self, ids: list[int]) -> str:
        """Words apart by one space each, none at the ends."""
        return " ".join(self.vocabulary.decode(ids).split())

    def _word_decoder(self, lm_path: str | None = None, lexicon_path: str | None = None, **options: Any) -> Any:
        from tinymyo_hf.decoding_words import WordBeamDecoder

        lexicon = lexicon_path or self.task.find_file(LEXICON_FILE)
        if lexicon is None:
            raise DecodingError(
                f"decoder='words' needs the words it may write: there is no {LEXICON_FILE} in "
                f"{self.task.source or 'the checkpoint'}; pass lexicon_path, a file with one word a line"
            )
        lm_path = lm_path or self.task.find_file(LANGUAGE_MODEL_FILE)
        return WordBeamDecoder(self.vocabulary, lexicon, lm_path=lm_path, **options).decode

    def _words(self, text: str, logits: np.ndarray) -> list[dict[str, Any]]:
        """Each word with its seconds, from the most probable alignment of the whole text."""
        blank = self.vocabulary.pad_token_id
        spans = align_ids(logits, self.vocabulary.encode(text), blank) if text else []
        words, first = [], 0
        for word in text.split():
            start = end = None
            if spans is not None:
                begin, stop = spans[first][0], spans[first + len(word) - 1][1] + 1
                start, end = self.times(np.array([begin, stop])).tolist()
            words.append({"word": word, "start": start, "end": end})
            first += len(word) + 1
        return words
