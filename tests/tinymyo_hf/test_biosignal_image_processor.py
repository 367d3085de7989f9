"""Images of biosignals: what they show, against values computed otherwise; what is saved, returned and refused."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import get_window
from transformers import AutoFeatureExtractor

from tinymyo_hf import BiosignalImageProcessor, TinyMyoFeatureExtractor
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tiny_biomoe import rendering_tiny_biomoe
from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import REPRESENTATIONS, BiosignalImagePreprocessing
from tinymyo_hf.tiny_biomoe.preview_tiny_biomoe import preview

few = settings(max_examples=15, deadline=None)
kinds = pytest.mark.parametrize("kind", REPRESENTATIONS)
SIZE = 224


def noise(batch=2, channels=3, samples=200, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, channels, samples)).astype(np.float32)


def draw(kind, signal, **fields):
    """The image (3, height, width) of one signal (time,)."""
    return BiosignalImageProcessor(representations=[kind], **fields).images(np.asarray(signal)[None, None])[0, 0]


def sine(frequency, samples=SIZE, rate=200.0, amplitude=1.0, phase=0.0):
    return amplitude * np.cos(2 * np.pi * frequency * np.arange(samples) / rate + phase)


def lit(image):
    """How many rows of each column are lit, and the middle of them."""
    sums = image[0].sum(axis=0)
    return sums, (image[0] * (np.arange(len(image[0])) + 0.5)[:, None]).sum(axis=0) / sums


def test_images_are_ordered_by_channel_and_then_representation():
    processor, x = BiosignalImageProcessor(representations=REPRESENTATIONS), noise()
    images = processor(x, preprocessed=True, return_tensors="pt")["pixel_values"]
    assert images.shape == (2, 12, 3, SIZE, SIZE) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and images.std(dim=(2, 3, 4)).min() > 0.01
    assert processor.num_images(3) == 12 == processor.replace(feature_size=3).num_images()
    for channel in range(3):
        for i, kind in enumerate(REPRESENTATIONS):
            np.testing.assert_array_equal(images[1, 4 * channel + i], draw(kind, x[1, channel]))
    grey = images[:, [i for i, kind in enumerate(4 * REPRESENTATIONS[:4]) if kind != "spectrogram_phase" and i < 12]]
    assert torch.equal(grey[:, :, 0], grey[:, :, 1]) and torch.equal(grey[:, :, 0], grey[:, :, 2])


@kinds
def test_an_image_depends_on_its_window_alone(kind):
    processor, x = BiosignalImageProcessor(representations=[kind]), noise(5)
    together = processor.images(x)
    np.testing.assert_array_equal(together, processor.images(x))
    np.testing.assert_array_equal(together, BiosignalImagePreprocessing(representations=[kind]).images(x.tolist()))
    for i in range(5):
        np.testing.assert_array_equal(together[i : i + 1], processor.images(x[i : i + 1]))
    assert not np.array_equal(together[0], together[1])


@kinds
def test_strips_are_the_channels_one_under_another(kind):
    processor, x = BiosignalImageProcessor(representations=["waveform", kind][kind == "waveform" :]), noise(channels=5)
    strips = processor.replace(channels_as="strips")
    images, height = strips.images(x), SIZE // 5
    assert images.shape == (2, strips.num_images(), 3, SIZE, SIZE) and strips.num_images() == strips.num_images(5)
    renderer = processor.renderers()[kind]
    for channel in range(5):
        rows = images[1, -1, :, channel * height : (channel + 1) * height]
        expected = renderer(x[1, channel : channel + 1], height, SIZE)[0]
        np.testing.assert_array_equal(rows, np.broadcast_to(expected, rows.shape))
    assert (images[..., 5 * height :, :] == 0).all()


def test_waveform_covers_what_the_line_does():
    thickness, limit = 3.0, 2.5
    for samples in (7, 200, 1000):
        x = noise(samples=samples)[0, 0]
        image = draw("waveform", x, waveform_range=limit, line_thickness=thickness)
        # A column at 501 places from edge to edge, samples among them; of a row the share in the line, in fortieths.
        places = (np.arange(SIZE)[:, None] + np.arange(501) / 500) * samples / SIZE - 0.5
        line = np.clip(np.interp(places, np.arange(samples), x), -limit, limit)
        edges = np.clip(SIZE / 2 * (1 - np.stack([line.max(1), line.min(1)]) / limit), thickness / 2, 222.5)
        rows = (np.arange(SIZE * 40) + 0.5)[:, None] / 40
        inside = (rows > edges[0] - thickness / 2) & (rows < edges[1] + thickness / 2)
        np.testing.assert_allclose(image[0], inside.reshape(SIZE, 40, SIZE).mean(1), atol=0.03)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 2.0), st.floats(1.1, 3.0))
def test_louder_is_taller_and_brighter(seed, level, gain):
    x = level * noise(1, 1, 150, seed)[0, 0]
    quiet, loud = (lit(draw("waveform", scale * x, waveform_range=30.0))[0] for scale in (1, gain))
    assert (loud >= quiet - 1e-3).all() and loud.sum() > quiet.sum()
    relative = [draw("waveform", scale * x, waveform_range=None) for scale in (1, gain)]
    np.testing.assert_allclose(*relative, atol=1e-3)
    for kind in ("spectrogram_amplitude", "scalogram"):
        levels = [draw(kind, scale * x, level_range=(-100, 60)) for scale in (1, gain)]
        brighter = levels[1] - levels[0]
        assert brighter.min() >= 0 and abs(np.median(brighter) - 20 * np.log10(gain) / 160) < 1e-5


def test_a_constant_is_a_line_at_its_height():
    for value, middle in ((0.0, 112), (1.0, 84), (-1.0, 140), (4.0, 1), (50.0, 1), (-50.0, 223)):
        rows, centre = lit(draw("waveform", np.full(150, value)))
        np.testing.assert_allclose(rows, 2, atol=1e-5)
        np.testing.assert_allclose(centre, middle, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e6])
@kinds
def test_constant_channels_have_images(kind, value):
    image = draw(kind, np.full(200, value), waveform_range=None)
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
    if value == 0 and kind != "waveform":
        assert np.ptp(image) < 1e-6 and np.isclose(image.max(), 0.5 if kind == "spectrogram_phase" else 0, atol=1e-6)


@few
@given(st.sampled_from([200.0, 500.0, 2000.0]), st.floats(0.15, 0.85), st.floats(0.1, 3.0), st.floats(0, 6))
def test_a_sine_is_brightest_at_the_row_of_its_frequency(rate, place, amplitude, phase):
    band = (0.05 * rate, 0.45 * rate)
    for kind, frequency in (
        ("spectrogram_amplitude", band[1] - place * (band[1] - band[0])),
        ("scalogram", band[1] * (band[0] / band[1]) ** place),
    ):
        signal = sine(frequency, 300, rate, amplitude, phase)
        fields = {"sampling_rate": rate, "frequency_range": band, "level_range": (-60, 20), "stft_window": 60}
        middle = draw(kind, signal, **fields)[0, :, 100:124].mean(axis=1)
        assert abs(middle.argmax() + 0.5 - place * SIZE) <= 1.5
        assert abs(middle.max() - (20 * np.log10(amplitude) + 60) / 80) < 0.004


def test_spectrogram_is_the_windowed_fourier_sum():
    x = noise(samples=SIZE, seed=3)[0, 0].astype(float)
    image = draw("spectrogram_amplitude", x, frequency_range=(5, 95), level_range=(-50, 20))
    frequencies = 95 - 90 * (np.arange(SIZE) + 0.5) / SIZE
    window = get_window("hann", 40)  # periodic
    for centre in (20, 100, 180):  # a column per sample, and the centres of windows
        waves = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(40)) / 200)
        magnitudes = 2 / window.sum() * np.abs(waves @ (window * x[centre - 20 : centre + 20]))
        expected = np.clip((20 * np.log10(magnitudes) + 50) / 70, 0, 1)
        np.testing.assert_allclose(image[0, :, centre], expected, atol=2e-4)
        halfway = (image[0, :, centre] + image[0, :, centre + 4]) / 2
        np.testing.assert_allclose(image[0, :, centre + 2], halfway, atol=1e-5)


def test_scalogram_is_the_convolution_with_wavelets():
    x = noise(samples=SIZE, seed=4)[0, 0].astype(float)
    image = draw("scalogram", x, frequency_range=(20, 90), level_range=(-50, 20), scalogram_wavelet=7)
    times = np.arange(SIZE) / 200
    for row in (60, 130, 210):
        frequency = 90 * (20 / 90) ** ((row + 0.5) / SIZE)
        spread = 7 / (2 * np.pi * frequency)
        for centre in (90, 112, 130):
            lag = times - times[centre]
            wavelet = np.exp(-0.5 * (lag / spread) ** 2) * np.exp(-2j * np.pi * frequency * lag)
            magnitude = 2 / (200 * spread * np.sqrt(2 * np.pi)) * abs(wavelet @ x)
            assert abs(image[0, row, centre] - (20 * np.log10(magnitude) + 50) / 70) < 1e-3


@few
@given(st.sampled_from([20, 35, 50, 80]), st.floats(-3.1, 3.1), st.floats(0.3, 3.0))
def test_hue_is_the_phase_at_the_middle_of_the_window(frequency, phase, amplitude):
    image = draw("spectrogram_phase", sine(frequency, phase=phase, amplitude=amplitude))
    row = round((100 - frequency) / 90 * SIZE - 0.5)
    for column in (40, 100, 160):  # centres of windows; a column per sample
        red, green, blue = image[:, row, column].astype(float)
        found = np.arctan2((green - blue) / np.sqrt(3), red - 0.5)
        expected = 2 * np.pi * frequency * column / 200 + phase
        assert abs(np.angle(np.exp(1j * (found - expected)))) < 0.05
        # Colourful as the amplitude spectrogram is bright, and no colour is brighter than another.
        saturation = 2 * np.hypot((green - blue) / np.sqrt(3), red - 0.5)
        assert abs(saturation - (20 * np.log10(amplitude) + 40) / 50) < 0.02
    np.testing.assert_allclose(image.mean(axis=0), 0.5, atol=1e-3)
    assert np.abs(draw("spectrogram_phase", sine(frequency, amplitude=1e-3)) - 0.5).max() < 1e-6


@kinds
def test_a_shift_in_time_moves_the_image(kind):
    x, shift = noise(samples=2 * SIZE, seed=5)[0, 0], 20 if kind == "spectrogram_phase" else 8
    before, after = (draw(kind, x[start : start + SIZE], frequency_range=(30, 60)) for start in (100, 100 - shift))
    inner = slice(64, 150)  # what the ends of the windows do not reach
    moved = slice(64 + shift, 150 + shift)
    np.testing.assert_allclose(after[..., moved], before[..., inner], atol=2e-3)
    assert np.abs(after[..., inner] - before[..., inner]).max() > 0.2


@pytest.mark.parametrize("kind", REPRESENTATIONS[:2] + REPRESENTATIONS[3:])
def test_nothing_is_lost_in_long_windows(kind):
    """80 s have 71 samples to a column; a twitch of one sample shows wherever in its column it is."""
    for sample in (4000, 4020, 4040, 4060):
        x = np.zeros(16_000)
        x[sample] = 30.0
        image = draw(kind, x, frequency_range=(50, 100))[0]
        image = np.abs(image - image[:, :1]).max(axis=0)
        assert abs(image.argmax() - sample * SIZE / 16_000) < 2 and image.max() > 0.15


def test_the_same_sine_at_two_rates_looks_the_same():
    """Rows and columns are Hz and shares of the window, whatever the rate."""
    fast = {"sampling_rate": 1000, "stft_window": 200, "stft_hop": 20, "window_length": 1000}
    for kind, frequency in (("waveform", 5), ("scalogram", 40), ("spectrogram_amplitude", 40)):
        phase = np.pi * frequency / np.array([200, 1000])  # samples are at the middle of their share of the window
        images = [draw(kind, sine(frequency, 200, 200.0, phase=phase[0]))]
        images.append(draw(kind, sine(frequency, 1000, 1000.0, phase=phase[1]), **fast))
        difference = np.abs(images[0] - images[1])[0, 30:, 60:-60]  # off half the slower rate, and off the ends
        assert difference.mean() < 0.01 and difference.max() < (0.6 if kind == "waveform" else 0.05)
    with pytest.raises(SignalError, match="sampled at 1000 Hz, but preprocessed signals come at 200 Hz"):
        BiosignalImageProcessor()(noise(), sampling_rate=1000, preprocessed=True)
    with pytest.raises(SignalError, match='sampled at 1000 Hz.*on_rate_mismatch="resample"'):
        BiosignalImageProcessor()(noise(samples=1000), sampling_rate=1000)


def test_recordings_become_the_images_of_their_windows():
    recording = noise(1, 4, 700)[0]
    fields = {"feature_size": 4, "stride": 100, "normalization_scope": "window"}
    processor = BiosignalImageProcessor(representations=["waveform"], image_size=32, **fields)
    windows = TinyMyoFeatureExtractor(**fields)(recording, sampling_rate=200, windowed=True, return_tensors="np")
    expected = processor.images(windows["input_values"])
    found = processor(recording, sampling_rate=200, windowed=True, return_tensors="np")["pixel_values"]
    assert found.shape == (6, 4, 3, 32, 32)
    np.testing.assert_array_equal(found, expected)
    for form in ([recording] * 2, np.stack([recording] * 2), (recording.tolist(), torch.from_numpy(recording))):
        twice = processor(form, sampling_rate=200, windowed=True)["pixel_values"]
        np.testing.assert_array_equal(twice, np.concatenate([expected, expected]))
    one = processor(recording[:, :200], sampling_rate=200, return_tensors="pt")["pixel_values"]
    by_hand = processor.normalize_windows(processor.preprocess(recording[:, :200], 200)[None])
    np.testing.assert_array_equal(one, processor.images(by_hand))
    prepared = processor(windows["input_values"], preprocessed=True)["pixel_values"]
    np.testing.assert_array_equal(prepared, expected)


def test_round_trip_is_exact(tmp_path):
    processor = BiosignalImageProcessor(
        representations=("scalogram", "waveform"),
        feature_size=8,
        sampling_rate=500,
        window_length=400,
        waveform_range=None,
        frequency_range=np.array([20, 200]),
        level_range=(-50, 0),
        stft_hop=np.int64(5),
        channels_as="strips",
    )
    processor.save_pretrained(tmp_path)
    for again in (BiosignalImageProcessor.from_pretrained(tmp_path), AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(again) is BiosignalImageProcessor and again.to_dict() == processor.to_dict()
    np.testing.assert_array_equal(again.images(noise(samples=400, channels=8)), processor.images(noise(2, 8, 400)))
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["representations"] == ["scalogram", "waveform"] and saved["frequency_range"] == [20, 200]
    core = BiosignalImagePreprocessing.from_dict(saved)
    assert type(core) is BiosignalImagePreprocessing and core.to_dict().items() <= processor.to_dict().items()
    assert core.window_length == 400 and core.stft_hop == 5
    with pytest.raises(SignalError, match="unknown field 'hop' of BiosignalImageProcessor"):
        BiosignalImageProcessor(hop=3)
    with pytest.raises(SignalError, match="unknown field 'representations' of TinyMyoFeatureExtractor"):
        TinyMyoFeatureExtractor(representations=["waveform"])


def test_drawing_needs_neither_torch_nor_the_rest_of_the_package(tmp_path):
    code = (
        "import sys; from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import BiosignalImagePreprocessing as P\n"
        "P(representations=['waveform', 'scalogram']).images([[[0.0] * 200]])\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'PIL') if name in sys.modules])"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TINYMYO_HF_REGISTER": "0", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True)
    assert result.stdout.strip() == "[]", result.stderr
    copied = shutil.copy(rendering_tiny_biomoe.__file__, tmp_path / "alone.py")
    spec = importlib.util.spec_from_file_location("alone", copied)
    alone = importlib.util.module_from_spec(spec)
    sys.modules["alone"] = alone
    try:
        spec.loader.exec_module(alone)
    finally:
        del sys.modules["alone"]
    x = noise()[0, :1]
    image = alone.Scalogram(200.0, (10.0, 100.0), (-40.0, 10.0), 6.0)(x, SIZE, SIZE)
    np.testing.assert_array_equal(np.broadcast_to(image[0], (3, SIZE, SIZE)), draw("scalogram", x[0]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"representations": []}, "representations=.*some of waveform"),
        ({"representations": "waveform"}, "representations='waveform': give a list"),
        ({"representations": ["wavelet"]}, "'wavelet' is unknown; use some of waveform, spectrogram_amplitude"),
        ({"representations": ["waveform", "waveform"]}, "'waveform' is there twice"),
        ({"channels_as": "rows"}, "channels_as='rows': unknown; use one of images, strips"),
        ({"image_size": 2}, "image_size=2: must be a whole number of at least 8"),
        ({"stft_hop": 1.5}, "stft_hop=1.5: must be a whole number"),
        ({"line_thickness": 0}, "line_thickness=0: must be a positive number"),
        ({"waveform_range": float("nan")}, "waveform_range=nan"),
        ({"level_range": (10, -40)}, "level_range.*lower and the upper end in dB"),
        ({"frequency_range": (0, 90), "representations": ["scalogram"]}, "frequency_range=.*above 0 and up to 100 Hz"),
        (
            {"frequency_range": (9, 101), "representations": ["scalogram"]},
            "frequency_range=.*half of sampling_rate=200",
        ),
        ({"window_length": 39, "representations": REPRESENTATIONS[:2]}, "window_length: 39 samples.*at least 40"),
        ({"window_length": 50, "representations": ["scalogram"]}, "50 samples, but the scalogram needs at least 55"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(SignalError, match=message):
        BiosignalImageProcessor(**fields)


def test_windows_that_cannot_be_drawn():
    processor = BiosignalImageProcessor(representations=REPRESENTATIONS, feature_size=3, image_size=32)
    assert processor.least_samples == 55
    processor.images(noise(samples=55))
    with pytest.raises(
        SignalError, match=r"windows: 54 samples, but the scalogram needs at least 55 \(frequency_range"
    ):
        processor.images(noise(samples=54))
    with pytest.raises(SignalError, match=r"but the spectrogram_amplitude needs at least 40 \(stft_window=40\)"):
        processor.images(noise(samples=39))
    for bad in (np.nan, np.inf, 1e30):
        x = noise()
        x[1, 2, 7] = bad
        with pytest.raises(SignalError, match="1 values are NaN.*sample 7 of channel 2 of window 1"):
            processor.images(x)
    for wrong in (noise()[0], noise()[None], np.zeros((0, 3, 200)), noise().astype(complex), [["a"]]):
        with pytest.raises(SignalError, match=r"expected numbers \(batch, channels, time\)"):
            processor.images(wrong)
    with pytest.raises(SignalError, match="4 channels, but feature_size=3"):
        processor.images(noise(channels=4))
    with pytest.raises(SignalError, match='9 channels leave strips.*channels_as="images"'):
        processor.replace(channels_as="strips", feature_size=None).images(noise(channels=9))
    with pytest.raises(SignalError, match="feature_size=None: how many images"):
        BiosignalImageProcessor().num_images()
    with pytest.raises(SignalError, match="700 samples, but window_length=200; pass windowed=True"):
        processor(noise(samples=700)[0], sampling_rate=200)
    with pytest.raises(SignalError, match="180 samples, but window_length=200; give longer windows, or set"):
        processor(noise(samples=180)[0], preprocessed=True)
    with pytest.raises(SignalError, match=r"signal 1: its shape \(200,\)"):
        processor([noise()[0], noise()[0, 0]], preprocessed=True)
    with pytest.raises(SignalError, match=r"have \[2, 3\] channels"):
        processor.replace(feature_size=None)([noise()[0], noise(channels=2)[0]], preprocessed=True)


def test_previews_are_pictures(tmp_path, monkeypatch):
    from matplotlib.image import imread

    processor = BiosignalImageProcessor(representations=["waveform", "scalogram"], image_size=64)
    weak, strong = 0.1 * noise()[0], 2 * noise()[1]
    preview(strong, processor, tmp_path / "one.png")
    preview({"weak": weak, "strong": strong}, processor, tmp_path / "two.png")
    one, two = imread(tmp_path / "one.png"), imread(tmp_path / "two.png")
    assert two.shape[1] > 1.5 * one.shape[1] and {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png"}
    dark = (two[..., :3].max(axis=2) < 0.3).mean(axis=0)  # by column: the weak window, on the left, is darker
    assert dark[: len(dark) // 2].mean() > 1.3 * dark[len(dark) // 2 :].mean()
    with pytest.raises(SignalError, match="end in .png"):
        preview(strong, processor, tmp_path / "one.jpg")
    with pytest.raises(SignalError, match="of one shape"):
        preview({"a": strong, "b": strong[:2]}, processor, tmp_path / "one.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'tinymyo-hf\[train\]'"):
        preview(strong, processor, tmp_path / "one.png")
