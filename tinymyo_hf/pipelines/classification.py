"""`pipeline("emg-classification", model=...)`: a label for each window and for the recording."""

from typing import Any

import numpy as np
import torch

from tinymyo_hf.pipelines.base import EmgWindowPipeline
from tinymyo_hf.signal import SignalError, sliding_windows
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor


class EmgClassificationPipeline(EmgWindowPipeline):
    """Labels of recordings of any length, window by window and in total.

    `__call__` takes, beyond what all pipelines take, `top_k`: how many labels `scores` lists; all by default.

    For each recording it returns {"label", "score", "scores", "windows"}. `scores` are the labels' probabilities, mean
    over the windows, in falling order; label and score are the first of them. `windows` lists {"start", "end"
    (seconds), "label", "score"} in order of time; samples after the last full window have no prediction.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> classify = pipeline("emg-classification", model="my-checkpoint")            # doctest: +SKIP
        >>> classify("recording.csv", sampling_rate=200)["label"]                       # doctest: +SKIP
        'fist'
    """

    head = "ForSequenceClassification"

    def _sanitize_parameters(
        self, top_k: int | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if top_k is not None and top_k < 1:
            raise SignalError(f"top_k={top_k}: must be at least 1, or None for all labels")
        preprocess, forward, _ = super()._sanitize_parameters(**settings)
        return preprocess, forward, {} if top_k is None else {"top_k": top_k}

    def cut(self, processed: np.ndarray, extractor: TinyMyoFeatureExtractor, name: str) -> tuple[np.ndarray, list[int]]:
        _, starts = sliding_windows(processed, extractor.window_length, extractor.stride, name)
        return processed, starts.tolist()

    def place(self, start: int, samples: int, extractor: TinyMyoFeatureExtractor) -> dict[str, Any]:
        end = start + extractor.window_length
        return {"start": start / extractor.sampling_rate, "end": end / extractor.sampling_rate}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        logits = self.model(model_inputs.pop("input_values").to(self.model.dtype)).logits
        return {"probabilities": logits.float().softmax(-1), **model_inputs}

    def postprocess(self, model_outputs: list[dict[str, Any]], top_k: int | None = None) -> dict[str, Any]:
        labels = self.model.config.id2label
        probabilities = torch.cat([output["probabilities"] for output in model_outputs]).double()
        best, ids = probabilities.max(dim=-1)
        windows = [
            {"start": output["start"], "end": output["end"], "label": labels[label], "score": score}
            for output, label, score in zip(model_outputs, ids.tolist(), best.tolist(), strict=True)
        ]
        mean, order = probabilities.mean(dim=0).sort(descending=True, stable=True)
        scores = {labels[i]: score for i, score in zip(order.tolist(), mean.tolist(), strict=True)}
        label, score = next(iter(scores.items()))
        return {"label": label, "score": score, "scores": dict(list(scores.items())[:top_k]), "windows": windows}
