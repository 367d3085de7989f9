"""`pipeline("emg-regression", model=...)`: a trajectory for each recording."""

from typing import Any

from tinymyo_hf.pipelines.base import EmgPipeline, forward_windows
from tinymyo_hf.tasks.regression import RegressionTask


class EmgRegressionPipeline(RegressionTask, EmgPipeline):
    """Trajectories (joint angles, degrees of actuation, forces) of recordings of any length.

    Overlapping windows are blended with Hann weights; a smaller `stride` smooths more and takes longer. As all
    pipelines over windows, `__call__` takes `window_length` and `stride`, samples at the model's rate, instead of the
    feature extractor's, and `batch_size`, windows at once, also of several recordings.

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

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return forward_windows(self, model_inputs)
