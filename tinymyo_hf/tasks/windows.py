"""Tasks over windows of recordings, for models of signals (TinyMyo) and of their images (Tiny-BioMoE)."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError, sliding_windows
from tinymyo_hf.tasks.base import Chunk, EmgTask, RecordingInput
from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing

IMAGES_AT_ONCE = 32
"""What a model makes of more of them takes gigabytes, and comes no faster on a CPU."""


def windows_at_once(preprocessing: Any, channels: int) -> int:
    """How many windows of so many channels a model of images sees at once: those of `IMAGES_AT_ONCE`, or one."""
    return max(1, IMAGES_AT_ONCE // preprocessing.num_images(channels))


class WindowTask(EmgTask):
    """Windows are cut from a recording one by one, so that memory stays bounded.

    The recording is filtered and normalised as a whole. A task says where windows lie (`cut`, `place`).
    """

    def check(self) -> None:
        """Whether model and preprocessing have patches, or images, of one size."""
        if self.model_config.model_type == "tiny_biomoe":
            check_images(self.model_config, self.preprocessing)
            return
        sizes = self.preprocessing.patch_size, self.model_config.patch_size
        if self.model_config.stem == "patches" and sizes[0] != sizes[1]:
            raise SignalError(
                f"patch_size: the feature extractor has {sizes[0]}, the model {sizes[1]}; use the feature extractor "
                "saved with the model"
            )

    def split_settings(
        self, window_length: int | None = None, stride: int | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `EmgTask`; `window_length` and `stride` are samples at the model's rate."""
        given = {"window_length": window_length, "stride": stride}
        reading, making = super().split_settings(**settings)
        return reading | {name: value for name, value in given.items() if value is not None}, making

    def chunks(
        self,
        inputs: RecordingInput,
        sampling_rate: float | None = None,
        read_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Iterator[Chunk]:
        """See `EmgTask`; all windows but the last are of one length."""
        preprocessing = self.preprocessing.replace(**settings) if settings else self.preprocessing
        signal, rate, name = self.read(inputs, sampling_rate, read_options)
        processed = preprocessing.preprocess(signal, rate, name)
        signal, starts = self.cut(processed, preprocessing, name)
        for start in starts:
            window = signal[None, :, start : start + preprocessing.window_length]
            yield {
                "input_values": preprocessing.normalize_windows(window),
                **self.place(start, processed.shape[1], preprocessing),
                "is_last": start == starts[-1],
            }

    @abstractmethod
    def cut(
        self, processed: np.ndarray, preprocessing: TinyMyoPreprocessing, name: str
    ) -> tuple[np.ndarray, Sequence[int]]:
        """The signal to cut windows from, `processed` (channels, time) or a longer one, and their first samples; where
        the last window reaches beyond it, it is shorter."""

    @abstractmethod
    def place(self, start: int, samples: int, preprocessing: TinyMyoPreprocessing) -> dict[str, Any]:
        """What `result` needs to know of the window at sample `start` of a recording of `samples`."""

    def num_channels(self) -> int | None:
        """See `EmgTask`."""
        if self.preprocessing.feature_size is not None:
            return self.preprocessing.feature_size
        config = self.model_config
        if config.model_type == "tiny_biomoe":
            joins = config.image_fusion == "concat" and self.preprocessing.channels_as == "images"
            return config.num_images // len(self.preprocessing.representations) if joins else None
        return config.num_channels if config.channel_fusion == "concat" or config.stem == "convolution" else None

    def recording_rate(self) -> float:
        """See `EmgTask`."""
        return self.preprocessing.recording_rate


class FullWindowTask(WindowTask):
    """Every full window by itself; samples after the last of them are left out."""

    def cut(
        self, processed: np.ndarray, preprocessing: TinyMyoPreprocessing, name: str
    ) -> tuple[np.ndarray, list[int]]:
        """Full windows."""
        _, starts = sliding_windows(processed, preprocessing.window_length, preprocessing.stride, name)
        return processed, starts.tolist()

    def place(self, start: int, samples: int, preprocessing: TinyMyoPreprocessing) -> dict[str, Any]:
        """Its seconds."""
        end = start + preprocessing.window_length
        return {"start": start / preprocessing.sampling_rate, "end": end / preprocessing.sampling_rate}


def check_images(config: Any, preprocessing: TinyMyoPreprocessing) -> None:
    """Raise `SignalError` unless the preprocessing makes images that a Tiny-BioMoE takes."""
    if not hasattr(preprocessing, "image_size"):
        raise SignalError(
            f"feature_extractor: a {type(preprocessing).__name__} makes no images; pass the BiosignalImageProcessor "
            "the model was trained with"
        )
    if preprocessing.image_size != config.image_size:
        raise SignalError(
            f"image_size: the feature extractor draws {preprocessing.image_size} pixels, the model takes "
            f"{config.image_size}; use the feature extractor saved with the model"
        )
    if config.image_fusion != "concat":
        return
    if preprocessing.channels_as == "images" and preprocessing.feature_size is None:
        made, fits = "a multiple of ", config.num_images % preprocessing.num_images(1) == 0
        images = preprocessing.num_images(1)
    else:
        made, images = "", preprocessing.num_images()
        fits = images == config.num_images
    if not fits:
        raise SignalError(
            f"num_images: the feature extractor makes {made}{images} images of a window, the model joins "
            f"{config.num_images}; use the feature extractor saved with the model"
        )
