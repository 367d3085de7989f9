"""The norm of whole images, for graphs."""

from __future__ import annotations

from torch import Tensor, nn


class ImageNorm(nn.Module):
    """A layer norm over (colours, height, width) that sums in steps.

    onnxruntime's operator adds all 150,528 values of an image to one float32, and squares before it subtracts the mean:
    of images that are mostly black the logits of a trained model are then further off than an export may be.

    Args:
        norm: whose weights and epsilon are taken.
    """

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, images: Tensor) -> Tensor:
        """(batch, colours, height, width) -> the same."""
        centred = images - _mean(images)
        return centred * (_mean(centred * centred) + self.eps).rsqrt() * self.weight + self.bias


def _mean(images: Tensor) -> Tensor:
    """Of each image, (batch, 1, 1, 1): of rows first, then of all of them."""
    return images.mean(dim=3, keepdim=True).mean(dim=(1, 2), keepdim=True)
