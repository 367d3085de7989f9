"""What the pipelines share: forms of input, reading and checking recordings, preprocessing, windows in batches."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel
from transformers.pipelines.base import ChunkPipeline

from tinymyo_hf.pipelines.checkpoints import task_of
from tinymyo_hf.recordings import read_recording
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

RecordingInput = str | Path | ArrayLike | dict[str, Any]


class EmgPipeline(ChunkPipeline):
    """A pipeline over recordings of any length.

    A pipeline names the `head` of its models and their feature extractor, for messages.
    """

    head: ClassVar[str]
    extractor_name: ClassVar[str]
    windows_at_once: ClassVar[int] = 32

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any):
        if kwargs.get("batch_size") is None:
            kwargs["batch_size"] = self.windows_at_once
        super().__init__(*args, **kwargs)
        self._check_head()
        if self.feature_extractor is None:
            raise SignalError(f"feature_extractor: missing; pass the {self.extractor_name} the model was trained with")

    def _check_head(self) -> None:
        name = type(self.model).__name__
        if isinstance(self.model, PreTrainedModel) and not name.endswith(self.head):
            task = task_of([name])
            fix = f'use pipeline("{task}")' if task else "fine-tune it first"
            source = self.model.config.name_or_path or "model"
            raise SignalError(f"{source} is a {name}, but {self.task} needs a ...{self.head}: {fix}")

    def __call__(self, inputs: RecordingInput | list[RecordingInput], **kwargs: Any) -> dict | list[dict]:
        """Predict one recording, or each of several.

        Args:
            inputs: a recording, or a list, generator or torch `Dataset` of recordings (`KeyDataset` of
                transformers.pipelines.pt_utils makes one of a Hugging Face dataset's column). A recording is an array
                or nested list (channels, time), the path of a file (see `tinymyo_hf.recordings`), or {"raw": either of
                them, "sampling_rate": Hz}. An array of three axes is a batch of recordings.
            sampling_rate: Hz of the recordings; required unless the file or the dictionary states it.
            on_rate_mismatch: "error" or "resample", instead of the feature extractor's.
            read_options: a dictionary of further arguments of `read_recording`: channels, key, layout, ...

        Returns:
            A dictionary for a recording, a list of them for several (an iterator for a generator or `Dataset`); what is
            in it, and which further arguments there are, stands in the description of each pipeline.

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
        on_rate_mismatch: str | None = None,
        read_options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {
            "sampling_rate": sampling_rate,
            "on_rate_mismatch": on_rate_mismatch,
            "read_options": read_options,
        }
        return {name: value for name, value in given.items() if value is not None}, {}, {}

    def _refuse_windows(self, settings: dict[str, Any]) -> None:
        """For pipelines whose recordings run whole."""
        of_windows = sorted({"window_length", "stride"} & settings.keys())
        if of_windows:
            raise SignalError(f"{', '.join(of_windows)}: recordings run whole, not in windows; leave it out")

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
                f"{self._recording_rate():g} Hz)"
            )
        shape = np.shape(inputs)
        if channels is not None and len(shape) == 2 and shape[0] != channels:
            hint = "transpose it" if shape[1] == channels else "select the channels the model was trained on"
            raise SignalError(
                f"{name}: {shape[0]} channels, but the model takes {channels}; the array must be (channels, time): "
                f"{hint}"
            )
        return inputs, sampling_rate, name

    @abstractmethod
    def _num_channels(self) -> int | None:
        """The channels that the model takes; None for any number."""

    @abstractmethod
    def _recording_rate(self) -> float:
        """Hz at which the model takes recordings."""


class EmgWindowPipeline(EmgPipeline):
    """A pipeline of a TinyMyo model: windows of recordings go through it `batch_size` at a time.

    The recording is filtered and normalised as a whole; windows are cut from it one by one, also across recordings, so
    that memory stays bounded. A pipeline says where windows lie (`cut`, `place`), how the model is called (`_forward`)
    and what becomes of the outputs of a recording (`postprocess`).

    `__call__` takes `window_length` and `stride`, samples at the model's rate, instead of the feature extractor's, and
    `batch_size`, windows at once.
    """

    extractor_name = "TinyMyoFeatureExtractor"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        patch_sizes = self.feature_extractor.patch_size, self.model.config.patch_size
        if self.model.config.stem == "patches" and patch_sizes[0] != patch_sizes[1]:
            raise SignalError(
                f"patch_size: the feature extractor has {patch_sizes[0]}, the model {patch_sizes[1]}; use the feature "
                "extractor saved with the model"
            )

    def _sanitize_parameters(
        self, window_length: int | None = None, stride: int | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"window_length": window_length, "stride": stride}
        preprocess, forward, postprocess = super()._sanitize_parameters(**settings)
        preprocess |= {name: value for name, value in given.items() if value is not None}
        return preprocess, forward, postprocess

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
        signal, starts = self.cut(processed, extractor, name)
        for start in starts:
            window = extractor.normalize_windows(signal[None, :, start : start + extractor.window_length])
            missing = extractor.window_length - window.shape[2]  # at the end of some recordings
            padded = np.pad(window, ((0, 0), (0, 0), (0, missing)), constant_values=extractor.padding_value)
            yield {
                "input_values": torch.from_numpy(padded),
                **self.place(start, processed.shape[1], extractor),
                "is_last": start == starts[-1],
            }

    @abstractmethod
    def cut(
        self, processed: np.ndarray, extractor: TinyMyoFeatureExtractor, name: str
    ) -> tuple[np.ndarray, Sequence[int]]:
        """The signal to cut windows from, `processed` (channels, time) or a longer one, and their first samples; where
        the last window reaches beyond it, it is padded."""

    @abstractmethod
    def place(self, start: int, samples: int, extractor: TinyMyoFeatureExtractor) -> dict[str, Any]:
        """What `postprocess` needs to know of the window at sample `start` of a recording of `samples`."""

    def _num_channels(self) -> int | None:
        if self.feature_extractor.feature_size is not None:
            return self.feature_extractor.feature_size
        config = self.model.config
        return config.num_channels if config.channel_fusion == "concat" or config.stem == "convolution" else None

    def _recording_rate(self) -> float:
        return self.feature_extractor.recording_rate


def _is_nested_list(inputs: list) -> bool:
    """Whether a list is one recording, a list of channels, and not a list of recordings."""
    if isinstance(inputs[0], (np.ndarray, torch.Tensor)):
        return inputs[0].ndim == 1
    return isinstance(inputs[0], (list, tuple)) and len(inputs[0]) > 0 and np.ndim(inputs[0][0]) == 0
