"""Spectra of speech against librosa's, and audio made of them again."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import signal as scipy_signal
from scipy.io import wavfile
from transformers.audio_utils import mel_filter_bank

from tinymyo_hf.audio import AUDIO_RATE, FRAME_RATE, griffin_lim, log_mel, log_mel_of_mfcc, mfcc, write_wav
from tinymyo_hf.signal import SignalError

FIXTURE = Path(__file__).parents[1] / "fixtures" / "log_mel.safetensors"


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return load_file(FIXTURE)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Syllables: pulses of a gliding pitch and noise through three formants, at 22,050 Hz."""
    t = np.arange(int(1.5 * AUDIO_RATE)) / AUDIO_RATE
    noise = np.random.default_rng(0).normal(size=len(t))
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t)
    source = np.diff(np.floor(np.cumsum(pitch) / AUDIO_RATE), prepend=0) * 8 + 0.02 * noise
    voice = np.zeros_like(t)
    for formant, width in ((600, 80), (1300, 100), (2600, 150)):
        radius = np.exp(-np.pi * width / AUDIO_RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * formant / AUDIO_RATE), radius**2]
        voice += scipy_signal.lfilter([1 - radius], poles, source)
    voice *= np.clip(2 * np.sin(2 * np.pi * 2 * t), 0, 1)
    return (0.7 * voice / np.abs(voice).max() + 1e-4 * noise).astype(np.float32)


def test_spectrum_is_that_of_librosa(reference):
    spectrum = log_mel(reference["audio"])
    assert spectrum.shape == (len(reference["audio"]) // 256, 80) and spectrum.dtype == np.float32
    np.testing.assert_allclose(spectrum, reference["log_mel"], atol=1e-4)


def test_bands_are_those_of_the_library():
    audio = np.random.default_rng(0).normal(size=2560)
    frame = audio[5 * 256 + 128 - 512 :][:1024] * scipy_signal.get_window("hann", 1024)
    filters = mel_filter_bank(513, 80, 0, 8000, AUDIO_RATE, norm="slaney", mel_scale="slaney")
    assert log_mel(audio)[5] == pytest.approx(np.log(np.abs(np.fft.rfft(frame)) @ filters), abs=1e-6)


def test_spectrum_of_silence_and_of_a_tone():
    assert pytest.approx(86.1328, abs=1e-4) == FRAME_RATE
    np.testing.assert_allclose(log_mel(np.zeros(2560)), np.log(1e-5), rtol=1e-6)
    tone = np.sin(2 * np.pi * 1000 * np.arange(25600) / AUDIO_RATE)
    # 1000 Hz is mel 15 of Slaney's scale, on which 8 kHz is 45.245: bands lie 45.245 / 81 apart
    assert set(log_mel(tone)[5:-5].argmax(1)) == {round(15 / (45.245 / 81)) - 1}
    assert log_mel(np.ones(385)).shape == (1, 80)


def test_cepstral_coefficients(reference):
    spectrum = reference["log_mel"]
    np.testing.assert_allclose(mfcc(spectrum), reference["mfcc"], atol=1e-4)
    np.testing.assert_allclose(log_mel_of_mfcc(mfcc(spectrum, 80)), spectrum, atol=1e-4)
    smooth = log_mel_of_mfcc(mfcc(spectrum))
    assert smooth.shape == spectrum.shape and smooth.dtype == np.float32
    # orthonormal: what is lost is the energy of the coefficients that were dropped
    lost = np.square(mfcc(spectrum, 80)[:, 26:]).sum()
    np.testing.assert_allclose(np.square(spectrum - smooth).sum(), lost, rtol=1e-3)
    assert log_mel_of_mfcc(mfcc(spectrum), num_mels=40).shape == (len(spectrum), 40)


def test_griffin_lim_gives_audio_of_the_spectrum(speech):
    spectrum = log_mel(speech)
    audio = griffin_lim(spectrum)
    assert audio.shape == (len(spectrum) * 256,) and audio.dtype == np.float32
    again = log_mel(audio)
    loud = spectrum > spectrum.max() - 8
    assert np.abs(again - spectrum)[loud].mean() < 0.13  # measured 0.09; random phases alone leave 0.24
    convergence = np.linalg.norm(np.exp(again) - np.exp(spectrum)) / np.linalg.norm(np.exp(spectrum))
    assert 20 * np.log10(convergence) < -20  # measured -24
    assert np.abs(audio).max() < 1


def test_griffin_lim_is_determined_by_its_arguments(speech):
    spectrum = log_mel(speech[:5120])
    first = griffin_lim(spectrum, iterations=3, seed=1)
    np.testing.assert_array_equal(griffin_lim(spectrum, iterations=3, seed=1), first)
    assert np.abs(griffin_lim(spectrum, iterations=3, seed=2) - first).max() > 1e-3
    np.testing.assert_allclose(griffin_lim(np.full((9, 80), np.log(1e-5)), 2), 0, atol=1e-4)
    assert griffin_lim(spectrum[:1]).shape == (256,)


def test_wav_files(tmp_path, speech):
    path = tmp_path / "made" / "speech.wav"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_wav(path, speech) == 0
    rate, stored = wavfile.read(path)
    assert rate == AUDIO_RATE and stored.dtype == np.int16 and stored.shape == speech.shape
    np.testing.assert_allclose(stored / 32767, speech, atol=0.5 / 32767 + 1e-7)
    with pytest.warns(UserWarning, match=r"2 of 4 samples lie outside \[-1, 1\] \(up to 1.5\)"):
        assert write_wav(path, np.array([0.0, 1.5, -1.25, 1.0]), 16_000) == 2
    rate, stored = wavfile.read(path)
    assert rate == 16_000 and stored.tolist() == [0, 32767, -32767, 32767]
    assert [file.name for file in path.parent.iterdir()] == ["speech.wav"]


def test_what_cannot_be_used_is_named(tmp_path):
    for audio, message in (
        (np.zeros((2, 2000)), "shape"),
        (np.zeros(384), "more than 384"),
        (np.full(2000, np.nan), "NaN"),
    ):
        with pytest.raises(SignalError, match=message):
            log_mel(audio)
    for spectrum, message in (
        (np.zeros((3, 26)), r"\(frames, 80\)"),
        (np.zeros((0, 80)), "at least one frame"),
        (np.full((3, 80), np.inf), "up to inf"),
        (np.full((3, 80), 21.0), "without normalisation"),
    ):
        with pytest.raises(SignalError, match=message):
            griffin_lim(spectrum)
    with pytest.raises(SignalError, match="iterations=0"):
        griffin_lim(np.zeros((3, 80)), 0)
    with pytest.raises(SignalError, match="count=81"):
        mfcc(np.zeros((3, 80)), 81)
    with pytest.raises(SignalError, match="num_mels of at least 26"):
        log_mel_of_mfcc(np.zeros((3, 26)), 20)
    for audio, rate in (
        (np.zeros((2, 5)), 16_000),
        (np.array([np.nan]), 16_000),
        (np.zeros(5), 689.0625),
        (np.zeros(5), np.nan),
    ):
        with pytest.raises(SignalError, match=r"bad\.wav"):
            write_wav(tmp_path / "bad.wav", audio, rate)
    assert not list(tmp_path.iterdir())
