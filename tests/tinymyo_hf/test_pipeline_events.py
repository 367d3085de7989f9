"""`pipeline("emg-events")`: the events of windowed inference, padding, batching, and what is refused."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForFrameClassification
from tinymyo_hf.event_detection import FrameGrid, detect_events, sigmoid
from tinymyo_hf.event_inference import event_logits
from tinymyo_hf.signal import SignalError

GESTURES = ["index_press", "index_release", "thumb_click"]
TINY = {
    "stem": "convolution", "hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 48, "num_channels": 4,
    "id2label": dict(enumerate(GESTURES)),
}  # fmt: skip
SETTINGS = {
    "feature_size": 4, "sampling_rate": 2000, "band_pass": None, "notch_frequencies": (), "normalization": "none",
    "window_length": 400, "stride": 100,
}  # fmt: skip


def bursts(samples=1730, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(4, samples)) * (1 + 40 * (np.arange(samples) // 150 % 3 == 1))).astype(np.float32)


def save_checkpoint(folder, is_causal=True):
    torch.manual_seed(1)
    model = TinyMyoForFrameClassification(TinyMyoConfig(**TINY, is_causal=is_causal))
    torch.nn.init.normal_(model.frame_classifier.weight, std=2)
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(**SETTINGS).save_pretrained(folder)
    return folder


@pytest.fixture(params=[True, False], ids=["causal", "bidirectional"])
def checkpoint(request, tmp_path):
    return save_checkpoint(tmp_path / "model", request.param)


@pytest.fixture
def detect(checkpoint):
    return pipeline("emg-events", model=str(checkpoint), device="cpu")


@pytest.mark.parametrize("samples", [1730, 400, 405, 130, 21])
def test_events_are_those_of_windowed_inference(detect, checkpoint, samples):
    x = bursts(samples)
    result = detect(x, sampling_rate=2000, return_probabilities=True)
    model = TinyMyoForFrameClassification.from_pretrained(checkpoint).eval()
    expected = sigmoid(event_logits(model, x, 2000, window_length=400, stride=100))
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-5)
    assert result["probabilities"].shape == ((samples - 21) // 10 + 1, 3)
    np.testing.assert_allclose(result["times"], 0.01 + 0.005 * np.arange(len(expected)))
    assert result["names"] == GESTURES and result["sampling_rate"] == 200

    events = detect_events(expected, FrameGrid().times(len(expected)), GESTURES)
    assert [event["time"] for event in result["events"]] == pytest.approx(events.times.tolist())
    assert [event["gesture"] for event in result["events"]] == [GESTURES[i] for i in events.labels]
    assert [event["score"] for event in result["events"]] == pytest.approx(events.scores.tolist(), abs=1e-5)
    assert list(detect(x, sampling_rate=2000)) == ["events"]
    assert samples < 1000 or len(result["events"]) > 3


def test_threshold_and_debounce(detect):
    x = bursts()
    frames = detect(x, sampling_rate=2000, return_probabilities=True)
    for settings in ({"threshold": 0.8}, {"debounce": 0.0}, {"debounce": 10.0}):
        found = detect(x, sampling_rate=2000, **settings)["events"]
        events = detect_events(frames["probabilities"], frames["times"], GESTURES, **settings)
        assert [event["time"] for event in found] == events.times.tolist()
    assert len(detect(x, sampling_rate=2000, threshold=0.999)["events"]) < len(frames["events"])


def test_batch_size_changes_nothing(detect):
    recordings = [bursts(250 + 170 * i, seed=i) for i in range(4)]
    singles = [detect(x, sampling_rate=2000, return_probabilities=True) for x in recordings]
    for batch_size in (1, 3, 64):
        together = detect(recordings, sampling_rate=2000, return_probabilities=True, batch_size=batch_size)
        for one, other in zip(singles, together, strict=True):
            np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)


def test_the_last_window_is_normalized_without_its_padding(tmp_path):
    folder = save_checkpoint(tmp_path / "model")
    TinyMyoFeatureExtractor(**SETTINGS | {"normalization": "zscore", "normalization_scope": "window"}).save_pretrained(
        folder
    )
    detect = pipeline("emg-events", model=str(folder), device="cpu")
    seen = []
    forward = detect.model.forward
    detect.model.forward = lambda x, attention_mask: seen.extend(zip(x, attention_mask, strict=True)) or forward(x)
    detect(bursts(430), sampling_rate=2000)
    lengths = [int(mask.sum()) for _, mask in seen]
    assert lengths == [400, 330]
    for window, mask in seen:
        real = window[:, mask]
        assert real.mean(dim=1).abs().max() < 1e-5 and (real.std(dim=1) - 1).abs().max() < 1e-4
        assert not window[:, ~mask].any()


def test_what_is_refused(detect):
    x = bursts()
    for recording, options, message in (
        (x, {}, "sampling rate is not known; pass sampling_rate.*2000 Hz"),
        (x[:3], {"sampling_rate": 2000}, "3 channels, but the model takes 4.*select"),
        (x[:, :20], {"sampling_rate": 2000}, "recording: .*20 samples has no frame; it takes 21"),
        (x, {"sampling_rate": 2000, "stride": 105}, "recording: stride=105: must be a multiple of 10"),
        (x, {"sampling_rate": 2000, "stride": 400}, "recording: stride=400"),
        (x, {"sampling_rate": 2000, "threshold": 35}, "threshold=35: must be a probability"),
        (x, {"sampling_rate": 2000, "debounce": -1}, "debounce=-1"),
    ):
        with pytest.raises(SignalError, match=message):
            detect(recording, **options)
