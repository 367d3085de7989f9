"""`pipeline(task, model=...)` over onnxruntime: the tasks of `tinymyo_hf.tasks` without torch or transformers."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.onnx.model import OnnxModel, OnnxModelError
from tinymyo_hf.tasks.base import Chunk, EmgTask, RecordingInput, several_or_one
from tinymyo_hf.tasks.windows import windows_at_once

_TASKS = {
    "emg-classification": "classification.ClassificationTask",
    "emg-regression": "regression.RegressionTask",
    "emg-events": "events.EventsTask",
    "emg-to-text": "text.TextTask",
    "emg-to-audio": "audio.AudioTask",
}
"""Where the class of each task is, below `tinymyo_hf.tasks`; each is imported when it is needed."""


class ONNXPipeline(EmgTask):
    """A pipeline over recordings of any length with an exported model; `pipeline` makes one.

    It is called as the transformers pipeline of its task is, and returns what that does: see
    `EmgClassificationPipeline`, `EmgRegressionPipeline`, `EmgEventsPipeline`, `EmgToTextPipeline` and
    `EmgToAudioPipeline`. Utterances run unpadded, those of one length together if `batch_size` allows. Of typing see
    `tinymyo_hf.onnx.typing.ONNXTypingPipeline`.

    Attributes:
        task, model: as given to `pipeline`.
        preprocessing: what is done to recordings first.
    """

    device = "cpu"

    def __init__(self, task: str, model: OnnxModel, batch_size: int | None, preprocessing: Any, **settings: Any):
        self.task, self.model = task, model
        self.preprocessing = model.preprocessing if preprocessing is None else preprocessing
        self.model_config, self.vocabulary = model.config, model.vocabulary
        self.source, self.find_file = str(model.path.parent), model.find_file
        self.check()
        self._batch_size = self._checked(batch_size) or self.chunks_at_once
        self._reading, self._making = self.split_settings(**settings)
        self.prepare(**self._making)

    def __call__(
        self, inputs: RecordingInput | Iterable[RecordingInput], batch_size: int | None = None, **settings: Any
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        """Predict one recording, or each of several.

        Args:
            inputs: a recording, or a list, iterator or data set of recordings. A recording is an array or nested list
                (channels, time), the path of a file (see `tinymyo_hf.recordings`), or {"raw": either of them,
                "sampling_rate": Hz}. An array of three axes is a batch of recordings.
            batch_size: windows (recordings, where they run whole) that go through the model together.
            settings: `sampling_rate`, `on_rate_mismatch`, `read_options`, and those of the task.

        Returns:
            A dictionary for a recording, a list of them for a list, an iterator for an iterator or data set.

        Raises:
            SignalError: (a ValueError) for recordings that cannot be read or do not suit the model.
            OnnxModelError: windows or recordings of another size than the model was exported for.
        """
        reading, making = self.split_settings(**settings)
        arguments = self._reading | reading, self._making | making, self._checked(batch_size) or self._batch_size
        inputs = several_or_one(inputs)
        if isinstance(inputs, list):
            return list(self._results(inputs, *arguments))
        if _is_one(inputs):
            return next(self._results([inputs], *arguments))
        return self._results(inputs, *arguments)

    def _results(
        self, recordings: Iterable[RecordingInput], reading: dict[str, Any], making: dict[str, Any], batch_size: int
    ) -> Iterator[dict[str, Any]]:
        chunks = (chunk for recording in recordings for chunk in self.chunks(recording, **reading))
        outputs: list[dict[str, Any]] = []
        for output in self._outputs(chunks, batch_size):
            outputs.append(output)
            if output["is_last"]:
                yield self.result(outputs, **making)
                outputs = []

    def _outputs(self, chunks: Iterator[Chunk], batch_size: int) -> Iterator[dict[str, Any]]:
        """What the model makes of each chunk; chunks of one length that follow each other share a call."""
        batch_size = self.model.shape[0] or batch_size
        filled = map(self._filled, chunks)
        for _, alike in groupby(filled, key=lambda chunk: chunk["input_values"].shape):
            while batch := list(islice(alike, batch_size)):
                values = np.concatenate([chunk.pop("input_values") for chunk in batch])
                missing = (self.model.shape[0] or len(batch)) - len(batch)
                if missing:
                    values = np.pad(values, ((0, missing), (0, 0), (0, 0)))
                outputs = self._run(values)
                for i, chunk in enumerate(batch):
                    yield {name: array[i : i + 1] for name, array in outputs.items()} | chunk

    def _run(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of the model for windows (batch, channels, time); those of images go through it in smaller parts."""
        if not self.model.takes_images:
            return self.model.run(windows)
        at_once = windows_at_once(self.preprocessing, windows.shape[1])
        size = self.model.shape[0] or at_once
        parts = [
            self.model.run(self.preprocessing.images(windows[start : start + size]))
            for start in range(0, len(windows), size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _filled(self, chunk: Chunk) -> Chunk:
        """The last window of events as long as the others, where the model was exported for windows of that length:
        what is behind it changes nothing for a causal model, and its frames are left out."""
        values, length = chunk["input_values"], self.model.shape[2] or 0
        missing = length - values.shape[2]
        if missing > 0 and self.task == "emg-events" and self.model_config.is_causal:
            chunk["input_values"] = np.pad(values, ((0, 0), (0, 0), (0, missing)))
        return chunk

    def _checked(self, batch_size: int | None) -> int | None:
        if batch_size is not None and batch_size < 1:
            raise OnnxModelError(f"batch_size={batch_size}: at least 1, or None for the pipeline's own")
        self.check_batch_size(batch_size)
        return batch_size


def pipeline(
    task: str | None = None,
    model: str | Path | OnnxModel | None = None,
    batch_size: int | None = None,
    *,
    preprocessing: Any = None,
    providers: Sequence[str] | None = None,
    num_threads: int | None = None,
    **settings: Any,
) -> ONNXPipeline:
    """The pipeline of an exported model.

    Args:
        task: "emg-classification", "emg-regression", "emg-events", "emg-to-text" or "emg-to-audio"; by default the one
            that the model is for.
        model: the folder that `tinymyo export onnx` wrote, its `model.onnx`, or an `OnnxModel`.
        batch_size: windows (recordings, where they run whole) that go through the model together; 32 windows, 8 of
            events, or one recording by default.
        preprocessing: instead of the model's own, for instance `model.preprocessing.replace(rotation=[1, 0])`.
        providers, num_threads: of onnxruntime, see `OnnxModel`.
        settings: of the task, for every call: `sampling_rate`, `stride`, `decoder`, ...

    Raises:
        OnnxModelError: no such export, or one for another task.
        SignalError, CharsetError: preprocessing or settings that do not suit the model.
        ImportError: onnxruntime is missing.
    """
    if model is None:
        raise OnnxModelError("model: give the folder that `tinymyo export onnx` wrote")
    if not isinstance(model, OnnxModel):
        model = OnnxModel(model, providers, num_threads)
    if task is not None and task not in _TASKS:
        raise OnnxModelError(f"task={task!r}: unknown; use one of {', '.join(_TASKS)}")
    if model.task != (task or model.task) or model.task not in _TASKS:
        fix = f'use pipeline("{model.task}")' if model.task in _TASKS else "fine-tune it first, and export it then"
        raise OnnxModelError(f"{model.path}: a model for {model.task}, not for {task or 'any pipeline'}: {fix}")
    return _class_of(model.task, model.config.model_type)(model.task, model, batch_size, preprocessing, **settings)


@functools.cache
def _class_of(task: str, model_type: str) -> type[ONNXPipeline]:
    if model_type == "semg_transformer":
        from tinymyo_hf.onnx.typing import ONNXTypingPipeline

        return ONNXTypingPipeline
    module, name = _TASKS[task].split(".")
    own = getattr(importlib.import_module(f"tinymyo_hf.tasks.{module}"), name)
    return type(f"ONNX{name.removesuffix('Task')}Pipeline", (own, ONNXPipeline), {"__doc__": ONNXPipeline.__doc__})


def _is_one(inputs: Any) -> bool:
    """Whether this is one recording; else it is an iterator, or a data set with numbered recordings."""
    if isinstance(inputs, str | Path | dict) or hasattr(inputs, "__array__"):
        return True
    return not hasattr(inputs, "__iter__") and not hasattr(inputs, "__getitem__")
