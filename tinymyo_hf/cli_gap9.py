"""`tinymyo export gap9`; `tinymyo_hf.cli` registers it."""

from pathlib import Path
from typing import Annotated

import typer

from tinymyo_hf.cli_export import CHECKPOINT, OUT, CalibrationSplit, Limit, Overwrite, agreed, say


def gap9(
    context: typer.Context,
    checkpoint: Annotated[str, CHECKPOINT],
    out: Annotated[Path, OUT],
    calibration: Annotated[
        str,
        typer.Option(
            help="Windows that decide ranges, and the size of a window: a folder made by prepare, or .npy or .npz "
            "(windows, channels, time), preprocessed."
        ),
    ],
    calibration_split: CalibrationSplit = "train",
    limit: Limit = 256,
    channels: Annotated[int | None, typer.Option(min=1, help="Of the windows, to be sure that they are these.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Samples of the windows, to be sure likewise.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="How ranges follow from values: minmax, percentile_99.999, percentile_99.99, percentile_99.9, mse, or "
            "auto, which measures what is best for each kind of tensor."
        ),
    ] = "auto",
    agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least share of windows that integers decide as floats do; by default 0.99."),
    ] = None,
    rv32: Annotated[
        bool | None,
        typer.Option(
            help="Run the C on an emulated 32-bit RISC-V as well; by default where its compiler and QEMU are installed."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as integer-only C for GAP9, verified to the bit against its integer reference."""
    from export.gap9.export import export_gap9
    from export.gap9.render import render_summary

    report = export_gap9(
        checkpoint,
        out,
        calibration,
        calibration_split=calibration_split,
        limit=limit,
        channels=channels,
        window=window,
        method=method,
        agreement=agreement,
        rv32=rv32,
        overwrite=overwrite or agreed(out),
        say=say,
    )
    typer.echo(f"{render_summary(report)}\n\n{out} is ready: make -C {out} check, and see {out / 'report.md'}")
