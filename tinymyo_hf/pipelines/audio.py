"""`pipeline("emg-to-audio", model=...)`: the voice of what was said, aloud or silently."""

from collections.abc import Iterator
from typing import Any

from tinymyo_hf.pipelines.base import EmgPipeline
from tinymyo_hf.pipelines.utterances import forward_utterances, time_first
from tinymyo_hf.tasks import RecordingInput
from tinymyo_hf.tasks.audio import AudioTask


class EmgToAudioPipeline(AudioTask, EmgPipeline):
    """The audio of whole utterances of silent (or voiced) speech, from a TinyMyo for speech synthesis.

    `pipeline("emg-to-audio", model=..., vocoder=...)` and `__call__` take, beyond what all pipelines take, `vocoder`:
    what makes audio of spectra, the folder or Hub id of a HiFi-GAN as for `tinymyo_hf.vocoder.load_vocoder`; by default
    Griffin-Lim, which needs no weights, and sounds hollow. `batch_size`: utterances that go through the model together,
    1 by default.

    An utterance may be given with its neighbours, {"raw": ..., "sampling_rate": ..., "before": ..., "after": ...}: the
    published preprocessing filters the three together. `tinymyo_hf.in_context` makes such dictionaries of the
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

    def preprocess(self, inputs: RecordingInput, **settings: Any) -> Iterator[dict[str, Any]]:
        yield from map(time_first, super().preprocess(inputs, **settings))

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        output = forward_utterances(self.model, model_inputs)
        return {
            "spectrogram": output.spectrogram.float(),
            "phoneme_logits": output.phoneme_logits.float(),
            **model_inputs,
        }
