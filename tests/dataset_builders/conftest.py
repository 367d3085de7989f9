"""Small corpora in the layouts of the real ones."""

from pathlib import Path

import datasets
import pytest
from uci_files import GESTURES, uci_lines, write_uci_file


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    """No progress bars, and a cache of its own for every test."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_datasets")
    yield
    datasets.enable_progress_bars()


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
