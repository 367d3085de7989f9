"""Feature extractor of the sEMG transformers: raw recordings of two wristbands to `input_values`.

The models learn from the raw signal and normalise it themselves, after their first convolution: nothing is filtered or
scaled here. Raw recording (channels, time) -> checks -> resampling where allowed -> rotation of the bands -> padding.
The settings are saved in `preprocessor_config.json`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import resample_poly
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import TensorType, logging

logger = logging.get_logger(__name__)

# Fields that the library itself writes into preprocessor_config.json or sets at construction.
LIBRARY_FIELDS = {"feature_extractor_type", "processor_class", "auto_map", "padding_side", "return_attention_mask"}

# What a corpus must not have done to its signals, with the values that mean "nothing".
UNTOUCHED = {
    "filter_rate": None,
    "band_pass": None,
    "notch_frequencies": [],
    "gain": 1.0,
    "soft_limit": None,
    "normalization": "none",
}


class SEMGInputError(ValueError):
    """A recording or a setting that does not suit the model; the message names the place and the fix."""


class SEMGTransformerFeatureExtractor(SequenceFeatureExtractor):
    """Checks, rotates and pads raw surface EMG for the sEMG transformers.

    Args:
        num_channels: electrodes of a recording, all bands together.
        sampling_rate: Hz, the rate the model was trained at.
        padding_value: written behind the end of the shorter recordings of a batch.
        bands: electrodes of each band, in the order of the channels (left wrist, then right); a band is a ring.
        rotation: for each band, by how many electrodes it is turned: the signal of electrode i is given to the model as
            that of electrode i + rotation. For a band worn otherwise than in training. None turns none.
        on_rate_mismatch: "error" refuses recordings at another rate, "resample" converts them (with anti-aliasing).

    Raises:
        SEMGInputError: (a ValueError) at construction for fields that cannot work together, later for recordings that
            do not suit the model.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        num_channels: int = 32,
        sampling_rate: float = 2000,
        padding_value: float = 0.0,
        bands: Sequence[int] = (16, 16),
        rotation: Sequence[int] | None = None,
        on_rate_mismatch: str = "error",
        **kwargs: Any,
    ):
        (num_channels,) = _whole_numbers("num_channels", [num_channels])
        feature_size = kwargs.pop("feature_size", num_channels)  # the library saves it, under its own name
        unknown = sorted(kwargs.keys() - LIBRARY_FIELDS)
        if unknown:
            raise SEMGInputError(f"unknown field {unknown[0]!r}; correct its name or remove it")
        super().__init__(feature_size, _positive("sampling_rate", sampling_rate), padding_value, **kwargs)
        self.num_channels = num_channels
        # Lists, not tuples: what was constructed then equals what is read back from JSON.
        self.bands = _whole_numbers("bands", bands)
        self.rotation = [0] * len(self.bands) if rotation is None else _whole_numbers("rotation", rotation)
        self.on_rate_mismatch = on_rate_mismatch
        if feature_size != num_channels or min(self.bands, default=0) < 1 or sum(self.bands) != num_channels:
            raise SEMGInputError(
                f"bands={self.bands}: their electrodes must add up to num_channels={num_channels} (feature_size too, "
                f"which is {feature_size})"
            )
        if len(self.rotation) != len(self.bands):
            raise SEMGInputError(f"rotation={self.rotation}: give one whole number for each of bands={self.bands}")
        for field, allowed in (("on_rate_mismatch", ("error", "resample")), ("padding_side", ("right",))):
            if getattr(self, field) not in allowed:
                raise SEMGInputError(f"{field}={getattr(self, field)!r}: unknown; use one of {', '.join(allowed)}")

    @classmethod
    def from_preprocessing(
        cls, preprocessing: SequenceFeatureExtractor, bands: Sequence[int] | None = None
    ) -> "SEMGTransformerFeatureExtractor":
        """The extractor that belongs to a model trained on a prepared corpus.

        Args:
            preprocessing: how the corpus was made, a `TinyMyoFeatureExtractor`.
            bands: electrodes of each band; by default the channels are shared evenly between two wrists.

        Raises:
            SEMGInputError: the corpus was filtered, scaled or normalised, which cannot be done again for a user's
                recordings by this class; or its channels are not known, or are an odd number.
        """
        done = [
            f"{field}={getattr(preprocessing, field)!r}"
            for field, nothing in UNTOUCHED.items()
            if getattr(preprocessing, field) != nothing
        ]
        if done:
            wanted = ", ".join(f"{field}={nothing!r}" for field, nothing in UNTOUCHED.items())
            raise SEMGInputError(
                f"the corpus was prepared with {', '.join(done)}, but sEMG transformers learn from raw signals: "
                f"prepare it with {wanted}"
            )
        channels = preprocessing.feature_size
        if bands is None:
            if channels is None or channels % 2:
                raise SEMGInputError(f"{channels} channels cannot be shared evenly between two wrists; give `bands`")
            bands = [channels // 2, channels // 2]
        return cls(
            num_channels=sum(bands) if channels is None else channels,
            sampling_rate=preprocessing.sampling_rate,
            bands=bands,
            on_rate_mismatch=preprocessing.on_rate_mismatch,
        )

    def preprocess(self, recording: ArrayLike, sampling_rate: float | None, name: str = "recording") -> np.ndarray:
        """Check, resample where allowed, and rotate the bands.

        Args:
            recording: (channels, time), in any unit.
            sampling_rate: Hz of the recording; None assumes `self.sampling_rate`, with a warning.
            name: what to call the recording in error messages.

        Returns:
            float32 (channels, time at `self.sampling_rate`).
        """
        x = _checked(recording, self.num_channels, name)
        rate = self._checked_rate(sampling_rate, name)
        if rate != self.sampling_rate:
            x = _resampled(x, rate, self.sampling_rate, name)
        if any(self.rotation):
            edges = np.cumsum(self.bands)[:-1]
            x = np.concatenate(
                [np.roll(band, turn, axis=0) for band, turn in zip(np.split(x, edges), self.rotation, strict=True)]
            )
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise SEMGInputError(f"{name}: its values overflow float32; rescale them, to volts say")
        return x

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

    def _checked_rate(self, sampling_rate: float | None, name: str) -> float:
        if sampling_rate is None:
            logger.warning(
                f"{name}: no sampling_rate was given; {self.sampling_rate:g} Hz is assumed. Pass sampling_rate: a "
                "wrong assumption gives wrong results without an error."
            )
            return self.sampling_rate
        sampling_rate = _positive(f"{name}: sampling_rate", sampling_rate)
        if math.isclose(sampling_rate, self.sampling_rate, rel_tol=1e-6):
            return self.sampling_rate
        if self.on_rate_mismatch == "error":
            raise SEMGInputError(
                f"{name}: sampled at {sampling_rate:g} Hz, but the model was trained at {self.sampling_rate:g} Hz; "
                'resample it, or set on_rate_mismatch="resample"'
            )
        return sampling_rate


def _checked(recording: ArrayLike, num_channels: int, name: str) -> np.ndarray:
    """The recording as an array of real, finite numbers (num_channels, time)."""
    try:
        x = np.asarray(recording)
    except (TypeError, ValueError) as error:
        raise SEMGInputError(f"{name}: not a rectangular array of numbers ({error}); give (channels, time)") from error
    if x.dtype.kind not in "fiub":
        raise SEMGInputError(f"{name}: values of type {x.dtype} are not real numbers; convert them to float")
    if x.ndim != 2 or x.shape[1] == 0 or x.shape[0] != num_channels:
        turned = x.ndim == 2 and x.shape[1] == num_channels
        hint = (
            "transpose it" if turned else "give the electrodes that the model was trained on, and at least one sample"
        )
        raise SEMGInputError(
            f"{name}: expected an array (channels, time) of num_channels={num_channels}, got shape {x.shape}; {hint}"
        )
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise SEMGInputError(
            f"{name}: {len(bad)} missing (NaN or infinite) samples, the first at sample {bad[:, 1].min()} of channel "
            f"{bad[bad[:, 1].argmin(), 0]}; interpolate them, or leave that part of the recording out"
        )
    return x


def _resampled(x: np.ndarray, from_rate: float, to_rate: float, name: str) -> np.ndarray:
    """(channels, round(time * to_rate / from_rate)) by a polyphase filter, float64."""
    exact = Fraction(to_rate).limit_denominator(1000) / Fraction(from_rate).limit_denominator(1000)
    ratio = exact.limit_denominator(4096)
    length = round(x.shape[1] * to_rate / from_rate)
    if length == 0 or ratio == 0:
        raise SEMGInputError(f"{name}: its {x.shape[1]} samples at {from_rate:g} Hz leave none at {to_rate:g} Hz")
    offset = x[:, :1].astype(np.float64)  # removed and put back: constants pass exactly, without edge effects
    y = resample_poly(x - offset, ratio.numerator, ratio.denominator, axis=1, padtype="edge") + offset
    return np.pad(y, ((0, 0), (0, max(0, length - y.shape[1]))), mode="edge")[:, :length]


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


def _positive(field: str, value: Any) -> float:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise SEMGInputError(f"{field}={value!r}: must be a positive number of Hz")
    return value


def _whole_numbers(field: str, values: Any) -> list[int]:
    try:
        whole = [int(value) for value in values]
    except (TypeError, ValueError):
        whole = None
    if whole is None or any(a != b for a, b in zip(whole, values, strict=True)):
        raise SEMGInputError(f"{field}={values!r}: give a list of whole numbers")
    return whole


__all__ = ["SEMGTransformerFeatureExtractor"]
