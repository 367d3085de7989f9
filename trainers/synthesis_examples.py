"""Test utterances to look at and listen to: spectra and WAV files in the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinymyo_hf.audio import write_wav
from tinymyo_hf.vocoder import Vocoder, load_vocoder
from trainers.speech_asr import asr_word_errors, transcribe
from trainers.synthesis_metrics import Prediction, aligned_spectrum, score_utterance, totals

NUM_EXAMPLES = 3
FILE = "examples.npz"


class Voices:
    """Makes audio of spectra, and words of audio.

    Args:
        vocoder: a HiFi-GAN, folder or Hub id; None is Griffin-Lim.
        asr_model: a speech recogniser, folder or Hub id; None leaves words out.
    """

    def __init__(self, vocoder: str | None = None, asr_model: str | None = None):
        self.source, self.asr_model = vocoder, asr_model

    @cached_property
    def vocoder(self) -> Vocoder:
        return load_vocoder(self.source)

    def audio(self, log_mel: np.ndarray) -> np.ndarray:
        """Audio of a spectrum (frames, 80), not beyond [-1, 1]: float32 (frames * 256,) at 22,050 Hz."""
        audio = self.vocoder(log_mel)
        return audio / max(1.0, float(np.abs(audio).max()))

    def word_errors(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Word error rates in percent of what is predicted, `wer`, and of the sentences read aloud through the same
        vocoder, `wer_of_targets`, and what was `heard` of each; nothing without a speech recogniser."""
        if self.asr_model is None:
            return {}
        texts = [prediction.text for prediction in predictions]
        of_predictions, of_targets = (
            asr_word_errors([self.audio(spectrum) for spectrum in spectra], texts, self.asr_model, device=device)
            for spectra in ([p.spectrum for p in predictions], [p.targets for p in predictions])
        )
        return {
            "wer": of_predictions["wer"],
            "wer_of_targets": of_targets["wer"],
            "asr_model": self.asr_model,
            "heard": of_predictions["predictions"],
        }

    def check(self) -> None:
        """Load what was named.

        Raises:
            VocoderError, CheckpointError: it cannot be loaded.
        """
        _ = self.vocoder
        if self.asr_model is not None:
            transcribe([], self.asr_model)


def choose_examples(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Three utterances from near to far: at a sixth, a half and five sixths of all by their mel distance."""
    order = sorted(predictions, key=lambda prediction: totals([score_utterance(prediction)])["mel_distance"])
    places = ((2 * np.arange(NUM_EXAMPLES) + 1) * len(order) // (2 * NUM_EXAMPLES)).tolist()
    return [order[place] for place in dict.fromkeys(places)]


def write_examples(predictions: Sequence[Prediction], voices: Voices, folder: Path) -> list[dict[str, Any]]:
    """Write `examples.npz`, and `example_1_predicted.wav`, `example_1_target.wav`, ...: what was predicted, and the
    spectrum of the sentence read aloud through the same vocoder.

    Returns:
        Of each example `recording`, `text` and `mel_distance`.
    """
    chosen = choose_examples(predictions)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for number, prediction in enumerate(chosen, 1):
        arrays[f"target_{number}"] = prediction.targets.astype(np.float16)
        arrays[f"predicted_{number}"] = aligned_spectrum(prediction).astype(np.float16)
        for name, spectrum in (("predicted", prediction.spectrum), ("target", prediction.targets)):
            write_wav(folder / f"example_{number}_{name}.wav", voices.audio(spectrum))
    partial = folder / f".{FILE}.partial"
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(partial, folder / FILE)
    return [
        {
            "recording": prediction.name,
            "text": prediction.text,
            "mel_distance": totals([score_utterance(prediction)])["mel_distance"],
        }
        for prediction in chosen
    ]


def read_examples(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Target and predicted spectrum of each example, both float32 (target frames, 80); none if there is no file."""
    if not (folder / FILE).is_file():
        return
    with np.load(folder / FILE) as arrays:
        for number in range(1, len(arrays.files) // 2 + 1):
            yield arrays[f"target_{number}"].astype(np.float32), arrays[f"predicted_{number}"].astype(np.float32)
