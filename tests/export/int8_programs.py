"""Random integer programs of every shape, and windows for them.

Their scales are those of a network whose activations have standard deviations near 1, so that integers neither all
saturate nor vanish, and numbers mean what `Program.tensors` says.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.special import erf, expit

from export.int8.fixed_point import (
    activation_table,
    epsilon_of,
    gain_of,
    reciprocal_of,
    requant_of,
    rotation_tables,
)
from export.int8.program import (
    FEATURE_LIMIT,
    INT8_LIMIT,
    Attention,
    DepthwiseConv,
    Head,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Pool,
    Program,
    Rotation,
    Tensor,
)

HEADS = ("classification concat", "classification mean", "regression concat", "regression mean")
INT8_SCALE = 1 / 32
WINDOW_SCALE, RESIDUAL_SCALE = 1 / 1000, 1 / 2000
ARGUMENT_STEP = 1 / 64
ACTIVATED = {"scale": 4.25 / 255, "zero_point": -111}


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def silu(x):
    return x * expit(x)


def random_program(
    seed=0,
    channels=2,
    samples=60,
    patch_size=20,
    hidden=16,
    heads=2,
    intermediate=24,
    layers=2,
    outputs=3,
    rotation=True,
    head="classification concat",
    target_length=7,
    regression_width=None,
) -> Program:
    """`head` is one of HEADS; regressions have `regression_width` features (`intermediate` unless given), and
    `target_length` frames."""
    made = _Maker(np.random.default_rng(seed), channels, samples // patch_size, hidden, heads)
    made.patch_embedding(channels * samples, patch_size)
    for i in range(layers):
        made.layer(f"layers.{i}.", intermediate, rotation)
    task, fusion = head.split()
    features = made.classification_features(fusion) if task == "classification" else None
    if features is None:
        features = made.regression_features(fusion, regression_width or intermediate)
    made.head("classifier" if task == "classification" else "regressor.conv2", features, outputs)
    made.tensors["input_values"] = replace(made.tensors["input_values"], shape=(channels, samples))
    return Program(
        channels=channels,
        samples=samples,
        patch_size=patch_size,
        hidden_size=hidden,
        num_heads=heads,
        steps=tuple(made.steps),
        tensors=made.tensors,
        target_length=target_length if task == "regression" else None,
        labels=tuple(f"label {i}" for i in range(outputs)),
    )


def random_windows(program, count=2, seed=0) -> np.ndarray:
    """int16 (count, channels, samples), noise of the level the program is made for."""
    shape = (count, program.channels, program.samples)
    return np.rint(np.random.default_rng(seed).normal(0, 1000, shape)).astype(np.int16)


def extreme_windows(program) -> dict[str, np.ndarray]:
    """Windows by name, int16 (channels, samples), at the ends of the range and beyond what a program is made for."""
    shape = (program.channels, program.samples)
    ramp = np.linspace(-32768, 32767, math.prod(shape)).reshape(shape)
    peaks = random_windows(program, 1, 5)[0]
    peaks[:, ::17] = 32767
    noise = np.random.default_rng(6).integers(-32768, 32768, shape)
    signs = np.where(np.arange(math.prod(shape)) % 2, 32767, -32768).reshape(shape)
    windows = {"minimum": np.full(shape, -32768), "maximum": np.full(shape, 32767), "zeros": np.zeros(shape)}
    windows |= {"ramp": ramp, "peaks": peaks, "noise": noise, "signs": signs}
    return {name: values.astype(np.int16) for name, values in windows.items()}


class _Maker:
    """Adds step after step; methods return the name of the tensor that their last step writes."""

    def __init__(self, random, channels, patches, hidden, heads):
        self.random = random
        self.channels, self.patches, self.tokens = channels, patches, channels * patches
        self.hidden, self.heads, self.head_size = hidden, heads, hidden // heads
        self.steps, self.tensors = [], {}

    def add(self, step, tensor):
        self.steps.append(step)
        self.tensors[step.output] = tensor
        return step.output

    def weights(self, outputs, depth, source, gain=1.0):
        """int8 weights (outputs, depth), int32 bias, and their scales; some outputs are dead (scale 0)."""
        weight = self.random.integers(-127, 128, (outputs, depth)).astype(np.int8)
        scale = gain * self.random.uniform(0.7, 1.4, outputs) / (73.3 * math.sqrt(depth))
        zero_point = source.zero_point * weight.sum(axis=1, dtype=np.int64)
        bias = np.rint(self.random.normal(0, 0.2, outputs) / (source.scale * scale)) - zero_point
        dead = self.random.random(outputs) < 0.02
        weight[dead] = bias[dead] = scale[dead] = 0
        return weight, bias.astype(np.int32), scale

    def patch_embedding(self, samples, patch_size):
        window = self.tensors["input_values"] = Tensor((samples,), "int16", WINDOW_SCALE)
        weight, bias, scale = self.weights(self.hidden, patch_size, window)
        ratio = requant_of(WINDOW_SCALE * scale / RESIDUAL_SCALE)
        self.add(
            PatchEmbedding("patch_embedding", "input_values", "hidden_states", weight, bias, ratio),
            Tensor((self.tokens, self.hidden), "int16", RESIDUAL_SCALE),
        )

    def layer_norm(self, name, channels=1):
        weight, bias = self.random.uniform(0.5, 1.3, self.hidden), self.random.normal(0, 0.2, self.hidden)
        gain, offset, shift = gain_of(weight, bias, INT8_SCALE)
        epsilon = epsilon_of(1e-5, self.hidden, RESIDUAL_SCALE)
        shape = (self.tokens // channels, self.hidden * channels)
        return self.add(
            LayerNorm(name, "hidden_states", name, gain, offset, shift, epsilon, channels),
            Tensor(shape, "int8", INT8_SCALE),
        )

    def linear(self, name, source, outputs, gain=1.0, activation=None, **fields):
        tensor = self.tensors[source]
        rows, depth = tensor.shape
        weight, bias, scale = self.weights(outputs, depth, tensor, gain)
        shape, dtype, output = (rows, outputs), "int8", {"scale": INT8_SCALE, "zero_point": 0}
        table, step = None, INT8_SCALE
        if fields.get("residual"):
            name_of_output, dtype, step, output = "hidden_states", "int16", RESIDUAL_SCALE, {"scale": RESIDUAL_SCALE}
        else:
            name_of_output = name
        if activation is not None:
            output, step = ACTIVATED, ARGUMENT_STEP
            table = activation_table(activation, step, **output, low=-128, high=127).astype(np.int8)
        if fields.get("layout") == "heads":
            shape = (outputs // self.head_size, rows, self.head_size)
        elif fields.get("layout") == "transposed":
            shape = (outputs // self.head_size, self.head_size, rows)
        ratio = requant_of(tensor.scale * scale / step)
        return self.add(
            Linear(name, source, name_of_output, weight, bias, ratio, table, **fields),
            Tensor(shape, dtype, **output),
        )

    def attention(self, name, source, rotation):
        d, size = self.hidden, self.head_size
        turn = self.rotation() if rotation else None
        fields = {"head_size": size, "rotation": turn, "layout": "heads"}
        query_key = self.linear(name + ".query_key", source, 2 * d, self.random.uniform(0.8, 1.6), **fields)
        values = self.linear(name + ".value", source, d, layout="transposed", head_size=size)
        scores = requant_of(INT8_SCALE**2 / math.sqrt(size) * math.log2(math.e) * 256)
        scale = INT8_SCALE * min(1.0, 4 / math.sqrt(self.tokens))  # what is averaged is smaller
        reciprocal, shift = reciprocal_of(INT8_SCALE / scale)
        return self.add(
            Attention(name, query_key, name, values, scores, reciprocal, shift),
            Tensor((self.tokens, d), "int8", scale),
        )

    def rotation(self):
        half = self.head_size // 2
        return Rotation(*rotation_tables(np.arange(self.tokens)[:, None] * 1e4 ** (-np.arange(half) / half)))

    def layer(self, prefix, intermediate, rotation):
        joined = self.attention(prefix + "attention", self.layer_norm(prefix + "norm1"), rotation)
        self.linear(prefix + "attention.proj", joined, self.hidden, residual=True)
        wide = self.linear(prefix + "mlp.fc1", self.layer_norm(prefix + "norm2"), intermediate, activation=gelu)
        self.linear(prefix + "mlp.fc2", wide, self.hidden, residual=True)

    def pool(self, source, outer, count, inner, shape, limit):
        dtype, finer = ("int16", 16) if limit == FEATURE_LIMIT else ("int8", 2)
        scale = self.tensors[source].scale / finer
        return self.add(
            Pool("pool", source, "pool", outer, count, inner, requant_of(finer / count), limit),
            Tensor(shape, dtype, scale),
        )

    def classification_features(self, fusion):
        source, d = self.layer_norm("norm"), self.hidden
        if fusion == "mean":
            return self.pool(source, 1, self.tokens, d, (1, d), FEATURE_LIMIT)
        return self.pool(source, self.channels, self.patches, d, (1, self.channels * d), FEATURE_LIMIT)

    def regression_features(self, fusion, width):
        d, patches = self.hidden, self.patches
        if fusion == "concat":
            source = self.layer_norm("norm", self.channels)
        else:
            source = self.pool(self.layer_norm("norm"), 1, self.channels, patches * d, (patches, d), INT8_LIMIT)
        return self.depthwise(self.linear("regressor.conv1", source, width, 1.5, silu))

    def depthwise(self, source):
        tensor, name, scale = self.tensors[source], "regressor.depthwise", 5 / FEATURE_LIMIT
        weight, bias, weight_scale = self.weights(tensor.shape[1], 3, tensor, 1.5)
        table = activation_table(silu, ARGUMENT_STEP, scale, 0, -FEATURE_LIMIT, FEATURE_LIMIT).astype(np.int16)
        ratio = requant_of(tensor.scale * weight_scale / ARGUMENT_STEP)
        return self.add(
            DepthwiseConv(name, source, name, weight, bias, ratio, table, tensor.zero_point),
            Tensor(tensor.shape, "int16", scale),
        )

    def head(self, name, source, outputs):
        tensor = self.tensors[source]
        weight, bias, scale = self.weights(outputs, tensor.shape[1], tensor)
        scale = np.asarray(tensor.scale * scale, np.float32)
        self.add(Head(name, source, "logits", weight, bias), Tensor((tensor.shape[0], outputs), "int32", scale))
