"""`pipeline("emg-events", model=...)`: when which gesture begins."""

from collections.abc import Iterator
from typing import Any

import torch

from tinymyo_hf.pipelines.base import EmgPipeline
from tinymyo_hf.tasks import RecordingInput
from tinymyo_hf.tasks.events import EventsTask


class EmgEventsPipeline(EventsTask, EmgPipeline):
    """Events (discrete gestures) in recordings of any length, from a model of frames with a convolution stem.

    The logits of overlapping windows are averaged; the last window ends with the recording. An event is where a
    gesture's probability rises to the threshold (`tinymyo_hf.event_detection.detect_events`).

    `__call__` takes, beyond what all pipelines take,
    - `threshold`: probability in (0, 1), 0.35 by default;
    - `debounce`: seconds, 0.05 by default: gestures that are closer than this to the last one are left out, as are
      releases of the same kind;
    - `return_probabilities`: whether to return the frames too;
    - `window_length` and `stride`, samples at the model's rate, instead of the feature extractor's, and `batch_size`,
      windows at once, also of several recordings.

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

    def preprocess(self, inputs: RecordingInput, **settings: Any) -> Iterator[dict[str, Any]]:
        length = settings.get("window_length", self.preprocessing.window_length)
        for chunk in super().preprocess(inputs, **settings):
            window = chunk["input_values"]
            padding = (0, length - window.shape[-1])  # of the last window, for it to share a batch with the others
            yield chunk | {
                "input_values": torch.nn.functional.pad(window, padding, value=self.preprocessing.padding_value)
            }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        windows, real = model_inputs.pop("input_values"), model_inputs["window_samples"]
        mask = None
        if (real < windows.shape[-1]).any():
            mask = torch.arange(windows.shape[-1], device=windows.device) < real[:, None]
        logits = self.model(windows.to(self.model.dtype), attention_mask=mask).logits
        return {"logits": logits.float(), **model_inputs}
