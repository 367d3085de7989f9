"""From a checkpoint to a folder with its ExecuTorch program (`model.pte`), for phones and other small devices.

    report = export_executorch("runs/uci_emg_200", "uci-pte", dtype="int8", calibration="prepared/uci_emg_200")

Its layers run in XNNPACK. In int8 the inputs of linear layers are quantized anew in every call, each token with its own
range: nothing has to be calibrated, it is as fast as fixed ranges, and closer to float32.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from export.calibration import windows_or_noise
from export.card import export_card, short_name
from export.checkpoint import Checkpoint, load_checkpoint
from export.errors import ExportError
from export.extras import need
from export.folder import check_out, in_the_making
from export.graph import output_names, prepare, sample_inputs, silenced
from export.measuring import BATCH_SIZES, measure_session
from export.report import write_report
from export.verification import tolerance_of, verify_session

if TYPE_CHECKING:
    from transformers.exporters import ExportedModel

    from export.executorch_session import ExecutorchSession

Dtype = Literal["fp32", "int8"]
Axis = Literal["batch", "time"]
FILE = "model.pte"
MOST_WINDOWS = max(BATCH_SIZES)
"""In a call, where "batch" is dynamic."""


@dataclass(frozen=True)
class _Shape:
    """Of the windows that a program takes.

    Attributes:
        samples: of the windows that it is verified with.
        longest: most samples, the same ones unless "time" is dynamic.
        dynamic: the axis that may differ from call to call, None for windows of one shape.
    """

    samples: int
    longest: int
    dynamic: Axis | None


def export_executorch(
    checkpoint: str,
    out: str | Path,
    dtype: Dtype = "fp32",
    *,
    dynamic: Axis | None = None,
    longest: int | None = None,
    calibration: str | Path | None = None,
    calibration_split: str = "train",
    limit: int = 512,
    agreement: float | None = None,
    measured: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model as an ExecuTorch program to a folder, which appears only if its outputs are those of PyTorch.

    Args:
        checkpoint: folder or Hub id of any model of the family.
        out: the folder: `model.pte`, `export.json` (what transformers' `ExportedModel` reads beside), the checkpoint's
            other files, a card, `report.json` and `report.md`.
        dtype: of the layers' arithmetic; inputs and outputs are float32 in any case.
        dynamic: axis of the input that may differ from call to call: "batch" up to 32 windows of one length, or "time"
            one window of up to `longest` samples; XNNPACK takes one such axis. By default neither: one window of one
            length.
        longest: most samples of a window where "time" is dynamic, by default four times those of the windows that the
            program is verified on.
        calibration: windows to verify on, as for `export.calibration.read_windows`; noise where there are none.
        calibration_split: of a prepared folder.
        limit: at most so many windows.
        agreement: least share of windows that int8 decides as PyTorch does, 0.99 by default.
        measured: whether latency is measured for the report.
        overwrite: replace another export in `out`.

    Returns:
        The content of `report.json`.

    Raises:
        ExportError: options that contradict each other, windows that do not suit the model (`CalibrationError`),
            outputs that differ (`VerificationError`), a model that XNNPACK cannot take, or `out` is taken.
        PredictionError: the checkpoint cannot be loaded.
        ImportError: packages of the extra `executorch` are missing.
    """
    _check(dtype, dynamic, longest)
    need("executorch", "torchao", extra="executorch")
    folder = check_out(out, overwrite)
    source = load_checkpoint(str(checkpoint))
    windows = windows_or_noise(calibration, source.extractor, source.model.config, calibration_split, limit)
    shape = _shape(source, windows.values.shape[2], dynamic, longest)
    program = _program(source, dtype, shape)
    with in_the_making(folder) as unfinished:
        source.save(unfinished)
        program.save_pretrained(unfinished)
        (unfinished / "README.md").write_text(_card(source, dtype, shape), encoding="utf-8")
        session = _open(unfinished, source, shape)
        verification = verify_session(
            source.model, session, windows, dtype, tolerance_of(dtype, agreement), runtime="executorch"
        )
        window = windows.values.shape[1:]
        path = unfinished / FILE
        measurement = measure_session(source.model, "executorch", session, path, window) if measured else None
        return write_report(
            unfinished,
            checkpoint=short_name(str(checkpoint)),
            task=source.task,
            dtype=dtype,
            verification=verification,
            measurement=measurement,
            settings={"backend": "xnnpack", **_settings(shape)},
            quantization={"method": "dynamic"} if dtype == "int8" else None,
            runtime="executorch",
        )


def _check(dtype: str, dynamic: str | None, longest: int | None) -> None:
    if dtype not in get_args(Dtype):
        raise ExportError(f"dtype={dtype!r}: unknown; use one of {', '.join(get_args(Dtype))}")
    if dynamic not in (None, *get_args(Axis)):
        raise ExportError(f"dynamic={dynamic!r}: unknown; use one of {', '.join(get_args(Axis))}, or none")
    if longest is not None and dynamic != "time":
        raise ExportError("longest: for dynamic='time'; leave it out")


def _shape(source: Checkpoint, samples: int, dynamic: Axis | None, longest: int | None) -> _Shape:
    if dynamic != "time":
        return _Shape(samples, samples, dynamic)
    least = 2 * samples  # the program is verified on longer windows as well
    longest = 2 * least if longest is None else longest
    config = source.model.config
    if longest < least:
        raise ExportError(
            f"longest={longest}: use at least {least}, twice the windows that are verified on, or give shorter windows"
        )
    if config.model_type == "tinymyo" and config.stem == "patches" and longest % config.patch_size:
        raise ExportError(f"longest={longest}: no multiple of the model's patch_size {config.patch_size}")
    return _Shape(samples, longest, dynamic)


def _settings(shape: _Shape) -> dict[str, Any]:
    if shape.dynamic == "time":
        return {"batch": 1, "samples": f"up to {shape.longest}"}
    return {"batch": f"up to {MOST_WINDOWS}" if shape.dynamic == "batch" else 1, "samples": shape.samples}


def _program(source: Checkpoint, dtype: str, shape: _Shape) -> ExportedModel:
    from transformers.exporters import ExecutorchConfig, ExecutorchExporter

    prepared = prepare(source.model)
    dynamic = () if shape.dynamic is None else (shape.dynamic,)
    # Memory is planned for what it is traced with.
    inputs = sample_inputs(prepared, dynamic, shape.longest)
    quantizer = None
    if dtype == "int8":
        from export.pt2e import pt2e_quantizer

        values = inputs["input_values"].numpy()  # no ranges are measured on it
        quantizer = pt2e_quantizer(prepared, values, dynamic=True, batch_size=len(values))
    config = ExecutorchConfig(dynamic_shapes=_dynamic_shapes(inputs, source, shape), quantizer=quantizer)
    try:
        with silenced():
            exported = ExecutorchExporter().export(prepared, inputs, config)
    except Exception as error:  # of the tracer or of XNNPACK, of many classes
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{source.name}: cannot become an ExecuTorch program ({reason})") from error
    exported.config = copy.deepcopy(source.model.config)  # not of the model that was prepared for tracing
    return exported


def _dynamic_shapes(inputs: dict[str, Any], source: Checkpoint, shape: _Shape) -> dict[str, dict[int, Any]]:
    from torch.export import Dim

    shapes: dict[str, dict[int, Any]] = {name: {} for name in inputs}
    if shape.dynamic == "batch":
        return {name: {0: Dim("batch", min=1, max=MOST_WINDOWS)} for name in inputs}
    if shape.dynamic == "time":
        shapes["input_values"][2] = Dim.DYNAMIC(max=shape.longest)
        if "bool_masked_pos" in inputs:
            config = source.model.config
            shapes["bool_masked_pos"][1] = Dim.DYNAMIC(max=config.num_channels * shape.longest // config.patch_size)
    return shapes


def _open(folder: Path, source: Checkpoint, shape: _Shape) -> ExecutorchSession:
    import torch

    from export.executorch_session import ExecutorchSession, Tensor

    axes = ("batch", source.model.config.num_channels, "time")
    sizes = (1, source.model.config.num_channels, shape.samples)
    inputs = [Tensor("input_values", tuple(a if a == shape.dynamic else n for a, n in zip(axes, sizes, strict=True)))]
    outputs = output_names(source.model)
    if outputs == ["reconstruction"]:
        inputs.append(Tensor("bool_masked_pos"))
    return ExecutorchSession(folder, inputs, outputs, torch.get_num_threads())


def _card(source: Checkpoint, dtype: str, shape: _Shape) -> str:
    config, extractor = source.model.config, source.extractor
    first = output_names(source.model)[0]
    hidden = ""
    if first == "reconstruction":
        tokens = config.num_channels * shape.samples // config.patch_size
        hidden = f", bool_masked_pos=torch.zeros(1, {tokens}, dtype=torch.bool)"
    takes = "; ".join(f"{name} {value}" for name, value in _settings(shape).items())
    use = [
        f"On windows of {config.num_channels} channels at {extractor.sampling_rate:.10g} Hz that are preprocessed as "
        f"`preprocessor_config.json` says, float32 (batch, channels, time): {takes}. On a computer, with executorch "
        "and tinymyo-hf:",
        "```python\nimport tinymyo_hf\nimport torch\nfrom transformers.exporters import ExportedModel\n\n"
        'program = ExportedModel.from_pretrained("PATH")\n'
        f"windows = torch.zeros(1, {config.num_channels}, {shape.samples})\n"
        f"outputs = program(input_values=windows{hidden}).{first}\n```",
        "On a device, the method `forward` of `model.pte` in the ExecuTorch runtime, built with XNNPACK.",
    ]
    return export_card(
        source.name,
        task=source.task,
        dtype=dtype,
        config=config,
        preprocessing=extractor,
        source_card=source.card or None,
        runtime="executorch",
        use=use,
    )
