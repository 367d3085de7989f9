"""How `pipeline("emg-to-text")` reads utterances of silent speech, with a TinyMyo."""

import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers.utils import cached_file

from tinymyo_hf.decoding import BeamSearchDecoder, DecodingError, greedy_decode
from tinymyo_hf.decoding_alignment import align_ids
from tinymyo_hf.pipelines.base import EmgPipeline
from tinymyo_hf.pipelines.utterances import UtteranceReader

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

    extractor_name: ClassVar[str] = "TinyMyoFeatureExtractor"
    takes_batches: ClassVar[bool] = True

    def __init__(self, pipeline: EmgPipeline):
        super().__init__(pipeline)
        self.tokenizer = pipeline.tokenizer
        self._made: tuple[dict[str, Any], Any] | None = None  # the last decoder: a language model loads slowly

    def forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        """{"logits": (utterances, frames, vocabulary)}"""
        return {"logits": self.call(model_inputs).logits.float()}

    def text(self, output: dict[str, Any], **options: Any) -> dict[str, Any]:
        """What `EmgToTextPipeline` returns.

        Raises:
            DecodingError, LanguageModelError: options that no decoder can work with.
        """
        logits = output["logits"][0, : output["frames"]].cpu().numpy()
        if self._made is None or self._made[0] != options:
            self._made = (options, self._decoder(**options))
        text = self._made[1](logits)
        return {"text": text, "words": self._words(text, logits)}

    def save(self, folder: str) -> None:
        """Copy the lexicon and the language model that are beside the model."""
        for name in (LEXICON_FILE, LANGUAGE_MODEL_FILE):
            source = self._beside(name)
            if source is not None and not (Path(folder) / name).exists():
                shutil.copyfile(source, Path(folder) / name)

    def _decoder(self, decoder: str = "greedy", **options: Any) -> Any:
        """logits (frames, vocabulary) -> text"""
        if decoder not in OPTIONS:
            raise DecodingError(f"decoder={decoder!r}: unknown; use one of {', '.join(OPTIONS)}")
        if others := [name for name in options if name not in OPTIONS[decoder]]:
            fits = [other for other, names in OPTIONS.items() if set(others) <= set(names)]
            fix = f"set decoder to {' or '.join(fits)}" if fits else "no decoder takes them together"
            raise DecodingError(f"{', '.join(others)}: the decoder {decoder!r} has no use for it; {fix}")
        if decoder == "greedy":
            return lambda logits: self._spell(greedy_decode(logits[None], blank=self.tokenizer.pad_token_id)[0])
        if decoder == "beam":
            search = BeamSearchDecoder(self.tokenizer, **options)
            return lambda logits: self._spell(search.decode(logits).ids)
        return self._word_decoder(**options)

    def _spell(self, ids: list[int]) -> str:
        """Words apart by one space each, none at the ends."""
        return " ".join(self.tokenizer.decode(ids).split())

    def _word_decoder(self, lm_path: str | None = None, lexicon_path: str | None = None, **options: Any) -> Any:
        from tinymyo_hf.decoding_words import WordBeamDecoder

        lexicon = lexicon_path or self._beside(LEXICON_FILE)
        if lexicon is None:
            raise DecodingError(
                f"decoder='words' needs the words it may write: there is no {LEXICON_FILE} in "
                f"{self.model.config.name_or_path or 'the checkpoint'}; pass lexicon_path, a file with one word a line"
            )
        lm_path = lm_path or self._beside(LANGUAGE_MODEL_FILE)
        return WordBeamDecoder(self.tokenizer, lexicon, lm_path=lm_path, **options).decode

    def _beside(self, name: str) -> str | None:
        """A file of the checkpoint, where it has it."""
        source = self.model.config.name_or_path
        if not source:
            return None
        return cached_file(
            source,
            name,
            _commit_hash=getattr(self.model.config, "_commit_hash", None),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )

    def _words(self, text: str, logits: np.ndarray) -> list[dict[str, Any]]:
        """Each word with its seconds, from the most probable alignment of the whole text."""
        spans = align_ids(logits, self.tokenizer(text).input_ids, self.tokenizer.pad_token_id) if text else []
        words, first = [], 0
        for word in text.split():
            start = end = None
            if spans is not None:
                begin, stop = spans[first][0], spans[first + len(word) - 1][1] + 1
                start, end = self.times(np.array([begin, stop])).tolist()
            words.append({"word": word, "start": start, "end": end})
            first += len(word) + 1
        return words
