"""Ranges of activations that quantization-aware training found, in place of those measured on windows.

The training leaves them beside the checkpoint, in `activation_ranges.json`; a graph quantized with them computes what
the training, and its evaluation, simulated.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.checkpoint import read_ranges
from export.errors import ExportError
from export.onnx_quantization import quantizable

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import TensorsData


def trained_ranges(model: onnx.ModelProto, path: str | Path) -> TensorsData:
    """What `export.onnx_quantization.quantize_with_ranges` needs (with 8 bits), from the file of a checkpoint.

    Args:
        model: the float32 graph of that checkpoint.
        path: of its `activation_ranges.json`: layer -> "input", and "output" of a convolution -> [lowest, highest].

    Raises:
        ExportError: the file cannot be read, or lacks a layer of the graph.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    stored = read_ranges(Path(path))
    layers = set(quantizable(model))
    ranges = {}
    for node in model.graph.node:
        if node.name in layers:
            kinds = {"input": node.input[0]} | ({"output": node.output[0]} if node.op_type == "Conv" else {})
            for kind, tensor in kinds.items():
                try:
                    low, high = (np.float32(bound) for bound in stored[node.name][kind])
                except (KeyError, TypeError, ValueError):
                    raise ExportError(
                        f"{path}: has no range of the {kind} of {node.name}, which belongs to the model: copy the "
                        "checkpoint again, or remove the file to take ranges from calibration windows"
                    ) from None
                ranges[tensor] = (np.array(low), np.array(high))
    return TensorsData(CalibrationMethod.MinMax, ranges)
