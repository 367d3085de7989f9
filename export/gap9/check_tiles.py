"""Proves that the tiles of a step are sound, by replaying what its executor (`runtime/*_step.c`) does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from export.gap9.check_regions import check_aligned, check_disjoint, demand
from export.gap9.replay import Replay
from export.gap9.schedule import StepPlan, Transfers
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

_CHANNEL = 12
"""Bytes of what turns the sum of one output into its value."""
_WORD = 4
_EXPONENTIALS = 2 * 256


def check_tiles(program: Program, step: Step, plan: StepPlan, l1: int) -> None:
    """Check how a step is cut into tiles.

    Its regions are those that its executor uses, aligned, disjoint and within `l1` bytes. Its transfers are legal, no
    more are under way than the DMA takes, and none moves what is computed on. Every byte of its operands is loaded,
    each as often as any other of the same operand, and every byte of its output is stored once. What the plan says of
    its transfers is so.

    Raises:
        PlanCheckError: something is not so.
    """
    replay = _REPLAYS[type(step)](_Begun(program, step, plan, l1))
    found = Transfers(replay.read, replay.written, replay.count)
    demand(found == plan.transfers, f"{step.name}: makes {found}, and the plan says {plan.transfers}")


@dataclass(frozen=True)
class _Begun:
    program: Program
    step: Step
    plan: StepPlan
    l1: int

    def shape(self, name: str) -> tuple[int, ...]:
        return self.program.tensors[name].shape

    def demand(self, holds: bool, message: str) -> None:
        demand(holds, f"{self.step.name}: {message}")

    def demand_blocks(self, row: int, output: int = 0, key: int = 0) -> None:
        """Blocks are multiples of these, and none where these are 0."""
        units = {"row_block": row, "output_block": output, "key_block": key}
        for name, unit in units.items():
            block = getattr(self.plan, name)
            legal = block > 0 and block % unit == 0 if unit else block == 0
            self.demand(legal, f"{name}={block} is no multiple of {unit}")

    def replay(self, regions: str, **operands: int) -> Replay:
        """Of regions with these names ("input2" is a pair), and operands of so many bytes."""
        names = [f"{name[:-1]}{i}" for name in regions.split() if name.endswith("2") for i in (0, 1)]
        names += [name for name in regions.split() if not name.endswith("2")]
        found = self.plan.l1
        self.demand(set(found) == set(names), f"regions of L1 are {sorted(found)}, and should be {sorted(names)}")
        check_aligned(found.items(), f"{self.step.name}: L1 region ")
        check_disjoint(found.items(), f"{self.step.name}: L1 regions ")
        end = max(region.end for region in found.values())
        self.demand(end <= self.l1, f"its tiles end at {end} of {self.l1} bytes of L1")
        return Replay(self.step.name, found, operands)


def _blocks(total: int, block: int) -> list[tuple[int, int]]:
    """(first, count) of each block."""
    return [(first, min(block, total - first)) for first in range(0, total, block)]


def _with_next(tiles: list) -> Iterator[tuple]:
    """(number, tile, the next one or None)."""
    return zip(range(len(tiles)), tiles, [*tiles[1:], None], strict=True)


def _patch_embedding(begun: _Begun) -> Replay:
    outputs, depth = begun.step.weight.shape
    tokens = begun.program.tokens
    begun.demand_blocks(row=2)
    replay = begun.replay(
        "input2 weights channels output2",
        input=2 * tokens * depth,
        weights=2 * outputs * depth,
        channels=_CHANNEL * outputs,
        output=2 * tokens * outputs,
    )

    def load(number: int, tile: tuple[int, int]) -> None:
        row, rows = tile
        replay.load(f"input{number & 1}", "input", 2 * row * depth, 2 * rows * depth)

    tiles = _blocks(tokens, begun.plan.row_block)
    replay.load("weights", "weights", 0, 2 * outputs * depth)
    replay.load("channels", "channels", 0, _CHANNEL * outputs)
    load(0, tiles[0])
    replay.wait("weights", "channels")
    for number, (row, rows), following in _with_next(tiles):
        slot = number & 1
        if following:
            load(number + 1, following)
        replay.wait(f"input{slot}", f"output{slot}")
        replay.compute(f"input{slot}", f"output{slot}", "weights", "channels")
        replay.store(f"output{slot}", "output", 2 * row * outputs, 2 * rows * outputs)
    replay.wait("output0", "output1")
    replay.end("output")
    return replay


def _layer_norm(begun: _Begun) -> Replay:
    channels, (tokens, width) = begun.step.channels, begun.shape(begun.step.input)
    begun.demand_blocks(row=1)
    replay = begun.replay(
        "input2 weights bias output2",
        input=2 * tokens * width,
        weights=2 * width,
        bias=4 * width,
        output=tokens * width,
    )

    def load(number: int, tile: tuple[int, tuple[int, int]]) -> None:
        channel, (row, rows) = tile
        start = channel * (tokens // channels) + row
        replay.load(f"input{number & 1}", "input", 2 * start * width, 2 * rows * width)

    tiles = list(product(range(channels), _blocks(tokens // channels, begun.plan.row_block)))
    replay.load("weights", "weights", 0, 2 * width)
    replay.load("bias", "bias", 0, 4 * width)
    load(0, tiles[0])
    replay.wait("weights", "bias")
    for number, (channel, (row, rows)), following in _with_next(tiles):
        slot, stride = number & 1, channels * width
        if following:
            load(number + 1, following)
        replay.wait(f"input{slot}", f"output{slot}")
        replay.compute(f"input{slot}", f"output{slot}", "weights", "bias")
        replay.store_rows(f"output{slot}", "output", row * stride + channel * width, rows, width, stride)
    replay.wait("output0", "output1")
    replay.end("output")
    return replay


def _linear(begun: _Begun) -> Replay:
    step, (rows, depth) = begun.step, begun.shape(begun.step.input)
    outputs, padded = len(step.weight), -(-rows // _WORD) * _WORD
    by_heads, transposed = step.layout != "rows", step.layout == "transposed"
    begun.demand_blocks(row=4 if transposed else 2, output=step.head_size if by_heads else _WORD)
    begun.demand(depth % _WORD == 0 == outputs % _WORD, f"weights {step.weight.shape} are no whole words")
    begun.demand(not by_heads or begun.plan.output_block == step.head_size, "output_block is not head_size")
    element = 2 if step.residual else 1
    table = {"table": TABLE_SIZE} if step.table is not None else {}
    rotation = {"rotation": 2 * rows * step.head_size} if step.rotation is not None else {}
    replay = begun.replay(
        "input2 weights2 channels2 output2" + " table" * bool(table) + " rotation2" * bool(rotation),
        input=rows * depth,
        weights=outputs * depth,
        channels=_CHANNEL * outputs,
        output=outputs * (padded if transposed else rows * element),
        **table,
        **rotation,
    )

    def move_output(move: Callable, slot: int, tile: tuple[tuple[int, int], tuple[int, int]]) -> None:
        (first, width), (row, count) = tile
        if transposed:
            move(f"output{slot}", "output", first * padded + row, width, count, padded)
        elif by_heads:
            move(f"output{slot}", "output", first * rows + row * width, 1, count * width, count * width)
        else:
            start = (row * outputs + first) * element
            move(f"output{slot}", "output", start, count, width * element, outputs * element)

    def load(number: int, tile: tuple[tuple[int, int], tuple[int, int]]) -> None:
        (first, width), (row, count) = tile
        slot, block_slot = number & 1, first // begun.plan.output_block & 1
        if row == 0:
            replay.load(f"weights{block_slot}", "weights", first * depth, width * depth)
            replay.load(f"channels{block_slot}", "channels", _CHANNEL * first, _CHANNEL * width)
        replay.load(f"input{slot}", "input", row * depth, count * depth)
        if rotation:
            replay.load(f"rotation{slot}", "rotation", 2 * row * width, 2 * count * width)
        if step.residual:
            replay.wait(f"output{slot}")
            move_output(replay.load_rows, slot, tile)

    tiles = list(product(_blocks(outputs, begun.plan.output_block), _blocks(rows, begun.plan.row_block)))
    if table:
        replay.load("table", "table", 0, TABLE_SIZE)
    load(0, tiles[0])
    for number, tile, following in _with_next(tiles):
        slot, block_slot = number & 1, tile[0][0] // begun.plan.output_block & 1
        if following:
            load(number + 1, following)
        used = [f"weights{block_slot}", f"channels{block_slot}", f"input{slot}", f"output{slot}"]
        used += ["table"] * bool(table) + [f"rotation{slot}"] * bool(rotation)
        replay.wait(*used)
        replay.compute(*used)
        move_output(replay.store_rows, slot, tile)
    replay.wait("output0", "output1")
    replay.end("output", *((padded, rows) if transposed else ()))
    return replay


def _attention(begun: _Begun) -> Replay:
    program, plan = begun.program, begun.plan
    double_heads, tokens, size = begun.shape(begun.step.input)
    heads, padded, width = double_heads // 2, -(-tokens // _WORD) * _WORD, double_heads // 2 * size
    begun.demand_blocks(row=2, key=_WORD)
    begun.demand(size == program.head_size and size % _WORD == 0, f"heads of {size} are no whole words")
    replay = begun.replay(
        "query2 block2 scores reciprocals sums output2 exponentials",
        queries=tokens * width,
        keys=tokens * width,
        values=width * padded,
        exponentials=_EXPONENTIALS,
        output=tokens * width,
    )
    blocks = [("keys", *block) for block in _blocks(tokens, plan.key_block)]
    blocks += [("values", *block) for block in _blocks(padded, plan.key_block)]
    begun.demand(len(blocks) % 2 == 0, "there are more blocks of values than of keys")
    queries = list(enumerate(product(range(heads), _blocks(tokens, plan.row_block))))
    tiles = [(*query, *block) for query in queries for block in blocks]

    def load(number: int, tile: tuple) -> None:
        query, (head, (row, rows)), kind, key, keys = tile
        if kind == "values":
            replay.load_rows(f"block{number & 1}", "values", head * size * padded + key, size, keys, padded)
            return
        if key == 0:
            replay.load(f"query{query & 1}", "queries", (head * tokens + row) * size, rows * size)
        replay.load(f"block{number & 1}", "keys", (head * tokens + key) * size, keys * size)

    replay.load("exponentials", "exponentials", 0, _EXPONENTIALS)
    load(0, tiles[0])
    replay.wait("exponentials")
    for number, (query, (head, (row, rows)), kind, key, _), following in _with_next(tiles):
        if following:
            load(number + 1, following)
        block, last = f"block{number & 1}", key + plan.key_block >= tokens
        replay.wait(block)
        if kind == "keys":
            replay.wait(f"query{query & 1}")
            replay.compute(f"query{query & 1}", "exponentials", block, scores=2 * rows * padded, reciprocals=4 * rows)
            continue
        if last:
            replay.wait(f"output{query & 1}")
            replay.compute(f"output{query & 1}")
        replay.compute(block, "scores", "reciprocals", sums=4 * rows * size)
        if last:
            output = f"output{query & 1}"
            replay.store_rows(output, "output", row * width + head * size, rows, size, width)
    replay.wait("output0", "output1")
    replay.end("output")
    return replay


def _pool(begun: _Begun) -> Replay:
    step = begun.step
    begun.demand_blocks(row=1)
    element = 2 if step.limit == FEATURE_LIMIT else 1
    replay = begun.replay(
        "input2 sums output", input=step.outer * step.count * step.inner, output=element * step.outer * step.inner
    )

    def load(number: int, tile: tuple[int, tuple[int, int]]) -> None:
        outer, (row, rows) = tile
        start = (outer * step.count + row) * step.inner
        replay.load(f"input{number & 1}", "input", start, rows * step.inner)

    tiles = list(product(range(step.outer), _blocks(step.count, begun.plan.row_block)))
    load(0, tiles[0])
    for number, (outer, (row, rows)), following in _with_next(tiles):
        if following:
            load(number + 1, following)
        replay.wait(f"input{number & 1}")
        complete = row + rows == step.count
        if complete:
            replay.wait("output")
        replay.compute(f"input{number & 1}", *["output"] * complete, sums=4 * step.inner)
        if complete:
            replay.store("output", "output", element * outer * step.inner, element * step.inner)
    replay.wait("output")
    replay.end("output")
    return replay


def _depthwise(begun: _Begun) -> Replay:
    rows, width = begun.shape(begun.step.input)
    begun.demand_blocks(row=rows)
    begun.demand(begun.plan.row_block == rows, "not all rows are in one tile")
    sizes = {
        "input": rows * width,
        "weights": 3 * width,
        "channels": _CHANNEL * width,
        "table": 2 * TABLE_SIZE,
    }
    replay = begun.replay("input weights channels table output", **sizes, output=2 * rows * width)
    for name, size in sizes.items():
        replay.load(name, name, 0, size)
    replay.wait(*sizes)
    replay.compute(*sizes, "output")
    replay.store("output", "output", 0, 2 * rows * width)
    replay.wait("output")
    replay.end("output")
    return replay


def _head(begun: _Begun) -> Replay:
    rows, depth = begun.shape(begun.step.input)
    outputs = len(begun.step.weight)
    begun.demand_blocks(row=rows, output=1)
    begun.demand(begun.plan.row_block == rows, "not all rows are in one tile")
    replay = begun.replay(
        "input weights2 bias2 output2",
        input=2 * rows * depth,
        weights=outputs * depth,
        bias=4 * outputs,
        output=4 * rows * outputs,
    )

    def load(number: int, block: tuple[int, int]) -> None:
        first, width = block
        replay.load(f"weights{number & 1}", "weights", first * depth, width * depth)
        replay.load(f"bias{number & 1}", "bias", 4 * first, 4 * width)

    blocks = _blocks(outputs, begun.plan.output_block)
    replay.load("input", "input", 0, 2 * rows * depth)
    load(0, blocks[0])
    replay.wait("input")
    for number, (first, width), following in _with_next(blocks):
        slot = number & 1
        if following:
            load(number + 1, following)
        replay.wait(f"weights{slot}", f"bias{slot}", f"output{slot}")
        replay.compute("input", f"weights{slot}", f"bias{slot}", f"output{slot}")
        replay.store_rows(f"output{slot}", "output", 4 * first, rows, 4 * width, 4 * outputs)
    replay.wait("output0", "output1")
    replay.end("output")
    return replay


_REPLAYS: dict[type[Step], Callable[[_Begun], Replay]] = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Attention: _attention,
    Pool: _pool,
    DepthwiseConv: _depthwise,
    Head: _head,
}
