"""What the pipelines of speech share: whole utterances, with their neighbours, as input of a TinyMyo for speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinymyo_hf.pipelines.base import EmgPipeline, RecordingInput
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor
from tinymyo_hf.tinymyo.signal_tinymyo import check_context

NEIGHBOURS = ("before", "after")


def in_context(session: Sequence[RecordingInput]) -> list[dict[str, Any]]:
    """The utterances of a session, in order, each with those before and after it, as the pipelines of speech take them.

    Examples:
        >>> in_context(["0_emg.npy", "1_emg.npy"])
        [{'raw': '0_emg.npy', 'after': '1_emg.npy'}, {'raw': '1_emg.npy', 'before': '0_emg.npy'}]

    Raises:
        SignalError: one utterance in place of a session.
    """
    if isinstance(session, str | Path | dict) or (hasattr(session, "shape") and np.ndim(session) < 3):
        raise SignalError("session: one utterance; give those of a session, in order, as a list")
    session = list(session)
    utterances = [dict(each) if isinstance(each, dict) else {"raw": each} for each in session]
    for i in range(1, len(session)):
        utterances[i - 1]["after"], utterances[i]["before"] = session[i], session[i - 1]
    return utterances


class UtteranceReader:
    """From utterances to what a TinyMyo for speech takes, for a pipeline with such a model.

    Raises:
        SignalError: a feature extractor of another kind of model.
    """

    def __init__(self, pipeline: EmgPipeline):
        self._pipeline = pipeline
        self.model = pipeline.model
        self.extractor = pipeline.feature_extractor
        stride = self.model.config.frame_stride
        if not isinstance(self.extractor, TinyMyoFeatureExtractor) or self.extractor.patch_size != stride:
            raise SignalError(
                f"feature_extractor: a {type(self.extractor).__name__} with patch_size="
                f"{getattr(self.extractor, 'patch_size', None)}, but the model has frames of {stride} samples; use the "
                "feature extractor saved with the model"
            )

    @property
    def num_channels(self) -> int:
        """The electrodes."""
        return self.extractor.feature_size or self.model.config.num_channels

    @property
    def recording_rate(self) -> float:
        """Hz at which utterances are expected."""
        return self.extractor.recording_rate

    def read(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """An utterance as `input_values` (1, time, channels) and `attention_mask` (1, time), and its `frames`.

        Time stands before the channels, as the library pads the second axis of what it puts into a batch.

        Args:
            inputs: as for all pipelines; a dictionary may also have "before" and "after", the neighbouring utterances:
                arrays or paths, at the same rate.
            settings: fields of the feature extractor to replace.

        Raises:
            SignalError: utterances that cannot be read, are too short, or do not suit the model.
        """
        extractor = self.extractor
        if settings:
            extractor = type(extractor)(**{**extractor.to_dict(), **settings})
        neighbours = {}
        if isinstance(inputs, dict):
            neighbours = {side: inputs[side] for side in NEIGHBOURS if inputs.get(side) is not None}
            inputs = {key: value for key, value in inputs.items() if key not in NEIGHBOURS}
        options = read_options or {}
        signal, rate, name = self._pipeline._read(inputs, sampling_rate, options)
        parts = {"itself": signal}
        for side, neighbour in neighbours.items():
            try:
                parts[side], own_rate, own_name = self._pipeline._read(neighbour, rate, options)
                check_context(parts[side], own_name, extractor.max_gap)
            except SignalError as error:
                raise SignalError(f"{name}, the utterance {side} it: {error}") from error
            if own_rate != rate:
                raise SignalError(
                    f"{name}: sampled at {rate:g} Hz, the utterance {side} it at {own_rate:g} Hz; resample one of them"
                )
        together = [np.asarray(parts[side]) for side in ("before", "itself", "after") if side in parts]
        context = tuple(np.shape(parts[side])[1] if side in parts else 0 for side in NEIGHBOURS)
        processed = extractor.preprocess(
            together[0] if len(together) == 1 else np.concatenate(together, axis=1), rate, name, context
        )
        samples = torch.from_numpy(self._whole_frames(processed, name).T.copy())[None]
        mask = torch.ones(samples.shape[:2], dtype=torch.long)
        frames = self.model.config.num_frames(samples.shape[1])
        return {"input_values": samples, "attention_mask": mask, "frames": frames}

    def call(self, model_inputs: dict[str, Any]) -> Any:
        """The outputs of the model for a batch of utterances."""
        samples = model_inputs.pop("input_values").transpose(1, 2).to(self.model.dtype)
        return self.model(input_values=samples, attention_mask=model_inputs.pop("attention_mask"))

    def times(self, frames: np.ndarray) -> np.ndarray:
        """Seconds of the recording at which frames begin."""
        return (frames + 1) * self.model.config.frame_stride / self.extractor.sampling_rate

    def _whole_frames(self, processed: np.ndarray, name: str) -> np.ndarray:
        """(channels, time) without its first frame and what is less than a frame at its end.

        The published preprocessing drops the first frame (`dataset_builders.gaddy`): frame i of EMG goes with frame i
        of the audio.
        """
        stride = self.model.config.frame_stride
        frames = processed.shape[1] // stride - 1
        if frames < 1:
            raise SignalError(
                f"{name}: {processed.shape[1]} samples at {self.extractor.sampling_rate:g} Hz, fewer than two frames "
                f"of {stride}; use a longer recording"
            )
        return processed[:, stride : stride + frames * stride]
