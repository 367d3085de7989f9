"""`pipeline("emg-to-text", model=...)`: what was typed, or said, and when."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from tinymyo_hf.pipelines.base import EmgPipeline, RecordingInput
from tinymyo_hf.pipelines.speech_text import SpeechText
from tinymyo_hf.pipelines.typing_text import TypingText
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tokenization import check_charset

FAMILIES = {"semg_transformer": TypingText, "tinymyo": SpeechText}
"""By the type of the model's config: how recordings become logits, and logits text."""


class EmgToTextPipeline(EmgPipeline):
    """The text of recordings: typed ones of any length, from an sEMG transformer, or utterances of silent speech, from
    a TinyMyo. Every recording runs as a whole.

    `__call__` takes, beyond what all pipelines take, `decoder`:
    - "greedy" (default): the best character of every frame;
    - "beam": a search over characters, with `lm_path`, a KenLM model of characters (none by default), and
      `beam_size`, `lm_weight`, `insertion_bonus` and `max_labels_per_step` as for
      `tinymyo_hf.decoding.BeamSearchDecoder`;
    - "words" (speech only): a search over the words of a lexicon, with `lexicon_path`, a file of them, `lm_path`, a
      KenLM model of words, and `beam_size`, `lm_weight` and `word_score` as for
      `tinymyo_hf.decoding_words.WordBeamDecoder`. By default lexicon and language model are the checkpoint's
      `lexicon.txt` and `lm.arpa`; without a language model the lexicon alone guides the search.
    `batch_size` is for speech: utterances that go through the model together, 1 by default.

    An utterance of speech may be given with its neighbours, {"raw": ..., "sampling_rate": ..., "before": ...,
    "after": ...}: the published preprocessing filters the three together, so that the filters have settled where it
    begins. `tinymyo_hf.pipelines.in_context` makes such dictionaries of the utterances of a session.

    For each recording of typing it returns
    - "text": what is on the screen after all keys, with "\\n" for enter;
    - "keystrokes": the keys themselves, with "⌫" for backspace, "⏎" for enter and "⇧" for shift;
    - "characters": for each key {"character", "time": s from the first sample; when a causal model can tell}.
    For each utterance of speech
    - "text": the words, a space between them;
    - "words": for each {"word", "start", "end": s from the first sample, where the alignment of the text is best; None
      if the text has more characters than the utterance has frames}.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> read = pipeline("emg-to-text", model="my-checkpoint")                       # doctest: +SKIP
        >>> read("session.hdf5")["text"]                                                # doctest: +SKIP
        'the quick brown fox'
        >>> read(in_context(["0.npy", "1.npy"]), sampling_rate=1000, decoder="words")   # doctest: +SKIP
    """

    head = "ForCTC"
    windows_at_once = 1
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.tokenizer is None:
            raise SignalError("tokenizer: missing; pass the EmgCharacterTokenizer the model was trained with")
        check_charset(self.tokenizer, self.model.config)
        self._check_batch_size(self._batch_size)
        _ = self._family  # of speech: whether model and preprocessing belong together

    def _check_head(self) -> None:
        super()._check_head()
        if self.model.config.model_type not in FAMILIES:
            raise SignalError(
                f"model: a {type(self.model).__name__}, but {self.task} needs one of the types {', '.join(FAMILIES)}"
            )

    @property
    def extractor_name(self) -> str:
        """Of the feature extractor, for messages."""
        return FAMILIES[self.model.config.model_type].extractor_name

    @cached_property
    def _family(self) -> TypingText | SpeechText:
        return FAMILIES[self.model.config.model_type](self)

    def __call__(self, inputs: RecordingInput | list[RecordingInput], **kwargs: Any) -> dict | list[dict]:
        """The text of one recording, or of each of several; see `EmgPipeline` and the class."""
        self._check_batch_size(kwargs.get("batch_size"))
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save model, feature extractor and tokenizer; of speech also its lexicon and language model."""
        super().save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory)
        self._family.save(save_directory)

    def _sanitize_parameters(
        self,
        decoder: str | None = None,
        lm_path: str | None = None,
        lexicon_path: str | None = None,
        beam_size: int | None = None,
        lm_weight: float | None = None,
        insertion_bonus: float | None = None,
        word_score: float | None = None,
        max_labels_per_step: int | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {
            "decoder": decoder,
            "lm_path": lm_path,
            "lexicon_path": lexicon_path,
            "beam_size": beam_size,
            "lm_weight": lm_weight,
            "insertion_bonus": insertion_bonus,
            "word_score": word_score,
            "max_labels_per_step": max_labels_per_step,
        }
        self._refuse_windows(settings)
        preprocess, forward, _ = super()._sanitize_parameters(**settings)
        return preprocess, forward, {name: value for name, value in given.items() if value is not None}

    def preprocess(self, inputs: RecordingInput, **settings: Any) -> Iterator[dict[str, Any]]:
        yield {**self._family.read(inputs, **settings), "is_last": True}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {**self._family.forward(model_inputs), **model_inputs}

    def postprocess(self, model_outputs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        (output,) = model_outputs
        return self._family.text(output, **options)

    def _check_batch_size(self, batch_size: int | None) -> None:
        if batch_size not in (None, 1) and not self._family.takes_batches:
            raise SignalError(f"batch_size={batch_size}: recordings run one by one, whole; leave it out")

    def _num_channels(self) -> int:
        return self._family.num_channels

    def _recording_rate(self) -> float:
        return self._family.recording_rate
