"""Configuration of Tiny-BioMoE, and its published size as data."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


@strict
class TinyBioMoEConfig(PreTrainedConfig):
    r"""
    Configuration of [`TinyBioMoEModel`] and [`TinyBioMoEForSequenceClassification`]. The defaults are the published
    Tiny-BioMoE: two experts, a SpectFormer and an EfficientViT, whose embeddings are gated and joined.

    Args:
        image_size (`int`, defaults to 224): Height and width of an image in pixels, a multiple of 32. The first norm
            and the spectral weights have the images' shape: weights fit one size alone.
        num_channels (`int`, defaults to 3): Colours of an image (not channels of EMG).
        spectformer_stem_size (`int`, defaults to 32): Width of the convolutions before the SpectFormer's first stage.
        spectformer_hidden_sizes (`list[int]`, defaults to [64, 128, 320, 96]): Width of its stages, of one block each,
            on grids of 1/4, 1/8, 1/16 and 1/32 of the image. The last one is the size of an expert's embedding.
        spectformer_num_heads (`list[int | None]`, defaults to [None, None, 10, 16]): Attention heads of each stage;
            None for a spectral one. The class attention behind the last stage has as many heads as it.
        spectformer_mlp_ratios (`list[int]`, defaults to [8, 8, 4, 4]): Width of the feed-forward layers of each stage
            in multiples of its own; the last one also counts for the class attention's.
        efficientvit_hidden_sizes (`list[int]`, defaults to [192, 288, 96]): Width of the EfficientViT's stages, of one
            block each, on a grid of 1/16 of the image, halved for each further stage. The first is a multiple of 8, the
            last is the size of an expert's embedding.
        efficientvit_num_heads (`list[int]`, defaults to [3, 3, 4]): Cascaded attention heads of each stage.
        efficientvit_key_size (`int`, defaults to 16): Width of queries and keys of a head.
        efficientvit_window_size (`int`, defaults to 7): Side of the windows within which its tokens attend to each
            other. A grid that is larger must be a multiple of it; on a smaller one all tokens do.
        efficientvit_query_kernels (`list[int]`, defaults to [7, 5, 3, 3]): Kernels of the depthwise convolutions on
            the queries of the first, second, ... head; at least as many as heads.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the norms within the SpectFormer, but those that follow
            its convolutions, which have 1e-5 like those of the images and of the embeddings.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights of linear layers and
            of the spectral weights.
        num_images (`int`, defaults to 1): Images that `image_fusion="concat"` joins for one window of a signal (its
            channels times their representations).
        image_fusion (`"mean"` or `"concat"`, defaults to `"mean"`): How a classifier joins the embeddings of several
            images of one window.
        freeze_backbone (`bool`, defaults to False): Train a classifier's head alone; the statistics of the batch norms
            stay as they are too.

    Raises:
        huggingface_hub.errors.StrictDataclassFieldValidationError: a field has the wrong type.
        huggingface_hub.errors.StrictDataclassClassValidationError: fields contradict each other.
    """

    model_type = "tiny_biomoe"

    image_size: int = 224
    num_channels: int = 3
    spectformer_stem_size: int = 32
    spectformer_hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 320, 96)
    spectformer_num_heads: list[int | None] | tuple[int | None, ...] = (None, None, 10, 16)
    spectformer_mlp_ratios: list[int] | tuple[int, ...] = (8, 8, 4, 4)
    efficientvit_hidden_sizes: list[int] | tuple[int, ...] = (192, 288, 96)
    efficientvit_num_heads: list[int] | tuple[int, ...] = (3, 3, 4)
    efficientvit_key_size: int = 16
    efficientvit_window_size: int = 7
    efficientvit_query_kernels: list[int] | tuple[int, ...] = (7, 5, 3, 3)
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    num_images: int = 1
    image_fusion: Literal["mean", "concat"] = "mean"
    freeze_backbone: bool = False

    def validate_architecture(self) -> None:
        """Checks that the fields fit together (called by the strict dataclass after construction)."""
        for field in (
            "image_size", "num_channels", "spectformer_stem_size", "efficientvit_key_size", "efficientvit_window_size",
            "num_images",
        ):  # fmt: skip
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}.")
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, got {self.image_size}.")
        self._validate_spectformer()
        self._validate_efficientvit()
        sizes = self.spectformer_hidden_sizes[-1], self.efficientvit_hidden_sizes[-1]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "Both experts' embeddings must have the same size: the last of spectformer_hidden_sizes is "
                f"{sizes[0]}, that of efficientvit_hidden_sizes {sizes[1]}."
            )

    def _validate_spectformer(self) -> None:
        sizes, heads, ratios = self.spectformer_hidden_sizes, self.spectformer_num_heads, self.spectformer_mlp_ratios
        if not len(sizes) == len(heads) == len(ratios) == 4:
            raise ValueError(
                "spectformer_hidden_sizes, spectformer_num_heads and spectformer_mlp_ratios must have 4 entries, one "
                f"for each stage, got {len(sizes)}, {len(heads)} and {len(ratios)}."
            )
        if min(*sizes, *ratios) < 1:
            raise ValueError("spectformer_hidden_sizes and spectformer_mlp_ratios must be at least 1.")
        if heads[-1] is None:
            raise ValueError("The last of spectformer_num_heads must be a number: class attention has as many.")
        for size, count in zip(sizes, heads, strict=True):
            if count is not None and (count < 1 or size % count):
                raise ValueError(f"A stage of the SpectFormer of width {size} cannot have {count} attention heads.")

    def _validate_efficientvit(self) -> None:
        sizes, heads, kernels = (
            self.efficientvit_hidden_sizes, self.efficientvit_num_heads, self.efficientvit_query_kernels,
        )  # fmt: skip
        if not sizes or len(sizes) != len(heads):
            raise ValueError(
                "efficientvit_hidden_sizes and efficientvit_num_heads must have one entry for each stage, got "
                f"{len(sizes)} and {len(heads)}."
            )
        if sizes[0] % 8:
            raise ValueError(f"The first of efficientvit_hidden_sizes must be a multiple of 8, got {sizes[0]}.")
        for size, count in zip(sizes, heads, strict=True):
            if count < 1 or size < 1 or size % count:
                raise ValueError(f"A stage of the EfficientViT of width {size} cannot have {count} heads.")
        if max(heads) > len(kernels) or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(
                f"efficientvit_query_kernels must be odd and as many as heads ({max(heads)}), got {list(kernels)}."
            )
        for grid in self.efficientvit_grids:
            if grid > self.efficientvit_window_size and grid % self.efficientvit_window_size:
                raise ValueError(
                    f"An image of {self.image_size} pixels gives the EfficientViT a grid of {grid} x {grid} tokens, "
                    f"which efficientvit_window_size ({self.efficientvit_window_size}) does not divide."
                )

    @property
    def spectformer_grids(self) -> list[int]:
        """Side of the grid of tokens of each of its stages."""
        return [self.image_size // scale for scale in (4, 8, 16, 32)]

    @property
    def efficientvit_grids(self) -> list[int]:
        """Side of the grid of tokens of each of its stages."""
        grids = [self.image_size // 16]
        for _ in self.efficientvit_hidden_sizes[1:]:
            grids.append((grids[-1] + 1) // 2)
        return grids

    @property
    def expert_size(self) -> int:
        """Size of one expert's embedding."""
        return self.spectformer_hidden_sizes[-1]

    @property
    def hidden_size(self) -> int:
        """Size of the embedding of an image: those of both experts."""
        return 2 * self.expert_size


# Keyword arguments of TinyBioMoEConfig.
TINY_BIOMOE_PRESETS: dict[str, dict[str, Any]] = {"tiny-biomoe": {"architectures": ["TinyBioMoEModel"]}}

__all__ = ["TINY_BIOMOE_PRESETS", "TinyBioMoEConfig"]
