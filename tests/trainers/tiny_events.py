"""Recordings in which every gesture shows on a channel of its own, and a model that reads it off."""

from types import SimpleNamespace

import numpy as np
import torch

from dataset_builders.base import EmgBuilder, Events, Recording, Signal
from tinymyo_hf.tinymyo.configuration_tinymyo import NEUROMOTOR_GESTURES

RATE = 2000
SECONDS = {"train": (6.0, 6.0, 4.5), "validation": (3.0,), "test": (5.0, 0.9)}


def gestures_of(name: str, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Ids and samples of the events of a recording, every 0.3 s: presses, each with its release, and thumb gestures."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    ids: list[int] = []
    while len(ids) < seconds / 0.3 - 1:
        ids += [[0, 1], [2, 3], [4], [5], [6], [7], [8]][rng.integers(7)]
    samples = np.arange(len(ids)) * 0.3 * RATE + 0.1 * RATE + rng.uniform(0, 100, len(ids)).round(1)
    inside = samples < seconds * RATE - 300  # with their pulse
    return np.array(ids)[inside], samples[inside]


class TinyGestures(EmgBuilder):
    """Nine channels of faint noise; that of a gesture is 10 from 80 to 120 ms after its event."""

    def task(self):
        return "events"

    def class_names(self):
        return NEUROMOTOR_GESTURES

    def num_channels(self):
        return len(NEUROMOTOR_GESTURES)

    def list_recordings(self, root):
        return [
            Recording("", f"{split}{number}", f"s{split}{number}", "1", split)
            for split, lengths in SECONDS.items()
            for number in range(len(lengths))
        ]

    def read_recording(self, recording):
        seconds = SECONDS[recording.split][int(recording.name[-1])]
        ids, samples = gestures_of(recording.name, seconds)
        signal = np.random.default_rng(1).normal(0, 0.1, (9, round(seconds * RATE))).astype(np.float32)
        for gesture, sample in zip(ids, np.ceil(samples).astype(int), strict=True):
            signal[gesture, sample + 160 : sample + 240] = 10
        names = tuple(NEUROMOTOR_GESTURES[i] for i in ids)
        return Signal(signal, RATE, events=Events(names, samples, samples))


def tiny_gestures(folder, window_length=2000, stride=2000):
    """`(DatasetDict, feature extractor)`, as `load_corpus` returns them."""
    builder = TinyGestures(
        cache_dir=str(folder),
        rows="recordings",
        chunk_length=3000,
        band_pass=None,
        notch_frequencies=(),
        normalization="none",
        sampling_rate=RATE,
        window_length=window_length,
        stride=stride,
    )
    builder.download_and_prepare()
    return builder.as_dataset(), builder.extractor


class ReadsChannels(torch.nn.Module):
    """The probability of a gesture is nearly 1 where the last sample of its channel is above 5, else nearly 0."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(stem_kernel_size=21, stem_stride=10)

    def forward(self, input_values):
        return SimpleNamespace(logits=4 * (input_values[:, :, 20::10].transpose(1, 2) - 5) * self.weight)
