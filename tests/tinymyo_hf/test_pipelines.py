"""`pipeline("emg-classification")`: inputs, windows, aggregation, batching, and refused recordings."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from tinymyo_hf.signal import SignalError

LABELS = ["rest", "fist", "open"]


def noise(samples=600, seed=0):
    return np.random.default_rng(seed).normal(size=(4, samples)).astype(np.float32)


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    torch.manual_seed(0)
    model = TinyMyoForSequenceClassification(tiny_config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "model")
    TinyMyoFeatureExtractor(patch_size=10, window_length=100, stride=50).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def classify(checkpoint):
    return pipeline("emg-classification", model=str(checkpoint), device="cpu")


def assert_equal(one, other):
    assert one["label"] == other["label"]
    assert len(one["windows"]) == len(other["windows"])
    for a, b in zip(one["windows"], other["windows"], strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
        assert {**a, "score": 0} == {**b, "score": 0}


def test_result_is_the_models_own(classify, checkpoint):
    x = noise()
    result = classify(x, sampling_rate=200)
    model = TinyMyoForSequenceClassification.from_pretrained(checkpoint)
    extractor = TinyMyoFeatureExtractor.from_pretrained(checkpoint)
    windows, starts = extractor.windows(extractor.preprocess(x, 200))
    with torch.no_grad():
        expected = model(torch.from_numpy(windows.copy())).logits.softmax(-1).double()
    assert [w["start"] for w in result["windows"]] == (starts / 200).tolist()
    assert [w["end"] for w in result["windows"]] == ((starts + 100) / 200).tolist()
    assert [w["label"] for w in result["windows"]] == [LABELS[i] for i in expected.argmax(-1)]
    assert [w["score"] for w in result["windows"]] == pytest.approx(expected.max(-1).values.tolist(), abs=1e-5)
    mean = dict(zip(LABELS, expected.mean(0).tolist(), strict=True))
    assert result["scores"] == pytest.approx(mean, abs=1e-5)
    assert list(result["scores"].values()) == sorted(result["scores"].values(), reverse=True)
    assert result["label"] == max(mean, key=mean.get)
    assert result["score"] == result["scores"][result["label"]]


def test_batch_size_changes_nothing(classify):
    recordings = [noise(100 + 70 * i, seed=i) for i in range(4)]
    singles = [classify(x, sampling_rate=200) for x in recordings]
    for batch_size in (1, 3, 64):
        together = classify(recordings, sampling_rate=200, batch_size=batch_size)
        for one, other in zip(singles, together, strict=True):
            assert_equal(one, other)


def test_windows_go_through_the_model_in_batches(classify):
    sizes = []
    forward = classify.model.forward
    classify.model.forward = lambda x, **kwargs: sizes.append(len(x)) or forward(x, **kwargs)
    classify(noise(100 + 50 * 99), sampling_rate=200)
    classify(noise(100 + 50 * 9), sampling_rate=200, batch_size=4)
    assert sizes == [32, 32, 32, 4, 4, 4, 2]


def test_forms_of_input(classify, tmp_path):
    x = noise()
    expected = classify(x, sampling_rate=200)
    np.save(tmp_path / "x.npy", x.T)
    np.savez(tmp_path / "x.npz", emg=x.T, fs=200)
    header = "time,a,b,c,d,class"
    table = np.column_stack([np.arange(600) / 200, x.T, np.zeros(600)])
    np.savetxt(tmp_path / "x.csv", table, delimiter=",", header=header, comments="", fmt="%.9g")
    for one in (
        x.tolist(),
        list(x),
        {"raw": x, "sampling_rate": 200},
        {"raw": str(tmp_path / "x.npy"), "sampling_rate": 200},
        {"raw": x},
        torch.from_numpy(x),
        tmp_path / "x.npy",
        str(tmp_path / "x.csv"),
    ):
        assert_equal(classify(one, sampling_rate=200), expected)
    assert_equal(classify(str(tmp_path / "x.npz")), expected)  # the file states its rate
    for many in ([x, str(tmp_path / "x.npz")], (x, x), np.stack([x, x]), [x.tolist(), x.tolist()]):
        results = classify(many, sampling_rate=200)
        assert len(results) == 2
        assert_equal(results[0], results[1])
    assert_equal(next(iter(classify((one for one in [x]), sampling_rate=200))), expected)
    assert classify([], sampling_rate=200) == []


def test_call_arguments(classify, checkpoint, tmp_path):
    x = noise()
    assert len(classify(x, sampling_rate=200, stride=100)["windows"]) == 6
    assert classify(x, sampling_rate=200, window_length=200)["windows"][0]["end"] == 1.0
    full, best = classify(x, sampling_rate=200), classify(x, sampling_rate=200, top_k=1)
    assert list(best["scores"]) == list(full["scores"])[:1] == [full["label"]]
    fast = classify(np.repeat(x, 5, axis=1), sampling_rate=1000, on_rate_mismatch="resample")
    assert fast["windows"][-1]["end"] == full["windows"][-1]["end"] == 3.0
    set_once = pipeline("emg-classification", model=str(checkpoint), device="cpu", sampling_rate=200, stride=100)
    assert len(set_once(x)["windows"]) == 6
    assert len(set_once(x, stride=50)["windows"]) == 11
    np.savez(tmp_path / "two.npz", first=x[::-1], second=x)
    chosen = set_once(tmp_path / "two.npz", stride=50, read_options={"key": "second"})
    assert_equal(chosen, full)


def test_half_precision(checkpoint, classify):
    half = pipeline("emg-classification", model=str(checkpoint), device="cpu", dtype=torch.bfloat16)
    x = noise()
    a, b = half(x, sampling_rate=200)["scores"], classify(x, sampling_rate=200)["scores"]
    assert all(abs(a[label] - b[label]) < 0.05 for label in LABELS)


def test_saved_pipeline_loads_again(classify, tmp_path):
    classify.save_pretrained(tmp_path / "saved")
    again = pipeline("emg-classification", model=str(tmp_path / "saved"), device="cpu")
    assert_equal(again(noise(), sampling_rate=200), classify(noise(), sampling_rate=200))


def test_refused_recordings(classify, tmp_path):
    x = noise()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "three.npy", x[:3])
    for recording, options, message in (
        (x, {}, "sampling rate is not known; pass sampling_rate.*200 Hz"),
        (tmp_path / "x.npy", {}, "x.npy: its sampling rate is not known"),
        (x, {"sampling_rate": 1000}, 'sampled at 1000 Hz.*on_rate_mismatch="resample"'),
        (x.T, {"sampling_rate": 200}, "600 channels, but the model takes 4.*transpose"),
        (x[:3], {"sampling_rate": 200}, "3 channels, but the model takes 4.*select"),
        (tmp_path / "three.npy", {"sampling_rate": 200}, "three.npy: 3 channels.*4 are expected"),
        (x[:, :99], {"sampling_rate": 200}, "recording: 99 samples, shorter than one window"),
        (x * np.nan, {"sampling_rate": 200}, "channel 0 has 600 missing"),
        (x, {"sampling_rate": 200, "window_length": 105}, "window_length=105.*patch_size=10"),
        (x, {"sampling_rate": 200, "stride": 0}, "stride=0"),
        (x, {"sampling_rate": 200, "top_k": 0}, "top_k=0"),
        ({"array": x}, {"sampling_rate": 200}, r"keys raw and sampling_rate, not \['array'\]"),
        ("missing.csv", {"sampling_rate": 200}, "missing.csv: no such file"),
    ):
        with pytest.raises(SignalError, match=message):
            classify(recording, **options)
    with pytest.raises(TypeError, match="strides"):
        classify(x, sampling_rate=200, strides=10)


def test_extractor_of_another_model_is_refused(checkpoint):
    with pytest.raises(SignalError, match="patch_size: the feature extractor has 20, the model 10"):
        pipeline("emg-classification", model=str(checkpoint), feature_extractor=TinyMyoFeatureExtractor(), device="cpu")
