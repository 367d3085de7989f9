"""Filters, normalisation, resampling and windowing on (channels, time) arrays: the public names.

The functions live in `tinymyo_hf.tinymyo.signal_tinymyo`, beside the feature extractor that is saved with them.
"""

from .tinymyo.signal_tinymyo import (
    MODES,
    NORMALIZATIONS,
    SignalError,
    check_signal,
    design_filter,
    filter_signal,
    normalize,
    resample,
    sliding_windows,
    soft_limit,
)

__all__ = [
    "MODES",
    "NORMALIZATIONS",
    "SignalError",
    "check_signal",
    "design_filter",
    "filter_signal",
    "normalize",
    "resample",
    "sliding_windows",
    "soft_limit",
]
