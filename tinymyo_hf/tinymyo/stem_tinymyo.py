"""The convolution stem of TinyMyo: frames of all channels in place of patches of single channels.

Source: "TinyMyo: a Tiny Foundation Model for Flexible EMG Signal Processing at the Edge", the model for discrete
gestures.
"""

import torch
from torch import nn

from .configuration_tinymyo import TinyMyoConfig
from .cpu_training_tinymyo import TinyMyoDropout

# In the units of the input, for which the published model takes its corpus as it is stored.
COMPRESSION_RANGE, COMPRESSION_MIDPOINT = 64.0, 32.0


def check_input_values(input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
    """Raises:
    ValueError: `input_values` is not (batch, channels, time), or `attention_mask` not (batch, time).
    """
    if input_values.ndim != 3:
        raise ValueError(
            f"input_values must be (batch, channels, time), got shape {tuple(input_values.shape)}: "
            "add the missing axis, for example input_values[None] for one window."
        )
    if attention_mask is not None and attention_mask.shape != (input_values.shape[0], input_values.shape[2]):
        raise ValueError(
            f"attention_mask must be (batch, time) = {(input_values.shape[0], input_values.shape[2])}, "
            f"got {tuple(attention_mask.shape)}."
        )


def zero_padding(input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """`input_values` (batch, channels, time) with 0 where `attention_mask` (batch, time) says padding."""
    if attention_mask is None:
        return input_values
    # where() rather than a product: padding may hold anything, NaN included.
    return torch.where(attention_mask[:, None].bool(), input_values, 0.0)


def check_channels(
    config: TinyMyoConfig,
    input_values: torch.Tensor,
    attention_mask: torch.Tensor | None,
    channel_mask: torch.Tensor | None,
) -> None:
    """Raises:
    ValueError: as `check_input_values`, or another number of channels than the stem joins.
    """
    check_input_values(input_values, attention_mask)
    channels = input_values.shape[1]
    if channels != config.num_channels:
        raise ValueError(
            f"The stem joins {config.num_channels} channels (config.num_channels), but input_values has {channels}: "
            f"select or pad channels, or train a model with num_channels={channels}."
        )
    if channel_mask is not None and channel_mask.shape != input_values.shape[:2]:
        raise ValueError(
            f"channel_mask must be (batch, channels) = {tuple(input_values.shape[:2])}, got "
            f"{tuple(channel_mask.shape)}."
        )


class TinyMyoConvolutionStem(nn.Module):
    """Raw samples (batch, channels, time) -> frames (batch, frames, hidden_size): compression, a convolution over time
    that joins the channels, GELU, dropout, layer norm."""

    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        self.config = config
        self.convolution = nn.Conv1d(
            config.num_channels, config.hidden_size, kernel_size=config.stem_kernel_size, stride=config.stem_stride
        )
        self.activation = nn.GELU()
        self.dropout = TinyMyoDropout(config.hidden_dropout_prob)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Raises:
            ValueError: another number of channels than the convolution joins, or less than one frame.
        """
        self._check(input_values, attention_mask, channel_mask)
        samples = zero_padding(input_values, attention_mask)
        if channel_mask is not None:
            samples = torch.where(channel_mask[:, :, None].bool(), samples, 0.0)
        if self.config.stem_compression == "reinhard":
            samples = COMPRESSION_RANGE * samples / (COMPRESSION_MIDPOINT + samples.abs())
        frames = self.convolution(samples.to(self.convolution.weight.dtype)).transpose(1, 2)
        return self.norm(self.dropout(self.activation(frames)))

    def frame_mask(self, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        """(batch, time) sample mask -> (batch, frames) bool: a frame counts when all samples it sees are real.

        Raises:
            ValueError: in a causal model, padding before or between the real samples.
        """
        if attention_mask is None:
            return None
        mask = attention_mask.bool()
        if self.config.is_causal and not torch.compiler.is_compiling() and (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError(
                "attention_mask has padding before real samples: a causal model takes recordings padded on the right."
            )
        return mask.unfold(1, self.config.stem_kernel_size, self.config.stem_stride).all(dim=-1)

    def _check(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None, channel_mask: torch.Tensor | None
    ) -> None:
        check_channels(self.config, input_values, attention_mask, channel_mask)
        if not torch.compiler.is_exporting():
            self.config.num_frames(input_values.shape[2])
