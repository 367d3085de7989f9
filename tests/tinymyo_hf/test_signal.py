"""The signal functions: what must hold for every recording, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from tinymyo_hf.signal import SignalError, check_signal, filter_signal, normalize, resample, sliding_windows, soft_limit

RATE = 200.0
few = settings(max_examples=25, deadline=None)


def noise(seed, channels=3, samples=400):
    return np.random.default_rng(seed).normal(size=(channels, samples))


recordings = st.builds(noise, st.integers(0, 2**32), st.integers(1, 4), st.integers(60, 500))
modes = st.sampled_from(["zero_phase", "causal"])


@few
@given(recordings, st.floats(-5, 5), modes)
def test_filter_is_linear(x, scale, mode):
    other = x[:, ::-1] ** 2
    together = filter_signal(x + scale * other, RATE, mode=mode)
    apart = filter_signal(x, RATE, mode=mode) + scale * filter_signal(other, RATE, mode=mode)
    np.testing.assert_allclose(together, apart, atol=1e-8 * (1 + np.abs(apart).max()))


def test_zero_phase_filter_commutes_with_time_reversal():
    x = noise(1, samples=4000)
    difference = filter_signal(x[:, ::-1], RATE)[:, ::-1] - filter_signal(x, RATE)
    assert np.abs(difference[:, 1000:-1000]).max() < 1e-6  # the two ends start differently


def test_zero_phase_filter_is_the_published_cascade_away_from_the_ends():
    x = noise(2, samples=4000)
    expected = scipy_signal.filtfilt(*scipy_signal.butter(4, (20, 90), btype="bandpass", fs=RATE), x)
    expected = scipy_signal.filtfilt(*scipy_signal.iirnotch(50, 30, fs=RATE), expected)
    assert np.abs(filter_signal(x, RATE) - expected)[:, 1000:-1000].max() < 1e-8


@few
@given(recordings, st.integers(10, 50), st.sampled_from(["zscore", "minmax"]))
def test_causal_processing_never_looks_ahead(x, keep, method):
    other = x.copy()
    other[:, keep:] = 100 * noise(7, x.shape[0], x.shape[1] - keep)
    for process in (
        lambda y: filter_signal(y, RATE, mode="causal"),
        lambda y: normalize(y, method, mode="causal"),
    ):
        np.testing.assert_array_equal(process(x)[:, :keep], process(other)[:, :keep])


@pytest.mark.parametrize(("band", "kind", "edge"), [((2.0, None), "highpass", 2), ([None, 300.0], "lowpass", 300)])
def test_band_open_on_one_side(band, kind, edge):
    x = noise(9, samples=6000)
    y = filter_signal(x, 1000, band, order=3, notch_frequencies=())
    expected = scipy_signal.filtfilt(*scipy_signal.butter(3, edge, kind, fs=1000), x)
    assert np.abs(y - expected)[:, 2000:-2000].max() < 1e-5
    causal = filter_signal(x - x[:, :1], 1000, band, order=3, notch_frequencies=(), mode="causal")
    expected = scipy_signal.lfilter(*scipy_signal.butter(3, edge, kind, fs=1000), x - x[:, :1])
    np.testing.assert_allclose(causal, expected, atol=1e-8)


def test_filter_keeps_the_band_and_removes_the_rest():
    t = np.arange(0, 20, 1 / 1000)
    inside, outside = np.sin(2 * np.pi * 70 * t), np.sin(2 * np.pi * 5 * t) + np.sin(2 * np.pi * 50 * t)
    for mode, gain in (("zero_phase", 1.0), ("causal", 1.0)):
        middle = slice(5000, -5000)
        kept = filter_signal(inside[None], 1000, (20, 450), mode=mode)[0, middle]
        gone = filter_signal(outside[None], 1000, (20, 450), mode=mode)[0, middle]
        assert abs(kept.std() / inside.std() - gain) < 0.03
        assert gone.std() < 0.01


@few
@given(recordings, modes)
def test_channels_are_processed_independently(x, mode):
    for process in (
        lambda y: filter_signal(y, RATE, mode=mode),
        lambda y: normalize(y, "zscore", mode),
        lambda y: resample(y, 200, 150),
    ):
        np.testing.assert_allclose(process(x), np.concatenate([process(row[None]) for row in x]), atol=1e-12)


def test_dead_channel_stays_dead():
    x = noise(3)
    x[1] = 0.3
    for mode in ("zero_phase", "causal"):
        assert not normalize(filter_signal(x, RATE, mode=mode), "zscore", mode)[1].any()
    np.testing.assert_array_equal(resample(x, 200, 1000)[1], 0.3)


@few
@given(recordings, st.floats(0.1, 1e4), st.floats(-1e3, 1e3))
def test_normalisation_ranges_and_invariance(x, scale, offset):
    z = normalize(x)
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=1, ddof=1), 1, atol=1e-9)
    np.testing.assert_allclose(normalize(scale * x + offset), z, atol=1e-6)
    m = normalize(x, "minmax")
    np.testing.assert_allclose([m.min(), m.max()], [-1, 1], atol=1e-6)
    assert -1 <= normalize(x, "minmax", "causal").min() <= normalize(x, "minmax", "causal").max() <= 1
    np.testing.assert_array_equal(normalize(x, "none"), x)


def test_causal_statistics_are_those_of_the_past():
    x = noise(4, samples=100) + 1000
    z, m = normalize(x, "zscore", "causal"), normalize(x, "minmax", "causal")
    for t in (1, 10, 99):
        past = x[:, : t + 1]
        np.testing.assert_allclose(z[:, t], ((x[:, t] - past.mean(1)) / past.std(1, ddof=1)), atol=1e-6)
        low, high = past.min(1), past.max(1)
        np.testing.assert_allclose(m[:, t], 2 * (x[:, t] - low) / (high - low + 1e-8) - 1, atol=1e-9)


@few
@given(recordings, st.sampled_from([(200, 100), (200, 1000), (1000, 689.0625), (966.3, 200)]))
def test_resampled_length(x, rates):
    assert resample(x, *rates).shape == (x.shape[0], round(x.shape[1] * rates[1] / rates[0]))


def test_resampling_keeps_a_sine():
    rates = 1000, 689.0625
    times = [np.arange(4 * rate) / rate for rate in rates]
    before, after = (np.sin(2 * np.pi * 60 * t)[None] for t in times)
    middle = slice(200, -200)
    difference = resample(before, *rates)[:, : after.shape[1]] - after[:, : resample(before, *rates).shape[1]]
    assert np.abs(difference[:, middle]).max() < 5e-3


@few
@given(recordings, st.sampled_from([(1000, 689.0625), (200, 500)]))
def test_linear_resampling_interpolates_between_neighbours(x, rates):
    y = resample(x, *rates, method="linear")
    assert y.shape == resample(x, *rates).shape
    times = np.minimum(np.arange(y.shape[1]) * rates[0] / rates[1], x.shape[1] - 1)
    before = np.minimum(np.floor(times).astype(int), x.shape[1] - 2)
    share = times - before
    np.testing.assert_allclose(y, (1 - share) * x[:, before] + share * x[:, before + 1], atol=1e-9)


@few
@given(recordings, st.floats(0.1, 100))
def test_soft_limit(x, limit):
    y = soft_limit(100 * x, limit)
    assert np.abs(y).max() <= limit
    order = np.argsort(x, axis=1)
    assert (np.diff(np.take_along_axis(y, order, 1), axis=1) >= 0).all()
    np.testing.assert_allclose(soft_limit(1e-3 * limit * np.tanh(x), limit), 1e-3 * limit * np.tanh(x), rtol=1e-6)


@few
@given(recordings, st.integers(1, 60), st.integers(1, 70))
def test_windows_are_slices_of_the_recording(x, length, stride):
    windows, starts = sliding_windows(x, length, stride)
    assert len(windows) == len(starts) == (x.shape[1] - length) // stride + 1
    for window, start in zip(windows, starts, strict=True):
        np.testing.assert_array_equal(window, x[:, start : start + length])
    if stride == length:  # windows that do not overlap put the recording together again
        whole = windows.transpose(1, 0, 2).reshape(x.shape[0], -1)
        np.testing.assert_array_equal(whole, x[:, : whole.shape[1]])


def test_windows_are_a_view():
    x = noise(5)
    assert np.shares_memory(sliding_windows(x, 100, 10)[0], x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_type_is_kept(dtype):
    x = noise(6).astype(dtype)
    for y in (check_signal(x), filter_signal(x, RATE), normalize(x), resample(x, 200, 100)):
        assert y.dtype == dtype
    assert check_signal((100 * x).astype(np.int16)).dtype == np.float32


@few
@given(recordings, st.data())
def test_short_gaps_are_interpolated_and_long_ones_refused(x, data):
    gap = data.draw(st.integers(1, 10))
    start = data.draw(st.integers(0, x.shape[1] - gap))
    x[0, start : start + gap] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    filled = check_signal(x, max_gap=gap)
    assert np.isfinite(filled).all()
    near = x[0, max(start - 1, 0) : start + gap + 1]
    near = near[np.isfinite(near)]
    assert near.min() <= filled[0, start : start + gap].min() <= filled[0, start : start + gap].max() <= near.max()
    with pytest.raises(SignalError, match=rf"run.csv: channel 0 has {gap} missing.*sample {start} on.*max_gap={gap}"):
        check_signal(x, name="run.csv", max_gap=gap - 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(50), r"shape \(50,\).*x\[None, :\]"),
        (np.empty((2, 0)), "empty"),
        (np.zeros((3, 50)), "channel 0 is constant.*allow_constant_channels"),
        (noise(0).T, "400 channels and only 3 samples.*transpose"),
        ([["a", "b"]], "not real numbers"),
        ([[1.0, 2.0], [3.0]], "not a rectangular array"),
        (np.ones((2, 50), complex), "not real numbers"),
        (np.full((1, 50), np.nan), "drop the channel"),
    ],
)
def test_refused_recordings(bad, message):
    with pytest.raises(SignalError, match=message):
        check_signal(bad, name="recording", max_gap=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"band_pass": (20, 100)}, "band_pass=.*below 100 Hz"),
        ({"band_pass": (90, 20)}, "band_pass=.*lower < upper"),
        ({"band_pass": (0, 20)}, "band_pass="),
        ({"band_pass": (20, 20)}, "band_pass=.*lower < upper"),
        ({"band_pass": (None, None)}, "band_pass=.*or None for no filter"),
        ({"band_pass": (20,)}, "band_pass="),
        ({"band_pass": (100, None)}, "band_pass=.*lower edge must lie below 100 Hz"),
        ({"band_pass": (None, 100)}, "band_pass=.*upper edge must lie below 100 Hz"),
        ({"band_pass": (-1, None)}, "band_pass="),
        ({"order": 0}, "band_pass_order=0"),
        ({"notch_frequencies": (100,)}, "notch_frequencies=.*remove it"),
        ({"notch_quality": 0}, "notch_quality=0"),
        ({"mode": "both"}, "mode='both'.*zero_phase"),
        ({"sampling_rate": 0}, "sampling_rate=0"),
        ({"sampling_rate": float("nan")}, "sampling_rate=nan"),
    ],
)
def test_refused_filters(settings, message):
    with pytest.raises(SignalError, match=message):
        filter_signal(noise(0), **{"sampling_rate": RATE, **settings})


def test_refused_windows_and_methods():
    with pytest.raises(SignalError, match="a.csv: 400 samples.*window_length=401"):
        sliding_windows(noise(0), 401, 1, name="a.csv")
    for window_length, stride in ((0, 1), (10, 0), (10, -1), (10.5, 1)):
        with pytest.raises(SignalError, match="whole number"):
            sliding_windows(noise(0), window_length, stride)
    with pytest.raises(SignalError, match="normalization='robust'.*zscore"):
        normalize(noise(0), "robust")
    with pytest.raises(SignalError, match="to_rate=-1"):
        resample(noise(0), 200, -1)
    with pytest.raises(SignalError, match="resampling='cubic'.*linear"):
        resample(noise(0), 200, 100, method="cubic")
