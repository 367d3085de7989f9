"""Batch norms of a trained network as part of the convolutions before them, for inference.

fast = fold_batch_norms(model)
fast(pixel_values).pooler_output        # as of `model.eval()`, to rounding
"""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(model: Network) -> Network:
    """A copy for inference, without batch norms: each is multiplied into the convolution that comes before it.

    The copy is in evaluation mode and cannot be trained further or saved: its layers are not those of a checkpoint.

    Args:
        model: a network whose batch norms stand right behind convolutions, both in one module, in the order in which
            they run. It is not changed.

    Raises:
        ValueError: a batch norm has no convolution before it.
    """
    folded = copy.deepcopy(model).eval()
    for owner in list(folded.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                if before is None or not isinstance(before[1], nn.Conv2d):
                    raise ValueError(f"{type(owner).__name__}.{name}: a batch norm without a convolution before it")
                with torch.no_grad():
                    setattr(owner, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(owner, name, nn.Identity())
            before = name, child
    folded.requires_grad_(False)
    if hasattr(folded, "save_pretrained"):
        folded.save_pretrained = _refuse
    return folded


def _refuse(*args: object, **kwargs: object) -> None:
    raise ValueError(
        "save_pretrained: the batch norms of this model are folded, which no checkpoint can hold; save the model that "
        "it was made from"
    )
