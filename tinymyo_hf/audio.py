"""Speech as spectra and back: the log-mel spectrum of HiFi-GAN vocoders, cepstral coefficients, Griffin-Lim, WAV files.

The spectrum is that on which the vocoders of https://github.com/dgaddy/silent_speech are trained: audio at 22,050 Hz,
magnitude spectra of 1024 samples every 256, 80 mel bands of 0 to 8 kHz on Slaney's scale, natural logarithm. Its
86.13 frames a second are those of EMG at 689.06 Hz after a stem that halves the rate three times.
"""

import functools
import warnings
from pathlib import Path

import numpy as np
from scipy import fft
from scipy.io import wavfile

from .prediction_output import replacing
from .signal import SignalError

AUDIO_RATE = 22_050
HOP_LENGTH = 256
FFT_LENGTH = 1024
NUM_MELS = 80
MEL_RANGE = (0.0, 8000.0)
FRAME_RATE = AUDIO_RATE / HOP_LENGTH
_LEAST = 1e-5
_MARGIN = (FFT_LENGTH - HOP_LENGTH) // 2
_LOUDEST = 20.0
_MEL_ITERATIONS = 40
_MOMENTUM = 0.99


def log_mel(audio: np.ndarray) -> np.ndarray:
    """Logarithm of the mel spectrum of audio at 22,050 Hz.

    Frame i covers the 1024 samples around sample 256 i + 128; the ends are mirrored.

    Args:
        audio: (samples,) in [-1, 1], 385 samples or more.

    Returns:
        float32 (samples // 256, 80), between ln 1e-5 (-11.5) and about 3.

    Raises:
        SignalError: another shape, too short, or samples that are not finite numbers.
    """
    audio = np.asarray(audio, dtype=np.float64)
    if audio.ndim != 1 or len(audio) <= _MARGIN:
        raise SignalError(f"audio of shape {audio.shape}: give (samples,), more than {_MARGIN} of one channel")
    if not np.isfinite(audio).all():
        raise SignalError("audio holds NaN or infinite samples; leave them out")
    magnitudes = np.sqrt(np.abs(_spectrum(audio)) ** 2 + 1e-9)
    return np.log(np.maximum(magnitudes @ _mel_filters(), _LEAST)).astype(np.float32)


def mfcc(log_mel: np.ndarray, count: int = 26) -> np.ndarray:
    """The first `count` cepstral coefficients of a log-mel spectrum: the orthonormal discrete cosine transform (type 2)
    of each frame.

    The TinyMyo paper predicts 26 of them ("Downstream 3"), while the code released with it predicts the 80 log-mels,
    which the HiFi-GAN it uses needs; the paper does not say how 26 coefficients become its input. The 26 seem to be
    those of Gaddy and Klein (2020), which are not the ones here: there, librosa's MFCC of 128 mel bands, of power
    spectra in dB of audio at 16 kHz, windows of 432 samples every 160 without padding, for a WaveNet.

    Args:
        log_mel: (frames, bands).
        count: at most the bands; with all of them nothing is lost.

    Returns:
        (frames, count) of the type of `log_mel`.

    Raises:
        SignalError: `count` is below 1 or above the bands.
    """
    bands = np.shape(log_mel)[-1]
    if not 1 <= count <= bands:
        raise SignalError(f"count={count}: from 1 to the {bands} bands")
    return fft.dct(log_mel, norm="ortho", axis=-1)[..., :count]


def log_mel_of_mfcc(mfcc: np.ndarray, num_mels: int = NUM_MELS) -> np.ndarray:
    """The log-mel spectrum (frames, num_mels) of coefficients (frames, count) as `mfcc` makes them.

    Those that are not given count as zero: of fewer than `num_mels` the spectrum is smoother over the bands.

    Raises:
        SignalError: there are more coefficients than `num_mels`.
    """
    count = np.shape(mfcc)[-1]
    if count > num_mels:
        raise SignalError(f"{count} coefficients of {num_mels} bands: give num_mels of at least {count}")
    return fft.idct(mfcc, n=num_mels, norm="ortho", axis=-1)


def griffin_lim(log_mel: np.ndarray, iterations: int = 60, seed: int = 0) -> np.ndarray:
    """Audio of which `log_mel` is about the spectrum, without a trained vocoder.

    The magnitudes of the 513 bins are found from the 80 bands by multiplicative updates that stay positive and minimise
    the generalised Kullback-Leibler divergence (Lee and Seung, 2000), the phases by the fast Griffin-Lim algorithm
    (Perraudin, Balazs and Sondergaard, 2013). It is intelligible, but hollow beside a trained vocoder; nothing is left
    above 8 kHz.

    Args:
        log_mel: (frames, 80) as `log_mel` makes it.
        iterations: of the phases.
        seed: of the phases at the start.

    Returns:
        float32 (frames * 256,), about within [-1, 1]; the same for the same arguments.

    Raises:
        SignalError: no frames, another number of bands, values that are not finite or louder than any audio, or
            `iterations` below 1.
    """
    if iterations < 1:
        raise SignalError(f"iterations={iterations}: at least 1")
    magnitudes = _magnitudes(check_log_mel(log_mel))
    spectrum = magnitudes * np.exp(2j * np.pi * np.random.default_rng(seed).random(magnitudes.shape, np.float32))
    before = np.zeros_like(spectrum)
    for _ in range(iterations):
        now = _spectrum(_overlap_add(spectrum))
        ahead = now + _MOMENTUM * (now - before)
        spectrum = magnitudes * ahead / np.maximum(np.abs(ahead), 1e-16)
        before = now
    return _overlap_add(spectrum)


def check_log_mel(log_mel: np.ndarray, num_mels: int = NUM_MELS) -> np.ndarray:
    """`log_mel` as float32 (frames, num_mels) of values that a vocoder can take, or `SignalError`."""
    log_mel = np.asarray(log_mel, dtype=np.float32)
    if log_mel.ndim != 2 or log_mel.shape[1] != num_mels or not len(log_mel):
        raise SignalError(f"log-mel spectrum of shape {log_mel.shape}: give (frames, {num_mels}), at least one frame")
    if not np.isfinite(log_mel).all() or log_mel.max() > _LOUDEST:
        raise SignalError(
            f"log-mel spectrum of up to {log_mel.max():g}, where audio within [-1, 1] reaches about 3: give natural "
            "logarithms of magnitudes, without normalisation"
        )
    return log_mel


def write_wav(path: str | Path, audio: np.ndarray, sampling_rate: int = AUDIO_RATE) -> int:
    """Write (samples,) in [-1, 1] as a WAV file of one channel and 16 bits, which appears whole or not at all.

    Returns:
        How many samples lay outside and were clipped; a `UserWarning` tells of them.

    Raises:
        SignalError: another shape, no samples, samples that are not finite, or a rate that is not a positive integer.
    """
    audio, path = np.asarray(audio), Path(path)
    if audio.ndim != 1 or not len(audio) or not np.isfinite(audio).all():
        raise SignalError(f"{path}: audio of shape {audio.shape}; give finite samples of one channel (samples,)")
    if not float(sampling_rate).is_integer() or sampling_rate < 1:
        raise SignalError(f"{path}: sampling_rate={sampling_rate}: a WAV file needs a positive whole number of Hz")
    clipped = int((np.abs(audio) > 1).sum())
    if clipped:
        warnings.warn(
            f"{path}: {clipped} of {len(audio)} samples lie outside [-1, 1] (up to {np.abs(audio).max():.3g}) and were "
            "clipped; scale the audio down",
            stacklevel=2,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as file:
        wavfile.write(file, int(sampling_rate), np.round(audio.clip(-1, 1) * 32767).astype(np.int16))
    return clipped


def _spectrum(audio: np.ndarray) -> np.ndarray:
    """(samples,) -> complex (samples // 256, 513), of the precision of `audio`."""
    padded = np.pad(audio, _MARGIN, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_LENGTH)[::HOP_LENGTH]
    return fft.rfft(frames * _hann().astype(np.result_type(audio.dtype, np.float32)), axis=1)


def _overlap_add(spectrum: np.ndarray) -> np.ndarray:
    """The audio (frames * 256,) whose spectrum is nearest to complex (frames, 513), but for the mirrored ends."""
    window = _hann().astype(spectrum.real.dtype)
    pieces = (fft.irfft(spectrum, FFT_LENGTH, axis=1) * window).reshape(len(spectrum), -1, HOP_LENGTH)
    weights = (window**2).reshape(-1, HOP_LENGTH)
    overlaps = pieces.shape[1]
    audio = np.zeros((len(spectrum) + overlaps - 1, HOP_LENGTH), window.dtype)
    total = np.zeros_like(audio)
    for i in range(overlaps):
        audio[i : i + len(spectrum)] += pieces[:, i]
        total[i : i + len(spectrum)] += weights[i]
    return audio.ravel()[_MARGIN:-_MARGIN] / total.ravel()[_MARGIN:-_MARGIN]


def _magnitudes(log_mel: np.ndarray) -> np.ndarray:
    """float32 (frames, 513), not negative, whose mel spectrum is about exp(log_mel); 0 in bins of no band."""
    filters = _mel_filters().astype(np.float32)
    mels, weights = np.exp(log_mel), filters.sum(1)
    used = weights > 0
    filters, weights = filters[used], weights[used]
    guess = (mels / filters.sum(0)) @ filters.T / weights
    for _ in range(_MEL_ITERATIONS):
        guess *= ((mels / np.maximum(guess @ filters, 1e-12)) @ filters.T) / weights
    magnitudes = np.zeros((len(log_mel), len(used)), np.float32)
    magnitudes[:, used] = guess
    return magnitudes


@functools.cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_LENGTH) / FFT_LENGTH)


@functools.cache
def _mel_filters() -> np.ndarray:
    """(513, 80): weight of each bin of a spectrum in each band, triangles of area 1 Hz.

    Slaney's scale, linear to 1 kHz = 15 mel and logarithmic above, one mel of which is a 27th of the way to 6.4 kHz.
    """
    of_lowest, of_highest = (f * 0.015 if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4) for f in MEL_RANGE)
    mels = np.linspace(of_lowest, of_highest, NUM_MELS + 2)
    edges = np.where(mels < 15, mels / 0.015, 1000 * 6.4 ** ((mels - 15) / 27))
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    bins = np.fft.rfftfreq(FFT_LENGTH, 1 / AUDIO_RATE)[:, None]
    triangles = np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre))
    return np.maximum(triangles, 0) * 2 / (upper - lower)
