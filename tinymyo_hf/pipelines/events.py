"""`pipeline("emg-events", model=...)`: when which gesture begins."""

from typing import Any

import numpy as np
import torch

from tinymyo_hf.event_detection import (
    DEBOUNCE,
    THRESHOLD,
    FrameGrid,
    average_logits,
    detect_events,
    sigmoid,
    window_starts,
)
from tinymyo_hf.pipelines.base import EmgWindowPipeline
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor


class EmgEventsPipeline(EmgWindowPipeline):
    """Events (discrete gestures) in recordings of any length, from a model of frames with a convolution stem.

    The logits of overlapping windows are averaged; the last window ends with the recording. An event is where a
    gesture's probability rises to the threshold (`tinymyo_hf.event_detection.detect_events`).

    `__call__` takes, beyond what all pipelines take,
    - `threshold`: probability in (0, 1), 0.35 by default;
    - `debounce`: seconds, 0.05 by default: gestures that are closer than this to the last one are left out, as are
      releases of the same kind;
    - `return_probabilities`: whether to return the frames too.

    For each recording it returns {"events"}, a list of {"time" (seconds from the first sample; when a causal model can
    tell), "gesture", "score" (the highest probability until it falls below the threshold)} in order of time. With
    `return_probabilities` also "probabilities" float32 (frames, gestures), "times" (frames,) in seconds, "names" of the
    gestures, and "sampling_rate", frames per second.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> detect = pipeline("emg-events", model="my-checkpoint")                      # doctest: +SKIP
        >>> detect("recording.npy", sampling_rate=2000)["events"][0]                    # doctest: +SKIP
        {'time': 3.125, 'gesture': 'index_press', 'score': 0.93}
    """

    head = "ForFrameClassification"
    windows_at_once = 8  # of 8 s at 2 kHz in the published model

    def _sanitize_parameters(
        self,
        threshold: float | None = None,
        debounce: float | None = None,
        return_probabilities: bool | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if threshold is not None and not 0 < threshold < 1:
            raise SignalError(f"threshold={threshold}: must be a probability between 0 and 1; the default is 0.35")
        if debounce is not None and not debounce >= 0:
            raise SignalError(f"debounce={debounce}: must be at least 0 seconds")
        given = {"threshold": threshold, "debounce": debounce, "return_probabilities": return_probabilities}
        preprocess, forward, _ = super()._sanitize_parameters(**settings)
        return preprocess, forward, {name: value for name, value in given.items() if value is not None}

    def cut(self, processed: np.ndarray, extractor: TinyMyoFeatureExtractor, name: str) -> tuple[np.ndarray, list[int]]:
        grid = FrameGrid.of(self.model.config, extractor.sampling_rate)
        try:
            return processed, window_starts(processed.shape[1], grid, extractor.window_length, extractor.stride)
        except SignalError as error:
            raise SignalError(f"{name}: {error}") from None

    def place(self, start: int, samples: int, extractor: TinyMyoFeatureExtractor) -> dict[str, Any]:
        return {
            "start": start,
            "window_samples": torch.tensor([min(extractor.window_length, samples - start)]),
            "recording_samples": samples,
            "sampling_rate": extractor.sampling_rate,
        }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        windows, real = model_inputs.pop("input_values"), model_inputs["window_samples"]
        mask = None
        if (real < windows.shape[-1]).any():
            mask = torch.arange(windows.shape[-1], device=windows.device) < real[:, None]
        logits = self.model(windows.to(self.model.dtype), attention_mask=mask).logits
        return {"logits": logits.float(), **model_inputs}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        threshold: float = THRESHOLD,
        debounce: float = DEBOUNCE,
        return_probabilities: bool = False,
    ) -> dict[str, Any]:
        labels, sampling_rate = self.model.config.id2label, model_outputs[0]["sampling_rate"]
        grid = FrameGrid.of(self.model.config, sampling_rate)
        pieces = (
            (output["start"], output["logits"][0, : grid.count(int(output["window_samples"]))].numpy())
            for output in model_outputs
        )
        probabilities = sigmoid(average_logits(pieces, model_outputs[0]["recording_samples"], grid))
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
