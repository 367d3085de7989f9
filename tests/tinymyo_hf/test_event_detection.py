"""Windowed inference and detection of events, against values worked out by hand and against a slow construction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tinymyo_hf.event_detection import (
    FrameGrid,
    average_logits,
    detect_events,
    sigmoid,
    window_starts,
)
from tinymyo_hf.event_inference import event_logits
from tinymyo_hf.signal import SignalError

NAMES = ("index_press", "index_release", "middle_press", "middle_release", "thumb_click")
GRID = FrameGrid()


def rows(frames, **above):
    """Probabilities (frames, 5) of 0.1, and of 0.9 in the given frames of a gesture; times of 10 ms per frame."""
    probabilities = np.full((frames, len(NAMES)), 0.1)
    for name, where in above.items():
        probabilities[where, NAMES.index(name)] = 0.9
    return probabilities, np.arange(frames) / 100


def detected(*arguments, **options):
    events = detect_events(*arguments, NAMES, **options)
    return [(NAMES[label], round(time, 6)) for label, time in zip(events.labels, events.times, strict=True)]


def test_an_event_is_an_upward_crossing():
    # above at frames 3-5 and 9: two crossings; equal to the threshold counts as above
    probabilities, times = rows(12, thumb_click=[3, 4, 5, 9])
    probabilities[9, 4] = 0.35
    assert detected(probabilities, times) == [("thumb_click", 0.03), ("thumb_click", 0.09)]
    assert detected(probabilities, times, threshold=0.36) == [("thumb_click", 0.03)]
    assert detected(*rows(4, thumb_click=[0, 1])) == [("thumb_click", 0.0)]  # already above at the start
    assert detected(*rows(4, thumb_click=[3])) == [("thumb_click", 0.03)]
    assert detected(*rows(4)) == []


def test_simultaneous_events_come_in_the_order_of_the_labels():
    assert detected(*rows(9, thumb_click=[2], index_release=[2]), debounce=0.0) == [
        ("index_release", 0.02),
        ("thumb_click", 0.02),
    ]


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        # 40 ms apart, neither is a release: one event
        ({"index_press": [10], "thumb_click": [14]}, [("index_press", 0.10)]),
        # 50 ms apart: not closer than 50 ms
        ({"index_press": [10], "thumb_click": [15]}, [("index_press", 0.10), ("thumb_click", 0.15)]),
        # the same release within 20 ms: one; another release: two; a release after a press: two
        ({"index_release": [10, 12]}, [("index_release", 0.10)]),
        ({"index_release": [10], "middle_release": [12]}, [("index_release", 0.10), ("middle_release", 0.12)]),
        ({"index_press": [10], "index_release": [12]}, [("index_press", 0.10), ("index_release", 0.12)]),
        # compared with the last that was kept: 0.13 is dropped, 0.16 is 60 ms after 0.10
        ({"thumb_click": [10, 13, 16]}, [("thumb_click", 0.10), ("thumb_click", 0.16)]),
        # ... which is the release, so that the click 20 ms after the press is kept
        (
            {"index_press": [10], "index_release": [11], "thumb_click": [12]},
            [("index_press", 0.10), ("index_release", 0.11), ("thumb_click", 0.12)],
        ),
    ],
)
def test_debounce(above, expected):
    assert detected(*rows(30, **above)) == expected


def test_scores_are_the_peak_above_the_threshold():
    probabilities, times = rows(10)
    probabilities[:, 4] = [0.4, 0.6, 0.1, 0.2, 0.5, 0.34, 0.9, 0.95, 0.8, 0.7]
    probabilities[7:9, 0] = 0.5
    events = detect_events(probabilities, times, NAMES, debounce=0.0)
    assert events.labels.tolist() == [4, 4, 4, 0]
    assert events.scores.tolist() == [0.6, 0.5, 0.95, 0.5]


def test_what_cannot_be_detected():
    with pytest.raises(SignalError, match="frames, labels"):
        detect_events(np.zeros((5, 4)), np.arange(5), NAMES)
    with pytest.raises(SignalError, match="frame 2 are not finite"):
        detect_events(np.where(np.arange(4)[:, None] == 2, np.nan, np.zeros((4, 5))), np.arange(4), NAMES)


def test_frames_and_their_times():
    assert GRID.count(16_000) == 1598  # as published
    assert [GRID.count(n) for n in (0, 20, 21, 30, 31)] == [0, 0, 1, 1, 2]
    assert GRID.times(3).tolist() == [0.010, 0.015, 0.020]  # samples 20, 30, 40 at 2 kHz


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (100, [0]),
        (16_000, [0]),
        (16_001, [0, 4_000]),
        (20_000, [0, 4_000]),
        (29_999, [0, 4_000, 8_000, 12_000, 16_000]),
    ],
)
def test_windows_cover_the_recording(length, starts):
    assert window_starts(length, GRID, 16_000, 4_000) == starts


def test_a_tail_without_a_frame_makes_no_window():
    # the windows of 101 samples have 9 frames each, as has the recording of 102: 12 samples from 90 on make no other
    assert window_starts(102, GRID, 101, 90) == [0]
    assert window_starts(111, GRID, 101, 90) == [0, 90]
    assert event_logits(LastSamples(), np.ones((2, 102), np.float32), 2000, 101, 90).shape == (9, 2)


def test_settings_that_would_leave_frames_out():
    for window_length, stride in ((16_000, 4_005), (16_000, 16_000), (16_000, 0)):
        with pytest.raises(SignalError, match=f"stride={stride}"):
            window_starts(50_000, GRID, window_length, stride)
    with pytest.raises(SignalError, match="20 samples has no frame"):
        window_starts(20, GRID, 16_000, 4_000)
    with pytest.raises(SignalError, match="do not cover"):
        average_logits([(0, np.zeros((3, 2)))], 500, GRID)


class LastSamples(torch.nn.Module):
    """Logits of a frame: the sum of the samples it sees, and the number of its window's frames before it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(stem_kernel_size=21, stem_stride=10)
        self.batches = []

    def forward(self, input_values):
        self.batches.append(tuple(input_values.shape))
        sums = input_values.sum(1).unfold(-1, 21, 10).sum(-1) * self.weight
        return SimpleNamespace(logits=torch.stack([sums, torch.arange(sums.shape[1]).expand_as(sums)], -1))


@pytest.mark.parametrize("length", [21, 90, 200, 201, 455, 1000])
def test_windowed_logits_are_means_over_the_windows_of_a_frame(length):
    model, signal = LastSamples(), np.random.default_rng(length).normal(size=(3, length)).astype(np.float32)
    logits = event_logits(model, signal, 2000, window_length=200, stride=50, batch_size=2)
    assert logits.shape == (GRID.count(length), 2)
    for k, (total, position) in enumerate(logits):
        assert total == pytest.approx(signal[:, 10 * k : 10 * k + 21].sum(), abs=1e-4)
        starts = [s for s in window_starts(length, GRID, 200, 50) if s <= 10 * k and 10 * k + 21 <= s + 200]
        assert position == pytest.approx(np.mean([k - s / 10 for s in starts]))
    assert max(batch for batch, _, _ in model.batches) <= 2


def test_sigmoid():
    assert sigmoid(np.array([0.0, np.log(3), -1000.0, 1000.0])).tolist() == pytest.approx([0.5, 0.75, 0.0, 1.0])
