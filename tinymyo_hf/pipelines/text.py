"""`pipeline("emg-to-text", model=...)`: what was typed, or said, and when."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinymyo_hf.pipelines.base import EmgPipeline
from tinymyo_hf.pipelines.utterances import forward_utterances, time_first
from tinymyo_hf.semg_transformer.streaming import session_logits
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks import RecordingInput
from tinymyo_hf.tasks.text import FAMILIES, TextTask
from tinymyo_hf.tasks.typing_text import TypingText


class EmgToTextPipeline(TextTask, EmgPipeline):
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
    begins. `tinymyo_hf.in_context` makes such dictionaries of the utterances of a session.

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

    _load_tokenizer = True

    def _check_head(self) -> None:
        super()._check_head()
        if self.model_config.model_type not in FAMILIES:
            raise SignalError(
                f"model: a {type(self.model).__name__}, but {self.task} needs one of the types {', '.join(FAMILIES)}"
            )

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model, feature extractor and tokenizer; of speech also its lexicon and language model."""
        super().save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory)
        for name in self.family.files:
            source = self.find_file(name)
            if source is not None and not (Path(save_directory) / name).exists():
                shutil.copyfile(source, Path(save_directory) / name)

    def preprocess(self, inputs: RecordingInput, **settings: Any) -> Iterator[dict[str, Any]]:
        if self._is_typing:  # not as a tensor: a long recording stays here, whatever the model's device
            return self.chunks(inputs, **settings)
        return map(time_first, super().preprocess(inputs, **settings))

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        if self._is_typing:
            # The logits of one forward pass, computed piece by piece: memory is bounded by the recording and, without
            # `attention_window`, by the keys and values of its frames.
            logits = session_logits(self.model, model_inputs.pop("input_values"))
        else:
            logits = forward_utterances(self.model, model_inputs).logits
        return {"logits": logits.float(), **model_inputs}

    @property
    def _is_typing(self) -> bool:
        return isinstance(self.family, TypingText)
