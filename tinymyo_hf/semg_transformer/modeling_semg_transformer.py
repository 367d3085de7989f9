"""The sEMG transformers: convolutions over raw EMG, causal attention, and a CTC head for what is typed.

Shapes: `input_values` (batch, channels, time) -> hidden states (batch, frames, hidden_size), `config.num_frames(time)`
frames. The arrangement is that of the library's Wav2Vec2 with a first convolution over all channels and causal
attention, and modules are named as there. Source: "Scaling and Distilling Transformer Models for sEMG", section 3 and
appendix A.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_semg_transformer import SEMGTransformerConfig
from .cpu_attention_semg_transformer import blockwise_attention_forward, runs_on_cpu


class SEMGTransformerInputNorm(nn.Module):
    """Normalises each channel of (batch, channels, frames) over time as `config.input_norm` says; scales and shifts it.

    Statistics are computed in float32 at least, running ones in float64: their sums go over whole sessions.
    """

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        channels = config.conv_dim[0]
        self.mode = config.input_norm
        self.prior_frames = config.running_norm_frames
        self.eps = 1e-5  # of the library's group norm, which has no field for it
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        # Kept in every mode, so that a checkpoint trained in one can be loaded in another.
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        if self.mode == "window" and frame_mask is None:
            return nn.functional.group_norm(hidden_states, len(self.weight), self.weight, self.bias, self.eps)
        dtype = hidden_states.dtype
        states = hidden_states.float() if dtype in (torch.float16, torch.bfloat16) else hidden_states
        if self.mode == "window":
            mean, variance = window_statistics(states, frame_mask)
        elif self.mode == "frozen":
            mean, variance = self.running_mean[:, None], self.running_var[:, None]
        else:
            mean, variance = self.statistics_so_far(states)
        return self.normalize(states, mean, variance).to(dtype)

    def statistics_so_far(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, channels, frames) -> mean and variance of the frames up to each one, float64, the stored ones counted
        as `prior_frames` frames."""
        states = states.double()
        prior_mean, prior_variance = self.running_mean.double()[:, None], self.running_var.double()[:, None]
        count = self.prior_frames + torch.arange(1, states.shape[-1] + 1, device=states.device, dtype=states.dtype)
        mean = (self.prior_frames * prior_mean + states.cumsum(-1)) / count
        square = self.prior_frames * (prior_variance + prior_mean**2) + states.square().cumsum(-1)
        return mean, (square / count - mean**2).clamp(min=0.0)

    def normalize(self, states: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Normalise `states` (batch, channels, frames) with statistics that broadcast against them."""
        normalized = (states - mean) * (variance + self.eps).rsqrt()
        return (normalized * self.weight[:, None] + self.bias[:, None]).to(states.dtype)


def window_statistics(states: torch.Tensor, frame_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, channels, frames), mask (batch, frames) -> mean and variance (batch, channels, 1) of the real frames."""
    if frame_mask is None:
        return states.mean(-1, keepdim=True), states.var(-1, correction=0, keepdim=True)
    mask = frame_mask[:, None].to(states.dtype)
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    mean = (states * mask).sum(-1, keepdim=True) / count
    return mean, ((states - mean).square() * mask).sum(-1, keepdim=True) / count


class SEMGTransformerConvLayer(nn.Module):
    def __init__(self, config: SEMGTransformerConfig, layer_idx: int):
        super().__init__()
        in_channels = config.num_channels if layer_idx == 0 else config.conv_dim[layer_idx - 1]
        self.conv = nn.Conv1d(
            in_channels,
            config.conv_dim[layer_idx],
            kernel_size=config.conv_kernel[layer_idx],
            stride=config.conv_stride[layer_idx],
            bias=False,
        )
        self.layer_norm = SEMGTransformerInputNorm(config) if layer_idx == 0 else None
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = self.conv(hidden_states)
        if self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states, frame_mask)
        return self.activation(hidden_states)

    def output_length(self, length: torch.Tensor | int) -> torch.Tensor | int:
        """Frames made of `length` inputs, without padding."""
        return (length - self.conv.kernel_size[0]) // self.conv.stride[0] + 1


class SEMGTransformerFeatureEncoder(nn.Module):
    """(batch, channels, time) raw samples -> (batch, conv_dim[-1], frames)."""

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.conv_layers = nn.ModuleList(
            [SEMGTransformerConvLayer(config, layer_idx) for layer_idx in range(len(config.conv_dim))]
        )

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = input_values
        frame_mask = None
        for layer_idx, layer in enumerate(self.conv_layers):
            if layer_idx == 0 and attention_mask is not None:
                frame_mask = length_mask(
                    layer.output_length(lengths_of(attention_mask)), layer.output_length(input_values.shape[-1])
                )
            hidden_states = layer(hidden_states, frame_mask)
        return hidden_states

    def frame_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Samples (batch,) -> frames (batch,) that lie wholly within them, at least 0."""
        for layer in self.conv_layers:
            lengths = layer.output_length(lengths)
        return lengths.clamp(min=0)


def lengths_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """(batch, time) mask of padding at the end -> (batch,) real samples."""
    return attention_mask.long().sum(-1)


def length_mask(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """(batch,) -> (batch, longest) bool, True before each length."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


class SEMGTransformerProjection(nn.Linear):
    """A linear layer with initial weights of its own (the library initialises no module without parameters)."""


class SEMGTransformerFeatureProjection(nn.Module):
    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = SEMGTransformerProjection(config.conv_dim[-1], config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.projection(self.layer_norm(hidden_states)))


class SEMGTransformerPositionalConv(nn.Module):
    """Convolution over (batch, hidden, frames) with a weight norm per tap (dim 2), frames in = frames out.

    A centred kernel of even width K sees K/2 frames before and K/2 - 1 after each one; a causal one the K - 1 before.
    """

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        kernel, self.groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        future = 0 if config.positional_conv_causal else (kernel - 1) // 2
        self.padding = (kernel - 1 - future, future)
        # Not called weight_g and weight_v: the library renames those in every checkpoint, and loads them by halves.
        self.magnitude = nn.Parameter(torch.ones(1, 1, kernel))
        self.direction = nn.Parameter(torch.empty(config.hidden_size, config.hidden_size // self.groups, kernel))
        self.bias = nn.Parameter(torch.zeros(config.hidden_size))

    @property
    def weight(self) -> torch.Tensor:
        """(hidden, hidden / groups, kernel)."""
        return self.magnitude * self.direction / self.direction.norm(dim=(0, 1), keepdim=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(hidden_states, self.padding)
        return nn.functional.conv1d(padded, self.weight, self.bias, groups=self.groups)


class SEMGTransformerPositionalConvEmbedding(nn.Module):
    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.conv = SEMGTransformerPositionalConv(config)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # (batch, frames, hidden) -> (batch, hidden, frames) and back
        return self.activation(self.conv(hidden_states.transpose(1, 2))).transpose(1, 2)


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
    attention_weights = nn.functional.dropout(attention_weights, p=dropout, training=module.training)
    return torch.matmul(attention_weights, value).transpose(1, 2).contiguous(), attention_weights


class SEMGTransformerAttention(nn.Module):
    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = (
            self.split_heads(projection(hidden_states)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        output, weights = self._attention_function()(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.config.attention_window,
            **kwargs,
        )
        # (batch, frames, heads, head_dim) -> (batch, frames, hidden)
        return self.out_proj(output.flatten(2)), weights

    def _attention_function(self) -> Callable:
        implementation = self.config._attn_implementation
        if implementation == "sdpa" and self.training and runs_on_cpu(self.q_proj.weight):
            return blockwise_attention_forward
        return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, frames, hidden) -> (batch, heads, frames, head_dim)."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class SEMGTransformerFeedForward(nn.Module):
    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = ACT2FN[config.hidden_act]
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.intermediate_dropout(self.intermediate_act_fn(self.intermediate_dense(hidden_states)))
        return self.output_dropout(self.output_dense(hidden_states))


class SEMGTransformerLayer(GradientCheckpointingLayer):
    """A transformer block, its norms after each sublayer, or before with `config.do_stable_layer_norm`."""

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.norm_first = config.do_stable_layer_norm
        self.attention = SEMGTransformerAttention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = SEMGTransformerFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        if self.norm_first:
            attended, _ = self.attention(self.layer_norm(hidden_states), attention_mask=attention_mask, **kwargs)
            hidden_states = hidden_states + self.dropout(attended)
            return hidden_states + self.feed_forward(self.final_layer_norm(hidden_states))
        attended, _ = self.attention(hidden_states, attention_mask=attention_mask, **kwargs)
        hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
        return self.final_layer_norm(hidden_states + self.feed_forward(hidden_states))


class SEMGTransformerEncoder(nn.Module):
    """Positional convolution and blocks over (batch, frames, hidden)."""

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__()
        self.config = config
        self.pos_conv_embed = SEMGTransformerPositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([SEMGTransformerLayer(config) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        if frame_mask is not None:  # the positional convolution looks ahead: padding must be zeros to it
            hidden_states = hidden_states * frame_mask[:, :, None].to(hidden_states.dtype)
        # Padding lies behind the recording, in the future of every real frame: attention needs no mask for it.
        make_mask = create_causal_mask if self.config.attention_window is None else create_sliding_window_causal_mask
        attention_mask = make_mask(self.config, hidden_states, None, past_key_values=None)

        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        if not self.config.do_stable_layer_norm:
            hidden_states = self.layer_norm(hidden_states)
        hidden_states = self.dropout(hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=attention_mask, **kwargs)
        return self.layer_norm(hidden_states) if self.config.do_stable_layer_norm else hidden_states


class SEMGTransformerPreTrainedModel(PreTrainedModel):
    config_class = SEMGTransformerConfig
    config: SEMGTransformerConfig
    base_model_prefix = "semg_transformer"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _no_split_modules = ["SEMGTransformerLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": SEMGTransformerLayer, "attentions": SEMGTransformerAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the library's Wav2Vec2; the paper does not state it."""
        super()._init_weights(module)
        if isinstance(module, SEMGTransformerInputNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
        elif isinstance(module, SEMGTransformerPositionalConv):
            channels, _, kernel = module.direction.shape
            init.normal_(module.direction, mean=0.0, std=2 * (kernel * channels) ** -0.5)
            init.copy_(module.magnitude, module.direction.norm(dim=(0, 1), keepdim=True))
            init.zeros_(module.bias)
        elif isinstance(module, SEMGTransformerProjection):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, a=-bound, b=bound)
            init.uniform_(module.bias, a=-bound, b=bound)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight)


class SEMGTransformerModel(SEMGTransformerPreTrainedModel):
    """The encoder without a head: raw samples in, a hidden state per frame out."""

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__(config)
        self.feature_extractor = SEMGTransformerFeatureEncoder(config)
        self.feature_projection = SEMGTransformerFeatureProjection(config)
        self.encoder = SEMGTransformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.feature_extractor.conv_layers[0].conv

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.feature_extractor.conv_layers[0].conv = value

    @property
    def input_norm(self) -> SEMGTransformerInputNorm:
        """The norm behind the first convolution."""
        return self.feature_extractor.conv_layers[0].layer_norm

    @torch.no_grad()
    def input_statistics(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `input_norm="frozen"` needs: mean and variance (conv_dim[0],), float64, of the outputs of the first
        convolution, over all real frames of a batch of recordings (batch, channels, time)."""
        layer = self.feature_extractor.conv_layers[0]
        states = layer.conv(input_values.to(self.dtype)).double()
        frames = states.transpose(1, 2)  # (batch, frames, channels)
        if attention_mask is None:
            frames = frames.flatten(0, 1)
        else:
            frames = frames[length_mask(layer.output_length(lengths_of(attention_mask)), frames.shape[1])]
        if len(frames) == 0:
            raise ValueError("no frame of the first convolution fits into these recordings: give longer ones.")
        return frames.mean(0), frames.var(0, correction=0)

    @torch.no_grad()
    def set_input_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Store mean and variance (conv_dim[0],) for `input_norm="frozen"`; they are saved with the weights.

        Raises:
            ValueError: another shape, values that are not finite, a variance below zero.
        """
        norm = self.input_norm
        for name, values in (("mean", mean), ("variance", variance)):
            if values.shape != norm.running_mean.shape or not values.isfinite().all():
                raise ValueError(f"{name} must be {tuple(norm.running_mean.shape)} finite values, got {values.shape}.")
        if (variance < 0).any():
            raise ValueError("variance must not be negative.")
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """
        Args:
            input_values: (batch, channels, time) raw samples at 2 kHz, the left wristband's channels first.
            attention_mask: (batch, time), 1 for real samples, 0 for the padding behind a shorter recording.

        Returns:
            `last_hidden_state` (batch, frames, hidden_size); frames beyond a shorter recording are meaningless.

        Raises:
            ValueError: shapes that do not fit, or recordings shorter than a frame.
        """
        self._check(input_values, attention_mask)
        features = self.feature_extractor(input_values.to(self.dtype), attention_mask)
        hidden_states = self.feature_projection(features.transpose(1, 2))
        frame_mask = None
        if attention_mask is not None:
            lengths = self.feature_extractor.frame_lengths(lengths_of(attention_mask))
            frame_mask = length_mask(lengths, hidden_states.shape[1])
        return BaseModelOutput(last_hidden_state=self.encoder(hidden_states, frame_mask, **kwargs))

    def _check(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
        config = self.config
        if input_values.ndim != 3 or input_values.shape[1] != config.num_channels:
            raise ValueError(
                f"input_values must be (batch, {config.num_channels} channels, time), got {tuple(input_values.shape)}."
            )
        if input_values.shape[-1] < config.receptive_field:
            raise ValueError(
                f"{input_values.shape[-1]} samples are fewer than one frame sees ({config.receptive_field}): give a "
                "longer recording, or pad it and pass attention_mask."
            )
        if attention_mask is not None and attention_mask.shape != (input_values.shape[0], input_values.shape[-1]):
            raise ValueError(
                f"attention_mask must be (batch, time) = ({input_values.shape[0]}, {input_values.shape[-1]}), got "
                f"{tuple(attention_mask.shape)}."
            )


class SEMGTransformerForCTC(SEMGTransformerPreTrainedModel):
    """A probability of every character, or of none, for each frame; connectionist temporal classification."""

    # The loss is a mean over its own batch: the Trainer is to average it over accumulation steps and processes.
    accepts_loss_kwargs = False

    def __init__(self, config: SEMGTransformerConfig):
        super().__init__(config)
        self.semg_transformer = SEMGTransformerModel(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        labelled_span: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutput:
        """
        Args:
            input_values: (batch, channels, time) raw samples.
            attention_mask: (batch, time), 1 for real samples, 0 for the padding behind a shorter recording.
            labels: (batch, longest text) token ids, padded with -100.
            labelled_span: (batch, 2), the first sample of the labelled window and the one after its last, where the
                input has context around it: the loss then covers the frames that lie wholly inside; by default all
                (which of the two the paper does is not stated).

        Returns:
            `logits` (batch, frames, vocab_size), those of frames beyond a recording meaningless, and with labels the
            CTC `loss`.

        Raises:
            ValueError: shapes that do not fit, or labels that are no characters.
        """
        outputs = self.semg_transformer(input_values, attention_mask=attention_mask, **kwargs)
        logits = self.lm_head(self.dropout(outputs.last_hidden_state))

        loss = None
        if labels is not None:
            lengths = logits.new_full((len(logits),), input_values.shape[-1], dtype=torch.long)
            if attention_mask is not None:
                lengths = lengths_of(attention_mask)
            frames = self.semg_transformer.feature_extractor.frame_lengths(lengths)
            span = frame_span(self.config, frames, labelled_span)
            loss = ctc_loss(self.config, logits, span, labels)
        return CausalLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def frame_span(
    config: SEMGTransformerConfig, frame_lengths: torch.Tensor, labelled_span: torch.Tensor | None
) -> torch.Tensor:
    """The first frame and the one after the last (batch, 2) that lie wholly in `labelled_span`, in samples, and in the
    recordings of `frame_lengths` (batch,) frames."""
    if labelled_span is None:
        return torch.stack([torch.zeros_like(frame_lengths), frame_lengths], dim=1)
    first = -(-labelled_span[:, 0] // config.hop_length)
    stop = (labelled_span[:, 1] - config.receptive_field) // config.hop_length + 1
    return torch.stack([first, torch.maximum(torch.minimum(stop, frame_lengths), first)], dim=1)


def ctc_loss(
    config: SEMGTransformerConfig, logits: torch.Tensor, span: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """CTC of logits (batch, frames, vocab), frames `span` (batch, 2) of each, and labels padded with -100."""
    if labels.shape[:1] != logits.shape[:1] or labels.ndim != 2:
        raise ValueError(f"labels must be (batch={len(logits)}, longest text), got {tuple(labels.shape)}.")
    real = labels >= 0
    if (labels >= config.vocab_size).any() or (labels == config.pad_token_id).any():
        raise ValueError(
            f"labels must be below vocab_size={config.vocab_size} and not the blank {config.pad_token_id}; pad with "
            "-100."
        )
    log_probs = nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32)
    if logits.dtype == torch.float64:
        log_probs = nn.functional.log_softmax(logits, dim=-1)
    # Every span moved to the front: (batch, frames, vocab), of which the first `lengths` count.
    index = (span[:, :1] + torch.arange(logits.shape[1], device=logits.device)).clamp(max=logits.shape[1] - 1)
    log_probs = log_probs.gather(1, index[:, :, None].expand_as(log_probs))
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's has no zero_infinity
        return nn.functional.ctc_loss(
            log_probs.transpose(0, 1),
            labels.masked_fill(~real, 0),
            span[:, 1] - span[:, 0],
            real.sum(-1),
            blank=config.pad_token_id,
            reduction=config.ctc_loss_reduction,
            zero_infinity=config.ctc_zero_infinity,
        )


__all__ = ["SEMGTransformerForCTC", "SEMGTransformerModel", "SEMGTransformerPreTrainedModel"]
