"""What a step moves between L2 and L1, transfer by transfer as the executors of `runtime/` do.

All of them load the parameters of a block of outputs once, and the rows anew for every block of outputs. Attention
loads all keys and all values for every block of queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from export.gap9.geometry import CHANNEL_BYTES, round_up, rows_of
from export.gap9.schedule import Transfers
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

DMA_LIMIT = 65_535
"""Bytes of the largest transfer between L2 and L1."""


@dataclass(frozen=True)
class Blocks:
    """Sizes of a tile: rows, outputs and keys at a time; 0 where a step has no such blocks."""

    rows: int
    outputs: int = 0
    keys: int = 0


def transfers_of(program: Program, step: Step, blocks: Blocks) -> Transfers:
    """All transfers of a step that is cut into these blocks."""
    traffic = _Traffic()
    _MOVES[type(step)](traffic, program, step, blocks)
    return Transfers(traffic.bytes["read"], traffic.bytes["written"], traffic.count)


def blocks_of(total: int, block: int) -> Iterator[tuple[int, int]]:
    """(size, how many) of the blocks that `total` is cut into: the full ones, and what is left."""
    if total >= block:
        yield block, total // block
    if total % block:
        yield total % block, 1


@dataclass
class _Traffic:
    bytes: dict[str, int] = field(default_factory=lambda: {"read": 0, "written": 0})
    count: int = 0

    def read(self, size: int, times: int = 1) -> None:
        """So many times bytes in one piece."""
        self._add("read", 1, size, size, times)

    def read_rows(self, rows: int, row_bytes: int, stride: int, times: int = 1) -> None:
        """So many times rows that are `stride` bytes apart in L2."""
        self._add("read", rows, row_bytes, stride, times)

    def write(self, size: int, times: int = 1) -> None:
        self._add("written", 1, size, size, times)

    def write_rows(self, rows: int, row_bytes: int, stride: int, times: int = 1) -> None:
        self._add("written", rows, row_bytes, stride, times)

    def _add(self, direction: str, rows: int, row_bytes: int, stride: int, times: int) -> None:
        size = rows * row_bytes
        self.bytes[direction] += times * size
        # What is too large for the DMA is split: anywhere if it is in one piece, else between rows.
        contiguous = rows == 1 or row_bytes == stride
        self.count += times * (-(-size // DMA_LIMIT) if contiguous else -(-rows // (DMA_LIMIT // row_bytes)))


def _patch_embedding(traffic: _Traffic, program: Program, step: PatchEmbedding, blocks: Blocks) -> None:
    outputs, depth = step.weight.shape
    traffic.read(2 * outputs * depth)
    traffic.read(CHANNEL_BYTES * outputs)
    for rows, times in blocks_of(program.tokens, blocks.rows):
        traffic.read(2 * rows * depth, times)
        traffic.write(2 * rows * outputs, times)


def _layer_norm(traffic: _Traffic, program: Program, step: LayerNorm, blocks: Blocks) -> None:
    width = len(step.weight)
    traffic.read(2 * width)
    traffic.read(4 * width)
    # Where channels are joined, every one of them has its own blocks, whose rows are apart in the output.
    for rows, times in blocks_of(rows_of(program, step) // step.channels, blocks.rows):
        traffic.read(2 * rows * width, times * step.channels)
        traffic.write_rows(rows, width, step.channels * width, times * step.channels)


def _linear(traffic: _Traffic, program: Program, step: Linear, blocks: Blocks) -> None:
    outputs, depth = step.weight.shape
    if step.table is not None:
        traffic.read(TABLE_SIZE)
    for width, times in blocks_of(outputs, blocks.outputs):
        traffic.read(width * depth, times)
        traffic.read(CHANNEL_BYTES * width, times)
        for rows, count in blocks_of(rows_of(program, step), blocks.rows):
            tiles = times * count
            traffic.read(rows * depth, tiles)
            if step.rotation is not None:
                traffic.read(2 * rows * step.head_size, tiles)
            if step.residual:
                traffic.read_rows(rows, 2 * width, 2 * outputs, tiles)
                traffic.write_rows(rows, 2 * width, 2 * outputs, tiles)
            elif step.layout == "transposed":
                traffic.write_rows(width, rows, round_up(rows_of(program, step), 4), tiles)
            elif step.layout == "heads":
                traffic.write(rows * width, tiles)
            else:
                traffic.write_rows(rows, width, outputs, tiles)


def _attention(traffic: _Traffic, program: Program, step: Attention, blocks: Blocks) -> None:
    traffic.read(512)
    size = program.head_size
    for rows, times in blocks_of(program.tokens, blocks.rows):
        tiles = times * program.num_heads
        traffic.read(rows * size, tiles)
        for keys, count in blocks_of(program.tokens, blocks.keys):
            traffic.read(keys * size, tiles * count)
            traffic.read_rows(size, round_up(keys, 4), round_up(program.tokens, 4), tiles * count)
        traffic.write_rows(rows, size, program.hidden_size, tiles)


def _pool(traffic: _Traffic, program: Program, step: Pool, blocks: Blocks) -> None:
    for rows, times in blocks_of(step.count, blocks.rows):
        traffic.read(rows * step.inner, step.outer * times)
    traffic.write(step.inner * (2 if step.limit == FEATURE_LIMIT else 1), step.outer)


def _depthwise(traffic: _Traffic, program: Program, step: DepthwiseConv, blocks: Blocks) -> None:
    width, taps = step.weight.shape
    traffic.read(width * taps)
    traffic.read(CHANNEL_BYTES * width)
    traffic.read(2 * TABLE_SIZE)
    traffic.read(blocks.rows * width)
    traffic.write(2 * blocks.rows * width)


def _head(traffic: _Traffic, program: Program, step: Head, blocks: Blocks) -> None:
    outputs, depth = step.weight.shape
    traffic.read(2 * blocks.rows * depth)
    for width, times in blocks_of(outputs, blocks.outputs):
        traffic.read(width * depth, times)
        traffic.read(4 * width, times)
        traffic.write_rows(blocks.rows, 4 * width, 4 * outputs, times)


_MOVES: dict[type[Step], Callable[..., None]] = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Attention: _attention,
    Pool: _pool,
    DepthwiseConv: _depthwise,
    Head: _head,
}
