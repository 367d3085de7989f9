"""People who make the same gestures, some with other muscles: a generic classifier is wrong about them."""

import datasets
import numpy as np
import pyarrow as pa
from tiny_run import LABELS

from dataset_builders.windows import nested_array, window_features

CHANNELS, TIME, REPETITIONS, WINDOWS = 4, 40, 4, 5


def person(name: str, seed: int, swapped: bool = False, repetitions: int = REPETITIONS) -> datasets.Dataset:
    """Noise windows in which the channel of the gesture is twice as strong; one who is swapped uses the next one.

    One recording, the gestures one after the other in every repetition.
    """
    rng = np.random.default_rng(seed)
    repetition, label = (
        np.repeat(column, WINDOWS)
        for column in zip(*[(r, c) for r in range(1, repetitions + 1) for c in range(len(LABELS))], strict=True)
    )
    count = len(label)
    windows = rng.normal(size=(count, CHANNELS, TIME)).astype(np.float32)
    windows[np.arange(count), (label + swapped) % CHANNELS] *= 2.5
    columns = {
        "input_values": nested_array(windows),
        "label": pa.array(label),
        "subject": pa.array([name] * count),
        "session": pa.array(["1"] * count),
        "repetition": pa.array(repetition, pa.int32()),
        "recording": pa.array([f"{name}.csv"] * count),
        "start": pa.array(np.arange(count) * TIME),
    }
    return datasets.Dataset(pa.table(columns, schema=window_features(CHANNELS, TIME, LABELS).arrow_schema))


def people(*names: str, swapped: tuple[str, ...] = ()) -> datasets.Dataset:
    """Several of them, one after the other."""
    return datasets.concatenate_datasets(
        [person(name, seed=sum(map(ord, name)), swapped=name in swapped) for name in names]
    )
