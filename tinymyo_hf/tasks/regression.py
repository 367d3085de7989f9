"""A trajectory for each recording."""

from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.blending import blend_windows, blended_window_starts
from tinymyo_hf.tasks.windows import WindowTask
from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing


class RegressionTask(WindowTask):
    """From logits (1, frames, outputs) of overlapping windows to what `pipeline("emg-regression")` returns."""

    head = "ForRegression"

    def cut(
        self, processed: np.ndarray, preprocessing: TinyMyoPreprocessing, name: str
    ) -> tuple[np.ndarray, list[int]]:
        """Windows that cover the recording; a shorter one is continued by its mirror image."""
        samples, length, stride = processed.shape[1], preprocessing.window_length, preprocessing.stride
        if stride > length:
            raise SignalError(
                f"stride={stride}: leaves gaps between windows of {length} samples; use at most {length}, or less for "
                "windows that overlap"
            )
        if samples < length / self._frames(preprocessing):
            raise SignalError(f"{name}: {samples} samples are less than a frame of the model; use a longer recording")
        if samples < length:
            processed = np.pad(processed, ((0, 0), (0, length - samples)), mode="symmetric")
        return processed, blended_window_starts(samples, length, stride, self._frames(preprocessing))

    def place(self, start: int, samples: int, preprocessing: TinyMyoPreprocessing) -> dict[str, Any]:
        """Its frames among those of the recording."""
        frames, length = self._frames(preprocessing), preprocessing.window_length
        return {
            "first_frame": start * frames // length,
            "recording_frames": samples * frames // length,
            "frame_length": length / frames,  # in samples
            "sampling_rate": preprocessing.sampling_rate,
        }

    def result(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Blended values, and their times."""
        last, labels = outputs[-1], self.model_config.id2label
        covered = last["first_frame"] + last["logits"].shape[1]
        values = blend_windows(
            ((output["first_frame"], output["logits"][0]) for output in outputs),
            num_frames=min(last["recording_frames"], covered),
        )
        centres = (np.arange(len(values)) + 0.5) * last["frame_length"] - 0.5  # a sample lies at its own index
        return {
            "values": values,
            "times": centres / last["sampling_rate"],
            "names": [labels[i] for i in range(len(labels))],
            "sampling_rate": last["sampling_rate"] / last["frame_length"],
        }

    def _frames(self, preprocessing: TinyMyoPreprocessing) -> int:
        return self.model_config.target_length or preprocessing.window_length
