"""Preprocessing of the sEMG transformers: what becomes of raw recordings of two wristbands before the model sees them.

The models learn from the raw signal and normalise it themselves, after their first convolution: nothing is filtered or
scaled here. Raw recording (channels, time) -> checks -> resampling where allowed -> rotation of the bands. The settings
are saved in `preprocessor_config.json`. It needs numpy and scipy only: the feature extractor is this and what the
library wants of one.
"""

import copy
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

logger = logging.getLogger(__name__)

LIBRARY_FIELDS = {"feature_extractor_type", "processor_class", "auto_map", "padding_side", "return_attention_mask"}
"""What is in preprocessor_config.json beside the fields of the preprocessing: the library's."""

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


@dataclass(eq=False)
class SEMGTransformerPreprocessing:
    """Checks, resamples and rotates raw surface EMG for the sEMG transformers.

    Args:
        num_channels: electrodes of a recording, all bands together.
        sampling_rate: Hz, the rate the model was trained at.
        padding_value: written behind the end of the shorter recordings of a batch.
        bands: electrodes of each band, in the order of the channels (left wrist, then right); a band is a ring.
        rotation: for each band, by how many electrodes it is turned: the signal of electrode i is given to the model as
            that of electrode i + rotation. For a band worn otherwise than in training. None turns none.
        on_rate_mismatch: "error" refuses recordings at another rate, "resample" converts them (with anti-aliasing).
        feature_size: the same as `num_channels`, under the name that the library saves it by; None takes it from there.

    Raises:
        SEMGInputError: (a ValueError) at construction for fields that cannot work together, later for recordings that
            do not suit the model.
    """

    num_channels: int = 32
    sampling_rate: float = 2000
    padding_value: float = 0.0
    bands: Sequence[int] = (16, 16)
    rotation: Sequence[int] | None = None
    on_rate_mismatch: str = "error"
    feature_size: int | None = None

    def __post_init__(self) -> None:
        (self.num_channels,) = _whole_numbers("num_channels", [self.num_channels])
        self.sampling_rate = _positive("sampling_rate", self.sampling_rate)
        self.feature_size = self.num_channels if self.feature_size is None else self.feature_size
        # Lists, not tuples: what was constructed then equals what is read back from JSON.
        self.bands = _whole_numbers("bands", self.bands)
        self.rotation = [0] * len(self.bands) if self.rotation is None else _whole_numbers("rotation", self.rotation)
        of_bands = sum(self.bands), self.feature_size
        if min(self.bands, default=0) < 1 or of_bands != (self.num_channels, self.num_channels):
            raise SEMGInputError(
                f"bands={self.bands}: their electrodes must add up to num_channels={self.num_channels} (feature_size "
                f"too, which is {self.feature_size})"
            )
        if len(self.rotation) != len(self.bands):
            raise SEMGInputError(f"rotation={self.rotation}: give one whole number for each of bands={self.bands}")
        if self.on_rate_mismatch not in ("error", "resample"):
            raise SEMGInputError(f"on_rate_mismatch={self.on_rate_mismatch!r}: unknown; use one of error, resample")

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The preprocessing of a `preprocessor_config.json`, the entries of the library left out.

        Raises:
            SEMGInputError: a field that does not exist or cannot be so.
        """
        own = {name: value for name, value in saved.items() if name not in LIBRARY_FIELDS}
        cls.check_names(own)
        return cls(**own)

    @classmethod
    def check_names(cls, names: Collection[str]) -> None:
        """Raise `SEMGInputError` for what is not the name of a field."""
        unknown = sorted(set(names) - {field.name for field in fields(SEMGTransformerPreprocessing)})
        if unknown:
            raise SEMGInputError(f"unknown field {unknown[0]!r} of {cls.__name__}; correct its name or remove it")

    def to_dict(self) -> dict[str, Any]:
        """The fields by their names, as `from_dict` and JSON take them."""
        return copy.deepcopy(vars(self))

    def replace(self, **fields: Any) -> Self:
        """The same with other values of some fields."""
        return type(self)(**{**self.to_dict(), **fields})

    @property
    def recording_rate(self) -> float:
        """Hz at which recordings are expected."""
        return self.sampling_rate

    @classmethod
    def from_preprocessing(cls, preprocessing: Any, bands: Sequence[int] | None = None) -> Self:
        """The preprocessing that belongs to a model trained on a prepared corpus.

        Args:
            preprocessing: how the corpus was made, a `TinyMyoPreprocessing`.
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
    from scipy.signal import resample_poly  # slow to import, and rarely needed

    offset = x[:, :1].astype(np.float64)  # removed and put back: constants pass exactly, without edge effects
    y = resample_poly(x - offset, ratio.numerator, ratio.denominator, axis=1, padtype="edge") + offset
    return np.pad(y, ((0, 0), (0, max(0, length - y.shape[1]))), mode="edge")[:, :length]


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


__all__ = ["SEMGInputError", "SEMGTransformerPreprocessing"]
