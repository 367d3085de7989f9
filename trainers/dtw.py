"""Dynamic time warping: the cheapest monotonic path through a matrix of costs.

A path leads from the first row and column to the last in steps of one row, one column or both; its cost is the sum of
the cells it passes, both ends included. Cells of an anti-diagonal do not depend on each other: they are computed at
once, and so are several matrices.

The released code of Gaddy and Klein (align.py) leaves the first row and column out of its sums and then takes one row
per column (`one_per_column`); here all cells count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

Path = tuple[np.ndarray, np.ndarray]
"""Rows and columns of the cells of a path, both int64 (length,)."""

_MOST_CELLS = 8_000_000  # of matrices that are worked on at once, padding included: 64 MB


def dtw_path(costs: np.ndarray) -> Path:
    """The cheapest path through `costs` (n, m), finite numbers.

    Where several are cheapest, the one that from its end backwards prefers steps of both, then of a row.

    Raises:
        ValueError: no matrix with rows and columns, or a cost that is not finite.
    """
    return dtw_paths([costs])[0]


def dtw_paths(costs: Sequence[np.ndarray]) -> list[Path]:
    """`dtw_path` of matrices of different sizes, those of like size together."""
    matrices = [np.asarray(matrix) for matrix in costs]
    for index, matrix in enumerate(matrices):
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"costs {index} must be a matrix with rows and columns, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"costs {index} are not all finite numbers: look into what they were computed from")
    paths: list[Path | None] = [None] * len(matrices)
    for group in _groups([matrix.shape for matrix in matrices]):
        sums = _path_sums([matrices[index] for index in group])
        for place, index in enumerate(group):
            paths[index] = _trace(sums[:, place], *matrices[index].shape)
    return paths


def one_per_column(path: Path) -> np.ndarray:
    """The first row that a path passes in each column: int64 (columns,)."""
    rows, columns = path
    return rows[np.flatnonzero(np.diff(columns, prepend=-1))]


def _groups(shapes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Indices of matrices of like size, as many as fit into `_MOST_CELLS`."""
    group: list[int] = []
    rows = columns = 0
    for index in sorted(range(len(shapes)), key=lambda i: sum(shapes[i])):
        rows, columns = max(rows, shapes[index][0]), max(columns, shapes[index][1])
        if group and (len(group) + 1) * rows * (rows + columns) > _MOST_CELLS:
            yield group
            group, (rows, columns) = [], shapes[index]
        group.append(index)
    if group:
        yield group


def _path_sums(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Cost of the cheapest path to each cell: float64 (diagonals, matrices, rows + 1).

    Cell (i, j) is at [i + j, :, i + 1]; what is outside a matrix costs infinity, the place before the first row too.
    """
    count, rows, columns = len(matrices), *np.max([matrix.shape for matrix in matrices], axis=0)
    diagonals = rows + columns - 1
    sums = np.full((diagonals, count, rows + 1), np.inf)
    diagonal, _, row = sums.strides
    for place, matrix in enumerate(matrices):
        # one row on is one diagonal and one place on, one column on is one diagonal on
        as_strided(sums[:, place, 1:], matrix.shape, (diagonal + row, diagonal))[:] = matrix
    best = np.empty((count, rows))
    for d in range(1, diagonals):
        first, last = max(0, d - columns + 1), min(d + 1, rows)  # the rows that the diagonal crosses
        here = best[:, : last - first]
        np.minimum(sums[d - 1, :, first:last], sums[d - 1, :, first + 1 : last + 1], out=here)
        if d > 1:
            np.minimum(here, sums[d - 2, :, first:last], out=here)
        sums[d, :, first + 1 : last + 1] += here
    return sums


def _trace(sums: np.ndarray, rows: int, columns: int) -> Path:
    """The path to the last cell. `sums` (diagonals, at least rows + 1): of `_path_sums`, one matrix."""
    i, j = rows - 1, columns - 1
    cells = [(i, j)]
    at = sums.item
    while i and j:
        d = i + j
        row, column, both = at(d - 1, i), at(d - 1, i + 1), at(d - 2, i)
        if both <= row and both <= column:
            i, j = i - 1, j - 1
        elif row <= column:
            i -= 1
        else:
            j -= 1
        cells.append((i, j))
    cells.extend((i - k, j) for k in range(1, i + 1))
    cells.extend((i, j - k) for k in range(1, j + 1))
    found = np.array(cells[::-1], dtype=np.int64)
    return found[:, 0], found[:, 1]
