"""Causal attention on a CPU in training, in blocks of queries.

With the published 16 heads a head has 8 dimensions in TINY, for which torch's fused kernel is slow, and slower still in
bfloat16 and backwards; and it has no dropout. In blocks, what lies in the future, or before a band, is not computed.
"""

import torch
from torch import nn

# Long enough for the matrix products, short enough to skip most of the future.
QUERIES_PER_BLOCK = 64


def runs_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is on a CPU and nothing is being traced: blocks would be unrolled in a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def blockwise_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """As the library's attention functions, for queries, keys and values (batch, heads, frames, head_dim) of the same
    frames; a frame attends to the last `sliding_window` frames, itself included, or to all up to itself.
    `attention_mask`, which says the same, is not used."""
    frames = query.shape[2]
    query, key = query * scaling, key.transpose(2, 3)
    blocks = []
    for first in range(0, frames, QUERIES_PER_BLOCK):
        stop = min(first + QUERIES_PER_BLOCK, frames)
        start = 0 if sliding_window is None else max(0, first + 1 - sliding_window)
        scores = torch.matmul(query[:, :, first:stop], key[:, :, :, start:stop])
        hidden = _hidden(first, start, stop, sliding_window)
        weights = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
        weights = nn.functional.dropout(weights, p=dropout, training=module.training)
        blocks.append(torch.matmul(weights, value[:, :, start:stop]))
    return torch.cat(blocks, dim=2).transpose(1, 2), None


def _hidden(first: int, start: int, stop: int, sliding_window: int | None) -> torch.Tensor:
    """(queries first to stop, keys start to stop): True where a key must not be seen."""
    lag = torch.arange(first, stop)[:, None] - torch.arange(start, stop)
    return lag < 0 if sliding_window is None else (lag < 0) | (lag >= sliding_window)


__all__ = ["blockwise_attention_forward", "runs_on_cpu"]
