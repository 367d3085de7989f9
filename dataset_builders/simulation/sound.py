"""The sound of a simulated sentence: pulses of the larynx and noise, shaped by the resonances of the mouth."""

import numpy as np
from scipy import signal as scipy_signal

from .signals import CONTROL_RATE
from .speech import MEL_CENTRES, RESONANCES, STOPS, Spoken

SOUND_RATE = 16_000  # Hz
STEP = SOUND_RATE // CONTROL_RATE
WINDOW = 512
LOUDNESS = 0.1  # of a source of power 1 through a resonance of energy 1
BREATH = 0.1  # share of noise in voiced sounds
_BINS = np.arange(WINDOW // 2 + 1) * SOUND_RATE / WINDOW
_BANDS_TO_BINS = np.stack([np.interp(_BINS, MEL_CENTRES, band) for band in np.eye(len(MEL_CENTRES))])


def sound_of(spoken: Spoken, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """What a sentence sounds like when said aloud.

    Args:
        pitch: Hz, mean fundamental frequency; it falls by a third from the first to the last word.

    Returns:
        (steps * 160,) float64 at 16,000 Hz, within [-1, 1]; it begins when the EMG does and is as long.
    """
    voiced = (RESONANCES[spoken.track, 0] > 0) & ~(np.isin(spoken.track, STOPS) & (spoken.progress < 0.6))
    voicing = np.convolve(np.repeat(voiced, STEP), np.hanning(STEP) / np.hanning(STEP).sum(), "same")
    samples = len(voicing)
    knots = np.arange(0, samples + SOUND_RATE // 4, SOUND_RATE // 4)
    wobble = np.interp(np.arange(samples), knots, rng.normal(1, 0.04, len(knots)))
    hertz = pitch * np.linspace(1.2, 0.8, samples) * wobble
    periods = np.floor(np.cumsum(hertz) / SOUND_RATE)
    pulses = np.diff(periods, prepend=0) * np.sqrt(SOUND_RATE / hertz)  # power 1, as the noise
    source = voicing * pulses + (1 - (1 - BREATH) * voicing) * rng.standard_normal(samples)
    _, _, spectrum = scipy_signal.stft(source, nperseg=WINDOW, noverlap=WINDOW - STEP)
    gains = (
        np.exp(spoken.log_mel.astype(np.float64) / 2) @ _BANDS_TO_BINS
    )  # of amplitudes, where log_mel is of energies
    at = np.minimum(np.arange(spectrum.shape[1]), len(gains) - 1)
    _, sound = scipy_signal.istft(spectrum * gains[at].T, nperseg=WINDOW, noverlap=WINDOW - STEP)
    return np.clip(LOUDNESS * sound[:samples], -1, 1)
