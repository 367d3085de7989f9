"""Pipelines: `pipeline("emg-classification", model=...)`, "emg-regression", "emg-events", "emg-to-text"."""

from tinymyo_hf.pipelines.checkpoints import SavedModel, task_of
from tinymyo_hf.pipelines.classification import EmgClassificationPipeline
from tinymyo_hf.pipelines.events import EmgEventsPipeline
from tinymyo_hf.pipelines.regression import EmgRegressionPipeline
from tinymyo_hf.pipelines.text import EmgToTextPipeline

__all__ = [
    "EmgClassificationPipeline",
    "EmgEventsPipeline",
    "EmgRegressionPipeline",
    "EmgToTextPipeline",
    "SavedModel",
    "task_of",
]
