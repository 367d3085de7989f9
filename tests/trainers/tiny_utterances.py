"""Sentences of a few words, of which every letter and space has a channel of its own; in silence more slowly."""

import datasets
import numpy as np

from dataset_builders.base import EmgBuilder, Recording, Signal

RATE, FRAME = 689.0625, 8
WORDS = ("ab", "ba", "cab", "bac")
PHONES = ("sil", "pau", "aa", "bb", "cc")
LETTERS = "^ abc"
MODES = {
    "train": ("voiced",) * 14 + ("silent",) * 8 + ("nonparallel",) * 8,
    "validation": ("silent",) * 4,
    "test": ("silent",) * 5,
}
WORDLESS = "train13"
"""Its text has no letters."""


def sentence(split, number):
    """The text as it is to be learned."""
    rng = np.random.default_rng([len(split), number])
    return " ".join(rng.choice(WORDS, rng.integers(2, 4)))


def spoken(split, number, mode):
    """EMG (4, time), phones (frames,)."""
    rng = np.random.default_rng([1, len(split), number])
    sounds = np.array([LETTERS.index(letter) for letter in f"^{sentence(split, number)}^"])
    pace = 4 if mode == "silent" else 3
    sounds[[0, -1]] = 0
    phones = np.repeat(sounds, rng.integers(pace, pace + 2, len(sounds)))
    emg = rng.normal(0, 0.1, (4, len(phones) * FRAME + 3))  # not whole frames
    heard = np.repeat(phones, FRAME)
    emg[heard - 1, np.arange(len(heard))] += 3 * (heard > 0)
    return emg.astype(np.float32), phones


class TinyUtterances(EmgBuilder):
    """The utterances of `MODES`."""

    def task(self):
        return "text"

    def num_channels(self):
        return 4

    def target_names(self):
        return ("loudness",)

    def phone_names(self):
        return PHONES

    def metadata_features(self):
        return {"mode": datasets.Value("string")}

    def list_recordings(self, root):
        return [
            Recording("", f"{split}{number}", f"p{number % 2}", f"{split}{number}", split)
            for split, modes in MODES.items()
            for number in range(len(modes))
        ]

    def read_recording(self, recording):
        number = int(recording.name.removeprefix(recording.split))
        mode = MODES[recording.split][number]
        emg, phones = spoken(recording.split, number, mode)
        words = sentence(recording.split, number).capitalize()
        text = "... ?" if recording.name == WORDLESS else words.replace(" ", " - ", 1) + "."
        loudness = np.minimum(phones[:, None], 1).astype(np.float32)
        return Signal(emg, RATE, targets=loudness, phones=phones, aligned=False, text=text, metadata={"mode": mode})


def tiny_utterances(folder, **options):
    """`(DatasetDict, feature extractor)`, as `load_corpus` returns them."""
    fields = {
        "rows": "recordings", "chunk_length": None, "band_pass": None, "notch_frequencies": (), "normalization": "none",
        "sampling_rate": RATE, "target_hop": FRAME, "patch_size": FRAME, "window_length": 160, "stride": 160,
    }  # fmt: skip
    builder = TinyUtterances(cache_dir=str(folder), **fields | options)
    builder.download_and_prepare()
    return builder.as_dataset(), builder.extractor
