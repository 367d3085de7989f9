"""Training on CPU without its three bottlenecks: dropout masks, attention with dropout, dropped residual branches.

The results have the same distribution as torch's own operators; only the random stream differs. Everything is drawn
from torch's default CPU generator, so seeds, checkpoints of the generator state and gradient checkpointing work as
usual. Other devices and compiled graphs use torch's operators.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

# Attention scores are worked off in pieces of about this many elements, which stay in a core's cache.
CHUNK_ELEMENTS = 2**18
# Fewer queries at a time than this would make the matrix products of causal attention too thin.
MIN_CAUSAL_ROWS = 64


def runs_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is computed eagerly on the CPU (not traced for compilation or export)."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def random_words(shape: torch.Size) -> torch.Tensor:
    """Uniform int16 values: torch's own Bernoulli generator takes longer than the matrix products around it, drawing
    64 random bits at a time does not."""
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(shape)


def keep_scale(words: torch.Tensor, p: float, dtype: torch.dtype) -> torch.Tensor:
    """0 where dropped, 1 / (1 - p) where kept; `p` is rounded to a multiple of 2**-16."""
    # Comparing straight into floating point is several times faster than converting a bool tensor.
    kept = torch.ge(words, round(p * 65536) - 32768, out=torch.empty(words.shape, dtype=dtype))
    return kept.mul_(1.0 / (1.0 - p))


def dropout(hidden_states: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Inverted dropout with probability `p`, as `nn.functional.dropout`."""
    if not training or p == 0.0:
        return hidden_states
    if not runs_on_cpu(hidden_states):
        return nn.functional.dropout(hidden_states, p=p, training=True)
    return hidden_states * keep_scale(random_words(hidden_states.shape), p, hidden_states.dtype)


class TinyMyoDropout(nn.Dropout):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return dropout(hidden_states, self.p, self.training)


class _DropoutAttention(torch.autograd.Function):
    """Scaled dot-product attention with dropout, piece by piece; the backward pass recomputes the weights."""

    @staticmethod
    def forward(ctx, query, key, value, mask, scaling: float, p: float, is_causal: bool) -> torch.Tensor:
        batch, heads, tokens, _ = query.shape
        words = random_words(torch.Size((batch, heads, tokens, tokens)))
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for piece in _pieces(query, is_causal):
            weights = piece.attention_weights(query, key, mask, scaling)
            weights.mul_(keep_scale(piece.of_scores(words), p, weights.dtype))
            torch.matmul(weights, piece.of_keys(value), out=piece.of_queries(output))
        ctx.save_for_backward(query, key, value, mask, words)
        ctx.scaling, ctx.p, ctx.is_causal = scaling, p, is_causal
        return output

    @staticmethod
    def backward(ctx, grad_output):
        query, key, value, mask, words = ctx.saved_tensors
        grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
        # The keys of a causal sample's pieces overlap: their gradients add up.
        new, collect = (torch.zeros_like, _add_product) if ctx.is_causal else (torch.empty_like, _write_product)
        grad_key, grad_value = (new(t, memory_format=torch.contiguous_format) for t in (key, value))
        for piece in _pieces(query, ctx.is_causal):
            weights = piece.attention_weights(query, key, mask, ctx.scaling)
            scale = keep_scale(piece.of_scores(words), ctx.p, weights.dtype)
            grad = piece.of_queries(grad_output)
            collect((weights * scale).transpose(2, 3), grad, piece.of_keys(grad_value))
            grad_weights = torch.matmul(grad, piece.of_keys(value).transpose(2, 3)).mul_(scale)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
            torch.matmul(grad_scores, piece.of_keys(key), out=piece.of_queries(grad_query))
            collect(grad_scores.transpose(2, 3), piece.of_queries(query), piece.of_keys(grad_key))
        return grad_query, grad_key, grad_value, None, None, None, None


def _write_product(left: torch.Tensor, right: torch.Tensor, result: torch.Tensor) -> None:
    torch.matmul(left, right, out=result)


def _add_product(left: torch.Tensor, right: torch.Tensor, result: torch.Tensor) -> None:
    result.add_(torch.matmul(left, right))


@dataclass(frozen=True)
class _Piece:
    """Part of the attention scores (batch, heads, queries, keys): some samples, and where the attention is causal some
    of their queries, with the keys up to the last of these."""

    samples: slice
    queries: slice
    keys: slice
    is_causal: bool

    def of_queries(self, states: torch.Tensor) -> torch.Tensor:
        return states[self.samples, :, self.queries]

    def of_keys(self, states: torch.Tensor) -> torch.Tensor:
        return states[self.samples, :, self.keys]

    def of_scores(self, scores: torch.Tensor) -> torch.Tensor:
        return scores[self.samples, :, self.queries, self.keys]

    def attention_weights(self, query, key, mask, scaling: float) -> torch.Tensor:
        scores = torch.matmul(self.of_queries(query), self.of_keys(key).transpose(2, 3)).mul_(scaling)
        if self.is_causal:
            among_queries = scores[..., self.queries]  # keys before them are the past of all
            future = torch.ones(among_queries.shape[2:], dtype=torch.bool).triu_(1)
            among_queries.masked_fill_(future, -torch.inf)
        elif mask is not None:
            part = mask[self.samples] if mask.shape[0] > 1 else mask
            if part.dtype == torch.bool:
                scores.masked_fill_(~part, torch.finfo(scores.dtype).min)
            else:
                scores.add_(part)
        return torch.softmax(scores, dim=-1)


def _pieces(query: torch.Tensor, is_causal: bool) -> Iterator[_Piece]:
    batch, heads, tokens, _ = query.shape
    size = max(1, CHUNK_ELEMENTS // (heads * tokens * tokens))
    # A long causal sample is cut between its queries too: what is never attended to is then not computed.
    rows = max(MIN_CAUSAL_ROWS, CHUNK_ELEMENTS // (heads * tokens)) if is_causal else tokens
    for start in range(0, batch, size):
        for first in range(0, tokens, rows):
            last = min(first + rows, tokens)
            yield _Piece(slice(start, start + size), slice(first, last), slice(0, last), is_causal)


def dropout_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """The library's attention interface: (batch, heads, tokens, head_dim) -> (batch, tokens, heads, head_dim)."""
    if torch.is_autocast_enabled("cpu"):
        # Rotary positions may have raised query and key to another type than the value's.
        query, key = query.to(value.dtype), key.to(value.dtype)
    is_causal = attention_mask is None and (module.is_causal if is_causal is None else is_causal)
    output = _DropoutAttention.apply(query, key, value, attention_mask, scaling, dropout, is_causal)
    return output.transpose(1, 2), None
