"""Models of images as ONNX: batch norms folded, spectra as matrix products, images drawn where they are needed."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.calibration import read_windows
from export.checkpoint import load_checkpoint
from export.errors import ExportError
from export.graph import silenced, trace
from export.image_graph import image_shape
from export.image_norm import ImageNorm
from export.image_windows import DrawnWindows, drawn
from export.onnx import export_onnx
from export.onnx_int8 import Int8, check_calibration, quantize
from export.spectral import SpectralProducts
from export.verification import Tolerance
from tinymyo_hf import (
    BiosignalImageProcessor,
    TinyBioMoEConfig,
    TinyBioMoEForSequenceClassification,
    TinyBioMoEModel,
)
from tinymyo_hf.tiny_biomoe.convert_tiny_biomoe_checkpoint import convert_tiny_biomoe_checkpoint
from tinymyo_hf.tiny_biomoe.folding_tiny_biomoe import fold_batch_norms

# One stage of the EfficientViT leaves out nothing but a second one and what is between the two, which PLAIN has.
SMALL = {
    "image_size": 96, "spectformer_stem_size": 4, "spectformer_hidden_sizes": (8, 12, 16, 16),
    "spectformer_num_heads": (None, None, 2, 4), "spectformer_mlp_ratios": (2, 2, 2, 2),
    "efficientvit_hidden_sizes": (16,), "efficientvit_num_heads": (1,), "efficientvit_key_size": 4,
    "efficientvit_window_size": 3,
}  # fmt: skip
PLAIN = SMALL | {"efficientvit_hidden_sizes": (16, 16), "efficientvit_num_heads": (2, 1)}
LABELS = ["rest", "fist", "flexion"]
CHANNELS, SAMPLES = 2, 100


def network(kind=TinyBioMoEModel, sizes=SMALL, **fields):
    """With weights and statistics of batch norms that are far from their initial ones."""
    torch.manual_seed(0)
    model = kind(TinyBioMoEConfig(**sizes | fields)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                tensor.normal_(std=0.3)
            elif tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn_like(tensor))
    return model


def images(*batch, seed=0, size=96):
    return torch.rand(*batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def run(graph, pixel_values):
    data = str(graph) if isinstance(graph, os.PathLike) else graph.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"pixel_values": np.asarray(pixel_values)})
    return output


@pytest.fixture(scope="module")
def averaging():
    """A classifier that averages the images of a window."""
    model = network(TinyBioMoEForSequenceClassification, sizes=PLAIN, num_labels=3)
    return model, trace(model, opset=18)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    path = tmp_path_factory.mktemp("windows") / "windows.npz"
    values = rng.normal(size=(40, CHANNELS, SAMPLES)) * (0.3 + labels[:, None, None])
    np.savez(path, input_values=values.astype(np.float32), labels=labels, sampling_rate=200.0)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier of windows of two channels, two images of each."""
    folder = tmp_path_factory.mktemp("checkpoint") / "hands"
    model = network(
        TinyBioMoEForSequenceClassification, num_images=4, image_fusion="concat", id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )  # fmt: skip
    with torch.no_grad():  # logits that differ between windows
        model.classifier.weight.mul_(20)
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def processor():
    return BiosignalImageProcessor(
        feature_size=CHANNELS, sampling_rate=200, window_length=SAMPLES, stride=50, image_size=96,
        representations=["waveform", "spectrogram_amplitude"],
    )  # fmt: skip


# --- graphs ----------------------------------------------------------------------------------------------------------


def test_classifiers_average_any_number_of_images(averaging):
    model, graph = averaging
    ends = graph.graph.input[0], graph.graph.output[0]
    dims = [[dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim] for end in ends]
    assert [end.name for end in ends] == ["pixel_values", "logits"]
    assert dims == [["batch", "images", 3, 96, 96], ["batch", 3]]
    for batch, count in ((1, 1), (3, 2), (2, 5)):
        pixel_values = images(batch, count, seed=batch)
        with torch.no_grad():
            expected = model(pixel_values).logits.numpy()
        np.testing.assert_allclose(run(graph, pixel_values), expected, atol=1e-4)


def test_graphs_have_plain_operators_and_names_of_modules(averaging):
    model, graph = averaging
    onnx.checker.check_model(graph, full_check=True)
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": 18}
    assert not {node.op_type for node in graph.graph.node} & {"DFT", "BatchNormalization", "STFT"}
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert layers - {"tiny_biomoe.gate"} <= {node.name for node in graph.graph.node}
    assert [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]  # a copy was folded


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        (("batch", "time"), "dynamic='time': images have one size; use some of batch, images"),
        (("batch", "images"), "only a classifier that averages its images"),
    ],
)
def test_axes_that_images_do_not_have(dynamic, message):
    with pytest.raises(ExportError, match=message):
        trace(network(), dynamic)


# --- batch norms and spectra -----------------------------------------------------------------------------------------


def test_folding_changes_nothing_but_speed():
    model = network(sizes=PLAIN)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norms(model)
    assert model.training and not folded.training
    model.eval()
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        expected = model.double()(images(3).double()).pooler_output
        model.float()
        torch.testing.assert_close(folded.double()(images(3).double()).pooler_output, expected, atol=1e-6, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="batch norms of this model are folded"):
        folded.save_pretrained("nowhere")


def test_norms_without_convolutions_cannot_be_folded():
    with pytest.raises(ValueError, match=r"Sequential\.1: a batch norm without a convolution"):
        fold_batch_norms(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))


@pytest.mark.parametrize("side", [4, 7, 56])
def test_matrices_mix_spectra_as_transforms_do(side):
    generator = torch.Generator().manual_seed(side)
    weight = torch.randn(side, side // 2 + 1, 3, 2, generator=generator)
    grid = torch.randn(2, side, side, 3, generator=generator)
    spectrum = torch.fft.rfft2(grid.double(), dim=(1, 2), norm="ortho") * torch.view_as_complex(weight.double())
    expected = torch.fft.irfft2(spectrum, s=(side, side), dim=(1, 2), norm="ortho")
    torch.testing.assert_close(SpectralProducts(weight)(grid).double(), expected, atol=1e-5, rtol=0)


def test_the_norm_of_dark_images_is_exact(tmp_path):
    """As waveforms are: a few white pixels on black. onnxruntime's own layer norm is thirty times as far off."""
    norm, pixel_values = nn.LayerNorm((3, 224, 224)), (images(2, size=224) > 0.97).float()
    with silenced():
        torch.onnx.export(ImageNorm(norm).eval(), (pixel_values,), tmp_path / "norm.onnx", dynamo=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "norm.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixel_values.numpy()})
    expected = norm.double()(pixel_values.double()).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


# --- windows as images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_images_are_drawn_piece_by_piece(single):
    signals = np.random.default_rng(1).normal(size=(5, CHANNELS, SAMPLES)).astype(np.float32)
    drawn, whole = DrawnWindows(signals, processor(), single), processor().images(signals)
    if single:
        whole = whole.reshape(-1, 3, 96, 96)
    assert drawn.shape == whole.shape and len(drawn) == len(whole)
    for index in (slice(0, 3), slice(3, None), slice(None, None, 2), slice(1, 99)):
        np.testing.assert_array_equal(drawn[index], whole[index])


# --- exports ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(checkpoint, windows, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    return out, export_onnx(str(checkpoint), out, calibration=windows, measured=False)


def test_a_folder_that_tells_how_images_are_drawn(exported, checkpoint, windows):
    out, report = exported
    shapes = [tuple(check["shape"]) for check in report["verification"]["shapes"]]
    assert shapes == [(1, 4, 3, 96, 96), (3, 4, 3, 96, 96)]  # 32 windows of four images each would be too many
    assert report["verification"]["windows"] == 40 and report["settings"]["dynamic"] == ["batch"]
    held = {entry.key: entry.value for entry in onnx.load(str(out / "model.onnx")).metadata_props}
    assert json.loads(held["tinymyo_hf.preprocessor"])["representations"] == ["waveform", "spectrogram_amplitude"]
    assert '{"pixel_values": images}' in held["tinymyo_hf.card"]
    values = np.load(windows)["input_values"]
    model = TinyBioMoEForSequenceClassification.from_pretrained(checkpoint).eval()
    pixel_values = processor().images(values)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixel_values)).logits.numpy()
    np.testing.assert_allclose(run(out / "model.onnx", pixel_values), expected, atol=1e-4)
    accuracy = float((expected.argmax(-1) == np.load(windows)["labels"]).mean())
    assert report["verification"]["scores"]["accuracy"] == {"pytorch": accuracy, "onnx": accuracy}


def test_the_pipeline_without_torch_agrees_with_that_of_transformers(exported, checkpoint, tmp_path):
    from transformers import pipeline

    recording = np.random.default_rng(2).normal(size=(CHANNELS, 330))
    expected = pipeline("emg-classification", model=str(checkpoint))(recording, sampling_rate=200)
    np.save(tmp_path / "recording.npy", recording)
    code = (
        "import json, sys; import numpy as np; from tinymyo_hf.onnx import pipeline;"
        f"classify = pipeline('emg-classification', model={str(exported[0])!r});"
        f"print(json.dumps(classify(np.load({str(tmp_path / 'recording.npy')!r}), sampling_rate=200)));"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    environment = os.environ | {"TINYMYO_HF_REGISTER": "0", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert [w["label"] for w in found["windows"]] == [w["label"] for w in expected["windows"]] and len(
        found["windows"]
    ) == 5
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-5)


def test_int8_has_its_convolutions_in_int8(exported, checkpoint, windows):
    source, graph = load_checkpoint(str(checkpoint)), onnx.load(str(exported[0] / "model.onnx"))
    signals = read_windows(windows, source.extractor, source.model.config)
    drawn_windows = drawn(signals, source.extractor, image_shape(source.model, ["batch"]))
    converted = quantize(source, graph, Int8(), drawn_windows, Tolerance(agreement=0.0), {})
    assert converted.quantization["float_layers"] == ["classifier"]
    stored = [w for w in converted.proto.graph.initializer if w.data_type == onnx.TensorProto.INT8]
    layers = [m for m in source.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([w for w in stored if len(w.dims) in (2, 4)]) == len(layers) - 1
    expected, found = (run(proto, drawn_windows.values[:]) for proto in (graph, converted.proto))
    assert 1e-3 < np.abs(found - expected).max() < 2 * expected.std()


def test_what_images_cannot_be_exported_as_is_told(checkpoint, windows, tmp_path):
    with pytest.raises(ExportError, match="pt2e.*: for models of signals"):
        check_calibration(load_checkpoint(str(checkpoint)), Int8(method="pt2e"), windows)
    values = np.zeros((40, 3, SAMPLES), np.float32)
    values[..., 1] = 1
    np.save(tmp_path / "wide.npy", values)
    with pytest.raises(ExportError, match="3 channels, but the model takes 2"):
        export_onnx(str(checkpoint), tmp_path / "out", calibration=tmp_path / "wide.npy")


@pytest.mark.slow
def test_the_published_size(shared_dir, tmp_path):
    """With the weights of the parity fixture, whose outputs come from the released code."""
    from safetensors.torch import load_file

    torch.save(
        {"model_state_dict": load_file(shared_dir / "fixtures/biomoe_rand.state.safetensors")}, tmp_path / "w.pth"
    )
    model, _ = convert_tiny_biomoe_checkpoint(tmp_path / "w.pth", tmp_path / "converted")
    model.eval()
    graph, fixture = trace(model), load_file(shared_dir / "fixtures/biomoe_rand.io.safetensors")
    torch.manual_seed(7)
    pixel_values = torch.rand(2, 3, 224, 224)
    np.testing.assert_allclose(run(graph, pixel_values), fixture["output"].numpy(), atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            fold_batch_norms(model)(pixel_values).pooler_output, fixture["output"], atol=2e-5, rtol=0
        )
