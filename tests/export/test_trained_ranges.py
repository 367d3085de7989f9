"""A graph quantized with the ranges of quantization-aware training computes what the training simulated."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from linear_models import LinearForSequenceClassification, linear_graph
from small_models import small_model

from export.errors import ExportError
from export.graph import trace
from export.onnx_quantization import quantize_with_ranges
from export.trained_ranges import trained_ranges
from trainers.fake_quantization import calibrate, fake_quantize, remove_fake_quantization


@pytest.mark.parametrize("name", ["classification", "events", pytest.param("regression", marks=pytest.mark.slow)])
def test_the_graph_computes_what_was_simulated(name, tmp_path):
    model = small_model(name)
    windows = torch.randn(8, model.config.num_channels, 200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(windows).logits.numpy()
        fake_quantize(model)
        calibrate(model, [{"input_values": windows[:4]}])  # of the others, some values are cut off
        simulated = model(windows).logits.numpy()
    path = tmp_path / "activation_ranges.json"
    path.write_text(json.dumps(remove_fake_quantization(model)))

    graph = trace(model)
    quantized = quantize_with_ranges(graph, trained_ranges(graph, path), weight_bits=8).SerializeToString()
    (found,) = onnxruntime.InferenceSession(quantized).run(["logits"], {"input_values": windows.numpy()})
    # Where the last digit of a sum decides between two steps, either may be taken.
    error, noise = np.abs(found - simulated), np.abs(simulated - exact)
    assert error.mean() < 0.1 * noise.mean() and np.median(error) < 0.02 * np.median(noise)


def test_files_that_do_not_belong_to_the_model(tmp_path):
    graph = linear_graph(LinearForSequenceClassification())
    graph.graph.node[1].name = "classifier"
    path = tmp_path / "activation_ranges.json"
    with pytest.raises(ExportError, match="cannot be read.*copy the checkpoint again"):
        trained_ranges(graph, path)
    path.write_text(json.dumps({"another": {"input": [-1, 1]}}))
    with pytest.raises(ExportError, match="no range of the input of classifier"):
        trained_ranges(graph, path)
