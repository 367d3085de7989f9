"""Int8 and float16 graphs compute what their definition says, on graphs small enough to compute by hand."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.onnx_float16 import to_float16
from export.onnx_quantization import (
    DYNAMIC_KINDS,
    float_by_default,
    measure_ranges,
    quantizable,
    quantize_dynamic_int8,
    quantize_static_int8,
    quantize_with_ranges,
)

CHANNELS, TIME = 3, 8
GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "linear.weight": GENERATOR.normal(size=(TIME, 5)) * np.array([0.01, 0.1, 1, 10, 100]),
    "linear.bias": GENERATOR.normal(size=5),
    "back.weight": GENERATOR.normal(size=(5, TIME)),
    "conv.weight": GENERATOR.normal(size=(4, CHANNELS, 3)),
    "head.weight": GENERATOR.normal(size=(2, 4)),
    "head.bias": GENERATOR.normal(size=2),
    "time axis": np.array([2]),
}
WINDOWS = np.random.default_rng(1).normal(size=(50, CHANNELS, TIME)).astype(np.float32)


def graph_of(nodes, output, shape, weights=None, extra_inputs=()):
    values = helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["batch", CHANNELS, "time"])
    weights = {name: np.asarray(value) for name, value in (weights or WEIGHTS).items()}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [values, *extra_inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(value.astype(np.float32) if value.dtype.kind == "f" else value, name)
            for name, value in weights.items()
            if name in used
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"tinymyo_hf.task": "emg-classification"})
    onnx.checker.check_model(model, full_check=True)
    return model


def linear_graph(weights=None):
    nodes = [
        helper.make_node("MatMul", ["input_values", "linear.weight"], ["product"], name="linear"),
        helper.make_node("Add", ["product", "linear.bias"], ["logits"], name="Add_1"),
    ]
    return graph_of(nodes, "logits", ["batch", CHANNELS, 5], weights)


def network():
    """Two linear layers around a residual sum, a convolution and a head."""
    nodes = [
        helper.make_node("MatMul", ["input_values", "linear.weight"], ["a"], name="linear"),
        helper.make_node("MatMul", ["a", "back.weight"], ["b"], name="back"),
        helper.make_node("Add", ["b", "input_values"], ["c"], name="Add_2"),
        helper.make_node("Conv", ["c", "conv.weight"], ["d"], name="conv", kernel_shape=[3]),
        helper.make_node("ReduceMax", ["d", "time axis"], ["e"], name="ReduceMax_4", keepdims=0),
        helper.make_node("Gemm", ["e", "head.weight", "head.bias"], ["logits"], name="head", transB=1),
    ]
    return graph_of(nodes, "logits", ["batch", 2])


def run(model, values, **others):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_values": values, **others})[0]


def stored(model):
    return {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}


def rounded(values, scale, zero_point, low, high):
    return (np.clip(np.round(values / scale) + zero_point, low, high) - zero_point) * scale


def quantized_product(values, weights, low, high, steps=64):
    """Of inputs as uint8 of a range and weights in `steps` on either side of 0, per column."""
    scale = np.float32((high - low) / 255)
    weight_scale = (np.abs(weights).max(0) / steps).astype(np.float32)
    return rounded(values, scale, np.round(-low / scale), 0, 255) @ rounded(weights, weight_scale, 0, -steps, steps)


def test_layers_with_weights_in_order():
    assert quantizable(network()) == ["linear", "back", "conv", "head"]
    assert quantizable(network(), DYNAMIC_KINDS) == ["linear", "back"]


def test_first_and_last_layers_and_convolutions_are_float_by_default():
    assert float_by_default(network()) == ["linear", "conv", "head"]
    weights = {"w": np.zeros((4, 4)), "v": np.zeros((CHANNELS, 4)), "shape": [0, -1, 4], "stack": np.zeros((2, 4, 4))}
    weights |= {"axis": [1]}
    nodes = [
        helper.make_node("Reshape", ["input_values", "shape"], ["patches"], name="Reshape_0"),
        helper.make_node("MatMul", ["patches", "w"], ["a"], name="embedding"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="deeper"),
        helper.make_node("Transpose", ["input_values"], ["frames"], name="Transpose_3", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["frames", "v"], ["c"], name="other"),
        helper.make_node("MatMul", ["c", "w"], ["d"], name="side"),
        helper.make_node("Unsqueeze", ["c", "axis"], ["c4"], name="Unsqueeze_6"),
        helper.make_node("MatMul", ["c4", "stack"], ["e"], name="stacked"),
        helper.make_node("ReduceMax", ["b"], ["f"], name="ReduceMax_8", keepdims=0),
        helper.make_node("ReduceMax", ["e"], ["g"], name="ReduceMax_9", keepdims=0),
        helper.make_node("Sum", ["d", "f", "g"], ["mixed"], name="Sum_10"),
        helper.make_node("MatMul", ["mixed", "w"], ["last"], name="last"),
        helper.make_node("Relu", ["last"], ["logits"], name="Relu_12"),
    ]
    model = graph_of(nodes, "logits", ["batch", "time", 4], weights)
    assert quantizable(model) == ["embedding", "deeper", "other", "side", "last"]
    assert float_by_default(model) == ["embedding", "other", "last"]


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("test_values", [WINDOWS[:4], 3 * WINDOWS[:4]], ids=["in range", "beyond it"])
def test_static_int8_is_what_its_definition_says(test_values, bits):
    model = quantize_with_ranges(linear_graph(), measure_ranges(linear_graph(), WINDOWS), weight_bits=bits)
    weights = WEIGHTS["linear.weight"].astype(np.float32)
    steps = 64 if bits == 7 else 127
    expected = quantized_product(test_values, weights, WINDOWS.min(), WINDOWS.max(), steps) + WEIGHTS["linear.bias"]
    found = run(model, test_values)
    # The columns differ in size by 10,000; a value halfway between two steps may be rounded either way.
    assert (np.abs(found - expected) <= 1e-4 * np.abs(weights).max(0)).mean() > 0.95
    exact = test_values @ weights + WEIGHTS["linear.bias"]
    assert (np.abs(found - exact).max((0, 1)) > 1e-4 * np.abs(weights).max(0)).all()  # it is not computed in float


def test_dynamic_int8_measures_the_range_of_each_call():
    model = quantize_dynamic_int8(linear_graph())
    values = 7 * WINDOWS[:4]
    weights = WEIGHTS["linear.weight"].astype(np.float32)
    expected = quantized_product(values, weights, values.min(), values.max()) + WEIGHTS["linear.bias"]
    assert (np.abs(run(model, values) - expected) <= 1e-3 * np.abs(weights).max(0)).mean() > 0.95


@pytest.mark.parametrize("quantize", [quantize_dynamic_int8, lambda model: quantize_static_int8(model, WINDOWS)])
def test_a_quantized_graph_is_close_valid_and_smaller(quantize):
    model = network()
    before = model.SerializeToString()
    quantized = quantize(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(quantized, full_check=True)
    assert {entry.domain for entry in quantized.opset_import} == {""}
    assert [(entry.key, entry.value) for entry in quantized.metadata_props] == [
        ("tinymyo_hf.task", "emg-classification")
    ]
    assert [value.name for value in quantized.graph.output] == ["logits"]
    assert {
        name.split("_")[0] for name, value in stored(quantized).items() if value.dtype == np.int8 and value.ndim
    } >= {
        "linear.weight",
        "back.weight",
    }
    # Two products with uint8 have to fit into 16 bits.
    largest = max(np.abs(value.astype(int)).max() for value in stored(quantized).values() if value.dtype == np.int8)
    assert 2 * 255 * largest < 2**15
    expected, found = run(model, WINDOWS), run(quantized, WINDOWS)
    error = np.sqrt(((found - expected) ** 2).mean()) / expected.std()
    assert 1e-5 < error < 0.05


def test_static_int8_covers_convolutions_and_heads():
    kinds = {name.removesuffix("_quantized"): value.dtype for name, value in stored(quantize_all()).items()}
    assert {kinds[name] for name in WEIGHTS if name.endswith("weight")} == {np.dtype(np.int8)}


def quantize_all(keep_float=()):
    return quantize_static_int8(network(), WINDOWS, keep_float=keep_float)


def test_layers_kept_in_float_have_their_weights():
    weights = stored(quantize_all(keep_float=("back", "conv")))
    for name in ("back.weight", "conv.weight"):
        np.testing.assert_array_equal(weights[name], WEIGHTS[name].astype(np.float32))
    assert "linear.weight" not in weights


def test_residual_sums_and_float_layers_take_exact_values():
    weights = {"linear.weight": np.zeros((TIME, TIME)), "back.weight": np.eye(TIME)}
    nodes = [
        helper.make_node("MatMul", ["input_values", "linear.weight"], ["a"], name="linear"),
        helper.make_node("MatMul", ["input_values", "back.weight"], ["b"], name="back"),
        helper.make_node("Add", ["a", "input_values"], ["c"], name="Add_2"),
        helper.make_node("Add", ["c", "b"], ["logits"], name="Add_3"),
    ]
    model = graph_of(nodes, "logits", ["batch", CHANNELS, TIME], weights)
    quantized = quantize_static_int8(model, WINDOWS, keep_float=("back",))
    np.testing.assert_array_equal(run(quantized, WINDOWS), 2 * WINDOWS)


def test_ranges_are_of_all_windows_whatever_the_batch():
    ranges = [measure_ranges(linear_graph(), WINDOWS, batch_size=size)["input_values"] for size in (7, 32, 50)]
    for found in ranges:
        assert (found.lowest, found.highest) == (WINDOWS.min(), WINDOWS.max())


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_rare_values_do_not_set_the_range(method):
    windows = np.random.default_rng(2).normal(size=(2000, CHANNELS, 100)).astype(np.float32)
    windows[0, 0, 0] = 30.0
    weights = {"linear.weight": np.ones((100, 5)), "linear.bias": np.zeros(5)}
    found = measure_ranges(linear_graph(weights), windows, method, batch_size=300)["input_values"]
    assert 3.0 < found.highest < 15.0
    assert -15.0 < found.lowest < -3.0
    quantized = quantize_static_int8(linear_graph(weights), windows, method)
    assert run(quantized, windows[:1])[0, 0, 0] == pytest.approx(windows[0, 0].sum() - 30.0 + found.highest, abs=0.5)


def test_ranges_serve_several_graphs():
    ranges = measure_ranges(network(), WINDOWS)
    for kept in ((), ("head",), ("linear", "conv")):
        assert quantize_with_ranges(network(), ranges, kept) == quantize_all(kept)


def test_masked_positions_are_given():
    mask = helper.make_tensor_value_info("bool_masked_pos", TensorProto.BOOL, ["batch", "tokens"])
    weights = {"linear.weight": np.eye(4), "token": np.full(4, 9.0), "shape": [0, -1, 4], "last": [-1]}
    nodes = [
        helper.make_node("Reshape", ["input_values", "shape"], ["patches"], name="Reshape_0"),
        helper.make_node("Unsqueeze", ["bool_masked_pos", "last"], ["where"], name="Unsqueeze_1"),
        helper.make_node("Where", ["where", "token", "patches"], ["masked"], name="Where_2"),
        helper.make_node("MatMul", ["masked", "linear.weight"], ["reconstruction"], name="linear"),
    ]
    model = graph_of(nodes, "reconstruction", ["batch", "tokens", 4], weights, [mask])
    assert measure_ranges(model, WINDOWS)["masked"].highest == 9.0
    masked = np.zeros((len(WINDOWS), CHANNELS * TIME // 4), bool)
    found = run(quantize_static_int8(model, WINDOWS), WINDOWS, bool_masked_pos=masked)
    np.testing.assert_allclose(found.reshape(WINDOWS.shape), WINDOWS, atol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize_all(keep_float=("heads",)), "keep_float='heads': no layer.*linear, back, conv, head"),
        (lambda: quantize_all(keep_float=("linear", "back", "conv", "head")), "keep_float: leaves nothing.*linear"),
        (lambda: quantize_dynamic_int8(network(), ("linear", "back")), "keep_float: leaves nothing.*linear, back;"),
        (lambda: quantize_dynamic_int8(network(), keep_float=("x",)), "keep_float='x'"),
        (lambda: quantize_static_int8(network(), WINDOWS, "median"), "calibrate_method='median'.*minmax"),
        (lambda: quantize_static_int8(network(), WINDOWS[:, :2]), r"\(windows, 3, time\).*\(50, 2, 8\)"),
        (lambda: quantize_static_int8(network(), WINDOWS[0]), r"got \(3, 8\)"),
        (lambda: quantize_static_int8(network(), WINDOWS[:0]), "at least 1, got"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ExportError, match=message):
        call()


def test_the_same_bytes_in_every_process():
    script = (
        "import hashlib, sys; sys.path.insert(0, 'tests/export'); import test_onnx_quantization as t; "
        "models = [t.quantize_all(('back',)), t.quantize_dynamic_int8(t.network()), t.to_float16(t.network())]; "
        "print([hashlib.sha256(m.SerializeToString()).hexdigest() for m in models])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_float16_takes_and_gives_float32():
    model = network()
    half = to_float16(model)
    onnx.checker.check_model(half, full_check=True)
    assert {value.dtype for name, value in stored(half).items() if name != "time axis"} == {np.dtype(np.float16)}
    assert list(half.metadata_props) == list(model.metadata_props)
    found = run(half, WINDOWS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run(model, WINDOWS), rtol=0.02, atol=2.0)  # of values around 1,000
    assert not np.array_equal(found, run(model, WINDOWS))


def test_float16_keeps_angles_and_what_is_infinite():
    weights = {"frequencies": [1.0, 0.01], "lowest": float(np.finfo(np.float32).min), "endless": -np.inf, "zero": 0.0}
    nodes = [
        helper.make_node("Mul", ["input_values", "frequencies"], ["angles"], name="Mul_0"),
        helper.make_node("Cos", ["angles"], ["cosines"], name="Cos_1"),
        helper.make_node("Mul", ["lowest", "zero"], ["nothing"], name="Mul_2"),  # NaN of an infinite one
        helper.make_node("Max", ["cosines", "endless"], ["largest"], name="Max_3"),
        helper.make_node("Add", ["largest", "nothing"], ["logits"], name="Add_4"),
    ]
    half = to_float16(graph_of(nodes, "logits", ["batch", CHANNELS, 2], weights))
    positions = np.array([[[4001.0, 4001.0]] * CHANNELS], np.float32)  # no float16, which are 4 apart there
    np.testing.assert_allclose(run(half, positions), np.cos(positions * weights["frequencies"]), atol=1e-3)
    assert stored(half)["endless.float16"] == -np.inf
    assert stored(half)["zero.float16"].dtype == np.float16
