"""`pipeline("emg-regression", model=...)`: a trajectory for each recording."""

from typing import Any

import numpy as np

from tinymyo_hf.pipelines.base import EmgWindowPipeline
from tinymyo_hf.pipelines.blending import blend_windows, blended_window_starts
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor


class EmgRegressionPipeline(EmgWindowPipeline):
    """Trajectories (joint angles, degrees of actuation, forces) of recordings of any length.

    Overlapping windows are blended with Hann weights; a smaller `stride` smooths more and takes longer.

    For each recording it returns
    - "values": float32 (frames, outputs), in the units of the training targets;
    - "times": float64 (frames,), seconds from the first sample of the recording: the mean time of a frame's samples;
    - "names": of the outputs, `config.id2label`;
    - "sampling_rate": frames per second, `config.target_length / window_length` (1 by default) per sample.

    The frames cover the whole recording: a further window ends where it does, and a recording shorter than a window is
    continued by its mirror image, whose frames are cut off. Less than a frame's length can remain at the end (where
    neither of window_length and target_length is a multiple of the other: as much as they take to fall together).

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> track = pipeline("emg-regression", model="my-checkpoint")                   # doctest: +SKIP
        >>> track("recording.csv", sampling_rate=200)["values"].shape                   # doctest: +SKIP
        (12345, 5)
    """

    head = "ForRegression"

    def cut(self, processed: np.ndarray, extractor: TinyMyoFeatureExtractor, name: str) -> tuple[np.ndarray, list[int]]:
        samples, length, stride = processed.shape[1], extractor.window_length, extractor.stride
        if stride > length:
            raise SignalError(
                f"stride={stride}: leaves gaps between windows of {length} samples; use at most {length}, or less for "
                "windows that overlap"
            )
        if samples < length / self._frames(extractor):
            raise SignalError(f"{name}: {samples} samples are less than a frame of the model; use a longer recording")
        if samples < length:
            processed = np.pad(processed, ((0, 0), (0, length - samples)), mode="symmetric")
        return processed, blended_window_starts(samples, length, stride, self._frames(extractor))

    def place(self, start: int, samples: int, extractor: TinyMyoFeatureExtractor) -> dict[str, Any]:
        frames, length = self._frames(extractor), extractor.window_length
        return {
            "first_frame": start * frames // length,
            "recording_frames": samples * frames // length,
            "frame_length": length / frames,  # in samples
            "sampling_rate": extractor.sampling_rate,
        }

    def _frames(self, extractor: TinyMyoFeatureExtractor) -> int:
        return self.model.config.target_length or extractor.window_length

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        logits = self.model(model_inputs.pop("input_values").to(self.model.dtype)).logits
        return {"logits": logits.float(), **model_inputs}

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> dict[str, Any]:
        last, labels = model_outputs[-1], self.model.config.id2label
        covered = last["first_frame"] + last["logits"].shape[1]
        values = blend_windows(
            ((output["first_frame"], output["logits"][0].numpy()) for output in model_outputs),
            num_frames=min(last["recording_frames"], covered),
        )
        centres = (np.arange(len(values)) + 0.5) * last["frame_length"] - 0.5  # a sample lies at its own index
        return {
            "values": values,
            "times": centres / last["sampling_rate"],
            "names": [labels[i] for i in range(len(labels))],
            "sampling_rate": last["sampling_rate"] / last["frame_length"],
        }
