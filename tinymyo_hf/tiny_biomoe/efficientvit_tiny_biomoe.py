"""The EfficientViT expert of Tiny-BioMoE: image (batch, colours, height, width) -> embedding (batch, expert_size).

Convolutions make a grid of tokens of 1/16 of the image; stages of one block each, between which the grid is halved; a
mean over the grid. Feature maps are (batch, width, side, side). Every convolution is followed by a batch norm, so that
all of them fold into one another at inference. Architecture: Liu et al., "EfficientViT: Memory Efficient Vision
Transformer with Cascaded Group Attention" (2023), in the sizes of Tiny-BioMoE.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_tiny_biomoe import TinyBioMoEConfig


class TinyBioMoEConvNorm(nn.Module):
    """Convolution without bias that keeps the side (or halves it with `stride=2`, rounding up), then batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(hidden_states))


class TinyBioMoEPatchStem(nn.Module):
    """Four strided convolutions with ReLU between: (batch, colours, size, size) -> (batch, width, size/16, size/16)."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__()
        width = config.efficientvit_hidden_sizes[0]
        widths = [config.num_channels, width // 8, width // 4, width // 2, width]
        self.layers = nn.ModuleList(
            [TinyBioMoEConvNorm(widths[i], widths[i + 1], 3, stride=2) for i in range(len(widths) - 1)]
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden_states = self.layers[0](pixel_values)
        for layer in self.layers[1:]:
            hidden_states = layer(functional.relu(hidden_states))
        return hidden_states


class TinyBioMoELocalFeedForward(nn.Module):
    """Depthwise convolution, then a feed-forward layer of twice the width, each added to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = TinyBioMoEConvNorm(width, width, 3, groups=width)
        self.expand = TinyBioMoEConvNorm(width, 2 * width)
        self.reduce = TinyBioMoEConvNorm(2 * width, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.depthwise(hidden_states)
        return hidden_states + self.reduce(functional.relu(self.expand(hidden_states)))


class TinyBioMoECascadedHead(nn.Module):
    """Query, key and value of one head: (batch, width of the head, side, side) -> (batch, its width, tokens)."""

    def __init__(self, width: int, key_size: int, query_kernel: int):
        super().__init__()
        self.sizes = [key_size, key_size, width]
        self.qkv = TinyBioMoEConvNorm(width, 2 * key_size + width)
        self.query_conv = TinyBioMoEConvNorm(key_size, key_size, query_kernel, groups=key_size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = self.qkv(hidden_states).split(self.sizes, dim=1)
        return self.query_conv(query).flatten(2), key.flatten(2), value.flatten(2)


class TinyBioMoEAttentionBias(nn.Module):
    """What each head adds to its scores, by how far two tokens of a grid lie apart in height and in width."""

    def __init__(self, heads: int, side: int):
        super().__init__()
        self.side = side
        self.weight = nn.Parameter(torch.zeros(heads, side * side))

    def forward(self) -> torch.Tensor:
        """(heads, tokens, tokens), made of the weights as they are now."""
        position = torch.arange(self.side, device=self.weight.device)
        distance = (position[:, None] - position).abs()
        # (side, 1, side, 1) rows and (1, side, 1, side) columns of query and key
        index = self.side * distance[:, None, :, None] + distance[None, :, None, :]
        return self.weight[:, index.reshape(self.side**2, self.side**2)]


class TinyBioMoECascadedAttention(nn.Module):
    """Each head works on its share of the width, to which the output of the head before it is added."""

    def __init__(self, width: int, heads: int, side: int, config: TinyBioMoEConfig):
        super().__init__()
        self.scaling = config.efficientvit_key_size**-0.5
        self.heads = nn.ModuleList(
            [
                TinyBioMoECascadedHead(width // heads, config.efficientvit_key_size, kernel)
                for kernel in config.efficientvit_query_kernels[:heads]
            ]
        )
        self.bias = TinyBioMoEAttentionBias(heads, side)
        self.proj = TinyBioMoEConvNorm(width, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        grid = hidden_states.shape[-2:]
        outputs: list[torch.Tensor] = []
        shares = hidden_states.chunk(len(self.heads), dim=1)
        for head, share, bias in zip(self.heads, shares, self.bias().unbind(0), strict=True):
            query, key, value = head(share + outputs[-1] if outputs else share)
            scores = query.transpose(1, 2) @ key * self.scaling + bias  # (batch, tokens, tokens)
            outputs.append((value @ scores.softmax(dim=-1).transpose(1, 2)).unflatten(2, grid))
        return self.proj(functional.relu(torch.cat(outputs, dim=1)))


class TinyBioMoEWindowAttention(nn.Module):
    """Cascaded attention within the windows of a grid."""

    def __init__(self, width: int, heads: int, grid: int, config: TinyBioMoEConfig):
        super().__init__()
        self.side = min(grid, config.efficientvit_window_size)
        self.windows = grid // self.side
        self.attention = TinyBioMoECascadedAttention(width, heads, self.side, config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.windows == 1:
            return self.attention(hidden_states)
        # (batch, width, grid, grid) -> (batch * windows * windows, width, side, side) and back
        parts = hidden_states.unflatten(3, (self.windows, self.side)).unflatten(2, (self.windows, self.side))
        parts = self.attention(parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
        parts = parts.unflatten(0, (-1, self.windows, self.windows))
        return parts.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class TinyBioMoEEfficientViTBlock(GradientCheckpointingLayer):
    def __init__(self, width: int, heads: int, grid: int, config: TinyBioMoEConfig):
        super().__init__()
        self.before = TinyBioMoELocalFeedForward(width)
        self.mixer = TinyBioMoEWindowAttention(width, heads, grid, config)
        self.after = TinyBioMoELocalFeedForward(width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.before(hidden_states)
        hidden_states = hidden_states + self.mixer(hidden_states)
        return self.after(hidden_states)


class TinyBioMoESqueezeExcite(nn.Module):
    """Scales each feature by a gate computed from the means of all features over the grid."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 4, 1)
        self.fc2 = nn.Conv2d(width // 4, width, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        means = hidden_states.mean(dim=(2, 3), keepdim=True)
        return hidden_states * self.fc2(functional.relu(self.fc1(means))).sigmoid()


class TinyBioMoEPatchMerging(nn.Module):
    """Halves the grid and changes the width, between two local feed-forward layers."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.before = TinyBioMoELocalFeedForward(inputs)
        self.expand = TinyBioMoEConvNorm(inputs, 4 * inputs)
        self.depthwise = TinyBioMoEConvNorm(4 * inputs, 4 * inputs, 3, stride=2, groups=4 * inputs)
        self.squeeze_excite = TinyBioMoESqueezeExcite(4 * inputs)
        self.reduce = TinyBioMoEConvNorm(4 * inputs, outputs)
        self.after = TinyBioMoELocalFeedForward(outputs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = functional.relu(self.expand(self.before(hidden_states)))
        hidden_states = self.squeeze_excite(functional.relu(self.depthwise(hidden_states)))
        return self.after(self.reduce(hidden_states))


class TinyBioMoEEfficientViT(nn.Module):
    """(batch, colours, size, size) -> (batch, expert_size)."""

    def __init__(self, config: TinyBioMoEConfig):
        super().__init__()
        widths = config.efficientvit_hidden_sizes
        self.stem = TinyBioMoEPatchStem(config)
        self.blocks = nn.ModuleList(
            [
                TinyBioMoEEfficientViTBlock(width, heads, grid, config)
                for width, heads, grid in zip(
                    widths, config.efficientvit_num_heads, config.efficientvit_grids, strict=True
                )
            ]
        )
        self.merges = nn.ModuleList([TinyBioMoEPatchMerging(*pair) for pair in zip(widths, widths[1:], strict=False)])

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden_states = self.blocks[0](self.stem(pixel_values))
        for merge, block in zip(self.merges, self.blocks[1:], strict=True):
            hidden_states = block(merge(hidden_states))
        return hidden_states.mean(dim=(2, 3))


__all__ = ["TinyBioMoEConvNorm", "TinyBioMoEEfficientViT", "TinyBioMoEEfficientViTBlock"]
