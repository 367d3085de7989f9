"""Scores of synthesised speech and its baselines, against values worked out by hand."""

import numpy as np
import pytest

from trainers.synthesis_baselines import (
    RidgeSums,
    VoicedUtterance,
    fit_mean,
    fit_ridge,
    frame_features,
    with_context,
)
from trainers.synthesis_metrics import (
    NUM_CEPSTRA,
    Prediction,
    aligned_spectrum,
    mel_cepstra,
    mel_cepstral_distortion,
    phone_confusion,
    score_utterance,
    totals,
)

BANDS = np.arange(80) + 0.5


def wave(k):
    return np.cos(np.pi * k * BANDS / 80)


def make(spectrum, targets, silent=True, phones=None, target_phones=None):
    frames, target_frames = len(spectrum), len(targets)
    spectrum, targets = (
        np.repeat(np.asarray(values, np.float32)[:, None], 80, axis=1) for values in (spectrum, targets)
    )
    phones = np.zeros(frames, int) if phones is None else np.asarray(phones)
    target_phones = np.zeros(target_frames, int) if target_phones is None else np.asarray(target_phones)
    return Prediction("r", spectrum, phones, targets, target_phones, silent)


def test_cepstra_are_the_waves_of_a_spectrum():
    spectrum = 3.0 + 0.5 * wave(1) - 2 * wave(24) + 7 * wave(30)
    expected = np.zeros(NUM_CEPSTRA)
    expected[[0, 23]] = 0.5, -2
    assert np.allclose(mel_cepstra(spectrum[None]), expected)


def test_distortion_is_the_root_mean_square_of_the_envelopes_in_decibel():
    target = -4 + 0.3 * wave(2)
    predicted = target + 0.2 * wave(5) - 0.4 * wave(9) + 3.0  # the level has no part in it
    difference = 20 / np.log(10) * (predicted - 3.0 - target)
    found = mel_cepstral_distortion(predicted[None], target[None])
    assert found == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-9)
    assert mel_cepstral_distortion(predicted[None] + 40 * wave(25), predicted[None]) == pytest.approx(0, abs=1e-9)


def test_silent_speech_is_scored_at_the_pace_of_the_targets():
    # the second target frame gets both of the 5s, which count once, with their mean
    prediction = make([0, 5, 6, 9], [0, 5, 10], phones=[0, 1, 2, 0], target_phones=[0, 1, 1])
    scores = score_utterance(prediction)
    root = np.sqrt(80)
    assert scores.frames == 3
    assert scores.distance == pytest.approx(root * (0 + (0 + 1) / 2 + 1))
    assert scores.right_phones == 2
    assert np.allclose(aligned_spectrum(prediction), np.repeat([[0.0], [5.5], [9.0]], 80, axis=1))
    assert phone_confusion([prediction], 3).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_speech_read_aloud_is_scored_frame_by_frame():
    spectrum, targets = [0, 0, 10, 10], [0, 10, 10, 10]
    assert score_utterance(make(spectrum, targets, silent=False)).distance == pytest.approx(10 * np.sqrt(80))
    assert score_utterance(make(spectrum, targets, silent=True)).distance == 0


def test_a_constant_prediction_has_the_same_distance_at_any_pace():
    targets = [1, 5, 2, 8, 3]
    found = {frames: score_utterance(make([4] * frames, targets)).distance for frames in (1, 3, 5, 20)}
    assert set(np.round(list(found.values()), 4)) == {np.round(np.sqrt(80) * (3 + 1 + 2 + 4 + 1), 4)}


def test_long_utterances_count_more():
    short, long = make([0, 0], [1, 1]), make([0] * 6, [3] * 6)
    found = totals([score_utterance(short), score_utterance(long)])
    assert found["mel_distance"] == pytest.approx(np.sqrt(80) * (2 * 1 + 6 * 3) / 8)
    assert found["phone_accuracy"] == 1.0


def test_ridge_regression_from_sums_is_that_of_the_rows():
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(2, 3, (60, 4)), rng.normal(size=(60, 3))
    sums = RidgeSums(4, 3)
    sums.add(rows[:25], targets[:25])
    other = RidgeSums(4, 3)
    other.add(rows[25:], targets[25:])
    weights = (sums + other).fit(alpha=10.0)
    standard = (rows - rows.mean(0)) / rows.std(0)
    expected = np.linalg.solve(standard.T @ standard + 10 * np.eye(4), standard.T @ (targets - targets.mean(0)))
    assert np.allclose(weights[1:], expected / rows.std(0)[:, None])
    residual = weights[0] + rows @ weights[1:] - targets
    assert np.allclose((sums + other).errors(weights), np.square(residual).mean(0))
    assert np.allclose(standard @ expected + targets.mean(0) - targets, residual)


def test_features_see_slow_and_fast_movements_apart():
    time = np.arange(400)
    slow, fast = np.sin(2 * np.pi * time / 200), np.sin(2 * np.pi * time / 4)
    found = frame_features(np.stack([slow, fast]).astype(np.float32))
    assert found.shape == (50, 8)  # per kind: channel 1, channel 2
    mean, slow_power, fast_power, crossings = found[5:-5].T.reshape(4, 2, -1)
    assert np.abs(mean[1]).max() < 0.05 < np.abs(mean[0]).max()
    assert (slow_power[0] > slow_power[1]).all() and (fast_power[1] > fast_power[0] + 3).all()
    assert crossings[1] == pytest.approx(0.5, abs=0.02)


def test_context_is_the_frames_around():
    features = np.arange(4, dtype=float)[:, None]
    assert with_context(features, 1).tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]


def test_baselines_predict_a_frame_per_8_samples():
    rng = np.random.default_rng(0)
    phones = rng.integers(2, size=200).repeat(12)[:1200]
    emg = rng.normal(size=(1, 9600)) * (1 + 9 * phones.repeat(8))
    targets = np.stack([phones * 4.0, -phones]).T.astype(np.float32)
    utterances = [
        VoicedUtterance(emg[:, i * 8 : (i + 200) * 8], targets[i : i + 200], phones[i : i + 200])
        for i in range(0, 1200, 200)
    ]
    spectrum, found = fit_mean(utterances, 3)(emg[:, :80])
    assert spectrum.shape == (10, 2) and np.allclose(spectrum, targets.mean(axis=0))
    assert found.tolist() == [np.bincount(phones).argmax()] * 10
    predict, alpha = fit_ridge(utterances, 3)
    spectrum, found = predict(emg)
    assert (found == phones).mean() > 0.85
    assert np.square(spectrum - targets).mean() < 0.3 * np.square(targets - targets.mean(0)).mean()
    assert alpha > 0
