"""A corpus of a few hundred windows and a model of ten thousand weights, for tests that train."""

import datasets
import numpy as np
import pyarrow as pa

from dataset_builders.windows import nested_array, window_features

LABELS = ("rest", "fist", "open")
TINY_MODEL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "patch_size": 10,
}


def make_split(count: int, seed: int, subjects: tuple[str, ...], channels: int = 4, time: int = 40) -> datasets.Dataset:
    """Noise windows in which the channel of the gesture is twice as strong."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    windows = rng.normal(size=(count, channels, time)).astype(np.float32)
    windows[np.arange(count), labels] *= 2.0
    columns = {
        "input_values": nested_array(windows),
        "label": pa.array(labels),
        "subject": pa.array([subjects[i % len(subjects)] for i in range(count)]),
        "session": pa.array(["1"] * count),
        "repetition": pa.array(np.ones(count, np.int32)),
        "recording": pa.array(["r"] * count),
        "start": pa.array(np.arange(count)),
    }
    return datasets.Dataset(pa.table(columns, schema=window_features(channels, time, LABELS).arrow_schema))
