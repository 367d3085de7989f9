"""Drawing of biosignals as images: waveform, spectrogram amplitude and phase, scalogram, in plain NumPy.

How the authors of Tiny-BioMoE rendered their signals is not published: these are this package's own choice. Each
renderer is a small frozen dataclass called on signals (signals, time), float32, and returns levels (signals, 1 or 3,
height, width) in [0, 1], float32. Everywhere

- time runs from left to right over the whole width: sample i covers the i-th of equal shares of it;
- amplitude and frequency grow from bottom to top: row 0 is the highest;
- 0 is black, nothing, and 1 white, full; one level stands for all three colours, except for phases, which are angles
  and so drawn as hues.

The file imports nothing else of the package, so that it works wherever it is copied to.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Waveform:
    """The signal as a white line: each column is filled from the least to the greatest value that it has there.

    Args:
        value_range: the value at the upper edge, its negative at the lower one; beyond it the line runs along the edge.
            None takes the largest magnitude of each signal.
        thickness: pixels.
    """

    value_range: float | None
    thickness: float

    @property
    def least_samples(self) -> int:
        """Of the shortest signal that can be drawn."""
        return 2

    @property
    def limit(self) -> str:
        """Why."""
        return "a line"

    def __call__(self, signals: np.ndarray, height: int, width: int) -> np.ndarray:
        left, right_share, starts = _column_points(signals.shape[1], width)
        values = signals[:, left]
        values += right_share * (signals[:, left + 1] - values)
        lowest = np.minimum(np.minimum.reduceat(values, starts[:-1], axis=1), values[:, starts[1:]])
        highest = np.maximum(np.maximum.reduceat(values, starts[:-1], axis=1), values[:, starts[1:]])
        top, bottom = self._rows(highest, signals, height), self._rows(lowest, signals, height)
        # The part of a pixel that the line covers: what lies above its lower end, less what lies above its upper end.
        rows = np.arange(height, dtype=np.float32)[:, None]
        covered = (bottom + self.thickness / 2)[:, None] - rows
        above = (top - self.thickness / 2)[:, None] - rows
        covered = np.clip(covered, 0, 1, out=covered)
        covered -= np.clip(above, 0, 1, out=above)
        return covered[:, None]

    def _rows(self, values: np.ndarray, signals: np.ndarray, height: int) -> np.ndarray:
        """How far below the upper edge the middle of the line is, in rows."""
        if self.value_range is None:
            largest = np.abs(signals).max(axis=1, keepdims=True)
            values = values / np.where(largest > 0, largest, 1)
        else:
            values = values / np.float32(self.value_range)
        edge = min(self.thickness, height) / 2
        return np.clip((height / 2) * (1 - values), edge, height - edge)


@dataclass(frozen=True)
class _TimeFrequency:
    """What images of time and frequency share.

    Args:
        sampling_rate: Hz.
        frequency_range: Hz at the lower and at the upper edge.
        level_range: dB that are black and white; 0 dB is a sine of amplitude 1.
    """

    sampling_rate: float
    frequency_range: tuple[float, float]
    level_range: tuple[float, float]

    def _levels(self, powers: np.ndarray) -> np.ndarray:
        """Squared magnitudes as levels in [0, 1], in place."""
        lowest, highest = self.level_range
        np.maximum(powers, 10 ** (lowest / 10), out=powers)
        np.log(powers, out=powers)  # several times as fast as log10
        powers *= 10 / math.log(10) / (highest - lowest)
        powers -= lowest / (highest - lowest)
        return np.clip(powers, 0, 1, out=powers)


@dataclass(frozen=True)
class _ShortTimeFourier(_TimeFrequency):
    """Short-time Fourier transform with a Hann window, mirrored at both ends of the signal.

    Args:
        window: samples.
    """

    window: int

    @property
    def least_samples(self) -> int:
        """Of the shortest signal that can be drawn."""
        return self.window

    @property
    def limit(self) -> str:
        """Why."""
        return f"stft_window={self.window}"

    def _transform(self, signals: np.ndarray, frequencies: int | None, hop: int) -> tuple[np.ndarray, np.ndarray]:
        """Real and imaginary parts (signals, frequencies, frames); frame k is centred on sample k * hop.

        The phases are those of cosines at the centres of the frames. `frequencies` are so many rows of the image, or
        where None the bins, `sampling_rate / window` apart.
        """
        before = self.window // 2
        padded = np.pad(signals, [(0, 0), (before, self.window - 1 - before)], mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window, axis=1)[:, ::hop]
        waves = _windowed_waves(self.sampling_rate, self.frequency_range, self.window, frequencies)
        parts = np.matmul(waves, np.ascontiguousarray(frames.transpose(0, 2, 1)))
        return parts[:, : len(waves) // 2], parts[:, len(waves) // 2 :]


@dataclass(frozen=True)
class SpectrogramAmplitude(_ShortTimeFourier):
    """Magnitude in dB over time, the rows at equal distances in frequency.

    Args:
        hop: samples from one window to the next; columns between them are interpolated.
    """

    hop: int

    def __call__(self, signals: np.ndarray, height: int, width: int) -> np.ndarray:
        real, imaginary = self._transform(signals, height, self.hop)
        levels = self._levels(np.square(real) + np.square(imaginary))
        return (levels @ _time_weights(signals.shape[1], self.hop, width))[:, None]


@dataclass(frozen=True)
class SpectrogramPhase(_ShortTimeFourier):
    """Phase as a hue, the rows at equal distances in frequency.

    Red, green and blue are (1 + level * cos(phase - shift)) / 2 with shifts of 0, a third and two thirds of a turn: red
    is phase 0, -180 and 180 degrees look the same, and the smaller the magnitude, whose level this is, the greyer.
    Phases turn fast, over time and over frequency. They are those at the points of a lattice, half a window and a bin
    (`sampling_rate / window`) apart, with colours blending in between; a finer lattice would draw nothing but stripes.
    """

    def __call__(self, signals: np.ndarray, height: int, width: int) -> np.ndarray:
        hop = self.window // 2
        real, imaginary = self._transform(signals, None, hop)
        powers = np.square(real) + np.square(imaginary)
        scale = 0.5 / np.sqrt(np.maximum(powers, np.float32(1e-30)))
        scale *= self._levels(powers)
        rows = _frequency_weights(self.sampling_rate, self.frequency_range, self.window, height)
        columns = _time_weights(signals.shape[1], hop, width)
        cosines, sines = rows @ (real * scale) @ columns, rows @ (imaginary * scale) @ columns
        image = np.empty((len(signals), 3, height, width), np.float32)
        sines *= math.sqrt(3) / 2
        image[:, 0] = cosines
        cosines *= -0.5
        image[:, 1] = cosines + sines
        image[:, 2] = cosines - sines
        image += 0.5
        return np.clip(image, 0, 1, out=image)  # rounding


@dataclass(frozen=True)
class Scalogram(_TimeFrequency):
    """Magnitude in dB of a continuous wavelet transform with Morlet wavelets, frequencies at equal ratios.

    Args:
        wavelet: radians per standard deviation of the wavelet's envelope; larger separates frequencies better, smaller
            separates times better. 6 is usual.
    """

    wavelet: float

    @property
    def least_samples(self) -> int:
        """Of the shortest signal that can be drawn."""
        return math.ceil(2 * math.sqrt(2) * self._spread())

    @property
    def limit(self) -> str:
        """Why: at the signal's middle, the longest wavelet has to be free of the influence of its ends."""
        return f"frequency_range from {self.frequency_range[0]:g} Hz with scalogram_wavelet={self.wavelet:g}"

    def __call__(self, signals: np.ndarray, height: int, width: int) -> np.ndarray:
        from scipy import fft

        samples = signals.shape[1]
        margin = min(samples - 1, math.ceil(3 * self._spread()))
        length = fft.next_fast_len(samples + 2 * margin)
        padded = np.pad(signals, [(0, 0), (margin, margin)], mode="reflect")
        wavelets = _wavelets(self.sampling_rate, self.frequency_range, self.wavelet, height, length)
        # Only positive frequencies: the inverse transform fills in zeros for the others.
        filtered = fft.ifft(fft.rfft(padded, length)[:, None] * wavelets, length)[..., margin : margin + samples]
        levels = self._levels(np.square(filtered.real) + np.square(filtered.imag))
        return (levels @ _time_weights(samples, 1, width))[:, None]

    def _spread(self) -> float:
        """Standard deviation of the longest wavelet's envelope in samples."""
        return self.wavelet * self.sampling_rate / (2 * math.pi * self.frequency_range[0])


Renderer = Waveform | SpectrogramAmplitude | SpectrogramPhase | Scalogram


def linear_frequencies(frequency_range: tuple[float, float], height: int) -> np.ndarray:
    """Hz of the middle of each row of a spectrogram, from the top; float64 (height,)."""
    low, high = frequency_range
    return high - (high - low) * (np.arange(height) + 0.5) / height


def log_frequencies(frequency_range: tuple[float, float], height: int) -> np.ndarray:
    """Hz of the middle of each row of a scalogram, from the top; float64 (height,)."""
    low, high = frequency_range
    return high * (low / high) ** ((np.arange(height) + 0.5) / height)


@lru_cache(maxsize=16)
def _column_points(samples: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a line through the samples is looked at: at every edge of a column and at every sample, in order.

    Returns:
        For each point the sample before it and how far it is on the way to the next, and the points that are edges.
    """
    edges = np.clip(np.arange(width + 1) * (samples / width) - 0.5, 0, samples - 1)
    points = np.concatenate([edges, np.arange(samples)])
    order = np.argsort(points, kind="stable")
    points = points[order]
    left = np.minimum(points.astype(np.int64), samples - 2)
    return left, (points - left).astype(np.float32), np.flatnonzero(order <= width)


@lru_cache(maxsize=16)
def _time_weights(samples: int, hop: int, width: int) -> np.ndarray:
    """From frames centred on every `hop`-th sample to columns: float32 (frames, width)."""
    places = ((np.arange(width) + 0.5) * (samples / width) - 0.5) / hop
    return _interpolation(places, (samples - 1) // hop + 1).T


@lru_cache(maxsize=16)
def _frequency_weights(
    sampling_rate: float, frequency_range: tuple[float, float], window: int, height: int
) -> np.ndarray:
    """From bins to rows: float32 (height, bins)."""
    bins = _bins(sampling_rate, frequency_range, window)
    return _interpolation((linear_frequencies(frequency_range, height) - bins[0]) * (window / sampling_rate), len(bins))


def _interpolation(places: np.ndarray, points: int) -> np.ndarray:
    """Weights float32 (places, points) at places in units of the distance of the points: linear interpolation, or where
    the places are farther apart than the points, a mean that leaves out none of these."""
    reach = max(1.0, abs(places[1] - places[0]))
    places = np.clip(places, 0, points - 1)[:, None]
    weights = np.maximum(1 - np.abs(places - np.arange(points)) / reach, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _bins(sampling_rate: float, frequency_range: tuple[float, float], window: int) -> np.ndarray:
    """Hz of the bins in a range, and where it has none, of the one nearest to it."""
    low, high = (frequency * window / sampling_rate for frequency in frequency_range)
    first = round(low)
    return np.arange(first, max(first, math.floor(high)) + 1) * (sampling_rate / window)


@lru_cache(maxsize=16)
def _windowed_waves(
    sampling_rate: float, frequency_range: tuple[float, float], window: int, height: int | None
) -> np.ndarray:
    """Hann window times cosines, then sines, of the frequency of each row or bin: float32 (2 * frequencies, window)."""
    bins = _bins(sampling_rate, frequency_range, window)
    frequencies = bins if height is None else linear_frequencies(frequency_range, height)
    places = np.arange(window) - window // 2
    hann = np.cos(np.pi * places / window) ** 2
    turns = 2 * np.pi * frequencies[:, None] * (places / sampling_rate)
    return (2 / hann.sum() * hann * np.concatenate([np.cos(turns), -np.sin(turns)])).astype(np.float32)


@lru_cache(maxsize=16)
def _wavelets(
    sampling_rate: float, frequency_range: tuple[float, float], wavelet: float, height: int, length: int
) -> np.ndarray:
    """Spectra of the wavelets at frequencies from 0, float32 (height, length // 2 + 1); a sine gives its amplitude."""
    ratios = np.fft.rfftfreq(length, 1 / sampling_rate) / log_frequencies(frequency_range, height)[:, None]
    return (2 * np.exp(-0.5 * (wavelet * (ratios - 1)) ** 2)).astype(np.float32)
