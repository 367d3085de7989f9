"""Pipelines: `pipeline("emg-classification", model=...)`."""

from transformers.pipelines import Pipeline


class EmgClassificationPipeline(Pipeline):
    """Labels of a recording of any length, window by window and in total."""
