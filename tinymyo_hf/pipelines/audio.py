"""`pipeline("emg-to-audio", model=...)`: the voice of what was said, aloud or silently."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.audio import AUDIO_RATE, NUM_MELS, log_mel_of_mfcc
from tinymyo_hf.pipelines.base import EmgPipeline, RecordingInput
from tinymyo_hf.pipelines.utterances import UtteranceReader
from tinymyo_hf.vocoder import Vocoder, load_vocoder


class EmgToAudioPipeline(EmgPipeline):
    """The audio of whole utterances of silent (or voiced) speech, from a TinyMyo for speech synthesis.

    `pipeline("emg-to-audio", model=..., vocoder=...)` and `__call__` take, beyond what all pipelines take, `vocoder`:
    what makes audio of spectra, the folder or Hub id of a HiFi-GAN as for `tinymyo_hf.vocoder.load_vocoder`; by default
    Griffin-Lim, which needs no weights, and sounds hollow. `batch_size`: utterances that go through the model together,
    1 by default.

    An utterance may be given with its neighbours, {"raw": ..., "sampling_rate": ..., "before": ..., "after": ...}: the
    published preprocessing filters the three together. `tinymyo_hf.pipelines.in_context` makes such dictionaries of the
    utterances of a session.

    For each utterance it returns
    - "audio": float32 (frames * 256,), within about [-1, 1]; it begins when the second frame of EMG does, 12 ms after
      the recording, as in training;
    - "sampling_rate": of the audio, 22050 Hz;
    - "spectrogram": float32 (frames, 80), natural logarithm of mel magnitudes; of a model of cepstral coefficients,
      what they make of them;
    - "phonemes": the most probable phoneme of each frame, by its name in `config.id2label`, or its number.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> speak = pipeline("emg-to-audio", model="my-checkpoint")                     # doctest: +SKIP
        >>> voice = speak("5_emg.npy", sampling_rate=1000)                              # doctest: +SKIP
        >>> from tinymyo_hf.audio import write_wav                                      # doctest: +SKIP
        >>> write_wav("5.wav", voice["audio"], voice["sampling_rate"])                  # doctest: +SKIP
    """

    head = "ForSpeechSynthesis"
    extractor_name = "TinyMyoFeatureExtractor"
    windows_at_once = 1

    def __init__(self, *args: Any, **kwargs: Any):
        self._loaded: tuple[str | Path | None, Vocoder] | None = None  # the last vocoder
        super().__init__(*args, **kwargs)
        self._utterances = UtteranceReader(self)
        self._vocoder(**self._postprocess_params)  # a wrong path is told now

    def _sanitize_parameters(
        self, vocoder: str | Path | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        self._refuse_windows(settings)
        preprocess, forward, _ = super()._sanitize_parameters(**settings)
        return preprocess, forward, {} if vocoder is None else {"vocoder": vocoder}

    def preprocess(self, inputs: RecordingInput, **settings: Any) -> Iterator[dict[str, Any]]:
        yield {**self._utterances.read(inputs, **settings), "is_last": True}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        output = self._utterances.call(model_inputs)
        return {
            "spectrogram": output.spectrogram.float(),
            "phonemes": output.phoneme_logits.argmax(-1),
            **model_inputs,
        }

    def postprocess(self, model_outputs: list[dict[str, Any]], vocoder: str | Path | None = None) -> dict[str, Any]:
        (output,) = model_outputs
        frames = output["frames"]
        spectrogram = output["spectrogram"][0, :frames].cpu().numpy()
        if spectrogram.shape[1] != NUM_MELS:
            spectrogram = log_mel_of_mfcc(spectrogram).astype(np.float32)
        return {
            "audio": self._vocoder(vocoder)(spectrogram),
            "sampling_rate": AUDIO_RATE,
            "spectrogram": spectrogram,
            "phonemes": [self._phoneme(i) for i in output["phonemes"][0, :frames].tolist()],
        }

    def _phoneme(self, index: int) -> str:
        names = self.model.config.id2label
        return names[index] if len(names) == self.model.config.num_phonemes else str(index)

    def _vocoder(self, vocoder: str | Path | None = None) -> Vocoder:
        if self._loaded is None or self._loaded[0] != vocoder:
            self._loaded = (vocoder, load_vocoder(vocoder, self.device))
        return self._loaded[1]

    def _num_channels(self) -> int:
        return self._utterances.num_channels

    def _recording_rate(self) -> float:
        return self._utterances.recording_rate
