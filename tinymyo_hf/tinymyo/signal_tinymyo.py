"""Signal processing for surface EMG on (channels, time) arrays: checks, filters, normalisation, resampling, windows.

It imports only numpy and scipy: a feature extractor saved with `register_for_auto_class` carries this file along, so
that it works where the package is not installed. `tinymyo_hf.signal` is the public name of these functions.

Two modes run through the file. "zero_phase" is for recordings on disk: filters run forwards and backwards and
statistics cover the whole recording. "causal" is for live use: output sample t depends on input samples 0..t only.

scipy.signal takes longer to import, and more memory, than all else that a small device needs to run an exported model:
it is imported where something is filtered or resampled.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

MODES = ("zero_phase", "causal")
NORMALIZATIONS = ("zscore", "minmax", "none")
RESAMPLINGS = ("polyphase", "linear")

Band = tuple[float | None, float | None]
"""Lower and upper edge of a filter in Hz; None leaves that side open."""


class SignalError(ValueError):
    """A recording or a setting that cannot be processed; the message names the place and the fix."""


def check_signal(
    x: ArrayLike, name: str = "recording", allow_constant_channels: bool = False, max_gap: int = 0
) -> np.ndarray:
    """Return `x` as a floating (channels, time) array free of NaN and infinities, or raise `SignalError`.

    Args:
        x: array-like (channels, time), any real number type. Integers of 16 bits or fewer become float32, wider ones
            float64; float32 and float64 are kept.
        name: what to call the recording in error messages (a file name, say).
        allow_constant_channels: accept channels that never change (a dead electrode); refused otherwise.
        max_gap: runs of at most this many missing (NaN or infinite) samples are filled by linear interpolation, or with
            the nearest value at either end of the recording. 0 refuses every missing sample.

    Returns:
        float32 or float64 array (channels, time); the input itself where nothing had to change.
    """
    x = _as_recording(x, name)
    channels, samples = x.shape
    if channels == 0 or samples == 0:
        raise SignalError(f"{name}: empty, its shape (channels, time) is {x.shape}")
    if channels > samples:
        raise SignalError(
            f"{name}: {channels} channels and only {samples} samples; the array must be (channels, time): transpose it"
        )
    finite = np.isfinite(x)
    if not finite.all():
        x = _fill_gaps(x, finite, name, max_gap)
    if not allow_constant_channels:
        constant = np.flatnonzero(x.max(axis=1) == x.min(axis=1))
        if constant.size:
            channel = int(constant[0])
            others = f", as are channels {constant[1:].tolist()}" if constant.size > 1 else ""
            raise SignalError(
                f"{name}: channel {channel} is constant ({x[channel, 0]:g}) over all {samples} samples{others}; "
                "check the electrode, drop the channel, or set allow_constant_channels=True"
            )
    return x


def check_context(x: ArrayLike, name: str, max_gap: int = 0) -> None:
    """Raise `SignalError` for what is filtered with a recording but not part of it, unless it is (channels, time) with
    no more missing samples in a row than `max_gap`. It may be of any length and constant, as it only settles filters.
    """
    x = _as_recording(x, name)
    finite = np.isfinite(x)
    if not finite.all():
        _fill_gaps(x, finite, name, max_gap)


def filter_signal(
    x: np.ndarray,
    sampling_rate: float,
    band_pass: Band | None = (20.0, 90.0),
    order: int = 4,
    notch_frequencies: tuple[float, ...] = (50.0,),
    notch_quality: float = 30.0,
    mode: str = "zero_phase",
) -> np.ndarray:
    """Butterworth band-pass followed by notches, per channel, as second-order sections in float64.

    Args:
        x: (channels, time), finite.
        sampling_rate: Hz.
        band_pass: lower and upper edge in Hz, 0 < lower < upper < sampling_rate / 2. (lower, None) is a high-pass,
            (None, upper) a low-pass, None no such filter.
        order: order of the prototype, 1 to 12: that of a high-pass or low-pass; a band-pass has twice the order.
        notch_frequencies: Hz, each below sampling_rate / 2; empty for none.
        notch_quality: centre frequency over -3 dB bandwidth of each notch.
        mode: "zero_phase" (forwards and backwards: no delay, squared magnitude) or "causal" (forwards only, started in
            the steady state of the first sample).

    Returns:
        The filtered array, same shape; float32 for float32 input, float64 otherwise.
    """
    x = _as_float_array(x, "recording")
    check_mode(mode)
    notches = tuple(float(f) for f in notch_frequencies or ())
    band = None if band_pass is None else tuple(None if f is None else float(f) for f in band_pass)
    sections = design_filter(float(sampling_rate), band, int(order), notches, float(notch_quality))
    if len(sections) == 0:
        return x.copy()
    from scipy import signal as scipy_signal

    # The steady state for a constant input is exact here, not up to rounding: a dead channel stays exactly constant, so
    # that a later z-score does not blow rounding noise up to unit variance.
    offset = x[:, :1].astype(np.float64)
    centred = x - offset
    gain_at_zero = float(np.prod(sections[:, :3].sum(axis=1) / sections[:, 3:].sum(axis=1)))
    if mode == "causal":
        # The centred signal starts at 0, whose steady state is all zeros: no initial conditions are needed.
        y = scipy_signal.sosfilt(sections, centred, axis=1)
    else:
        padding = min(3 * (2 * len(sections) + 1), x.shape[1] - 1)
        y = scipy_signal.sosfiltfilt(sections, centred, axis=1, padtype="odd", padlen=padding)
        gain_at_zero *= gain_at_zero
    y += offset * gain_at_zero
    return y.astype(x.dtype, copy=False)


@lru_cache(maxsize=64)
def design_filter(
    sampling_rate: float,
    band_pass: Band | None,
    order: int,
    notch_frequencies: tuple[float, ...],
    notch_quality: float,
) -> np.ndarray:
    """Second-order sections (sections, 6) of `filter_signal`; raises `SignalError` for a filter that cannot exist."""
    if not (math.isfinite(sampling_rate) and sampling_rate > 0):
        raise SignalError(f"sampling_rate={sampling_rate:g}: must be a positive number of Hz")
    nyquist = sampling_rate / 2
    parts = [np.empty((0, 6))]
    if band_pass is not None:
        parts.append(_band_sections(sampling_rate, band_pass, order))
    if notch_frequencies and not notch_quality > 0:
        raise SignalError(f"notch_quality={notch_quality:g}: must be positive; 30 is usual")
    for frequency in notch_frequencies:
        if not 0 < frequency < nyquist:
            raise SignalError(
                f"notch_frequencies={notch_frequencies}: {frequency:g} Hz must lie between 0 and {nyquist:g} Hz, half "
                f"the sampling rate of {sampling_rate:g} Hz; remove it"
            )
        parts.append(_notch_section(sampling_rate, frequency, notch_quality))
    return np.concatenate(parts)


def _notch_section(sampling_rate: float, frequency: float, quality: float) -> np.ndarray:
    from scipy import signal as scipy_signal

    return np.concatenate(scipy_signal.iirnotch(frequency, quality, fs=sampling_rate))[None, :]


def _band_sections(sampling_rate: float, band_pass: Band, order: int) -> np.ndarray:
    edges = [edge for edge in band_pass if edge is not None]
    if len(band_pass) != 2 or not edges or not all(edge > 0 for edge in edges) or edges != sorted(set(edges)):
        raise SignalError(
            f"band_pass={band_pass}: give (lower, upper) in Hz with 0 < lower < upper, one of them None for a filter "
            "that is open on that side, or None for no filter"
        )
    nyquist = sampling_rate / 2
    if edges[-1] >= nyquist:
        which = "lower" if band_pass[1] is None else "upper"
        raise SignalError(
            f"band_pass={band_pass}: the {which} edge must lie below {nyquist:g} Hz, half the sampling rate of "
            f"{sampling_rate:g} Hz; lower it, or set band_pass=None"
        )
    if not 1 <= order <= 12:
        raise SignalError(f"band_pass_order={order}: must lie between 1 and 12; 4 is usual")
    from scipy import signal as scipy_signal

    kind = "highpass" if band_pass[1] is None else "lowpass" if band_pass[0] is None else "bandpass"
    return scipy_signal.butter(order, edges if len(edges) == 2 else edges[0], kind, fs=sampling_rate, output="sos")


def normalize(x: np.ndarray, method: str = "zscore", mode: str = "zero_phase") -> np.ndarray:
    """Normalise along the last axis (time), each channel by itself; leading axes are free.

    "zscore" subtracts the mean and divides by the standard deviation (ddof 1; taken as 1 where it is 0). "minmax" maps
    to [-1, 1] by 2 (x - min) / (max - min + 1e-8) - 1, so that a constant channel becomes -1. "none" copies.

    With mode "causal" the statistics at sample t cover samples 0..t. Returns float32 for float32 input, else float64.
    """
    x = _as_float_array(x, "recording")
    check_mode(mode)
    check_normalization(method)
    if method == "none":
        return x.copy()
    y = x.astype(np.float64)
    if method == "minmax":
        low, high = _running_range(y) if mode == "causal" else (y.min(-1, keepdims=True), y.max(-1, keepdims=True))
        y = 2 * ((y - low) / (high - low + 1e-8) - 0.5)
    else:
        y -= y[..., :1]  # makes a constant channel exactly 0, and the sums of squares below well conditioned
        mean, std = _running_moments(y) if mode == "causal" else _moments(y)
        y -= mean
        y /= np.where(std > 0, std, 1.0)
    return y.astype(x.dtype, copy=False)


def resample(x: np.ndarray, from_rate: float, to_rate: float, method: str = "polyphase") -> np.ndarray:
    """Resample (channels, time) from one rate in Hz to another.

    "polyphase" is a rational filter with anti-aliasing; it has linear phase, adds no delay and looks ahead 10 samples
    of the slower of the two rates. "linear" interpolates between neighbouring samples without any filter: what lies
    above half the new rate folds back (for signals that were made so elsewhere).

    Returns (channels, round(time * to_rate / from_rate)), float32 for float32 input, else float64.
    """
    x = _as_float_array(x, "recording")
    for field, rate in (("from_rate", from_rate), ("to_rate", to_rate)):
        if not (math.isfinite(rate) and rate > 0):
            raise SignalError(f"{field}={rate}: must be a positive number of Hz")
    check_resampling(method)
    if from_rate == to_rate:
        return x.copy()
    # Both rates to 1e-3 Hz, then a ratio of small integers: within 1e-7 of the true one.
    exact = Fraction(to_rate).limit_denominator(1000) / Fraction(from_rate).limit_denominator(1000)
    ratio = exact.limit_denominator(4096)
    length = round(x.shape[-1] * to_rate / from_rate)
    if length == 0 or ratio == 0:
        raise SignalError(
            f"recording: {x.shape[-1]} samples at {from_rate:g} Hz leave none at {to_rate:g} Hz; use a longer recording"
        )
    if method == "linear":
        positions = np.arange(length) * (from_rate / to_rate)
        rows = [np.interp(positions, np.arange(x.shape[-1]), row) for row in x.reshape(-1, x.shape[-1])]
        return np.reshape(rows, (*x.shape[:-1], length)).astype(x.dtype, copy=False)
    from scipy import signal as scipy_signal

    offset = x[..., :1].astype(np.float64)  # removed and put back: constants pass exactly, without edge effects
    y = scipy_signal.resample_poly(x - offset, ratio.numerator, ratio.denominator, axis=-1, padtype="edge") + offset
    if y.shape[-1] < length:
        y = np.concatenate([y, np.repeat(y[..., -1:], length - y.shape[-1], axis=-1)], axis=-1)
    return np.ascontiguousarray(y[..., :length]).astype(x.dtype, copy=False)


def soft_limit(x: np.ndarray, limit: float) -> np.ndarray:
    """`limit * tanh(x / limit)`, same shape and type: about x for small values, never beyond +-limit."""
    return limit * np.tanh(x / limit)


def sliding_windows(
    x: np.ndarray, window_length: int, stride: int, name: str = "recording"
) -> tuple[np.ndarray, np.ndarray]:
    """Cut (channels, time) into overlapping windows without copying.

    Args:
        x: (channels, time).
        window_length, stride: in samples, positive. The samples after the last full window are left out.
        name: what to call the recording in error messages.

    Returns:
        A read-only view (windows, channels, window_length) and the first sample of each window, int64 (windows,).
    """
    check_windowing(window_length, stride)
    samples = x.shape[-1]
    if samples < window_length:
        raise SignalError(
            f"{name}: {samples} samples, shorter than one window of window_length={window_length}; "
            "use a longer recording or a model with shorter windows"
        )
    windows = np.lib.stride_tricks.sliding_window_view(x, window_length, axis=-1)[:, ::stride]
    starts = np.arange(0, samples - window_length + 1, stride, dtype=np.int64)
    return windows.transpose(1, 0, 2), starts


def check_mode(mode: str, field: str = "mode") -> None:
    """Raise `SignalError` unless `mode` is one of `MODES`; `field` names it in the message."""
    if mode not in MODES:
        raise SignalError(f"{field}={mode!r}: unknown; use one of {', '.join(MODES)}")


def check_normalization(method: str) -> None:
    """Raise `SignalError` unless `method` is one of `NORMALIZATIONS`."""
    if method not in NORMALIZATIONS:
        raise SignalError(f"normalization={method!r}: unknown; use one of {', '.join(NORMALIZATIONS)}")


def check_resampling(method: str) -> None:
    """Raise `SignalError` unless `method` is one of `RESAMPLINGS`."""
    if method not in RESAMPLINGS:
        raise SignalError(f"resampling={method!r}: unknown; use one of {', '.join(RESAMPLINGS)}")


def check_windowing(window_length: int, stride: int) -> None:
    """Raise `SignalError` unless both are positive whole numbers of samples."""
    for field, value in (("window_length", window_length), ("stride", stride)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
            raise SignalError(f"{field}={value!r}: must be a positive whole number of samples")


def _as_float_array(x: ArrayLike, name: str) -> np.ndarray:
    try:
        x = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise SignalError(f"{name}: not a rectangular array of numbers ({error}); give (channels, time)") from error
    if x.dtype.kind not in "fiub":
        raise SignalError(f"{name}: values of type {x.dtype} are not real numbers; convert them to float")
    return x.astype(np.promote_types(x.dtype, np.float32) if x.dtype.itemsize <= 8 else np.float64, copy=False)


def _as_recording(x: ArrayLike, name: str) -> np.ndarray:
    x = _as_float_array(x, name)
    if x.ndim != 2:
        raise SignalError(
            f"{name}: expected a 2-dimensional (channels, time) array, got shape {x.shape}; "
            "a single channel is written as x[None, :]"
        )
    return x


def _fill_gaps(x: np.ndarray, finite: np.ndarray, name: str, max_gap: int) -> np.ndarray:
    x = x.copy()
    positions = np.arange(x.shape[1])
    for channel in np.flatnonzero(~finite.all(axis=1)):
        good = finite[channel]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], ~good, [0]]).astype(np.int8)))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        worst = int(lengths.argmax())
        if lengths[worst] > max_gap or not good.any():
            fix = (
                f"remove them, or set max_gap={lengths[worst]} to interpolate gaps up to that length"
                if good.any()
                else "drop the channel"
            )
            raise SignalError(
                f"{name}: channel {channel} has {int(lengths.sum())} missing (NaN or infinite) samples, the longest "
                f"run being {lengths[worst]} from sample {starts[worst]} on, while max_gap={max_gap}; {fix}"
            )
        x[channel, ~good] = np.interp(positions[~good], positions[good], x[channel, good])
    return x


def _moments(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if y.shape[-1] == 1:
        return y, np.ones_like(y)
    return y.mean(-1, keepdims=True), y.std(-1, ddof=1, keepdims=True)


def _running_moments(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = np.arange(1, y.shape[-1] + 1)
    total = np.cumsum(y, axis=-1)
    mean = total / count
    squares = np.cumsum(y * y, axis=-1) - total * mean
    # A sum of squares below the rounding error of its own terms is a constant channel so far, not a tiny spread.
    squares[squares < 1e-12 * np.maximum.accumulate(y * y, axis=-1)] = 0.0
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def _running_range(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.minimum.accumulate(y, axis=-1), np.maximum.accumulate(y, axis=-1)
