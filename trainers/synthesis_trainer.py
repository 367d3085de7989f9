"""The `Trainer` of speech synthesis: batches with targets, and the scores of utterances in place of their spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from tinymyo_hf.audio import NUM_MELS, log_mel_of_mfcc, mfcc
from trainers.speech_trainer import SpeechCollator, SpeechTrainer, utterance_frames
from trainers.synthesis_loss import SpeechFrames, SynthesisLoss
from trainers.synthesis_metrics import Prediction, UtteranceScores, score_utterance, totals

NUM_MFCC = 26


@dataclass(frozen=True)
class SynthesisCollator(SpeechCollator):
    """Also lists, one entry per utterance: `targets` (target frames, 80), `phones` (target frames,), and what is known
    of it, `utterances`."""

    def __call__(self, items: Sequence[dict]) -> dict[str, Any]:
        return super().__call__(items) | {
            "targets": [item["targets"] for item in items],
            "phones": [item["phones"].long() for item in items],
            "utterances": [item["utterance"] for item in items],
        }


def to_features(log_mel: torch.Tensor, count: int) -> torch.Tensor:
    """Log-mel frames (frames, 80) as a model with `count` outputs predicts them: as they are, or as cepstra."""
    return log_mel if count == NUM_MELS else torch.from_numpy(mfcc(log_mel.cpu().numpy(), count)).to(log_mel.device)


def to_log_mel(features: torch.Tensor) -> np.ndarray:
    """Predicted frames (frames, outputs) as log-mel float32 (frames, 80)."""
    values = features.float().cpu().numpy()
    return values if values.shape[1] == NUM_MELS else log_mel_of_mfcc(values)


def predictions_of(outputs: Any, batch: dict[str, Any]) -> list[Prediction]:
    """What a model says of the utterances of a batch, beside what was said."""
    rows = zip(
        batch["utterances"],
        utterance_frames(outputs["spectrogram"], batch),
        utterance_frames(outputs["phoneme_logits"].argmax(-1), batch),
        batch["targets"],
        batch["phones"],
        strict=True,
    )
    return [
        Prediction(
            utterance.name,
            to_log_mel(spectrum),
            phones.cpu().numpy(),
            targets.cpu().numpy(),
            target_phones.cpu().numpy(),
            utterance.silent,
            utterance.text,
        )
        for utterance, spectrum, phones, targets, target_phones in rows
    ]


class SynthesisTrainer(SpeechTrainer):
    """`SpeechTrainer` for batches of `SynthesisCollator`; `compute_loss_func` is a `SynthesisLoss`."""

    def __init__(self, *args: Any, compute_loss_func: SynthesisLoss, **kwargs: Any):
        super().__init__(*args, **kwargs)  # the library would leave its division by accumulated batches to the loss
        weight = self.model.config.phoneme_loss_weight
        self.synthesis_loss = replace(compute_loss_func, phone_weight=weight)

    def batch_loss(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Sum over the pairs of all utterances divided by the number of their target frames."""
        return self.synthesis_loss(self._frames(outputs, inputs))

    def kept_outputs(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores of each utterance, (utterances, fields of `UtteranceScores`), and the same again."""
        rows = [score_utterance(prediction) for prediction in predictions_of(outputs, inputs)]
        kept = torch.tensor(rows, dtype=torch.float64, device=outputs["spectrogram"].device)
        return kept, kept

    def _frames(self, outputs: Any, inputs: dict[str, Any]) -> list[SpeechFrames]:
        count = outputs["spectrogram"].shape[-1]
        rows = zip(
            utterance_frames(outputs["spectrogram"], inputs),
            utterance_frames(outputs["phoneme_logits"], inputs),
            inputs["targets"],
            inputs["phones"],
            inputs["utterances"],
            strict=True,
        )
        return [
            SpeechFrames(spectrum, logits, to_features(targets, count), phones, utterance.silent)
            for spectrum, logits, targets, phones, utterance in rows
        ]


def headline(prediction: EvalPrediction) -> dict[str, float]:
    """`totals` of what `SynthesisTrainer.kept_outputs` kept of a split."""
    return totals([UtteranceScores(*row) for row in prediction.predictions.tolist()])
