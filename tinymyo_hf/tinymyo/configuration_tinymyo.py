"""Configuration of the TinyMyo encoder and its heads, and the named presets as data."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .frames_tinymyo import TinyMyoFrames


@strict
class TinyMyoConfig(TinyMyoFrames, PreTrainedConfig):
    r"""
    Configuration of [`TinyMyoModel`] and its heads. The defaults are the published encoder ("TinyMyo: a Tiny
    Foundation Model for Flexible EMG Signal Processing at the Edge", section 3.1 and Table 1).

    Args:
        hidden_size (`int`, defaults to 192): Width of the tokens; a multiple of `num_attention_heads`.
        num_hidden_layers (`int`, defaults to 8): Number of pre-norm transformer blocks.
        num_attention_heads (`int`, defaults to 3): Attention heads per block (64 dimensions each).
        intermediate_size (`int`, defaults to 768): Width of the feed-forward layer.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward layer (exact GELU).
        patch_size (`int`, defaults to 20): Samples of one channel that make one token; windows are multiples of it.
        num_channels (`int`, defaults to 16): Electrodes the head was built for. The encoder itself takes any number
            where its stem is `"patches"`; only heads with `channel_fusion="concat"` depend on it.
        stem (`"patches"`, `"convolution"` or `"residual"`, defaults to `"patches"`): What makes tokens of samples: one
            linear map of each patch of each channel; a convolution over time that joins the channels and gives one
            token per frame (the published model for discrete gestures); or residual blocks of convolutions, each of
            which halves the rate (the published models for speech).
        stem_kernel_size, stem_stride (`int`, default to 21 and 10): Samples that a frame of the convolution sees, and
            samples from one frame to the next.
        stem_compression (`"reinhard"` or `"none"`, defaults to `"reinhard"`): What the convolution stem does to the
            raw samples first: `64 x / (32 + |x|)`, which bounds artefacts, or nothing.
        num_stem_blocks (`int`, defaults to 3): Blocks of the residual stem; a frame is `2 ** num_stem_blocks` samples.
        norm_position (`"pre"` or `"post"`, defaults to `"pre"`): Whether the layers normalise before attention and
            feed-forward, with a norm after the last layer, or after each residual sum, without. The released models
            for speech have `"post"`, though the paper says that they use the pretrained encoder.
        is_causal (`bool`, defaults to False): Whether a frame attends to itself and earlier frames only. Needs
            `stem="convolution"`.
        position_embedding_type (`"rope"`, `"relative"` or `"none"`, defaults to `"rope"`): Rotary positions over the
            flattened token index (channel * patches + patch, or the frame), as the paper describes; learned positions
            of the other frame relative to this one, in every layer (the models for speech); or none. The
            implementation released with the paper rotates along the head axis, which cancels in the attention scores:
            checkpoints trained with it behave as `"none"`.
        max_relative_positions (`int`, defaults to 100): With relative positions, a frame attends to those fewer than so
            many frames away.
        rope_parameters (`dict`, *optional*): `{"rope_type": "default", "rope_theta": 10000.0}` by default.
        hidden_dropout_prob (`float`, defaults to 0.1): Dropout after the attention projection and in the feed-forward.
        attention_probs_dropout_prob (`float`, defaults to 0.1): Dropout of the attention probabilities.
        drop_path_rate (`float`, defaults to 0.1): Stochastic depth, the same rate in every block.
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the layer norms.
        initializer_range (`float`, defaults to 0.02): Standard deviation (and clip) of the mask token's initial values.
        channel_fusion (`"concat"` or `"mean"`, defaults to `"concat"`): How the heads join the channels.
        mask_ratio (`float`, defaults to 0.5): Share of the tokens that [`TinyMyoForPreTraining`] masks.
        visible_loss_weight (`float`, defaults to 0.1): Weight of the visible tokens' reconstruction loss.
        power_loss_weight (`float`, defaults to 0): Weight of a second target of [`TinyMyoForPreTraining`], the
            logarithm of each patch's RMS; 0, the paper's recipe, has none.
        regression_hidden_size (`int`, defaults to 256): Width of the regression head.
        num_mel_bins (`int`, defaults to 80): Outputs per frame of [`TinyMyoForSpeechSynthesis`]: the logarithm of 80
            mel energies, as released, or the 26 cepstral coefficients that the paper writes of.
        num_phonemes (`int`, defaults to 48): Its auxiliary classes.
        phoneme_loss_weight (`float`, defaults to 0.5): Weight of their cross-entropy.
        vocab_size (`int`, defaults to 38): Outputs of [`TinyMyoForCTC`]: 37 characters and the blank.
        pad_token_id (`int`, *optional*): The blank of CTC; the last of `vocab_size` by default.
        ctc_loss_reduction (`"mean"` or `"sum"`, defaults to `"mean"`): Over the batch, as `torch.nn.CTCLoss` means it.
        ctc_zero_infinity (`bool`, defaults to True): Whether texts longer than their recording count as nothing, not
            as infinite.
        target_length (`int`, *optional*): Frames that [`TinyMyoForRegression`] predicts per window; by default one
            per input sample.

    Raises:
        huggingface_hub.errors.StrictDataclassFieldValidationError: a field has the wrong type.
        huggingface_hub.errors.StrictDataclassClassValidationError: fields contradict each other (for example
            `hidden_size` is not a multiple of `num_attention_heads`).
    """

    model_type = "tinymyo"

    hidden_size: int = 192
    num_hidden_layers: int = 8
    num_attention_heads: int = 3
    intermediate_size: int = 768
    hidden_act: str = "gelu"
    patch_size: int = 20
    num_channels: int = 16
    stem: Literal["patches", "convolution", "residual"] = "patches"
    stem_kernel_size: int = 21
    stem_stride: int = 10
    stem_compression: Literal["reinhard", "none"] = "reinhard"
    num_stem_blocks: int = 3
    norm_position: Literal["pre", "post"] = "pre"
    is_causal: bool = False
    position_embedding_type: Literal["rope", "relative", "none"] = "rope"
    max_relative_positions: int = 100
    rope_parameters: dict | None = None
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    drop_path_rate: float | int = 0.1
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    channel_fusion: Literal["concat", "mean"] = "concat"
    mask_ratio: float | int = 0.5
    visible_loss_weight: float | int = 0.1
    power_loss_weight: float | int = 0.0
    regression_hidden_size: int = 256
    num_mel_bins: int = 80
    num_phonemes: int = 48
    phoneme_loss_weight: float | int = 0.5
    vocab_size: int = 38
    pad_token_id: int | None = None
    ctc_loss_reduction: Literal["mean", "sum"] = "mean"
    ctc_zero_infinity: bool = True
    target_length: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.rope_parameters is None:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
        if self.rope_parameters.get("rope_type", "default") != "default":
            raise ValueError(
                f'rope_parameters["rope_type"] must be "default", got {self.rope_parameters["rope_type"]!r}: '
                "other types scale to longer texts, which windows of EMG do not need."
            )
        if self.pad_token_id is None:
            self.pad_token_id = self.vocab_size - 1
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Checks that the fields fit together (called by the strict dataclass after construction)."""
        for field in (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size",
            "num_channels", "stem_kernel_size", "stem_stride", "num_stem_blocks", "max_relative_positions",
            "num_mel_bins", "num_phonemes", "vocab_size", "regression_hidden_size",
        ):  # fmt: skip
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}.")
        if self.target_length is not None and self.target_length < 1:
            raise ValueError(f"target_length must be at least 1 or None, got {self.target_length}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}): choose a width such as "
                f"{-(-self.hidden_size // self.num_attention_heads) * self.num_attention_heads}."
            )
        if self.is_causal and self.stem != "convolution":
            raise ValueError(
                'is_causal=True needs stem="convolution": patches of several channels have no single order in time, '
                "and the residual stem sees the future."
            )
        if self.position_embedding_type == "relative" and (self.stem == "patches" or self.is_causal):
            raise ValueError(
                'position_embedding_type="relative" needs stem="residual", or a convolution stem with is_causal=False: '
                "patches of several channels have no distance in time."
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id={self.pad_token_id} must be one of the vocab_size={self.vocab_size} ids.")
        if self.position_embedding_type == "rope":
            head_size = self.hidden_size // self.num_attention_heads
            if head_size % 2:
                raise ValueError(
                    f"Rotary positions rotate pairs: hidden_size / num_attention_heads must be even, got {head_size}. "
                    'Change the width or set position_embedding_type="none".'
                )
        for field in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "mask_ratio"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be in [0, 1), got {getattr(self, field)}.")
        for field in ("power_loss_weight", "phoneme_loss_weight"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be at least 0, got {getattr(self, field)}.")


# In the order of the neuromotor model's outputs.
NEUROMOTOR_GESTURES = (
    "index_press", "index_release", "middle_press", "middle_release",
    "thumb_click", "thumb_down", "thumb_in", "thumb_out", "thumb_up",
)  # fmt: skip

_SPEECH = {
    "num_channels": 8,
    "stem": "residual",
    "norm_position": "post",
    "position_embedding_type": "relative",
    "drop_path_rate": 0.0,
}

# Named variants of the paper: keyword arguments of TinyMyoConfig. `num_labels` of a regression is its outputs.
TINYMYO_PRESETS: dict[str, dict[str, Any]] = {
    "tinymyo-base": {"architectures": ["TinyMyoForPreTraining"]},
    "tinymyo-ninapro-db5": {
        "architectures": ["TinyMyoForSequenceClassification"],
        "num_channels": 16,
        "num_labels": 53,
    },
    "tinymyo-epn612": {"architectures": ["TinyMyoForSequenceClassification"], "num_channels": 8, "num_labels": 6},
    "tinymyo-uci-emg": {"architectures": ["TinyMyoForSequenceClassification"], "num_channels": 8, "num_labels": 6},
    "tinymyo-ninapro-db8": {"architectures": ["TinyMyoForRegression"], "num_channels": 16, "num_labels": 5},
    "tinymyo-neuromotor": {
        "architectures": ["TinyMyoForFrameClassification"],
        "num_channels": 16,
        "stem": "convolution",
        "is_causal": True,
        "id2label": dict(enumerate(NEUROMOTOR_GESTURES)),
        "label2id": {gesture: index for index, gesture in enumerate(NEUROMOTOR_GESTURES)},
    },
    "tinymyo-gaddy-recognition": {"architectures": ["TinyMyoForCTC"], **_SPEECH},
    "tinymyo-gaddy-synthesis": {"architectures": ["TinyMyoForSpeechSynthesis"], **_SPEECH},
}

__all__ = ["TINYMYO_PRESETS", "TinyMyoConfig"]
