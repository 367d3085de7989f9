"""The `Trainer` of recognition: CTC of whole utterances, of whose logits evaluation keeps the best label per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataset_builders.continuous_view import IGNORED_LABEL
from tinymyo_hf.tinymyo.modeling_tinymyo_speech import ctc_loss
from trainers.ctc_models import plain_model
from trainers.speech_trainer import SpeechCollator, SpeechTrainer, utterance_frames

PHONE_HEAD = "phone_head"
"""Name of the layer of the second loss, which the model has only while it is trained."""


@dataclass(frozen=True)
class RecognitionCollator(SpeechCollator):
    """As `SpeechCollator`, with `labels` (utterances, longest) ids, padded with -100; where items have them also
    `phones` (frames of all utterances,), -100 where they are not known."""

    def __call__(self, items: Sequence[dict]) -> dict[str, Any]:
        batch = super().__call__(items)
        labels = [item["labels"] for item in items]
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, True, IGNORED_LABEL)
        if "phones" in items[0]:
            batch["phones"] = torch.cat([item["phones"] for item in items])
        return batch


class RecognitionTrainer(SpeechTrainer):
    """CTC: the mean over utterances of the loss per character; and `phone_weight` times the cross-entropy of phones,
    the mean over the frames of which they are known."""

    def label_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """As of `SpeechTrainer`, with the loss of phones where the batch has them."""
        if "phones" not in inputs:
            return super().label_loss(model, inputs, num_items_in_batch)
        outputs = model(
            input_values=inputs["input_values"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        )
        hidden = torch.cat(utterance_frames(outputs["hidden_states"][-1], inputs))
        logits = self._plain_model.get_submodule(PHONE_HEAD)(hidden).float()
        known = (inputs["phones"] >= 0).sum().clamp(min=1)
        error = nn.functional.cross_entropy(logits, inputs["phones"], ignore_index=IGNORED_LABEL, reduction="sum")
        return self.batch_loss(outputs, inputs) + self.args.phone_weight * error / known, outputs

    def batch_loss(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        of_utterances = utterance_frames(outputs["logits"], inputs)
        logits = torch.nn.utils.rnn.pad_sequence(of_utterances, batch_first=True)
        return ctc_loss(self._plain_model.config, logits, inputs["lengths"], inputs["labels"])

    def kept_outputs(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The best label of each frame (utterances, frames), padded with -100, and the labels."""
        best = utterance_frames(outputs["logits"].argmax(-1).int(), inputs)
        return torch.nn.utils.rnn.pad_sequence(best, True, IGNORED_LABEL), inputs["labels"]

    @property
    def _plain_model(self) -> nn.Module:
        return plain_model(self.accelerator.unwrap_model(self.model))

    def _load_best_model(self) -> None:
        """The end of training, after which the model is one of CTC alone."""
        super()._load_best_model()
        model = self._plain_model
        if hasattr(model, PHONE_HEAD):
            delattr(model, PHONE_HEAD)
