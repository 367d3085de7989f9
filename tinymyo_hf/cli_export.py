"""`tinymyo export onnx` and `tinymyo export executorch`; `tinymyo_hf.cli` registers them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

CHECKPOINT = typer.Argument(help="Folder or Hub id of a model.")
OUT = typer.Argument(help="Folder to make.")


class Precision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class MobilePrecision(StrEnum):
    fp32 = "fp32"
    int8 = "int8"


class Method(StrEnum):
    static = "static"
    dynamic = "dynamic"
    pt2e = "pt2e"


class Ranges(StrEnum):
    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"


Calibration = Annotated[
    str | None,
    typer.Option(
        help="Windows that the model is calibrated and verified on: a folder made by prepare, or .npy or .npz "
        "(windows, channels, time), preprocessed. Needed for int8; otherwise noise."
    ),
]
CalibrationSplit = Annotated[str, typer.Option(help="Split of such a folder.")]
Limit = Annotated[int, typer.Option(min=32, help="At most so many windows (or images), spread over all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another export in OUT.")]
Measure = Annotated[bool, typer.Option(help="Measure latency and memory for the report.")]


def onnx(
    context: typer.Context,
    checkpoint: Annotated[str, CHECKPOINT],
    out: Annotated[Path, OUT],
    dtype: Annotated[Precision, typer.Option(help="Precision of the graph.")] = Precision.fp32,
    opset: Annotated[int, typer.Option(help="Of the ONNX operators, 18 to 23.")] = 20,
    dynamic: Annotated[
        str | None,
        typer.Option(
            help="Axes that may differ from call to call: some of batch,time,channels, by default batch,time; of "
            "models of images batch, and images where their mean is taken."
        ),
    ] = None,
    calibration: Calibration = None,
    calibration_split: CalibrationSplit = "train",
    evaluation: Annotated[
        str | None,
        typer.Option(
            help="Windows that the export is compared with PyTorch on beside; by default the split test of the folder "
            "of --calibration."
        ),
    ] = None,
    limit: Limit = 512,
    int8_method: Annotated[
        Method | None,
        typer.Option(
            help="static (default): ranges of activations from calibration; dynamic: from every input anew; pt2e: by "
            "torchao."
        ),
    ] = None,
    calibrate_method: Annotated[
        Ranges | None, typer.Option(help="How int8's static ranges are found; by default minmax.")
    ] = None,
    keep_float: Annotated[
        str | None,
        typer.Option(
            help="Layers that int8 leaves in float: auto (default: as many of the most sensitive as --agreement takes, "
            "by a sweep), none, or names: a,b."
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Measure how sensitive each layer is to int8, in any case.")
    ] = False,
    agreement: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Least share of windows that fp16 or int8 decide as PyTorch does; by default 0.99."
        ),
    ] = None,
    measure: Measure = True,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as ONNX, verified against PyTorch, with all that is needed to run it."""
    from export.errors import ExportError
    from export.onnx import Int8, export_onnx

    given = {
        "method": None if int8_method is None else int8_method.value,
        "calibrate_method": None if calibrate_method is None else calibrate_method.value,
        "keep_float": None if keep_float is None else _layers(keep_float),
        "sweep": sweep or None,
    }
    of_int8 = {name: value for name, value in given.items() if value is not None}
    if of_int8 and dtype != Precision.int8:
        options = {"method": "int8-method", "calibrate_method": "calibrate-method", "keep_float": "keep-float"}
        name = next(iter(of_int8))
        raise ExportError(f"--{options.get(name, name)}: for --dtype int8; leave it out")
    report = export_onnx(
        checkpoint,
        out,
        dtype=dtype.value,
        opset=opset,
        dynamic=None if dynamic is None else [axis.strip() for axis in dynamic.split(",") if axis.strip()],
        calibration=calibration,
        calibration_split=calibration_split,
        evaluation=evaluation,
        limit=limit,
        int8=Int8(**of_int8) if dtype == Precision.int8 else None,
        agreement=agreement,
        measured=measure,
        overwrite=overwrite or agreed(out),
        say=say,
    )
    typer.echo(_told(report, out))


def executorch(
    context: typer.Context,
    checkpoint: Annotated[str, CHECKPOINT],
    out: Annotated[Path, OUT],
    dtype: Annotated[MobilePrecision, typer.Option(help="Precision of the layers.")] = MobilePrecision.fp32,
    longest: Annotated[
        int | None,
        typer.Option(
            help="Windows may have any length up to so many samples; by default all are as long as those that the "
            "program is verified on."
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Windows that the program is verified on: a folder made by prepare, or .npy or .npz (windows, "
            "channels, time), preprocessed; otherwise noise."
        ),
    ] = None,
    calibration_split: CalibrationSplit = "train",
    limit: Limit = 512,
    agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least share of windows that int8 decides as PyTorch does; by default 0.99."),
    ] = None,
    measure: Measure = True,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as an ExecuTorch program for phones (XNNPACK), verified against PyTorch."""
    from export.executorch import export_executorch
    from export.report import render_report

    report = export_executorch(
        checkpoint,
        out,
        dtype=dtype.value,
        longest=longest,
        calibration=calibration,
        calibration_split=calibration_split,
        limit=limit,
        agreement=agreement,
        measured=measure,
        overwrite=overwrite or agreed(out),
        say=say,
    )
    typer.echo(f"{render_report(report)}\n{out / 'model.pte'} is ready")


def say(step: str) -> None:
    """Tell the user what is going on."""
    typer.echo(f"{step} ...", err=True)


def _layers(keep_float: str) -> str | list[str]:
    if keep_float == "auto":
        return keep_float
    return [] if keep_float == "none" else [name.strip() for name in keep_float.split(",") if name.strip()]


def agreed(out: Path) -> bool:
    """Whether the user wants an export that is there replaced; asked only at a terminal."""
    import sys

    from export.folder import is_export

    return is_export(out) and sys.stdin.isatty() and typer.confirm(f"{out} holds an export already. Replace it?")


def _told(report: dict, out: Path) -> str:
    from export.report import render_report

    use = f": tinymyo predict {out} FILE" if report["task"].startswith("emg-") else ""
    return f"{render_report(report)}\n{out} is ready{use}"
