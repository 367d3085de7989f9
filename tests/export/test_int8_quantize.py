"""Integer programs made from small models: close to float, exact where scales are, errors that name what is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import SMALL

from export.calibration import CalibrationError
from export.errors import ExportError
from export.int8.agreement import compare
from export.int8.bounds import check_bounds
from export.int8.builder import build_program, quantized_tensors
from export.int8.fixed_point import quantize_window
from export.int8.ir import build_graph, run_float
from export.int8.nodes import Graph, preactivation
from export.int8.program import Head, PatchEmbedding
from export.int8.program import Linear as IntegerLinear
from export.int8.quantize import HEADROOM, quantize
from export.int8.ranges import Range, collect
from export.int8.reference import run
from tinymyo_hf import TinyMyoConfig, TinyMyoForRegression, TinyMyoForSequenceClassification

CHANNELS, SAMPLES = 4, 100
KINDS = {"classification": TinyMyoForSequenceClassification, "regression": TinyMyoForRegression}


def graph_of(kind="classification", fusion="concat", positions="rope", **fields):
    torch.manual_seed(0)
    fields = {"num_labels": 5, "num_channels": CHANNELS, "regression_hidden_size": 24} | SMALL | fields
    model = KINDS[kind](TinyMyoConfig(channel_fusion=fusion, position_embedding_type=positions, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases begin at 0, scales at 1: what is lost there would not show
            parameter.add_(0.05 * torch.randn_like(parameter))
    return build_graph(model, CHANNELS, SAMPLES)


def noise(count, seed=0):
    """Channels as loud as gestures make them: some are silent, some three times the usual."""
    rng = np.random.default_rng(seed)
    loudness = rng.gamma(1.0, 1.0, (count, CHANNELS, 1))
    return (rng.standard_normal((count, CHANNELS, SAMPLES)) * loudness).astype(np.float32)


@pytest.fixture(scope="module")
def graph():
    return graph_of()


@pytest.fixture(scope="module")
def quantized(graph):
    return quantize(graph, noise(32), labels=("a", "b", "c", "d", "e"))


def changed(graph: Graph, name: str, **fields) -> Graph:
    """With other weights of a node."""
    nodes = tuple(replace(node, **fields) if node.name == name else node for node in graph.nodes)
    return replace(graph, nodes=nodes)


def node_of(graph, name):
    return next(node for node in graph.nodes if node.name == name)


def step_of(program, name):
    return next(step for step in program.steps if step.name == name)


def integer_tensors(program, windows):
    """Real values that the integers of every tensor stand for, by the names of steps."""
    found = {}

    def observe(name, values):
        tensor = program.tensors[step_of(program, name).output]
        found[name] = (values.astype(np.float64) - tensor.zero_point) * tensor.scale

    run(program, quantize_window(windows, program.tensors["input_values"].scale), observe)
    return found


# --- close to float ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["rope", "none"])
@pytest.mark.parametrize("fusion", ["concat", "mean"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_logits_are_close_to_those_of_the_float_graph(kind, fusion, positions):
    graph = graph_of(kind, fusion, positions)
    program = quantize(graph, noise(32), method="minmax").program
    check_bounds(program)
    agreement = compare(graph, program, noise(24, seed=1))
    # Logits of random weights hardly depend on the window: 29 to 33 dB here, 50 with trained ones.
    assert agreement.sqnr > 27
    assert agreement.correlation > 0.999
    assert (agreement.top1 is None) == (kind == "regression")


@pytest.mark.parametrize(
    ("kind", "fusion", "positions"), [("classification", "concat", "rope"), ("regression", "concat", "none")]
)
def test_every_tensor_means_what_the_float_one_does(kind, fusion, positions):
    graph = graph_of(kind, fusion, positions)
    program = quantize(graph, noise(32), method="minmax").program
    windows, floats = noise(8, seed=1), {}
    run_float(graph, windows, lambda name, values: floats.setdefault(name, []).append(values.copy()))
    for name, found in integer_tensors(program, windows).items():
        step = step_of(program, name)
        source = {"norm": "fuse", "regressor.conv2": "logits", "classifier": "logits"}.get(name, name)
        source = name.replace(".qk", ".rotate") if name.endswith(".qk") and positions == "rope" else source
        expected = np.concatenate(floats[source if source in floats else name])
        layout = getattr(step, "layout", "rows")
        if layout != "rows":
            expected = expected.reshape(*expected.shape[:2], -1, step.head_size)
            expected = expected.transpose((0, 2, 1, 3) if layout == "heads" else (0, 2, 3, 1))
        assert found.shape == expected.shape, name
        error = np.sqrt(np.mean((found - expected) ** 2) / np.var(expected))
        assert error < 0.05, name


def test_rotated_queries_and_keys_are_covered(graph, quantized):
    """Rotation moves the largest value of a pair to beyond both."""
    report = quantized.report.tensors["layers.0.attention.qk"]
    histograms, _ = collect(graph, noise(32))
    before, after = histograms["layers.0.attention.qk"], histograms["layers.0.attention.rotate"]
    assert report.highest == max(before.highest, after.highest)
    assert report.lowest == min(before.lowest, after.lowest)


# --- known answers -------------------------------------------------------------------------------------------------


def embedding_program(graph, weight, bias, residual=256.0):
    """A program whose window has steps of 1/128, and its residual stream of `residual / 32767`."""
    graph = changed(graph, "patch_embedding", weight=weight, bias=bias)
    ranges = {name: Range(-1.0, 1.0) for name in quantized_tensors(graph)}
    ranges |= {preactivation(node): Range(-1.0, 1.0) for node in graph.nodes if getattr(node, "activation", None)}
    ranges["input_values"] = Range(-32767 / 128, 32767 / 128)
    ranges["hidden_states"] = Range(-residual, residual)
    return build_program(graph, ranges)


def embedded(program, window):
    return integer_tensors(program, window[None])["patch_embedding"][0]


def test_scales_that_are_powers_of_two_lose_nothing(graph):
    rng = np.random.default_rng(0)
    shape = node_of(graph, "patch_embedding").weight.shape
    weight = rng.integers(-127, 128, shape) / 64.0
    weight[:, 0] = 127 / 64
    bias = rng.integers(-1000, 1000, shape[0]) / 8192.0
    window = rng.integers(-100, 101, (CHANNELS, SAMPLES)) / 128.0
    program = embedding_program(graph, weight, bias, residual=32767 / 256)
    expected = window.reshape(-1, shape[1]) @ weight.T + bias
    assert np.array_equal(embedded(program, window), np.floor(expected * 256 + 0.5) / 256)


def test_rows_of_zeros_give_their_bias(graph):
    shape = node_of(graph, "patch_embedding").weight.shape
    weight, bias = np.random.default_rng(0).standard_normal(shape), np.zeros(shape[0])
    weight[:3], bias[:3] = 0, (0.0, 1.5, -200.0)
    found = embedded(embedding_program(graph, weight, bias), noise(1)[0])
    assert np.allclose(found[:, :3], bias[:3], atol=256 / 32767)


@pytest.mark.parametrize("size", [1e3, 1e9])
def test_huge_biases_take_the_bits_of_their_weights(graph, size):
    shape = node_of(graph, "patch_embedding").weight.shape
    weight, bias = np.random.default_rng(0).standard_normal(shape), np.zeros(shape[0])
    bias[0], bias[1] = size, -size
    program = embedding_program(graph, weight, bias, residual=2 * size)
    check_bounds(program)
    window = noise(1)[0]
    expected = window.reshape(-1, shape[1]) @ weight.T + bias
    assert np.allclose(embedded(program, window)[:, :2], expected[:, :2], rtol=0, atol=size / 10_000)


def test_weights_of_a_row_reach_127(quantized):
    for step in quantized.program.steps:
        if isinstance(step, PatchEmbedding | IntegerLinear | Head):
            assert (np.abs(step.weight.astype(int)).max(axis=1) == 127).all()


def test_tables_are_the_activation_of_their_argument(graph, quantized):
    """Through the step itself: its result against GELU of what float computes from the same integers."""
    program = quantized.program
    step, node = step_of(program, "layers.0.mlp.fc1"), node_of(graph, "layers.0.mlp.fc1")
    tensors = integer_tensors(program, noise(4, seed=1))
    argument = torch.from_numpy(tensors["layers.0.norm2"] @ node.weight.T.astype(float) + node.bias)
    expected = torch.nn.functional.gelu(argument).numpy()
    tensor = program.tensors[step.output]
    low, high = (tensor.scale * (end - tensor.zero_point) for end in (-128, 127))
    error = np.abs(tensors[step.name] - np.clip(expected, low, high)) / tensor.scale
    assert error.max() < 2 and error.mean() < 0.5
    assert tensor.zero_point < -90  # GELU is never far below 0


def test_tensors_of_more_bits_have_headroom(graph, quantized):
    tensors = quantized.program.tensors
    windows, largest = noise(32), {}

    def observe(name, values):
        largest[name] = max(largest.get(name, 0.0), float(np.abs(values).max()))

    run_float(graph, windows, observe)
    assert tensors["input_values"].scale * 32767 == pytest.approx(HEADROOM * np.abs(windows).max())
    assert tensors["pool"].scale * 2047 == pytest.approx(HEADROOM * largest["pool"])
    states = [largest[f"layers.{i}.{name}"] for i in (0, 1) for name in ("attention.proj", "mlp.fc2")]
    assert tensors["hidden_states"].scale * 32767 == pytest.approx(HEADROOM * max(largest["patch_embedding"], *states))


# --- choice and report ---------------------------------------------------------------------------------------------


def test_auto_takes_the_best_method(graph, quantized):
    report = quantized.report
    assert set(report.candidates) == {"minmax", "percentile_99.999", "percentile_99.99", "percentile_99.9", "mse"}
    assert report.sqnr >= max(report.candidates.values())
    assert report.windows == 32 and report.held_out == 8
    assert set(report.chosen) == {"norm", "query_key", "value", "attention", "activation"}
    assert json.loads(json.dumps(report.to_dict()))["candidates"] == report.candidates
    assert quantized.program.labels == ("a", "b", "c", "d", "e")


def test_outliers_are_cut_where_that_helps(graph):
    """One value in thousands is a hundred times larger: covering it costs all others their bits."""
    node = node_of(graph, "layers.1.norm1")
    weight = node.weight.copy()
    weight[0] *= 60
    outlying = changed(graph, "layers.1.norm1", weight=weight)
    for name in ("layers.1.attention.qk", "layers.1.attention.v"):  # which do not look at it
        columns = node_of(graph, name).weight.copy()
        columns[:, 0] = 0
        outlying = changed(outlying, name, weight=columns)
    report = quantize(outlying, noise(40)).report
    assert report.chosen["norm"] != "minmax"
    assert report.sqnr > report.candidates["minmax"] + 1


def test_saturation_is_reported(graph):
    report = quantize(graph, noise(32), method="percentile_99.9").report
    assert report.tensors["layers.0.norm1"].saturating == pytest.approx(0.001, abs=5e-4)
    assert quantize(graph, noise(32), method="minmax").report.warnings == ()


def test_warns_of_trained_ranges_that_saturate(graph):
    trained = {
        "tinymyo.layers.0.attention.qkv": {"input": [-0.5, 0.4]},
        "tinymyo.layers.1.mlp.fc2": {"input": [-0.1, 1]},
    }
    quantized = quantize(graph, noise(32), method="minmax", trained=trained)
    histogram = collect(graph, noise(32))[0]["layers.0.norm1"]
    entry = quantized.report.tensors["layers.0.norm1"]
    assert (entry.method, entry.low, entry.high) == ("trained", -0.5, 0.5)
    assert entry.saturating == pytest.approx(0.6, abs=0.1) and histogram.highest > 2
    assert any("layers.0.norm1" in warning and "trained" in warning for warning in quantized.report.warnings)
    tensors = quantized.program.tensors
    assert tensors["layers.0.norm1"].scale == pytest.approx(0.5 / 127)
    assert tensors["layers.1.mlp.fc1"].scale == pytest.approx(1.1 / 255)
    assert quantized.report.tensors["layers.0.norm2"].method == "minmax"


# --- errors --------------------------------------------------------------------------------------------------------


def _with_nan(windows):
    windows[3, 1, 7] = np.nan
    return windows


@pytest.mark.parametrize(
    ("windows", "match"),
    [
        (noise(32)[:, :3], r"\(32, 3, 100\).*4, 100"),
        (noise(32)[0], r"\(4, 100\)"),
        (noise(31), "31; give at least 32"),
        (_with_nan(noise(32)), "window 3 has nan at sample 7 of channel 1"),
        (np.zeros((32, CHANNELS, SAMPLES), np.float32), "input_values is 0"),
        (np.full((32, CHANNELS, SAMPLES), "x"), "type"),
    ],
)
def test_windows_that_do_not_suit(graph, windows, match):
    with pytest.raises(CalibrationError, match=match):
        quantize(graph, windows)


def test_a_tensor_without_range_is_named(graph):
    node = node_of(graph, "layers.1.attention.v")
    silent = changed(graph, node.name, weight=0 * node.weight, bias=0 * node.bias)
    with pytest.raises(CalibrationError, match="layers.1.attention.v: 0 for every calibration window"):
        quantize(silent, noise(32), method="minmax")


def test_a_tensor_that_overflows_is_named(graph):
    weight = node_of(graph, "layers.0.mlp.fc1").weight * np.float32(1e38)
    with np.errstate(over="ignore"), pytest.raises(CalibrationError, match="layers.0.mlp.fc1.*infinite"):
        quantize(changed(graph, "layers.0.mlp.fc1", weight=weight), noise(32))


def test_a_head_that_is_too_deep(graph):
    deep = changed(graph, "classifier", weight=np.zeros((5, 8196), np.float32))
    with pytest.raises(ExportError, match="classifier: it has 8196 inputs, at most 8192"):
        quantize(deep, noise(32))


def test_a_layer_norm_that_is_too_wide(graph):
    node = node_of(graph, "patch_embedding")
    wide = changed(graph, node.name, weight=np.zeros((1028, 20), np.float32), bias=np.zeros(1028, np.float32))
    with pytest.raises(ExportError, match="hidden_size=1028: at most 1024"):
        quantize(wide, noise(32))


def test_an_unknown_method(graph):
    with pytest.raises(ExportError, match="method='entropy': use auto, minmax"):
        quantize(graph, noise(32), method="entropy")


@pytest.mark.parametrize(
    "trained",
    [
        {"tinymyo.layers.7.mlp.fc1": {"input": [-1, 1]}},
        {"tinymyo.layers.0.mlp.fc1": {"output": [-1, 1]}},
        {"tinymyo.layers.0.mlp.fc1": {"input": [1, 2]}},
        {"tinymyo.layers.0.mlp.fc1": {"input": [0, 0]}},
        {"tinymyo.layers.0.mlp.fc1": {"input": [-1, float("inf")]}},
        {"tinymyo.layers.0.mlp.fc1": [1, 2]},
    ],
)
def test_trained_ranges_of_another_model(graph, trained):
    with pytest.raises(ExportError, match=next(iter(trained))):
        quantize(graph, noise(32), trained=trained)
