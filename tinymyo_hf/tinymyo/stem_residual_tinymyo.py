"""The residual stem of TinyMyo's models for speech: blocks of convolutions that join the channels and halve the rate.

Source: "TinyMyo: a Tiny Foundation Model for Flexible EMG Signal Processing at the Edge", downstream 3, after Gaddy and
Klein, "An Improved Model for Voicing Silent Speech"; as released, with GELU.
"""

import torch
from torch import nn

from .configuration_tinymyo import TinyMyoConfig
from .stem_tinymyo import check_channels, zero_padding


class TinyMyoFrameNorm(nn.BatchNorm1d):
    """Batch norm of (batch, channels, frames), whose statistics in training leave out padding.

    With frozen weights it keeps its statistics too: a frozen encoder, or one with adapters, stays what it was.
    """

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if self.training and not self.weight.requires_grad:
            return nn.functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if mask is None or not self.training:
            return super().forward(hidden_states)
        frames = hidden_states.transpose(1, 2)
        real = super().forward(frames[mask])
        return real.new_zeros(frames.shape).masked_scatter(mask[:, :, None], real).transpose(1, 2)


class TinyMyoResidualBlock(nn.Module):
    """(batch, inputs, frames) -> (batch, outputs, frames / 2), rounded up."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, kernel_size=3, padding=1, stride=2)
        self.norm1 = TinyMyoFrameNorm(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, kernel_size=3, padding=1)
        self.norm2 = TinyMyoFrameNorm(outputs)
        self.shortcut = nn.Conv1d(inputs, outputs, kernel_size=1, stride=2)
        self.shortcut_norm = TinyMyoFrameNorm(outputs)
        self.activation = nn.GELU()

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`mask` (batch, frames / 2): what is real of the result; padding must look like the convolutions' own, 0."""
        shortcut = self.shortcut_norm(self.shortcut(hidden_states), mask)
        hidden_states = self.activation(self.norm1(self.conv1(hidden_states), mask))
        hidden_states = self.norm2(self.conv2(zero_padding(hidden_states, mask)), mask)
        return zero_padding(self.activation(hidden_states + shortcut), mask)


class TinyMyoResidualStem(nn.Module):
    """Samples (batch, channels, time) -> frames (batch, frames, hidden_size), frame f beginning at sample
    `2 ** num_stem_blocks * f`."""

    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        self.config = config
        widths = [config.num_channels] + config.num_stem_blocks * [config.hidden_size]
        self.blocks = nn.ModuleList(
            TinyMyoResidualBlock(inputs, outputs) for inputs, outputs in zip(widths, widths[1:], strict=False)
        )
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Raises:
            ValueError: another number of channels than the convolutions join, or padding before real samples.
        """
        check_channels(self.config, input_values, attention_mask, channel_mask)
        mask = self._real_samples(attention_mask)
        samples = zero_padding(input_values, mask)
        if channel_mask is not None:
            samples = torch.where(channel_mask[:, :, None].bool(), samples, 0.0)
        hidden_states = samples.to(self.projection.weight.dtype)
        for block in self.blocks:
            mask = None if mask is None else mask[:, ::2]
            hidden_states = block(hidden_states, mask)
        return self.projection(hidden_states.transpose(1, 2))

    def frame_mask(self, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        """(batch, time) sample mask -> (batch, frames) bool: a frame counts when its first sample is real."""
        mask = self._real_samples(attention_mask)
        return None if mask is None else mask[:, :: self.config.frame_stride]

    def _real_samples(self, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        if attention_mask is None:
            return None
        mask = attention_mask.bool()
        if not torch.compiler.is_compiling() and (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError(
                "attention_mask has padding before real samples: the frames of a residual stem follow one another, pad "
                "recordings on the right."
            )
        return mask
