"""When each character of a decoded text was said: the best alignment of the text with the logits of its model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def align_ids(logits: ArrayLike, ids: Sequence[int], blank: int) -> list[tuple[int, int]] | None:
    """The most probable way in which the frames spell `ids`, of all that CTC collapses to them (Viterbi).

    Args:
        logits: (frames, vocabulary), of any scale: a constant added to a frame changes nothing.
        ids: of the characters, without blanks.
        blank: id of the blank.

    Returns:
        The first and the last frame of each character; None if there are too few frames for so many characters.

    Examples:
        >>> align_ids(np.eye(3)[[2, 0, 0, 2, 1, 2]], [0, 1], blank=2)
        [(1, 2), (4, 4)]
    """
    scores = np.asarray(logits, dtype=np.float64)
    labels = np.full(2 * len(ids) + 1, blank)  # blanks before, between and after the characters
    labels[1::2] = ids
    skips = np.zeros(len(labels), bool)  # states that may follow the one before the last, leaving its blank out
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    best = np.full(len(labels), -np.inf)
    best[0] = 0.0  # before the first frame; the step of a frame leads on from it
    came_from = np.zeros((len(scores), len(labels)), np.int8)
    for frame, row in enumerate(scores):
        one = np.concatenate([[-np.inf], best[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf] * 2, best[:-2]])[: len(best)], -np.inf)
        moves = np.stack([best, one, two])
        came_from[frame] = moves.argmax(0)
        best = moves.max(0) + row[labels]
    ends = best[-2:] if len(ids) and len(scores) else best[-1:]
    if not np.isfinite(ends).any():
        return None
    state = len(labels) - len(ends) + int(ends.argmax())
    spans = [(-1, -1)] * len(ids)
    for frame in range(len(scores) - 1, -1, -1):
        if state % 2:
            last = spans[state // 2][1]
            spans[state // 2] = (frame, frame if last < 0 else last)
        state -= int(came_from[frame, state])
    return spans
