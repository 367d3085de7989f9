"""`pipeline("emg-regression")`: blending, what the output covers, batching, and refused recordings and models."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline

from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForRegression
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.blending import blend_windows, blended_window_starts

NAMES = ["flexion", "rotation", "grip"]
WINDOW, STRIDE = 100, 30


def noise(samples=640, seed=0):
    return np.random.default_rng(seed).normal(size=(4, samples)).astype(np.float32)


def save_checkpoint(config, folder, target_length=None, **settings):
    torch.manual_seed(0)
    config.target_length = target_length
    config.id2label = dict(enumerate(NAMES))
    model = TinyMyoForRegression(config)
    torch.nn.init.normal_(model.regressor.conv2.weight)
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(
        **{"feature_size": 4, "patch_size": 10, "window_length": WINDOW, "stride": STRIDE} | settings
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    return save_checkpoint(tiny_config, tmp_path / "model")


@pytest.fixture
def track(checkpoint):
    return pipeline("emg-regression", model=str(checkpoint), device="cpu")


def answer_with(track, function):
    """Let the model answer each window (channels, time) with `function` of it: (frames, outputs)."""
    track.model.forward = lambda x: type("Output", (), {"logits": torch.stack([function(one) for one in x])})


def slow_blend(windows, num_frames):
    """The definition, a frame at a time: sum of w y over sum of w, w = sin^2 of the place in the window."""
    outputs = windows[0][1].shape[1]
    result = np.empty((num_frames, outputs))
    for frame in range(num_frames):
        terms = []
        for first, values in windows:
            if first <= frame < first + len(values):
                weight = math.sin(math.pi * (frame - first + 0.5) / len(values)) ** 2
                terms.append((weight, values[frame - first]))
        whole = math.fsum(weight for weight, _ in terms)
        for output in range(outputs):
            result[frame, output] = math.fsum(weight * float(y[output]) for weight, y in terms) / whole
    return result


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 200), window=st.integers(1, 40), share=st.floats(0.01, 1), frames=st.integers(1, 50),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_weights_sum_to_one_for_any_length_and_stride(samples, window, share, frames, seed):
    """Blending windows that are 1 in one place and 0 elsewhere gives the weights themselves."""
    starts = blended_window_starts(samples, window, max(1, int(share * window)), frames)
    firsts = [start * frames / window for start in starts]
    assert all(first.is_integer() for first in firsts) and starts[0] == 0 and starts == sorted(set(starts))
    firsts = [int(first) for first in firsts]
    num_frames = min(samples * frames // window, firsts[-1] + frames)
    if num_frames == 0:
        return
    if window % frames == 0 or frames % window == 0:  # nothing but a part of a frame is left over
        assert num_frames == samples * frames // window
    one_hot = [(first, np.tile(np.eye(len(firsts))[i], (frames, 1))) for i, first in enumerate(firsts)]
    weights = blend_windows(one_hot, num_frames)
    assert weights.shape == (num_frames, len(firsts)) and weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    for i, first in enumerate(firsts):  # a window has no say where it is not
        assert not weights[:first, i].any() and not weights[first + frames :, i].any()
    values = np.random.default_rng(seed).normal(size=(len(firsts), frames, 2)).astype(np.float32)
    windows = list(zip(firsts, values, strict=True))
    np.testing.assert_allclose(blend_windows(windows, num_frames), slow_blend(windows, num_frames), atol=1e-6)


@pytest.mark.parametrize("target_length", [None, 100, 20, 200])
@pytest.mark.parametrize("samples", [640, 100, 101, 130, 213, 99, 35])
def test_trajectory_is_that_of_the_windows(tiny_config, tmp_path, target_length, samples):
    folder = save_checkpoint(tiny_config, tmp_path / "model", target_length)
    x = noise(samples)
    result = pipeline("emg-regression", model=str(folder), device="cpu")(x, sampling_rate=200)

    model = TinyMyoForRegression.from_pretrained(folder)
    extractor = TinyMyoFeatureExtractor.from_pretrained(folder)
    processed = extractor.preprocess(x, 200)
    if samples < WINDOW:
        processed = np.concatenate([processed, processed[:, ::-1], processed], axis=1)[:, :WINDOW]
    per_frame = WINDOW // (target_length or WINDOW) or 1  # samples
    starts = [start // per_frame * per_frame for start in range(0, max(samples - WINDOW, 0), STRIDE)]
    starts.append(max(samples - WINDOW, 0) // per_frame * per_frame)
    windows = []
    for start in dict.fromkeys(starts):
        with torch.no_grad():
            logits = model(torch.from_numpy(processed[None, :, start : start + WINDOW].copy())).logits[0]
        windows.append((start * len(logits) // WINDOW, logits.numpy()))
    frames = samples * (target_length or WINDOW) // WINDOW
    np.testing.assert_allclose(result["values"], slow_blend(windows, frames), rtol=1e-5, atol=1e-5)
    assert result["values"].dtype == np.float32 and result["values"].shape == (frames, 3)
    assert result["names"] == NAMES
    assert result["sampling_rate"] == 200 * (target_length or WINDOW) / WINDOW
    if per_frame * (target_length or WINDOW) == WINDOW:  # a frame is the mean of its samples
        times = (np.arange(frames * per_frame) / 200).reshape(frames, per_frame).mean(axis=1)
        np.testing.assert_allclose(result["times"], times, atol=1e-9)
    np.testing.assert_allclose(np.diff(result["times"]), 1 / result["sampling_rate"])


def test_a_constant_model_gives_constants_everywhere(track):
    value = torch.tensor([0.1, -3.3, 1e6])
    answer_with(track, lambda window: value.expand(WINDOW, 3))
    for samples in (40, 100, 147, 1000):
        values = track(noise(samples), sampling_rate=200)["values"]
        assert (values == value.numpy()).all() and len(values) == samples


@pytest.mark.parametrize("target_length", [None, 20, 200])
def test_a_ramp_stays_a_ramp(tiny_config, tmp_path, target_length):
    """A model that tells the time of each frame: wherever windows lie, they agree."""
    folder = save_checkpoint(
        tiny_config, tmp_path / "model", target_length, band_pass=None, notch_frequencies=(), normalization="none"
    )
    track = pipeline("emg-regression", model=str(folder), device="cpu")
    frames = target_length or WINDOW

    def mean_times(window):  # of the samples of each frame, by interpolation where there are more frames
        centres = (torch.arange(frames) + 0.5) * WINDOW / frames - 0.5
        return (window[0, 0] + centres)[:, None].repeat(1, 3)

    answer_with(track, mean_times)
    for samples, stride in ((100, 30), (517, 30), (517, 7), (517, 100), (999, 64)):
        ramp = np.tile(np.arange(samples, dtype=np.float32), (4, 1))
        result = track(ramp, sampling_rate=200, stride=stride)
        np.testing.assert_allclose(result["values"][:, 1], result["times"] * 200, rtol=1e-6, atol=1e-4)
        assert len(result["times"]) == samples * frames // WINDOW


def test_edges_are_kept_exactly(track):
    answer_with(track, lambda window: torch.cumsum(window, dim=1).T[:, :3])
    x = noise(310)
    result = track(x, sampling_rate=200, stride=100)
    signal = track.feature_extractor.preprocess(x, 200)
    first, last = (torch.from_numpy(part.copy()).cumsum(dim=1).T[:, :3] for part in (signal[:, :100], signal[:, 210:]))
    assert (result["values"][:100] == first.numpy()).all()
    assert (result["values"][300:] == last.numpy()[90:]).all()


def test_batch_size_changes_nothing(track):
    recordings = [noise(50 + 90 * i, seed=i) for i in range(4)]
    singles = [track(x, sampling_rate=200) for x in recordings]
    sizes = []
    forward = track.model.forward
    track.model.forward = lambda x: sizes.append(len(x)) or forward(x)
    for batch_size in (1, 3, 64):
        together = track(recordings, sampling_rate=200, batch_size=batch_size)
        for one, other in zip(singles, together, strict=True):
            np.testing.assert_allclose(one["values"], other["values"], rtol=1e-5, atol=1e-5)
            assert len(one["values"]) == len(other["times"])
    # a recording of 50 samples is a window, 140 take 3, 230 take 6, 320 take 9: batches go across recordings
    assert sizes == [1] * 19 + [3] * 6 + [1] + [19]


def test_forms_of_input_and_settings(track, checkpoint, tmp_path):
    x = noise()
    expected = track(x, sampling_rate=200)["values"]
    np.savez(tmp_path / "x.npz", emg=x.T, fs=200)
    for one in (x.tolist(), {"raw": x, "sampling_rate": 200}, tmp_path / "x.npz"):
        np.testing.assert_allclose(track(one, sampling_rate=200)["values"], expected, rtol=1e-5, atol=1e-5)
    fast = track(np.repeat(x, 5, axis=1), sampling_rate=1000, on_rate_mismatch="resample")
    assert fast["sampling_rate"] == 200 and len(fast["values"]) == 640
    set_once = pipeline("emg-regression", model=str(checkpoint), device="cpu", sampling_rate=200, window_length=200)
    assert set_once(x)["values"].shape == expected.shape and not np.allclose(set_once(x)["values"], expected)
    track.save_pretrained(tmp_path / "saved")
    again = pipeline("emg-regression", model=str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(again(x, sampling_rate=200)["values"], expected)


def test_window_statistics_are_those_of_the_window(tiny_config, tmp_path):
    folder = save_checkpoint(tiny_config, tmp_path / "model", normalization_scope="window")
    track = pipeline("emg-regression", model=str(folder), device="cpu")
    seen = []
    answer_with(track, lambda window: seen.append(window.numpy()) or window.T[:, :3])
    track(noise(), sampling_rate=200)
    np.testing.assert_allclose(np.mean(seen, axis=-1), 0, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.std(seen, axis=-1, ddof=1), 1, atol=1e-4)


def test_refused_recordings(track, tiny_config, tmp_path):
    x = noise()
    for recording, options, message in (
        (x, {}, "sampling rate is not known; pass sampling_rate.*200 Hz"),
        (x, {"sampling_rate": 1000}, 'sampled at 1000 Hz.*on_rate_mismatch="resample"'),
        (x.T, {"sampling_rate": 200}, "640 channels, but the model takes 4.*transpose"),
        (x, {"sampling_rate": 200, "stride": 101}, "stride=101: leaves gaps between windows of 100"),
        (x, {"sampling_rate": 200, "window_length": 105}, "window_length=105.*patch_size=10"),
        ("missing.csv", {"sampling_rate": 200}, "missing.csv: no such file"),
    ):
        with pytest.raises(SignalError, match=message):
            track(recording, **options)
    with pytest.raises(TypeError, match="top_k"):
        track(x, sampling_rate=200, top_k=1)
    coarse = pipeline("emg-regression", model=str(save_checkpoint(tiny_config, tmp_path / "coarse", 2)), device="cpu")
    assert len(coarse(x[:, :50], sampling_rate=200)["values"]) == 1
    with pytest.raises(SignalError, match="recording: 49 samples are less than a frame"):
        coarse(x[:, :49], sampling_rate=200)
