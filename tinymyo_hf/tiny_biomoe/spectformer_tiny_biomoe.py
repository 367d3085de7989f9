"""The SpectFormer expert of Tiny-BioMoE: image (batch, colours, height, width) -> embedding and tokens.

Four stages of one block each; feature maps are (batch, side, side, width) within them. The first two mix their tokens
by weights on the two-dimensional spectrum of each feature, the others by attention; class attention gathers them.
Source: Patro et al., "SpectFormer: Frequency and Attention is what you need in a Vision Transformer" (2023), in the
sizes of Tiny-BioMoE.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_tiny_biomoe import TinyBioMoEConfig
from .efficientvit_tiny_biomoe import TinyBioMoEConvNorm


class TinyBioMoEDownsample(nn.Module):
    """Strided convolution and layer norm: (batch, inputs, 2 side, 2 side) -> (batch, side, side, width)."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(hidden_states).permute(0, 2, 3, 1))


class TinyBioMoEImageStem(nn.Module):
    """Three convolutions with ReLU, the first one strided, before the first downsampling."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__()
        width = config.spectformer_stem_size
        self.layers = nn.ModuleList(
            [
                TinyBioMoEConvNorm(config.num_channels, width, 7, stride=2),
                TinyBioMoEConvNorm(width, width, 3),
                TinyBioMoEConvNorm(width, width, 3),
            ]
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden_states = pixel_values
        for layer in self.layers:
            hidden_states = functional.relu(layer(hidden_states))
        return hidden_states


class TinyBioMoESpectralMixer(nn.Module):
    """Multiplies the spectrum over both sides of a grid by learned complex weights; always in float32."""

    def __init__(self, width: int, side: int):
        super().__init__()
        # (rows, columns up to the Nyquist frequency, width, real and imaginary part)
        self.complex_weight = nn.Parameter(torch.empty(side, side // 2 + 1, width, 2))

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        weight = torch.view_as_complex(self.complex_weight.float())
        spectrum = torch.fft.rfft2(hidden_states.float(), dim=(1, 2), norm="ortho") * weight
        mixed = torch.fft.irfft2(spectrum, s=hidden_states.shape[1:3], dim=(1, 2), norm="ortho")
        return mixed.to(hidden_states.dtype)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class TinyBioMoEAttention(nn.Module):
    """Attention of some tokens (batch, queries, width) to others (batch, tokens, width)."""

    def __init__(self, width: int, heads: int, config: TinyBioMoEConfig):
        super().__init__()
        self.config = config
        self.head_dim = width // heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, queries: torch.Tensor, tokens: torch.Tensor, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # (batch, tokens, width) -> (batch, heads, tokens, head_dim)
        query = self.q(queries).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        key, value = self.kv(tokens).unflatten(-1, (2, -1, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(self, query, key, value, None, scaling=self.scaling, dropout=0.0, **kwargs)
        return self.proj(output.flatten(2)), weights


class TinyBioMoEAttentionMixer(nn.Module):
    """Attention of all tokens of a grid (batch, side, side, width) to one another."""

    def __init__(self, width: int, heads: int, config: TinyBioMoEConfig):
        super().__init__()
        self.attention = TinyBioMoEAttention(width, heads, config)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        tokens = hidden_states.flatten(1, 2)
        return self.attention(tokens, tokens, **kwargs)[0].unflatten(1, hidden_states.shape[1:3])


class TinyBioMoEMLP(nn.Module):
    """Feed-forward layer over (..., width); with `depthwise`, a 3 x 3 convolution over the grid before the GELU."""

    def __init__(self, width: int, ratio: int, *, depthwise: bool):
        super().__init__()
        inner = ratio * width
        self.fc1 = nn.Linear(width, inner)
        self.depthwise = nn.Conv2d(inner, inner, kernel_size=3, padding=1, groups=inner) if depthwise else None
        self.fc2 = nn.Linear(inner, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.fc1(hidden_states)
        if self.depthwise is not None:
            hidden_states = self.depthwise(hidden_states.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(functional.gelu(hidden_states))


class TinyBioMoESpectFormerBlock(GradientCheckpointingLayer):
    def __init__(self, config: TinyBioMoEConfig, stage: int):
        super().__init__()
        width, heads = config.spectformer_hidden_sizes[stage], config.spectformer_num_heads[stage]
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        if heads is None:
            self.mixer = TinyBioMoESpectralMixer(width, config.spectformer_grids[stage])
        else:
            self.mixer = TinyBioMoEAttentionMixer(width, heads, config)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = TinyBioMoEMLP(width, config.spectformer_mlp_ratios[stage], depthwise=True)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        hidden_states = hidden_states + self.mixer(self.norm1(hidden_states), **kwargs)
        return hidden_states + self.mlp(self.norm2(hidden_states))


class TinyBioMoEClassBlock(nn.Module):
    """Gathers tokens (batch, tokens, width) in another one, which starts as their mean: (batch, width)."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__()
        width = config.expert_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = TinyBioMoEAttention(width, config.spectformer_num_heads[-1], config)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = TinyBioMoEMLP(width, config.spectformer_mlp_ratios[-1], depthwise=False)

    def forward(self, tokens: torch.Tensor, **kwargs) -> torch.Tensor:
        gathered = tokens.mean(dim=1, keepdim=True)
        normed = self.norm1(torch.cat((gathered, tokens), dim=1))
        gathered = gathered + self.attention(normed[:, :1], normed, **kwargs)[0]
        gathered = gathered + self.mlp(self.norm2(gathered))
        return gathered.squeeze(1)


class TinyBioMoESpectFormer(nn.Module):
    """(batch, colours, size, size) -> embedding (batch, expert_size), and the tokens that it is gathered from, which
    are not normalised, (batch, (size/32)^2, expert_size)."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__()
        widths = config.spectformer_hidden_sizes
        inputs = [config.spectformer_stem_size, *widths[:-1]]
        self.stem = TinyBioMoEImageStem(config)
        self.downsamples = nn.ModuleList([TinyBioMoEDownsample(*pair) for pair in zip(inputs, widths, strict=True)])
        self.blocks = nn.ModuleList([TinyBioMoESpectFormerBlock(config, stage) for stage in range(len(widths))])
        # Behind each block, but behind the class attention at the end.
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=config.layer_norm_eps) for width in widths])
        self.class_block = TinyBioMoEClassBlock(config)

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.stem(pixel_values)  # (batch, width, side, side)
        for stage, (downsample, block) in enumerate(zip(self.downsamples, self.blocks, strict=True)):
            hidden_states = block(downsample(features), **kwargs)
            if stage < len(self.blocks) - 1:
                features = self.norms[stage](hidden_states).permute(0, 3, 1, 2)
        tokens = hidden_states.flatten(1, 2)
        return self.norms[-1](self.class_block(tokens, **kwargs)), tokens


__all__ = ["TinyBioMoEAttention", "TinyBioMoESpectFormer", "TinyBioMoESpectFormerBlock", "TinyBioMoESpectralMixer"]
