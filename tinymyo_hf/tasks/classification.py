"""A label for each window and for the recording."""

from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.windows import FullWindowTask


class ClassificationTask(FullWindowTask):
    """From logits (1, labels) of windows to what `pipeline("emg-classification")` returns."""

    head = "ForSequenceClassification"

    def split_settings(self, top_k: int | None = None, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `EmgTask`; `top_k` is the number of labels that the result's scores list."""
        if top_k is not None and top_k < 1:
            raise SignalError(f"top_k={top_k}: must be at least 1, or None for all labels")
        reading, making = super().split_settings(**settings)
        return reading, making if top_k is None else making | {"top_k": top_k}

    def result(self, outputs: list[dict[str, Any]], top_k: int | None = None) -> dict[str, Any]:
        """Labels of windows, and the labels' mean probabilities in falling order."""
        labels = self.model_config.id2label
        probabilities = softmax(np.concatenate([output["logits"] for output in outputs]))
        ids = probabilities.argmax(axis=1)
        windows = [
            {"start": output["start"], "end": output["end"], "label": labels[label], "score": score}
            for output, label, score in zip(
                outputs, ids.tolist(), probabilities[np.arange(len(ids)), ids].tolist(), strict=True
            )
        ]
        mean = probabilities.mean(axis=0)
        scores = {labels[i]: float(mean[i]) for i in np.argsort(-mean, kind="stable").tolist()}
        label, score = next(iter(scores.items()))
        return {"label": label, "score": score, "scores": dict(list(scores.items())[:top_k]), "windows": windows}


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 probabilities over the last axis."""
    logits = np.asarray(logits, dtype=np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
