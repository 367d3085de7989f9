"""Sentences of three sounds, each with a spectrum and a channel of its own; in silence, with another channel."""

import datasets
import numpy as np

from dataset_builders.base import EmgBuilder, Recording, Signal

RATE, FRAME = 689.0625, 8
PHONES = ("sil", "aa", "ss")
MODES = {
    "train": ("voiced",) * 6 + ("nonparallel",) * 3 + ("silent",) * 6,
    "validation": ("silent",) * 2,
    "test": ("silent",) * 3,
}
BANDS = np.arange(80)
SPECTRA = np.stack([-9.0 + 0 * BANDS, -2 - 6 * (BANDS > 30), -8 + 6 * (BANDS > 50)]).astype(np.float32)


def said(split, number):
    """Phones of a sentence, one per sound, and frames of each as it is read aloud."""
    rng = np.random.default_rng([len(split), number % 6])  # silent sentences of the training split are the voiced ones
    sounds = np.r_[0, rng.permutation([1, 2, 1, 2, 0, 1, 2]), 0]
    return sounds, rng.integers(4, 9, len(sounds))


def spoken(split, number, mode):
    """EMG (4, time), targets (frames, 80), phones (frames,) and text of an utterance."""
    sounds, lengths = said(split, number)
    rng = np.random.default_rng([1, len(split), number])
    phones = np.repeat(sounds, lengths)
    heard = phones if mode != "silent" else np.repeat(sounds, np.maximum(lengths + rng.integers(-2, 4, len(sounds)), 2))
    channel = np.array([0, 1, 2] if mode != "silent" else [0, 3, 1])  # what is "aa" aloud is "ss" in silence
    emg = rng.normal(0, 0.1, (4, len(heard) * FRAME))
    emg[np.repeat(channel[heard], FRAME), np.arange(emg.shape[1])] += 5 * np.repeat(heard > 0, FRAME)
    targets = SPECTRA[phones] + rng.normal(0, 0.1, (len(phones), 80)).astype(np.float32)
    text = " ".join(PHONES[sound] for sound in sounds if sound)
    return emg.astype(np.float32), targets.astype(np.float32), phones, text


class TinySpeech(EmgBuilder):
    """The utterances of `MODES`."""

    def task(self):
        return "text"

    def num_channels(self):
        return 4

    def target_names(self):
        return tuple(f"mel {band}" for band in BANDS)

    def phone_names(self):
        return PHONES

    def metadata_features(self):
        return {"mode": datasets.Value("string")}

    def list_recordings(self, root):
        return [
            Recording("", f"{split}{number}", "1", f"{split}{number}", split)
            for split, modes in MODES.items()
            for number in range(len(modes))
        ]

    def read_recording(self, recording):
        number = int(recording.name.removeprefix(recording.split))
        mode = MODES[recording.split][number]
        emg, targets, phones, text = spoken(recording.split, number, mode)
        aligned = mode != "silent"
        return Signal(emg, RATE, targets=targets, phones=phones, aligned=aligned, text=text, metadata={"mode": mode})


def tiny_speech(folder, **options):
    """`(DatasetDict, feature extractor)`, as `load_corpus` returns them."""
    fields = {
        "rows": "recordings", "chunk_length": None, "band_pass": None, "notch_frequencies": (), "normalization": "none",
        "sampling_rate": RATE, "target_hop": FRAME, "patch_size": FRAME, "window_length": 160, "stride": 160,
    }  # fmt: skip
    builder = TinySpeech(cache_dir=str(folder), **fields | options)
    builder.download_and_prepare()
    return builder.as_dataset(), builder.extractor
