"""What a step of a program does: its multiply-accumulate operations, the tiles that the cores compute, and what both
computing and moving them take once the parameters of the step are in L2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch

from export.gap9.assumptions import Assumptions
from export.gap9.geometry import rows_of
from export.gap9.schedule import StepPlan
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
)

_BLOCK = 2, 4
"""Rows and outputs that products compute at once, and deal out to the cores."""


@dataclass(frozen=True)
class Tile:
    """Tiles that are alike.

    Attributes:
        count: how many of them there are.
        cycles: of the cores, for one.
        sections: kernels that are started for one.
    """

    count: int
    cycles: float
    sections: int = 1


@dataclass(frozen=True)
class Busy:
    """Cycles of a step whose parameters are there.

    Attributes:
        compute: of the core that has most to do.
        dma: transfers between L2 and L1 that computing does not hide.
        overhead: starting kernels and transfers.
    """

    compute: float
    dma: float
    overhead: float

    @property
    def total(self) -> float:
        return self.compute + self.dma + self.overhead


def busy_cycles(step: Step, program: Program, plan: StepPlan, figures: Assumptions) -> Busy:
    """What a step takes, as a plan cuts it: of every tile the longer of computing it and of moving others meanwhile."""
    # The residual stream of the next tile goes to where the last one is stored from, so that its store is waited for.
    waited = plan.transfers.written if isinstance(step, Linear) and step.residual else 0
    tiles = tiles_of(step, program, plan, figures)
    count = sum(tile.count for tile in tiles)
    sections = sum(tile.count * tile.sections for tile in tiles)
    moves, stores = (
        size / figures.dma_bytes / count for size in (plan.transfers.read + plan.transfers.written, waited)
    )
    beside = (moves - stores) * (count - 1) / count  # on average; the first load and the last store run beside nothing
    return Busy(
        compute=sum(tile.count * tile.cycles for tile in tiles),
        dma=moves + stores * (count - 1) + sum(tile.count * max(0.0, beside - tile.cycles) for tile in tiles),
        overhead=sections * figures.section + plan.transfers.count * figures.dma_setup,
    )


def count_macs(program: Program) -> dict[str, int]:
    """Multiply-accumulate operations by step, as `tinymyo_hf.count_macs` counts them: matrix products, convolutions and
    both products of attention. 0 of the others."""
    return {step.name: _macs_of(step, program) for step in program.steps}


def _macs_of(step: Step, program: Program) -> int:
    if isinstance(step, Attention):
        return 2 * program.tokens**2 * program.hidden_size
    if isinstance(step, PatchEmbedding | Linear | DepthwiseConv | Head):
        outputs, depth = step.weight.shape
        return rows_of(program, step) * outputs * depth
    return 0


@singledispatch
def tiles_of(step: Step, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    """The tiles of a step, as a plan cuts it, with what the slowest core spends on each."""
    raise TypeError(type(step).__name__)


@tiles_of.register
def _(step: PatchEmbedding, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    outputs, depth = step.weight.shape
    output = figures.product(depth, figures.int16_factor) + figures.requantization
    return [
        Tile(count, _outputs(rows, outputs, figures) * output)
        for rows, count in _blocks(program.tokens, plan.row_block)
    ]


@tiles_of.register
def _(step: LayerNorm, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    width = len(step.weight)
    return [
        Tile(count * step.channels, _share(rows, figures) * width * figures.layer_norm)
        for rows, count in _blocks(rows_of(program, step) // step.channels, plan.row_block)
    ]


@tiles_of.register
def _(step: Linear, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    outputs, depth = step.weight.shape
    output = figures.product(depth) + figures.requantization
    output += figures.activation if step.table is not None else 0
    output += figures.residual if step.residual else 0
    rotary = figures.rotary if step.rotation is not None else 0
    return [
        Tile(
            count * times,
            _outputs(rows, width, figures) * output + _share(rows, figures) * width * rotary,
            sections=2 if rotary else 1,
        )
        for rows, count in _blocks(rows_of(program, step), plan.row_block)
        for width, times in _blocks(outputs, plan.output_block)
    ]


@tiles_of.register
def _(step: Attention, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    size, tokens = program.head_size, program.tokens
    tiles = []
    for rows, count in _blocks(tokens, plan.row_block):
        count *= program.num_heads
        softmax = _share(rows, figures) * tokens * figures.softmax
        for keys, last, times in _with_last(tokens, plan.key_block):
            score = _outputs(rows, keys, figures) * (figures.product(size) + figures.requantization)
            value = _outputs(rows, size, figures) * (figures.product(keys) + last * figures.requantization)
            tiles += [
                Tile(count * times, score + last * softmax, sections=1 + last),
                Tile(count * times, value),
            ]
    return tiles


@tiles_of.register
def _(step: Pool, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    share = _share(step.inner, figures)
    return [
        Tile(step.outer * count, rows * share * figures.pool) for rows, count in _blocks(step.count, plan.row_block)
    ]


@tiles_of.register
def _(step: DepthwiseConv, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    return [Tile(1, rows_of(program, step) * _share(len(step.weight), figures) * figures.depthwise)]


@tiles_of.register
def _(step: Head, program: Program, plan: StepPlan, figures: Assumptions) -> list[Tile]:
    outputs, depth = step.weight.shape
    rows = rows_of(program, step)
    return [
        Tile(count, _share(rows * width, figures) * depth * figures.head_product)
        for width, count in _blocks(outputs, plan.output_block)
    ]


def _share(items: int, figures: Assumptions) -> int:
    """Of the core that has most of them."""
    return -(-items // figures.cores)


def _outputs(rows: int, columns: int, figures: Assumptions) -> int:
    """Outputs of the core that has most blocks of them; those at the edges are smaller, and take as long."""
    high, wide = _BLOCK
    return _share(-(-rows // high) * -(-columns // wide), figures) * high * wide


def _blocks(total: int, block: int) -> Iterator[tuple[int, int]]:
    """(size, count) of the blocks that something is cut into: full ones, and what is left."""
    if total >= block:
        yield block, total // block
    if total % block:
        yield total % block, 1


def _with_last(total: int, block: int) -> Iterator[tuple[int, bool, int]]:
    """(size, whether it is the last, count) of the blocks."""
    blocks = -(-total // block)
    if blocks > 1:
        yield block, False, blocks - 1
    yield total - (blocks - 1) * block, True, 1
