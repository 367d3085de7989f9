"""The voice of what was said, aloud or silently."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.audio import AUDIO_RATE, NUM_MELS, log_mel_of_mfcc
from tinymyo_hf.tasks.base import Chunk, EmgTask, RecordingInput, refuse_windows
from tinymyo_hf.tasks.utterances import UtteranceReader
from tinymyo_hf.vocoder import Vocoder, load_vocoder


class AudioTask(EmgTask):
    """From spectra and phonemes of whole utterances to what `pipeline("emg-to-audio")` returns."""

    head = "ForSpeechSynthesis"
    chunks_at_once = 1
    _loaded: tuple[str | Path | None, Vocoder] | None = None  # the last vocoder

    def check(self) -> None:
        """Whether model and preprocessing belong together."""
        _ = self.reader

    @cached_property
    def reader(self) -> UtteranceReader:
        """How utterances are read."""
        return UtteranceReader(self)

    def prepare(self, vocoder: str | Path | None = None) -> None:
        """See `EmgTask`."""
        self.vocoder(vocoder)

    def split_settings(
        self, vocoder: str | Path | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `EmgTask`; `vocoder` is the folder or Hub id of a HiFi-GAN."""
        refuse_windows(settings)
        reading, making = super().split_settings(**settings)
        return reading, making if vocoder is None else making | {"vocoder": vocoder}

    def chunks(self, inputs: RecordingInput, **settings: Any) -> Iterator[Chunk]:
        """See `EmgTask`; the whole utterance is one."""
        yield self.reader.read(inputs, **settings)

    def result(self, outputs: list[dict[str, Any]], vocoder: str | Path | None = None) -> dict[str, Any]:
        """Audio, spectrum and phonemes.

        Args:
            outputs: of one chunk, "spectrogram" (1, frames or more, mel bands or cepstral coefficients) and
                "phoneme_logits" (1, frames or more, phonemes).
        """
        (output,) = outputs
        frames = output["frames"]
        spectrogram = output["spectrogram"][0, :frames]
        if spectrogram.shape[1] != NUM_MELS:
            spectrogram = log_mel_of_mfcc(spectrogram).astype(np.float32)
        phonemes = output["phoneme_logits"][0, :frames].argmax(-1).tolist()
        return {
            "audio": self.vocoder(vocoder)(spectrogram),
            "sampling_rate": AUDIO_RATE,
            "spectrogram": spectrogram,
            "phonemes": [self._phoneme(i) for i in phonemes],
        }

    def vocoder(self, source: str | Path | None = None) -> Vocoder:
        """The vocoder of `tinymyo_hf.vocoder.load_vocoder`, loaded once."""
        if self._loaded is None or self._loaded[0] != source:
            self._loaded = (source, load_vocoder(source, self.device))
        return self._loaded[1]

    def num_channels(self) -> int:
        """See `EmgTask`."""
        return self.reader.num_channels

    def recording_rate(self) -> float:
        """See `EmgTask`."""
        return self.reader.recording_rate

    def _phoneme(self, index: int) -> str:
        names = self.model_config.id2label
        return names[index] if len(names) == self.model_config.num_phonemes else str(index)
