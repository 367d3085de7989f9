"""Preprocessing, filters and recognizers of a running signal, against what is computed from whole recordings."""

import numpy as np
import pytest
import torch

from tinymyo_hf import (
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForFrameClassification,
    TinyMyoForSequenceClassification,
)
from tinymyo_hf.event_detection import FrameGrid, detect_events, sigmoid
from tinymyo_hf.streaming import EventRecognizer, GestureRecognizer, HysteresisFilter, MajorityFilter, StreamError
from tinymyo_hf.streaming.preprocessing import StreamingPreprocessor
from tinymyo_hf.streaming.recognizers import EventDetector, SlidingWindows

CHUNKINGS = [[7], [1, 50, 13], [200], [10_000]]


def noise(samples=900, channels=4, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(channels, samples)) + rng.normal(size=(channels, 1)) * 5).astype(np.float32)


def pieces(x, sizes):
    first, i = 0, 0
    while first < x.shape[1]:
        yield x[:, first : first + sizes[i % len(sizes)]]
        first += sizes[i % len(sizes)]
        i += 1


def push_all(recognizer, x, sizes=(50,)):
    return [event for piece in pieces(x, sizes) for event in recognizer.push(piece)] + recognizer.finish()


SETTINGS = {
    "zscore": {},
    "minmax": {"normalization": "minmax", "gain": 3.0, "soft_limit": 4.0},
    "low_pass": {"band_pass": (None, 60.0), "normalization": "none"},  # keeps constants
    "no_filters": {"band_pass": None, "notch_frequencies": (), "normalization": "zscore"},
    "by_window": {"normalization_scope": "window"},
}


@pytest.mark.parametrize("sizes", CHUNKINGS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_preprocessing_is_the_extractors_causal_one(settings, sizes):
    extractor = TinyMyoFeatureExtractor(filter_mode="causal", **settings)
    x = noise()
    stream = StreamingPreprocessor(extractor)
    streamed = np.concatenate([stream.push(piece) for piece in pieces(x, sizes)], axis=1)
    np.testing.assert_allclose(streamed, extractor.preprocess(x, 200), atol=1e-5)
    stream.reset(forget=True)
    np.testing.assert_allclose(stream.push(x), extractor.preprocess(x, 200), atol=1e-5)


def test_statistics_outlive_a_gap_and_filters_do_not():
    extractor = TinyMyoFeatureExtractor(filter_mode="causal", band_pass=None, notch_frequencies=())
    stream, x = StreamingPreprocessor(extractor), noise()
    stream.push(x[:, :500])
    stream.reset(forget=False)
    expected = extractor.preprocess(x, 200)  # without filters, nothing else is lost
    np.testing.assert_allclose(stream.push(x[:, 500:]), expected[:, 500:], atol=1e-5)
    filtered = StreamingPreprocessor(TinyMyoFeatureExtractor(filter_mode="causal", normalization="none"))
    filtered.push(x[:, :500])
    filtered.reset(forget=False)
    expected = TinyMyoFeatureExtractor(filter_mode="causal", normalization="none").preprocess(x[:, 500:], 200)
    np.testing.assert_allclose(filtered.push(x[:, 500:]), expected, atol=1e-5)


def test_what_differs_from_training_is_said():
    assert StreamingPreprocessor(TinyMyoFeatureExtractor(normalization="none", filter_mode="causal")).notes == []
    notes = StreamingPreprocessor(TinyMyoFeatureExtractor()).notes
    assert "forwards only" in notes[0] and "so far; in training they covered" in notes[1]
    assert len(StreamingPreprocessor(TinyMyoFeatureExtractor(normalization_scope="window")).notes) == 1
    with pytest.raises(StreamError, match=r"filter_rate=1000 Hz differs.*own rate"):
        StreamingPreprocessor(TinyMyoFeatureExtractor(filter_rate=1000))


@pytest.mark.parametrize("sizes", CHUNKINGS)
def test_windows_are_the_last_samples(sizes):
    x = noise(333)
    for hop in (10, 70, 150):  # also longer than the window
        windows = SlidingWindows(100, hop)
        found = [window for piece in pieces(x, sizes) for window in windows.push(piece)]
        assert [end for end, _ in found] == list(range(100, 334, hop))
        for end, window in found:
            np.testing.assert_array_equal(window, x[:, end - 100 : end])
    growing = SlidingWindows(100, 60, shorter=True)
    found = [window for piece in pieces(x, sizes) for window in growing.push(piece)]
    assert [end for end, _ in found] == [60, 120, 180, 240, 300]
    assert [window.shape[1] for _, window in found] == [60, 100, 100, 100, 100]


def one_hot(*labels):
    return [np.eye(3)[label] for label in labels]


def test_majority():
    smoother = MajorityFilter(votes=2, windows=3)
    assert [smoother.push(p) for p in one_hot(0, 1, 0, 1, 1, 2, 0, 2, 2)] == [None, None, 0, 1, 1, 1, 1, 2, 2]
    smoother.reset(forget=False)
    assert [smoother.push(p) for p in one_hot(0, 1, 1)] == [2, 2, 1]
    smoother.reset(forget=True)
    assert smoother.push(one_hot(1)[0]) is None
    for votes, windows in ((0, 1), (1, 2), (4, 3)):
        with pytest.raises(StreamError, match=f"votes={votes} of {windows}"):
            MajorityFilter(votes, windows)


def test_hysteresis():
    smoother = HysteresisFilter(enter=0.8, leave=0.4)
    probabilities = [(0.6, 0.4), (0.8, 0.2), (0.5, 0.5), (0.4, 0.6), (0.39, 0.61), (0.1, 0.9), (0.9, 0.1)]
    assert [smoother.push(np.array(p)) for p in probabilities] == [None, 0, 0, 0, None, 1, 0]
    smoother.reset(forget=False)
    assert smoother.push(np.array((0.5, 0.5))) == 0
    smoother.reset(forget=True)
    assert smoother.push(np.array((0.5, 0.5))) is None
    for enter, leave in ((0.4, 0.5), (1.1, 0.5), (0.5, 0)):
        with pytest.raises(StreamError, match=f"enter={enter:g}, leave={leave:g}"):
            HysteresisFilter(enter, leave)


@pytest.fixture
def classifier(tiny_config):
    torch.manual_seed(0)
    model = TinyMyoForSequenceClassification(tiny_config).eval()
    torch.nn.init.normal_(model.classifier.weight, std=3)
    extractor = TinyMyoFeatureExtractor(
        feature_size=4, patch_size=10, window_length=100, stride=50, filter_mode="causal", normalization_scope="window"
    )
    return model, extractor


@pytest.mark.parametrize("sizes", CHUNKINGS)
def test_gestures_are_those_of_the_causal_windows(classifier, sizes):
    model, extractor = classifier
    x = noise(1730)
    windows, starts = extractor.windows(extractor.preprocess(x, 200))
    with torch.no_grad():
        probabilities = model(torch.from_numpy(windows.copy())).logits.softmax(-1).numpy()
    smoother, held, expected = MajorityFilter(2, 3), None, []
    for start, row in zip(starts, probabilities, strict=True):
        now = smoother.push(row)
        if now != held:
            held = now
            expected.append(((start + 100) / 200, model.config.id2label[now], row[now]))
    assert len({label for _, label, _ in expected}) > 1
    found = push_all(GestureRecognizer(model, extractor, smoother=MajorityFilter(2, 3)), x, sizes)
    assert [(event["time"], event["label"]) for event in found] == [(t, label) for t, label, _ in expected]
    np.testing.assert_allclose([event["score"] for event in found], [score for *_, score in expected], atol=1e-5)
    assert {event["type"] for event in found} == {"gesture"}


def test_the_end_of_a_gesture_is_an_event(classifier):
    model, extractor = classifier
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    recognizer = GestureRecognizer(model, extractor, smoother=HysteresisFilter())
    (first,) = push_all(recognizer, noise(100))
    assert first["time"] == 0.5 and first["label"] == "fist" and first["score"] == pytest.approx(0.987, abs=1e-3)
    with torch.no_grad():
        model.classifier.bias.zero_()
    assert push_all(recognizer, noise(50)) == [{"type": "gesture", "time": 0.75, "label": None, "score": None}]


def test_after_a_break_windows_fill_again(classifier):
    model, extractor = classifier
    recognizer = GestureRecognizer(model, extractor, hop=10, smoother=MajorityFilter(1, 1))
    first = push_all(recognizer, noise(150))
    assert first[0]["time"] == 0.5
    recognizer.reset(position=1000, forget=True)
    again = push_all(recognizer, noise(150))
    assert [event["time"] - 5.0 for event in again] == pytest.approx([event["time"] for event in first])
    assert [event["label"] for event in again] == [event["label"] for event in first]
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 1e3]))
    push_all(recognizer, noise(150))
    recognizer.reset(position=2000, forget=False)
    assert push_all(recognizer, noise(150)) == []  # it still holds
    recognizer.reset(position=2000, forget=True)
    assert [event["time"] for event in push_all(recognizer, noise(150))] == [10.5]
    with pytest.raises(StreamError, match="hop=0"):
        GestureRecognizer(model, extractor, hop=0)


NAMES = ["index_press", "index_release", "thumb_click"]


@pytest.mark.parametrize("sizes", [[1], [3, 8], [500]])
def test_events_frame_by_frame(sizes):
    rng = np.random.default_rng(0)
    probabilities = sigmoid(np.cumsum(rng.normal(size=(400, 3)), axis=0) % 7 - 3)
    times = 0.005 * np.arange(400)
    expected = detect_events(probabilities, times, NAMES, 0.4, 0.05)
    detector = EventDetector(NAMES, 0.4, 0.05)
    found = []
    for piece in pieces(np.arange(400)[None], sizes):
        found += detector.push(probabilities[piece[0]], times[piece[0]])
    assert [time for time, _, _ in found] == pytest.approx(expected.times.tolist()) and len(found) > 10
    assert [label for _, label, _ in found] == expected.labels.tolist()
    assert [score for *_, score in found] == [probabilities[round(time / 0.005), label] for time, label, _ in found]


@pytest.fixture
def event_model():
    torch.manual_seed(1)
    config = TinyMyoConfig(
        stem="convolution", hidden_size=24, num_hidden_layers=1, intermediate_size=48, num_channels=4, is_causal=True,
        id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    model = TinyMyoForFrameClassification(config).eval()
    torch.nn.init.normal_(model.frame_classifier.weight, std=2)
    extractor = TinyMyoFeatureExtractor(
        feature_size=4, sampling_rate=2000, band_pass=None, notch_frequencies=(), normalization="none",
        window_length=400, stride=100,
    )  # fmt: skip
    return model, extractor


@pytest.mark.parametrize("sizes", [[37], [100, 1], [5000]])
def test_events_of_the_newest_frames(event_model, sizes):
    model, extractor = event_model
    x = noise(1730) * (1 + 40 * (np.arange(1730) // 150 % 3 == 1)).astype(np.float32)
    grid = FrameGrid.of(model.config, 2000)
    frames = []
    for end in range(100, 1731, 100):  # each frame from the first window that has it
        window = torch.from_numpy(x[None, :, max(0, end - 400) : end])
        with torch.no_grad():
            frames.append(model(window).logits[0, len(np.concatenate(frames)) - grid.count(end) if frames else 0 :])
    logits = np.concatenate(frames)
    assert len(logits) == grid.count(1700)
    expected = detect_events(sigmoid(logits), grid.times(len(logits)), NAMES)
    found = push_all(EventRecognizer(model, extractor, hop=100), x, sizes)
    assert [event["time"] for event in found] == pytest.approx(expected.times.tolist()) and len(found) > 3
    assert [event["gesture"] for event in found] == [NAMES[i] for i in expected.labels]
    assert {event["type"] for event in found} == {"event"}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_event_recognizer_refuses_and_says(event_model):
    model, extractor = event_model
    for hop, message in ((55, "hop=55: must be a multiple of 10"), (390, "hop=390, window_length=400")):
        with pytest.raises(StreamError, match=message):
            EventRecognizer(model, extractor, hop=hop)
    with pytest.raises(StreamError, match="threshold=2"):
        EventRecognizer(model, extractor, threshold=2)
    with pytest.raises(StreamError, match="debounce=-1"):
        EventRecognizer(model, extractor, debounce=-1)
    recognizer = EventRecognizer(model, extractor)
    assert recognizer.delay == pytest.approx((100 + 20) / 2000) and recognizer.notes == []
    model.config.is_causal = False
    assert "looks both ways" in EventRecognizer(model, extractor).notes[0]
    with torch.no_grad():
        model.frame_classifier.bias.fill_(float("nan"))
    with pytest.raises(StreamError, match="probabilities at 0.01 s are not finite"):
        recognizer.push(noise(100))
