"""Pipelines: `pipeline("emg-classification", model=...)`, "emg-regression" and "emg-events"."""

from tinymyo_hf.pipelines.checkpoints import SavedModel, task_of
from tinymyo_hf.pipelines.classification import EmgClassificationPipeline
from tinymyo_hf.pipelines.events import EmgEventsPipeline
from tinymyo_hf.pipelines.regression import EmgRegressionPipeline

__all__ = ["EmgClassificationPipeline", "EmgEventsPipeline", "EmgRegressionPipeline", "SavedModel", "task_of"]
