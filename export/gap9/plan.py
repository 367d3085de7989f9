"""Where everything of a program lies in the memories of GAP9, and how its steps are cut into tiles.

    plan = make_plan(program)
    check_plan(program, plan)          # export.gap9.check: proves it, knowing nothing of this module

L3 holds all parameters (`weights.bin`). L2 holds the tensors, each while it is needed, and the parameters of a step
from when they start to be loaded. L1 holds the tiles of the step that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from export.gap9.arena import Request, live_bytes, peak, place
from export.gap9.geometry import rows_of, tensor_bytes, tensors_of
from export.gap9.loading import delay, issue_times
from export.gap9.schedule import Budget, Buffer, Plan, PlanError, Region, Slab, StepPlan
from export.gap9.slabs import WORD, layout, slab_bytes, slab_sections
from export.gap9.tiles import modelled_cycles, plan_tiles, smallest_sizes, total_size
from export.int8.program import Linear, Program, Step

_PARAMETERS = " (parameters)"
_FIX = "use shorter windows, fewer channels or a smaller model"
_NAMED = 4
"""Buffers that the message of an error names."""


def make_plan(program: Program, budget: Budget | None = None) -> Plan:
    """Plan a program.

    Args:
        budget: of the memories; by default what GAP9 has.

    Raises:
        PlanError: it does not fit; the message says what needs the most, and by how much that is too much.
    """
    budget = budget or Budget()
    _check_words(program)
    steps = _plan_steps(program, budget)
    sections = {step.name: slab_sections(step) for step in program.steps}
    sections = {name: parts for name, parts in sections.items() if parts}
    sizes = {name: len(slab_bytes(parts)) for name, parts in sections.items()}
    starts, l3_size = _line_up(sizes)
    if l3_size > budget.l3:
        raise PlanError(_message("L3", "all parameters need", l3_size, budget.l3, sizes, "use a smaller model"))
    cycles = [modelled_cycles(program, step, steps[step.name]) for step in program.steps]
    buffers = _place_l2(program, sizes, cycles, budget)
    slabs = {name: Slab(starts[name], buffers[name + _PARAMETERS], layout(parts)) for name, parts in sections.items()}
    tensors = {name: buffers[name] for name in _lives(program)}
    l1_size = max(region.end for step in steps.values() for region in step.l1.values())
    l2_size = max(buffer.end for buffer in buffers.values())
    return Plan(budget, tensors, slabs, steps, l1_size, l2_size, l3_size)


def plan_json(plan: Plan) -> dict[str, Any]:
    """All of a plan, of what JSON knows; regions as [offset, size]."""
    return {
        "budget": {"l1": plan.budget.l1, "l2": plan.budget.l2, "code": plan.budget.code, "l3": plan.budget.l3},
        "l1_size": plan.l1_size,
        "l2_size": plan.l2_size,
        "l3_size": plan.l3_size,
        "tensors": {name: _buffer_json(buffer) for name, buffer in plan.tensors.items()},
        "slabs": {
            name: {"l3": slab.l3, **_buffer_json(slab.buffer), "sections": _regions_json(slab.sections)}
            for name, slab in plan.slabs.items()
        },
        "steps": {
            name: {
                "row_block": step.row_block,
                "output_block": step.output_block,
                "key_block": step.key_block,
                "l1": _regions_json(step.l1),
                "read": step.transfers.read,
                "written": step.transfers.written,
                "transfers": step.transfers.count,
            }
            for name, step in plan.steps.items()
        },
    }


def timeline(plan: Plan, program: Program) -> list[dict[str, Any]]:
    """Bytes in use while each step runs, in order: `step` (its name), in L2 `tensors` and `slabs`, and `l1`."""
    return [
        {
            "step": step.name,
            "tensors": _live(plan.tensors.values(), index),
            "slabs": _live((slab.buffer for slab in plan.slabs.values()), index),
            "l1": max(region.end for region in plan.steps[step.name].l1.values()),
        }
        for index, step in enumerate(program.steps)
    ]


def _check_words(program: Program) -> None:
    for step in program.steps:
        if isinstance(step, Linear):
            shape = step.weight.shape
            if any(size % WORD for size in (*shape, step.head_size)):
                what = f"weights {shape}" + (f" for heads of {step.head_size}" if step.head_size else "")
                raise PlanError(
                    f"{step.name}: the kernels do not take {what}; use a model whose widths are multiples of 4"
                )


def _plan_steps(program: Program, budget: Budget) -> dict[str, StepPlan]:
    """Steps of the same kind and sizes, such as those of all layers, have the same plan."""
    known: dict[tuple, StepPlan] = {}
    plans: dict[str, StepPlan] = {}
    for step in program.steps:
        key = _kind(program, step)
        if key not in known:
            plan = plan_tiles(program, step, budget)
            if plan is None:
                sizes = smallest_sizes(program, step)
                what = f"the smallest tiles of {step.name} need"
                raise PlanError(_message("L1", what, total_size(sizes), budget.l1, sizes, _FIX))
            known[key] = plan
        plans[step.name] = known[key]
    return plans


def _kind(program: Program, step: Step) -> tuple:
    """What the tiles of a step depend on."""
    shapes = tuple(program.tensors[name].shape for name in tensors_of(step))
    kind = (type(step), shapes, rows_of(program, step), getattr(step, "channels", 0))
    if isinstance(step, Linear):
        kind += (step.table is None, step.residual, step.layout, step.head_size, step.rotation is None)
    return kind


def _line_up(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Offsets one after the other, and the end."""
    starts: dict[str, int] = {}
    end = 0
    for name, size in sizes.items():
        starts[name] = end
        end += size
    return starts, end


def _lives(program: Program) -> dict[str, tuple[int, int]]:
    """First and last step of every tensor: from the one that writes it first to the last one that uses it."""
    lives: dict[str, tuple[int, int]] = {}
    for index, step in enumerate(program.steps):
        for name in tensors_of(step):
            lives[name] = lives.get(name, (index, index))[0], index
    return lives


def _place_l2(program: Program, slabs: Mapping[str, int], cycles: list[float], budget: Budget) -> dict[str, Buffer]:
    """Buffers by name of the tensor, or of the step and `_PARAMETERS`; loads start as early as is good and fits."""
    lives = _lives(program)
    tensors = [Request(name, tensor_bytes(program, name), *life) for name, life in lives.items()]
    numbers = {index: step.name for index, step in enumerate(program.steps) if step.name in slabs}
    limit = budget.l2 - budget.code
    _check_l2(program, tensors, {index: (name, slabs[name]) for index, name in numbers.items()}, limit)

    issued = issue_times(cycles, {index: slabs[name] for index, name in numbers.items()})
    last = len(program.steps) - 1
    while True:
        requests = tensors + [
            Request(name + _PARAMETERS, slabs[name], issued[index], index) for index, name in numbers.items()
        ]
        totals = live_bytes(requests, len(program.steps))
        full = next((step for step, total in enumerate(totals) if total > limit), None)
        if full is not None:
            delay(issued, full, full)
            continue
        offsets = place(requests, enough=limit)
        if peak(requests, offsets) <= limit:
            break
        top = max(requests, key=lambda request: offsets[request.name] + request.size)
        if not delay(issued, top.first, top.last) and not delay(issued, 0, last):
            sizes = {request.name: request.size for request in requests if request.meets(top)}
            what = "tensors and parameters, as they were arranged, need"
            raise PlanError(_message("L2", what, peak(requests, offsets), limit, sizes, _FIX))
    offsets = place(requests, enough=max(totals))
    return {
        request.name: Buffer(offsets[request.name], request.size, request.first, request.last) for request in requests
    }


def _check_l2(program: Program, tensors: list[Request], slabs: Mapping[int, tuple[str, int]], limit: int) -> None:
    """Raises a PlanError where a step does not fit even if its parameters are loaded right before it."""
    requests = tensors + [Request(name + _PARAMETERS, size, index, index) for index, (name, size) in slabs.items()]
    totals = live_bytes(requests, len(program.steps))
    most = max(totals)
    if most > limit:
        index = totals.index(most)
        sizes = {request.name: request.size for request in requests if request.first <= index <= request.last}
        raise PlanError(_message("L2", f"{program.steps[index].name} needs", most, limit, sizes, _FIX))


def _message(memory: str, what: str, needed: int, limit: int, sizes: Mapping[str, int], fix: str) -> str:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_NAMED]
    listed = ", ".join(f"{name} {size:,}" for name, size in largest)
    return f"{memory}: {what} {needed:,} bytes, {needed - limit:,} more than there are ({limit:,}): {listed}; {fix}"


def _live(buffers: Iterable[Buffer], step: int) -> int:
    return sum(buffer.size for buffer in buffers if buffer.first <= step <= buffer.last)


def _buffer_json(buffer: Buffer) -> dict[str, int]:
    return {"offset": buffer.offset, "size": buffer.size, "first": buffer.first, "last": buffer.last}


def _regions_json(regions: Mapping[str, Region]) -> dict[str, list[int]]:
    return {name: [region.offset, region.size] for name, region in regions.items()}
