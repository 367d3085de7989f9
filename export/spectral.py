"""Spectral mixers as products with constant matrices, for graphs.

onnxruntime's operator DFT takes much longer than the products, and rounds worse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SpectralProducts(nn.Module):
    """What a spectral mixer computes: rfft2, a product with complex weights, irfft2, all orthonormal.

    Rows are transformed first, then columns; real and imaginary parts lie behind each other on the axis that is
    transformed next, so that nothing has to be transposed.

    Args:
        weight: (side, side // 2 + 1, channels, 2), real and imaginary parts last.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        side, self.frequencies, self.channels, _ = weight.shape
        rows, from_rows = _real_transforms(side)
        columns, from_columns = _complex_transforms(side)
        for name, matrix in (
            ("rows", rows),
            ("columns", columns),
            ("from_columns", from_columns),
            ("from_rows", from_rows),
        ):
            self.register_buffer(name, matrix.to(torch.float32))
        self.register_buffer("real", weight[..., 0].detach().float().contiguous())
        self.register_buffer("imaginary", weight[..., 1].detach().float().contiguous())

    def forward(self, grid: Tensor, **kwargs: object) -> Tensor:
        """(batch, side, side, channels) -> the same."""
        batch, side = grid.shape[:2]
        spectrum = self.rows @ grid  # (batch, side, 2 * frequencies, channels)
        spectrum = self.columns @ spectrum.reshape(batch, 2 * side, self.frequencies * self.channels)
        spectrum = spectrum.reshape(batch, side, 2, self.frequencies, self.channels)
        real, imaginary = spectrum.unbind(2)
        spectrum = torch.cat(
            (
                real * self.real - imaginary * self.imaginary,
                real * self.imaginary + imaginary * self.real,
            ),
            dim=2,
        )
        spectrum = self.from_columns @ spectrum.reshape(batch, 2 * side, self.frequencies * self.channels)
        return self.from_rows @ spectrum.reshape(batch, side, 2 * self.frequencies, self.channels)


def _waves(count: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (frequency, place), orthonormal."""
    places = torch.arange(count, dtype=torch.float64)
    angles = 2 * math.pi / count * (torch.outer(places, places) % count)  # small angles have small rounding errors
    return angles.cos() / math.sqrt(count), angles.sin() / math.sqrt(count)


def _real_transforms(count: int) -> tuple[Tensor, Tensor]:
    """Of real values to the real and then the imaginary parts of the frequencies up to a half, and back."""
    cosines, sines = (waves[: count // 2 + 1] for waves in _waves(count))
    twice = torch.full((count // 2 + 1, 1), 2.0, dtype=torch.float64)  # their mirror images are not there
    twice[0] = 1.0
    if count % 2 == 0:
        twice[-1] = 1.0
    return torch.cat((cosines, -sines)), torch.cat((twice * cosines, -twice * sines)).T.contiguous()


def _complex_transforms(count: int) -> tuple[Tensor, Tensor]:
    """Of complex values to complex ones, real and imaginary parts alternating, and back."""
    cosines, sines = _waves(count)
    forward = torch.stack((torch.stack((cosines, sines), -1), torch.stack((-sines, cosines), -1)), 1)
    forward = forward.reshape(2 * count, 2 * count)
    return forward, forward.T.contiguous()
