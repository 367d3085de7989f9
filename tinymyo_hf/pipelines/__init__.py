"""Pipelines: `pipeline("emg-classification", model=...)`, "emg-embedding", "emg-regression", "emg-events",
"emg-to-text", "emg-to-audio"."""

from tinymyo_hf.pipelines.audio import EmgToAudioPipeline
from tinymyo_hf.pipelines.checkpoints import SavedModel
from tinymyo_hf.pipelines.classification import EmgClassificationPipeline
from tinymyo_hf.pipelines.embedding import EmgEmbeddingPipeline
from tinymyo_hf.pipelines.events import EmgEventsPipeline
from tinymyo_hf.pipelines.regression import EmgRegressionPipeline
from tinymyo_hf.pipelines.text import EmgToTextPipeline
from tinymyo_hf.tasks.utterances import in_context

__all__ = [
    "EmgClassificationPipeline",
    "EmgEmbeddingPipeline",
    "EmgEventsPipeline",
    "EmgRegressionPipeline",
    "EmgToAudioPipeline",
    "EmgToTextPipeline",
    "SavedModel",
    "in_context",
]
