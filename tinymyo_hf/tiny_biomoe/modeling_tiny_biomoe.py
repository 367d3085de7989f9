"""Tiny-BioMoE: two experts embed an image of a biosignal, gates weigh each feature of theirs, both are joined.

Shapes: `pixel_values` (batch, 3, 224, 224) in [0, 1] -> `pooler_output` (batch, 192). Source: Gkikas et al.,
"Tiny-BioMoE: a Lightweight Embedding Model for Biosignal Analysis" (2025).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tiny_biomoe import TinyBioMoEConfig
from .efficientvit_tiny_biomoe import TinyBioMoEAttentionBias, TinyBioMoEEfficientViT
from .spectformer_tiny_biomoe import (
    TinyBioMoEAttention,
    TinyBioMoESpectFormer,
    TinyBioMoESpectFormerBlock,
    TinyBioMoESpectralMixer,
)

logger = logging.get_logger(__name__)

MOST_DEAD_GATES = 0.5


@dataclass
class TinyBioMoEOutput(ModelOutput):
    """
    last_hidden_state: (batch, 49, 96), the SpectFormer's tokens, before the class attention and without its norm.
    pooler_output: (batch, 192), the embedding: both experts' features, gated, joined and normalised.
    expert_embeddings: (batch, 2, 96), those of the SpectFormer and of the EfficientViT.
    gates: (batch, 2, 96) in [0, 1], what their normalised features are multiplied by.
    hidden_states: before the first and after each block of the SpectFormer, (batch, side, side, width).
    attentions: of the SpectFormer's attention stages and of its class attention, (batch, heads, queries, tokens).
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    expert_embeddings: torch.Tensor | None = None
    gates: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def dead_gates(gates: torch.Tensor) -> float:
    """Share of the gates, (batch, 2, expert_size), that are closed for every input of a batch: there the feature of
    that expert is lost, and no gradient opens the gate again."""
    return (gates <= 0).all(dim=0).float().mean().item()


def fuse_images(embeddings: torch.Tensor, config: TinyBioMoEConfig) -> torch.Tensor:
    """Embeddings of the images of each window, (batch, images, hidden_size), as `config.image_fusion` says: averaged,
    (batch, hidden_size), or side by side, (batch, images * hidden_size).

    Raises:
        ValueError: another number of images than a head that joins them was made for.
    """
    if config.image_fusion == "mean":
        return embeddings.mean(dim=1)
    if embeddings.shape[1] != config.num_images:
        raise ValueError(
            f"Embeddings of {config.num_images} images of each window (config.num_images) are joined, but there are "
            f"{embeddings.shape[1]}: load the backbone with num_images={embeddings.shape[1]} and fine-tune a "
            'new head, or use image_fusion="mean".'
        )
    return embeddings.flatten(1)


class TinyBioMoEGate(nn.Linear):
    """Gates in [0, 1] of an expert's embedding, (..., expert_size) -> (..., expert_size), the same for both experts."""

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return functional.hardtanh(super().forward(functional.elu(embeddings)), 0.0, 1.0)


class TinyBioMoEPreTrainedModel(PreTrainedModel):
    config_class = TinyBioMoEConfig
    config: TinyBioMoEConfig
    base_model_prefix = "tiny_biomoe"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["TinyBioMoESpectFormerBlock", "TinyBioMoEEfficientViTBlock"]
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": TinyBioMoESpectFormerBlock, "attentions": TinyBioMoEAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Our choice, the paper states none: linear layers and spectral weights as vision transformers start them,
        convolutions with torch's default but no bias, no attention biases, and gates in the middle of their range."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            if isinstance(module, TinyBioMoEGate):
                # Below 0 and above 1 gates have no gradient: around 0 half of them would start closed.
                init.constant_(module.bias, 0.5)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
        elif isinstance(module, TinyBioMoESpectralMixer):
            init.normal_(module.complex_weight, std=std)
        elif isinstance(module, TinyBioMoEAttentionBias):
            init.zeros_(module.weight)


class TinyBioMoEModel(TinyBioMoEPreTrainedModel):
    """Images of biosignals -> embeddings."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__(config)
        self.image_norm = nn.LayerNorm((config.num_channels, config.image_size, config.image_size))
        self.spectformer = TinyBioMoESpectFormer(config)
        self.efficientvit = TinyBioMoEEfficientViT(config)
        self.expert_norm = nn.LayerNorm(config.expert_size)
        self.gate = TinyBioMoEGate(config.expert_size, config.expert_size)
        self.output_norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.spectformer.stem

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.spectformer.stem = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> TinyBioMoEOutput:
        """
        Args:
            pixel_values: (batch, 3, 224, 224) float in [0, 1].

        Raises:
            ValueError: another shape, or integers.
        """
        self._check(pixel_values)
        images = self.image_norm(pixel_values.to(self.image_norm.weight.dtype))
        embedding, tokens = self.spectformer(images, **kwargs)
        embeddings = torch.stack((embedding, self.efficientvit(images)), dim=1)  # (batch, experts, expert_size)
        gates = self.gate(embeddings)
        return TinyBioMoEOutput(
            last_hidden_state=tokens,
            pooler_output=self.output_norm((self.expert_norm(embeddings) * gates).flatten(1)),
            expert_embeddings=embeddings,
            gates=gates,
        )

    def _check(self, pixel_values: torch.Tensor) -> None:
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values must be floating-point numbers in [0, 1], got {pixel_values.dtype}: divide integers of "
                "0 to 255 by 255."
            )
        image = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != image:
            wanted = ", ".join(str(size) for size in image)
            raise ValueError(
                f"pixel_values must be (batch, {wanted}), got {tuple(pixel_values.shape)}: the weights fit images of "
                f"{image[1]} x {image[2]} pixels and {image[0]} colours alone; resize them, or set the image "
                "processor's image_size."
            )


class TinyBioMoEForSequenceClassification(TinyBioMoEPreTrainedModel):
    """Classes of windows of signals, each seen as one image or several (one for each channel and representation): the
    images' embeddings are averaged or joined, then ELU and one linear layer."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.tiny_biomoe = TinyBioMoEModel(config)
        images = config.num_images if config.image_fusion == "concat" else 1
        self.classifier = nn.Linear(images * config.hidden_size, config.num_labels)
        self.post_init()
        self.train()

    def train(self, mode: bool = True) -> "TinyBioMoEForSequenceClassification":
        """As of every module; a frozen backbone stays in evaluation mode, where batch norms keep their statistics, and
        gets no gradients."""
        super().train(mode)
        if self.config.freeze_backbone:  # here, as loading weights makes parameters of them that get gradients
            self.tiny_biomoe.eval().requires_grad_(False)
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_embeddings: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """
        Args:
            pixel_values: (batch, 3, 224, 224) or (batch, images, 3, 224, 224) float in [0, 1].
            labels: (batch,) class ids.
            image_embeddings: (batch, images, 192), what the backbone makes of the images, instead of `pixel_values`:
                to train a head on embeddings that were computed once.

        Returns:
            `logits` (batch, num_labels) and, with labels, the cross-entropy `loss`.

        Raises:
            ValueError: neither or both inputs given, another shape, integers, or another number of images than the
                head joins.
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("Pass exactly one of pixel_values and image_embeddings.")
        outputs = TinyBioMoEOutput()
        if pixel_values is not None:
            if pixel_values.ndim not in (4, 5):
                raise ValueError(
                    "pixel_values must be (batch, 3, height, width) or (batch, images, 3, height, width), got "
                    f"{tuple(pixel_values.shape)}."
                )
            images = pixel_values[:, None] if pixel_values.ndim == 4 else pixel_values
            outputs = self.tiny_biomoe(images.flatten(0, 1), **kwargs)
            self._report_dead_gates(outputs.gates)
            image_embeddings = outputs.pooler_output.unflatten(0, (-1, images.shape[1]))
        elif image_embeddings.ndim != 3 or image_embeddings.shape[-1] != self.config.hidden_size:
            raise ValueError(
                f"image_embeddings must be (batch, images, {self.config.hidden_size}), got "
                f"{tuple(image_embeddings.shape)}."
            )
        logits = self.classifier(functional.elu(fuse_images(image_embeddings, self.config)))

        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _report_dead_gates(self, gates: torch.Tensor) -> None:
        if not self.training or torch.compiler.is_compiling():
            return
        dead = dead_gates(gates.detach())
        if dead > MOST_DEAD_GATES:
            logger.warning_once(
                f"{dead:.0%} of the gates of Tiny-BioMoE are closed for every image of a batch: what is behind them is "
                "lost and gets no gradient. Start from released weights, or lower the learning rate."
            )


__all__ = [
    "TinyBioMoEForSequenceClassification",
    "TinyBioMoEModel",
    "TinyBioMoEOutput",
    "TinyBioMoEPreTrainedModel",
    "dead_gates",
    "fuse_images",
]
