"""Files of UCI EMG as the corpus has them."""

from pathlib import Path

import numpy as np

HEADER = "\t".join(["time", *(f"channel{i}" for i in range(1, 9)), "class"])
# (class, rows) of a series: two repetitions of six gestures
GESTURES = [(0, 90), *((label, 260) for label in range(1, 7)), (0, 30), *((label, 240) for label in range(1, 7))]


def uci_lines(segments: list[tuple[int, int]], seed: int = 0) -> list[str]:
    """Lines of a series file, header included: (class, number of rows) one after the other."""
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.full(length, label) for label, length in segments])
    steps = rng.integers(-60, 60, (len(classes), 8))
    rows = [
        "\t".join([str(4 * i + 1), *(f"{value}e-05" if value else "0" for value in row), str(label)])
        for i, (row, label) in enumerate(zip(steps, classes, strict=True))
    ]
    return [HEADER, *rows]


def write_uci_file(path: Path, lines: list[str], end: str = "\r\n") -> Path:
    """Write lines as the corpus does: CRLF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())
    return path
