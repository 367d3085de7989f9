"""Image processor of Tiny-BioMoE: raw biosignals, or windows of them, to `pixel_values`."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin
from transformers.utils import TensorType

from tinymyo_hf.tinymyo.preprocessing_tinymyo import LIBRARY_FIELDS
from tinymyo_hf.tinymyo.signal_tinymyo import SignalError

from .preprocessing_tiny_biomoe import BiosignalImagePreprocessing


class BiosignalImageProcessor(FeatureExtractionMixin, BiosignalImagePreprocessing):
    """Filters, normalises and cuts biosignals, and draws the windows as images for the Tiny-BioMoE models.

    To the library it is the model's feature extractor (`AutoFeatureExtractor`), as it takes signals.

    Args:
        args, fields: those of `BiosignalImagePreprocessing`.

    Raises:
        SignalError: (a ValueError) at construction for fields that cannot work together, later for recordings and
            windows that cannot be processed; the message names the field or the sample, and the fix.

    Examples:
        >>> import numpy as np
        >>> processor = BiosignalImageProcessor(representations=["waveform", "scalogram"])
        >>> recording = np.random.default_rng(0).normal(size=(8, 1000))
        >>> processor(recording, sampling_rate=200, windowed=True, return_tensors="pt")["pixel_values"].shape
        torch.Size([17, 16, 3, 224, 224])
    """

    model_input_names = ["pixel_values"]

    def __init__(self, *args: Any, **fields: Any):
        of_library = {name: fields.pop(name) for name in LIBRARY_FIELDS & fields.keys()}
        self.check_names(fields)
        BiosignalImagePreprocessing.__init__(self, *args, **fields)
        super().__init__(**of_library)

    def __call__(
        self,
        raw_emg: ArrayLike | list[ArrayLike],
        sampling_rate: float | None = None,
        preprocessed: bool = False,
        windowed: bool = False,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Draw one window or several, or all the windows of recordings.

        Args:
            raw_emg: one array (channels, time), or a list or a stacked array of them: windows of `window_length`
                samples, or with `windowed` recordings of any length.
            sampling_rate: Hz of the signals; leaving it out for raw ones assumes `recording_rate`, with a warning.
            preprocessed: the arrays come from `preprocess` (or a prepared dataset): only cut and draw.
            windowed: cut every recording into windows; the batch then holds all windows, in order.
            return_tensors: "pt", "np", or None for an array of NumPy.

        Returns:
            `pixel_values` float32 (batch, images, 3, image_size, image_size) in [0, 1]: see `images`.
        """
        arrays = _as_list(raw_emg)
        names = ["signal"] if len(arrays) == 1 else [f"signal {i}" for i in range(len(arrays))]
        cut = [
            self._windows(array, sampling_rate, preprocessed, windowed, name)
            for array, name in zip(arrays, names, strict=True)
        ]
        counts = sorted({windows.shape[1] for windows in cut})
        if len(counts) > 1:
            raise SignalError(f"the signals of one batch have {counts} channels; batch those with equal counts")
        return BatchFeature({"pixel_values": self.images(np.concatenate(cut))}, tensor_type=return_tensors)

    def _windows(
        self, array: ArrayLike, sampling_rate: float | None, preprocessed: bool, windowed: bool, name: str
    ) -> np.ndarray:
        """(windows, channels, window_length), preprocessed."""
        if not preprocessed:
            array = self.preprocess(array, sampling_rate, name)
        elif sampling_rate is not None and not math.isclose(sampling_rate, self.sampling_rate, rel_tol=1e-6):
            raise SignalError(
                f"{name}: sampled at {sampling_rate} Hz, but preprocessed signals come at {self.sampling_rate:g} Hz; "
                "pass raw ones"
            )
        array = np.asarray(array)
        if array.ndim != 2:
            raise SignalError(f"{name}: its shape {array.shape} is not (channels, time)")
        if windowed:
            return self.windows(array, name)[0]
        if array.shape[1] != self.window_length:
            longer = array.shape[1] > self.window_length
            fix = "pass windowed=True to cut windows from it" if longer else "give longer windows"
            fix += ", or set window_length"
            raise SignalError(f"{name}: {array.shape[1]} samples, but window_length={self.window_length}; {fix}")
        return array[None] if preprocessed else self.normalize_windows(array[None])


def _as_list(raw_emg: ArrayLike | list[ArrayLike]) -> list[ArrayLike]:
    """A list of (channels, time) arrays: one array or nested list is a list of one."""
    if not isinstance(raw_emg, (list, tuple)):
        return list(raw_emg) if getattr(raw_emg, "ndim", 2) == 3 else [raw_emg]
    if len(raw_emg) == 0:
        raise SignalError("no signal: the list is empty; give at least one array (channels, time)")
    first = raw_emg[0]
    is_channel = np.ndim(first[0]) == 0 if isinstance(first, (list, tuple)) and first else getattr(first, "ndim", 1) < 2
    return [raw_emg] if is_channel else list(raw_emg)


__all__ = ["BiosignalImageProcessor"]
