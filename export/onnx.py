"""From a checkpoint to a folder with its ONNX graph: traced, converted, verified, reported.

report = export_onnx("runs/uci_emg_200", "uci-int8", dtype="int8", calibration="prepared/uci_emg_200")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from export.calibration import CalibrationWindows, windows_or_noise
from export.card import export_card, short_name
from export.checkpoint import Checkpoint, load_checkpoint
from export.errors import ExportError
from export.extras import need
from export.folder import check_out, in_the_making
from export.graph import OPSET, Dimension, trace, usual_axes
from export.held_out import held_out_windows
from export.image_graph import image_shape, is_of_images
from export.image_windows import drawn
from export.metadata import describe
from export.onnx_int8 import Converted, Int8, check_calibration, check_settings, quantize
from export.verification import Tolerance, tolerance_of, verify

if TYPE_CHECKING:
    import onnx

Dtype = Literal["fp32", "fp16", "int8"]
FILE = "model.onnx"


def export_onnx(
    checkpoint: str,
    out: str | Path,
    dtype: Dtype = "fp32",
    *,
    opset: int = OPSET,
    dynamic: Sequence[Dimension] | None = None,
    calibration: str | Path | None = None,
    calibration_split: str = "train",
    evaluation: str | Path | None = None,
    limit: int = 512,
    int8: Int8 | None = None,
    agreement: float | None = None,
    measured: bool = True,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Write a model as ONNX to a folder, which appears only if its outputs are those of PyTorch.

    Args:
        checkpoint: folder or Hub id of any model of the family.
        out: the folder: `model.onnx` (its metadata hold all that is needed to run it), the checkpoint's other files, a
            card, `report.json` and `report.md`, and after a sweep `sensitivity.png`.
        dtype: of the graph; inputs and outputs are float32 in any case.
        opset, dynamic: as for `export.graph.trace`. Where "time" is not dynamic, windows are as long as those of the
            feature extractor, as they are in any case for models of images.
        calibration: windows to calibrate and verify on, as for `export.calibration.read_windows`; noise where there
            are none, which says nothing of ranges and accuracy: int8 with fixed ranges needs real ones.
        calibration_split: of a prepared folder.
        evaluation: further windows that the graph is compared with PyTorch on, all of them (of a folder the split
            "test"), whatever comes out; by default those of `calibration`, where it is a folder with such a split that
            it is not calibrated on.
        limit: at most so many windows of calibration; for models of images so many images, of 32 windows at least, of
            calibration and of further windows.
        int8: how int8 is made, for that dtype.
        agreement: least share of windows that fp16 or int8 decide as PyTorch does, 0.99 by default.
        measured: whether latency and memory are measured for the report.
        overwrite: replace another export in `out`.
        say: is told each step as it begins.

    Returns:
        The content of `report.json`.

    Raises:
        ExportError: options that contradict each other, windows that do not suit the model (`CalibrationError`),
            outputs that differ (`VerificationError`), or `out` is taken.
        PredictionError: the checkpoint cannot be loaded.
        ImportError: packages of the extra `export` are missing.
    """
    from export.measuring import measure
    from export.report import SENSITIVITY, write_report

    need("onnx", "onnxruntime", "onnxscript")
    folder = check_out(out, overwrite)
    _check(dtype, int8)
    int8 = int8 or Int8()
    source = load_checkpoint(str(checkpoint))
    if dtype == "int8":
        check_calibration(source, int8, calibration)
    extractor, config = source.extractor, source.model.config
    dynamic = usual_axes(source.model) if dynamic is None else dynamic
    images = is_of_images(config)
    fixed = None if "time" in dynamic else getattr(extractor, "window_length", None)
    windows = windows_or_noise(calibration, extractor, config, calibration_split, limit, fixed)
    if fixed not in (None, windows.values.shape[2]):
        raise ExportError(
            f"{calibration}: windows of {windows.values.shape[2]} samples, but the model's are of {fixed}, to which "
            "--dynamic without time fixes them; give such windows, or leave 'time' dynamic"
        )
    held_out = held_out_windows(source, calibration, calibration_split, evaluation, say)
    if images:
        shape = image_shape(source.model, dynamic)
        windows = drawn(windows, extractor, shape, limit)
        held_out = None if held_out is None else drawn(held_out, extractor, shape, limit)
    tolerance = tolerance_of(dtype, agreement)
    length = None if images or "time" in dynamic else windows.values.shape[2]
    axes = {"dynamic": dynamic, "opset": opset, "length": length}
    say("tracing the model")
    graph = trace(source.model, **axes)
    if dtype != "fp32":
        say(f"converting the graph to {dtype}")
    converted = _convert(source, graph, dtype, int8, windows, tolerance, axes)
    with in_the_making(folder) as unfinished:
        source.save(unfinished)
        _write(converted.proto, unfinished, source, dtype)
        path = unfinished / FILE
        say(f"comparing with PyTorch on {len(windows):,} windows ({windows.source})")
        verification = verify(source.model, path, windows, dtype, tolerance)
        second = measurement = None
        if held_out is not None:
            say(f"comparing with PyTorch on {len(held_out):,} windows ({held_out.source})")
            second = verify(source.model, path, held_out, dtype, Tolerance())
        if measured:
            say("measuring latency and memory")
            measurement = measure(source.model, path, windows.values.shape[1:], converted.others)
        if converted.sweep is not None:
            converted.sweep.plot(unfinished / SENSITIVITY, converted.quantization["float_layers"])
        return write_report(
            unfinished,
            checkpoint=short_name(str(checkpoint)),
            task=source.task,
            dtype=dtype,
            verification=verification,
            held_out=second,
            measurement=measurement,
            settings={"opset": opset, "dynamic": list(dynamic)},
            quantization=converted.quantization,
        )


def _check(dtype: str, int8: Int8 | None) -> None:
    if dtype not in get_args(Dtype):
        raise ExportError(f"dtype={dtype!r}: unknown; use one of {', '.join(get_args(Dtype))}")
    if dtype != "int8" and int8 is not None:
        raise ExportError(f"int8: for dtype='int8', not {dtype!r}; leave it out")
    if int8 is not None:
        check_settings(int8)


def _convert(
    source: Checkpoint,
    graph: onnx.ModelProto,
    dtype: str,
    int8: Int8,
    windows: CalibrationWindows,
    tolerance: Tolerance,
    axes: dict[str, Any],
) -> Converted:
    if dtype == "fp32":
        return Converted(graph)
    if dtype == "fp16":
        from export.onnx_float16 import to_float16

        return Converted(to_float16(graph), others={"onnx fp32": graph})
    converted = quantize(source, graph, int8, windows, tolerance, axes)
    converted.others["onnx fp32"] = graph
    return converted


def _write(proto: onnx.ModelProto, folder: Path, source: Checkpoint, dtype: str) -> None:
    """The graph as a single file, with its metadata, and the card."""
    import onnx

    card = export_card(
        source.name,
        task=source.task,
        dtype=dtype,
        config=source.model.config,
        preprocessing=source.extractor,
        source_card=source.card or None,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    describe(proto, folder, source.task, dtype, card)
    try:
        onnx.save_model(proto, str(folder / FILE))
    except ValueError as error:  # of protobuf, above 2 GiB
        raise ExportError(f"{FILE}: more than 2 GiB, which a single file cannot hold ({error})") from error
