"""What is particular to the graphs of models of images: Tiny-BioMoE.

Input `pixel_values` float32 in [0, 1], (batch, 3, height, width), of a classifier (batch, images, 3, height, width):
all images of a window. Batch norms are part of the convolutions before them, and spectral mixers are products with
constant matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from export.errors import ExportError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

AXES_OF_IMAGES = ("batch", "images")
"""Names of the axes of the input that may differ from call to call, in order; a model without a head has no second
one."""


def is_of_images(config: PreTrainedConfig) -> bool:
    """Whether models of a configuration take images."""
    return config.model_type == "tiny_biomoe"


def usual_axes_of_images(model: PreTrainedModel) -> tuple[str, ...]:
    """As many images of a window as there are, where their mean is taken."""
    return AXES_OF_IMAGES if _takes_any_number(model) else AXES_OF_IMAGES[:1]


def image_shape(model: PreTrainedModel, dynamic: Sequence[str]) -> tuple[int | None, ...]:
    """Of an input without the batch: (3, height, width), or of a classifier (images, 3, height, width), images None
    where they are dynamic."""
    config = model.config
    size = (config.num_channels, config.image_size, config.image_size)
    if not _is_classifier(model):
        return size
    return (None if "images" in dynamic else config.num_images, *size)


def usual_channels(config: PreTrainedConfig, preprocessing: Any) -> int:
    """Channels of a window whose images a model takes."""
    if preprocessing.feature_size is not None:
        return preprocessing.feature_size
    joins = config.image_fusion == "concat" and preprocessing.channels_as == "images"
    return max(config.num_images // len(preprocessing.representations), 1) if joins else 1


def _is_classifier(model: PreTrainedModel) -> bool:
    return type(model).__name__.endswith("ForSequenceClassification")


def _takes_any_number(model: PreTrainedModel) -> bool:
    return _is_classifier(model) and model.config.image_fusion == "mean"


def check_axes_of_images(model: PreTrainedModel, dynamic: Sequence[str]) -> None:
    """Raise `ExportError` for axes that cannot be dynamic, or that have no length."""
    if unknown := [name for name in dynamic if name not in AXES_OF_IMAGES]:
        raise ExportError(f"dynamic={unknown[0]!r}: images have one size; use some of {', '.join(AXES_OF_IMAGES)}")
    if "images" in dynamic and not _takes_any_number(model):
        raise ExportError(
            "dynamic='images': only a classifier that averages its images (image_fusion='mean') takes any number of "
            "them; leave it out"
        )


def prepared_for_images(model: PreTrainedModel) -> PreTrainedModel:
    """The graph of a copy of a model is lean; the copy is changed."""
    from export.image_norm import ImageNorm
    from export.spectral import SpectralProducts
    from tinymyo_hf.tiny_biomoe.folding_tiny_biomoe import fold_batch_norms

    model.set_attn_implementation("eager")
    folded = fold_batch_norms(model)
    for name, module in list(folded.named_modules()):
        if type(module).__name__ == "TinyBioMoESpectralMixer":
            folded.set_submodule(name, SpectralProducts(module.complex_weight))
        elif name.endswith("image_norm"):
            folded.set_submodule(name, ImageNorm(module))
    return folded


def sample_images(model: PreTrainedModel, dynamic: Sequence[str]) -> dict[str, torch.Tensor]:
    """Inputs to trace with; no axis that is dynamic is 1 long, which would be taken as fixed."""
    import torch

    shape = (2 if "batch" in dynamic else 1, *(size or 3 for size in image_shape(model, dynamic)))
    return {"pixel_values": torch.linspace(0, 1, math.prod(shape)).reshape(shape)}
