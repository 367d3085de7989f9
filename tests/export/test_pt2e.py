"""Int8 graphs by torchao compute what the models do, as far as 8 bits allow."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_models import inputs_of, small_model

pytest.importorskip("torchao", reason="torchao is not installed: it comes with the extra pt2e")

from export.pt2e import quantize_pt2e  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantized():
    model = small_model("classification")
    windows = inputs_of(model, 40, 200, seed=1)["input_values"].numpy()
    return model, quantize_pt2e(model, windows)


def test_weights_are_int8_and_their_layers_named(quantized):
    model, graph = quantized
    onnx.checker.check_model(graph, full_check=True)
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.graph.initializer}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert len(linear) == 10
    for name, module in linear.items():
        weight, scale = stored[f"{name}.weight"], stored[f"{name}.weight_scale"]
        assert weight.dtype == np.int8 and scale.shape == (module.out_features,)
        assert np.abs(weight).max() == 63  # two products with inputs of 8 bits fit in 16
        if "qkv" in name:  # its rows are in another order
            continue
        scale = scale[:, None] if name == "classifier" else scale  # a Gemm, which transposes
        restored = weight.astype(np.float32) * scale
        expected = module.weight.detach().numpy()
        error = np.abs(restored - (expected.T if name != "classifier" else expected))
        assert (error <= 0.5001 * scale).all() and error.max() > 0
    assert set(linear) <= {node.name for node in graph.graph.node}


def test_outputs_agree_at_other_batch_sizes_and_lengths(quantized):
    model, graph = quantized
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, length in ((1, 200), (3, 200), (32, 400)):
        inputs = inputs_of(model, batch, length)
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        (found,) = session.run(["logits"], {"input_values": inputs["input_values"].numpy()})
        error = np.sqrt(np.square(found - expected).mean()) / expected.std()
        assert 1e-4 < error < 0.05  # rounded, and no more than that


def test_onnxruntime_multiplies_integers(quantized, tmp_path):
    _, graph = quantized
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 9  # all but the head, a Gemm


def test_ranges_are_those_of_the_windows_and_some_layers_stay_in_float():
    model = small_model("classification")
    windows = 3 * inputs_of(model, 32, 200)["input_values"].numpy()
    graph = quantize_pt2e(model, windows, keep_float=["tinymyo.layers.0.mlp.fc1", "classifier"])
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.graph.initializer}
    first = next(node for node in graph.graph.node if node.op_type == "QuantizeLinear")
    assert stored[first.input[1]] == pytest.approx((windows.max() - windows.min()) / 255, rel=1e-5)
    assert {name for name, weight in stored.items() if weight.ndim == 2 and weight.dtype != np.int8} == {
        "tinymyo.layers.0.mlp.fc1.weight",
        "classifier.weight",
    }
