"""Pipelines: `pipeline("emg-classification", model=...)`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers.pipelines.base import ChunkPipeline

from tinymyo_hf.recordings import read_recording
from tinymyo_hf.signal import SignalError, sliding_windows

RecordingInput = str | Path | ArrayLike | dict[str, Any]
WINDOWS_AT_ONCE = 32


class EmgClassificationPipeline(ChunkPipeline):
    """Labels of recordings of any length, window by window and in total.

    The recording is filtered and normalised as a whole, cut into the feature extractor's windows, and the windows go
    through the model `batch_size` at a time (32 by default, also across recordings), so that memory stays bounded.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> classify = pipeline("emg-classification", model="my-checkpoint")            # doctest: +SKIP
        >>> classify("recording.csv", sampling_rate=200)["label"]                       # doctest: +SKIP
        'fist'
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any):
        if kwargs.get("batch_size") is None:
            kwargs["batch_size"] = WINDOWS_AT_ONCE
        super().__init__(*args, **kwargs)
        if self.feature_extractor is None:
            raise SignalError("feature_extractor: missing; pass the TinyMyoFeatureExtractor the model was trained with")
        patch_sizes = self.feature_extractor.patch_size, self.model.config.patch_size
        if patch_sizes[0] != patch_sizes[1]:
            raise SignalError(
                f"patch_size: the feature extractor has {patch_sizes[0]}, the model {patch_sizes[1]}; use the feature "
                "extractor saved with the model"
            )

    def __call__(self, inputs: RecordingInput | list[RecordingInput], **kwargs: Any) -> dict | list[dict]:
        """Classify one recording, or each of several.

        Args:
            inputs: a recording, or a list, generator or torch `Dataset` of recordings (`KeyDataset` of
                transformers.pipelines.pt_utils makes one of a Hugging Face dataset's column). A recording is an array
                or nested list (channels, time), the path of a file (see `tinymyo_hf.recordings`), or {"raw": either of
                them, "sampling_rate": Hz}. An array of three axes is a batch of recordings.
            sampling_rate: Hz of the recordings; required unless the file or the dictionary states it.
            window_length, stride: samples at the model's rate, instead of the feature extractor's.
            on_rate_mismatch: "error" or "resample", instead of the feature extractor's.
            top_k: how many labels `scores` lists; all by default.
            read_options: a dictionary of further arguments of `read_recording`: channels, key, layout, ...
            batch_size: windows at once.

        Returns:
            For each recording {"label", "score", "scores", "windows"}. `scores` are the labels' probabilities, mean
            over the windows, in falling order; label and score are the first of them. `windows` lists {"start", "end"
            (seconds), "label", "score"} in order of time; samples after the last full window have no prediction.

        Raises:
            SignalError: (a ValueError) for recordings that cannot be read or do not suit the model.
        """
        if isinstance(inputs, tuple) or (isinstance(inputs, (np.ndarray, torch.Tensor)) and inputs.ndim == 3):
            inputs = list(inputs)
        if isinstance(inputs, list):
            if not inputs:
                return []
            if _is_nested_list(inputs):
                inputs = np.asarray(inputs)
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and feature extractor. No code is copied: importing the package registers the pipeline."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        sampling_rate: float | None = None,
        window_length: int | None = None,
        stride: int | None = None,
        on_rate_mismatch: str | None = None,
        read_options: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if top_k is not None and top_k < 1:
            raise SignalError(f"top_k={top_k}: must be at least 1, or None for all labels")
        given = {
            "sampling_rate": sampling_rate,
            "window_length": window_length,
            "stride": stride,
            "on_rate_mismatch": on_rate_mismatch,
            "read_options": read_options,
        }
        preprocess = {name: value for name, value in given.items() if value is not None}
        return preprocess, {}, {} if top_k is None else {"top_k": top_k}

    def preprocess(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Iterator[dict[str, Any]]:
        extractor = self.feature_extractor
        if settings:
            extractor = type(extractor)(**{**extractor.to_dict(), **settings})
        signal, rate, name = self._read(inputs, sampling_rate, read_options or {})
        processed = extractor.preprocess(signal, rate, name)
        windows, starts = sliding_windows(processed, extractor.window_length, extractor.stride, name)
        for i, start in enumerate(starts.tolist()):
            yield {
                "input_values": torch.from_numpy(np.array(extractor.normalize_windows(windows[i : i + 1]))),
                "start": start / extractor.sampling_rate,
                "end": (start + extractor.window_length) / extractor.sampling_rate,
                "is_last": i == len(starts) - 1,
            }

    def _read(
        self, inputs: RecordingInput, sampling_rate: float | None, read_options: dict[str, Any]
    ) -> tuple[ArrayLike, float, str]:
        """(channels, time), its rate in Hz, and a name for messages."""
        name = "recording"
        if isinstance(inputs, dict):
            unknown = sorted(inputs.keys() - {"raw", "sampling_rate"})
            if "raw" not in inputs or unknown:
                raise SignalError(f"{name}: a dictionary has the keys raw and sampling_rate, not {sorted(inputs)}")
            sampling_rate = inputs.get("sampling_rate", sampling_rate)
            inputs = inputs["raw"]
        channels = self._num_channels()
        if isinstance(inputs, (str, Path)):
            name = str(inputs)
            recording = read_recording(
                inputs, **{"sampling_rate": sampling_rate, "num_channels": channels, **read_options}
            )
            inputs, sampling_rate = recording.signal, recording.sampling_rate
        if sampling_rate is None:
            raise SignalError(
                f"{name}: its sampling rate is not known; pass sampling_rate (in Hz; the model was trained at "
                f"{self.feature_extractor.recording_rate:g} Hz)"
            )
        shape = np.shape(inputs)
        if channels is not None and len(shape) == 2 and shape[0] != channels:
            hint = "transpose it" if shape[1] == channels else "select the channels the model was trained on"
            raise SignalError(
                f"{name}: {shape[0]} channels, but the model takes {channels}; the array must be (channels, time): "
                f"{hint}"
            )
        return inputs, sampling_rate, name

    def _num_channels(self) -> int | None:
        if self.feature_extractor.feature_size is not None:
            return self.feature_extractor.feature_size
        return self.model.config.num_channels if self.model.config.channel_fusion == "concat" else None

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


def _is_nested_list(inputs: list) -> bool:
    """Whether a list is one recording, a list of channels, and not a list of recordings."""
    if isinstance(inputs[0], (np.ndarray, torch.Tensor)):
        return inputs[0].ndim == 1
    return isinstance(inputs[0], (list, tuple)) and len(inputs[0]) > 0 and np.ndim(inputs[0][0]) == 0
