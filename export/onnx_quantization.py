"""From an ONNX graph in float32 to int8, with onnxruntime's quantizers.

    kept = float_by_default(graph)
    quantized = quantize_static_int8(graph, windows, keep_float=kept)     # ranges measured on windows, then fixed
    quantized = quantize_dynamic_int8(graph, kept)                        # ranges measured anew in every call

Weights of int8 graphs are symmetric per output channel, inputs of layers uint8 (signed int8 is as fast and as exact).
What linear layers make, and all between layers, stays in float: quantized it would cost accuracy and save no time.
Weights have 7 bits: x86 processors without VNNI add two products in 16 bits, which 8 bits overflow, and would not
compute what was verified on another one. That costs 1 dB of noise and no time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from export.comparison import inputs_of
from export.errors import ExportError
from export.extras import need
from export.onnx_shapes import with_shapes

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession
    from onnxruntime.quantization.calibrate import TensorsData

CalibrationMethod = Literal["minmax", "percentile", "entropy"]
"""How the range of a tensor follows from its values: all of them, all but a thousandth of a percent, or those that keep
most of their distribution."""
PERCENTILE = 99.999
_MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Pad", "Slice", "Flatten", "Identity"}
_BINS = 2048
_ENTROPY_BINS = 512  # the time it takes grows with their square
STATIC_KINDS = ("MatMul", "Gemm", "Conv")
DYNAMIC_KINDS = ("MatMul",)
"""Operators with weights that are quantized; convolutions with ranges of their own in each call would be slower."""


def quantizable(model: onnx.ModelProto, kinds: Collection[str] = STATIC_KINDS) -> list[str]:
    """Names of the nodes with constant weights, in the order of the graph: what `keep_float` takes."""
    # Of products with a stack of matrices the quantizer would take scales along the wrong axis.
    stacks = {weight.name for weight in model.graph.initializer if len(weight.dims) > 2}
    weights = {weight.name for weight in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in kinds and node.input[1] in (weights if node.op_type == "Conv" else weights - stacks)
    ]


def float_by_default(model: onnx.ModelProto) -> list[str]:
    """Those of `quantizable` that cost much accuracy in int8 and save little time.

    Layers that read the samples: EMG has rare peaks many times its usual size, and a range that holds them leaves few
    steps for the rest; in a TinyMyo this one layer, a thousandth of the work, makes nine tenths of the error. Layers
    that make the outputs: no other one evens their errors out. Convolutions: their results have to be int8 as well. Of
    models of images only the layers that make the outputs: convolutions are most of their work.
    """
    first, last = _layers_of_samples(model), _layers_of_outputs(model)
    if model.graph.input[0].name == "pixel_values":
        return [name for name in quantizable(model) if name in last]
    kinds = {node.name: node.op_type for node in model.graph.node}
    return [name for name in quantizable(model) if name in first or name in last or kinds[name] == "Conv"]


def _layers_of_samples(model: onnx.ModelProto) -> set[str]:
    """Layers that read the input, at most reshaped."""
    layers, samples, found = set(quantizable(model)), {model.graph.input[0].name}, set()
    for node in model.graph.node:
        if node.input and node.input[0] in samples:
            if node.name in layers:
                found.add(node.name)
            elif node.op_type in _MOVING:
                samples.update(node.output)
    return found


def _layers_of_outputs(model: onnx.ModelProto) -> set[str]:
    """Layers that no other one comes behind."""
    layers, read_later, found = set(quantizable(model)), set(), set()
    for node in reversed(model.graph.node):
        is_read = not read_later.isdisjoint(node.output)
        if node.name in layers and not is_read:
            found.add(node.name)
        if node.name in layers or is_read:
            read_later.update(node.input)
    return found


def quantize_dynamic_int8(model: onnx.ModelProto, keep_float: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with int8 weights of its linear layers, whose inputs are quantized over the whole batch in each call: a
    result depends a little on the windows it is computed with. Convolutions stay in float, as they would be slower.

    Args:
        model: in float32; it is not changed.
        keep_float: nodes of `quantizable` to leave as they are.

    Raises:
        ExportError: `keep_float` names what is no such node, or leaves nothing to quantize.
    """
    need("onnx", "onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = _to_quantize(model, keep_float, DYNAMIC_KINDS)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = str(Path(folder, "quantized.onnx"))
        quantize_dynamic(
            with_shapes(model),
            path,
            op_types_to_quantize=list(DYNAMIC_KINDS),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return _finished(_load(path), model)


def quantize_static_int8(
    model: onnx.ModelProto,
    windows: np.ndarray,
    calibrate_method: CalibrationMethod = "minmax",
    keep_float: Collection[str] = (),
    batch_size: int = 32,
) -> onnx.ModelProto:
    """The graph with int8 weights, the inputs of whose layers are quantized with ranges measured on windows.

    Args:
        model: in float32; it is not changed.
        windows: float32 (windows, channels, time), preprocessed, of which the ranges are taken.
        calibrate_method: see `CalibrationMethod`.
        keep_float: nodes of `quantizable` to leave as they are.
        batch_size: windows run at a time; it changes nothing but memory with "minmax".

    Raises:
        ExportError: windows of another shape, an unknown method, or `keep_float` names what is no such node or leaves
            nothing to quantize.
    """
    return quantize_with_ranges(model, measure_ranges(model, windows, calibrate_method, batch_size), keep_float)


def measure_ranges(
    model: onnx.ModelProto,
    windows: np.ndarray,
    calibrate_method: CalibrationMethod = "minmax",
    batch_size: int = 32,
) -> TensorsData:
    """Ranges of all tensors that quantizing any nodes of `quantizable` needs, for `quantize_with_ranges`.

    Raises:
        ExportError: see `quantize_static_int8`.
    """
    need("onnx", "onnxruntime")
    from onnxruntime.quantization import calibrate

    symmetric = {"symmetric": False}
    kinds = {
        "minmax": (calibrate.MinMaxCalibrater, symmetric),
        "percentile": (calibrate.PercentileCalibrater, symmetric | {"percentile": PERCENTILE, "num_bins": _BINS}),
        # By default as many bins as quantized ones, which leaves nothing to choose from.
        "entropy": (calibrate.EntropyCalibrater, symmetric | {"num_bins": _ENTROPY_BINS, "num_quantized_bins": 128}),
    }
    if calibrate_method not in kinds:
        raise ExportError(f"calibrate_method={calibrate_method!r}: unknown; use one of {', '.join(kinds)}")
    calibrater_class, options = kinds[calibrate_method]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "model.onnx")
        _save(with_shapes(model), path)
        calibrater = calibrater_class(path, augmented_model_path=str(Path(folder, "augmented.onnx")), **options)
        tensors = _tensors_to_measure(model)
        types = {value.name: value for value in (*calibrater.model.graph.value_info, *calibrater.model.graph.input)}
        types |= {value.name: value for value in calibrater.model.graph.output}
        calibrater.select_tensors_to_calibrate = lambda _: (tensors, types)
        calibrater.augment_graph()
        calibrater.create_inference_session()
        # One at a time, as it keeps what it is given.
        for batch in batches_of(model, calibrater.infer_session, windows, batch_size):
            calibrater.collect_data(_Once(batch))
        return calibrater.compute_data()


def quantize_with_ranges(
    model: onnx.ModelProto, ranges: TensorsData, keep_float: Collection[str] = (), weight_bits: Literal[7, 8] = 7
) -> onnx.ModelProto:
    """As `quantize_static_int8`, with ranges measured before.

    Args:
        model, keep_float: as there.
        ranges: of `measure_ranges`, for that model.
        weight_bits: 8 for weights that were trained for them.

    Raises:
        ExportError: `keep_float` names what is no node of `quantizable`, or leaves nothing to quantize.
    """
    need("onnx", "onnxruntime")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import save_tensors_data

    nodes = _to_quantize(model, keep_float)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path, cache = Path(folder, "quantized.onnx"), Path(folder, "ranges.json")
        save_tensors_data(ranges, cache)
        quantize_static(
            with_shapes(model),
            str(path),
            calibration_cache_path=cache,
            calibrate_method=ranges.calibration_method,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(STATIC_KINDS),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=weight_bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        quantized = _load(path)
    _keep_other_consumers_in_float(quantized, set(nodes))
    return _finished(quantized, model)


def batches_of(
    model: onnx.ModelProto, session: InferenceSession, windows: np.ndarray, batch_size: int = 32
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of a graph, run by `session`, for windows (windows, channels, time), or (windows, images, ...), at most
    `batch_size` windows or images at a time.

    Raises:
        ExportError: windows of another shape than the graph takes, or none.
    """
    axes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    fits = len(windows.shape) == len(axes) and all(
        want in (0, have) for have, want in zip(windows.shape[1:], axes[1:], strict=True)
    )
    size = axes[0] or min(max(batch_size // math.prod(windows.shape[1:-3]), 1), len(windows))
    if not fits or not 0 < size <= len(windows):
        names = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
        wanted = ", ".join(str(size or name) for size, name in zip(axes[1:], names[1:], strict=True))
        raise ExportError(f"windows: must be (windows, {wanted}), at least {axes[0] or 1}, got {windows.shape}")
    reconstructed = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value  # samples of a patch
    stop = len(windows) // axes[0] * axes[0] if axes[0] else len(windows)
    for start in range(0, stop, size):
        values = np.ascontiguousarray(windows[start : start + size], dtype=np.float32)
        yield inputs_of(session, values, reconstructed)


class _Once:
    """A data reader of a single batch."""

    def __init__(self, batch: dict[str, np.ndarray]):
        self._batches = [batch]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._batches.pop() if self._batches else None


def _to_quantize(
    model: onnx.ModelProto, keep_float: Collection[str], kinds: Collection[str] = STATIC_KINDS
) -> list[str]:
    names = quantizable(model)
    if unknown := sorted(set(keep_float) - set(names)):
        raise ExportError(f"keep_float={unknown[0]!r}: no layer with weights; there are {', '.join(names)}")
    nodes = [name for name in quantizable(model, kinds) if name not in set(keep_float)]
    if not nodes:  # to the quantizers, an empty list would mean all
        there = ", ".join(quantizable(model, kinds)) or "no layer that can be"
        raise ExportError(f"keep_float: leaves nothing to quantize of {there}; leave at least one out, or export fp32")
    return nodes


def _tensors_to_measure(model: onnx.ModelProto) -> list[str]:
    """Inputs of layers, and outputs of convolutions, which onnxruntime computes in int8 from end to end only."""
    layers = set(quantizable(model))
    tensors: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in layers:
            tensors[node.input[0]] = None
            if node.op_type == "Conv":
                tensors[node.output[0]] = None
    return list(tensors)


def _keep_other_consumers_in_float(model: onnx.ModelProto, quantized: set[str]) -> None:
    """The quantizer gives a tensor's rounded values to all its consumers: residual sums and layers that are kept in
    float get the exact ones back. What a quantized convolution makes has no others."""
    convolved = {node.output[0] for node in model.graph.node if node.op_type == "Conv" and node.name in quantized}
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    exact = {
        node.output[0]: sources[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in sources
    }
    for node in model.graph.node:
        if node.name in quantized:
            continue
        for i, name in enumerate(node.input):
            if name in exact and exact[name] not in convolved:
                node.input[i] = exact[name]


def _finished(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """With the metadata of `source`, without traces of the quantizer, and with shapes, which onnxruntime needs in order
    to fuse what surrounds the layers."""
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    used = {node.domain for node in model.graph.node} | {""}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    return with_shapes(model)


def _save(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data")


def _load(path: str | Path) -> onnx.ModelProto:
    import onnx

    return onnx.load(str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The calibraters report on stdout, the quantizers recommend a step that is of no use here."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
