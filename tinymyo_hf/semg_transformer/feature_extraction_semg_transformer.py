"""Feature extractor of the sEMG transformers: raw recordings of two wristbands to `input_values`, in padded batches."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import TensorType

from .preprocessing_semg_transformer import LIBRARY_FIELDS, SEMGInputError, SEMGTransformerPreprocessing


class SEMGTransformerFeatureExtractor(SequenceFeatureExtractor, SEMGTransformerPreprocessing):
    """Checks, rotates and pads raw surface EMG for the sEMG transformers.

    Args:
        args, fields: those of `SEMGTransformerPreprocessing`, and of the library's feature extractors
            `return_attention_mask`.

    Raises:
        SEMGInputError: (a ValueError) at construction for fields that cannot work together, later for recordings that
            do not suit the model.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(self, *args: Any, **fields: Any):
        of_library = {name: fields.pop(name) for name in LIBRARY_FIELDS & fields.keys()}
        self.check_names(fields)
        SEMGTransformerPreprocessing.__init__(self, *args, **fields)
        super().__init__(self.feature_size, self.sampling_rate, self.padding_value, **of_library)
        if self.padding_side != "right":
            raise SEMGInputError(f"padding_side={self.padding_side!r}: unknown; use right")

    def __call__(
        self,
        raw_signal: ArrayLike | list[ArrayLike],
        sampling_rate: float | None = None,
        padding: bool | str = True,
        return_tensors: str | TensorType | None = None,
        **unsupported: Any,
    ) -> BatchFeature:
        """Prepare one recording or several for the model.

        Args:
            raw_signal: one recording (channels, time), or a list or a stacked array of them.
            sampling_rate: Hz of the recordings; leaving it out assumes `self.sampling_rate`, with a warning.
            padding: True or "longest" pads on the right to the longest of the batch; False leaves lengths as they are.
            return_tensors: "pt", "np", or None for lists of arrays.

        Returns:
            `input_values` float32 (batch, channels, time) and, unless `return_attention_mask` is False,
            `attention_mask` int64 (batch, time), 1 where a sample is real.
        """
        recordings = _as_recordings(raw_signal)
        names = ["recording"] if len(recordings) == 1 else [f"recording {i}" for i in range(len(recordings))]
        examples = [
            {"input_values": self.preprocess(recording, sampling_rate, name)}
            for recording, name in zip(recordings, names, strict=True)
        ]
        return self.pad(examples, padding=padding, return_tensors=return_tensors, **unsupported)

    def pad(
        self,
        processed_features: BatchFeature | dict[str, Any] | list[dict[str, Any]],
        padding: bool | str = True,
        return_tensors: str | TensorType | None = None,
        **unsupported: Any,
    ) -> BatchFeature:
        """Pad examples that `preprocess` made to one batch, as `__call__` does; data collators of the library call it.

        Args:
            processed_features: examples {"input_values": (channels, time), ...}, or a dictionary of lists of their
                entries. An "attention_mask" (time,) is carried on; other entries are collected as they are.
            padding, return_tensors: as for `__call__`.
        """
        asked = sorted(name for name, value in unsupported.items() if value)
        if asked or padding not in (True, False, "longest"):
            raise SEMGInputError(
                f"{', '.join(asked) or f'padding={padding!r}'}: not supported, recordings are padded to the longest "
                "and never cut short, which would lose text; use padding=True, 'longest' or False"
            )
        examples = processed_features
        if not isinstance(examples, (list, tuple)):
            examples = [dict(zip(examples, entries, strict=True)) for entries in zip(*examples.values(), strict=True)]
        arrays = [np.asarray(example["input_values"], dtype=np.float32) for example in examples]
        masks = [
            np.asarray(example.get("attention_mask", np.ones(array.shape[1])), dtype=np.int64)
            for example, array in zip(examples, arrays, strict=True)
        ]
        if padding:
            length = max(array.shape[1] for array in arrays)
            arrays = [_pad_right(array, length, self.padding_value) for array in arrays]
            masks = [_pad_right(mask, length, 0) for mask in masks]
        batch = BatchFeature({"input_values": arrays})
        if self.return_attention_mask:
            batch["attention_mask"] = masks
        for name in examples[0].keys() - {"input_values", "attention_mask"}:
            batch[name] = [example[name] for example in examples]
        return batch.convert_to_tensors(return_tensors)


def _as_recordings(raw_signal: ArrayLike | list[ArrayLike]) -> list[ArrayLike]:
    """A list of (channels, time) recordings: one array or nested list is a list of one."""
    if not isinstance(raw_signal, (list, tuple)):
        return list(raw_signal) if getattr(raw_signal, "ndim", 2) == 3 else [raw_signal]
    if len(raw_signal) == 0:
        raise SEMGInputError("no recording: the list is empty; give at least one array (channels, time)")
    first = raw_signal[0]
    is_channel = np.ndim(first[0]) == 0 if isinstance(first, (list, tuple)) and first else getattr(first, "ndim", 1) < 2
    return [raw_signal] if is_channel else list(raw_signal)


def _pad_right(array: np.ndarray, length: int, value: float) -> np.ndarray:
    widths = [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])]
    return np.pad(array, widths, constant_values=value)


__all__ = ["SEMGTransformerFeatureExtractor"]
