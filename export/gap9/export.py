"""From a checkpoint to a folder with its C for GAP9: quantized, planned, written, verified, reported.

report = export_gap9("runs/uci_emg_200", "uci_gap9", "prepared/uci_emg_200")
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.calibration import CalibrationError, CalibrationWindows, read_windows
from export.card import export_card, short_name
from export.checkpoint import Checkpoint, load_checkpoint, read_ranges
from export.comparison import VerificationError
from export.errors import ExportError
from export.extras import need
from export.folder import check_out, in_the_making
from export.gap9.assumptions import Assumptions
from export.gap9.card import how_to_use
from export.gap9.check import check_plan
from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.report import write_report
from export.gap9.schedule import Plan
from export.gap9.toolchain import TARGETS, require
from export.gap9.vectors import Vectors, make_vectors
from export.gap9.verify import verify
from export.held_out import held_out_windows
from export.int8.agreement import Agreement, compare
from export.int8.builder import outline
from export.int8.fixed_point import quantize_window
from export.int8.ir import build_graph, verify_graph
from export.int8.nodes import INPUT, Graph
from export.int8.program import Program
from export.int8.quantize import Quantized, quantize
from export.verification import Tolerance, tolerance_of

Say = Callable[[str], None]
_FLOAT_WINDOWS = 4
"""On which the float graph is compared with PyTorch, which needs no more: both compute the same, or they do not."""
_VECTORS = 4
"""Calibration windows among the test vectors, beside the extremes."""


def export_gap9(
    checkpoint: str,
    out: str | Path,
    calibration: str | Path,
    *,
    calibration_split: str = "train",
    limit: int = 256,
    channels: int | None = None,
    window: int | None = None,
    method: str = "auto",
    agreement: float | None = None,
    rv32: bool | None = None,
    assumptions: Assumptions | None = None,
    overwrite: bool = False,
    say: Say = lambda step: None,
) -> dict[str, Any]:
    """Write a model as C for GAP9 to a folder, which appears only if the C computes what it should.

    Args:
        checkpoint: folder or Hub id of a classifier or regression model of patches.
        out: the folder.
        calibration: windows that decide ranges, and the size of a window, as for `export.calibration.read_windows`.
            Integers are compared with floats on all windows of the split "test" of a folder, where it has one, else on
            these.
        calibration_split: of a prepared folder.
        limit: at most so many windows of calibration.
        channels, window: of the windows, in channels and samples, to be sure; an error where they are others.
        method: how ranges follow from values, as for `export.int8.quantize.quantize`.
        agreement: least share of windows that integers decide as floats do, 0.99 by default.
        rv32: whether the C is also run on an emulated RISC-V; by default where compiler and emulator are installed.
        assumptions: of the model of cost.
        overwrite: replace another export in `out`.
        say: is told each step as it begins.

    Returns:
        The content of `report.json`.

    Raises:
        ExportError: a model without integer kernels or that does not fit, windows that do not suit it
            (`CalibrationError`), integers that decide otherwise (`VerificationError`), C that computes something else,
            or `out` is taken.
        PredictionError: the checkpoint cannot be loaded.
    """
    tolerance = tolerance_of("int8", agreement)
    need("matplotlib")
    if rv32:
        require("rv32")
    folder = check_out(out, overwrite)
    source = load_checkpoint(str(checkpoint))
    windows = read_windows(calibration, source.extractor, source.model.config, calibration_split, limit)
    _check_size(windows, calibration, channels, window)
    say("building the graph and planning memory")
    graph = build_graph(source.model, *windows.values.shape[1:])
    plan = make_plan(outline(graph))  # what does not fit is known before the work begins
    verify_graph(graph, source.model, windows.values[:_FLOAT_WINDOWS])
    quantized = _quantize(source, graph, windows, method, say)
    program = quantized.program
    check_plan(program, plan)
    judged = held_out_windows(source, calibration, calibration_split, None, say) or windows
    accuracy = _accuracy(graph, program, judged, tolerance, say)
    say("running the integer reference on test vectors")
    scale = program.tensors[INPUT].scale
    vectors = make_vectors(program, quantize_window(judged.values[:: -(-len(judged) // _VECTORS)], scale))
    with in_the_making(folder) as unfinished:
        generate(program, plan, unfinished, vectors)
        source.save(unfinished)
        (unfinished / "README.md").write_text(_card(source, program), encoding="utf-8")
        verification = _verify(unfinished, program, plan, vectors, rv32, say)
        return write_report(
            unfinished,
            program,
            plan,
            checkpoint=short_name(str(checkpoint)),
            task=source.task,
            quantization=quantized.report.to_dict(),
            accuracy={judged.source: accuracy.to_dict()},
            verification=verification,
            assumptions=assumptions,
        )


def _check_size(windows: CalibrationWindows, source: str | Path, channels: int | None, window: int | None) -> None:
    found = windows.values.shape[1:]
    for option, wanted, size, unit in zip(
        ("channels", "window"), (channels, window), found, ("channels", "samples"), strict=True
    ):
        if wanted not in (None, size):
            raise CalibrationError(
                f"{option}={wanted}: the windows of {source} have {size} {unit}, and the C is for windows of one size; "
                f"leave {option} out, or give windows of {wanted} {unit}"
            )


def _quantize(source: Checkpoint, graph: Graph, windows: CalibrationWindows, method: str, say: Say) -> Quantized:
    say(f"quantizing on {len(windows):,} windows ({windows.source})")
    names = source.model.config.id2label
    return quantize(
        graph,
        windows.values,
        method,
        trained=None if source.ranges is None else read_ranges(source.ranges),
        labels=[names[index] for index in sorted(names)],
        say=say,
    )


def _accuracy(graph: Graph, program: Program, windows: CalibrationWindows, tolerance: Tolerance, say: Say) -> Agreement:
    """Integers beside floats.

    Raises:
        VerificationError: they are further apart than the tolerance.
    """
    say(f"comparing integers with floats on {len(windows):,} windows ({windows.source})")
    found = compare(graph, program, windows.values, windows.labels, say)
    told = _too_far(found, tolerance)
    if told is None:
        return found
    raise VerificationError(
        f"logits: integers {told}: calibrate on more windows, fine-tune with quantization in mind (as tinymyo train "
        "uci_emg_qat does), or take less with --agreement"
    )


def _too_far(found: Agreement, tolerance: Tolerance) -> str | None:
    """By how much integers miss the tolerance, where they do."""
    if found.top1 is not None:
        if tolerance.agreement is None or found.top1 >= tolerance.agreement:
            return None
        return f"decide as floats do in {found.top1:.2%} of the windows, less than {tolerance.agreement:.2%}"
    relative = 10 ** (-found.sqnr / 20)
    if tolerance.relative is None or relative <= tolerance.relative:
        return None
    return (
        f"differ from floats by {relative:.2%} of the output's standard deviation, more than {tolerance.relative:.2%}"
    )


def _card(source: Checkpoint, program: Program) -> str:
    return export_card(
        source.name,
        task=source.task,
        dtype="int8",
        config=source.model.config,
        preprocessing=source.extractor,
        source_card=source.card or None,
        runtime="gap9",
        use=how_to_use(program, source.extractor),
    )


def _verify(
    folder: Path, program: Program, plan: Plan, vectors: Vectors, rv32: bool | None, say: Say
) -> dict[str, Any]:
    """What was run, and what was not and why.

    Raises:
        ExportError: the C computes something else than the reference.
    """
    targets = [target for target in TARGETS if target != "rv32" or rv32 is not False]
    verification = verify(folder, program, plan, vectors, targets=targets, skip_missing=True, say=say)
    if verification.mismatches:
        step, count = next(iter(verification.by_step.items()))
        raise ExportError(f"{step}: the C differs from the integer reference in {count} elements; please report this")
    if verification.float_routines:
        file, routines = next(iter(verification.float_routines.items()))
        raise ExportError(f"{file}: calls {routines[0]}, a routine for floats; please report this")
    shutil.rmtree(folder / "build", ignore_errors=True)
    found = verification.to_dict()
    if rv32 is False:
        found["skipped"]["rv32"] = "not asked for"
    return found
