"""How long a program takes on GAP9, and how much energy: modelled on public figures, not run on GAP9.

    cost = model_cost(program, plan)
    print(cost.cycles, cost.seconds, cost.energy_mj)

A step is a loop over tiles with two buffers: while one tile is computed the next is loaded and the last one stored, so
that a tile takes the longer of both; the first load and the last store are waited for, and every store of a residual
stream. Parameters come from L3 while earlier steps run; what is not there when its step begins is waited for. Every
figure is a field of `Assumptions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from export.gap9.assumptions import Assumptions
from export.gap9.schedule import Plan
from export.gap9.work import busy_cycles, count_macs
from export.int8.program import Program


@dataclass(frozen=True)
class StepCost:
    """Of one step, in cycles of the cluster unless said otherwise.

    Attributes:
        name, kind: of the step and of its class.
        macs: multiply-accumulate operations.
        compute: of the core that has most to do.
        dma: transfers between L2 and L1 that computing does not hide.
        stall: waiting for parameters from L3.
        overhead: starting kernels and transfers.
        l1_bytes: moved between L2 and L1, both ways.
        l3_bytes: of parameters.
    """

    name: str
    kind: str
    macs: int
    compute: float
    dma: float
    stall: float
    overhead: float
    l1_bytes: int
    l3_bytes: int

    @property
    def cycles(self) -> float:
        return self.compute + self.dma + self.stall + self.overhead


@dataclass(frozen=True)
class Cost:
    """Of one window.

    Attributes:
        steps: in order.
        assumptions: that they follow from.
    """

    steps: tuple[StepCost, ...]
    assumptions: Assumptions

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)

    @property
    def cycles(self) -> float:
        return sum(step.cycles for step in self.steps)

    @property
    def seconds(self) -> float:
        return self.cycles / self.assumptions.clock_hz

    @property
    def energy_mj(self) -> float:
        """At the power of the assumptions, whatever the cores do."""
        return self.seconds * self.assumptions.power_mw

    def macs_by_part(self) -> dict[str, int]:
        """Of "layers" (transformer layers), "patch_embedding" and "head" (all that follows the last layer norm)."""
        parts = {"patch_embedding": 0, "layers": 0, "head": 0}
        for step in self.steps:
            part = step.name.split(".")[0]
            parts[part if part in parts else "head"] += step.macs
        return parts


def model_cost(program: Program, plan: Plan, assumptions: Assumptions | None = None) -> Cost:
    """Model what one window costs.

    Args:
        program: the integer program.
        plan: of the program.
        assumptions: by default those of the class.
    """
    figures = assumptions or Assumptions()
    macs = count_macs(program)
    loads = _Loads(program, plan, figures)
    now, steps = 0.0, []
    for index, step in enumerate(program.steps):
        stall = loads.issue(index, now).wait(step.name, now)
        busy = busy_cycles(step, program, plan.steps[step.name], figures)
        transfers, slab = plan.steps[step.name].transfers, plan.slabs.get(step.name)
        cost = StepCost(
            name=step.name,
            kind=type(step).__name__,
            macs=macs[step.name],
            compute=busy.compute,
            dma=busy.dma,
            stall=stall,
            overhead=busy.overhead,
            l1_bytes=transfers.read + transfers.written,
            l3_bytes=slab.buffer.size if slab else 0,
        )
        now += cost.cycles
        steps.append(cost)
    return Cost(tuple(steps), figures)


def sensitivity(program: Program, plan: Plan, assumptions: Assumptions | None = None) -> list[dict[str, Any]]:
    """What comes out if figures that nobody has measured on the chip are others: rows of `name`, `cycles`, `seconds`,
    `energy_mj`."""
    figures = assumptions or Assumptions()
    slower = tuple((depth, 0.8 * rate) for depth, rate in figures.gemm_rates)
    variants = {
        "as assumed": figures,
        **{
            f"external RAM at {rate} MB/s": replace(figures, l3_bytes_per_second=1e6 * rate) for rate in (100, 150, 200)
        },
        "matrix products 20 % slower": replace(figures, gemm_rates=slower),
        "softmax, layer norm and activations twice as fast": replace(
            figures,
            softmax=figures.softmax / 2,
            layer_norm=figures.layer_norm / 2,
            activation=figures.activation / 2,
        ),
        "power 30 % higher, as more of each core works": replace(figures, power_mw=1.3 * figures.power_mw),
        "starting kernels and transfers twice as slow": replace(
            figures, section=2 * figures.section, dma_setup=2 * figures.dma_setup, l3_setup=2 * figures.l3_setup
        ),
    }
    costs = {name: model_cost(program, plan, variant) for name, variant in variants.items()}
    return [
        {"name": name, "cycles": cost.cycles, "seconds": cost.seconds, "energy_mj": cost.energy_mj}
        for name, cost in costs.items()
    ]


class _Loads:
    """Loads of parameters from L3, one after the other, each from the step that its place in L2 is free at."""

    def __init__(self, program: Program, plan: Plan, figures: Assumptions):
        self.figures = figures
        self.waiting = [
            (name, plan.slabs[name]) for name in (step.name for step in program.steps) if name in plan.slabs
        ]
        self.free = 0.0
        self.ready: dict[str, float] = {}

    def issue(self, index: int, now: float) -> _Loads:
        """Those that start before the step of this index."""
        for name, slab in self.waiting:
            if slab.buffer.first == index:
                transfer = self.figures.l3_setup + slab.buffer.size / self.figures.l3_bytes
                self.free = self.ready[name] = max(now, self.free) + transfer
        return self

    def wait(self, name: str, now: float) -> float:
        """Cycles until the parameters of a step are there."""
        return max(0.0, self.ready.get(name, now) - now)
