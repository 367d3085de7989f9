"""Training on CPU without its three bottlenecks: dropout masks, attention with dropout, dropped residual branches.

The results have the same distribution as torch's own operators; only the random stream differs. Everything is drawn
from torch's default CPU generator, so seeds, checkpoints of the generator state and gradient checkpointing work as
usual. Other devices and compiled graphs use torch's operators.
"""

import torch

# Attention scores are worked off in pieces of about this many elements, which stay in a core's cache.
CHUNK_ELEMENTS = 2**18


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
    """Inverted dropout with probability `p`, as `torch.nn.functional.dropout`."""
    if not training or p == 0.0:
        return hidden_states
    if not runs_on_cpu(hidden_states):
        return torch.nn.functional.dropout(hidden_states, p=p, training=True)
    return hidden_states * keep_scale(random_words(hidden_states.shape), p, hidden_states.dtype)


class _DropoutAttention(torch.autograd.Function):
    """Scaled dot-product attention with dropout, a few samples at a time; the backward pass recomputes the weights."""

    @staticmethod
    def forward(ctx, query, key, value, mask, scaling: float, p: float) -> torch.Tensor:
        batch, heads, tokens, _ = query.shape
        words = random_words(torch.Size((batch, heads, tokens, tokens)))
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for chunk in _chunks(query):
            weights = _attention_weights(query, key, mask, scaling, chunk)
            weights.mul_(keep_scale(words[chunk], p, weights.dtype))
            torch.matmul(weights, value[chunk], out=output[chunk])
        ctx.save_for_backward(query, key, value, mask, words)
        ctx.scaling, ctx.p = scaling, p
        return output

    @staticmethod
    def backward(ctx, grad_output):
        query, key, value, mask, words = ctx.saved_tensors
        grad_query, grad_key, grad_value = (
            torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value)
        )
        for chunk in _chunks(query):
            weights = _attention_weights(query, key, mask, ctx.scaling, chunk)
            scale = keep_scale(words[chunk], ctx.p, weights.dtype)
            grad = grad_output[chunk]
            torch.matmul((weights * scale).transpose(2, 3), grad, out=grad_value[chunk])
            grad_weights = torch.matmul(grad, value[chunk].transpose(2, 3)).mul_(scale)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
            torch.matmul(grad_scores, key[chunk], out=grad_query[chunk])
            torch.matmul(grad_scores.transpose(2, 3), query[chunk], out=grad_key[chunk])
        return grad_query, grad_key, grad_value, None, None, None


def _chunks(query: torch.Tensor) -> list[slice]:
    batch, heads, tokens, _ = query.shape
    size = max(1, CHUNK_ELEMENTS // (heads * tokens * tokens))
    return [slice(start, start + size) for start in range(0, batch, size)]


def _attention_weights(query, key, mask, scaling: float, chunk: slice) -> torch.Tensor:
    scores = torch.matmul(query[chunk], key[chunk].transpose(2, 3)).mul_(scaling)
    if mask is not None:
        part = mask[chunk] if mask.shape[0] > 1 else mask
        if part.dtype == torch.bool:
            scores.masked_fill_(~part, torch.finfo(scores.dtype).min)
        else:
            scores.add_(part)
    return torch.softmax(scores, dim=-1)


def dropout_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """The library's attention interface: (batch, heads, tokens, head_dim) -> (batch, tokens, heads, head_dim)."""
    if torch.is_autocast_enabled("cpu"):
        # Rotary positions may have raised query and key to another type than the value's.
        query, key = query.to(value.dtype), key.to(value.dtype)
    output = _DropoutAttention.apply(query, key, value, attention_mask, scaling, dropout)
    return output.transpose(1, 2), None
