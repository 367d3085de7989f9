"""What a memory plan says: where everything lies in L3, L2 and L1, and how large the tiles are.

`export.gap9.plan` makes it, `export.gap9.check` proves it, `export.gap9.generate` writes it into C. Offsets and sizes
are in bytes, all offsets multiples of 8.

Regions of L1 by class of the step; two of a kind are double buffers:

- `PatchEmbedding`: input0/1 int16 (row_block, patch), weights int16 (hidden, patch), channels,
  output0/1 int16 (row_block, hidden)
- `LayerNorm`: input0/1 int16 (row_block, d), weights int16 (d,), bias int32 (d,), output0/1 int8 (row_block, d)
- `Linear`: input0/1 int8 (row_block, depth), weights0/1 int8 (output_block, depth), channels0/1,
  output0/1 (row_block, output_block) int8, or int16 of a residual; with a table: table int8 (1024,);
  with rotation: rotation0/1 int16 (row_block, 2, head_size / 2)
- `Attention`: query0/1 int8 (row_block, head_size), block0/1 int8 (key_block, head_size),
  scores int16 (row_block, N4), reciprocals uint32 (row_block,), sums int32 (row_block, head_size),
  output0/1 int8 (row_block, head_size), exponentials uint16 (256,)
- `Pool`: input0/1 int8 (row_block, inner), sums int32 (inner,), output (inner,)
- `DepthwiseConv`: input int8 and output int16 (rows, width), weights int8 (width, 3), channels, table int16 (1024,)
- `Head`: input int16 (rows, depth), weights0/1 int8 (output_block, depth), bias0/1 int32 (output_block,),
  output0/1 int32 (rows, output_block)

"channels" are records of 12 bytes (`channel_t` of runtime/kernels.h), one per output. A linear layer of the layout
"heads" or "transposed" has output_block = head_size.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.errors import ExportError

KIB = 1024


class PlanError(ExportError):
    """A program that does not fit; the message names what needs the most memory, by how much it is too much, and the
    fix."""


@dataclass(frozen=True)
class Budget:
    """What may be used of GAP9's memories.

    Attributes:
        l1: for tiles, of 128 KiB, without the stacks of nine cores.
        l2: of 1.5 MiB, code, constants and stacks included.
        code: estimate of the latter, and of the operating system and its drivers: makefiles of the chip's maker leave
            networks 1.4 MB.
        l3: external RAM.
    """

    l1: int = 104 * KIB
    l2: int = 1536 * KIB
    code: int = 168 * KIB
    l3: int = 8 * KIB * KIB


@dataclass(frozen=True)
class Region:
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class Buffer(Region):
    """A region of L2 from the step `first` to the step `last`, both included (indices)."""

    first: int
    last: int


@dataclass(frozen=True)
class Slab:
    """The parameters of a step, one piece of L3 (`weights.bin`), loaded to L2 while earlier steps run.

    Attributes:
        l3: offset in `weights.bin`.
        buffer: in L2, live from the step before which it is loaded.
        sections: by name, relative to the slab.
    """

    l3: int
    buffer: Buffer
    sections: dict[str, Region]


@dataclass(frozen=True)
class Transfers:
    """Between L2 and L1, by one step.

    Attributes:
        read, written: bytes to and from L1.
        count: DMA transfers, none larger than 65,535 bytes.
    """

    read: int
    written: int
    count: int


@dataclass(frozen=True)
class StepPlan:
    """
    Attributes:
        row_block: rows (tokens, queries) of a tile.
        output_block: outputs of a tile (`Linear`, `Head`), else 0.
        key_block: keys and values at a time (`Attention`), else 0; a multiple of 4.
        l1: regions by name, as in the list above.
    """

    row_block: int
    output_block: int
    key_block: int
    l1: dict[str, Region]
    transfers: Transfers


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        tensors: L2 by name of the tensor, "input_values" and "logits" included.
        slabs: by name of the step, of those with parameters.
        steps: by name of the step, in order.
        l1_size, l2_size, l3_size: what is used at most; L2 without code.
    """

    budget: Budget
    tensors: dict[str, Buffer]
    slabs: dict[str, Slab]
    steps: dict[str, StepPlan]
    l1_size: int
    l2_size: int
    l3_size: int
