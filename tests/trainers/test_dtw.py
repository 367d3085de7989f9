"""Cheapest paths, against all the paths there are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import trainers.dtw as dtw
from trainers.dtw import dtw_path, dtw_paths, one_per_column

STEPS = ((1, 0), (0, 1), (1, 1))


def all_paths(rows, columns, cell=(0, 0)):
    """Every monotonic path from `cell` to the last."""
    if cell == (rows - 1, columns - 1):
        yield [cell]
    for down, right in STEPS:
        following = (cell[0] + down, cell[1] + right)
        if following[0] < rows and following[1] < columns:
            for path in all_paths(rows, columns, following):
                yield [cell, *path]


def cost_of(costs, path):
    return sum(costs[cell] for cell in zip(*path, strict=True))


def is_path(path, rows, columns):
    cells = list(zip(*(part.tolist() for part in path), strict=True))
    steps = {(b[0] - a[0], b[1] - a[1]) for a, b in zip(cells, cells[1:], strict=False)}
    return cells[0] == (0, 0) and cells[-1] == (rows - 1, columns - 1) and steps <= set(STEPS)


sizes = st.integers(1, 5)
whole = st.integers(-3, 3).map(float)  # with ties, and exact in any order of summing
matrices = st.tuples(sizes, sizes).flatmap(lambda shape: arrays(np.float64, shape, elements=whole))


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_no_path_is_cheaper(costs):
    path = dtw_path(costs)
    assert is_path(path, *costs.shape)
    cheapest = min(sum(costs[cell] for cell in other) for other in all_paths(*costs.shape))
    assert cost_of(costs, path) == cheapest


@settings(max_examples=30, deadline=None)
@given(st.lists(matrices, min_size=1, max_size=5), st.sampled_from([1, 60, 10_000]))
def test_matrices_of_a_batch_do_not_touch_each_other(batch, most_cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dtw, "_MOST_CELLS", most_cells)  # each alone, some together, all together
        found = dtw_paths(batch)
    for costs, path in zip(batch, found, strict=True):
        assert np.array_equal(path, dtw_path(costs))


def test_a_batch_of_nothing_is_nothing():
    assert dtw_paths([]) == []


def test_large_matrices_agree_with_the_double_loop():
    rng = np.random.default_rng(0)
    batch = [rng.random(shape).astype(np.float32) for shape in ((41, 30), (30, 41), (1, 50), (50, 1))]
    for costs, path in zip(batch, dtw_paths(batch), strict=True):
        sums = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
        sums[0, 0] = 0
        for i, j in np.ndindex(costs.shape):
            sums[i + 1, j + 1] = costs[i, j] + min(sums[i, j], sums[i, j + 1], sums[i + 1, j])
        assert is_path(path, *costs.shape)
        assert cost_of(costs.astype(np.float64), path) == pytest.approx(sums[-1, -1], abs=1e-9)


def test_among_equals_the_end_steps_in_both():
    rows, columns = dtw_path(np.zeros((3, 5)))
    assert rows.tolist() == [0, 0, 0, 1, 2]
    assert columns.tolist() == [0, 1, 2, 3, 4]
    # a step of a row and one of a column cost the same, the one of both costs more
    rows, columns = dtw_path(np.array([[5.0, -1.0], [-1.0, 0.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 0, 1], [0, 1, 1])


def test_one_row_per_column_is_the_first():
    path = np.array([0, 1, 2, 2, 2, 3, 4]), np.array([0, 0, 1, 2, 3, 4, 4])
    assert one_per_column(path).tolist() == [0, 2, 2, 2, 3]


@pytest.mark.parametrize("costs", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3)])
def test_what_is_no_matrix_is_refused(costs):
    with pytest.raises(ValueError, match="costs 1 must be a matrix"):
        dtw_paths([np.zeros((2, 2)), costs])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_costs_that_are_no_numbers_are_refused(value):
    with pytest.raises(ValueError, match="costs 0 are not all finite"):
        dtw_path(np.array([[0.0, value], [0.0, 0.0]]))
