"""Figures and text that go with an export."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import yaml
from linear_models import CHANNELS, LinearForSequenceClassification, linear_graph
from small_models import small_model

from export.calibration import CalibrationWindows
from export.card import export_card
from export.errors import ExportError
from export.measuring import interleaved, measure, onnx_memory, torch_memory
from export.report import write_report
from export.verification import verify
from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor


@pytest.fixture(scope="module")
def verification():
    values = np.random.default_rng(0).normal(size=(40, CHANNELS, 20)).astype(np.float32)
    model = LinearForSequenceClassification()
    return verify(model, linear_graph(model), CalibrationWindows(values, np.arange(40) % 4, "made up"))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(linear_graph(LinearForSequenceClassification()), path)
    return path


@pytest.fixture
def measurement(graph, monkeypatch):
    model = LinearForSequenceClassification()
    model.weight = torch.nn.Parameter(torch.zeros(10))
    monkeypatch.setattr("export.measuring.onnx_memory", lambda *args: 50_000_000)
    return measure(model, graph, (CHANNELS, 20), {"onnx fp32": linear_graph(model)}, batch_sizes=(1, 4))


def test_candidates_take_turns():
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1)
    assert "".join(calls) == "abababab"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_measurement(measurement, graph):
    assert measurement.bytes["pytorch"] == 40 and measurement.bytes["onnx"] == graph.stat().st_size
    assert [latency.batch for latency in measurement.latencies] == [1, 4]
    for latency in measurement.latencies:
        assert set(latency.medians) == set(latency.minima) == {"pytorch", "onnx", "onnx fp32"}
        assert all(0 < latency.minima[name] <= latency.medians[name] < 1 for name in latency.medians)
    assert measurement.threads == torch.get_num_threads()


def test_memory_of_a_process_of_its_own(graph):
    """Not that of this one, which holds torch."""
    inputs = {"input_values": np.zeros((1, CHANNELS, 20), np.float32)}
    small = onnx_memory(graph, inputs)
    assert 20e6 < small < 150e6
    large = onnx_memory(graph, {"input_values": np.zeros((200_000, CHANNELS, 20), np.float32)})
    assert large - small > 45e6  # of the input alone
    with pytest.raises(ExportError, match="the process that measures memory failed"):
        onnx_memory(graph, {"no_input": inputs["input_values"]})


@pytest.mark.slow
def test_memory_of_pytorch():
    model = small_model("classification")
    assert torch_memory(model, {"input_values": np.zeros((1, 8, 200), np.float32)}) > 200e6


def test_report(tmp_path, verification, measurement):
    (tmp_path / "sensitivity.png").write_bytes(b"")
    report = write_report(
        tmp_path,
        checkpoint="runs/mine",
        task="emg-classification",
        dtype="int8",
        verification=verification,
        held_out=replace(verification, source="kept", windows=1234),
        measurement=measurement,
        settings={"opset": 20, "dynamic": ["batch", "time"]},
        quantization={"method": "static", "float_layers": []},
    )
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["verification"]["scores"]["accuracy"]["onnx"] == verification.scores["accuracy"]["onnx"]
    text = (tmp_path / "report.md").read_text()
    found = verification.outputs["logits"]
    accuracy = verification.scores["accuracy"]["pytorch"]
    latency = measurement.latencies[1]
    ratio = latency.medians["pytorch"] / latency.medians["onnx"]
    for words in (
        "# `runs/mine` as ONNX, int8",
        "40 windows (made up)",
        f"| `logits` | {found.maximum:.2g} |",
        f"| Accuracy | {accuracy:.2%} | {accuracy:.2%} |",
        "| 32 x 3 x 10 |",
        "|  | PyTorch, eager | ONNX | ONNX, float32 |",
        "| Peak memory of a process, MB |  | 50.00 |",
        f"| Batch of 4, median, ms | {1e3 * latency.medians['pytorch']:.2f} (1.00 x) |",
        f"{1e3 * latency.medians['onnx']:.2f} ({ratio:.2f} x)",
        "1,234 windows (kept)",
        "| float layers | none |",
        "](sensitivity.png)",
    ):
        assert words in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md", "sensitivity.png"]


CONFIG = TinyMyoConfig(num_channels=8, num_labels=6)
EXTRACTOR = TinyMyoFeatureExtractor(feature_size=8, window_length=200)
SOURCE = """---
license: {licence}
tags: [emg, tinymyo]
base_model: someone/base
---

# My gestures

![Curves](curves.png)
![Far away](https://example.org/a.png)

## Limits

```bash
# a comment
```
"""


def parts(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def card_of(tmp_path, licence="apache-2.0", dtype="int8", task="emg-classification", source=SOURCE):
    (tmp_path / "mine").mkdir(exist_ok=True)
    text = source and source.format(licence=licence)
    checkpoint = str(tmp_path / "mine")
    return export_card(checkpoint, task=task, dtype=dtype, config=CONFIG, preprocessing=EXTRACTOR, source_card=text)


def test_the_card_carries_licence_and_description_on(tmp_path):
    front, body = parts(card_of(tmp_path))
    assert front["license"] == "apache-2.0" and front["library_name"] == "onnx"
    assert front["base_model"] == "someone/base" and front["base_model_relation"] == "quantized"
    assert front["tags"] == ["emg", "tinymyo", "onnx", "onnxruntime", "int8"]
    assert body.startswith("\n# My gestures as ONNX, int8\n")
    assert "\n## My gestures\n" in body and "\n### Limits\n" in body and "\n# a comment\n" in body
    assert "curves.png" not in body and "https://example.org/a.png" in body
    assert "holds: apache-2.0." in body and "may not be shared" not in body
    assert str(tmp_path) not in card_of(tmp_path)  # where it lies is nobody's business
    assert card_of(tmp_path) == card_of(tmp_path)


def test_the_card_warns_of_licences_without_derivatives(tmp_path):
    for dtype in ("fp16", "int8"):
        front, body = parts(card_of(tmp_path, "cc-by-nd-4.0", dtype))
        assert front["license"] == "cc-by-nd-4.0" and "it may not be shared" in body
    assert "the same weights in another format" in parts(card_of(tmp_path, "cc-by-nd-4.0", "fp32"))[1]
    assert "no derivatives" not in parts(card_of(tmp_path, "cc-by-nc-4.0"))[1]
    assert "it may not be shared" in card_of(tmp_path, "other\nlicense_name: CC BY-ND 4.0", "fp16")


def test_the_card_of_a_checkpoint_without_one(tmp_path):
    front, body = parts(card_of(tmp_path, source=None))
    assert "license" not in front and "base_model" not in front
    assert "states none" in body and body.startswith("\n# mine as ONNX, int8\n")
    text = export_card("someone/model", task="embedding", dtype="fp32", config=CONFIG, preprocessing=EXTRACTOR)
    front, body = parts(text)
    assert front["base_model"] == "someone/model" and "base_model_relation" not in front
    assert "pipeline" not in body.partition("## Files")[0]


def test_the_code_in_the_card_runs(tmp_path, graph):
    body = card_of(tmp_path)
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", body, re.DOTALL) if "InferenceSession" in block)
    code = code.replace("(1, 8, 200)", f"(1, {CHANNELS}, 20)") + "print(outputs.shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=graph.parent, capture_output=True, text=True)
    assert done.stdout == "(1, 4)\n", done.stderr
