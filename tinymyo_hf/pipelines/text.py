"""`pipeline("emg-to-text", model=...)`: what was typed, and when."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.pipelines.base import EmgPipeline, RecordingInput
from tinymyo_hf.semg_transformer.streaming import session_logits
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tokenization import apply_keystrokes, check_charset


class EmgToTextPipeline(EmgPipeline):
    """The text typed in recordings of any length, from a CTC model of typing.

    Every recording runs as a whole: its logits are those of one forward pass, computed piece by piece, so that memory
    is bounded by the recording and, without `attention_window`, by the keys and values of its frames.

    `__call__` takes, beyond what all pipelines take,
    - `decoder`: "greedy" (default) or "beam";
    - for the beam search: `lm_path`, a KenLM model of characters (none by default), and `beam_size`, `lm_weight`,
      `insertion_bonus` and `max_labels_per_step`, as for `tinymyo_hf.decoding.BeamSearchDecoder`.

    For each recording it returns
    - "text": what is on the screen after all keys, with "\\n" for enter;
    - "keystrokes": the keys themselves, with "⌫" for backspace, "⏎" for enter and "⇧" for shift;
    - "characters": for each key {"character", "time": s from the first sample; when a causal model can tell}.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> read = pipeline("emg-to-text", model="my-checkpoint")                       # doctest: +SKIP
        >>> read("session.hdf5")["text"]                                                # doctest: +SKIP
        'the quick brown fox'
    """

    head = "ForCTC"
    extractor_name = "SEMGTransformerFeatureExtractor"
    windows_at_once = 1
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any):
        self._made: tuple[dict[str, Any], Any] | None = None  # the last decoder: a language model loads slowly
        super().__init__(*args, **kwargs)
        if self.tokenizer is None:
            raise SignalError("tokenizer: missing; pass the EmgCharacterTokenizer the model was trained with")
        check_charset(self.tokenizer, self.model.config)

    def __call__(self, inputs: RecordingInput | list[RecordingInput], **kwargs: Any) -> dict | list[dict]:
        """The text of one recording, or of each of several; see `EmgPipeline` and the class."""
        if kwargs.get("batch_size") not in (None, 1):
            raise SignalError(f"batch_size={kwargs['batch_size']}: recordings run one by one, whole; leave it out")
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save model, feature extractor and tokenizer."""
        super().save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        decoder: str | None = None,
        lm_path: str | None = None,
        beam_size: int | None = None,
        lm_weight: float | None = None,
        insertion_bonus: float | None = None,
        max_labels_per_step: int | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {
            "decoder": decoder,
            "lm_path": lm_path,
            "beam_size": beam_size,
            "lm_weight": lm_weight,
            "insertion_bonus": insertion_bonus,
            "max_labels_per_step": max_labels_per_step,
        }
        of_windows = sorted({"window_length", "stride"} & settings.keys())
        if of_windows:
            raise SignalError(f"{', '.join(of_windows)}: recordings of typing run whole, not in windows; leave it out")
        preprocess, forward, _ = super()._sanitize_parameters(**settings)
        return preprocess, forward, {name: value for name, value in given.items() if value is not None}

    def preprocess(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Iterator[dict[str, Any]]:
        extractor = self.feature_extractor
        if settings:
            extractor = type(extractor)(**{**extractor.to_dict(), **settings})
        signal, rate, name = self._read(inputs, sampling_rate, read_options or {})
        samples = extractor.preprocess(signal, rate, name)
        least = self.model.config.receptive_field
        if samples.shape[1] < least:
            raise SignalError(
                f"{name}: {samples.shape[1]} samples at {extractor.sampling_rate:g} Hz, fewer than the {least} of a "
                "frame; use a longer recording"
            )
        yield {"samples": samples, "is_last": True}  # not as a tensor: it stays here, whatever the model's device

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        samples = model_inputs.pop("samples")
        return {"logits": session_logits(self.model, samples[None])[0].float(), **model_inputs}

    def postprocess(self, model_outputs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        (output,) = model_outputs
        if self._made is None or self._made[0] != options:
            self._made = (options, timed_decoder(self.tokenizer, **options))
        decoder = self._made[1]()
        ids = [*decoder.push(output["logits"].cpu().numpy()), *decoder.finish()]
        characters = [
            {"character": self.tokenizer.decode([i]), "time": float(time)}
            for (i, _), time in zip(ids, self._times(np.array([frame for _, frame in ids])), strict=True)
        ]
        keystrokes = "".join(character["character"] for character in characters)
        return {"text": apply_keystrokes(keystrokes), "keystrokes": keystrokes, "characters": characters}

    def _times(self, frames: np.ndarray) -> np.ndarray:
        """s of the last sample that each of the frames sees."""
        config = self.model.config
        return (frames * config.hop_length + config.receptive_field - 1) / self.feature_extractor.sampling_rate

    def _num_channels(self) -> int:
        return self.feature_extractor.num_channels

    def _recording_rate(self) -> float:
        return self.feature_extractor.sampling_rate
