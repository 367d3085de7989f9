"""Sessions of typing on a keyboard of few keys, each of which shows on a channel of its own."""

import datasets
import numpy as np

from dataset_builders.base import EmgBuilder, Events, Recording, Signal

RATE = 2000
KEYS = ("a", "b", " ", "⌫")
SECONDS = {"train": (4.5, 3.1, 2.0), "validation": (2.6, 0.7), "test": (3.3, 2.1)}
WINDOW = {"window_length": 2000, "stride": 2000}


def typed(name: str, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Ids and samples of the keystrokes of a session, about 7 a second."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    starts = np.cumsum(rng.uniform(0.1, 0.2, int(seconds / 0.1))) * RATE
    starts = starts[starts < seconds * RATE - 200].round()
    return rng.integers(len(KEYS), size=len(starts)), starts


class TinyTyping(EmgBuilder):
    """Eight channels of faint noise; channel i is 5 for 60 ms from a stroke of key i on."""

    def task(self):
        return "events"

    def class_names(self):
        return KEYS

    def num_channels(self):
        return 8

    def list_recordings(self, root):
        return [
            Recording("", f"{split}{number}", f"s{number % 2}", f"{split}{number}", split)
            for split, lengths in SECONDS.items()
            for number in range(len(lengths))
        ]

    def read_recording(self, recording):
        seconds = SECONDS[recording.split][int(recording.name[-1])]
        ids, starts = typed(recording.name, seconds)
        signal = np.random.default_rng(1).normal(0, 0.05, (8, round(seconds * RATE))).astype(np.float32)
        for key, start in zip(ids, starts.astype(int), strict=True):
            signal[key, start : start + 120] = 5
        return Signal(signal, RATE, events=Events(tuple(KEYS[i] for i in ids), starts, starts + 100))


def tiny_typing(folder, **options):
    """`(DatasetDict, feature extractor)`, as `load_corpus` returns them."""
    fields = {
        "rows": "recordings", "chunk_length": 1500, "band_pass": None, "notch_frequencies": (),
        "normalization": "none", "sampling_rate": RATE, **WINDOW,
    }  # fmt: skip
    builder = TinyTyping(cache_dir=str(folder), **fields | options)
    builder.download_and_prepare()
    return builder.as_dataset(), builder.extractor


def changed(corpus: datasets.DatasetDict, split: str, change) -> datasets.DatasetDict:
    """The corpus with the rows of a split changed by a function."""
    return datasets.DatasetDict(corpus) | {split: corpus[split].map(change)}
