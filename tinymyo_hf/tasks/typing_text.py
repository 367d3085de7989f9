"""How "emg-to-text" reads recordings of typing, with an sEMG transformer."""

from typing import Any, ClassVar

import numpy as np

from tinymyo_hf.charset import apply_keystrokes
from tinymyo_hf.decoding import DecodingError
from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.base import Chunk, EmgTask, RecordingInput


class TypingText:
    """The text typed in recordings of any length, each of which runs as a whole."""

    takes_batches: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, task: EmgTask):
        self.task = task
        self.config, self.preprocessing, self.vocabulary = task.model_config, task.preprocessing, task.vocabulary
        self._made: tuple[dict[str, Any], Any] | None = None  # the last decoder: a language model loads slowly

    @property
    def num_channels(self) -> int:
        """The electrodes."""
        return self.preprocessing.num_channels

    @property
    def recording_rate(self) -> float:
        """Hz at which recordings are expected."""
        return self.preprocessing.sampling_rate

    def read(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Chunk:
        """A recording as "input_values" (1, channels, time).

        Args:
            settings: fields of the preprocessing to replace.

        Raises:
            SignalError, SEMGInputError: recordings that cannot be read, are too short, or do not suit the model.
        """
        preprocessing = self.preprocessing.replace(**settings) if settings else self.preprocessing
        signal, rate, name = self.task.read(inputs, sampling_rate, read_options)
        samples = preprocessing.preprocess(signal, rate, name)
        least = self.config.receptive_field
        if samples.shape[1] < least:
            raise SignalError(
                f"{name}: {samples.shape[1]} samples at {preprocessing.sampling_rate:g} Hz, fewer than the {least} of "
                "a frame; use a longer recording"
            )
        return {"input_values": samples[None], "is_last": True}

    def text(self, output: dict[str, Any], **options: Any) -> dict[str, Any]:
        """What `pipeline("emg-to-text")` returns for "logits" (1, frames, vocabulary).

        Raises:
            DecodingError, LanguageModelError: options that no decoder can work with.
        """
        decoder = self._decoder(options)()
        ids = [*decoder.push(output["logits"][0]), *decoder.finish()]
        characters = [
            {"character": self.vocabulary.decode([i]), "time": float(time)}
            for (i, _), time in zip(ids, self._times(np.array([frame for _, frame in ids])), strict=True)
        ]
        keystrokes = "".join(character["character"] for character in characters)
        return {"text": apply_keystrokes(keystrokes), "keystrokes": keystrokes, "characters": characters}

    def _decoder(self, options: dict[str, Any]) -> Any:
        if options.get("decoder") == "words" or {"lexicon_path", "word_score"} & options.keys():
            raise DecodingError(
                "decoder='words', lexicon_path and word_score are for models of speech; of typing decode greedily, or "
                "with decoder='beam' and a language model of characters"
            )
        if self._made is None or self._made[0] != options:
            self._made = (options, timed_decoder(self.vocabulary, **options))
        return self._made[1]

    def _times(self, frames: np.ndarray) -> np.ndarray:
        """s of the last sample that each of the frames sees."""
        last = frames * self.config.hop_length + self.config.receptive_field - 1
        return last / self.preprocessing.sampling_rate
