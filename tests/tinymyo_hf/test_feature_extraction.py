"""The feature extractor: what it saves, what it returns, what it refuses, and that it travels without the package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.signal import SignalError, filter_signal, normalize, resample

SPEECH = {
    "sampling_rate": 689.0625,
    "filter_rate": 1000,
    "resampling": "linear",
    "band_pass": (2.0, None),
    "band_pass_order": 3,
    "notch_frequencies": (60.0, 120.0),
    "gain": 0.05,
    "soft_limit": 50.0,
    "normalization": "none",
    "window_length": 1600,
}


def noise(channels=4, samples=500, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, samples)).astype(np.float32)


def test_round_trip_is_exact(tmp_path):
    extractor = TinyMyoFeatureExtractor(
        feature_size=8,
        sampling_rate=689.0625,
        band_pass=(2, 300),
        notch_frequencies=(60.0, 120.0),
        normalization="minmax",
        normalization_scope="window",
        filter_mode="causal",
        window_length=400,
        on_rate_mismatch="resample",
        max_gap=5,
    )
    extractor.save_pretrained(tmp_path)
    again = TinyMyoFeatureExtractor.from_pretrained(tmp_path)
    assert again.to_dict() == extractor.to_dict()
    again.save_pretrained(tmp_path / "again")
    files = [folder / "preprocessor_config.json" for folder in (tmp_path, tmp_path / "again")]
    assert files[0].read_text() == files[1].read_text()
    assert json.loads(files[0].read_text())["band_pass"] == again.band_pass == [2.0, 300.0]
    numpy_fields = {"window_length": np.int64(200), "patch_size": np.int32(20), "sampling_rate": np.float32(200)}
    TinyMyoFeatureExtractor(band_pass=np.array([20, 90]), **numpy_fields).save_pretrained(tmp_path)
    assert TinyMyoFeatureExtractor.from_pretrained(tmp_path).to_dict() == TinyMyoFeatureExtractor().to_dict()
    speech = TinyMyoFeatureExtractor(**SPEECH)
    speech.save_pretrained(tmp_path)
    again = TinyMyoFeatureExtractor.from_pretrained(tmp_path)
    assert again.to_dict() == speech.to_dict() and again.band_pass == [2.0, None]
    assert (again.filter_rate, again.resampling, again.gain, again.soft_limit) == (1000, "linear", 0.05, 50)
    without = TinyMyoFeatureExtractor(band_pass=None, notch_frequencies=())
    without.save_pretrained(tmp_path)
    assert TinyMyoFeatureExtractor.from_pretrained(tmp_path).to_dict() == without.to_dict()


def test_auto_class_loads_it(tmp_path):
    from transformers import AutoFeatureExtractor

    TinyMyoFeatureExtractor(stride=10).save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).stride == 10


def test_saved_folder_works_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyMyoFeatureExtractor, "_auto_class", "AutoFeatureExtractor")
    extractor, x = TinyMyoFeatureExtractor(normalization_scope="window"), noise()
    extractor.save_pretrained(tmp_path / "saved")
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy as np\n"
        "from transformers import AutoFeatureExtractor\n"
        "extractor = AutoFeatureExtractor.from_pretrained('saved', trust_remote_code=True)\n"
        "batch = extractor(np.load('x.npy'), sampling_rate=200, windowed=True, return_tensors='np')\n"
        "assert not [name for name in sys.modules if name.startswith('tinymyo_hf')]\n"
        "np.save('y.npy', batch['input_values'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "hf")
    # -I: neither the checkout nor the user's site-packages; an installed package would not be imported either.
    result = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    here = extractor(x, sampling_rate=200, windowed=True, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), here)


def test_preprocess_is_filter_then_normalisation():
    x = noise()
    for mode in ("zero_phase", "causal"):
        extractor = TinyMyoFeatureExtractor(filter_mode=mode)
        expected = normalize(filter_signal(x.astype(np.float64), 200, mode=mode), "zscore", mode)
        y = extractor.preprocess(x, 200)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("resampling", ["linear", "polyphase"])
def test_filters_at_the_raw_rate_then_resampling_gain_and_limit(resampling):
    extractor, x = TinyMyoFeatureExtractor(**SPEECH | {"resampling": resampling}), 1000 * noise(samples=3000) + 5000
    y = extractor.preprocess(x, 1000)
    filtered = filter_signal(x.astype(np.float64), 1000, (2, None), 3, (60, 120))
    expected = 50 * np.tanh(resample(filtered, 1000, 689.0625, resampling) / 20 / 50)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert y.shape == (4, 2067) and 30 < np.abs(y).max() < 50
    with pytest.raises(SignalError, match=r"sampled at 689.062 Hz, but the model was trained at 1000 Hz"):
        extractor.preprocess(x, 689.0625)
    other_rate = TinyMyoFeatureExtractor(**SPEECH | {"on_rate_mismatch": "resample"})
    assert other_rate.preprocess(x, 2000).shape == (4, 1034)


def test_context_settles_the_filters_and_is_cut_off():
    x = noise(samples=4000) + 100
    whole = TinyMyoFeatureExtractor(**SPEECH | {"sampling_rate": 1000}).preprocess(x, 1000)
    extractor = TinyMyoFeatureExtractor(**SPEECH)
    y = extractor.preprocess(x, 1000, context=(1000, 1200))
    np.testing.assert_allclose(y, resample(whole[:, 1000:2800], 1000, 689.0625, "linear"), atol=1e-5)
    assert np.abs(y - extractor.preprocess(x[:, 1000:2800], 1000))[:, :50].max() > 0.001
    for context in ((-1, 0), (2000, 2000)):
        with pytest.raises(SignalError, match=r"a.npy: context=.*4000 samples"):
            extractor.preprocess(x, 1000, "a.npy", context)


def test_causal_mode_does_not_look_ahead():
    extractor, x = TinyMyoFeatureExtractor(filter_mode="causal"), noise()
    changed = x.copy()
    changed[:, 300:] *= 50
    np.testing.assert_array_equal(extractor.preprocess(x, 200)[:, :300], extractor.preprocess(changed, 200)[:, :300])


def test_long_recordings_are_processed_in_parts(monkeypatch):
    extractor, x = TinyMyoFeatureExtractor(), noise(channels=5)
    whole = extractor.preprocess(x, 200)
    monkeypatch.setattr("tinymyo_hf.tinymyo.preprocessing_tinymyo.SAMPLES_AT_ONCE", 1001)
    np.testing.assert_array_equal(extractor.preprocess(x, 200), whole)


def test_windows_and_their_normalisation():
    x = 7 + 3 * noise()
    by_recording = TinyMyoFeatureExtractor(band_pass=None, notch_frequencies=())
    windows, starts = by_recording.windows(by_recording.preprocess(x, 200))
    assert windows.shape == (7, 4, 200)
    assert starts.tolist() == [0, 50, 100, 150, 200, 250, 300]
    assert abs(windows[3].mean(axis=1)).max() > 1e-3
    by_window = TinyMyoFeatureExtractor(band_pass=None, notch_frequencies=(), normalization_scope="window")
    windows, _ = by_window.windows(by_window.preprocess(x, 200))
    np.testing.assert_allclose(windows.mean(axis=2), 0, atol=1e-5)
    np.testing.assert_allclose(windows.std(axis=2, ddof=1), 1, atol=1e-5)


def test_batch_equals_single_and_padding_is_marked():
    extractor = TinyMyoFeatureExtractor(padding_value=-3.0)
    lengths = (210, 399, 380)
    recordings = [noise(samples=n, seed=n) for n in lengths]
    batch = extractor(recordings, sampling_rate=200, return_tensors="pt")
    assert batch["input_values"].shape == (3, 4, 400)
    assert str(batch["input_values"].dtype) == "torch.float32"
    for i, recording in enumerate(recordings):
        single = extractor(recording, sampling_rate=200, return_tensors="np")
        n = lengths[i]
        assert single["input_values"].shape[2] == -(-n // 20) * 20
        np.testing.assert_array_equal(batch["input_values"][i, :, :n], single["input_values"][0, :, :n])
        assert (batch["input_values"][i, :, n:] == -3.0).all()
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (400 - n)


def test_padding_by_data_collators():
    import torch
    from transformers import DataCollatorWithPadding

    extractor, recordings = TinyMyoFeatureExtractor(), [noise(samples=490), noise(samples=200)]
    expected = extractor(recordings, sampling_rate=200, return_tensors="pt")
    single = [extractor(recording, sampling_rate=200, padding=False) for recording in recordings]
    examples = [
        {"input_values": one["input_values"][0], "attention_mask": one["attention_mask"][0].tolist(), "label": label}
        for one, label in zip(single, (2, 0), strict=True)
    ]
    batch = DataCollatorWithPadding(extractor)(examples)
    assert torch.equal(batch["input_values"], expected["input_values"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["labels"].tolist() == [2, 0]
    bare = [{"input_values": torch.from_numpy(example["input_values"])} for example in examples]
    assert torch.equal(extractor.pad(bare, return_tensors="pt")["attention_mask"], expected["attention_mask"])
    columns = {"input_values": [example["input_values"] for example in examples]}
    assert torch.equal(extractor.pad(columns, return_tensors="pt")["input_values"], expected["input_values"])
    with pytest.raises(SignalError, match="max_length is not supported"):
        extractor.pad(bare, max_length=100)


def test_forms_of_input_are_equivalent():
    extractor, x = TinyMyoFeatureExtractor(), noise(samples=200)
    expected = extractor(x, sampling_rate=200, return_tensors="np")["input_values"]
    for form in ([x], x[None], x.tolist(), [x.tolist()], list(x), (x,)):
        np.testing.assert_array_equal(extractor(form, sampling_rate=200, return_tensors="np")["input_values"], expected)
    processed = extractor.preprocess(x, 200)
    again = extractor(processed, preprocessed=True, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(again, expected)
    many = extractor([x, x], sampling_rate=200, windowed=True, return_tensors="np")["input_values"]
    assert many.shape == (2, 4, 200)
    lists = extractor([x, noise(samples=230)], sampling_rate=200, padding=False)
    assert [array.shape for array in lists["input_values"]] == [(4, 200), (4, 230)]
    silent = TinyMyoFeatureExtractor(return_attention_mask=False)
    assert "attention_mask" not in silent(x, sampling_rate=200)


def test_sampling_rate_is_never_guessed(monkeypatch):
    extractor, x = TinyMyoFeatureExtractor(), noise(samples=1000)
    with pytest.raises(SignalError, match="a.csv: sampled at 1000 Hz.*trained at 200 Hz.*resample"):
        extractor.preprocess(x, 1000, name="a.csv")
    with pytest.raises(SignalError, match="sampling_rate=-1"):
        extractor.preprocess(x, -1)
    warnings = []
    monkeypatch.setattr("tinymyo_hf.tinymyo.preprocessing_tinymyo.logger.warning", warnings.append)
    extractor(x)
    assert "200 Hz is assumed" in warnings[0]
    resampling = TinyMyoFeatureExtractor(on_rate_mismatch="resample")
    t = np.arange(10000) / 1000
    slow, fast = np.sin(2 * np.pi * 30 * t[::5])[None], np.sin(2 * np.pi * 30 * t)[None]
    difference = resampling.preprocess(fast, 1000) - resampling.preprocess(slow, 200)
    assert np.abs(difference[:, 200:-200]).max() < 0.02


def test_missing_samples_and_dead_channels_on_request():
    x = noise()
    x[1], x[2, 100:103] = 0.5, np.nan
    with pytest.raises(SignalError, match="channel 2 has 3 missing"):
        TinyMyoFeatureExtractor(allow_constant_channels=True).preprocess(x, 200)
    with pytest.raises(SignalError, match="channel 1 is constant"):
        TinyMyoFeatureExtractor(max_gap=3).preprocess(x, 200)
    y = TinyMyoFeatureExtractor(max_gap=3, allow_constant_channels=True).preprocess(x, 200)
    assert np.isfinite(y).all()
    assert not y[1].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"band_pass": (20, 120)}, "band_pass=.*below 100 Hz"),
        ({"band_pass": (20, "90")}, "band_pass: '90' is not a number"),
        ({"band_pass": 20}, r"band_pass=20: give a list"),
        ({"notch_frequencies": 50}, r"notch_frequencies=50: give a list of numbers, for instance \[50\]"),
        ({"notch_frequencies": (150,)}, "notch_frequencies=.*remove"),
        ({"window_length": 210}, "window_length=210.*patch_size=20.*200 or 220"),
        ({"window_length": 0}, "window_length=0"),
        ({"stride": 0}, "stride=0"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"max_gap": -1}, "max_gap=-1"),
        ({"feature_size": 0}, "feature_size=0"),
        ({"sampling_rate": "200"}, "sampling_rate"),
        ({"filter_mode": "both"}, "filter_mode='both'.*causal"),
        ({"normalization": "robust"}, "normalization='robust'.*minmax"),
        ({"normalization_scope": "session"}, "normalization_scope='session'.*window"),
        ({"on_rate_mismatch": "ignore"}, "on_rate_mismatch='ignore'.*resample"),
        ({"padding_side": "left"}, "padding_side='left'"),
        ({"band_pass": (None, None)}, "band_pass="),
        ({"filter_rate": 0}, "filter_rate=0"),
        ({"filter_rate": 1000, "band_pass": (20, 500)}, "band_pass=.*below 500 Hz"),
        ({"resampling": "cubic"}, "resampling='cubic'.*polyphase"),
        ({"gain": float("inf")}, "gain=inf"),
        ({"gain": "x"}, "gain: 'x' is not a number"),
        ({"soft_limit": -1}, "soft_limit=-1"),
        ({"bandpass": (20, 90)}, "unknown field 'bandpass'"),
    ],
)
def test_contradicting_fields_are_refused_at_construction(fields, message):
    with pytest.raises(SignalError, match=message):
        TinyMyoFeatureExtractor(**fields)


def test_refused_input():
    extractor = TinyMyoFeatureExtractor(feature_size=4)
    for bad, message in (
        (noise(channels=3), "3 channels, but feature_size=4.*select"),
        (noise(channels=3, samples=4), "transpose"),
        ([noise(), np.full((4, 500), np.nan)], "recording 1: channel 0"),
        ([], "list is empty"),
        (noise().T, "transpose"),
    ):
        with pytest.raises(SignalError, match=message):
            extractor(bad, sampling_rate=200)
    with pytest.raises(SignalError, match=r"\[2, 3\] channels"):
        TinyMyoFeatureExtractor()([noise(2), noise(3)], sampling_rate=200)
    with pytest.raises(SignalError, match="100 samples, shorter"):
        extractor(noise(samples=100), sampling_rate=200, windowed=True)
    with pytest.raises(SignalError, match="recording: sampling_rate: '200' is not a number"):
        extractor(noise(), sampling_rate="200")
    with pytest.raises(SignalError, match="padding='max_length'"):
        extractor(noise(), sampling_rate=200, padding="max_length")
    with np.errstate(all="ignore"), pytest.raises(SignalError, match="overflow"):
        TinyMyoFeatureExtractor(normalization="none").preprocess(noise().astype(np.float64) * 1e80, 200)
