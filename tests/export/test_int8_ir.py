"""Graphs for integer inference compute in float32 what the PyTorch models do."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from small_models import SMALL, moved, small_model
from transformers import AutoModelForSequenceClassification

import tinymyo_hf
from export.errors import ExportError
from export.int8.ir import (
    Attention,
    GraphError,
    Linear,
    Rotate,
    build_graph,
    count_macs,
    interpolate,
    run_float,
    verify_graph,
)
from tinymyo_hf import TinyMyoConfig, TinyMyoForRegression, TinyMyoForSequenceClassification

KINDS = {"classification": TinyMyoForSequenceClassification, "regression": TinyMyoForRegression}


def model_of(kind, channels, **fields):
    torch.manual_seed(0)
    config = TinyMyoConfig(
        **{**SMALL, "num_channels": channels, "num_labels": 5, "regression_hidden_size": 24, **fields}
    )
    return moved(KINDS[kind](config))


def windows_of(channels, samples, count=3, seed=1):
    return np.random.default_rng(seed).standard_normal((count, channels, samples)).astype(np.float32)


def logits_of(model, windows):
    with torch.no_grad():
        return model(torch.from_numpy(windows)).logits.numpy()


@pytest.mark.parametrize(("channels", "patches"), [(3, 7), (1, 1), (8, 10)])
@pytest.mark.parametrize("positions", ["rope", "none"])
@pytest.mark.parametrize("fusion", ["concat", "mean"])
@pytest.mark.parametrize(
    ("kind", "target_length"), [("classification", None), ("regression", None), ("regression", 33)]
)
def test_logits_are_those_of_the_model(kind, target_length, fusion, positions, channels, patches, tmp_path):
    fields = {"channel_fusion": fusion, "position_embedding_type": positions, "target_length": target_length}
    model_of(kind, channels, **fields).save_pretrained(tmp_path)
    model = KINDS[kind].from_pretrained(tmp_path)
    windows = windows_of(channels, 20 * patches)
    graph = build_graph(model, channels, 20 * patches)
    expected = logits_of(model, windows)
    np.testing.assert_allclose(run_float(graph, windows), expected, atol=1e-5, rtol=1e-5)
    one = run_float(graph, windows[0])
    assert one.dtype == np.float32 and one.shape == expected.shape[1:]
    np.testing.assert_allclose(one, expected[0], atol=1e-5, rtol=1e-5)
    assert graph.target_length == (None if kind == "classification" else target_length or 20 * patches)


def test_full_size_as_loaded_by_the_library(tmp_path):
    torch.manual_seed(0)
    config = TinyMyoConfig(**tinymyo_hf.TINYMYO_PRESETS["tinymyo-uci-emg"])
    moved(TinyMyoForSequenceClassification(config)).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    graph = build_graph(model, 8, 1000)
    assert verify_graph(graph, model, windows_of(8, 1000, count=2)) < 1e-5


def test_channels_of_an_averaging_head_are_free():
    model = model_of("classification", 8, channel_fusion="mean")
    windows = windows_of(5, 60)
    np.testing.assert_allclose(run_float(build_graph(model, 5, 60), windows), logits_of(model, windows), atol=1e-5)


def test_other_sizes():
    """Of patches, heads, classes, base of the rotation, and epsilon of the norms."""
    rope = {"rope_type": "default", "rope_theta": 100.0}
    fields = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 52, "patch_size": 7, "num_labels": 53}
    model = model_of("classification", 2, **fields, rope_parameters=rope, layer_norm_eps=0.1)
    windows = windows_of(2, 35)
    graph = build_graph(model, 2, 35)
    np.testing.assert_allclose(run_float(graph, windows), logits_of(model, windows), atol=1e-5)


def test_the_model_and_its_graph_share_nothing():
    model = small_model("regression").train()
    windows = windows_of(8, 40)
    graph = build_graph(model, 8, 40)
    before = run_float(graph, windows)
    assert verify_graph(graph, model, windows) < 1e-5 and model.training  # and no dropout
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(run_float(graph, windows), before)


def test_weights_of_another_precision_become_float32():
    model = small_model("classification").to(torch.bfloat16)
    graph = build_graph(model, 8, 40)
    weights = [node.weight for node in graph.nodes if isinstance(node, Linear)]
    assert {weight.dtype for weight in weights} == {np.dtype(np.float32)}
    assert verify_graph(graph, model, windows_of(8, 40)) < 1e-5


def test_large_outputs_are_compared_by_their_size():
    model = small_model("regression")
    with torch.no_grad():
        model.regressor.conv2.weight *= 1000  # angles are tens of degrees, and rounding is relative
    assert verify_graph(build_graph(model, 8, 60), model, windows_of(8, 60)) < 1e-5


def test_nodes_are_named_after_modules():
    names = [node.name for node in build_graph(small_model("classification"), 8, 60).nodes]
    attention = [f"layers.0.attention{part}" for part in (".qk", ".rotate", ".v", "", ".proj")]
    layer = ["layers.0.norm1", *attention, "layers.0.norm2", "layers.0.mlp.fc1", "layers.0.mlp.fc2"]
    assert names[:10] == ["patch_embedding", *layer]
    assert names[10:] == [name.replace("0", "1") for name in layer] + ["norm", "pool", "classifier"]
    names = [node.name for node in build_graph(small_model("regression"), 8, 60).nodes]
    assert names[-4:] == ["fuse", "regressor.conv1", "regressor.depthwise", "regressor.conv2"]


@pytest.mark.parametrize("name", ["classification", "classification_mean", "regression", "regression_of_length"])
def test_tensors_have_the_shapes_and_the_order_that_the_graph_tells(name):
    graph = build_graph(small_model(name), 8, 60)
    seen = {}
    logits = run_float(graph, windows_of(8, 60)[0], lambda tensor, array: seen.update({tensor: array}))
    activated = {node.name for node in graph.nodes if getattr(node, "activation", None)}
    assert list(graph.shapes) == ["input_values", *(node.output for node in graph.nodes)]
    assert seen.keys() - graph.shapes.keys() == {f"{name}.preactivation" for name in activated}
    assert {name: array.shape for name, array in seen.items() if name in graph.shapes} == graph.shapes
    made = {"input_values"}
    for node in graph.nodes:
        assert set(node.inputs) <= made
        made.add(node.output)
    if graph.target_length is None:
        np.testing.assert_array_equal(seen["logits"][0], logits)


def test_observed_are_the_tensors_of_the_model():
    model = small_model("classification")
    graph = build_graph(model, 8, 60)
    windows = windows_of(8, 60, count=9)
    expected, seen = {}, {}
    for name, module in model.tinymyo.named_modules():
        module.register_forward_hook(lambda module, args, output, name=name: expected.update({name: output}))
    logits_of(model, windows)
    run_float(graph, windows, lambda name, array: seen.setdefault(name, []).append(array.copy()))
    seen = {name: np.concatenate(arrays) for name, arrays in seen.items()}

    def assert_same(name, tensor):
        np.testing.assert_allclose(seen[name], tensor.flatten(1, -2).numpy(), atol=1e-5)

    np.testing.assert_array_equal(seen["input_values"], windows)
    assert_same("patch_embedding", expected["patch_embedding"])
    assert_same("layers.1.attention.v", expected["layers.1.attention.qkv"][..., 64:])
    assert_same("layers.1.mlp.fc1.preactivation", expected["layers.1.mlp.fc1"])
    assert_same("layers.1.mlp.fc1", expected["layers.1.mlp.act"])
    for name in ("layers.0.norm1", "layers.1.norm2", "norm"):
        assert_same(name, expected[name])
    for name in ("layers.0", "layers.1"):  # the residual stream after a layer
        assert_same(f"{name}.mlp.fc2", expected[name])


def test_rotation_keeps_lengths_and_orders_pairs_as_halves():
    model = small_model("classification")
    graph = build_graph(model, 8, 60)
    node = next(node for node in graph.nodes if isinstance(node, Rotate))
    seen = {}
    run_float(graph, windows_of(8, 60)[0], lambda name, array: seen.update({name: array}))
    before, after = seen[node.inputs[0]].reshape(24, 4, 2, 8), seen[node.output].reshape(24, 4, 2, 8)
    np.testing.assert_allclose((after**2).sum(axis=2), (before**2).sum(axis=2), rtol=1e-5)
    np.testing.assert_array_equal(after[0], before[0])  # token 0 is not rotated
    angles = np.arctan2(after[:, 0, 1], after[:, 0, 0]) - np.arctan2(before[:, 0, 1], before[:, 0, 0])
    expected = np.arange(24)[:, None] * 10000.0 ** (-np.arange(8) / 8)
    np.testing.assert_allclose(np.exp(1j * angles), np.exp(1j * expected), atol=1e-4)


@pytest.mark.parametrize(("frames", "target_length"), [(1, 20), (3, 50), (7, 7), (10, 4), (50, 1000)])
def test_interpolation_is_that_of_torch(frames, target_length):
    values = windows_of(frames, 5)
    columns = torch.from_numpy(values).transpose(1, 2)
    expected = torch.nn.functional.interpolate(columns, size=target_length, mode="linear").transpose(1, 2).numpy()
    np.testing.assert_allclose(interpolate(values, target_length), expected, atol=1e-5)
    np.testing.assert_allclose(interpolate(values[0], target_length), expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "samples"),
    [("classification", 8, 60), ("classification_mean", 8, 100), ("regression", 8, 60)],
)
def test_operations_are_those_that_the_model_counts(name, channels, samples):
    model = small_model(name)
    counts = count_macs(build_graph(model, channels, samples))
    expected = tinymyo_hf.count_macs(model, (1, channels, samples))
    assert sum(counts.values()) == expected["total"]
    qkv = counts["layers.1.attention.qk"] + counts["layers.1.attention.v"]
    assert qkv == expected["tinymyo.layers.1.attention.qkv"]
    assert counts["layers.1.mlp.fc2"] == expected["tinymyo.layers.1.mlp.fc2"]
    assert counts["patch_embedding"] == expected["tinymyo.patch_embedding"]


@pytest.mark.parametrize(("channels", "published"), [(8, 1.907e9), (16, 4.797e9)])
def test_operations_of_the_published_networks(channels, published):
    config = TinyMyoConfig(num_channels=channels, num_labels=6)
    counts = count_macs(build_graph(TinyMyoForSequenceClassification(config), channels, 1000))
    assert counts.pop("classifier") == 6 * 192 * channels
    tokens = 50 * channels
    layers = 8 * (12 * 192**2 * tokens + 2 * tokens**2 * 192)
    assert sum(counts.values()) == layers + 20 * 192 * tokens
    assert layers == pytest.approx(published, rel=1e-3)


def test_a_graph_that_computes_something_else_is_found():
    model = small_model("classification")
    graph = build_graph(model, 8, 60)
    windows = windows_of(8, 60)
    nodes = [
        dataclasses.replace(node, scaling=1.1 * node.scaling) if isinstance(node, Attention) else node
        for node in graph.nodes
    ]
    with pytest.raises(GraphError, match="logits: those of the graph differ from PyTorch's by"):
        verify_graph(dataclasses.replace(graph, nodes=tuple(nodes)), model, windows)


def test_logits_that_are_no_numbers_are_found():
    model = small_model("classification")
    graph = build_graph(model, 8, 60)
    graph.nodes[-1].bias[0] = np.nan
    with pytest.raises(GraphError, match="differ from PyTorch's by nan"):
        verify_graph(graph, model, windows_of(8, 60))


def test_a_network_whose_tokens_are_alike_is_found():
    """As of a graph whose residual connections are lost."""
    model = small_model("classification")
    torch.nn.init.zeros_(model.tinymyo.patch_embedding.weight)
    with pytest.raises(GraphError, match="tokens of different patches are the same after the last layer"):
        verify_graph(build_graph(model, 8, 60), model, windows_of(8, 60))


def test_logits_that_do_not_depend_on_the_window_are_found():
    model = small_model("classification")
    torch.nn.init.zeros_(model.classifier.weight)
    with pytest.raises(GraphError, match="logits do not depend on the window"):
        verify_graph(build_graph(model, 8, 60), model, windows_of(8, 60))


def test_patches_that_repeat_are_no_error():
    """A recording at rest is the same everywhere."""
    model = small_model("classification_mean")
    assert verify_graph(build_graph(model, 8, 60), model, np.zeros((8, 60), np.float32)) < 1e-5


@pytest.mark.parametrize("shape", [(8, 80), (7, 60), (0, 8, 60), (60,), (1, 1, 8, 60)])
def test_windows_of_another_shape_are_refused(shape):
    graph = build_graph(small_model("classification"), 8, 60)
    message = re.escape(f"windows: of shape {shape}; the graph takes (8, 60) or (count, 8, 60)")
    with pytest.raises(ExportError, match=message):
        run_float(graph, np.zeros(shape, np.float32))
    with pytest.raises(ExportError, match=message):
        verify_graph(graph, small_model("classification"), np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_position": "post"}, "norm_position='post': there are no integer kernels for it; .* 'pre'"),
        ({"hidden_act": "silu"}, "hidden_act='silu': there are no integer kernels for it; .* 'gelu'"),
        ({"hidden_size": 36, "num_attention_heads": 6}, "hidden_size / num_attention_heads=6: .* multiples of 4"),
        ({"hidden_size": 30, "num_attention_heads": 3}, "hidden_size=30: .* multiples of 4"),
        ({"intermediate_size": 66}, "intermediate_size=66: .* multiples of 4"),
        ({"hidden_size": 1032, "num_hidden_layers": 1}, "hidden_size=1032: the kernels take at most 1024"),
        ({"hidden_size": 1024, "num_channels": 9, "num_hidden_layers": 1}, "9216 features .* at most 8192"),
    ],
)
def test_models_without_kernels_are_refused(fields, message):
    config = TinyMyoConfig(**{**SMALL, "num_channels": 2, **fields})
    with pytest.raises(GraphError, match=message):
        build_graph(TinyMyoForSequenceClassification(config), config.num_channels, 40)


def test_regression_heads_without_kernels_are_refused():
    with pytest.raises(GraphError, match="regression_hidden_size=26: .* multiples of 4"):
        build_graph(model_of("regression", 2, regression_hidden_size=26), 2, 40)
    with pytest.raises(GraphError, match="8196 features .* smaller regression_hidden_size"):
        build_graph(model_of("regression", 2, regression_hidden_size=8196), 2, 40)


@pytest.mark.parametrize("name", ["encoder", "pretraining", "events", "speech_recognition", "typing"])
def test_other_kinds_of_models_are_refused(name):
    model = small_model(name)
    with pytest.raises(GraphError, match=f"model: a {type(model).__name__}, .* use a TinyMyoForSequenceClass"):
        build_graph(model, 8, 200)


@pytest.mark.parametrize(
    ("channels", "samples", "message"),
    [
        (7, 60, "channels=7: the head of this model concatenates 8 .* channel_fusion"),
        (8, 70, r"samples=70: windows are whole patches of 20 samples \(patch_size\); use a multiple such as (60|80)$"),
        (8, 3, r"samples=3: .* use a multiple such as 20$"),
        (8, 0, "samples=0: .* such as 20$"),
    ],
)
def test_windows_that_do_not_suit_are_refused(channels, samples, message):
    with pytest.raises(GraphError, match=message):
        build_graph(small_model("classification"), channels, samples)


def test_no_channels_are_refused():
    with pytest.raises(GraphError, match="channels=0: use at least 1"):
        build_graph(small_model("classification_mean"), 0, 60)


def test_weights_that_are_no_numbers_are_refused():
    model = small_model("classification")
    with torch.no_grad():
        model.tinymyo.layers[1].mlp.fc1.weight[0, 0] = float("nan")
    with pytest.raises(GraphError, match=r"tinymyo\.layers\.1\.mlp\.fc1\.weight: holds NaN or infinity"):
        build_graph(model, 8, 60)
