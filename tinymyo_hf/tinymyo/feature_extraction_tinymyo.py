"""Feature extractor of TinyMyo: raw surface EMG to `input_values`, in batches padded to whole patches."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import TensorType

from .preprocessing_tinymyo import LIBRARY_FIELDS, TinyMyoPreprocessing
from .signal_tinymyo import SignalError, check_signal


class TinyMyoFeatureExtractor(SequenceFeatureExtractor, TinyMyoPreprocessing):
    """Filters, normalises, cuts and pads surface EMG for the TinyMyo models.

    Args:
        args, fields: those of `TinyMyoPreprocessing`, and of the library's feature extractors `return_attention_mask`.

    Raises:
        SignalError: (a ValueError) at construction for fields that cannot work together, later for recordings that
            cannot be processed; the message names the field or the sample, and the fix.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(self, *args: Any, **fields: Any):
        of_library = {name: fields.pop(name) for name in LIBRARY_FIELDS & fields.keys()}
        self.check_names(fields)
        TinyMyoPreprocessing.__init__(self, *args, **fields)
        super().__init__(self.feature_size, self.sampling_rate, self.padding_value, **of_library)
        if self.padding_side != "right":
            raise SignalError(f"padding_side={self.padding_side!r}: unknown; use right")

    def __call__(
        self,
        raw_emg: ArrayLike | list[ArrayLike],
        sampling_rate: float | None = None,
        preprocessed: bool = False,
        windowed: bool = False,
        padding: bool | str = True,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Prepare one recording or several for the model.

        Args:
            raw_emg: one recording (channels, time), or a list or a stacked array of them.
            sampling_rate: Hz of the recordings; leaving it out assumes `self.sampling_rate`, with a warning.
            preprocessed: the arrays come from `preprocess` (or a prepared dataset): only cut and pad.
            windowed: cut every recording into windows; the batch then holds all windows, in order.
            padding: True or "longest" pads on the right to the longest of the batch, and to whole patches; False
                leaves every length as it is.
            return_tensors: "pt", "np", or None for lists of arrays.

        Returns:
            `input_values` float32 (batch, channels, time) and, unless `return_attention_mask` is False,
            `attention_mask` int64 (batch, time), 1 where a sample is real.
        """
        if padding not in (True, False, "longest"):
            raise SignalError(f"padding={padding!r}: use True, 'longest' or False")
        recordings = _as_recordings(raw_emg)
        names = ["recording"] if len(recordings) == 1 else [f"recording {i}" for i in range(len(recordings))]
        if preprocessed:
            arrays = [check_signal(r, n, True).astype(np.float32) for r, n in zip(recordings, names, strict=True)]
        else:
            arrays = [self.preprocess(r, sampling_rate, n) for r, n in zip(recordings, names, strict=True)]
        if windowed:
            arrays = [w for a, name in zip(arrays, names, strict=True) for w in self.windows(a, name)[0]]
        elif not preprocessed:
            arrays = [self.normalize_windows(array) for array in arrays]
        masks = [np.ones(array.shape[1], dtype=np.int64) for array in arrays]
        return self._batch(arrays, masks, bool(padding)).convert_to_tensors(return_tensors)

    def pad(
        self,
        processed_features: BatchFeature | dict[str, Any] | list[dict[str, Any]],
        padding: bool | str = True,
        return_tensors: str | TensorType | None = None,
        **unsupported: Any,
    ) -> BatchFeature:
        """Pad examples to one batch as `__call__` does; the library's data collators, the `Trainer`'s default, call it.

        Args:
            processed_features: examples {"input_values": (channels, time), ...}, or a dictionary of lists of their
                entries. An "attention_mask" (time,) is carried on; other entries (labels) are collected as they are.
            padding, return_tensors: as for `__call__`.
        """
        asked = sorted(name for name, value in unsupported.items() if value)
        if asked:
            raise SignalError(f"pad: {', '.join(asked)} is not supported; recordings are padded to whole patches only")
        examples = processed_features
        if not isinstance(examples, (list, tuple)):
            examples = [dict(zip(examples, entries, strict=True)) for entries in zip(*examples.values(), strict=True)]
        arrays = [np.asarray(example["input_values"], dtype=np.float32) for example in examples]
        masks = [
            np.asarray(example.get("attention_mask", np.ones(array.shape[1])), dtype=np.int64)
            for example, array in zip(examples, arrays, strict=True)
        ]
        batch = self._batch(arrays, masks, bool(padding))
        for name in examples[0].keys() - {"input_values", "attention_mask"}:
            batch[name] = [example[name] for example in examples]
        return batch.convert_to_tensors(return_tensors)

    def _batch(self, arrays: list[np.ndarray], masks: list[np.ndarray], padding: bool) -> BatchFeature:
        counts = sorted({array.shape[0] for array in arrays})
        if len(counts) > 1:
            raise SignalError(f"the recordings of one batch have {counts} channels; batch those with equal counts")
        if padding:
            length = math.ceil(max(array.shape[1] for array in arrays) / self.patch_size) * self.patch_size
            arrays = [_pad_right(array, length, self.padding_value) for array in arrays]
            masks = [_pad_right(mask, length, 0) for mask in masks]
        features = {"input_values": arrays}
        if self.return_attention_mask:
            features["attention_mask"] = masks
        return BatchFeature(features)


def _as_recordings(raw_emg: ArrayLike | list[ArrayLike]) -> list[ArrayLike]:
    """A list of (channels, time) recordings: one array or nested list is a list of one."""
    if not isinstance(raw_emg, (list, tuple)):
        return list(raw_emg) if getattr(raw_emg, "ndim", 2) == 3 else [raw_emg]
    if len(raw_emg) == 0:
        raise SignalError("no recording: the list is empty; give at least one (channels, time) array")
    first = raw_emg[0]
    is_channel = np.ndim(first[0]) == 0 if isinstance(first, (list, tuple)) and first else getattr(first, "ndim", 1) < 2
    return [raw_emg] if is_channel else list(raw_emg)


def _pad_right(array: np.ndarray, length: int, value: float) -> np.ndarray:
    widths = [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])]
    return np.pad(array, widths, constant_values=value)


__all__ = ["TinyMyoFeatureExtractor"]
