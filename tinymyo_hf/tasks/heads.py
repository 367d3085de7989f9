"""Which task a model is for."""

from collections.abc import Iterable

TASK_OF_HEAD = {
    "ForSequenceClassification": "emg-classification",
    "ForRegression": "emg-regression",
    "ForFrameClassification": "emg-events",
    "ForCTC": "emg-to-text",
    "ForSpeechSynthesis": "emg-to-audio",
}
"""By the end of the model's class name."""


def task_of(architectures: Iterable[str]) -> str | None:
    """The pipeline for a model of one of these classes (`config.architectures`); None if there is none."""
    tasks = (TASK_OF_HEAD[head] for name in architectures for head in TASK_OF_HEAD if name.endswith(head))
    return next(tasks, None)
