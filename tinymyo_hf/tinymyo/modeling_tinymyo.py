"""TinyMyo: a transformer encoder over single-channel EMG patches, and its heads.

Shapes: `input_values` (batch, channels, time); tokens are channel-major, token = channel * patches + patch, so a hidden
state is (batch, channels * patches, hidden_size). Source: "TinyMyo: a Tiny Foundation Model for Flexible EMG Signal
Processing at the Edge", sections 3.1 and 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tinymyo import TinyMyoConfig
from .cpu_training_tinymyo import TinyMyoDropout, dropout_attention_forward, runs_on_cpu
from .cpu_training_tinymyo import dropout as dropout_of
from .relative_positions_tinymyo import TinyMyoRelativePositions
from .stem_residual_tinymyo import TinyMyoResidualStem
from .stem_tinymyo import TinyMyoConvolutionStem, check_input_values, zero_padding

# Mean square below which patches count as silent, of signals with a standard deviation near 1.
POWER_FLOOR = 1e-3


@dataclass
class TinyMyoForPreTrainingOutput(ModelOutput):
    """
    loss: scalar, `masked_loss + visible_loss_weight * visible_loss`.
    masked_loss, visible_loss: scalars, smooth L1 over the masked and over the visible tokens (padding excluded), plus
        `power_loss_weight` times that of their log RMS.
    reconstruction: (batch, channels * patches, patch_size), in the units of `input_values`.
    log_rms: (batch, channels * patches), predicted logarithm of each patch's RMS; with `power_loss_weight` only.
    bool_masked_pos: (batch, channels * patches), True where the token was replaced by the mask token.
    token_loss: (batch, channels * patches), the error of each token, of which the losses are means.
    """

    loss: torch.Tensor | None = None
    masked_loss: torch.Tensor | None = None
    visible_loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    log_rms: torch.Tensor | None = None
    bool_masked_pos: torch.Tensor | None = None
    token_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class TinyMyoForRegressionOutput(ModelOutput):
    """
    loss: scalar, mean absolute error.
    logits: (batch, target_length, num_labels), in the units of the training targets.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class TinyMyoDropPath(nn.Module):
    """`hidden_states + branch(hidden_states)`; in training the branch of a sample is dropped with probability `p`
    (stochastic depth). `per_sample` tensors go to the branch with the samples they belong to."""

    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        self.config = config
        self.p = config.drop_path_rate

    def forward(
        self, hidden_states: torch.Tensor, branch: Callable[..., torch.Tensor], *per_sample: torch.Tensor | None
    ) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return hidden_states + branch(hidden_states, *per_sample)
        batch = hidden_states.shape[0]
        # Attention weights may be asked of eager attention, and must cover the whole batch; other masks are opaque.
        if not runs_on_cpu(hidden_states) or self.config._attn_implementation != "sdpa":
            keep = hidden_states.new_empty(batch, 1, 1).bernoulli_(1.0 - self.p).div_(1.0 - self.p)
            return hidden_states + branch(hidden_states, *per_sample) * keep
        # Where control flow costs nothing, what is dropped is not computed either.
        kept = (torch.rand(batch) >= self.p).nonzero().squeeze(1)
        per_sample = tuple(t[kept] if t is not None and t.shape[0] == batch else t for t in per_sample)
        residual = branch(hidden_states[kept], *per_sample).to(hidden_states.dtype)
        return hidden_states.index_add(0, kept, residual, alpha=1.0 / (1.0 - self.p))


class TinyMyoPatchEmbedding(nn.Linear):
    """One linear map of `patch_size` samples to a token, shared by all channels."""


class TinyMyoRotaryEmbedding(nn.Module):
    """Cosines and sines of the rotary angles, (batch or 1, tokens, head_size / 2)."""

    def __init__(self, config: TinyMyoConfig, device: torch.device | None = None):
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        inv_freq, _ = self.compute_default_rope_parameters(config, device)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(
        config: TinyMyoConfig, device: torch.device | None = None, **kwargs
    ) -> tuple[torch.Tensor, float]:
        head_size = config.hidden_size // config.num_attention_heads
        exponent = torch.arange(0, head_size, 2, dtype=torch.float, device=device) / head_size
        return 1.0 / (config.rope_parameters["rope_theta"] ** exponent), 1.0

    @torch.no_grad()
    def forward(self, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].float() * self.inv_freq.float()
        return angles.cos(), angles.sin()


def apply_rotary_pos_emb(
    states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, halves: bool = False
) -> torch.Tensor:
    """Rotates the interleaved pairs (0, 1), (2, 3), ... of the last axis of `states` in float32; with `halves`, the
    first of each pair lie in the first half of the axis, the second ones in the other. `cos` and `sin` hold one angle
    per pair and broadcast against `states`."""
    if halves:
        even, odd = states.float().chunk(2, dim=-1)
        return torch.cat((even * cos - odd * sin, odd * cos + even * sin), dim=-1).to(states.dtype)
    pairs = states.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # exporters and code generators have no complex numbers
        even, odd = pairs.unbind(-1)
        rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    else:
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return rotated.flatten(-2).to(states.dtype)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    attention_weights = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        attention_weights = attention_weights + attention_mask
    attention_weights = nn.functional.softmax(attention_weights, dim=-1, dtype=torch.float32).to(query.dtype)
    attention_weights = dropout_of(attention_weights, dropout, module.training)
    attention_output = torch.matmul(attention_weights, value)
    return attention_output.transpose(1, 2).contiguous(), attention_weights


class TinyMyoAttention(nn.Module):
    # How the rows of queries and keys in `qkv` are ordered; scores are the same. Exported graphs have halves, of which
    # runtimes make contiguous slices.
    rotates_halves = False

    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = config.is_causal
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.proj_dropout = TinyMyoDropout(config.hidden_dropout_prob)
        relative = config.position_embedding_type == "relative"
        self.relative_positions = TinyMyoRelativePositions(config) if relative else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, tokens, _ = hidden_states.shape
        # (batch, tokens, 3 * hidden) -> (batch, tokens, 3, heads, head_dim), q and k rotated together
        qkv = self.qkv(hidden_states).view(batch, tokens, 3, self.num_heads, self.head_dim)
        query_key, value = qkv[:, :, :2], qkv[:, :, 2].transpose(1, 2)
        if position_embeddings is not None:
            cos, sin = (table[:, :, None, None] for table in position_embeddings)
            query_key = apply_rotary_pos_emb(query_key, cos, sin, self.rotates_halves)
        query, key = query_key.permute(2, 0, 3, 1, 4).unbind(0)  # (batch, heads, tokens, head_dim)
        attention_function = self._attention_function()
        if self.relative_positions is not None:
            attention_mask = self.relative_positions(query, attention_mask)

        output, weights = attention_function(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        # (batch, tokens, heads, head_dim) -> (batch, tokens, hidden)
        output = output.reshape(batch, tokens, self.num_heads * self.head_dim)
        return self.proj_dropout(self.proj(output)), weights

    def _attention_function(self) -> Callable:
        implementation = self.config._attn_implementation
        if self.relative_positions is not None:
            if implementation not in ("eager", "sdpa"):
                raise ValueError(
                    f"{implementation} takes no scores to add, which relative positions are: load the model with "
                    'attn_implementation="sdpa" or "eager".'
                )
            # torch's fused kernels have no gradient for such scores on CPU, and dropout there is faster this way.
            if self.training and runs_on_cpu(self.qkv.weight):
                return eager_attention_forward
        # torch's fused CPU kernel has no dropout, and its fall-back is slow.
        if implementation == "sdpa" and self.training and self.attention_dropout and runs_on_cpu(self.qkv.weight):
            return dropout_attention_forward
        return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)


class TinyMyoMLP(nn.Module):
    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = TinyMyoDropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.act(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


class TinyMyoLayer(GradientCheckpointingLayer):
    def __init__(self, config: TinyMyoConfig, layer_idx: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = TinyMyoAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = TinyMyoMLP(config)
        self.drop_path = TinyMyoDropPath(config)
        self.pre_norm = config.norm_position == "pre"
        if self.pre_norm:
            # The residual branches of deeper layers start smaller.
            self.attention.proj.init_gain = self.mlp.fc2.init_gain = (2 * (layer_idx + 1)) ** -0.5

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        cos, sin = position_embeddings if position_embeddings is not None else (None, None)

        def attention_branch(states, mask, cos, sin):
            positions = None if cos is None else (cos, sin)
            states = self.norm1(states) if self.pre_norm else states
            return self.attention(states, attention_mask=mask, position_embeddings=positions, **kwargs)[0]

        hidden_states = self.drop_path(hidden_states, attention_branch, attention_mask, cos, sin)
        if self.pre_norm:
            return self.drop_path(hidden_states, lambda states: self.mlp(self.norm2(states)))
        return self.norm2(self.drop_path(self.norm1(hidden_states), self.mlp))


class TinyMyoPreTrainedModel(PreTrainedModel):
    config_class = TinyMyoConfig
    config: TinyMyoConfig
    base_model_prefix = "tinymyo"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ["TinyMyoLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": TinyMyoLayer, "attentions": TinyMyoAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Leaf modules only: the library skips modules without parameters of their own in families outside of it.
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight, gain=getattr(module, "init_gain", 1.0))
            if isinstance(module, TinyMyoPatchEmbedding):
                # The released weights start from torch's default bias of a convolution over one patch.
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight)
        elif isinstance(module, TinyMyoRelativePositions):
            init.normal_(module.weight, std=module.weight.shape[-1] ** -0.5)
        elif isinstance(module, TinyMyoForPreTraining):
            std = self.config.initializer_range
            init.trunc_normal_(module.mask_token, mean=0.0, std=std, a=-std, b=std)


def patch_mask_of(attention_mask: torch.Tensor | None, patch_size: int) -> torch.Tensor | None:
    """(batch, time) sample mask -> (batch, patches) bool: a patch counts when it holds any real sample."""
    if attention_mask is None:
        return None
    return attention_mask.bool().unflatten(1, (-1, patch_size)).any(dim=-1)


class TinyMyoModel(TinyMyoPreTrainedModel):
    """The TinyMyo encoder without a head.

    With `stem="patches"` any number of channels and patches, one token for each patch of each channel; with
    `stem="convolution"` or "residual" one token for each frame of all channels.
    """

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        if config.stem == "patches":
            self.patch_embedding = TinyMyoPatchEmbedding(config.patch_size, config.hidden_size)
        else:
            self.stem = (TinyMyoConvolutionStem if config.stem == "convolution" else TinyMyoResidualStem)(config)
            # A pretrained encoder's layers fit under this stem, its patch embedding has no use.
            self._keys_to_ignore_on_load_unexpected = {r"^(tinymyo\.)?patch_embedding\."}
        self.rotary_emb = TinyMyoRotaryEmbedding(config) if config.position_embedding_type == "rope" else None
        self.layers = nn.ModuleList([TinyMyoLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)])
        if config.norm_position == "pre":
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        else:
            self.norm = nn.Identity()
            ignored = getattr(self, "_keys_to_ignore_on_load_unexpected", None) or set()
            self._keys_to_ignore_on_load_unexpected = {*ignored, r"^(tinymyo\.)?norm\."}
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embedding if self.config.stem == "patches" else self.stem

    def set_input_embeddings(self, value: nn.Module) -> None:
        setattr(self, "patch_embedding" if self.config.stem == "patches" else "stem", value)

    def to_patches(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, channels, time) -> (batch, channels, patches, patch_size); padded samples become 0.

        Raises:
            ValueError: the input is not three-dimensional, or its length is not a multiple of the patch size.
        """
        check_input_values(input_values, attention_mask)
        if not torch.compiler.is_exporting() and input_values.shape[-1] % self.config.patch_size:
            raise ValueError(
                f"The window has {input_values.shape[-1]} samples, which is not a multiple of patch_size "
                f"({self.config.patch_size}): pad it (the feature extractor does) or cut it."
            )
        return zero_padding(input_values, attention_mask).unflatten(-1, (-1, self.config.patch_size))

    def embed(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(batch, channels, time) -> embeddings (batch, rows, frames, hidden_size): a row of patches for each channel,
        or a single row of frames after another stem."""
        if self.config.stem != "patches":
            return self.stem(input_values, attention_mask, channel_mask)[:, None]
        patches = self.to_patches(input_values, attention_mask)
        return self.patch_embedding(patches.to(self.patch_embedding.weight.dtype))

    def token_mask(
        self, attention_mask: torch.Tensor | None, channel_mask: torch.Tensor | None, channels: int, patches: int
    ) -> torch.Tensor | None:
        """Sample mask (batch, time) and channel mask (batch, channels) -> token mask (batch, channels * patches)."""
        if self.config.stem != "patches":
            return self.stem.frame_mask(attention_mask)
        if attention_mask is None and channel_mask is None:
            return None
        if channel_mask is not None and channel_mask.shape[1] != channels:
            raise ValueError(f"channel_mask has {channel_mask.shape[1]} channels, input_values has {channels}.")
        mask = patch_mask_of(attention_mask, self.config.patch_size)
        mask = mask[:, None, :] if mask is not None else channel_mask.new_ones(1, 1, patches, dtype=torch.bool)
        if channel_mask is not None:
            mask = mask & channel_mask[:, :, None].bool()
        return mask.expand(-1, channels, -1).flatten(1)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """
        Args:
            input_values: (batch, channels, time) float. For patches, time is a multiple of `patch_size` and the values
                are normalised by the feature extractor (z-score or [-1, 1]); the convolution stem takes raw values.
            attention_mask: (batch, time), 1 for real samples and 0 for padding; padding comes last in a causal model.
            channel_mask: (batch, channels), 1 for real channels and 0 for padding.
            inputs_embeds: (batch, channels, patches, hidden_size), or (batch, 1, frames, hidden_size) in the place of
                another stem's, instead of `input_values`.

        Returns:
            `last_hidden_state` (batch, channels * patches, hidden_size), or (batch, frames, hidden_size).

        Raises:
            ValueError: neither or both inputs given, or shapes that do not fit.
        """
        if (input_values is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_values and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_values, attention_mask, channel_mask)
        _, channels, patches, _ = inputs_embeds.shape
        hidden_states = inputs_embeds.flatten(1, 2)  # (batch, channels * patches, hidden), channel-major

        token_mask = self.token_mask(attention_mask, channel_mask, channels, patches)
        if self.config.is_causal:
            # Padding lies behind the recording, in the future of every real frame: nothing else needs hiding.
            token_mask = None
            attention_mask = create_causal_mask(self.config, hidden_states, None, past_key_values=None)
        elif token_mask is None and torch.compiler.is_exporting():
            attention_mask = None  # the library would trace a mask that hides nothing
        else:
            attention_mask = create_bidirectional_mask(self.config, hidden_states, token_mask)
        position_embeddings = None
        if self.rotary_emb is not None:
            position_embeddings = self.rotary_emb(self._position_ids(hidden_states, token_mask))

        for layer in self.layers:
            hidden_states = layer(
                hidden_states, attention_mask=attention_mask, position_embeddings=position_embeddings, **kwargs
            )
        return BaseModelOutput(last_hidden_state=self.norm(hidden_states))

    def _position_ids(self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None) -> torch.Tensor:
        """Index of each token among the real tokens, so that padding never shifts a position."""
        if token_mask is None:
            return torch.arange(hidden_states.shape[1], device=hidden_states.device)[None]
        return (token_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def require_patches(model: nn.Module, config: TinyMyoConfig) -> None:
    """Raises:
    ValueError: the encoder has another stem, whose frames this head cannot work on.
    """
    if config.stem != "patches":
        raise ValueError(
            f'{type(model).__name__} works on patches, but config.stem is "{config.stem}": use a model of frames '
            "(TinyMyoForFrameClassification, TinyMyoForCTC, TinyMyoForSpeechSynthesis), "
            'or load the encoder with stem="patches", is_causal=False.'
        )


def split_channels(
    hidden_states: torch.Tensor, channels: int, channel_mask: torch.Tensor | None, config: TinyMyoConfig
) -> torch.Tensor:
    """(batch, channels * patches, hidden) -> (batch, channels, patches, hidden), padded channels set to 0.

    Raises:
        ValueError: the head concatenates channels and was built for another number of them.
    """
    if config.channel_fusion == "concat" and channels != config.num_channels:
        raise ValueError(
            f"This head concatenates {config.num_channels} channels (config.num_channels), but input_values has "
            f"{channels}. Pad the missing channels and pass channel_mask, load the encoder with "
            f'num_channels={channels} and fine-tune a new head, or use channel_fusion="mean".'
        )
    hidden_states = hidden_states.unflatten(1, (channels, -1))
    if channel_mask is not None:
        hidden_states = hidden_states * channel_mask[:, :, None, None].to(hidden_states.dtype)
    return hidden_states


def fuse_channels(
    hidden_states: torch.Tensor, channel_mask: torch.Tensor | None, config: TinyMyoConfig
) -> torch.Tensor:
    """(batch, channels, frames, hidden) with padded channels at 0 -> (batch, frames, channels * hidden), or
    (batch, frames, hidden) averaged over the real channels."""
    if config.channel_fusion == "concat":
        return hidden_states.transpose(1, 2).flatten(2)
    if channel_mask is None:
        return hidden_states.mean(dim=1)
    count = channel_mask.sum(dim=1).clamp(min=1).to(hidden_states.dtype)
    return hidden_states.sum(dim=1) / count[:, None, None]


def fused_size(config: TinyMyoConfig) -> int:
    return config.hidden_size * (config.num_channels if config.channel_fusion == "concat" else 1)


def patch_log_rms(patches: torch.Tensor) -> torch.Tensor:
    """(..., patch_size) -> (...), the logarithm of the RMS, bounded where a patch is silent."""
    return 0.5 * torch.log(patches.square().mean(dim=-1) + POWER_FLOOR)


class TinyMyoForPreTraining(TinyMyoPreTrainedModel):
    """Masked reconstruction: half of the tokens are replaced by a mask token, a linear decoder restores the samples.

    With `power_loss_weight`, another one tells how strong each patch is: the samples of a masked patch are hardly
    predictable, their strength is.
    """

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        require_patches(self, config)
        self.tinymyo = TinyMyoModel(config)
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size))
        self.decoder = nn.Linear(config.hidden_size, config.patch_size)
        self.power_decoder = nn.Linear(config.hidden_size, 1) if config.power_loss_weight else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TinyMyoForPreTrainingOutput:
        """
        Args:
            input_values: (batch, channels, time), min-max normalised to [-1, 1] in the published recipe.
            attention_mask: (batch, time); channel_mask: (batch, channels). Padding is neither masked nor scored.
            bool_masked_pos: (batch, channels * patches) bool, tokens to mask. Drawn when not given: exactly
                `floor(mask_ratio * real tokens)` of each sample.
            generator: random generator of that draw (default: torch's global one), on any device.
        """
        patches = self.tinymyo.to_patches(input_values, attention_mask)
        embeddings = self.tinymyo.patch_embedding(patches.to(self.tinymyo.patch_embedding.weight.dtype))
        batch, channels, num_patches, _ = embeddings.shape
        token_mask = self.tinymyo.token_mask(attention_mask, channel_mask, channels, num_patches)
        if bool_masked_pos is None:
            bool_masked_pos = self._draw_mask(embeddings, token_mask, generator)
        elif bool_masked_pos.shape != (batch, channels * num_patches):
            raise ValueError(
                f"bool_masked_pos must be (batch, channels * patches) = {(batch, channels * num_patches)}, "
                f"got {tuple(bool_masked_pos.shape)}."
            )
        bool_masked_pos = bool_masked_pos.bool()
        where_masked = bool_masked_pos.view(batch, channels, num_patches, 1)
        embeddings = torch.where(where_masked, self.mask_token.to(embeddings.dtype), embeddings)

        outputs = self.tinymyo(
            inputs_embeds=embeddings, attention_mask=attention_mask, channel_mask=channel_mask, **kwargs
        )
        reconstruction = self.decoder(outputs.last_hidden_state)

        targets = patches.flatten(1, 2).float()
        error = nn.functional.smooth_l1_loss(reconstruction.float(), targets, reduction="none").mean(dim=-1)
        log_rms = None
        if self.power_decoder is not None:
            log_rms = self.power_decoder(outputs.last_hidden_state).squeeze(-1)  # (batch, tokens)
            power_error = nn.functional.smooth_l1_loss(log_rms.float(), patch_log_rms(targets), reduction="none")
            error = error + self.config.power_loss_weight * power_error
        visible = ~bool_masked_pos if token_mask is None else ~bool_masked_pos & token_mask
        masked = bool_masked_pos if token_mask is None else bool_masked_pos & token_mask
        masked_loss = (error * masked).sum() / masked.sum().clamp(min=1)
        visible_loss = (error * visible).sum() / visible.sum().clamp(min=1)
        return TinyMyoForPreTrainingOutput(
            loss=masked_loss + self.config.visible_loss_weight * visible_loss,
            masked_loss=masked_loss,
            visible_loss=visible_loss,
            reconstruction=reconstruction,
            log_rms=log_rms,
            bool_masked_pos=bool_masked_pos,
            token_loss=error,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _draw_mask(
        self, embeddings: torch.Tensor, token_mask: torch.Tensor | None, generator: torch.Generator | None
    ) -> torch.Tensor:
        batch, channels, patches, _ = embeddings.shape
        device = generator.device if generator is not None else embeddings.device
        noise = torch.rand(batch, channels * patches, generator=generator, device=device).to(embeddings.device)
        if token_mask is None:
            count = torch.full((batch, 1), channels * patches, device=embeddings.device)
        else:
            noise = noise.masked_fill(~token_mask, 2.0)  # real tokens draw from [0, 1): padding ranks last
            count = token_mask.sum(dim=-1, keepdim=True)
        rank = noise.argsort(dim=-1).argsort(dim=-1)
        # A product such as 75 * 0.84 may come out just below the whole number it stands for.
        return rank < (count * self.config.mask_ratio + 1e-3).long()


class TinyMyoForSequenceClassification(TinyMyoPreTrainedModel):
    """Gesture classification of a window: channel fusion, mean over patches, one linear layer."""

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        require_patches(self, config)
        self.num_labels = config.num_labels
        self.tinymyo = TinyMyoModel(config)
        self.classifier = nn.Linear(fused_size(config), config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_values: (batch, channels, time); attention_mask: (batch, time); channel_mask: (batch, channels).
            labels: (batch,) class ids.

        Returns:
            `logits` (batch, num_labels) and, with labels, the cross-entropy `loss`.
        """
        outputs = self.tinymyo(input_values, attention_mask=attention_mask, channel_mask=channel_mask, **kwargs)
        hidden_states = split_channels(
            outputs.last_hidden_state, input_values.shape[1], channel_mask, self.config
        )  # (batch, channels, patches, hidden)
        patch_mask = patch_mask_of(attention_mask, self.config.patch_size)
        if patch_mask is None:
            pooled = hidden_states.mean(dim=2, keepdim=True)
        else:
            weights = patch_mask.to(hidden_states.dtype)
            weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
            pooled = (hidden_states * weights[:, None, :, None]).sum(dim=2, keepdim=True)
        logits = self.classifier(fuse_channels(pooled, channel_mask, self.config).squeeze(1))

        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TinyMyoRegressionHead(nn.Module):
    """(batch, patches, features) -> (batch, frames, outputs): pointwise, depthwise and pointwise convolution over the
    patches, then linear interpolation."""

    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        width = config.regression_hidden_size
        self.conv1 = nn.Conv1d(fused_size(config), width, kernel_size=1)
        self.dropout = TinyMyoDropout(config.hidden_dropout_prob)
        self.depthwise = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width)
        self.conv2 = nn.Conv1d(width, config.num_labels, kernel_size=1)

    def forward(self, features: torch.Tensor, patch_mask: torch.Tensor | None) -> torch.Tensor:
        hidden_states = features.transpose(1, 2)  # (batch, features, patches)
        hidden_states = self.dropout(nn.functional.silu(self.conv1(hidden_states)))
        if patch_mask is not None:
            # What lies beyond the recording must look like the convolution's own zero padding.
            hidden_states = hidden_states * patch_mask[:, None].to(hidden_states.dtype)
        hidden_states = nn.functional.silu(self.depthwise(hidden_states))
        return self.conv2(hidden_states).transpose(1, 2)  # (batch, patches, outputs)


def interpolate_frames(
    frames: torch.Tensor, lengths: torch.Tensor | None, target_length: int | None, patch_size: int
) -> torch.Tensor:
    """Linear interpolation of (batch, patches, outputs) over time, as `interpolate(mode="linear")` does it.

    The first `lengths` (batch,) patches, all by default, are stretched to `target_length` frames; without a target
    length, every patch becomes `patch_size` frames, so that frames stay aligned with the input samples.
    """
    num_frames = target_length or frames.shape[1] * patch_size
    if lengths is None:
        return nn.functional.interpolate(frames.transpose(1, 2), size=num_frames, mode="linear").transpose(1, 2)
    patches_per_frame = lengths[:, None] / target_length if target_length else 1.0 / patch_size
    centres = torch.arange(num_frames, device=frames.device)[None] + 0.5
    source = (centres * patches_per_frame - 0.5).clamp(min=0.0).expand(frames.shape[0], -1)
    last = (lengths - 1).clamp(min=0)[:, None]
    low = torch.minimum(source.long(), last)
    high = torch.minimum(low + 1, last)
    weight = (source - low).clamp(0.0, 1.0)[..., None].to(frames.dtype)
    index = (-1, -1, frames.shape[-1])
    return torch.lerp(
        frames.gather(1, low[..., None].expand(index)), frames.gather(1, high[..., None].expand(index)), weight
    )


class TinyMyoForRegression(TinyMyoPreTrainedModel):
    """Regression of a trajectory (joint angles, forces) from a window; L1 loss."""

    # The loss is a mean over its own batch: the Trainer is to average it over accumulation steps and processes.
    accepts_loss_kwargs = False

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        require_patches(self, config)
        self.num_labels = config.num_labels
        self.tinymyo = TinyMyoModel(config)
        self.regressor = TinyMyoRegressionHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TinyMyoForRegressionOutput:
        """
        Args:
            input_values: (batch, channels, time); attention_mask: (batch, time); channel_mask: (batch, channels).
            labels: (batch, target_length, num_labels) targets in their own units (degrees, newtons).

        Returns:
            `logits` (batch, target_length, num_labels) over the real samples of each window (one frame per sample
            when `target_length` is None) and, with labels, the mean absolute error as `loss`; frames of padded samples
            do not count.
        """
        outputs = self.tinymyo(input_values, attention_mask=attention_mask, channel_mask=channel_mask, **kwargs)
        hidden_states = split_channels(outputs.last_hidden_state, input_values.shape[1], channel_mask, self.config)
        patch_mask = patch_mask_of(attention_mask, self.config.patch_size)
        frames = self.regressor(fuse_channels(hidden_states, channel_mask, self.config), patch_mask)
        lengths = None if patch_mask is None else patch_mask.sum(dim=1)
        logits = interpolate_frames(frames, lengths, self.config.target_length, self.config.patch_size)

        loss = None
        if labels is not None:
            if labels.shape != logits.shape:
                raise ValueError(
                    f"labels must be (batch, target_length, num_labels) = {tuple(logits.shape)}, "
                    f"got {tuple(labels.shape)}: set config.target_length to the targets' length."
                )
            if attention_mask is not None and self.config.target_length is None:
                real = attention_mask.bool()[:, :, None]
                # Equal to the prediction, whatever the targets are padded with, they add neither loss nor gradient.
                labels = torch.where(real, labels, logits.detach())
                loss = (logits - labels).abs().sum() / (real.sum() * logits.shape[-1]).clamp(min=1)
            else:
                loss = nn.functional.l1_loss(logits, labels)
        return TinyMyoForRegressionOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "TinyMyoForPreTraining",
    "TinyMyoForPreTrainingOutput",
    "TinyMyoForRegression",
    "TinyMyoForRegressionOutput",
    "TinyMyoForSequenceClassification",
    "TinyMyoModel",
    "TinyMyoPreTrainedModel",
]
