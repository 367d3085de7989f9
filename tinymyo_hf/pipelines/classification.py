"""`pipeline("emg-classification", model=...)`: a label for each window and for the recording."""

from typing import Any

from tinymyo_hf.pipelines.base import EmgPipeline, forward_windows
from tinymyo_hf.tasks.classification import ClassificationTask


class EmgClassificationPipeline(ClassificationTask, EmgPipeline):
    """Labels of recordings of any length, window by window and in total.

    `__call__` takes, beyond what all pipelines take, `top_k`: how many labels `scores` lists; all by default.
    As all pipelines over windows, it takes `window_length` and `stride`, samples at the model's rate, instead of the
    feature extractor's, and `batch_size`, windows at once, also of several recordings.

    For each recording it returns {"label", "score", "scores", "windows"}. `scores` are the labels' probabilities, mean
    over the windows, in falling order; label and score are the first of them. `windows` lists {"start", "end"
    (seconds), "label", "score"} in order of time; samples after the last full window have no prediction.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> classify = pipeline("emg-classification", model="my-checkpoint")            # doctest: +SKIP
        >>> classify("recording.csv", sampling_rate=200)["label"]                       # doctest: +SKIP
        'fist'
    """

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return forward_windows(self, model_inputs)
