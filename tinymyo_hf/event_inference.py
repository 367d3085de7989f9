"""Windowed inference of a frame classifier over recordings of any length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import torch
from torch import nn

from tinymyo_hf.event_detection import WINDOW_LENGTH, WINDOW_STRIDE, FrameGrid, average_logits, window_starts


def event_logits(
    model: nn.Module,
    signal: np.ndarray | torch.Tensor,
    sampling_rate: float,
    window_length: int = WINDOW_LENGTH,
    stride: int = WINDOW_STRIDE,
    batch_size: int = 8,
) -> np.ndarray:
    """Windowed inference over a recording of any length; memory for signals and attention is that of one batch.

    Args:
        model: a `TinyMyoForFrameClassification` with the convolutional stem, in evaluation mode.
        signal: (channels, time), normalised as in training.
        sampling_rate: Hz.
        window_length, stride: samples.
        batch_size: windows at once.

    Returns:
        float32 (frames, labels); `FrameGrid.of(model.config, sampling_rate).times(frames)` says when.
    """
    grid = FrameGrid.of(model.config, sampling_rate)
    length = signal.shape[-1]
    starts = window_starts(length, grid, window_length, stride)
    parameter = next(model.parameters())

    def pieces() -> Iterator[tuple[int, np.ndarray]]:
        for _, same in groupby(starts, key=lambda start: min(window_length, length - start)):
            same = list(same)  # all but the last window are of one length
            for i in range(0, len(same), batch_size):
                batch = same[i : i + batch_size]
                windows = [torch.as_tensor(signal[:, start : start + window_length]) for start in batch]
                values = torch.stack(windows).to(parameter.device, parameter.dtype)
                with torch.inference_mode():
                    logits = model(input_values=values).logits
                yield from zip(batch, logits.float().cpu().numpy(), strict=True)

    return average_logits(pieces(), length, grid)
