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
    """Short-time Fourier transform with a Hann window, mirrored at both ends, evaluated at the frequency of each row.

    Args:
        window, hop: samples.
    """

    window: int
    hop: int

    @property
    def least_samples(self) -> int:
        """Of the shortest signal that can be drawn."""
        return self.window

    @property
    def limit(self) -> str:
        """Why."""
        return f"stft_window={self.window}"

    def _transform(self, signals: np.ndarray, height: int) -> np.ndarray:
        """Real and imaginary parts (signals, 2, height, frames); frame k is centred on sample k * hop."""
        before = self.window // 2
        padded = np.pad(signals, [(0, 0), (before, self.window - 1 - before)], mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window, axis=1)[:, :: self.hop]
        waves = _windowed_waves(self.sampling_rate, self.frequency_range, self.window, height)
        # One product of a fixed shape for each signal: its values do not depend on what else is in the batch.
        products = np.matmul(waves, np.ascontiguousarray(frames.transpose(0, 2, 1)))
        return products.reshape(len(signals), 2, height, -1)


@dataclass(frozen=True)
class SpectrogramAmplitude(_ShortTimeFourier):
    """Magnitude in dB over time, frequencies at equal distances. Arguments: see the classes above."""

    def __call__(self, signals: np.ndarray, height: int, width: int) -> np.ndarray:
        parts = self._transform(signals, height)
        np.square(parts, out=parts)
        levels = self._levels(parts[:, 0] + parts[:, 1])
        return (levels @ _time_weights(signals.shape[1], self.hop, width))[:, None]


@dataclass(frozen=True)
class SpectrogramPhase(_ShortTimeFourier):
    """Phase against a cosine that starts with the signal, as a hue; frequencies at equal distances.

    Red, green and blue are (1 + cos(phase - shift)) / 2 with shifts of 0, a third and two thirds of a turn: red is
    phase 0, and -180 and 180 degrees look the same. Where the magnitude is below the lower end of `level_range`, the
    phase says nothing and fades into grey. Arguments: see the classes above.
    """

    def __call__(self, signals: np.ndarray, height: int, width: int) -> np.ndarray:
        real, imaginary = np.moveaxis(self._transform(signals, height), 1, 0)
        magnitude = np.sqrt(real * real + imaginary * imaginary)
        scale = 0.5 / np.maximum(magnitude, np.float32(10 ** (self.level_range[0] / 20)))
        real, imaginary = real * scale, imaginary * scale
        # From the phase against a cosine centred on each frame to the phase against one that starts with the signal.
        cosine, sine = _frame_turns(self.sampling_rate, self.frequency_range, height, self.hop, real.shape[2])
        weights = _time_weights(signals.shape[1], self.hop, width)
        cosines = (real * cosine - imaginary * sine) @ weights
        sines = (real * sine + imaginary * cosine) @ weights
        image = np.empty((len(signals), 3, height, width), np.float32)
        image[:, 0] = cosines
        half = math.sqrt(3) / 2
        image[:, 1] = -0.5 * cosines + half * sines
        image[:, 2] = -0.5 * cosines - half * sines
        image += 0.5
        return np.clip(image, 0, 1, out=image)


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
    """Linear interpolation from frames, centred on every `hop`-th sample, to columns: float32 (frames, width)."""
    frames = (samples - 1) // hop + 1
    places = np.clip(((np.arange(width) + 0.5) * (samples / width) - 0.5) / hop, 0, frames - 1)
    return np.maximum(1 - np.abs(places - np.arange(frames)[:, None]), 0).astype(np.float32)


@lru_cache(maxsize=16)
def _windowed_waves(sampling_rate: float, frequency_range: tuple[float, float], window: int, height: int) -> np.ndarray:
    """Hann window times cosines, then sines, of each row's frequency: float32 (2 * height, window)."""
    places = np.arange(window) - window // 2
    hann = np.cos(np.pi * places / window) ** 2
    turns = 2 * np.pi * linear_frequencies(frequency_range, height)[:, None] * (places / sampling_rate)
    return (2 / hann.sum() * hann * np.concatenate([np.cos(turns), -np.sin(turns)])).astype(np.float32)


@lru_cache(maxsize=16)
def _frame_turns(
    sampling_rate: float, frequency_range: tuple[float, float], height: int, hop: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine, float32 (height, frames), of what a wave of a row's frequency has turned back by each frame."""
    turns = (
        -2 * np.pi * linear_frequencies(frequency_range, height)[:, None] * (np.arange(frames) * hop / sampling_rate)
    )
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


@lru_cache(maxsize=16)
def _wavelets(
    sampling_rate: float, frequency_range: tuple[float, float], wavelet: float, height: int, length: int
) -> np.ndarray:
    """Spectra of the wavelets at frequencies from 0, float32 (height, length // 2 + 1); a sine gives its amplitude."""
    ratios = np.fft.rfftfreq(length, 1 / sampling_rate) / log_frequencies(frequency_range, height)[:, None]
    return (2 * np.exp(-0.5 * (wavelet * (ratios - 1)) ** 2)).astype(np.float32)
