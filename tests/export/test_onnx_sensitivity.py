"""Sweeps find the layers that suffer, and no more of them stay in float than it takes."""

import functools

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.onnx_quantization import DYNAMIC_KINDS, measure_ranges, quantize_dynamic_int8, quantize_with_ranges
from export.onnx_sensitivity import Sweep, choose_float_layers, output_error, suffices, sweep_layers
from export.verification import Tolerance

LAYERS = ["first", "second", "third", "fourth"]
WIDTH = 16
WINDOWS = np.random.default_rng(0).normal(size=(96, 2, WIDTH)).astype(np.float32)
WINDOWS[0, 0, 0] = 300.0  # which leaves 3 of 256 steps for the values of the other windows


def graph_of(noise=()):
    """Logits (windows, 2, width): the sum of what four layers make of the samples, all but the second of bounded ones.
    `noise` is added to the logits."""
    generator = np.random.default_rng(1)
    weights = {f"{layer}.weight": generator.normal(size=(WIDTH, WIDTH)) for layer in LAYERS}
    weights |= {"noise": np.asarray(noise) if len(noise) else np.zeros((1, 2, WIDTH))}
    nodes = [
        helper.make_node("Tanh", ["input_values"], ["bounded"], name="Tanh_0"),
        helper.make_node("MatMul", ["bounded", "first.weight"], ["a"], name="first"),
        helper.make_node("MatMul", ["input_values", "second.weight"], ["b"], name="second"),
        helper.make_node("MatMul", ["bounded", "third.weight"], ["c"], name="third"),
        helper.make_node("MatMul", ["bounded", "fourth.weight"], ["d"], name="fourth"),
        helper.make_node("Sum", ["a", "b", "c", "d", "noise"], ["logits"], name="Sum_5"),
    ]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["batch", 2, WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2, WIDTH])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_values": WINDOWS})[0].astype(np.float64)


@pytest.fixture(scope="module")
def static():
    graph = graph_of()
    return functools.partial(quantize_with_ranges, graph, measure_ranges(graph, WINDOWS))


@pytest.fixture(scope="module")
def sweep(static):
    return sweep_layers(graph_of(), static, WINDOWS, "classes", batch_size=40, progress=False)


def test_errors_are_those_of_the_outputs(static, sweep):
    expected = run(graph_of())
    spread = np.sqrt(expected.reshape(-1, WIDTH).var(0).mean())
    assert list(sweep.layers) == LAYERS and sweep.windows == len(WINDOWS)
    for error, kept in ((sweep.together, ()), (sweep.layers["third"], ("first", "second", "fourth"))):
        found = run(static(kept))
        assert error.relative == pytest.approx(np.sqrt(((found - expected) ** 2).mean()) / spread, rel=1e-6)
        assert error.agreement == (found.argmax(-1) == expected.argmax(-1)).mean()
        assert error.maximum == pytest.approx(np.abs(found - expected).max(), rel=1e-6)


def test_the_layer_with_the_widest_range_suffers_most(sweep):
    assert sweep.ranking[0] == "second"
    assert sweep.layers["second"].relative > 10 * sweep.layers[sweep.ranking[1]].relative
    assert sweep.layers["second"].agreement < 0.99 < sweep.layers["first"].agreement


def test_it_alone_is_kept_in_float(static, sweep):
    kept = choose_float_layers(graph_of(), static, WINDOWS, sweep, Tolerance(agreement=0.97))
    assert kept == ["second"]
    found = run(static(kept))
    assert (found.argmax(-1) == run(graph_of()).argmax(-1)).mean() >= 0.97


def test_events_and_values():
    graph = graph_of()
    quantize = functools.partial(quantize_with_ranges, graph, measure_ranges(graph, WINDOWS))
    expected, found = run(graph), run(quantize(()))
    events = sweep_layers(graph, quantize, WINDOWS, "events", progress=False).together
    assert events.agreement == ((found > 0) == (expected > 0)).mean() < 1
    values = sweep_layers(graph, quantize, WINDOWS, "values", progress=False)
    assert values.together.agreement is None
    assert choose_float_layers(graph, quantize, WINDOWS, values, Tolerance(relative=0.1, agreement=1.0)) == []
    assert choose_float_layers(graph, quantize, WINDOWS, values, Tolerance(relative=0.02)) == ["second"]


def test_dynamic_int8():
    graph = graph_of()
    quantize = functools.partial(quantize_dynamic_int8, graph)
    sweep = sweep_layers(graph, quantize, WINDOWS, "classes", DYNAMIC_KINDS, progress=False)
    assert list(sweep.layers) == LAYERS
    assert sweep.together.relative > 0


@pytest.mark.parametrize("needed", range(4))
def test_as_few_as_it_takes(needed):
    """Layers whose errors are known: each one in int8 adds noise, and `needed` of them add too much."""
    sizes = dict(zip(LAYERS, (0.1, 0.4, 0.2, 0.3), strict=True))
    calls = []

    def quantize(keep_float):
        calls.append(keep_float)
        generator = np.random.default_rng(2)
        power = sum(size**2 for layer, size in sizes.items() if layer not in keep_float)
        return graph_of(noise=np.sqrt(power) * generator.choice([-1, 1], size=(1, 2, WIDTH)))

    graph = graph_of()
    sweep = sweep_layers(graph, quantize, WINDOWS, "values", progress=False)
    assert sweep.ranking == ["second", "fourth", "third", "first"]
    spread = np.sqrt(run(graph).reshape(-1, WIDTH).var(0).mean())
    remaining = np.sqrt(sum(sizes[layer] ** 2 for layer in sweep.ranking[needed:]))
    tolerance = Tolerance(relative=1.001 * remaining / spread)
    calls.clear()
    assert choose_float_layers(graph, quantize, WINDOWS, sweep, tolerance) == sweep.ranking[:needed]
    assert len(calls) <= 4
    with pytest.raises(ExportError, match="all layers but first in float.*export fp16"):
        choose_float_layers(graph, quantize, WINDOWS, sweep, Tolerance(relative=0.09 / spread))


def test_whether_an_error_is_small_enough(static, sweep):
    error = output_error(graph_of(), static(()), WINDOWS, "classes")
    assert error.relative == pytest.approx(sweep.together.relative) and error.agreement == sweep.together.agreement
    assert suffices(error, Tolerance(agreement=error.agreement, relative=0.0))  # of decisions, the agreement counts
    assert not suffices(error, Tolerance(agreement=error.agreement + 0.001))
    values = output_error(graph_of(), static(()), WINDOWS, "values")
    assert suffices(values, Tolerance(agreement=1.0, relative=values.relative))
    assert not suffices(values, Tolerance(relative=0.999 * values.relative))


def test_pictures_and_reports(sweep, tmp_path):
    sweep.plot(tmp_path / "sensitivity.png", float_layers=["second"])
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    told = sweep.to_dict()
    assert told["layers"]["second"]["relative"] == sweep.layers["second"].relative
    assert told["kind"] == "classes" and isinstance(sweep, Sweep)
