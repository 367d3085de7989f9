"""What a stream through an sEMG transformer carries from one push to the next, module by module.

Every class takes the next piece of what its module would see of a whole recording, and gives the outputs that can be
known by then: those of the module for the whole recording, however it is cut into pieces. Batches run in step.
"""

import torch
from torch import nn

from .modeling_semg_transformer import (
    SEMGTransformerFeatureEncoder,
    SEMGTransformerInputNorm,
    SEMGTransformerLayer,
    SEMGTransformerPositionalConvEmbedding,
)
from .quantization import join_projections

# Of as few frames torch's grouped convolution takes longer than matrix products with a copy of their surroundings.
FEW_FRAMES = 5
FIRST_CAPACITY = 1024  # frames


class FrozenNorm:
    """The input norm with mean and variance (channels,) or (batch, channels) that are known beforehand."""

    def __init__(self, norm: SEMGTransformerInputNorm, mean: torch.Tensor, variance: torch.Tensor):
        working = torch.promote_types(norm.weight.dtype, torch.float32)
        self._mean = mean[..., None].to(norm.weight.device, working)
        variance = variance[..., None].to(norm.weight.device, torch.float64)
        self._scale = ((variance + norm.eps).rsqrt() * norm.weight[:, None]).to(working)
        self._bias = norm.bias[:, None].to(working)

    def push(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, channels, frames), normalised."""
        return torch.addcmul(self._bias, states - self._mean, self._scale).to(states.dtype)


class RunningNorm:
    """The input norm with the statistics of all frames so far, of a batch of `batch_size` streams."""

    def __init__(self, norm: SEMGTransformerInputNorm, batch_size: int):
        self._norm = norm
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        self._count = norm.prior_frames
        self._sum = (self._count * mean)[None, :, None].repeat(batch_size, 1, 1)
        self._squares = (self._count * (variance + mean**2))[None, :, None].repeat(batch_size, 1, 1)

    def push(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, channels, frames), normalised."""
        frames = states.shape[-1]
        x = states.double()
        sums, squares = self._sum + x.cumsum(-1), self._squares + x.square().cumsum(-1)
        count = self._count + torch.arange(1, frames + 1, device=x.device, dtype=x.dtype)
        self._sum, self._squares, self._count = sums[..., -1:].clone(), squares[..., -1:].clone(), self._count + frames
        mean = sums / count
        variance = (squares / count - mean**2).clamp(min=0.0)
        return self._norm.normalize(x, mean, variance).to(states.dtype)


class Featurizer:
    """The convolutions that make frames of samples, with the inputs that each has not used up."""

    def __init__(self, encoder: SEMGTransformerFeatureEncoder, norm: FrozenNorm | RunningNorm, samples: torch.Tensor):
        """`samples`: (batch, channels, 0), with the type and place of what will be pushed."""
        self._layers = encoder.conv_layers
        self.norm = norm
        self._kept = [samples.new_empty(len(samples), layer.conv.in_channels, 0) for layer in self._layers]

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """(batch, channels, time) -> (batch, conv_dim[-1], frames that are complete by now)."""
        states = samples
        for position, layer in enumerate(self._layers):
            states = torch.cat([self._kept[position], states], dim=-1)
            frames = layer.output_length(states.shape[-1])
            if frames <= 0:
                self._kept[position] = states
                return states.new_empty(len(states), self._layers[-1].conv.out_channels, 0)
            self._kept[position] = states[..., frames * layer.conv.stride[0] :]
            states = layer.conv(states)
            if position == 0:
                states = self.norm.push(states)
            states = layer.activation(states)
        return states


class Positions:
    """The positional convolution, with the frames that it still needs: its kernel less one.

    Attributes:
        delay: frames that the convolution looks ahead.
    """

    def __init__(self, embedding: SEMGTransformerPositionalConvEmbedding, batch_size: int):
        conv = embedding.conv
        self._activation, self._bias, self._groups = embedding.activation, conv.bias, conv.groups
        self._weight = conv.weight.detach()  # of its weight norm, once
        self._before, self.delay = conv.padding
        self._kept = self._weight.new_zeros(batch_size, len(self._weight), self._before)

    def push(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, frames, hidden) -> frames with their positional embedding added, `delay` frames late."""
        kernel = self._weight.shape[-1]
        states = torch.cat([self._kept, states.transpose(1, 2)], dim=-1)
        frames = max(states.shape[-1] - kernel + 1, 0)
        self._kept = states[..., frames:]
        if frames == 0:
            return states.new_empty(len(states), 0, states.shape[1])
        embedded = self._activation(self._convolve(states, frames))
        return (states[..., self._before : self._before + frames] + embedded).transpose(1, 2)

    def flush(self) -> torch.Tensor:
        """The frames that wait for later ones, with zeros in place of these, as behind the end of a recording."""
        return self.push(self._kept.new_zeros(len(self._kept), self.delay, self._kept.shape[1]))

    def _convolve(self, states: torch.Tensor, frames: int) -> torch.Tensor:
        """(batch, hidden, frames + kernel - 1) -> (batch, hidden, frames)."""
        if frames > FEW_FRAMES:
            return nn.functional.conv1d(states, self._weight, self._bias, groups=self._groups)
        hidden, inputs, kernel = self._weight.shape
        # (batch, groups, inputs, frames, kernel) -> (groups, batch * frames, inputs * kernel)
        windows = states.view(len(states), self._groups, inputs, -1).unfold(3, kernel, 1)
        windows = windows.permute(1, 0, 3, 2, 4).reshape(self._groups, -1, inputs * kernel)
        product = torch.bmm(windows, self._weight.view(self._groups, -1, inputs * kernel).transpose(1, 2))
        # (groups, batch * frames, hidden / groups) -> (batch, hidden, frames)
        product = product.view(self._groups, len(states), frames, -1).permute(1, 0, 3, 2)
        return product.reshape(len(states), hidden, frames) + self._bias[:, None]


class Past:
    """Keys and values that later frames may attend to, of all layers, in order of time.

    Without `attention_window` the memory doubles when it is full, so that a frame costs one copy on average. With it,
    memory is for twice the window and one push; what is needed moves to its front when it is full.

    Args:
        layers: of the model.
        batch_size: streams.
        attention_window: frames that a frame attends to, itself included; None: all before it.
        most_frames: of one push.
    """

    def __init__(
        self, layers: nn.ModuleList, batch_size: int, attention_window: int | None, most_frames: int, like: torch.Tensor
    ):
        self._window = attention_window
        heads, dim = layers[0].attention.config.num_attention_heads, layers[0].attention.head_dim
        capacity = FIRST_CAPACITY if attention_window is None else 2 * (attention_window - 1) + most_frames
        self._states = like.new_empty(len(layers), 2, batch_size, heads, capacity, dim)
        self._first = self._stop = 0  # of the frames in memory that the next push may attend to
        self._mask: torch.Tensor | None = None

    def reserve(self, frames: int) -> None:
        """Take the memory for so many frames now, if all are to be kept."""
        if self._window is None and frames > self._states.shape[4]:
            self._move(frames)

    def begin(self, frames: int) -> torch.Tensor | None:
        """Make room for so many frames; the attention mask (frames, visible frames) of theirs, None for one frame."""
        if self._stop + frames > self._states.shape[4]:
            capacity = 2 * self._stop if self._window is None else self._states.shape[4]
            self._move(max(capacity, self._stop - self._first + frames))
        earlier = self._stop - self._first
        if frames == 1:
            return None
        if self._mask is None or self._mask.shape != (frames, earlier + frames):
            unseen = self._states.new_full((frames, earlier + frames), float("-inf"))
            self._mask = unseen.triu(earlier + 1)
            if self._window is not None:
                self._mask += unseen.tril_(earlier - self._window)
        return self._mask

    def append(self, layer: int, keys_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values (2, batch, heads, frames, head_dim) of the new frames -> those of all visible
        ones."""
        stop = self._stop + keys_values.shape[3]
        self._states[layer, :, :, :, self._stop : stop] = keys_values
        keys, values = self._states[layer, :, :, :, self._first : stop].unbind(0)
        return keys, values

    def end(self, frames: int) -> None:
        """All layers have appended so many frames."""
        self._stop += frames
        if self._window is not None:
            self._first = max(self._first, self._stop - (self._window - 1))

    def _move(self, capacity: int) -> None:
        """What is needed, to the front of a memory of so many frames."""
        needed = self._states[..., self._first : self._stop, :]
        if capacity > self._states.shape[4]:
            self._states = self._states.new_empty(*self._states.shape[:4], capacity, self._states.shape[5])
        self._states[..., : needed.shape[4], :] = needed
        self._first, self._stop = 0, needed.shape[4]


class Block:
    """A transformer block over new frames, with the keys and values of those before them in a `Past`."""

    def __init__(self, layer: SEMGTransformerLayer, index: int, past: Past):
        self._layer, self._index, self._past = layer, index, past
        attention = layer.attention
        self._project = join_projections([attention.q_proj, attention.k_proj, attention.v_proj])

    def push(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, frames, hidden) -> (batch, frames, hidden), with the mask of `Past.begin`."""
        layer = self._layer
        if layer.norm_first:
            states = states + self._attend(layer.layer_norm(states), mask)
            return states + self._feed_forward(layer.final_layer_norm(states))
        states = layer.layer_norm(states + self._attend(states, mask))
        return layer.final_layer_norm(states + self._feed_forward(states))

    def _attend(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        attention = self._layer.attention
        batch, frames, _ = states.shape
        # (batch, frames, 3 hidden) -> (3, batch, heads, frames, head_dim)
        projected = self._project(states).view(batch, frames, 3, -1, attention.head_dim).permute(2, 0, 3, 1, 4)
        keys, values = self._past.append(self._index, projected[1:])
        output = nn.functional.scaled_dot_product_attention(
            projected[0], keys, values, attn_mask=mask, scale=attention.scaling
        )
        return attention.out_proj(output.transpose(1, 2).reshape(batch, frames, -1))

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        feed_forward = self._layer.feed_forward
        return feed_forward.output_dense(feed_forward.intermediate_act_fn(feed_forward.intermediate_dense(states)))
