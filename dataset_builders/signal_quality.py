"""What is wrong with a signal, channel by channel: gaps, dead and saturated electrodes, held values, hum, offsets.

Statistics are gathered take by take and keep no samples, so that a corpus of any size is looked through in the memory
of one recording. Arrays are (channels, time), in the unit of the files.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import welch

MAINS = (50.0, 60.0)
MOST_HARMONICS = 4
CLIPPED_VISITS = 3  # how often a clipped channel has been at its limit, unless it stayed there
CLIPPED_STAY = 5  # how many updates long
NEAR_EXTREME = 0.02  # of the range: where values thin out towards the extreme if nothing clips them
CHUNK = 20_000  # samples that show the step of the converter


@dataclass
class ChannelQuality:
    """Sums over all takes, each (channels,) unless said otherwise.

    Attributes:
        samples: numbers, without the missing ones.
        missing, gaps, longest_gap: samples that are NaN or infinite; runs of them; samples of the longest run.
        total, squares: sums of values and of squared values.
        low, high: extreme values.
        takes, dead: takes seen (int); takes in which the channel never changes.
        clipped, clipped_runs: samples at a limit of the converter; runs of them.
        steps, changes: pairs of neighbouring samples (int); those in which any channel changes (int).
        spectra: power spectral density in 1 Hz steps, (channels, frequencies), summed per sampling rate, with the
            number of takes.
    """

    channels: int
    takes: int = 0
    steps: int = 0
    changes: int = 0
    samples: np.ndarray = field(init=False)
    missing: np.ndarray = field(init=False)
    gaps: np.ndarray = field(init=False)
    longest_gap: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)
    low: np.ndarray = field(init=False)
    high: np.ndarray = field(init=False)
    dead: np.ndarray = field(init=False)
    clipped: np.ndarray = field(init=False)
    clipped_runs: np.ndarray = field(init=False)
    spectra: dict[float, tuple[np.ndarray, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("samples", "missing", "gaps", "longest_gap", "dead", "clipped", "clipped_runs"):
            setattr(self, name, np.zeros(self.channels, np.int64))
        self.total, self.squares = np.zeros(self.channels), np.zeros(self.channels)
        self.low, self.high = np.full(self.channels, np.inf), np.full(self.channels, -np.inf)

    def add(self, samples: np.ndarray, rate: float | None) -> None:
        """Count in a take: (channels, time) at `rate` Hz; without a rate there is no spectrum."""
        with np.errstate(invalid="ignore"):  # some NaN of damaged files warn when they are converted
            samples = np.asarray(samples, np.float64)
        if samples.shape[1] == 0:
            return
        finite = np.isfinite(samples)
        self.takes += 1
        self._add_changes(samples)
        for channel, (values, there) in enumerate(zip(samples, finite, strict=True)):
            self._add_gaps(channel, there)
            if there.any():
                self._add_values(channel, values if there.all() else values[there])
        if rate:
            self._add_spectrum(np.where(finite, samples, 0.0), rate)

    def _add_changes(self, samples: np.ndarray) -> None:
        self.steps += samples.shape[1] - 1
        self.changes += int((samples[:, 1:] != samples[:, :-1]).any(axis=0).sum())

    def _add_gaps(self, channel: int, there: np.ndarray) -> None:
        if there.all():
            return
        lengths = run_lengths(~there)
        self.missing[channel] += lengths.sum()
        self.gaps[channel] += len(lengths)
        self.longest_gap[channel] = max(self.longest_gap[channel], lengths.max())

    def _add_values(self, channel: int, values: np.ndarray) -> None:
        low, high = values.min(), values.max()
        self.samples[channel] += len(values)
        self.total[channel] += values.sum()
        self.squares[channel] += values @ values
        self.low[channel], self.high[channel] = min(self.low[channel], low), max(self.high[channel], high)
        if low == high:
            self.dead[channel] += 1
            return
        for limit in (low, high):
            runs = clipped_runs(values, limit, high - low)
            self.clipped[channel] += runs.sum()
            self.clipped_runs[channel] += len(runs)

    def _add_spectrum(self, samples: np.ndarray, rate: float) -> None:
        window = round(rate)
        if window < 16 or samples.shape[1] < window:
            return
        _, power = welch(samples, rate, nperseg=window, detrend="constant")
        total, takes = self.spectra.get(rate, (0.0, 0))
        self.spectra[rate] = (total + power, takes + 1)

    @property
    def offset(self) -> np.ndarray:
        """Mean of each channel."""
        return self.total / np.maximum(self.samples, 1)

    @property
    def rms(self) -> np.ndarray:
        """Root mean square of each channel about its mean."""
        return np.sqrt(np.maximum(self.squares / np.maximum(self.samples, 1) - self.offset**2, 0.0))

    @property
    def saturation(self) -> np.ndarray:
        """Share of each channel's samples at a limit of the converter, 0 to 1."""
        return self.clipped / np.maximum(self.samples, 1)

    @property
    def changing(self) -> float:
        """Share of samples that differ from the one before in any channel, 0 to 1."""
        return self.changes / self.steps if self.steps else 1.0

    def hum(self) -> dict[float, np.ndarray]:
        """Power at the mains frequencies and their harmonics relative to neighbouring frequencies, dB per channel."""
        levels: dict[float, np.ndarray] = {}
        for rate, (total, _) in self.spectra.items():
            for mains in MAINS:
                for harmonic in range(1, MOST_HARMONICS + 1):
                    level = _line_level(total, rate, mains * harmonic)
                    if level is not None:
                        before = levels.get(mains * harmonic, np.full(self.channels, -np.inf))
                        levels[mains * harmonic] = np.maximum(before, level)
        return dict(sorted(levels.items()))


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True in a mask (time,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return edges[1::2] - edges[::2]


def clipped_runs(values: np.ndarray, limit: float, value_range: float) -> np.ndarray:
    """Lengths of the runs in which a channel stays at its extreme value `limit`, if the converter seems to end there.

    Muscles reach an extreme seldom, and values just below it more often. Where more samples pile up at the extreme
    itself than in the neighbourhood (2 % of the range, one step of the converter at least), something cut them off.
    """
    at_limit = values == limit
    lengths = run_lengths(at_limit)
    update = len(values) / (1 + np.count_nonzero(np.diff(values)))  # samples that a value is held
    if len(lengths) < CLIPPED_VISITS and lengths.max() < CLIPPED_STAY * update:
        return lengths[:0]
    steps = np.diff(np.unique(values[:CHUNK]))
    neighbourhood = max(NEAR_EXTREME * value_range, 1.5 * steps.min() if len(steps) else 0.0)
    near = np.count_nonzero(np.abs(values - limit) <= neighbourhood) - np.count_nonzero(at_limit)
    return lengths if at_limit.sum() > near else lengths[:0]


def _line_level(power: np.ndarray, rate: float, frequency: float) -> np.ndarray | None:
    """How far `frequency` sticks out of a spectrum (channels, frequencies) in 1 Hz steps, dB; None outside of it."""
    bins = power.shape[1]
    centre = round(frequency * round(rate) / rate)
    if centre + 10 >= bins:
        return None
    around = np.r_[centre - 10 : centre - 3, centre + 4 : centre + 11]
    floor = np.median(power[:, around], axis=1)
    peak = power[:, centre - 1 : centre + 2].max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(floor > 0, 10 * np.log10(peak / floor), 0.0)
