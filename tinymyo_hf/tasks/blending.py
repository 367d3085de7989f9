"""Overlapping windows of frames joined to one trajectory."""

import math
from collections.abc import Iterable

import numpy as np


def blended_window_starts(samples: int, window_length: int, stride: int, frames: int) -> list[int]:
    """First samples of windows that together cover a recording, the last of them aligned to its end.

    Args:
        samples: of the recording; windows of a shorter one than `window_length` start at 0, and reach beyond its end.
        stride: samples between windows, at most `window_length`.
        frames: that the model makes of a window. Windows start where a frame does on a grid that they all share, so
            that overlapping frames coincide: every `window_length / gcd(window_length, frames)` samples, to which
            starts are rounded down. No more samples than that remain uncovered at the end, none where a window has a
            frame per sample.

    Returns:
        Starts in order of time, without repetitions, the first of them 0.
    """
    grid = window_length // math.gcd(window_length, frames)
    last = max(samples - window_length, 0) // grid * grid
    return sorted({start // grid * grid for start in range(0, last, stride)} | {last})


def blend_windows(windows: Iterable[tuple[int, np.ndarray]], num_frames: int) -> np.ndarray:
    """Weighted mean of overlapping windows, each weighted by a Hann window: the middle counts most.

    The weights are divided by their sum over the windows that cover a frame. Where only one does, at the edges of the
    recording, its values stay as they are.

    Args:
        windows: first frame and values (frames, outputs) of each window; what lies beyond `num_frames` is left out.
        num_frames: of the recording; each of them in at least one window.

    Returns:
        float32 (num_frames, outputs).
    """
    total = weights = None
    for first, values in windows:
        if total is None:
            total, weights = np.zeros((num_frames, values.shape[1])), np.zeros((num_frames, 1))
        # Frames are centred half a frame from the window's edges: none has the weight 0.
        hann = np.sin(np.pi * (np.arange(len(values)) + 0.5) / len(values))[:, None] ** 2
        inside = slice(0, num_frames - first)
        total[first : first + len(values)] += (hann * values)[inside]
        weights[first : first + len(values)] += hann[inside]
    return (total / weights).astype(np.float32)
