"""A Tiny-BioMoE for images of 96 x 96 pixels with random weights, none of which is 0 or 1 by construction."""

import torch

from tinymyo_hf import TinyBioMoEConfig, TinyBioMoEForSequenceClassification, TinyBioMoEModel

MODELS = [TinyBioMoEModel, TinyBioMoEForSequenceClassification]
SMALL = {
    "image_size": 96, "spectformer_stem_size": 4, "spectformer_hidden_sizes": (8, 12, 16, 16),
    "spectformer_num_heads": (None, None, 2, 4), "spectformer_mlp_ratios": (2, 2, 2, 2),
    "efficientvit_hidden_sizes": (16, 24, 16), "efficientvit_num_heads": (2, 2, 4), "efficientvit_key_size": 4,
    "efficientvit_window_size": 3,
}  # fmt: skip
EMBEDDING = 2 * 16


def build(model_class=TinyBioMoEModel, seed: int = 0, **changes):
    """In evaluation mode."""
    torch.manual_seed(seed)
    model = model_class(TinyBioMoEConfig(**SMALL | changes)).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim != 4:
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def images(*batch: int, size: int = 96) -> torch.Tensor:
    """(*batch, 3, size, size) in [0, 1]."""
    return torch.rand(*batch, 3, size, size, generator=torch.Generator().manual_seed(len(batch)))
