"""How `pipeline("emg-to-text")` reads recordings of typing, with an sEMG transformer."""

from typing import Any, ClassVar

import numpy as np

from tinymyo_hf.charset import apply_keystrokes
from tinymyo_hf.decoding import DecodingError
from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.pipelines.base import EmgPipeline, RecordingInput
from tinymyo_hf.semg_transformer.streaming import session_logits
from tinymyo_hf.signal import SignalError


class TypingText:
    """The text typed in recordings of any length.

    Every recording runs as a whole: its logits are those of one forward pass, computed piece by piece, so that memory
    is bounded by the recording and, without `attention_window`, by the keys and values of its frames.
    """

    extractor_name: ClassVar[str] = "SEMGTransformerFeatureExtractor"
    takes_batches: ClassVar[bool] = False

    def __init__(self, pipeline: EmgPipeline):
        self._pipeline = pipeline
        self._made: tuple[dict[str, Any], Any] | None = None  # the last decoder: a language model loads slowly
        self.model, self.extractor, self.tokenizer = pipeline.model, pipeline.feature_extractor, pipeline.tokenizer

    @property
    def num_channels(self) -> int:
        """The electrodes."""
        return self.extractor.num_channels

    @property
    def recording_rate(self) -> float:
        """Hz at which recordings are expected."""
        return self.extractor.sampling_rate

    def read(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """A recording as "samples" (channels, time)."""
        extractor = self.extractor
        if settings:
            extractor = type(extractor)(**{**extractor.to_dict(), **settings})
        signal, rate, name = self._pipeline._read(inputs, sampling_rate, read_options or {})
        samples = extractor.preprocess(signal, rate, name)
        least = self.model.config.receptive_field
        if samples.shape[1] < least:
            raise SignalError(
                f"{name}: {samples.shape[1]} samples at {extractor.sampling_rate:g} Hz, fewer than the {least} of a "
                "frame; use a longer recording"
            )
        return {"samples": samples}  # not as a tensor: it stays here, whatever the model's device

    def forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        """{"logits": (frames, vocabulary)}"""
        samples = model_inputs.pop("samples")
        return {"logits": session_logits(self.model, samples[None])[0].float()}

    def text(self, output: dict[str, Any], **options: Any) -> dict[str, Any]:
        """What `EmgToTextPipeline` returns.

        Raises:
            DecodingError, LanguageModelError: options that no decoder can work with.
        """
        decoder = self._decoder(options)()
        ids = [*decoder.push(output["logits"].cpu().numpy()), *decoder.finish()]
        characters = [
            {"character": self.tokenizer.decode([i]), "time": float(time)}
            for (i, _), time in zip(ids, self._times(np.array([frame for _, frame in ids])), strict=True)
        ]
        keystrokes = "".join(character["character"] for character in characters)
        return {"text": apply_keystrokes(keystrokes), "keystrokes": keystrokes, "characters": characters}

    def save(self, folder: str) -> None:
        """Nothing beside the model, its feature extractor and its tokenizer."""

    def _decoder(self, options: dict[str, Any]) -> Any:
        if options.get("decoder") == "words" or {"lexicon_path", "word_score"} & options.keys():
            raise DecodingError(
                "decoder='words', lexicon_path and word_score are for models of speech; of typing decode greedily, or "
                "with decoder='beam' and a language model of characters"
            )
        if self._made is None or self._made[0] != options:
            self._made = (options, timed_decoder(self.tokenizer, **options))
        return self._made[1]

    def _times(self, frames: np.ndarray) -> np.ndarray:
        """s of the last sample that each of the frames sees."""
        config = self.model.config
        return (frames * config.hop_length + config.receptive_field - 1) / self.extractor.sampling_rate
