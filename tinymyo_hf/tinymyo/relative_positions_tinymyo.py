"""Learned relative positions in the attention of TinyMyo's models for speech.

Source: "TinyMyo: a Tiny Foundation Model for Flexible EMG Signal Processing at the Edge", downstream 3, after Gaddy and
Klein. The released code lets no gradient reach these positions, and with more than one sample in a batch it gives each
query the scores of others; here they are trained, and a sample has the same scores in any batch.
"""

import torch
from torch import nn

from .configuration_tinymyo import TinyMyoConfig


class TinyMyoRelativePositions(nn.Module):
    """A vector r(d) for each head and distance d = key - query: its product with the query, unscaled, adds to the
    attention scores. Keys at a distance of `max_relative_positions` and more are not attended to."""

    def __init__(self, config: TinyMyoConfig):
        super().__init__()
        self.reach = config.max_relative_positions
        head_dim = config.hidden_size // config.num_attention_heads
        self.weight = nn.Parameter(torch.empty(config.num_attention_heads, 2 * self.reach - 1, head_dim))

    def forward(self, query: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Scores to add (batch, heads, tokens, tokens) for the queries (batch, heads, tokens, head_dim);
        `attention_mask` (batch or 1, 1, tokens, tokens), bool or to be added, is part of them."""
        least = torch.finfo(query.dtype).min
        tokens = query.shape[2]
        by_distance = torch.matmul(query, self.weight.to(query.dtype).transpose(1, 2))
        # With so much behind each row, row q of the flat numbers read with one column less begins q places earlier:
        # column c holds distance c - q - (reach - 1), and what lies beyond the reach comes out of the padding.
        padded = nn.functional.pad(by_distance, (0, tokens), value=least)
        flat = padded.flatten(2)[..., : tokens * (padded.shape[-1] - 1)]
        scores = flat.unflatten(2, (tokens, padded.shape[-1] - 1))[..., self.reach - 1 : self.reach - 1 + tokens]
        if attention_mask is None:
            return scores
        if attention_mask.dtype == torch.bool:
            return scores.masked_fill(~attention_mask, least)
        # Not below the least number twice: a row of nothing but minus infinity has no softmax.
        return (scores + attention_mask).clamp(min=least)
