"""What a frame classifier learns from events: a pulse after each event, and where releases count.

Source: "TinyMyo", section 3.2.2, and the released code of the paper and of the dataset's authors, which it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dataset_builders.continuous_view import IGNORED_LABEL
from tinymyo_hf.event_detection import PRESS, RELEASE, FrameGrid

PULSE = (0.08, 0.12)
"""s after an event, the end not included: when its frames are to be 1."""

FRAMES_AFTER_RELEASE = 7
"""A release counts up to so many frames after its pulse begins: to the end of a pulse of 40 ms at 200 Hz."""


@dataclass(frozen=True)
class EventTargets:
    """Transform of the items of a `ContinuousDataset` without context: adds `labels` and `loss_mask`.

    `labels` is float32 (frames, gestures): 1 in the frames that lie from 0.08 s up to 0.12 s after an event, counted in
    whole samples, else 0. Frame k lies at the last sample that it sees.

    `loss_mask` is bool (frames, gestures): False for a finger's release while the finger is not pressed, which a model
    need not tell from rest. It is True from the onset of a press to 7 frames after the onset of the next release, or to
    the end of the window; in a window without a press, nowhere. (The released code also masks a window in which there
    is a press and no release at all.)

    Only events in the window count, as in the released code: of an event shortly before it, whose pulse would reach
    into it, a causal model sees nothing. A finger held from before the window is not taken as pressed.

    Attributes:
        names: of the gestures, in the order of their ids; "X_press" and "X_release" belong to a finger X.
        grid: where the frames lie.
    """

    names: tuple[str, ...]
    grid: FrameGrid

    @property
    def fingers(self) -> list[tuple[int, int]]:
        """(press, release) ids of the fingers that have both."""
        ids = {name: i for i, name in enumerate(self.names)}
        pairs = [(name, name.removesuffix(PRESS) + RELEASE) for name in self.names if name.endswith(PRESS)]
        return [(ids[press], ids[release]) for press, release in pairs if release in ids]

    def __call__(self, item: dict) -> dict:
        frames = self.grid.count(item["input_values"].shape[-1])
        ids = np.asarray(item["event_ids"])
        begins, ends = self.pulses(np.asarray(item["event_starts"]))
        inside = begins < frames
        ids, begins, ends = ids[inside], begins[inside], np.minimum(ends[inside], frames)
        labels = _covered(ids, begins, ends, (frames, len(self.names)))
        mask = np.ones_like(labels)
        for press, release in self.fingers:
            mask[:, release] = _pressed(begins[ids == press], begins[ids == release], frames)
        return item | {"labels": torch.from_numpy(labels.astype(np.float32)), "loss_mask": torch.from_numpy(mask)}

    def pulses(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First frame of the pulses of events, and the one after the last.

        Args:
            positions: (events,) in samples from the window's first; an event between two samples counts at the later.
        """
        rate, grid = self.grid.sampling_rate, self.grid
        at = np.ceil(positions).astype(np.int64) - (grid.kernel_size - 1)
        begins, ends = (-(-(at + round(seconds * rate)) // grid.stride) for seconds in PULSE)
        return np.maximum(begins, 0), np.maximum(ends, 0)

    def event_times(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and times (s) of the events whose pulses `labels` (frames, gestures) shows, in order of time; up to one
        frame late, as frames are coarser than samples."""
        on = np.asarray(labels) > 0.5
        onsets = on.copy()
        onsets[1:] &= ~on[:-1]
        frames, ids = np.nonzero(onsets)
        return ids, np.maximum(self.grid.times(len(on))[frames] - PULSE[0], 0.0)


def _covered(ids: np.ndarray, begins: np.ndarray, ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool of `shape` (frames, gestures), True from `begins` up to `ends` of each event."""
    steps = np.zeros((shape[0] + 1, shape[1]), np.int64)
    np.add.at(steps, (begins, ids), 1)
    np.add.at(steps, (ends, ids), -1)
    return np.cumsum(steps[:-1], axis=0) > 0


def _pressed(presses: np.ndarray, releases: np.ndarray, frames: int) -> np.ndarray:
    """bool (frames,): from each press to the end of the pulse of the next release, or to the end."""
    releases = np.append(np.sort(releases), frames)  # the last stands for none
    following = releases[np.searchsorted(releases[:-1], presses, side="right")]
    ends = np.minimum(following + FRAMES_AFTER_RELEASE + 1, frames)
    return _covered(np.zeros(len(presses), np.int64), presses, ends, (frames, 1))[:, 0]


def collate_event_windows(items: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Items with `EventTargets` -> the batch that the model takes.

    `input_values` (batch, channels, time), `labels` float32 and `loss_mask` bool (batch, frames, gestures), and where
    the recordings differ in length, which are padded with zeros on the right, `attention_mask` (batch, time). Labels of
    frames beyond a recording are -100, as the library pads batches of different lengths.
    """
    lengths = [item["input_values"].shape[-1] for item in items]
    batch = {
        name: torch.nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True, padding_value=value)
        for name, value in (("labels", IGNORED_LABEL), ("loss_mask", False))
    }
    if min(lengths) == max(lengths):  # no mask: attention is faster without
        return batch | {"input_values": torch.stack([item["input_values"] for item in items])}
    signals = [item["input_values"].T for item in items]
    values = torch.nn.utils.rnn.pad_sequence(signals, batch_first=True).transpose(1, 2).contiguous()
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return batch | {"input_values": values, "attention_mask": mask}
