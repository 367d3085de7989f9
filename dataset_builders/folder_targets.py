"""Regression targets that come at a rate of their own, brought to the frames of a processed recording."""

import numpy as np

from .errors import RecordingError

TOLERANCE = 0.05
"""Recording and targets may differ in duration by this share: more is a wrong rate or a file that was cut off."""

SAMPLES_NOTE = "samples after the last target"
TARGETS_NOTE = "targets after the last sample"


def common_length(frames: int, target_rate: float, samples: int, rate: float, where: str) -> tuple[int, dict[str, int]]:
    """How many samples of a recording have targets; a target holds until the next would come.

    Args:
        frames, target_rate: number of targets, and how many come per second.
        samples, rate: the same of the recording.
        where: names the targets in messages.

    Returns:
        The samples to keep, and what is left over on either side, counted.

    Raises:
        RecordingError: the durations differ by more than `TOLERANCE`, and by more than one target.
    """
    covered = round(frames / target_rate * rate)
    surplus = samples - covered
    if abs(surplus) > max(TOLERANCE * max(samples, covered), rate / target_rate):
        raise RecordingError(
            f"{where}: {frames} targets at {target_rate:g} Hz last {frames / target_rate:.4g} s, but the recording "
            f"lasts {samples / rate:.4g} s; correct target_sampling_rate, or copy the shorter file again if it was cut "
            "off"
        )
    if surplus > 0:
        return covered, {SAMPLES_NOTE: surplus}
    unused = frames - -(-samples * target_rate // rate) if surplus else 0
    return samples, {TARGETS_NOTE: int(unused)} if unused > 0 else {}


def targets_at_frames(
    values: np.ndarray, target_rate: float, count: int, hop: int, rate: float, where: str
) -> np.ndarray:
    """Targets at the middle of each frame of `hop` samples, interpolated linearly; the last one holds.

    Args:
        values: (outputs, targets).
        target_rate: targets per second; the first belongs to the first sample.
        count, hop, rate: number of frames wanted, samples in each, and samples per second.
        where: names the targets in messages.

    Returns:
        float32 (count, outputs).

    Raises:
        RecordingError: a target is not a finite number.
    """
    if not np.isfinite(values).all():
        output, row = np.argwhere(~np.isfinite(values))[0]
        raise RecordingError(
            f"{where}: target {output} of row {row} (from 0) is not a finite number; correct it, or leave the "
            "recording out"
        )
    positions = (np.arange(count) * hop + (hop - 1) / 2) / rate * target_rate
    columns = [np.interp(positions, np.arange(values.shape[1]), row) for row in values]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which the builder refuses
        return np.stack(columns, axis=1).astype(np.float32)
