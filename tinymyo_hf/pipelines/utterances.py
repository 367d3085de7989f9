"""What the pipelines of speech share: utterances of several lengths in one batch."""

from typing import Any

import torch
from transformers import PreTrainedModel


def time_first(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk with "input_values" (1, time, channels), as the library pads the second axis of what it puts into a
    batch, and its "attention_mask" (1, time)."""
    samples = chunk["input_values"].transpose(1, 2)
    return chunk | {"input_values": samples, "attention_mask": torch.ones(samples.shape[:2], dtype=torch.long)}


def forward_utterances(model: PreTrainedModel, model_inputs: dict[str, Any]) -> Any:
    """The outputs of the model for a batch of such chunks, whose arrays are taken out."""
    samples = model_inputs.pop("input_values").transpose(1, 2).to(model.dtype)
    return model(input_values=samples, attention_mask=model_inputs.pop("attention_mask"))
