"""Small corpora in the layouts of the real ones."""

from pathlib import Path

import datasets
import numpy as np
import pytest

HEADER = "\t".join(["time", *(f"channel{i}" for i in range(1, 9)), "class"])


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    """No progress bars, and a cache of its own for every test."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_datasets")
    yield
    datasets.enable_progress_bars()


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


GESTURES = [(0, 90), *((label, 260) for label in range(1, 7)), (0, 30), *((label, 240) for label in range(1, 7))]


@pytest.fixture
def uci_dir(tmp_path) -> Path:
    """Three subjects, one per split, two series each; each series has two repetitions of six gestures."""
    root = tmp_path / "EMG_data_for_gestures-master"
    for subject in (1, 25, 31):
        for series in (1, 2):
            name = f"{series}_raw_data_1{series}-12_22.03.16.txt"
            write_uci_file(root / f"{subject:02d}" / name, uci_lines(GESTURES, seed=10 * subject + series))
    (root / "README.txt").write_text("EMG Pattern Database")
    return root
