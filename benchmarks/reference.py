"""The published TinyMyo classifier written with stock torch modules, as the comparison of the speed measurements.

Same arithmetic as the released implementation in training: convolutional patch embedding, `nn.Dropout`, fused
attention with its dropout argument, rotary embedding in float32 along the head axis (where it cancels).
"""

import torch
from torch import nn


class RotaryAlongHeads(nn.Module):
    def __init__(self, head_size: int, positions: int = 1024):
        super().__init__()
        frequencies = 10000.0 ** (-torch.arange(0, head_size, 2).float() / head_size)
        angles = torch.outer(torch.arange(positions).float(), frequencies)
        self.register_buffer("table", torch.stack([angles.cos(), angles.sin()], dim=-1), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        pairs = states.float().reshape(*states.shape[:-1], -1, 2)
        table = self.table[: states.shape[1]].view(-1, states.shape[1], 1, pairs.shape[3], 2)
        real = pairs[..., 0] * table[..., 0] - pairs[..., 1] * table[..., 1]
        imaginary = pairs[..., 1] * table[..., 0] + pairs[..., 0] * table[..., 1]
        return torch.stack([real, imaginary], dim=-1).flatten(3).type_as(states)


class DropPath(nn.Module):
    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return states
        return states * states.new_empty(len(states), 1, 1).bernoulli_(1 - self.p).div_(1 - self.p)


class Block(nn.Module):
    def __init__(self, width: int = 192, heads: int = 3, p: float = 0.1):
        super().__init__()
        self.heads, self.p = heads, p
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.proj_drop, self.rope, self.drop_path = nn.Dropout(p), RotaryAlongHeads(width // heads), DropPath(p)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(p), nn.Linear(4 * width, width), nn.Dropout(p)
        )

    def attention(self, states: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = states.shape
        qkv = self.qkv(states).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        output = nn.functional.scaled_dot_product_attention(
            self.rope(query), self.rope(key), value, dropout_p=self.p if self.training else 0.0
        )
        return self.proj_drop(self.proj(output.transpose(2, 1).reshape(batch, tokens, width)))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = states + self.drop_path(self.attention(self.norm1(states)))
        return states + self.drop_path(self.mlp(self.norm2(states)))


class ReferenceClassifier(nn.Module):
    """(batch, channels, time) -> (batch, classes)."""

    def __init__(self, channels: int, classes: int, width: int = 192, layers: int = 8):
        super().__init__()
        self.channels = channels
        self.patch = nn.Conv2d(1, width, kernel_size=(1, 20), stride=(1, 20))
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(channels * width, classes)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        states = self.patch(signal.unsqueeze(1)).permute(0, 2, 3, 1).flatten(1, 2)
        for block in self.blocks:
            states = block(states)
        states = self.norm(states).unflatten(1, (self.channels, -1)).permute(0, 2, 1, 3).flatten(2)
        return self.classifier(states.mean(dim=1))
