"""What the tasks of speech share: whole utterances, with their neighbours, as input of a TinyMyo for speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.base import Chunk, EmgTask, RecordingInput
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
    """From utterances to what a TinyMyo for speech takes, for a task with such a model.

    Raises:
        SignalError: the preprocessing of another kind of model.
    """

    def __init__(self, task: EmgTask):
        self.task = task
        self.config, self.preprocessing = task.model_config, task.preprocessing
        stride = self.config.frame_stride
        if getattr(self.preprocessing, "patch_size", None) != stride:
            raise SignalError(
                f"feature_extractor: a {type(self.preprocessing).__name__} with patch_size="
                f"{getattr(self.preprocessing, 'patch_size', None)}, but the model has frames of {stride} samples; use "
                "the feature extractor saved with the model"
            )

    @property
    def num_channels(self) -> int:
        """The electrodes."""
        return self.preprocessing.feature_size or self.config.num_channels

    @property
    def recording_rate(self) -> float:
        """Hz at which utterances are expected."""
        return self.preprocessing.recording_rate

    def read(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Chunk:
        """An utterance as "input_values" (1, channels, time), and the number of its "frames".

        Args:
            inputs: as for all pipelines; a dictionary may also have "before" and "after", the neighbouring utterances:
                arrays or paths, at the same rate.
            settings: fields of the preprocessing to replace.

        Raises:
            SignalError: utterances that cannot be read, are too short, or do not suit the model.
        """
        preprocessing = self.preprocessing.replace(**settings) if settings else self.preprocessing
        neighbours = {}
        if isinstance(inputs, dict):
            neighbours = {side: inputs[side] for side in NEIGHBOURS if inputs.get(side) is not None}
            inputs = {key: value for key, value in inputs.items() if key not in NEIGHBOURS}
        signal, rate, name = self.task.read(inputs, sampling_rate, read_options)
        parts = {"itself": signal}
        for side, neighbour in neighbours.items():
            try:
                parts[side], own_rate, own_name = self.task.read(neighbour, rate, read_options)
                check_context(parts[side], own_name, preprocessing.max_gap)
            except SignalError as error:
                raise SignalError(f"{name}, the utterance {side} it: {error}") from error
            if own_rate != rate:
                raise SignalError(
                    f"{name}: sampled at {rate:g} Hz, the utterance {side} it at {own_rate:g} Hz; resample one of them"
                )
        together = [np.asarray(parts[side]) for side in ("before", "itself", "after") if side in parts]
        context = tuple(np.shape(parts[side])[1] if side in parts else 0 for side in NEIGHBOURS)
        processed = preprocessing.preprocess(
            together[0] if len(together) == 1 else np.concatenate(together, axis=1), rate, name, context
        )
        samples = self._whole_frames(processed, name)
        return {"input_values": samples[None], "frames": self.config.num_frames(samples.shape[1]), "is_last": True}

    def times(self, frames: np.ndarray) -> np.ndarray:
        """Seconds of the recording at which frames begin."""
        return (frames + 1) * self.config.frame_stride / self.preprocessing.sampling_rate

    def _whole_frames(self, processed: np.ndarray, name: str) -> np.ndarray:
        """(channels, time) without its first frame and what is less than a frame at its end.

        The published preprocessing drops the first frame (`dataset_builders.gaddy`): frame i of EMG goes with frame i
        of the audio.
        """
        stride = self.config.frame_stride
        frames = processed.shape[1] // stride - 1
        if frames < 1:
            raise SignalError(
                f"{name}: {processed.shape[1]} samples at {self.preprocessing.sampling_rate:g} Hz, fewer than two "
                f"frames of {stride}; use a longer recording"
            )
        return processed[:, stride : stride + frames * stride]
