"""A step as the C structure of `runtime/steps.h` that describes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from export.gap9.geometry import round_up
from export.gap9.names import address, parameters
from export.gap9.schedule import Plan, StepPlan
from export.int8.program import (
    Attention,
    DepthwiseConv,
    Head,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Pool,
    Program,
    Step,
    Tensor,
)

Fields = dict[str, Any]
"""Initializers by name of the member: numbers and expressions of C, tuples of them, or members of a nested one."""

NOWHERE = "NOWHERE"


def structure_of(step: Step) -> str:
    """`linear`, of `linear_step_t` and `run_linear`."""
    return _STRUCTURES[type(step)][0]


def fields_of(program: Program, plan: Plan, step: Step) -> Fields:
    """The structure's members, in its order."""
    _, l1, build = _STRUCTURES[type(step)]
    schedule = plan.steps[step.name]
    fields = build(_Context(program, plan, step, schedule), step)
    fields["l1"] = {member.rstrip("2"): _region(schedule, member) for member in l1.split()}
    return fields


def comment_of(program: Program, plan: Plan, step: Step) -> list[str]:
    """Lines that say what a step computes."""
    result = _described(program.tensors[step.output])
    operands = [_described(program.tensors[step.input])]
    how = ""
    if isinstance(step, Attention):
        operands.append(_described(program.tensors[step.values]))
    elif hasattr(step, "weight") and step.weight.ndim == 2:
        operands.append(f"weights {step.weight.dtype} {step.weight.shape}")
    if isinstance(step, Linear):
        how = _manner(step)
    elif isinstance(step, LayerNorm) and step.channels > 1:
        how = ", channels joined"
    return [f"{step.name}: {' x '.join(operands)}", f"-> {result}{how}. {_tiles(plan.steps[step.name])}"]


@dataclass(frozen=True)
class _Context:
    program: Program
    plan: Plan
    step: Step
    schedule: StepPlan

    @property
    def source(self) -> Tensor:
        return self.program.tensors[self.step.input]

    @property
    def result(self) -> Tensor:
        return self.program.tensors[self.step.output]

    @property
    def ends(self) -> Fields:
        return {"input": address(self.step.input), "output": address(self.step.output)}

    def sections(self, *names: str) -> Fields:
        return {name: self.section(name) for name in names}

    def section(self, name: str) -> str:
        sections = self.plan.slabs[self.step.name].sections
        return f"{parameters(self.step.name)} + {sections[name].offset}" if name in sections else NOWHERE


def _region(schedule: StepPlan, member: str) -> int | str | tuple[int | str, ...]:
    """Offset in L1; of a pair ("input2") both."""
    names = (member[:-1] + "0", member[:-1] + "1") if member.endswith("2") else (member,)
    offsets = tuple(schedule.l1[name].offset if name in schedule.l1 else NOWHERE for name in names)
    return offsets if len(offsets) > 1 else offsets[0]


def _patch_embedding(at: _Context, step: PatchEmbedding) -> Fields:
    outputs, depth = step.weight.shape
    return {
        **at.ends,
        **at.sections("weights", "channels"),
        "rows": at.result.shape[0],
        "depth": depth,
        "outputs": outputs,
        "row_block": at.schedule.row_block,
    }


def _layer_norm(at: _Context, step: LayerNorm) -> Fields:
    rows, width = at.source.shape
    return {
        **at.ends,
        **at.sections("weights", "bias"),
        "epsilon": f"INT64_C({step.epsilon})",
        "rows": rows,
        "width": width,
        "shift": step.shift,
        "row_block": at.schedule.row_block,
        "patches": rows // step.channels if step.channels > 1 else 0,
    }


def _linear(at: _Context, step: Linear) -> Fields:
    outputs, depth = step.weight.shape
    return {
        **at.ends,
        **at.sections("weights", "channels", "table", "rotation"),
        "rows": at.source.shape[0],
        "depth": depth,
        "outputs": outputs,
        "row_block": at.schedule.row_block,
        "output_block": at.schedule.output_block,
        "layout": step.layout.upper(),
        "output_stride": _row_stride(step, at.result),
        "residual": int(step.residual),
    }


def _row_stride(step: Linear, result: Tensor) -> int:
    if step.layout == "transposed":
        return round_up(result.shape[-1], 4)
    return result.shape[-1] * (2 if step.residual else 1)


def _attention(at: _Context, step: Attention) -> Fields:
    double_heads, tokens, head_size = at.source.shape
    return {
        "queries_keys": address(step.input),
        "values": address(step.values),
        "output": address(step.output),
        **at.sections("exponentials"),
        "tokens": tokens,
        "heads": double_heads // 2,
        "head_size": head_size,
        "value_stride": round_up(tokens, 4),
        "row_block": at.schedule.row_block,
        "key_block": at.schedule.key_block,
        "score_multiplier": int(step.scores.multiplier),
        "score_shift": int(step.scores.shift),
        "reciprocal": f"{step.reciprocal}u",
        "shift": step.shift,
    }


def _pool(at: _Context, step: Pool) -> Fields:
    return {
        **at.ends,
        "outer": step.outer,
        "count": step.count,
        "inner": step.inner,
        "row_block": at.schedule.row_block,
        "multiplier": int(step.requant.multiplier),
        "shift": int(step.requant.shift),
        "limit": step.limit,
    }


def _depthwise(at: _Context, step: DepthwiseConv) -> Fields:
    rows, width = at.result.shape
    return {
        **at.ends,
        **at.sections("weights", "channels", "table"),
        "rows": rows,
        "width": width,
        "padding": step.padding,
    }


def _head(at: _Context, step: Head) -> Fields:
    rows, outputs = at.result.shape
    return {
        **at.ends,
        **at.sections("weights", "bias"),
        "rows": rows,
        "depth": step.weight.shape[1],
        "outputs": outputs,
        "output_block": at.schedule.output_block,
    }


_STRUCTURES: dict[type[Step], tuple[str, str, Callable[..., Fields]]] = {
    PatchEmbedding: ("patch_embedding", "input2 weights channels output2", _patch_embedding),
    LayerNorm: ("layer_norm", "input2 weights bias output2", _layer_norm),
    Linear: ("linear", "input2 weights2 channels2 output2 rotation2 table", _linear),
    Attention: ("attention", "query2 block2 scores reciprocals sums output2 exponentials", _attention),
    Pool: ("pool", "input2 sums output", _pool),
    DepthwiseConv: ("depthwise", "input weights channels table output", _depthwise),
    Head: ("head", "input weights2 bias2 output2", _head),
}
"""Name of the structure, its members in L1 ("2": a pair), and what makes the others."""


def _manner(step: Linear) -> str:
    ways = {
        ", through a table": step.table is not None,
        ", added to what is there": step.residual,
        ", rotated by position": step.rotation is not None,
        ", transposed": step.layout == "transposed",
    }
    return "".join(text for text, applies in ways.items() if applies)


def _tiles(schedule: StepPlan) -> str:
    sizes = {"rows": schedule.row_block, "outputs": schedule.output_block, "keys": schedule.key_block}
    return f"Tiles of {' x '.join(f'{size} {name}' for name, size in sizes.items() if size)}."


def _described(tensor: Tensor) -> str:
    text = f"{tensor.dtype} {tuple(tensor.shape)}"
    if isinstance(tensor.scale, float):
        text += f", scale {tensor.scale:.4g}"
    return text + (f", zero point {tensor.zero_point}" if tensor.zero_point else "")
