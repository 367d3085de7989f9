"""Typing with onnxruntime: a recording at once, or in windows where memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinymyo_hf.onnx.pipelines import ONNXPipeline
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.base import Chunk, RecordingInput
from tinymyo_hf.tasks.text import TextTask

_SCORES_AT_ONCE = 3
"""Arrays of attention scores that are alive together: as they are, masked, and normalised."""


class ONNXTypingPipeline(TextTask, ONNXPipeline):
    """The text of typing, see `EmgToTextPipeline`. Each frame attends to all others, or all before it, in one piece:
    memory grows with the square of the recording's length, 100 frames a second.

    `__call__` takes, beyond what that does, `window_length`: longer recordings go through the model in windows of so
    many samples at its rate, which overlap by half; the logits of a frame are those of the window in which it lies
    nearest to the middle. They are not quite those of the whole recording, as a frame sees less of it, and some models
    normalise by the window.
    """

    def split_settings(
        self, window_length: int | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `EmgTask`."""
        reading, making = super().split_settings(**settings)
        if window_length is None:
            return reading, making
        least = self.model_config.receptive_field + 2 * self.model_config.hop_length
        if window_length < least:
            raise SignalError(f"window_length={window_length}: at least {least} samples, a few frames")
        return reading | {"window_length": window_length}, making

    def chunks(self, inputs: RecordingInput, window_length: int | None = None, **settings: Any) -> Iterator[Chunk]:
        """See `EmgTask`; the recording, or windows of it."""
        (chunk,) = super().chunks(inputs, **settings)
        values = chunk.pop("input_values")
        samples = values.shape[2]
        if window_length is None or window_length >= samples:
            window_length = samples
        self._check_memory(window_length)
        hop = self.model_config.hop_length
        last = (samples - window_length) // hop * hop
        starts = [*range(0, last, window_length // 2 // hop * hop), last]
        for start in starts:
            end = samples if start == last else start + window_length
            yield chunk | {
                "input_values": values[:, :, start:end],
                "first_frame": start // hop,
                "is_last": start == last,
            }

    def result(self, outputs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """See `EmgTask`."""
        return super().result([{"logits": _nearest_to_the_middle(outputs)}], **options)

    def _check_memory(self, samples: int) -> None:
        """Raise `SignalError` rather than have the process killed."""
        config = self.model_config
        needed = _SCORES_AT_ONCE * 4 * config.num_attention_heads * config.num_frames(samples) ** 2
        if needed > _memory():
            seconds = samples / self.preprocessing.sampling_rate
            raise SignalError(
                f"recording: {seconds:.0f} s at once take {needed / 2**30:.1f} GiB for attention, more than this "
                f"machine has; pass window_length, for instance {round(4 * self.preprocessing.sampling_rate)} samples"
            )


def _nearest_to_the_middle(outputs: list[dict[str, Any]]) -> np.ndarray:
    """Of each frame the logits of the window in whose middle it lies, (1, frames of the recording, vocabulary)."""
    firsts = [output["first_frame"] for output in outputs]
    ends = [first + output["logits"].shape[1] for first, output in zip(firsts, outputs, strict=True)]
    changes = [0, *((end + first) // 2 for end, first in zip(ends[:-1], firsts[1:], strict=True)), ends[-1]]
    return np.concatenate(
        [
            output["logits"][:, begin - first : end - first]
            for output, first, begin, end in zip(outputs, firsts, changes[:-1], changes[1:], strict=True)
        ],
        axis=1,
    )


def _memory() -> float:
    """Bytes of this machine; without bound where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")
