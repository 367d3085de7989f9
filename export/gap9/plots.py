"""Pictures of a report: memory over the steps, and where the cycles go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.gap9.assumptions import NOTE
from export.gap9.cost import Cost, StepCost
from export.gap9.plan import timeline
from export.gap9.schedule import KIB, Plan
from export.int8.program import Program

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RESIDUAL = "hidden_states"
_PARTS = {
    "compute": ("computing", "tab:blue"),
    "dma": ("transfers that computing does not hide", "tab:orange"),
    "stall": ("waiting for external RAM", "tab:red"),
    "overhead": ("starting kernels and transfers", "tab:gray"),
}


def plot_memory(path: str | os.PathLike, program: Program, plan: Plan) -> None:
    """Draw what L2 and L1 hold while each step runs, beside their budgets, as a .png."""
    figure = _figure(9, 6.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    rows = timeline(plan, program)
    edges = [step - 0.5 for step in range(len(rows) + 1)]
    stream = plan.tensors[_RESIDUAL]
    residual = [stream.size if stream.first <= step <= stream.last else 0 for step in range(len(rows))]
    kinds = {
        ("code and constants (estimate)", "lightgray"): [plan.budget.code] * len(rows),
        ("residual stream, int16", "tab:purple"): residual,
        ("other tensors", "tab:blue"): [row["tensors"] - size for row, size in zip(rows, residual, strict=True)],
        ("parameters, loaded from L3", "tab:orange"): [row["slabs"] for row in rows],
    }
    below = [0.0] * len(rows)
    for (label, color), sizes in kinds.items():
        above = [low + size / KIB for low, size in zip(below, sizes, strict=True)]
        upper.stairs(above, edges, baseline=below, fill=True, color=color, label=label)
        below = above
    top = (plan.budget.code + plan.l2_size) / KIB
    upper.axhline(top, color="black", linestyle=":", label=f"end of the arena: {top:,.0f} KiB with code")
    _budget(upper, plan.budget.l2, "L2")
    tiles = [row["l1"] / KIB for row in rows]
    lower.stairs(tiles, edges, fill=True, color="tab:green", label="tiles in L1, twice for double buffering")
    _budget(lower, plan.budget.l1, "L1")
    _mark_layers(lower, program)
    lower.set(xlim=(edges[0], edges[-1]), xlabel="transformer layer")
    for axes in (upper, lower):
        axes.grid(axis="x", which="minor", alpha=0.4)
    entries = [axes.get_legend_handles_labels() for axes in (upper, lower)]
    handles, labels = ([*first, *second] for first, second in zip(*entries, strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    upper.set_title(f"Memory of {program.channels} channels x {program.samples} samples")
    _save(figure, path)


def plot_cycles(path: str | os.PathLike, cost: Cost) -> None:
    """Draw the cycles of each layer, and those of each kind of step, by what they are spent on, as a .png."""
    layers, kinds = grouped(cost.steps, layer_of), grouped(cost.steps, kind_of)
    figure = _figure(10, 1.6 + 0.3 * max(len(layers), len(kinds)))
    for axes, groups, title in zip(figure.subplots(1, 2), (layers, kinds), ("by layer", "by step"), strict=True):
        _bars(axes, groups, cost.cycles)
        axes.set_title(title, fontsize="medium")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(f"{cost.cycles / 1e6:,.1f} M cycles, {NOTE}", fontsize="medium")
    _save(figure, path)


def layer_of(step: StepCost) -> str:
    """ "layers.0" of its steps, and what is before and behind the layers by its own name."""
    return ".".join(step.name.split(".")[:2])


def kind_of(step: StepCost) -> str:
    """The same of all layers: "mlp.fc1"."""
    parts = step.name.split(".")
    return ".".join(parts[2:] if parts[0] == "layers" else parts)


def grouped(steps: Iterable[StepCost], name_of: Callable[[StepCost], str]) -> dict[str, list[StepCost]]:
    """Steps by a name, in the order in which they first run."""
    groups: dict[str, list[StepCost]] = {}
    for step in steps:
        groups.setdefault(name_of(step), []).append(step)
    return groups


def _bars(axes: Axes, groups: Mapping[str, Sequence[StepCost]], total: float) -> None:
    left = [0.0] * len(groups)
    for part, (label, color) in _PARTS.items():
        widths = [sum(getattr(step, part) for step in steps) / 1e6 for steps in groups.values()]
        axes.barh(range(len(groups)), widths, left=left, color=color, label=label)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    for row, end in enumerate(left):
        axes.annotate(f" {1e8 * end / total:.1f} %", (end, row), va="center", fontsize="x-small")
    axes.set_yticks(range(len(groups)), list(groups), fontsize="small")
    axes.set(xlabel="million cycles", ylim=(len(groups) - 0.4, -0.6), xlim=(0, 1.17 * max(left)))
    axes.grid(axis="x", alpha=0.3)


def _mark_layers(axes: Axes, program: Program) -> None:
    """Numbers of layers where they run, and lines between them."""
    steps: dict[str, list[int]] = {}
    for index, step in enumerate(program.steps):
        if step.name.startswith("layers."):
            steps.setdefault(step.name.split(".")[1], []).append(index)
    axes.set_xticks([(runs[0] + runs[-1]) / 2 for runs in steps.values()], list(steps))
    axes.set_xticks([edge for runs in steps.values() for edge in (runs[0] - 0.5, runs[-1] + 0.5)], minor=True)
    axes.tick_params(axis="x", which="both", length=0)


def _budget(axes: Axes, size: int, memory: str) -> None:
    axes.axhline(size / KIB, color="tab:red", linestyle="--", label=f"budget of {memory}: {size / KIB:,.0f} KiB")
    axes.set(ylabel=f"{memory}, KiB", ylim=(0, 1.05 * size / KIB))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: str | os.PathLike) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(Path(path))
