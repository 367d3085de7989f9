"""What every stream asks of its model and its samples."""

import numpy as np
import torch
from transformers import PreTrainedModel


def check_mode(model: PreTrainedModel) -> None:
    """Raise `ValueError` for a model in training mode."""
    if model.training:
        raise ValueError("the model is in training mode, where dropout changes every output: call model.eval() first.")


def check_running(finished: bool) -> None:
    """Raise `ValueError` after `finish`."""
    if finished:
        raise ValueError("the stream is finished: call reset() before the next recording.")


def checked_samples(
    model: PreTrainedModel, samples: torch.Tensor | np.ndarray, batch_size: int, position: int
) -> torch.Tensor:
    """(batch, channels, time) samples in the type and on the device of the model.

    Args:
        position: of the first of them in the recording.

    Raises:
        ValueError: another shape, or samples that are not finite.
    """
    channels = model.config.num_channels
    if samples.ndim != 3 or tuple(samples.shape[:2]) != (batch_size, channels):
        raise ValueError(
            f"samples must be (batch={batch_size}, {channels} channels, time), got {tuple(samples.shape)}."
        )
    samples = samples if isinstance(samples, torch.Tensor) else torch.tensor(samples)
    like = model.base_model.input_norm.weight
    samples = samples.to(like.device, like.dtype)
    finite = samples.isfinite()
    if not finite.all():
        stream, channel, time = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"sample {position + time} of channel {channel} (stream {stream} of the batch) is not a finite number in "
            f"{str(like.dtype).removeprefix('torch.')}: leave such samples out and reset the stream behind them."
        )
    return samples


__all__ = ["check_mode", "check_running", "checked_samples"]
