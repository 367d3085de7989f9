"""A corpus of a few recordings whose channels get stronger with the angles, for tests of regression."""

import datasets
import numpy as np
import pyarrow as pa

from dataset_builders.windows import nested_array, window_features
from tinymyo_hf import TinyMyoFeatureExtractor

OUTPUTS = ("output 1", "output 2")
LENGTH, STRIDE, FRAMES = 40, 20, 20


def make_recording(seed: int, samples: int = 400, channels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(channels, samples) noise and (samples / 2, 2) angles that set the strength of its channels, a frame per two
    samples."""
    rng = np.random.default_rng(seed)
    times = np.arange(samples) / samples
    angles = np.stack([np.sin(2 * np.pi * (3 * times + rng.uniform())), np.cos(2 * np.pi * 2 * times)])
    strength = np.exp(np.stack([angles[0], -angles[0], angles[1], -angles[1]])[:channels])
    targets = np.array([[30.0], [50.0]]) + np.array([[20.0], [5.0]]) * angles
    return strength * rng.normal(size=(channels, samples)), targets.T.reshape(-1, 2, 2).mean(axis=1)


def make_split(seed: int, subjects: tuple[str, ...], recordings: int = 2) -> datasets.Dataset:
    """All windows of `recordings` recordings of each subject."""
    names = [(subject, f"{subject}{i}") for subject in subjects for i in range(recordings)]
    windows, targets, rows = [], [], []
    for number, (subject, name) in enumerate(names):
        signal, angles = make_recording(100 * seed + number)
        for start in range(0, signal.shape[1] - LENGTH + 1, STRIDE):
            windows.append(signal[:, start : start + LENGTH])
            targets.append(angles[start // 2 : start // 2 + FRAMES])
            rows.append((subject, name, start))
    columns = {
        "input_values": nested_array(np.array(windows, np.float32)),
        "targets": nested_array(np.array(targets, np.float32)),
        "subject": pa.array([row[0] for row in rows]),
        "session": pa.array(["1"] * len(rows)),
        "repetition": pa.array(np.ones(len(rows), np.int32)),
        "recording": pa.array([row[1] for row in rows]),
        "start": pa.array([row[2] for row in rows]),
    }
    features = window_features(len(windows[0]), LENGTH, target_shape=(FRAMES, len(OUTPUTS)))
    return datasets.Dataset(pa.table({name: columns[name] for name in features}, schema=features.arrow_schema))


def make_corpus() -> tuple[datasets.DatasetDict, TinyMyoFeatureExtractor]:
    """As `load_corpus` returns it."""
    splits = {
        "train": make_split(0, ("a", "b", "c")),
        "validation": make_split(1, ("d",)),
        "test": make_split(2, ("e", "f")),
    }
    extractor = TinyMyoFeatureExtractor(feature_size=4, window_length=LENGTH, stride=STRIDE, patch_size=10)
    return datasets.DatasetDict(splits), extractor
