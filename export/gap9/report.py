"""The report of a GAP9 export: `report.json`, `report.md`, `memory.png` and `cycles.png`.

Every figure of time and energy in it is modelled on public figures; none was measured on GAP9.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.gap9.assumptions import NOTE, Assumptions
from export.gap9.cost import Cost, model_cost, sensitivity
from export.gap9.plan import plan_json
from export.gap9.plots import plot_cycles, plot_memory
from export.gap9.render import render_report
from export.gap9.schedule import Plan
from export.int8.program import Program
from tinymyo_hf.prediction_output import replacing

CYCLES, MEMORY = "cycles.png", "memory.png"
CLOCK = 370e6
PUBLISHED = {
    "source": "published for TinyMyo on GAP9, 8 channels x 1000 samples",
    "seconds": 0.785,
    "energy_mj": 44.91,
    "power_mw": 57.18,
    "clock_hz": CLOCK,
    "cycles": 290.5e6,
}
TARGET = {"source": "of this export, 8 channels x 1000 samples", "seconds": 0.45, "energy_mj": 25.0}


def write_report(
    folder: str | os.PathLike,
    program: Program,
    plan: Plan,
    *,
    checkpoint: str,
    task: str,
    quantization: Mapping[str, Any],
    accuracy: Mapping[str, Any],
    verification: Mapping[str, Any],
    assumptions: Assumptions | None = None,
) -> dict[str, Any]:
    """Write the report and its pictures, and return the content of `report.json`.

    Args:
        folder: of the export, there already. What it holds is listed as the files of the export.
        program, plan: exported.
        checkpoint: what was exported, by a name that may be shown.
        task: "emg-classification" or "emg-regression".
        quantization: `export.int8.quantize.Report.to_dict()`.
        accuracy: name of the windows -> `export.int8.agreement.Agreement.to_dict()`.
        verification: what was run and what was not, `export.gap9.verify.Verification.to_dict()`.
        assumptions: of the cost.
    """
    figures = assumptions or Assumptions()
    cost = model_cost(program, plan, figures)
    report = {
        **_headline(model_cost(program, plan, replace(figures, clock_hz=CLOCK)), plan, verification),
        "note": NOTE,
        "runtime": "gap9",
        "checkpoint": checkpoint,
        "task": task,
        "dtype": "int8",
        "window": {"channels": program.channels, "samples": program.samples, "tokens": program.tokens},
        "input_scale": float(program.tensors["input_values"].scale),
        "labels": list(program.labels),
        "macs_by_part": cost.macs_by_part(),
        "clock_hz": figures.clock_hz,
        "modelled_seconds": cost.seconds,
        "published": PUBLISHED,
        "target": TARGET,
        "accuracy": dict(accuracy),
        "verification": dict(verification),
        "quantization": dict(quantization),
        "steps": _steps(cost, verification),
        "sensitivity": sensitivity(program, plan, figures),
        "assumptions": figures.rows(),
        "plan": plan_json(plan),
    }
    plot_memory(Path(folder, MEMORY), program, plan)
    plot_cycles(Path(folder, CYCLES), cost)
    report["files"] = sorted({*_files(Path(folder)), "report.json", "report.md"})
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    report = json.loads(text)
    with replacing(Path(folder, "report.json"), "w") as file:
        file.write(f"{text}\n")
    with replacing(Path(folder, "report.md"), "w") as file:
        file.write(render_report(report))
    return report


def _headline(cost: Cost, plan: Plan, verification: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that everything else explains; the cost is that at the published clock."""
    return {
        "macs": cost.macs,
        "modelled_cycles": round(cost.cycles),
        "modelled_seconds_at_370mhz": cost.seconds,
        "modelled_energy_mj": cost.energy_mj,
        "l1_peak_bytes": plan.l1_size,
        "l2_peak_bytes": plan.l2_size + plan.budget.code,
        "l3_bytes": plan.l3_size,
        "mismatches": verification.get("mismatches"),
    }


def _steps(cost: Cost, verification: Mapping[str, Any]) -> list[dict[str, Any]]:
    instructions = verification.get("instructions") or {}
    return [
        {
            "name": step.name,
            "kind": step.kind,
            "macs": step.macs,
            "cycles": round(step.cycles),
            "compute": round(step.compute),
            "transfers_not_hidden": round(step.dma),
            "waiting_for_l3": round(step.stall),
            "overhead": round(step.overhead),
            "bytes_l2_l1": step.l1_bytes,
            "bytes_l3_l2": step.l3_bytes,
            "instructions_rv32": instructions.get(step.name),
        }
        for step in cost.steps
    ]


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
