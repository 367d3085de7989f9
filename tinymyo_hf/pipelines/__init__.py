"""Pipelines: `pipeline("emg-classification", model=...)`, "emg-regression" and "emg-events"."""

from tinymyo_hf.pipelines.base import TASK_OF_HEAD, EmgPipeline, head_of
from tinymyo_hf.pipelines.classification import EmgClassificationPipeline
from tinymyo_hf.pipelines.events import EmgEventsPipeline
from tinymyo_hf.pipelines.regression import EmgRegressionPipeline

__all__ = [
    "TASK_OF_HEAD",
    "EmgClassificationPipeline",
    "EmgEventsPipeline",
    "EmgPipeline",
    "EmgRegressionPipeline",
    "head_of",
]
