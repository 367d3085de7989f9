"""An ONNX graph in int8, by the method and with the layers in float that were asked for, or that it takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from export.calibration import CalibrationWindows
from export.checkpoint import Checkpoint
from export.comparison import kind_of
from export.errors import ExportError
from export.extras import need
from export.image_graph import is_of_images
from export.onnx_quantization import (
    DYNAMIC_KINDS,
    STATIC_KINDS,
    CalibrationMethod,
    float_by_default,
    measure_ranges,
    quantizable,
    quantize_dynamic_int8,
    quantize_with_ranges,
)
from export.onnx_sensitivity import Quantize, Sweep, choose_float_layers, output_error, suffices, sweep_layers
from export.trained_ranges import trained_ranges
from export.verification import Tolerance

if TYPE_CHECKING:
    import onnx

Method = Literal["static", "dynamic", "pt2e"]
SWEEP_WINDOWS = 128
"""Of calibration, that the sweep over layers runs on: as many graphs as layers are measured on each."""


@dataclass(frozen=True)
class Int8:
    """How a graph becomes int8.

    Attributes:
        method: "static" (ranges of activations from calibration), "dynamic" (from every input anew), or "pt2e" (by
            torchao before tracing; static, with the smallest and the largest value).
        calibrate_method: of "static": "minmax", "percentile" or "entropy" of the windows of calibration; None takes the
            ranges of quantization-aware training where the checkpoint has them, else "minmax".
        keep_float: names of layers that stay in float, or "auto": the first and last ones and convolutions (of models
            of images only the last ones; none where the checkpoint was trained for int8), and where that does not keep
            the tolerance as many of the most sensitive ones as it takes.
        sweep: measure how sensitive each layer is, whether or not it takes that.
    """

    method: Method = "static"
    calibrate_method: CalibrationMethod | None = None
    keep_float: Sequence[str] | Literal["auto"] = "auto"
    sweep: bool = False


@dataclass
class Converted:
    """A graph and how it came about.

    Attributes:
        proto: the graph.
        quantization: of int8: method, ranges, layers in float, for the report.
        sweep: where there was one.
        others: further graphs of the model, to time beside.
    """

    proto: onnx.ModelProto
    quantization: dict[str, Any] | None = None
    sweep: Sweep | None = None
    others: dict[str, onnx.ModelProto] = field(default_factory=dict)


def check_settings(int8: Int8) -> None:
    """Raise `ExportError` for settings that are unknown or contradict each other, `ModuleNotFoundError` for those that
    need torchao where it is missing."""
    if int8.method not in get_args(Method):
        raise ExportError(f"int8.method={int8.method!r}: unknown; use one of {', '.join(get_args(Method))}")
    if int8.method != "static" and int8.calibrate_method is not None:
        raise ExportError(f"calibrate_method: for the method static, not {int8.method}; leave it out")
    if int8.method == "pt2e" and (int8.keep_float != "auto" or int8.sweep):
        raise ExportError("the method pt2e keeps the default layers in float; leave keep_float and sweep out")
    if int8.method == "pt2e":
        need("torchao", extra="pt2e")


def check_calibration(source: Checkpoint, int8: Int8, calibration: str | Path | None) -> None:
    """Raise `ExportError` where ranges are to be measured, and there is nothing to measure them on, or for a method
    that models of images do not have."""
    if int8.method == "pt2e" and is_of_images(source.model.config):
        raise ExportError("int8.method='pt2e': for models of signals; use static or dynamic")
    if calibration is not None or int8.method == "dynamic" or _ranges_are_trained(source, int8):
        return
    raise ExportError(
        "calibration: int8 needs real windows, to know the ranges of its values; give a folder made by `tinymyo "
        "prepare` or an .npy or .npz file of windows, or the method dynamic (--int8-method dynamic)"
    )


def _ranges_are_trained(source: Checkpoint, int8: Int8) -> bool:
    return int8.method == "static" and int8.calibrate_method is None and source.ranges is not None


def quantize(
    source: Checkpoint,
    graph: onnx.ModelProto,
    int8: Int8,
    windows: CalibrationWindows,
    tolerance: Tolerance,
    axes: dict[str, Any],
) -> Converted:
    """The graph of a checkpoint in int8.

    Args:
        graph: in float32.
        windows: to measure ranges and the need for layers in float on.
        tolerance: that `keep_float="auto"` is to reach.
        axes: arguments of `export.graph.trace` that the graph was traced with.

    Raises:
        ExportError: layers that are none of the graph, or a tolerance that cannot be reached.
    """
    if int8.method != "pt2e":
        return _quantized(source, graph, int8, windows, tolerance)
    from export.pt2e import quantize_pt2e

    kept = float_by_default(graph)
    return Converted(
        quantize_pt2e(source.model, windows.values, kept, **axes), {"method": "pt2e", "float_layers": kept}
    )


def _quantized(
    source: Checkpoint, graph: onnx.ModelProto, int8: Int8, windows: CalibrationWindows, tolerance: Tolerance
) -> Converted:
    """By onnxruntime."""
    kinds = DYNAMIC_KINDS if int8.method == "dynamic" else STATIC_KINDS
    quantize_but, how = _quantizer(source, graph, int8, windows)
    if int8.keep_float != "auto":
        kept = list(int8.keep_float)
    elif _ranges_are_trained(source, int8):
        kept = []
    else:
        kept = [name for name in float_by_default(graph) if name in quantizable(graph, kinds)]
    proto, sweep = quantize_but(kept), None
    kind = kind_of(graph.graph.output[0].name, source.model)
    enough = suffices(output_error(graph, proto, windows.values, kind), tolerance)
    if int8.sweep or (int8.keep_float == "auto" and not enough):
        inputs = windows.values.shape
        images = math.prod(inputs[1:-3])  # of each window; of windows of signals nothing
        some = windows.values[:: -(-inputs[0] * images // SWEEP_WINDOWS)]
        sweep = sweep_layers(graph, quantize_but, some, kind, kinds)
    if int8.keep_float == "auto" and not enough:
        kept = choose_float_layers(graph, quantize_but, windows.values, sweep, tolerance)
        proto = quantize_but(kept)
    return Converted(proto, how | {"float_layers": kept}, sweep)


def _quantizer(
    source: Checkpoint, graph: onnx.ModelProto, int8: Int8, windows: CalibrationWindows
) -> tuple[Quantize, dict[str, Any]]:
    """What makes the int8 graph given the layers to leave in float, with ranges found once; and how, for the report."""
    if int8.method == "dynamic":
        return functools.partial(quantize_dynamic_int8, graph), {"method": "dynamic"}
    if _ranges_are_trained(source, int8):
        ranges = trained_ranges(graph, source.ranges)
        trained = functools.partial(quantize_with_ranges, graph, ranges, weight_bits=8)  # as in training
        return trained, {"method": "static", "ranges": "in quantization-aware training"}
    found = int8.calibrate_method or "minmax"
    ranges = measure_ranges(graph, windows.values, found)
    return functools.partial(quantize_with_ranges, graph, ranges), {"method": "static", "ranges": found}
