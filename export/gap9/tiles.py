"""How a step is cut into tiles that fit L1, such that it takes the least time.

Every cut among `_candidates` is tried. Of those whose regions fit, the one with the least modelled time wins
(`export.gap9.work`); of equals the one that moves the fewest bytes, then the one that needs the least of L1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from export.gap9.assumptions import Assumptions
from export.gap9.geometry import CHANNEL_BYTES, round_up, rows_of
from export.gap9.schedule import Budget, Region, StepPlan
from export.gap9.slabs import aligned
from export.gap9.transfers import DMA_LIMIT, Blocks, transfers_of
from export.gap9.work import busy_cycles
from export.int8.program import (
    FEATURE_LIMIT,
    TABLE_SIZE,
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

_FIGURES = Assumptions()
_CORES = 8
"""That get whole rows of softmax, layer norms and rotary positions: multiples of it occupy all of them alike."""
_PARTS = 12
"""Equal parts up to so many are tried."""

Sizes = dict[str, int]


def plan_tiles(program: Program, step: Step, budget: Budget) -> StepPlan | None:
    """The best cut of a step; None where none fits."""
    best: tuple[tuple[float, ...], StepPlan] | None = None
    for blocks in _candidates(program, step):
        sizes = region_sizes(program, step, blocks)
        total = total_size(sizes)
        if total > budget.l1:
            continue
        plan = StepPlan(blocks.rows, blocks.outputs, blocks.keys, _place(sizes), transfers_of(program, step, blocks))
        merit = modelled_cycles(program, step, plan), plan.transfers.read + plan.transfers.written, total
        if best is None or merit < best[0]:
            best = merit, plan
    return best[1] if best else None


def smallest_sizes(program: Program, step: Step) -> Sizes:
    """Sizes of the regions of the cut that needs the least of L1."""
    cuts = (region_sizes(program, step, blocks) for blocks in _candidates(program, step))
    return min(cuts, key=total_size)


def total_size(sizes: Sizes) -> int:
    """Bytes of L1 that regions of these sizes need."""
    return sum(map(aligned, sizes.values()))


def modelled_cycles(program: Program, step: Step, plan: StepPlan) -> float:
    """Cycles of a step whose parameters are there."""
    return busy_cycles(step, program, plan, _FIGURES).total


def region_sizes(program: Program, step: Step, blocks: Blocks) -> Sizes:
    """Bytes of the L1 regions that `export.gap9.schedule` lists, by name."""
    return _SIZES[type(step)](program, step, blocks)


def _place(sizes: Sizes) -> dict[str, Region]:
    regions: dict[str, Region] = {}
    offset = 0
    for name, size in sizes.items():
        regions[name] = Region(offset, size)
        offset = aligned(offset + size)
    return regions


def _candidates(program: Program, step: Step) -> Iterator[Blocks]:
    rows = rows_of(program, step)
    if isinstance(step, Attention):
        keys = [size for size in _cuts(program.tokens, 4) if size * program.head_size <= DMA_LIMIT]
        yield from (Blocks(rows, 0, keys) for rows, keys in product(_cuts(program.tokens, 2, _CORES), keys))
    elif isinstance(step, Linear) and step.layout != "rows":
        unit = 4 if step.layout == "transposed" else 2
        yield from (Blocks(size, step.head_size) for size in _cuts(rows, unit, _CORES))
    elif isinstance(step, Linear):
        outputs = _cuts(len(step.weight), 4, 16)
        yield from (Blocks(*sizes) for sizes in product(_cuts(rows, 2, _CORES), outputs))
    elif isinstance(step, Head):
        yield from (Blocks(rows, size) for size in _cuts(len(step.weight), 1, _CORES))
    elif isinstance(step, DepthwiseConv):
        yield Blocks(rows)
    elif isinstance(step, Pool):
        yield from (Blocks(size) for size in _cuts(step.count, 1))
    elif isinstance(step, LayerNorm):
        yield from (Blocks(size) for size in _cuts(rows // step.channels, 2, _CORES))
    else:
        yield from (Blocks(size) for size in _cuts(rows, 2, _CORES))


def _cuts(total: int, unit: int, preferred: int = 0) -> list[int]:
    """Sizes of blocks, multiples of `unit`: few units, equal parts, and multiples of what occupies all cores alike."""
    whole = round_up(total, unit)
    sizes = {unit, 2 * unit, 4 * unit, *(round_up(-(-total // parts), unit) for parts in range(1, _PARTS + 1))}
    sizes.update(range(preferred, min(whole, 12 * preferred) + 1, preferred) if preferred else ())
    return sorted(size for size in sizes if size <= whole)


def _double(**sizes: int) -> Sizes:
    """Two buffers each."""
    return {f"{name}{i}": size for name, size in sizes.items() for i in (0, 1)}


def _patch_embedding(program: Program, step: PatchEmbedding, blocks: Blocks) -> Sizes:
    outputs, depth = step.weight.shape
    sizes = _double(input=2 * blocks.rows * depth, output=2 * blocks.rows * outputs)
    return sizes | {"weights": 2 * outputs * depth, "channels": CHANNEL_BYTES * outputs}


def _layer_norm(program: Program, step: LayerNorm, blocks: Blocks) -> Sizes:
    width = len(step.weight)
    return _double(input=2 * blocks.rows * width, output=blocks.rows * width) | {
        "weights": 2 * width,
        "bias": 4 * width,
    }


def _linear(program: Program, step: Linear, blocks: Blocks) -> Sizes:
    depth = step.weight.shape[1]
    sizes = _double(
        input=blocks.rows * depth,
        weights=blocks.outputs * depth,
        channels=CHANNEL_BYTES * blocks.outputs,
        output=blocks.rows * blocks.outputs * (2 if step.residual else 1),
    )
    if step.table is not None:
        sizes["table"] = TABLE_SIZE
    if step.rotation is not None:
        sizes |= _double(rotation=2 * blocks.rows * step.head_size)
    return sizes


def _attention(program: Program, step: Attention, blocks: Blocks) -> Sizes:
    size = program.head_size
    return {
        **_double(query=blocks.rows * size, block=blocks.keys * size, output=blocks.rows * size),
        "scores": 2 * blocks.rows * round_up(program.tokens, 4),
        "reciprocals": 4 * blocks.rows,
        "sums": 4 * blocks.rows * size,
        "exponentials": 512,
    }


def _pool(program: Program, step: Pool, blocks: Blocks) -> Sizes:
    output = step.inner * (2 if step.limit == FEATURE_LIMIT else 1)
    return _double(input=blocks.rows * step.inner) | {"sums": 4 * step.inner, "output": output}


def _depthwise(program: Program, step: DepthwiseConv, blocks: Blocks) -> Sizes:
    width, taps = step.weight.shape
    return {
        "input": blocks.rows * width,
        "weights": width * taps,
        "channels": CHANNEL_BYTES * width,
        "table": 2 * TABLE_SIZE,
        "output": 2 * blocks.rows * width,
    }


def _head(program: Program, step: Head, blocks: Blocks) -> Sizes:
    depth = step.weight.shape[1]
    blocked = _double(weights=blocks.outputs * depth, bias=4 * blocks.outputs, output=4 * blocks.rows * blocks.outputs)
    return {"input": 2 * blocks.rows * depth} | blocked


_SIZES: dict[type[Step], Callable[..., Sizes]] = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Attention: _attention,
    Pool: _pool,
    DepthwiseConv: _depthwise,
    Head: _head,
}
