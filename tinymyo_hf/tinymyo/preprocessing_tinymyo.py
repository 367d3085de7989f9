"""Preprocessing of TinyMyo: what becomes of raw surface EMG before the model sees it.

Raw recording (channels, time) -> checks -> resampling where allowed -> band-pass and notches -> gain and soft limit ->
normalisation -> windows. The settings are saved in `preprocessor_config.json`, so that a model is always fed the way it
was trained. It needs numpy and scipy only: the feature extractor is this and what the library wants of one.
"""

import copy
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .signal_tinymyo import (
    SignalError,
    check_mode,
    check_normalization,
    check_resampling,
    check_signal,
    check_windowing,
    design_filter,
    filter_signal,
    normalize,
    resample,
    sliding_windows,
    soft_limit,
)

logger = logging.getLogger(__name__)

# Recordings are filtered in groups of channels of about this many samples: their float64 temporaries stay in the cache.
SAMPLES_AT_ONCE = 1 << 17

LIBRARY_FIELDS = {"feature_extractor_type", "processor_class", "auto_map", "padding_side", "return_attention_mask"}
"""What is in preprocessor_config.json beside the fields of the preprocessing: the library's."""


@dataclass(eq=False)
class TinyMyoPreprocessing:
    """Filters, normalises and cuts surface EMG for the TinyMyo models.

    Args:
        feature_size: number of channels a recording must have; None accepts any number.
        sampling_rate: Hz, the rate the model was trained at.
        padding_value: written behind the end of the shorter arrays of a batch.
        filter_rate: Hz at which the filters run, where that is not `sampling_rate`: recordings come at this rate, are
            filtered, and then resampled to `sampling_rate`. None: recordings come at `sampling_rate`.
        resampling: "polyphase" (with anti-aliasing) or "linear" (interpolation only).
        band_pass: (lower, upper) edge of the Butterworth band-pass in Hz; (lower, None) is a high-pass, (None, upper) a
            low-pass; None for none.
        band_pass_order: its order, 1 to 12.
        notch_frequencies: Hz, notches after the band-pass (power line); empty for none.
        notch_quality: centre frequency over bandwidth of each notch.
        filter_mode: "zero_phase" for whole recordings (filters run both ways, statistics cover the recording) or
            "causal" for live use (the output at a sample depends on that sample and earlier ones only).
        gain: the filtered signal is multiplied by this, before it is limited and normalised.
        soft_limit: the signal x becomes soft_limit * tanh(x / soft_limit), which keeps artefacts within bounds; None
            leaves it as it is.
        normalization: "zscore", "minmax" (to [-1, 1]) or "none", each channel by itself.
        normalization_scope: "recording", or "window" (a window is normalised once it is complete, in either mode).
        window_length, stride: samples at `sampling_rate`; the window is a multiple of `patch_size`.
        patch_size: samples per patch of the model, or from one frame to the next after a convolution stem
            (`config.stem_stride`); inputs are padded to whole patches.
        on_rate_mismatch: "error" refuses recordings at another rate, "resample" converts them (the converting filter
            looks 10 samples of the slower rate ahead, in the causal mode too).
        max_gap: longest run of NaN or infinite samples that is interpolated; 0 refuses them all.
        allow_constant_channels: accept channels that never change.

    Raises:
        SignalError: (a ValueError) at construction for fields that cannot work together, later for recordings that
            cannot be processed; the message names the field or the sample, and the fix.
    """

    feature_size: int | None = None
    sampling_rate: float = 200
    padding_value: float = 0.0
    filter_rate: float | None = None
    resampling: str = "polyphase"
    band_pass: Sequence[float | None] | None = (20.0, 90.0)
    band_pass_order: int = 4
    notch_frequencies: Sequence[float] = (50.0,)
    notch_quality: float = 30.0
    filter_mode: str = "zero_phase"
    gain: float = 1.0
    soft_limit: float | None = None
    normalization: str = "zscore"
    normalization_scope: str = "recording"
    window_length: int = 200
    stride: int = 50
    patch_size: int = 20
    on_rate_mismatch: str = "error"
    max_gap: int = 0
    allow_constant_channels: bool = False

    def __post_init__(self) -> None:
        for field in ("feature_size", "band_pass_order", "window_length", "stride", "patch_size", "max_gap"):
            setattr(self, field, _plain(getattr(self, field)))
        for field in ("sampling_rate", "notch_quality", "gain"):
            setattr(self, field, _number(field, getattr(self, field)))
        for field in ("filter_rate", "soft_limit"):
            value = getattr(self, field)
            setattr(self, field, None if value is None else _number(field, value))
        # Lists, not tuples: what was constructed then equals what is read back from JSON.
        self.band_pass = None if self.band_pass is None else _numbers("band_pass", self.band_pass, gaps=True)
        notches = self.notch_frequencies
        self.notch_frequencies = [] if notches is None else _numbers("notch_frequencies", notches)
        self._check_fields()

    def _check_fields(self) -> None:
        check_mode(self.filter_mode, "filter_mode")
        check_normalization(self.normalization)
        check_windowing(self.window_length, self.stride)
        check_resampling(self.resampling)
        for field in ("filter_rate", "gain", "soft_limit"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SignalError(f"{field}={value!r}: must be a positive number")
        for field, allowed in (
            ("normalization_scope", ("recording", "window")),
            ("on_rate_mismatch", ("error", "resample")),
        ):
            if getattr(self, field) not in allowed:
                raise SignalError(f"{field}={getattr(self, field)!r}: unknown; use one of {', '.join(allowed)}")
        for field, least in (("patch_size", 1), ("max_gap", 0), ("band_pass_order", 1), ("feature_size", 1)):
            value = getattr(self, field)
            if field == "feature_size" and value is None:
                continue
            if not isinstance(value, int) or value < least:
                raise SignalError(f"{field}={value!r}: must be a whole number of at least {least}")
        if self.window_length % self.patch_size:
            lower = self.window_length // self.patch_size * self.patch_size
            raise SignalError(
                f"window_length={self.window_length}: must be a multiple of patch_size={self.patch_size}, "
                f"for instance {lower or self.patch_size} or {lower + self.patch_size}"
            )
        design_filter(
            float(self.recording_rate),
            None if self.band_pass is None else tuple(self.band_pass),
            self.band_pass_order,
            tuple(self.notch_frequencies),
            self.notch_quality,
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The preprocessing of a `preprocessor_config.json`, the entries of the library left out.

        Raises:
            SignalError: a field that does not exist or cannot be so.
        """
        own = {name: value for name, value in saved.items() if name not in LIBRARY_FIELDS}
        cls.check_names(own)
        return cls(**own)

    @classmethod
    def check_names(cls, names: Collection[str]) -> None:
        """Raise `SignalError` for what is not the name of a field."""
        unknown = sorted(set(names) - {field.name for field in fields(cls)})
        if unknown:
            raise SignalError(f"unknown field {unknown[0]!r} of {cls.__name__}; correct its name or remove it")

    def to_dict(self) -> dict[str, Any]:
        """The fields by their names, as `from_dict` and JSON take them."""
        return copy.deepcopy(vars(self))

    def replace(self, **fields: Any) -> Self:
        """The same with other values of some fields."""
        return type(self)(**{**self.to_dict(), **fields})

    @property
    def num_channels(self) -> int | None:
        """Channels that a recording must have; None for any number."""
        return self.feature_size

    @property
    def recording_rate(self) -> float:
        """Hz at which recordings are expected: that of the filters."""
        return self.sampling_rate if self.filter_rate is None else self.filter_rate

    def preprocess(
        self,
        recording: ArrayLike,
        sampling_rate: float | None,
        name: str = "recording",
        context: tuple[int, int] = (0, 0),
    ) -> np.ndarray:
        """Check, resample where allowed, filter, scale, and normalise over the recording where that is the scope.

        Args:
            recording: (channels, time).
            sampling_rate: Hz of the recording; None assumes `recording_rate`, with a warning.
            name: what to call the recording in error messages.
            context: samples at the start and at the end of `recording` that only serve to settle the filters (of the
                recordings before and after, say); they are cut off after filtering.

        Returns:
            float32 (channels, time at `self.sampling_rate`).
        """
        x = check_signal(recording, name, self.allow_constant_channels, self.max_gap)
        if self.feature_size is not None and x.shape[0] != self.feature_size:
            hint = "transpose it" if x.shape[1] == self.feature_size else "select the channels the model was trained on"
            raise SignalError(
                f"{name}: {x.shape[0]} channels, but feature_size={self.feature_size}; the array must be "
                f"(channels, time): {hint}"
            )
        if min(context) < 0 or sum(context) >= x.shape[1]:
            raise SignalError(f"{name}: context={tuple(context)} leaves none of its {x.shape[1]} samples; shorten it")
        rate = self._checked_rate(sampling_rate, name)
        channels = max(1, SAMPLES_AT_ONCE // x.shape[1])
        parts = [self._process(x[i : i + channels], rate, context) for i in range(0, len(x), channels)]
        processed = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(processed).all():
            raise SignalError(f"{name}: its values (up to {np.abs(x).max():g}) overflow; rescale them, to volts say")
        return processed

    def windows(self, processed: np.ndarray, name: str = "recording") -> tuple[np.ndarray, np.ndarray]:
        """Cut a preprocessed recording (channels, time); normalise each window where that is the scope.

        Returns:
            float32 windows (windows, channels, window_length), a read-only view unless normalised by window, and the
            first sample of each, int64 (windows,). The samples after the last full window are left out.
        """
        windows, starts = sliding_windows(processed, self.window_length, self.stride, name)
        return self.normalize_windows(windows), starts

    def normalize_windows(self, windows: np.ndarray) -> np.ndarray:
        """Normalise (..., channels, time) windows each by itself if `normalization_scope` is "window"."""
        return normalize(windows, self.normalization) if self.normalization_scope == "window" else windows

    def _checked_rate(self, sampling_rate: float | None, name: str) -> float:
        if sampling_rate is None:
            logger.warning(
                f"{name}: no sampling_rate was given to {self.__class__.__name__}; {self.recording_rate} Hz is "
                "assumed. Pass sampling_rate: a wrong assumption gives wrong results without an error."
            )
            return self.recording_rate
        sampling_rate = _number(f"{name}: sampling_rate", sampling_rate)
        if not (math.isfinite(sampling_rate) and sampling_rate > 0):
            raise SignalError(f"{name}: sampling_rate={sampling_rate}: must be a positive number of Hz")
        if math.isclose(sampling_rate, self.recording_rate, rel_tol=1e-6):
            return self.recording_rate
        if self.on_rate_mismatch == "error":
            raise SignalError(
                f"{name}: sampled at {sampling_rate:g} Hz, but the model was trained at {self.recording_rate:g} Hz; "
                'resample it, or set on_rate_mismatch="resample"'
            )
        return sampling_rate

    def _process(self, x: np.ndarray, rate: float, context: tuple[int, int]) -> np.ndarray:
        x = x.astype(np.float64)
        before, after = (round(samples * self.recording_rate / rate) for samples in context)
        if rate != self.recording_rate:
            x = resample(x, rate, self.recording_rate, self.resampling)
        x = filter_signal(
            x,
            self.recording_rate,
            self.band_pass,
            self.band_pass_order,
            self.notch_frequencies,
            self.notch_quality,
            self.filter_mode,
        )
        x = x[:, before : x.shape[1] - after]
        if self.recording_rate != self.sampling_rate:
            x = resample(x, self.recording_rate, self.sampling_rate, self.resampling)
        x = self.gain * x
        if self.soft_limit is not None:
            x = soft_limit(x, self.soft_limit)
        if self.normalization_scope == "recording":
            x = normalize(x, self.normalization, self.filter_mode)
        return x.astype(np.float32)


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's, which JSON can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _number(field: str, value: Any) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SignalError(f"{field}: {value!r} is not a number; give it as a number")
    return value


def _numbers(field: str, values: Any, gaps: bool = False) -> list[float | None]:
    """A list of floats; with `gaps`, None is kept."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        raise SignalError(f"{field}={values!r}: give a list of numbers, for instance [{values}]")
    return [None if gaps and value is None else float(_number(field, value)) for value in values]


__all__ = ["TinyMyoPreprocessing"]
