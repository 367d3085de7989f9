"""Runs a graph in float32, window by window or many at once, and shows every tensor to who calibrates it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from export.errors import ExportError
from export.int8.nodes import (
    INPUT,
    OUTPUT,
    Attention,
    DepthwiseConv,
    Fuse,
    Graph,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Pool,
    Rotate,
    preactivation,
)

Observer = Callable[[str, np.ndarray], None]
WINDOWS_AT_ONCE = 4
"""Of many windows, to bound the memory."""


def run_float(graph: Graph, windows: np.ndarray, observe: Observer | None = None) -> np.ndarray:
    """What a graph makes of a window, or of each of many.

    Args:
        windows: (channels, samples) or (count, channels, samples), float32.
        observe: called as `observe(name, array)` with every tensor, "input_values" first, and with what goes into
            activations ("layers.0.mlp.fc1.preactivation"). An array has the shape of its tensor; with many windows it
            has those of the next few of them along a first axis, in order, and the whole graph is run several times.
            Arrays must not be changed.

    Returns:
        Logits (labels,) or (target_length, outputs); of many windows with a first axis for them.

    Raises:
        ExportError: windows of another shape.
    """
    windows = np.asarray(windows, np.float32)
    if windows.ndim not in (2, 3) or windows.shape[-2:] != graph.shapes[INPUT] or not windows.size:
        channels, samples = graph.shapes[INPUT]
        raise ExportError(
            f"windows: of shape {windows.shape}; the graph takes ({channels}, {samples}) or (count, {channels}, "
            f"{samples}): cut them so, or build the graph for others"
        )
    watch = observe or (lambda name, array: None)
    if windows.ndim == 2:
        return _run(graph, windows[None], lambda name, array: watch(name, array[0]))[0]
    starts = range(0, len(windows), WINDOWS_AT_ONCE)
    return np.concatenate([_run(graph, windows[start : start + WINDOWS_AT_ONCE], watch) for start in starts])


def interpolate(frames: np.ndarray, target_length: int) -> np.ndarray:
    """(..., frames, outputs) -> (..., target_length, outputs), linearly between the centres of frames, as torch does it
    with `mode="linear", align_corners=False`."""
    count = frames.shape[-2]
    centres = np.arange(target_length, dtype=np.float32) + np.float32(0.5)
    position = np.maximum(centres * np.float32(count / target_length) - np.float32(0.5), 0)
    low = np.minimum(position.astype(np.int64), count - 1)
    high = np.minimum(low + 1, count - 1)
    weight = (position - low).astype(np.float32)[:, None]
    return frames[..., low, :] * (1 - weight) + frames[..., high, :] * weight


def _run(graph: Graph, windows: np.ndarray, observe: Observer) -> np.ndarray:
    """Windows (count, channels, samples) -> logits (count, ...); all arrays have the first axis."""
    tensors, last_uses = {INPUT: windows}, graph.last_uses()
    observe(INPUT, windows)
    for index, node in enumerate(graph.nodes):
        result = _KERNELS[type(node)](node, *(tensors[name] for name in node.inputs))
        if isinstance(node, Linear | DepthwiseConv) and node.activation is not None:
            observe(preactivation(node), result)
            result = _ACTIVATIONS[node.activation](result)
        tensors[node.output] = result
        observe(node.output, result)
        for name in set(node.inputs):
            if last_uses[name] == index:
                del tensors[name]
    logits = tensors[OUTPUT]
    return logits[:, 0] if graph.target_length is None else interpolate(logits, graph.target_length)


def _patch_embedding(node: PatchEmbedding, samples: np.ndarray) -> np.ndarray:
    patches = samples.reshape(len(samples), -1, node.weight.shape[1])  # (count, tokens, patch)
    return patches @ node.weight.T + node.bias


def _layer_norm(node: LayerNorm, states: np.ndarray) -> np.ndarray:
    centred = states - states.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(node.eps)) * node.weight + node.bias


def _linear(node: Linear, states: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    result = states @ node.weight.T
    result += node.bias
    if residual is not None:
        result += residual
    return result


def _rotate(node: Rotate, states: np.ndarray) -> np.ndarray:
    halves = states.reshape(*states.shape[:2], node.heads, 2, -1)
    first, second = halves[:, :, :, 0], halves[:, :, :, 1]
    cos, sin = node.cos[:, None], node.sin[:, None]  # (tokens, 1, size / 2)
    rotated = np.stack((first * cos - second * sin, second * cos + first * sin), axis=3)
    return rotated.reshape(states.shape)


def _attention(node: Attention, query_key: np.ndarray, value: np.ndarray) -> np.ndarray:
    count, tokens, width = value.shape
    # (count, 3, heads, tokens, size)
    packed = np.concatenate((query_key, value), axis=-1).reshape(count, tokens, 3, node.heads, -1)
    packed = packed.transpose(0, 2, 3, 1, 4)
    output = np.empty((count, tokens, node.heads, width // node.heads), np.float32)
    # One head of one window at a time: scores of all would be the largest array by far.
    for query_heads, key_heads, value_heads, result in zip(*packed.swapaxes(0, 1), output, strict=True):
        for head, (query, key, values) in enumerate(zip(query_heads, key_heads, value_heads, strict=True)):
            scores = query * np.float32(node.scaling) @ key.T
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            result[:, head] = scores @ values / scores.sum(axis=-1, keepdims=True)
    return output.reshape(count, tokens, width)


def _pool(node: Pool, states: np.ndarray) -> np.ndarray:
    means = states.reshape(len(states), node.outer, node.count, node.inner).mean(axis=2)
    return means.reshape(len(states), node.inner // states.shape[-1], -1)


def _fuse(node: Fuse, states: np.ndarray) -> np.ndarray:
    split = states.reshape(len(states), node.channels, -1, states.shape[-1])  # (count, channels, patches, d)
    return split.swapaxes(1, 2).reshape(len(states), split.shape[2], -1)


def _depthwise_conv(node: DepthwiseConv, states: np.ndarray) -> np.ndarray:
    padded = np.pad(states, ((0, 0), (1, 1), (0, 0)))
    before, here, after = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    return before * node.weight[:, 0] + here * node.weight[:, 1] + after * node.weight[:, 2] + node.bias


def _gelu(values: np.ndarray) -> np.ndarray:
    result = erf(values * np.float32(0.5**0.5))
    result += 1
    result *= values
    result *= np.float32(0.5)
    return result


def _silu(values: np.ndarray) -> np.ndarray:
    decay = np.exp(-np.abs(values))  # of the magnitude: no overflow
    return values * np.where(values < 0, decay, 1) / (1 + decay)


_ACTIVATIONS = {"gelu": _gelu, "silu": _silu}
_KERNELS = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Rotate: _rotate,
    Attention: _attention,
    Pool: _pool,
    Fuse: _fuse,
    DepthwiseConv: _depthwise_conv,
}
