"""The `Trainer` of recognition: CTC of whole utterances, of whose logits evaluation keeps the best label per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dataset_builders.continuous_view import IGNORED_LABEL
from tinymyo_hf.tinymyo.modeling_tinymyo_speech import ctc_loss
from trainers.speech_trainer import SpeechCollator, SpeechTrainer, utterance_frames


@dataclass(frozen=True)
class RecognitionCollator(SpeechCollator):
    """As `SpeechCollator`, with `labels` (utterances, longest) ids, padded with -100."""

    def __call__(self, items: Sequence[dict]) -> dict[str, Any]:
        batch = super().__call__(items)
        labels = [item["labels"] for item in items]
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, True, IGNORED_LABEL)
        return batch


class RecognitionTrainer(SpeechTrainer):
    """CTC: the mean over utterances of the loss per character."""

    def batch_loss(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        of_utterances = utterance_frames(outputs["logits"], inputs)
        logits = torch.nn.utils.rnn.pad_sequence(of_utterances, batch_first=True)
        config = self.accelerator.unwrap_model(self.model).config
        return ctc_loss(config, logits, inputs["lengths"], inputs["labels"])

    def kept_outputs(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The best label of each frame (utterances, frames), padded with -100, and the labels."""
        best = utterance_frames(outputs["logits"].argmax(-1).int(), inputs)
        return torch.nn.utils.rnn.pad_sequence(best, True, IGNORED_LABEL), inputs["labels"]
