"""TinyMyo for events: a logit per class for every frame of a recording.

Shapes: `input_values` (batch, channels, time) -> logits (batch, frames, num_labels), `config.num_frames(time)` frames.
Source: "TinyMyo: a Tiny Foundation Model for Flexible EMG Signal Processing at the Edge", the model for discrete
gestures (2 kHz in, 200 frames/s out, causal).
"""

import torch
from torch import nn
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_tinymyo import TinyMyoConfig
from .modeling_tinymyo import TinyMyoModel, TinyMyoPreTrainedModel


class TinyMyoForFrameClassification(TinyMyoPreTrainedModel):
    """Independent probabilities of `num_labels` classes (gestures) for every frame; binary cross-entropy."""

    # The loss is a mean over its own batch: the Trainer is to average it over accumulation steps and processes.
    accepts_loss_kwargs = False

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        if config.stem != "convolution":
            raise ValueError(
                f'TinyMyoForFrameClassification works on frames, but config.stem is "{config.stem}". Start from the '
                'preset "tinymyo-neuromotor", or load a pretrained encoder with stem="convolution", is_causal=True.'
            )
        self.num_labels = config.num_labels
        self.tinymyo = TinyMyoModel(config)
        # Not `classifier`: that of a pretrained classifier of windows must not end up here.
        self.frame_classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        loss_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """
        Args:
            input_values: (batch, channels, time), raw.
            attention_mask: (batch, time), 1 for real samples, 0 for the padding behind a shorter recording.
            channel_mask: (batch, channels), 1 for real channels and 0 for padding.
            labels: (batch, frames, num_labels) in [0, 1], the probability that a frame belongs to a class.
            loss_mask: (batch, frames, num_labels), weight of each label in the loss, bool or float; 0 excludes it.

        Returns:
            `logits` (batch, frames, num_labels), those of frames beyond a recording meaningless, and with labels the
            binary cross-entropy `loss`: the mean over the labels that `attention_mask` and `loss_mask` leave in, 0 if
            they leave none.

        Raises:
            ValueError: shapes that do not fit.
        """
        outputs = self.tinymyo(input_values, attention_mask=attention_mask, channel_mask=channel_mask, **kwargs)
        logits = self.frame_classifier(outputs.last_hidden_state)

        loss = None
        if labels is not None:
            frame_mask = self.tinymyo.stem.frame_mask(attention_mask)
            loss = masked_binary_cross_entropy(logits, labels, frame_mask, loss_mask)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def masked_binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, frame_mask: torch.Tensor | None, loss_mask: torch.Tensor | None
) -> torch.Tensor:
    """Mean binary cross-entropy of logits and labels (batch, frames, classes), weighted by `loss_mask` of that shape,
    over the real frames of `frame_mask` (batch, frames); what labels hold elsewhere (NaN) does not matter."""
    for name, given in (("labels", labels), ("loss_mask", loss_mask)):
        if given is not None and given.shape != logits.shape:
            raise ValueError(
                f"{name} must be (batch, frames, num_labels) = {tuple(logits.shape)}, got {tuple(given.shape)}: "
                "a recording has config.num_frames(samples) frames."
            )
    weight = torch.ones_like(logits, dtype=torch.float32) if loss_mask is None else loss_mask.float()
    if frame_mask is not None:
        weight = torch.where(frame_mask[:, :, None], weight, 0.0)
    labels = torch.where(weight > 0, labels.float(), 0.0)
    error = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels, weight=weight, reduction="sum")
    total = weight.sum()
    return error / torch.where(total > 0, total, 1.0)


__all__ = ["TinyMyoForFrameClassification"]
