"""When which gesture begins."""

from typing import Any

import numpy as np

from tinymyo_hf.event_detection import (
    DEBOUNCE,
    THRESHOLD,
    FrameGrid,
    average_logits,
    detect_events,
    sigmoid,
    window_starts,
)
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.windows import WindowTask
from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing


class EventsTask(WindowTask):
    """From logits (1, frames, labels) of overlapping windows to what `pipeline("emg-events")` returns."""

    head = "ForFrameClassification"
    chunks_at_once = 8  # of 8 s at 2 kHz in the published model

    def split_settings(
        self,
        threshold: float | None = None,
        debounce: float | None = None,
        return_probabilities: bool | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `EmgTask`; `threshold` and `debounce` (s) are those of `detect_events`."""
        if threshold is not None and not 0 < threshold < 1:
            raise SignalError(f"threshold={threshold}: must be a probability between 0 and 1; the default is 0.35")
        if debounce is not None and not debounce >= 0:
            raise SignalError(f"debounce={debounce}: must be at least 0 seconds")
        given = {"threshold": threshold, "debounce": debounce, "return_probabilities": return_probabilities}
        reading, making = super().split_settings(**settings)
        return reading, making | {name: value for name, value in given.items() if value is not None}

    def cut(
        self, processed: np.ndarray, preprocessing: TinyMyoPreprocessing, name: str
    ) -> tuple[np.ndarray, list[int]]:
        """Windows that cover the recording, the last one shorter."""
        grid = FrameGrid.of(self.model_config, preprocessing.sampling_rate)
        try:
            starts = window_starts(processed.shape[1], grid, preprocessing.window_length, preprocessing.stride)
        except SignalError as error:
            raise SignalError(f"{name}: {error}") from None
        return processed, starts

    def place(self, start: int, samples: int, preprocessing: TinyMyoPreprocessing) -> dict[str, Any]:
        """Its samples; frames beyond them, where the window was padded, are left out."""
        return {
            "start": start,
            "window_samples": np.array([min(preprocessing.window_length, samples - start)]),
            "recording_samples": samples,
            "sampling_rate": preprocessing.sampling_rate,
        }

    def result(
        self,
        outputs: list[dict[str, Any]],
        threshold: float = THRESHOLD,
        debounce: float = DEBOUNCE,
        return_probabilities: bool = False,
    ) -> dict[str, Any]:
        """Events in the mean of the windows' logits."""
        labels, sampling_rate = self.model_config.id2label, outputs[0]["sampling_rate"]
        grid = FrameGrid.of(self.model_config, sampling_rate)
        pieces = (
            (output["start"], output["logits"][0, : grid.count(output["window_samples"].item())]) for output in outputs
        )
        probabilities = sigmoid(average_logits(pieces, outputs[0]["recording_samples"], grid))
        times, names = grid.times(len(probabilities)), [labels[i] for i in range(len(labels))]
        found = detect_events(probabilities, times, names, threshold, debounce)
        events = zip(found.times.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        result: dict[str, Any] = {
            "events": [{"time": time, "gesture": names[label], "score": score} for time, label, score in events]
        }
        if return_probabilities:
            result |= {
                "probabilities": probabilities.astype(np.float32),
                "times": times,
                "names": names,
                "sampling_rate": sampling_rate / grid.stride,
            }
        return result
