"""Float16 and int8 graphs of every head of the family are close to the float32 ones, at batch sizes and lengths
they were not calibrated on."""

import numpy as np
import onnx
import pytest
from small_models import MODELS, inputs_of, small_model

from export.comparison import open_session
from export.graph import trace
from export.onnx_float16 import to_float16
from export.onnx_quantization import (
    float_by_default,
    quantizable,
    quantize_dynamic_int8,
    quantize_static_int8,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_head(name):
    model, length = small_model(name), MODELS[name][1][1]
    graph = trace(model)
    windows = inputs_of(model, 64, length)["input_values"].numpy()
    kept = float_by_default(graph)
    assert 0 < len(kept) < len(quantizable(graph))
    graphs = {  # and how far they may be off: networks of width 32 with random weights even out little
        "float16": (to_float16(graph), 0.02),
        "static": (quantize_static_int8(graph, windows, keep_float=kept), 0.15),
        "static, all layers": (quantize_static_int8(graph, windows), 0.3),
        "dynamic": (quantize_dynamic_int8(graph, kept), 0.15),
    }
    spreads = [
        np.sqrt(values.reshape(-1, values.shape[-1]).var(0).mean())
        for values in open_session(graph).run(None, {k: v.numpy() for k, v in inputs_of(model, 64, length).items()})
    ]
    for batch, samples in ((3, length), (1, MODELS[name][1][2])):
        inputs = {key: value.numpy() for key, value in inputs_of(model, batch, samples, seed=1).items()}
        expected = open_session(graph).run(None, inputs)
        for kind, (converted, most) in graphs.items():
            onnx.checker.check_model(converted, full_check=True)
            for a, b, spread in zip(expected, open_session(converted).run(None, inputs), spreads, strict=True):
                assert a.shape == b.shape and b.dtype == np.float32
                assert 0 < np.sqrt(np.square(a - b).mean()) / spread < most, (kind, batch)
