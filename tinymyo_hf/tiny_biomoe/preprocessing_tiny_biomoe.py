"""Preprocessing of Tiny-BioMoE: recordings to windows as TinyMyo has them, windows to images.

Raw recording (channels, time) -> filters, normalisation, windows (`TinyMyoPreprocessing`) -> images (`images`). The
settings of all of it are saved in one `preprocessor_config.json`. It needs numpy and scipy only: the image processor is
this and what the library wants of one.

The filters are imported from the package by their full name, as code that travels with a checkpoint cannot import from
a neighbouring folder. Where the package is not installed, `rendering_tiny_biomoe.py` alone still draws windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing
from tinymyo_hf.tinymyo.signal_tinymyo import SignalError

from .rendering_tiny_biomoe import Renderer, Scalogram, SpectrogramAmplitude, SpectrogramPhase, Waveform

REPRESENTATIONS = ("waveform", "spectrogram_amplitude", "spectrogram_phase", "scalogram")
CHANNELS_AS = ("images", "strips")
LEAST_STRIP = 4
"""Rows of a strip, below which nothing can be told in it."""
LARGEST = 1e12
"""Magnitude whose square float32 can still hold, summed over a window."""


@dataclass(eq=False)
class BiosignalImagePreprocessing(TinyMyoPreprocessing):
    """Filters, normalises and cuts biosignals, and draws the windows as images for Tiny-BioMoE.

    How the authors of Tiny-BioMoE rendered their signals is not published; these images are this package's own choice,
    described in `rendering_tiny_biomoe`.

    Args, beyond those of `TinyMyoPreprocessing`:
        patch_size: 1, as images know no patches of samples.
        representations: what is drawn of a window, in this order: "waveform", "spectrogram_amplitude",
            "spectrogram_phase", "scalogram".
        image_size: pixels, height and width; the model takes 224.
        channels_as: "images" draws every channel by itself: channels x representations images of a window, those of the
            first channel first. "strips" draws the channels one under another, the first on top, in strips of
            image_size // channels rows: one image per representation, and that much less work for the model.
        waveform_range: the value at the upper edge of a waveform, its negative at the lower one; of z-scored signals,
            standard deviations of the recording. A fixed range keeps weak and strong contractions apart, which tells
            gestures; None takes the largest magnitude of each channel in each window.
        line_thickness: pixels of the waveform's line.
        frequency_range: Hz at the lower and the upper edge of spectrograms (rows at equal distances) and scalograms
            (equal ratios).
        level_range: dB that are black and white; 0 dB is a sine whose amplitude is 1, a standard deviation say.
        stft_window: samples of the Hann window of spectrograms.
        stft_hop: samples from one of these windows to the next, for amplitudes; for phases half a window.
        scalogram_wavelet: radians per standard deviation of the Morlet wavelet's envelope: larger separates frequencies
            better, smaller separates times better.

    Raises:
        SignalError: (a ValueError) at construction for fields that cannot be so, later for windows that cannot
            be drawn; the message names the field or the sample, and the fix.
    """

    patch_size: int = 1
    representations: Sequence[str] = ("waveform",)
    image_size: int = 224
    channels_as: str = "images"
    waveform_range: float | None = 4.0
    line_thickness: float = 2.0
    frequency_range: Sequence[float] = (10.0, 100.0)
    level_range: Sequence[float] = (-40.0, 10.0)
    stft_window: int = 40
    stft_hop: int = 4
    scalogram_wavelet: float = 6.0

    def __post_init__(self) -> None:
        for field in ("line_thickness", "scalogram_wavelet"):
            setattr(self, field, _positive(field, getattr(self, field)))
        if self.waveform_range is not None:
            self.waveform_range = _positive("waveform_range", self.waveform_range)
        for field, least in (("image_size", 2 * LEAST_STRIP), ("stft_window", 4), ("stft_hop", 1)):
            setattr(self, field, _whole(field, getattr(self, field), least))
        # Lists, not tuples: what was constructed then equals what is read back from JSON.
        self.frequency_range = _interval("frequency_range", self.frequency_range, "Hz")
        self.level_range = _interval("level_range", self.level_range, "dB")
        self.representations = _known_representations(self.representations)
        if self.channels_as not in CHANNELS_AS:
            raise SignalError(f"channels_as={self.channels_as!r}: unknown; use one of {', '.join(CHANNELS_AS)}")
        super().__post_init__()

    def _check_fields(self) -> None:
        super()._check_fields()
        shows_frequencies = self.representations != ["waveform"]
        if shows_frequencies and not 0 < self.frequency_range[0] < self.frequency_range[1] <= self.sampling_rate / 2:
            raise SignalError(
                f"frequency_range={self.frequency_range}: must lie above 0 and up to {self.sampling_rate / 2:g} Hz, "
                f"half of sampling_rate={self.sampling_rate:g}"
            )
        self._check_length(self.window_length, "window_length")

    @property
    def least_samples(self) -> int:
        """Samples of the shortest window that can be drawn in all the representations."""
        return max(renderer.least_samples for renderer in self.renderers().values())

    def num_images(self, channels: int | None = None) -> int:
        """Images of one window: `config.num_images` of a model that takes them together.

        Args:
            channels: of the window; None takes `feature_size`.

        Raises:
            SignalError: every channel has images, and neither says how many channels there are.
        """
        if self.channels_as == "strips":
            return len(self.representations)
        channels = self.feature_size if channels is None else channels
        if channels is None:
            raise SignalError("feature_size=None: how many images a window has depends on it; set it, or pass channels")
        return len(self.representations) * channels

    def images(self, windows: ArrayLike, name: str = "windows") -> np.ndarray:
        """Draw windows that `windows` cut, or those of a prepared dataset.

        Args:
            windows: (batch, channels, time at `self.sampling_rate`), preprocessed.
            name: what to call the windows in error messages.

        Returns:
            float32 (batch, images, 3, image_size, image_size) in [0, 1]; the images by channel, then representation.
            Each depends on its window alone: the same window gives the same image, whatever else is in the batch.

        Raises:
            SignalError: another shape, NaN or infinite values, windows too short for a representation.
        """
        windows = self._checked(windows, name)
        batch, channels, samples = windows.shape
        size, renderers = self.image_size, list(self.renderers().values())
        height = size // channels if self.channels_as == "strips" else size
        drawn = np.empty((batch, channels, len(renderers), 3, height, size), np.float32)
        by_signal = drawn.reshape(-1, *drawn.shape[2:])
        # One by one: a drawing and its intermediate steps stay in the processor's cache, and do not depend on a batch.
        for signal, of_signal in zip(windows.reshape(-1, 1, samples), by_signal, strict=True):
            for renderer, image in zip(renderers, of_signal, strict=True):
                image[:] = renderer(signal, height, size)[0]
        if self.channels_as == "images":
            return drawn.reshape(batch, channels * len(renderers), 3, size, size)
        images = np.zeros((batch, len(renderers), 3, size, size), np.float32)
        strips = drawn.transpose(0, 2, 3, 1, 4, 5)
        images[..., : channels * height, :] = strips.reshape(batch, len(renderers), 3, channels * height, size)
        return images

    def renderers(self) -> dict[str, Renderer]:
        """How each representation is drawn, in their order."""
        time_frequency = (self.sampling_rate, tuple(self.frequency_range), tuple(self.level_range))
        known = {
            "waveform": Waveform(self.waveform_range, self.line_thickness),
            "spectrogram_amplitude": SpectrogramAmplitude(*time_frequency, self.stft_window, self.stft_hop),
            "spectrogram_phase": SpectrogramPhase(*time_frequency, self.stft_window),
            "scalogram": Scalogram(*time_frequency, self.scalogram_wavelet),
        }
        return {name: known[name] for name in self.representations}

    def _check_length(self, samples: int, name: str) -> None:
        for representation, renderer in self.renderers().items():
            if samples < renderer.least_samples:
                raise SignalError(
                    f"{name}: {samples} samples, but the {representation} needs at least {renderer.least_samples} "
                    f"({renderer.limit}); use longer windows"
                )

    def _checked(self, windows: ArrayLike, name: str) -> np.ndarray:
        """The windows as finite float32 (batch, channels, time) that can be drawn."""
        try:
            x = np.asarray(windows)
        except (TypeError, ValueError) as error:
            raise SignalError(f"{name}: not of one shape ({error}); give (batch, channels, time)") from error
        if x.dtype.kind not in "fiub" or x.ndim != 3 or 0 in x.shape:
            raise SignalError(f"{name}: expected numbers (batch, channels, time), got {x.dtype} of shape {x.shape}")
        if self.channels_as == "strips" and x.shape[1] > self.image_size // LEAST_STRIP:
            raise SignalError(
                f"{name}: {x.shape[1]} channels leave strips of less than {LEAST_STRIP} of the {self.image_size} rows; "
                'set channels_as="images"'
            )
        if self.feature_size is not None and x.shape[1] != self.feature_size:
            raise SignalError(
                f"{name}: {x.shape[1]} channels, but feature_size={self.feature_size}; select the channels the model "
                "was trained on"
            )
        self._check_length(x.shape[2], name)
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, dtype=np.float32)
        bad = np.argwhere(~(np.abs(x) < LARGEST))
        if len(bad):
            window, channel, sample = bad[0].tolist()
            raise SignalError(
                f"{name}: {len(bad)} values are NaN, infinite or beyond {LARGEST:g}, the first at sample {sample} of "
                f"channel {channel} of window {window}; leave such windows out, or set max_gap for recordings with gaps"
            )
        return x


def _known_representations(names: Any) -> list[str]:
    if not isinstance(names, (list, tuple)) or not names:
        raise SignalError(f"representations={names!r}: give a list of some of {', '.join(REPRESENTATIONS)}")
    for name in names:
        if name not in REPRESENTATIONS:
            raise SignalError(f"representations: {name!r} is unknown; use some of {', '.join(REPRESENTATIONS)}")
        if names.count(name) > 1:
            raise SignalError(f"representations: {name!r} is there twice; remove one")
    return list(names)


def _positive(field: str, value: Any) -> float:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise SignalError(f"{field}={value!r}: must be a positive number")
    return float(value)


def _whole(field: str, value: Any, least: int) -> int:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SignalError(f"{field}={value!r}: must be a whole number of at least {least}")
    return value


def _interval(field: str, value: Any, unit: str) -> list[float]:
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SignalError(f"{field}={value!r}: give the lower and the upper end in {unit}")
    return [low, high]


__all__ = ["BiosignalImagePreprocessing"]
