"""`tinymyo export onnx`: from a checkpoint to a folder, whole and verified, or not at all."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_models import inputs_of, small_model
from typer.testing import CliRunner

from export.calibration import CalibrationError
from export.comparison import VerificationError
from export.errors import ExportError
from export.folder import check_out, in_the_making
from export.held_out import held_out_windows
from export.onnx import Int8, export_onnx
from tinymyo_hf import EmgCharacterTokenizer, TinyMyoFeatureExtractor
from tinymyo_hf.cli import app
from tinymyo_hf.predictions import PredictionError

LABELS = ["rest", "fist", "flexion", "extension", "radial", "ulnar"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier of windows of 100 samples, with a card."""
    folder = tmp_path_factory.mktemp("checkpoint") / "hands"
    model = small_model("classification")
    model.config.id2label, model.config.label2id = dict(enumerate(LABELS)), {n: i for i, n in enumerate(LABELS)}
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=8, sampling_rate=200, window_length=100, stride=50).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Six hands\n\nOf six hands.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Forty labelled windows."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("windows") / "windows.npz"
    values = rng.normal(size=(40, 8, 100)).astype(np.float32)
    np.savez(path, input_values=values, labels=rng.integers(0, 6, 40), sampling_rate=200.0)
    return path


def logits_of(folder, values):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_values": values})[0]


def test_a_folder_with_all_that_is_needed(checkpoint, windows, tmp_path):
    report = export_onnx(str(checkpoint), tmp_path / "out", calibration=windows, measured=False)
    out = tmp_path / "out"
    names = {"model.onnx", "config.json", "preprocessor_config.json", "README.md", "report.json", "report.md"}
    assert {path.name for path in out.iterdir()} == names
    assert list(tmp_path.iterdir()) == [out]  # nothing unfinished is left beside it
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    model, values = small_model("classification"), np.load(windows)["input_values"]
    with torch.no_grad():
        expected = model(torch.from_numpy(values)).logits.numpy()
    np.testing.assert_allclose(logits_of(out, values), expected, atol=1e-4)
    accuracy = float((expected.argmax(-1) == np.load(windows)["labels"]).mean())
    assert report["verification"]["scores"]["accuracy"] == {"pytorch": accuracy, "onnx": accuracy}
    held = {entry.key: entry.value for entry in onnx.load(str(out / "model.onnx")).metadata_props}
    assert held["tinymyo_hf.task"] == "emg-classification" and held["tinymyo_hf.dtype"] == "fp32"
    assert json.loads(held["tinymyo_hf.config"])["id2label"] == {str(i): n for i, n in enumerate(LABELS)}
    assert json.loads(held["tinymyo_hf.preprocessor"])["sampling_rate"] == 200
    assert held["tinymyo_hf.card"] == (out / "README.md").read_text() and "license: mit" in held["tinymyo_hf.card"]
    assert str(tmp_path) not in "".join(held.values())


def test_int8_is_smaller_and_agrees(checkpoint, windows, tmp_path):
    int8 = Int8(keep_float=["classifier"])
    settings = {"dtype": "int8", "int8": int8, "calibration": windows, "agreement": 0.9, "measured": False}
    report = export_onnx(str(checkpoint), tmp_path / "out", **settings)
    assert report["quantization"] == {"method": "static", "ranges": "minmax", "float_layers": ["classifier"]}
    assert report["verification"]["outputs"]["logits"]["agreement"] >= 0.9
    graph = onnx.load(str(tmp_path / "out" / "model.onnx"))
    stored = {w.name for w in graph.graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) == 2}
    assert len(stored) == 9  # four linear layers in each of two blocks, and the patches
    values = np.load(windows)["input_values"]
    model = small_model("classification")
    with torch.no_grad():
        expected = model(torch.from_numpy(values)).logits.numpy()
    found = logits_of(tmp_path / "out", values)
    assert 1e-4 < np.abs(found - expected).max() < 0.3 * expected.std()
    again = export_onnx(str(checkpoint), tmp_path / "again", **settings)
    assert again["verification"]["outputs"] == report["verification"]["outputs"]
    digests = [hashlib.sha256((tmp_path / n / "model.onnx").read_bytes()).digest() for n in ("out", "again")]
    assert digests[0] == digests[1]


def test_as_many_layers_stay_in_float_as_it_takes(checkpoint, windows, tmp_path, monkeypatch):
    """With a layer whose weights int8 cannot hold, most of the decisions change, until that one stays in float."""
    from export.checkpoint import load_checkpoint

    def hard(source):
        found = load_checkpoint(source)
        with torch.no_grad():  # a value far off in each row takes all of its int8 steps, for an input that is always 0
            layer, norm = found.model.tinymyo.layers[1].mlp.fc1, found.model.tinymyo.layers[1].norm2
            layer.weight[:, 3] = 50 * layer.weight.abs().max()
            norm.weight[3] = norm.bias[3] = 0
        return found

    monkeypatch.setattr("export.onnx.load_checkpoint", hard)
    settings = {"dtype": "int8", "calibration": windows, "measured": False, "agreement": 0.97}
    with pytest.raises(VerificationError, match="decide alike in"):
        export_onnx(str(checkpoint), tmp_path / "none", int8=Int8(keep_float=[]), **settings)
    report = export_onnx(str(checkpoint), tmp_path / "out", int8=Int8(), **settings)
    kept = report["quantization"]["float_layers"]
    assert kept[0] == "tinymyo.layers.1.mlp.fc1" and len(kept) <= 5  # of ten
    assert report["verification"]["outputs"]["logits"]["agreement"] >= 0.97
    assert (tmp_path / "out" / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


def test_ranges_of_training_are_taken_where_they_are(checkpoint, tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    layers = [n for n, m in small_model("classification").named_modules() if isinstance(m, torch.nn.Linear)]
    ranges = {name: {"input": [-4.0, 4.0]} for name in layers}
    (folder / "activation_ranges.json").write_text(json.dumps(ranges))
    settings = {"dtype": "int8", "agreement": 0.5, "measured": False}
    report = export_onnx(str(folder), tmp_path / "out", **settings)  # without windows to calibrate on
    assert report["quantization"]["ranges"] == "in quantization-aware training"
    assert report["quantization"]["float_layers"] == []
    graph = onnx.load(str(tmp_path / "out" / "model.onnx"))
    values = {w.name: onnx.numpy_helper.to_array(w) for w in graph.graph.initializer}
    scales = [values[node.input[1]] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    np.testing.assert_allclose(scales, 8 / 255, rtol=1e-6)
    assert len(scales) == len(layers)


def test_models_of_text_take_their_vocabulary_along(tmp_path):
    folder = tmp_path / "checkpoint"
    model = small_model("speech_recognition")
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(
        feature_size=8, sampling_rate=689.0625, band_pass=None, notch_frequencies=(), patch_size=8, window_length=160
    ).save_pretrained(folder)
    tokenizer = EmgCharacterTokenizer(characters=[chr(97 + i) for i in range(26)] + [*"0123456789 "])
    tokenizer.save_pretrained(folder)
    (folder / "lexicon.txt").write_text("a word\n")
    export_onnx(str(folder), tmp_path / "out", measured=False)
    out = tmp_path / "out"
    assert (out / "lexicon.txt").read_text() == "a word\n"
    assert json.loads((out / "vocab.json").read_text()) == tokenizer.get_vocab()
    inputs = inputs_of(model, 2, 168)
    with torch.no_grad():
        np.testing.assert_allclose(
            logits_of(out, inputs["input_values"].numpy()), model(**inputs).logits.numpy(), atol=1e-4
        )


def test_a_fixed_window_is_that_of_the_preprocessing(tmp_path):
    folder = tmp_path / "checkpoint"
    small_model("events").save_pretrained(folder)
    TinyMyoFeatureExtractor(
        feature_size=16, sampling_rate=2000, band_pass=None, notch_frequencies=(), normalization="none",
        window_length=600, stride=300, patch_size=10,
    ).save_pretrained(folder)  # fmt: skip
    steps = []
    export_onnx(str(folder), tmp_path / "out", dynamic=("batch",), measured=False, say=steps.append)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 16, 600]
    assert steps == ["tracing the model", "comparing with PyTorch on 32 windows (noise)"]


def test_windows_of_another_length_than_the_fixed_one_are_refused(checkpoint, tmp_path):
    np.save(tmp_path / "long.npy", np.random.default_rng(0).normal(size=(40, 8, 200)).astype(np.float32))
    with pytest.raises(ExportError, match="long.npy: windows of 200 samples, but the model's are of 100"):
        export_onnx(str(checkpoint), tmp_path / "out", dynamic=("batch",), calibration=tmp_path / "long.npy")


def test_the_split_test_is_compared_beside_where_it_is_another_and_suits(checkpoint, tmp_path, monkeypatch):
    source, told = SimpleNamespace(extractor=None, model=SimpleNamespace(config=None)), []
    monkeypatch.setattr("dataset_builders.prepared.load_prepared", lambda path: ({"test": [1]}, None))
    monkeypatch.setattr("export.held_out.read_windows", lambda path, extractor, config, split: split)
    assert held_out_windows(source, tmp_path, "train", None, told.append) == "test"
    assert held_out_windows(source, tmp_path, "test", None, told.append) is None
    assert held_out_windows(source, tmp_path, "test", tmp_path, told.append) == "test" and not told

    def too_few(*arguments):
        raise CalibrationError("3 windows")

    monkeypatch.setattr("export.held_out.read_windows", too_few)
    assert held_out_windows(source, tmp_path, "train", None, told.append) is None
    assert told == ["leaving out the split test (3 windows)"]
    with pytest.raises(CalibrationError):
        held_out_windows(source, tmp_path, "train", tmp_path, told.append)


def test_nothing_is_left_where_outputs_differ(checkpoint, windows, tmp_path, monkeypatch):
    """As after a defect of the exporter, or of the runtime."""
    from export.graph import trace

    def wrong(*args, **kwargs):
        proto = trace(*args, **kwargs)
        bias = next(weight for weight in proto.graph.initializer if weight.name == "classifier.bias")
        values = onnx.numpy_helper.to_array(bias) + np.float32(1e-3)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return proto

    monkeypatch.setattr("export.onnx.trace", wrong)
    with pytest.raises(VerificationError, match="differs from PyTorch by up to 0.001"):
        export_onnx(str(checkpoint), tmp_path / "out", calibration=windows, measured=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_it_is_an_export(checkpoint, windows, tmp_path, monkeypatch):
    monkeypatch.setattr("export.onnx.load_checkpoint", lambda source: pytest.fail("told before any work"))
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("1")
    with pytest.raises(ExportError, match="thesis: is not empty, and no export"):
        export_onnx(str(checkpoint), other, overwrite=True)
    (other / "model.onnx").write_text("")
    with pytest.raises(ExportError, match="holds an export already; .* --overwrite"):
        export_onnx(str(checkpoint), other)
    with pytest.raises(ExportError, match="thesis: holds chapter.tex beside an export"):
        export_onnx(str(checkpoint), other, overwrite=True)
    with pytest.raises(ExportError, match="windows.npz: is a file"):
        export_onnx(str(checkpoint), windows)
    with pytest.raises(ExportError, match="windows.npz is a file"):
        export_onnx(str(checkpoint), windows / "out")


def test_an_empty_folder_is_filled_and_a_link_followed(tmp_path, monkeypatch):
    out, link = tmp_path / "out", tmp_path / "link"
    out.mkdir()
    link.symlink_to("out")
    monkeypatch.chdir(out)
    for name, overwrite in ((".", False), (link, True)):
        place = check_out(name, overwrite)
        assert place == out
        with in_the_making(place) as unfinished:
            (unfinished / "model.onnx").write_text(str(name))
        assert [path.name for path in out.iterdir()] == ["model.onnx"]
        assert (out / "model.onnx").read_text() == str(name)
    assert link.is_symlink() and set(tmp_path.iterdir()) == {out, link}


def test_an_interrupted_export_leaves_an_empty_folder_empty(tmp_path):
    with pytest.raises(KeyboardInterrupt), in_the_making(check_out(tmp_path)) as unfinished:
        (unfinished / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_replaced_when_asked(checkpoint, windows, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("model.onnx", "left.json"):
        (out / name).write_text("old")
    export_onnx(str(checkpoint), out, calibration=windows, measured=False, overwrite=True)
    assert not (out / "left.json").exists() and (out / "model.onnx").stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "int4"}, ExportError, "dtype='int4': unknown; use one of fp32, fp16, int8"),
        ({"dtype": "int8"}, ExportError, "calibration: int8 needs real windows"),
        ({"int8": Int8()}, ExportError, "int8: for dtype='int8', not 'fp32'"),
        ({"dtype": "int8", "int8": Int8(method="guess")}, ExportError, "int8.method='guess': unknown"),
        ({"dtype": "int8", "int8": Int8(method="dynamic", calibrate_method="entropy")}, ExportError, "method static"),
        ({"dtype": "int8", "int8": Int8(method="pt2e", sweep=True)}, ExportError, "keeps the default layers"),
        ({"agreement": 0.9}, ExportError, "agreement: fp32 agrees to rounding"),
        ({"calibration": "nowhere.npz"}, CalibrationError, "nowhere.npz"),
        ({"opset": 7}, ExportError, "opset=7"),
    ],
)
def test_what_does_not_fit_is_told(checkpoint, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        export_onnx(str(checkpoint), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_that_are_not_whole(checkpoint, tmp_path):
    small_model("classification").save_pretrained(tmp_path / "no_extractor")
    with pytest.raises(ExportError, match="preprocessor_config.json is missing or damaged"):
        export_onnx(str(tmp_path / "no_extractor"), tmp_path / "out")
    shutil.copytree(checkpoint, tmp_path / "hands")
    for name, content, message in (
        ("README.md", "# Hände".encode("latin-1"), "README.md cannot be read as a model card .*utf-8"),
        ("README.md", b"---\nlicense: [mit\n---\n", "README.md cannot be read as a model card .*expected ',' or ']'"),
        ("preprocessor_config.json", b"[]", "preprocessor_config.json is missing or damaged"),
    ):
        (tmp_path / "hands" / name).write_bytes(content)
        with pytest.raises(ExportError, match=message):
            export_onnx(str(tmp_path / "hands"), tmp_path / "out")
        shutil.copy(checkpoint / name, tmp_path / "hands")
    with pytest.raises(PredictionError, match="no_such"):
        export_onnx(str(tmp_path / "no_such"), tmp_path / "out")


def test_the_command(checkpoint, windows, tmp_path):
    out = tmp_path / "out"
    arguments = ["export", "onnx", str(checkpoint), str(out), "--calibration", str(windows), "--no-measure"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "| `logits` |" in done.output and f"tinymyo predict {out} FILE" in done.output
    for wrong, message in (
        ([], "holds an export already"),  # no terminal to ask at
        (["--keep-float", "none", "--overwrite"], "--keep-float: for --dtype int8"),
        (["--dynamic", "batch,length", "--overwrite"], "dynamic='length': unknown"),
    ):
        done = CliRunner().invoke(app, arguments + wrong)
        assert done.exit_code == 2 and message in done.output
        assert (out / "model.onnx").exists()
