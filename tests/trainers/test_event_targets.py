"""Targets and loss mask of events against a construction sample by sample, and by hand."""

import numpy as np
import pytest
import torch

from tinymyo_hf.event_detection import FrameGrid
from trainers.event_targets import EventTargets, collate_event_windows

NAMES = ("index_press", "index_release", "middle_press", "middle_release", "thumb_click")
TARGETS = EventTargets(NAMES, FrameGrid())


def item(length, *events):
    """A window of `length` samples with events (id, sample)."""
    return {
        "input_values": torch.zeros(2, length),
        "event_ids": torch.tensor([e[0] for e in events], dtype=torch.long),
        "event_starts": torch.tensor([e[1] for e in events], dtype=torch.float64),
    }


def runs(column):
    """(first, one after the last) of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(column).astype(int), [0]])))
    return list(map(tuple, edges.reshape(-1, 2).tolist()))


def by_samples(length, events):
    """Labels and mask as the specification words them: pulses at 2 kHz, taken at samples [20::10]; frame by frame."""
    pulses = np.zeros((length, len(NAMES)))
    for label, start in events:
        index = next((i for i in range(length) if i >= start), length)
        for sample in range(index + 160, min(index + 240, length)):
            pulses[sample, label] = 1
    labels = pulses[20::10]
    mask = np.ones_like(labels, bool)
    for press, release in ((0, 1), (2, 3)):
        onsets = [
            [k for k in range(len(labels)) if labels[k, c] and (k == 0 or not labels[k - 1, c])] for c in range(4)
        ]
        mask[:, release] = False
        for onset in onsets[press]:
            later = [k for k in onsets[release] if k > onset]
            last = later[0] + 7 if later else len(labels) - 1
            mask[onset : last + 1, release] = True
    return labels, mask


@pytest.mark.parametrize("seed", range(40))
def test_as_constructed_sample_by_sample(seed):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(21, 4000))
    starts = np.sort(rng.uniform(0, length, rng.integers(0, 8)))
    if seed % 4 == 0:
        starts = np.floor(starts)
    # pulses of one gesture that run into each other have one onset at samples, two as events
    starts = starts[np.append(True, np.diff(starts) > 90)[: len(starts)]]
    events = [(int(rng.integers(5)), start) for start in starts]
    made = TARGETS(item(length, *events))
    labels, mask = by_samples(length, events)
    np.testing.assert_array_equal(made["labels"], labels)
    np.testing.assert_array_equal(made["loss_mask"], mask)
    assert (made["labels"].dtype, made["loss_mask"].dtype) == (torch.float32, torch.bool)


def test_by_hand():
    # An event at sample 100: pulse at samples 260..339; frame k is at sample 20 + 10 k: frames 24 (260) to 31 (330).
    made = TARGETS(item(2000, (4, 100.0)))
    assert made["labels"].shape == (198, 5)
    assert runs(made["labels"][:, 4]) == [(24, 32)]
    # between samples 100 and 101: counts at 101, pulse 261..340, frames at 270..340
    assert runs(TARGETS(item(2000, (4, 100.5)))["labels"][:, 4]) == [(25, 33)]
    assert made["loss_mask"][:, [0, 2, 4]].all()
    assert not made["loss_mask"][:, [1, 3]].any()  # no press in the window


def test_a_release_counts_while_its_finger_is_pressed():
    # press at 100: onset frame 24; release at 1100: onset 124, counted to frame 131; afterwards not pressed
    made = TARGETS(item(4000, (0, 100.0), (1, 1100.0), (1, 3000.0)))
    assert runs(made["loss_mask"][:, 1]) == [(24, 132)]
    # never released: to the end (398 frames); the release before the press does not count
    assert runs(TARGETS(item(4000, (1, 50.0), (0, 1000.0)))["loss_mask"][:, 1]) == [(114, 398)]
    # the other finger's press and release do not matter
    made = TARGETS(item(4000, (2, 100.0), (1, 1100.0), (3, 2100.0)))
    assert runs(made["loss_mask"][:, 3]) == [(24, 232)]
    assert not made["loss_mask"][:, 1].any()


def test_at_the_ends_of_a_window():
    # the pulse of an event 0.1 s before the end is cut, that of one at the very end is outside
    assert runs(TARGETS(item(2000, (4, 1800.0)))["labels"][:, 4]) == [(194, 198)]
    assert not TARGETS(item(2000, (4, 1999.0)))["labels"].any()
    # a press whose pulse is outside leaves its release masked
    assert not TARGETS(item(2000, (0, 1999.0)))["loss_mask"][:, 1].any()
    assert TARGETS(item(2000, (4, 0.0)))["labels"].sum() == 8


def test_a_release_without_a_press_among_the_gestures_always_counts():
    made = EventTargets(("grip_release", "tap"), FrameGrid())(item(500))
    assert made["loss_mask"].all()


def test_events_are_found_again():
    events = [(0, 100.0), (4, 777.3), (1, 1100.9)]
    ids, times = TARGETS.event_times(TARGETS(item(4000, *events))["labels"].numpy())
    assert ids.tolist() == [0, 4, 1]
    late = times - np.array([start for _, start in events]) / 2000
    assert (late >= 0).all() and (late < 0.0055).all()


def test_other_rates_and_strides():
    # 1 kHz, kernel 10, stride 5: an event at sample 50 pulses at samples 130..169; frames are at 9 + 5 k: 25 to 32
    targets = EventTargets(("tap",), FrameGrid(10, 5, 1000.0))
    assert runs(targets(item(500, (0, 50.0)))["labels"][:, 0]) == [(25, 32 + 1)]


def test_batches():
    items = [TARGETS(item(500, (4, 0.0))), TARGETS(item(500))]
    batch = collate_event_windows(items)
    assert {name: tuple(values.shape) for name, values in batch.items()} == {
        "input_values": (2, 2, 500),
        "labels": (2, 48, 5),
        "loss_mask": (2, 48, 5),
    }
    items = [TARGETS(item(300, (4, 0.0))), TARGETS(item(500))]
    items[0]["input_values"] += 1
    batch = collate_event_windows(items)
    assert batch["input_values"].shape == (2, 2, 500)
    assert batch["input_values"].sum() == 600
    assert batch["attention_mask"].sum(1).tolist() == [300, 500]
    assert batch["labels"].shape == (2, 48, 5)
    assert not batch["loss_mask"][0, 28:].any()  # 28 frames are real
    assert (batch["labels"][0, 28:] == -100).all() and (batch["labels"][0, :28] >= 0).all()
