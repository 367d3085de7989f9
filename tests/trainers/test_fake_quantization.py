"""Simulated 8-bit layers against integers computed by hand, and against ONNX Runtime."""

import numpy as np
import pytest
import torch
from torch import nn

from tinymyo_hf import TinyMyoConfig, TinyMyoForSequenceClassification
from trainers.fake_quantization import (
    calibrate,
    fake_quantize,
    fake_quantized_layers,
    observe,
    remove_fake_quantization,
)


class Layers(nn.Module):
    """A convolution over time, GELU and a linear layer: (batch, 3, time) -> (batch, time - 2, 4)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(3, 8, kernel_size=3)
        self.linear = nn.Linear(8, 4)

    def forward(self, input_values):
        return self.linear(nn.functional.gelu(self.conv(input_values)).transpose(1, 2))


def integers(values, low, high):
    """float64 -> the integers 0 to 255 that stand for them, the zero point and the scale."""
    scale = (high - low) / 255
    zero_point = np.rint(-low / scale)
    return np.clip(np.rint(values / scale) + zero_point, 0, 255), zero_point, scale


def windows(seed=0, count=4):
    return torch.randn(count, 3, 12, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


def test_a_linear_layer_computes_with_integers():
    torch.manual_seed(0)
    layer, inputs = nn.Sequential(nn.Linear(8, 4)).eval(), torch.randn(16, 8) + 1
    fake_quantize(layer)
    calibrate(layer, [{"input": inputs[:8]}])  # the others may lie beyond the range
    low, high = inputs[:8].min().item(), inputs[:8].max().item()

    x, zero_point, scale = integers(inputs.double().numpy(), low, high)
    weight = layer[0].weight.detach().double().numpy()
    weight_scale = np.abs(weight).max(1, keepdims=True) / 127
    sums = (x - zero_point) @ np.rint(weight / weight_scale).T  # whole numbers
    expected = sums * scale * weight_scale.T + layer[0].bias.detach().numpy()
    np.testing.assert_allclose(layer(inputs).detach().numpy(), expected, atol=1e-5)
    assert np.abs(expected - nn.functional.linear(inputs, *layer[0].parameters()).detach().numpy()).max() > 1e-3


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_a_linear_layer_computes_as_onnxruntime(activations, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    quantization = pytest.importorskip("onnxruntime.quantization")
    helper = pytest.importorskip("onnx.helper")
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(48, 24)).eval()
    weight, bias = (parameter.detach().numpy() for parameter in layer.parameters())
    inputs = torch.randn(64, 48) + 0.7
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["sums"]), helper.make_node("Add", ["sums", "bias"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", floats, ["batch", 48])],
        [helper.make_tensor_value_info("y", floats, ["batch", 24])],
        [
            helper.make_tensor("weight", floats, (48, 24), weight.T.ravel()),
            helper.make_tensor("bias", floats, [24], bias),
        ],
    )

    class Windows(quantization.CalibrationDataReader):
        batches = iter([{"x": inputs[:32].numpy()}])

        def get_next(self):
            return next(self.batches, None)

    quantization.quantize_static(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "int8.onnx",
        Windows(),
        per_channel=True,
        activation_type=quantization.QuantType[activations],
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": inputs.numpy()})

    fake_quantize(layer)
    calibrate(layer, [{"input": inputs[:32]}])
    np.testing.assert_allclose(layer(inputs).detach().numpy(), expected, atol=1e-5)


def test_gradients_pass_the_rounding_but_not_the_cut():
    layer = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    fake_quantize(layer)
    calibrate(layer, [{"input": torch.tensor([[-1.0, 3.0]])}])
    inputs = torch.tensor([[0.3, 5.0]], requires_grad=True)
    layer(inputs).backward()
    weight = layer[0].weight
    rounded = (weight / weight.abs().max() * 127).round() * weight.abs().max() / 127
    torch.testing.assert_close(inputs.grad, torch.stack((rounded[0, 0], torch.zeros(())))[None])
    # the inputs as rounded and cut off: the step is 4 / 255
    assert weight.grad[0].tolist() == pytest.approx([0.3, 3.0], abs=3 / 255)


def test_names_and_arithmetic_are_those_of_the_plain_model_afterwards():
    plain, model = Layers(), Layers().eval()
    fake_quantize(model)
    calibrate(model, [{"input_values": windows()}])
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    difference = (model(windows()) - plain(windows())).abs().max()
    assert 1e-4 < difference < 0.1

    ranges = remove_fake_quantization(model)
    seen = windows()
    assert ranges["conv"]["input"] == (seen.min().item(), seen.max().item())
    assert {name: list(kinds) for name, kinds in ranges.items()} == {"conv": ["input", "output"], "linear": ["input"]}
    low, high = ranges["conv"]["output"]
    assert low < -1 and ranges["linear"]["input"] == pytest.approx((-0.17, high), abs=0.01)  # of GELU
    assert torch.equal(model(windows()), plain(windows()))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert remove_fake_quantization(model) == {}


def test_ranges_move_in_training_until_they_are_frozen():
    model = Layers().eval()
    fake_quantize(model)
    calibrate(model, [{"input_values": windows()}])
    start = model.conv.input_range.clone()
    model(windows() * 10)
    assert torch.equal(model.conv.input_range, start)  # evaluation moves nothing

    model.train()
    model(windows() * 10)
    torch.testing.assert_close(model.conv.input_range, start * 0.99 + start * 10 * 0.01)
    observe(model, False)
    frozen = model.conv.input_range.clone()
    model(windows())
    model(windows()[:0])  # nothing of a batch may be left to a branch
    assert torch.equal(model.conv.input_range, frozen)


def test_ranges_start_at_the_first_batch_where_nothing_was_calibrated():
    model = Layers().train()
    fake_quantize(model)
    model(windows()[:0])
    model(windows())
    assert model.conv.input_range.tolist() == [windows().min().item(), windows().max().item()]


def test_all_layers_of_a_model_are_found():
    config = TinyMyoConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, patch_size=10, num_channels=4
    )
    model = TinyMyoForSequenceClassification(config)
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    fake_quantize(model)
    calibrate(model, [{"input_values": torch.randn(2, 4, 40)}])
    layers = dict(fake_quantized_layers(model))
    assert list(layers) == names and len(names) == 1 + 2 * 4 + 1
    assert all(layer.input_range[0] < 0 < layer.input_range[1] for layer in layers.values())
    model.train()(input_values=torch.randn(2, 4, 40), labels=torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bf16_autocast():
    model = Layers().eval()
    fake_quantize(model)
    calibrate(model, [{"input_values": windows()}])
    exact = model(windows())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(windows()).float(), exact, atol=0.05, rtol=0.05)
