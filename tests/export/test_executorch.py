"""`tinymyo export executorch`: programs for ExecuTorch, verified in its runtime."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from small_models import inputs_of, small_model
from typer.testing import CliRunner

from export.errors import ExportError
from export.executorch import export_executorch
from export.graph import output_names
from export.onnx import Int8, export_onnx
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.cli import app

executorch_is_there = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None,
    reason="executorch is not installed: it comes with the extra executorch",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier of windows of 100 samples."""
    folder = tmp_path_factory.mktemp("checkpoint") / "hands"
    small_model("classification").save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=8, sampling_rate=200, window_length=100, stride=50).save_pretrained(folder)
    return folder


def run_program(folder, values):
    """With the library alone."""
    from transformers.exporters import ExportedModel

    program = ExportedModel.from_pretrained(folder)
    outputs = [program(input_values=window).logits.clone() for window in values.split(1)]
    return torch.cat(outputs).numpy()


@pytest.mark.slow
@executorch_is_there
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_programs_agree_with_the_model(checkpoint, tmp_path, dtype):
    out, longest = tmp_path / "out", 240
    report = export_executorch(str(checkpoint), out, dtype, longest=longest, measured=dtype == "fp32")
    names = {"model.pte", "export.json", "config.json", "preprocessor_config.json", "README.md"}
    assert {path.name for path in out.iterdir()} == names | {"report.json", "report.md"}
    assert list(tmp_path.iterdir()) == [out]
    assert json.loads((out / "report.json").read_text()) == report and report["runtime"] == "executorch"
    assert (report["measurement"] is None) == (dtype == "int8")
    card = (out / "README.md").read_text()
    assert "library_name: executorch" in card and "up to 240 samples" in card and "onnx" not in card.lower()
    model = small_model("classification")
    for length in (20, 100, longest):
        values = inputs_of(model, 3, length)["input_values"]
        with torch.no_grad():
            expected = model(values).logits.numpy()
        error = np.abs(run_program(out, values) - expected).max()
        assert error < 1e-4 if dtype == "fp32" else 1e-4 < error < 0.1 * expected.std()
    weights = sum(p.numel() for p in model.parameters())
    size = (out / "model.pte").stat().st_size
    assert size < 4 * weights if dtype == "int8" else size > 4 * weights  # with all that is not weights


@pytest.mark.slow
@executorch_is_there
@pytest.mark.parametrize("name", ["pretraining", "regression_of_length", "encoder", "events", "speech_synthesis"])
def test_programs_of_other_heads(tmp_path, name):
    model = small_model(name)
    model.save_pretrained(tmp_path / "checkpoint")
    extractor = TinyMyoFeatureExtractor(
        feature_size=model.config.num_channels, sampling_rate=200, window_length=100, stride=50
    )
    extractor.save_pretrained(tmp_path / "checkpoint")
    export_executorch(str(tmp_path / "checkpoint"), tmp_path / "out", longest=2400, measured=False)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["verification"]["outputs"]) == output_names(model)
    assert len({check["shape"][2] for check in report["verification"]["shapes"]}) == 3
    assert max(check["maximum"] for check in report["verification"]["shapes"]) < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp16"}, "dtype='fp16': unknown; use one of fp32, int8"),
        ({"longest": 199}, "longest=199: use at least 200"),
        ({"longest": 210}, "no multiple of the model's patch_size 20"),
    ],
)
def test_options_that_do_not_fit_are_told(checkpoint, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("export.executorch.need", lambda *packages, extra: None)
    with pytest.raises(ExportError, match=message):
        export_executorch(str(checkpoint), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_without_executorch_the_extra_is_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("export.extras.find_spec", lambda package: None)
    result = CliRunner().invoke(app, ["export", "executorch", str(checkpoint), str(tmp_path / "out")])
    assert result.exit_code == 2 and "pip install 'tinymyo-hf[executorch]'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_int8_by_torchao_needs_torchao(checkpoint, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("export.extras.find_spec", lambda package: None if package == "torchao" else found(package))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tinymyo-hf\[pt2e\]'"):
        export_onnx(str(checkpoint), tmp_path / "out", dtype="int8", int8=Int8(method="pt2e"))
