"""Configuration of the sEMG transformers, and the 20 published sizes as data."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .frames_semg_transformer import SEMGTransformerFrames


@strict
class SEMGTransformerConfig(SEMGTransformerFrames, PreTrainedConfig):
    r"""
    Configuration of [`SEMGTransformerModel`] and [`SEMGTransformerForCTC`]. The defaults are TINY of "Scaling and
    Distilling Transformer Models for sEMG" (Tables 3, 5 and 7); what the paper leaves open is said with the field.

    Args:
        num_channels (`int`, defaults to 32): Electrodes, those of the left wristband first.
        conv_dim, conv_kernel, conv_stride (`list[int]`, default to [128, 64, 64], [11, 3, 3] and [5, 2, 2]): The
            convolutions that make frames of samples (a frame sees 41 samples, one frame every 20).
        hidden_size (`int`, defaults to 128): Width of the encoder; a multiple of `num_attention_heads` and of
            `num_conv_pos_embedding_groups`.
        num_hidden_layers (`int`, defaults to 10): Transformer blocks.
        num_attention_heads (`int`, defaults to 16): Attention heads per block.
        intermediate_size (`int`, *optional*): Width of the feed-forward layers; by default 4 `hidden_size`.
        hidden_act (`str`, defaults to `"gelu"`): Activation of convolutions and feed-forward layers (not stated in the
            paper; the default of the library's Wav2Vec2).
        num_conv_pos_embeddings, num_conv_pos_embedding_groups (`int`, default to 128 and 16): Kernel and groups of the
            positional convolution.
        positional_conv_causal (`bool`, defaults to False): Whether the positional convolution sees the past alone.
            The published one is centred: every frame waits for 63 later ones (630 ms).
        do_stable_layer_norm (`bool`, defaults to False): Layer norms before attention and feed-forward ("pre-LN")
            instead of after them. The published parameter counts fit both; the library's default is after.
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the norms.
        hidden_dropout, activation_dropout, attention_dropout, feat_proj_dropout, final_dropout (`float`, default to
            0.2): Dropout after each sublayer, within the feed-forward layers, of the attention probabilities, after
            the feature projection, and before the CTC head.
        input_norm (`"window"`, `"frozen"` or `"running"`, defaults to `"window"`): What the outputs of the first
            convolution are normalised with, channel by channel: mean and variance over the whole window (published; no
            frame can be known before the window ends), over other recordings, stored in the model, or over the past
            up to each frame.
        running_norm_frames (`int`, defaults to 0): Weight of the stored mean and variance in those of
            `input_norm="running"`, in frames of the first convolution (400 per second).
        attention_window (`int`, *optional*): Frames that a frame attends to, itself and those before it; by default
            all before it, as published.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights of linear layers.
        vocab_size (`int`, defaults to 99): 98 characters and the blank of CTC.
        pad_token_id (`int`, defaults to 98): The blank.
        ctc_loss_reduction (`"mean"` or `"sum"`, defaults to `"mean"`): Whether losses are divided by the length of
            their text and averaged over the batch, or summed (not stated in the paper).
        ctc_zero_infinity (`bool`, defaults to True): Texts that cannot fit their frames contribute no loss.

    Raises:
        huggingface_hub.errors.StrictDataclassFieldValidationError: a field has the wrong type.
        huggingface_hub.errors.StrictDataclassClassValidationError: fields contradict each other.
    """

    model_type = "semg_transformer"

    num_channels: int = 32
    conv_dim: list[int] | tuple[int, ...] = (128, 64, 64)
    conv_kernel: list[int] | tuple[int, ...] = (11, 3, 3)
    conv_stride: list[int] | tuple[int, ...] = (5, 2, 2)
    hidden_size: int = 128
    num_hidden_layers: int = 10
    num_attention_heads: int = 16
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    positional_conv_causal: bool = False
    do_stable_layer_norm: bool = False
    layer_norm_eps: float = 1e-5
    hidden_dropout: float | int = 0.2
    activation_dropout: float | int = 0.2
    attention_dropout: float | int = 0.2
    feat_proj_dropout: float | int = 0.2
    final_dropout: float | int = 0.2
    input_norm: Literal["window", "frozen", "running"] = "window"
    running_norm_frames: int = 0
    attention_window: int | None = None
    initializer_range: float = 0.02
    vocab_size: int = 99
    pad_token_id: int | None = 98
    ctc_loss_reduction: Literal["mean", "sum"] = "mean"
    ctc_zero_infinity: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Checks that the fields fit together (called by the strict dataclass after construction)."""
        convolutions = (self.conv_dim, self.conv_kernel, self.conv_stride)
        if not self.conv_dim or len({len(values) for values in convolutions}) != 1:
            raise ValueError(
                "conv_dim, conv_kernel and conv_stride must have one entry per convolution, got "
                f"{len(self.conv_dim)}, {len(self.conv_kernel)} and {len(self.conv_stride)}."
            )
        if min(value for values in convolutions for value in values) < 1:
            raise ValueError("conv_dim, conv_kernel and conv_stride must be at least 1.")
        for field in (
            "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "vocab_size",
        ):  # fmt: skip
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}.")
        for field in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, field):
                raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of {field}.")
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(f"attention_window must be at least 1 or None, got {self.attention_window}.")
        if self.running_norm_frames < 0:
            raise ValueError(f"running_norm_frames must not be negative, got {self.running_norm_frames}.")
        if self.pad_token_id is None or not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id, the blank of CTC, must be one of the {self.vocab_size} tokens, got {self.pad_token_id}."
            )
        for field in (
            "hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout",
        ):  # fmt: skip
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be in [0, 1), got {getattr(self, field)}.")

    @property
    def sliding_window(self) -> int | None:
        """`attention_window` under the library's name, which its attention masks look for."""
        return self.attention_window

    @property
    def inputs_to_logits_ratio(self) -> int:
        """`hop_length` under the library's name for it."""
        return self.hop_length


_NAMED = {"tiny": (128, 10), "small": (256, 6), "large": (1024, 8)}


def _preset(hidden_size: int, num_hidden_layers: int) -> dict[str, Any]:
    return {
        "architectures": ["SEMGTransformerForCTC"],
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
    }


# Keyword arguments of SEMGTransformerConfig: the named sizes and the whole grid of the paper's Tables 11 and 12.
SEMG_TRANSFORMER_PRESETS: dict[str, dict[str, Any]] = {
    **{f"semg-transformer-{name}": _preset(*size) for name, size in _NAMED.items()},
    **{
        f"semg-transformer-{hidden_size}x{layers}": _preset(hidden_size, layers)
        for hidden_size in (128, 256, 512, 1024)
        for layers in (2, 4, 6, 8, 10)
    },
}

__all__ = ["SEMG_TRANSFORMER_PRESETS", "SEMGTransformerConfig"]
