"""ONNX graphs compute what the models do."""

import copy
import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_models import MODELS, inputs_of, small_model

from export.errors import ExportError
from export.graph import output_names, trace


def run(proto, inputs):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return dict(zip(names, outputs, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_graphs_agree_with_the_models(name):
    model = small_model(name)
    proto = trace(model)
    onnx.checker.check_model(proto, full_check=True)
    assert {domain.domain for domain in proto.opset_import} == {""}  # no custom operator
    for batch in (1, 3, 32):
        for length in MODELS[name][1]:
            inputs = inputs_of(model, batch, length)
            with torch.no_grad():
                expected = model(**inputs)
            found = run(proto, inputs)
            assert list(found) == output_names(model)
            for output, values in found.items():
                np.testing.assert_allclose(values, getattr(expected, output).numpy(), atol=1e-4)
                assert values.shape == getattr(expected, output).shape


@pytest.fixture(scope="module")
def classifier():
    model = small_model("classification")
    return model, trace(model)


def test_the_model_is_left_as_it_was(classifier):
    model = small_model("classification")
    before = copy.deepcopy(model.state_dict())
    model.set_attn_implementation("sdpa")
    model.train()
    trace(model)
    assert model.training and model.config._attn_implementation == "sdpa"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_names_tell_the_modules_and_nothing_of_the_machine(classifier):
    model, proto = classifier
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert linear == {node.name for node in proto.graph.node if node.name in linear}
    weights = {weight.name: list(weight.dims) for weight in proto.graph.initializer}
    assert weights["tinymyo.layers.1.mlp.fc1.weight"] == [32, 64]
    inputs, outputs = proto.graph.input[0], proto.graph.output[0]
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (inputs, outputs)]
    assert dims == [["batch", 8, "time"], ["batch", 6]]
    written = proto.SerializeToString()
    assert os.getcwd().encode() not in written and b"stack_trace" not in written


def test_batch_norms_are_part_of_the_convolutions():
    proto = trace(small_model("speech_recognition"))
    names = {node.name for node in proto.graph.node}
    assert {f"tinymyo.stem.blocks.{i}.{name}" for i in range(3) for name in ("conv1", "conv2", "shortcut")} <= names
    assert not [node.name for node in proto.graph.node if "norm" in node.name and "stem" in node.name]


def test_weights_of_positional_convolutions_are_constants():
    proto = trace(small_model("typing"))
    weights = {weight.name: list(weight.dims) for weight in proto.graph.initializer}
    assert weights["semg_transformer.encoder.pos_conv_embed.conv.weight"] == [32, 8, 16]


def test_the_bytes_are_the_same_in_another_process(classifier):
    code = (
        "import hashlib; from small_models import small_model; from export.graph import trace;"
        "print(hashlib.sha256(trace(small_model('classification')).SerializeToString()).hexdigest())"
    )
    paths = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == hashlib.sha256(classifier[1].SerializeToString()).hexdigest()


def test_channels_can_differ_where_the_head_allows():
    model = small_model("classification_mean")
    proto = trace(model, dynamic=("batch", "channels", "time"))
    for channels in (1, 5, 16):
        inputs = {"input_values": torch.randn(3, channels, 80)}
        with torch.no_grad():
            np.testing.assert_allclose(run(proto, inputs)["logits"], model(**inputs).logits.numpy(), atol=1e-4)


def test_fixed_windows(classifier):
    model, _ = classifier
    proto = trace(model, dynamic=("batch",), length=200, opset=18)
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", 8, 200]
    assert {d.domain: d.version for d in proto.opset_import} == {"": 18}
    inputs = inputs_of(model, 3, 200)
    with torch.no_grad():
        np.testing.assert_allclose(run(proto, inputs)["logits"], model(**inputs).logits.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic": ("batch", "length")}, "dynamic='length': unknown; use some of batch, time, channels"),
        ({"dynamic": ("channels", "time")}, "takes 8 channels; leave it out"),
        ({"dynamic": ("batch",)}, "length: say how many samples"),
        ({"opset": 9}, "opset=9: use one of 18 to 23"),
    ],
)
def test_what_cannot_be_exported_is_told(classifier, options, message):
    with pytest.raises(ExportError, match=message):
        trace(classifier[0], **options)


def test_models_of_others_are_refused():
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    with pytest.raises(ExportError, match="of the type 'bert'"):
        trace(BertModel(config))
