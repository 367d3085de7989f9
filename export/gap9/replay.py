"""The DMA of one step, replayed: every transfer is checked when it starts, and marks the bytes that it moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from export.gap9.check_regions import demand
from export.gap9.schedule import Region

LARGEST_COPY = 65_535
LARGEST_STRIDE = 65_535
MOST_UNDER_WAY = 16
MOST_PARTS = 3
"""Parts of one transfer that the executors have room for (`TRANSFER_PARTS` of runtime/transfer.h)."""


class Replay:
    """Transfers between operands in L2 and regions in L1, both by name; offsets are relative to the operand.

    Attributes:
        reads, writes: how often each byte of each operand was moved.
        read, written, count: bytes moved, and transfers.
    """

    def __init__(self, step: str, regions: Mapping[str, Region], operands: Mapping[str, int]):
        self._step = step
        self._regions = regions
        self._under_way: dict[str, int] = {}
        self.reads = {name: np.zeros(size, np.uint32) for name, size in operands.items()}
        self.writes = {name: np.zeros(size, np.uint32) for name, size in operands.items()}
        self.read = self.written = self.count = 0

    def load(self, region: str, operand: str, start: int, size: int) -> None:
        """Bytes of an operand in one piece."""
        self.load_rows(region, operand, start, 1, size, size)

    def load_rows(self, region: str, operand: str, start: int, rows: int, row_size: int, stride: int) -> None:
        self.read += rows * row_size
        self._move(region, operand, self.reads[operand], (start, rows, row_size, stride))

    def store(self, region: str, operand: str, start: int, size: int) -> None:
        self.store_rows(region, operand, start, 1, size, size)

    def store_rows(self, region: str, operand: str, start: int, rows: int, row_size: int, stride: int) -> None:
        self.written += rows * row_size
        self._move(region, operand, self.writes[operand], (start, rows, row_size, stride))

    def wait(self, *regions: str) -> None:
        """Transfers from or to the regions are over; those of which none is under way are passed by."""
        for region in regions:
            self._under_way.pop(region, None)

    def compute(self, *regions: str, **sizes: int) -> None:
        """Cores use regions, of which these have so many bytes at least."""
        for region in (*regions, *sizes):
            demand(region not in self._under_way, f"{self._step}: {region} is used while it is loaded or stored")
        for region, size in sizes.items():
            has = self._regions[region].size
            demand(has >= size, f"{self._step}: {region} has {has} bytes in L1, and needs {size}")

    def end(self, output: str, row: int = 1, used: int = 1) -> None:
        """Nothing is under way; of every row of so many bytes of the output those that are used were stored once; the
        bytes of any other operand were loaded, each as often as the others of the same operand."""
        demand(not self._under_way, f"{self._step}: ends while {sorted(self._under_way)} are under way")
        written = self.writes[output].reshape(-1, row)
        once = bool((written[:, :used] == 1).all()) and not written[:, used:].any()
        demand(
            once, f"{self._step}: bytes of {output} are stored {written.min()} to {written.max()} times, and not once"
        )
        for name, marks in self.reads.items():
            if name != output:
                self._demand_alike(name, marks)

    def _demand_alike(self, name: str, marks: np.ndarray) -> None:
        least, most = int(marks.min()), int(marks.max())
        demand(0 < least == most, f"{self._step}: bytes of {name} are loaded {least} to {most} times")

    def _move(self, region: str, operand: str, marks: np.ndarray, what: tuple[int, int, int, int]) -> None:
        demand(region not in self._under_way, f"{self._step}: {region} is moved while it is loaded or stored")
        start, rows, row_size, stride = what
        demand(rows > 0 and 0 < row_size <= stride, f"{self._step}: {rows} rows of {row_size}, {stride} apart, to move")
        size = self._regions[region].size
        demand(rows * row_size <= size, f"{self._step}: {region} has {size} bytes in L1, and needs {rows * row_size}")
        parts = list(_parts(rows, row_size, stride))
        demand(len(parts) <= MOST_PARTS, f"{self._step}: {region} is moved in {len(parts)} parts, {MOST_PARTS} at most")
        for first, part_rows, part_size in parts:
            moved = part_rows * part_size
            demand(0 < moved <= LARGEST_COPY, f"{self._step}: {region} is moved by {moved} bytes at once")
            begin, end = start + first, start + first + (part_rows - 1) * stride + part_size
            inside = begin >= 0 and end <= len(marks)
            demand(inside, f"{self._step}: bytes {begin} to {end} of {operand} are moved, which has {len(marks)}")
            place = np.lib.stride_tricks.as_strided(
                marks[begin:], (part_rows, part_size), (stride * marks.itemsize, marks.itemsize)
            )
            place += 1
        near = rows == 1 or row_size == stride or stride <= LARGEST_STRIDE
        demand(near, f"{self._step}: rows of {region} are {stride} bytes apart, {LARGEST_STRIDE} at most")
        self._under_way[region] = len(parts)
        self.count += len(parts)
        total = sum(self._under_way.values())
        demand(total <= MOST_UNDER_WAY, f"{self._step}: {total} transfers are under way, {MOST_UNDER_WAY} at most")


def _parts(rows: int, row_size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(offset, rows, bytes of a row) of the copies that a transfer is split into."""
    if rows == 1 or row_size == stride:
        size = rows * row_size
        for done in range(0, size, LARGEST_COPY):
            yield done, 1, min(LARGEST_COPY, size - done)
        return
    most = max(1, LARGEST_COPY // row_size)
    for row in range(0, rows, most):
        yield row * stride, min(most, rows - row), row_size
