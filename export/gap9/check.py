"""Proves that a plan is sound, by looking at every byte and every transfer of it.

Nothing here knows how plans are made: lives of tensors, sizes of everything, and what the executors of `runtime/` do
are worked out again from the program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from export.gap9.check_regions import PlanCheckError, check_aligned, check_disjoint, demand
from export.gap9.check_tiles import check_tiles
from export.gap9.schedule import Buffer, Plan, Region, Slab
from export.int8.program import (
    TABLE_SIZE,
    Attention,
    DepthwiseConv,
    Head,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Program,
    Step,
)

__all__ = ["PlanCheckError", "check_plan"]


def check_plan(program: Program, plan: Plan) -> None:
    """Check a plan.

    - L2: every tensor and every step's parameters have their exact size, are there as long as they are needed, and
      share no byte with anything that is there at the same step
    - L3: the parameters fill `weights.bin` without gap or overlap
    - L1: regions of a step are disjoint and hold its tiles; the tiles cover the output exactly once; every transfer is
      legal and stays within its tensor and its region (`export.gap9.check_tiles`)
    - all are aligned, and within the budget

    Raises:
        PlanCheckError: something is not so; the message names it.
    """
    names = [step.name for step in program.steps]
    demand(len(set(names)) == len(names), "names of steps are not unique")
    demand(list(plan.steps) == names, f"steps: the plan has {list(plan.steps)}, the program {names}")
    sections = {step.name: expected for step in program.steps if (expected := _section_sizes(program, step))}
    demand(set(plan.slabs) == set(sections), f"slabs: of {sorted(set(plan.slabs) ^ set(sections))} in one only")
    _check_tensors(program, plan)
    for index, step in enumerate(program.steps):
        if step.name in plan.slabs:
            _check_slab(step.name, index, plan.slabs[step.name], sections[step.name])
    demand(list(plan.slabs) == list(sections), "slabs: not in the order of the steps, in which they are waited for")
    _check_l2(program, plan)
    _check_l3(plan)
    for step in program.steps:
        check_tiles(program, step, plan.steps[step.name], plan.budget.l1)
    used = max(region.end for step in plan.steps.values() for region in step.l1.values())
    demand(used <= plan.l1_size <= plan.budget.l1, f"l1_size={plan.l1_size}: tiles need {used} of {plan.budget.l1}")


def _check_tensors(program: Program, plan: Plan) -> None:
    """Sizes, and lives: from the step that writes a tensor first to the last that uses it."""
    needed: dict[str, tuple[int, int]] = {"input_values": (0, 0)}
    for index, step in enumerate(program.steps):
        reads = [step.input]
        if isinstance(step, Attention):
            reads.append(step.values)
        if isinstance(step, Linear) and step.residual:
            reads.append(step.output)
        for name in reads:
            demand(name in needed, f"{step.name}: reads {name}, which no step before it writes")
        for name in (*reads, step.output):
            needed[name] = needed.get(name, (index, index))[0], index
    demand(set(plan.tensors) == set(needed), f"tensors: {sorted(set(plan.tensors) ^ set(needed))} in one only")
    for name, (first, last) in needed.items():
        buffer = plan.tensors[name]
        expected = _tensor_bytes(program, name)
        demand(buffer.size == expected, f"{name}: has {buffer.size} bytes in L2, and needs {expected}")
        covered = buffer.first <= first and buffer.last >= last
        demand(covered, f"{name}: lives from step {buffer.first} to {buffer.last}, is used from {first} to {last}")


def _tensor_bytes(program: Program, name: str) -> int:
    tensor = program.tensors[name]
    shape = list(tensor.shape)
    if any(isinstance(step, Attention) and step.values == name for step in program.steps):
        shape[-1] = -(-shape[-1] // 4) * 4
    return math.prod(shape) * np.dtype(tensor.dtype).itemsize


def _section_sizes(program: Program, step: Step) -> dict[str, int]:
    """Bytes of a step's parameters."""
    if isinstance(step, Attention):
        return {"exponentials": 256 * 2}
    if isinstance(step, LayerNorm):
        width = program.tensors[step.input].shape[-1]
        return {"weights": 2 * width, "bias": 4 * width}
    if isinstance(step, Head):
        outputs, depth = step.weight.shape
        return {"weights": outputs * depth, "bias": 4 * outputs}
    if not isinstance(step, PatchEmbedding | Linear | DepthwiseConv):
        return {}
    outputs, depth = step.weight.shape
    sizes = {"weights": outputs * depth * (2 if isinstance(step, PatchEmbedding) else 1), "channels": 3 * 4 * outputs}
    if isinstance(step, DepthwiseConv):
        sizes["table"] = 2 * TABLE_SIZE
    elif isinstance(step, Linear):
        if step.table is not None:
            sizes["table"] = TABLE_SIZE
        if step.rotation is not None:
            sizes["rotation"] = program.tokens * 2 * (step.head_size // 2) * 2
    return sizes


def _check_slab(name: str, index: int, slab: Slab, expected: Mapping[str, int]) -> None:
    buffer = slab.buffer
    demand(buffer.first <= index, f"{name}: its parameters are loaded before step {buffer.first}, after they are used")
    demand(buffer.last >= index, f"{name}: its parameters live until step {buffer.last}, and are used at {index}")
    sizes = {section: region.size for section, region in slab.sections.items()}
    demand(sizes == expected, f"{name}: sections of parameters are {sizes}, and should be {expected}")
    check_aligned(slab.sections.items(), f"{name}: section ")
    check_disjoint(slab.sections.items(), f"{name}: sections ")
    end = max(region.end for region in slab.sections.values())
    demand(end <= buffer.size, f"{name}: sections end at {end}, behind its {buffer.size} bytes")


def _check_l2(program: Program, plan: Plan) -> None:
    everything: list[tuple[str, Buffer]] = list(plan.tensors.items())
    everything += [(f"parameters of {name}", slab.buffer) for name, slab in plan.slabs.items()]
    check_aligned(everything, "L2: ")
    for name, buffer in everything:
        exists = 0 <= buffer.first <= buffer.last < len(program.steps)
        demand(exists, f"L2: {name} lives from step {buffer.first} to {buffer.last} of {len(program.steps)}")
    for index, step in enumerate(program.steps):
        live = [(name, buffer) for name, buffer in everything if buffer.first <= index <= buffer.last]
        check_disjoint(live, f"L2 at {step.name}: ")
    end, room = max(buffer.end for _, buffer in everything), plan.budget.l2 - plan.budget.code
    demand(end <= plan.l2_size <= room, f"l2_size={plan.l2_size}: buffers end at {end} of {room} bytes beside code")


def _check_l3(plan: Plan) -> None:
    pieces = [(name, Region(slab.l3, slab.buffer.size)) for name, slab in plan.slabs.items()]
    check_aligned(pieces, "L3: ")
    end = 0
    for name, piece in sorted(pieces, key=lambda item: item[1].offset):
        demand(piece.offset == end, f"L3: parameters of {name} begin at {piece.offset}, those before them end at {end}")
        end = piece.end
    demand(end == plan.l3_size <= plan.budget.l3, f"l3_size={plan.l3_size}: slabs end at {end} of {plan.budget.l3}")
