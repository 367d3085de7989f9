"""From a TinyMyo to its graph for windows of one size.

    graph = build_graph(model, channels=8, samples=1000)
    verify_graph(graph, model, windows)              # the same logits as PyTorch, or an error
    logits = run_float(graph, windows[0])

Of `export.int8.nodes`, what graphs are made of is found here as well.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError
from export.int8.float_interpreter import interpolate, run_float
from export.int8.nodes import (
    INPUT,
    OUTPUT,
    Attention,
    DepthwiseConv,
    Fuse,
    Graph,
    LayerNorm,
    Linear,
    Node,
    PatchEmbedding,
    Pool,
    Rotate,
    count_macs,
    preactivation,
)

if TYPE_CHECKING:
    from tinymyo_hf import TinyMyoConfig, TinyMyoForRegression, TinyMyoForSequenceClassification

__all__ = [
    "INPUT",
    "OUTPUT",
    "Attention",
    "DepthwiseConv",
    "Fuse",
    "Graph",
    "GraphError",
    "LayerNorm",
    "Linear",
    "Node",
    "PatchEmbedding",
    "Pool",
    "Rotate",
    "build_graph",
    "count_macs",
    "interpolate",
    "preactivation",
    "run_float",
    "verify_graph",
]

TOLERANCE = 1e-5
"""By which logits may differ from PyTorch's, relative to max(1, |logit|)."""
_WORD = 4
"""Bytes that kernels read at once: widths are multiples of it."""
_LARGEST_HIDDEN_SIZE, _LARGEST_FEATURES = 1024, 8192
"""Beyond them, sums of a layer norm or of the head could overflow."""


class GraphError(ExportError):
    """A model, window size or graph that integer inference does not suit; the message names the field and the fix."""


def build_graph(model: TinyMyoForSequenceClassification | TinyMyoForRegression, channels: int, samples: int) -> Graph:
    """The graph of a model for windows (channels, samples).

    Args:
        model: a classifier or regression model of patches, not changed. Its weights become float32.
        channels: what a concatenating head was built for; any number where the head averages channels.
        samples: a multiple of the patch size.

    Raises:
        GraphError: another model, fields of its configuration that the kernels do not know, a window that does not
            suit it, or weights that are no numbers.
    """
    _check_model(model)
    _check_window(model.config, channels, samples)
    return _Builder(model, channels, samples).build()


def verify_graph(
    graph: Graph, model: TinyMyoForSequenceClassification | TinyMyoForRegression, windows: np.ndarray
) -> float:
    """Check that a graph computes what the model does.

    Two windows of noise are run beside those given: their logits must differ, and each of their tokens must have a row
    of its own after the last layer.

    Args:
        windows: (channels, samples) or (count, channels, samples), such as the model is for.

    Returns:
        The largest difference between logits of the graph and of PyTorch, relative to the window's largest one, or to 1
        where all are smaller: angles of a regression are large numbers.

    Raises:
        GraphError: logits that differ by more than 1e-5 or do not depend on the window, or tokens that are alike.
        ExportError: windows of another shape.
    """
    windows = np.asarray(windows, np.float32)
    found = run_float(graph, windows)
    _check_noise(graph)
    expected = _logits_of(model, windows.reshape(-1, *graph.shapes[INPUT]))
    largest = np.abs(expected).reshape(len(expected), -1).max(axis=1)
    errors = np.abs(found - expected).reshape(len(expected), -1).max(axis=1)
    worst = float((errors / np.maximum(1, largest)).max())
    if not worst <= TOLERANCE:
        raise GraphError(
            f"logits: those of the graph differ from PyTorch's by {worst:.1e}, more than {TOLERANCE:.0e}; build the "
            "graph anew from this model"
        )
    return worst


def _logits_of(model: Any, windows: np.ndarray) -> np.ndarray:
    import torch

    reference = copy.deepcopy(model).to("cpu", torch.float32).eval()
    with torch.no_grad():  # one at a time: scores of all tokens of many windows are large
        return np.stack([reference(torch.from_numpy(window[None])).logits[0].numpy() for window in windows])


def _check_noise(graph: Graph) -> None:
    """Run noise, whose patches all differ, which those of a real recording need not."""
    noise = np.random.default_rng(0).standard_normal((2, *graph.shapes[INPUT])).astype(np.float32)
    rows: list[np.ndarray] = []
    logits = run_float(graph, noise, lambda name, array: rows.extend(array) if name == "norm" else None)
    for tokens in rows:
        _check_tokens(tokens.astype(np.float64))
    if np.allclose(*logits, rtol=TOLERANCE, atol=TOLERANCE):
        raise GraphError("model: its logits do not depend on the window; check that its weights were loaded")


def _check_tokens(tokens: np.ndarray) -> None:
    """A graph that lost its residual connections has rows that are all alike, and passes tests of shape."""
    squares = np.square(tokens).sum(axis=1)
    distances = squares[:, None] + squares - 2 * tokens @ tokens.T
    np.fill_diagonal(distances, np.inf)
    if distances.min() <= TOLERANCE**2 * squares.mean():
        raise GraphError("model: tokens of different patches are the same after the last layer; check its weights")


def _check_model(model: Any) -> None:
    from tinymyo_hf import TinyMyoForRegression, TinyMyoForSequenceClassification

    if not isinstance(model, TinyMyoForSequenceClassification | TinyMyoForRegression):
        raise GraphError(
            f"model: a {type(model).__name__}, for which there are no integer kernels; use a "
            "TinyMyoForSequenceClassification or a TinyMyoForRegression, which work on patches"
        )
    config = model.config
    for field, known in (("norm_position", "pre"), ("hidden_act", "gelu")):
        if (value := getattr(config, field)) != known:
            raise GraphError(f"{field}={value!r}: there are no integer kernels for it; train a model with {known!r}")
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "hidden_size / num_attention_heads": config.hidden_size // config.num_attention_heads,
    }
    if isinstance(model, TinyMyoForRegression):
        widths["regression_hidden_size"] = config.regression_hidden_size
    for field, width in widths.items():
        if width % _WORD:
            raise GraphError(f"{field}={width}: the kernels take multiples of {_WORD}; train a model with such a width")
    if config.hidden_size > _LARGEST_HIDDEN_SIZE:
        raise GraphError(
            f"hidden_size={config.hidden_size}: the kernels take at most {_LARGEST_HIDDEN_SIZE}; train a narrower model"
        )
    head = model.regressor.conv2 if isinstance(model, TinyMyoForRegression) else model.classifier
    if (features := head.weight.shape[1]) > _LARGEST_FEATURES:
        raise GraphError(
            f"{features} features go into the last layer: the kernels take at most {_LARGEST_FEATURES}; train a "
            'classifier with channel_fusion="mean" or fewer channels, or a smaller regression_hidden_size'
        )
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise GraphError(f"{name}: holds NaN or infinity; train the model again or copy the checkpoint again")


def _check_window(config: TinyMyoConfig, channels: int, samples: int) -> None:
    if channels < 1:
        raise GraphError(f"channels={channels}: use at least 1")
    if config.channel_fusion == "concat" and channels != config.num_channels:
        raise GraphError(
            f"channels={channels}: the head of this model concatenates {config.num_channels} (num_channels); use as "
            'many, or a model with channel_fusion="mean"'
        )
    if samples < 1 or samples % config.patch_size:
        patches = max(1, round(samples / config.patch_size))
        raise GraphError(
            f"samples={samples}: windows are whole patches of {config.patch_size} samples (patch_size); use a multiple "
            f"such as {patches * config.patch_size}"
        )


class _Builder:
    """Appends nodes in the order in which data flow through the model."""

    def __init__(self, model: Any, channels: int, samples: int):
        self.model, self.config, self.channels = model, model.config, channels
        self.patches = samples // model.config.patch_size
        self.tokens = channels * self.patches
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: (channels, samples)}

    def build(self) -> Graph:
        encoder, tokens = self.model.tinymyo, (self.tokens, self.config.hidden_size)
        weights = _parameters(encoder.patch_embedding)
        states = self._add(tokens, PatchEmbedding, "patch_embedding", INPUT, **weights)
        for i, layer in enumerate(encoder.layers):
            states = self._layer(layer, f"layers.{i}", states)
        states = self._norm(encoder.norm, "norm", states)
        if hasattr(self.model, "classifier"):
            self._classifier(states)
            return Graph(tuple(self.nodes), self.shapes)
        self._regressor(states)
        return Graph(tuple(self.nodes), self.shapes, self.config.target_length or self.shapes[INPUT][1])

    def _add(
        self, shape: tuple[int, int], kind: type[Node], name: str, *inputs: str, output: str = "", **fields: Any
    ) -> str:
        """A node; returns the name of its output, which has this shape."""
        output = output or name
        self.nodes.append(kind(name, inputs, output, **fields))
        self.shapes[output] = shape
        return output

    def _norm(self, norm: Any, name: str, states: str) -> str:
        return self._add(self.shapes[states], LayerNorm, name, states, **_parameters(norm), eps=norm.eps)

    def _linear(
        self, weights: dict[str, np.ndarray], name: str, states: str, residual: str | None = None, **fields: Any
    ) -> str:
        shape = self.shapes[states][0], len(weights["bias"])
        inputs = (states,) if residual is None else (states, residual)
        return self._add(shape, Linear, name, *inputs, **weights, **fields)

    def _layer(self, layer: Any, name: str, states: str) -> str:
        normed = self._norm(layer.norm1, f"{name}.norm1", states)
        attended = self._attention(layer.attention, f"{name}.attention", normed)
        states = self._linear(_parameters(layer.attention.proj), f"{name}.attention.proj", attended, states)
        normed = self._norm(layer.norm2, f"{name}.norm2", states)
        wide = self._linear(_parameters(layer.mlp.fc1), f"{name}.mlp.fc1", normed, activation="gelu")
        return self._linear(_parameters(layer.mlp.fc2), f"{name}.mlp.fc2", wide, states)

    def _attention(self, attention: Any, name: str, states: str) -> str:
        width, heads = self.config.hidden_size, attention.num_heads
        packed = _parameters(attention.qkv)
        query_key = {key: array[: 2 * width] for key, array in packed.items()}
        if self.model.tinymyo.rotary_emb is not None:
            query_key = {key: _halves_of_pairs(array, 2 * heads) for key, array in query_key.items()}
        query_key = self._linear(query_key, f"{name}.qk", states)
        if self.model.tinymyo.rotary_emb is not None:
            cos, sin = self._angles()
            shape = self.shapes[query_key]
            query_key = self._add(shape, Rotate, f"{name}.rotate", query_key, heads=2 * heads, cos=cos, sin=sin)
        value = self._linear({key: array[2 * width :] for key, array in packed.items()}, f"{name}.v", states)
        shape = self.shapes[value]
        return self._add(shape, Attention, name, query_key, value, heads=heads, scaling=attention.scaling)

    def _angles(self) -> tuple[np.ndarray, np.ndarray]:
        import torch

        cos, sin = self.model.tinymyo.rotary_emb(torch.arange(self.tokens)[None])
        return cos[0].numpy(), sin[0].numpy()

    def _classifier(self, states: str) -> None:
        channels, width = self.channels, self.config.hidden_size
        outer = channels if self.config.channel_fusion == "concat" else 1
        view = {"outer": outer, "count": self.tokens // outer, "inner": width}
        pooled = self._add((1, outer * width), Pool, "pool", states, **view)
        self._linear(_parameters(self.model.classifier), "classifier", pooled, output=OUTPUT)

    def _regressor(self, states: str) -> None:
        head, width = self.model.regressor, self.config.hidden_size
        if self.config.channel_fusion == "concat":
            shape = self.patches, self.channels * width
            fused = self._add(shape, Fuse, "fuse", states, channels=self.channels)
        else:
            view = {"outer": 1, "count": self.channels, "inner": self.patches * width}
            fused = self._add((self.patches, width), Pool, "pool", states, **view)
        wide = self._linear(_pointwise(head.conv1), "regressor.conv1", fused, activation="silu")
        kernel = _parameters(head.depthwise)
        kernel["weight"] = kernel["weight"][:, 0]
        shape = self.shapes[wide]
        wide = self._add(shape, DepthwiseConv, "regressor.depthwise", wide, **kernel, activation="silu")
        self._linear(_pointwise(head.conv2), "regressor.conv2", wide, output=OUTPUT)


def _parameters(module: Any) -> dict[str, np.ndarray]:
    """A module's weight and bias, copied."""
    return {name: getattr(module, name).detach().cpu().float().numpy().copy() for name in ("weight", "bias")}


def _pointwise(conv: Any) -> dict[str, np.ndarray]:
    """A convolution with a kernel of 1 as a linear map of the channels."""
    weights = _parameters(conv)
    return {"weight": weights["weight"][:, :, 0], "bias": weights["bias"]}


def _halves_of_pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """(heads * size, ...) with the rotated pairs of each head side by side -> the first of each pair before the second
    ones, so that the kernels read runs of both; scores are the same."""
    pairs = array.reshape(heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)
