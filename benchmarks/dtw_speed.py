"""Dynamic time warping of 500 x 450 frames, one pair of utterances and 16 at once, beside the plain double loop.

python -m benchmarks.dtw_speed [--repeats 10]
"""

import argparse

import numpy as np

from benchmarks.timing import alternate
from trainers.dtw import dtw_path, dtw_paths

SHAPE = (500, 450)
BATCH = 16


def double_loop(costs: np.ndarray) -> float:
    """The cost of the cheapest path, cell by cell on lists, which Python reads faster than arrays; without the path."""
    infinity = float("inf")
    above = [infinity] * (costs.shape[1] + 1)
    above[0] = 0.0
    for row in costs.tolist():
        here = [infinity]
        for j, cost in enumerate(row):
            here.append(cost + min(above[j], above[j + 1], here[j]))
        above = here
    return above[-1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    costs = [rng.random(SHAPE, dtype=np.float32) for _ in range(BATCH)]
    rows, columns = dtw_path(costs[0])
    assert np.isclose(costs[0][rows, columns].sum(dtype=np.float64), double_loop(costs[0]))
    seconds = alternate(
        {
            "double loop": lambda: double_loop(costs[0]),
            "one": lambda: dtw_path(costs[0]),
            "batch": lambda: dtw_paths(costs),
        },
        options.repeats,
    )
    print(f"numpy {np.__version__}, one thread, {SHAPE[0]} x {SHAPE[1]} frames, ms per pair")
    loop, one, batch = (1e3 * seconds[name] for name in ("double loop", "one", "batch"))
    print(f"double loop in Python {loop:8.2f}")
    print(f"one pair              {one:8.2f}   ({loop / one:.0f} times as fast)")
    print(f"{BATCH} pairs at once      {batch / BATCH:8.2f}   ({BATCH * loop / batch:.0f} times as fast)")


if __name__ == "__main__":
    main()
