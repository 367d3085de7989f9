"""Baselines of regression: features by hand, interpolation as torch does it, and what is fitted on which windows."""

import numpy as np
import pytest
import torch
from tiny_regression import OUTPUTS, make_corpus

import trainers.regression_baselines as baselines
from dataset_builders.torch_view import WindowDataset
from trainers.regression_baselines import (
    fit_ridge,
    held_out_windows,
    num_segments,
    rms_features,
    run_baselines,
    segment_means,
    to_frames,
)


def test_features_and_means_by_hand():
    windows = np.array([[[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 2.0, 2.0]]], np.float32)
    assert rms_features(windows, 2) == pytest.approx(np.array([[np.sqrt(12.5), 0, 1, 2]]))
    targets = np.array([[[1.0, 10.0], [3.0, 10.0], [5.0, 20.0], [5.0, 40.0]]], np.float32)
    assert np.array_equal(segment_means(targets, 2), [[[2, 10], [5, 30]]])


@pytest.mark.parametrize(
    ("samples", "frames", "patch", "segments"), [(200, 200, 20, 10), (200, 25, 20, 5), (40, 1, 10, 1)]
)
def test_segments_are_whole_patches_and_whole_frames(samples, frames, patch, segments):
    assert num_segments(samples, frames, patch) == segments


@pytest.mark.parametrize(("segments", "frames"), [(10, 200), (5, 5), (1, 4), (4, 10)])
def test_frames_are_interpolated_as_the_network_does(segments, frames):
    values = np.random.default_rng(0).normal(size=(3, segments, 2)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(values).transpose(1, 2), size=frames, mode="linear")
    assert to_frames(values, frames) == pytest.approx(expected.transpose(1, 2).numpy(), abs=1e-6)


def test_whole_recordings_are_held_out():
    recordings = ["a"] * 4 + ["b"] * 3 + ["c"] * 3
    assert held_out_windows(recordings).tolist() == [False] * 7 + [True] * 3
    assert held_out_windows(["a"] * 10).tolist() == [False] * 8 + [True] * 2


def test_ridge_finds_a_linear_map_and_the_alpha_for_it():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 6))
    means = (features @ rng.normal(size=(6, 4)) + 7).reshape(200, 2, 2)
    model, alpha = fit_ridge(features, means, ["a"] * 100 + ["b"] * 100)
    assert alpha == min(baselines.ALPHAS)
    assert model.predict(features) == pytest.approx(means.reshape(200, 4), abs=0.05)
    _, alpha = fit_ridge(features, rng.normal(size=(200, 2, 2)), ["a"] * 100 + ["b"] * 100)
    assert alpha >= 100  # nothing to find: the more it is held back, the better


def test_baselines_on_a_corpus(monkeypatch):
    monkeypatch.setitem(baselines.FOREST, "n_estimators", 10)
    data, extractor = make_corpus()
    train, test = WindowDataset(data["train"]), WindowDataset(data["test"])
    subjects, recordings = list(data["test"]["subject"]), list(data["train"]["recording"])

    def run():
        return run_baselines(train, test, extractor.patch_size, OUTPUTS, recordings, subjects, n_jobs=1)

    results = run()
    assert set(results) == {"Mean of training", "Ridge on RMS", "Random forest on RMS"}
    truth, mean = test.arrays()[1], train.arrays()[1].mean(axis=(0, 1), dtype=np.float64)
    constant = results["Mean of training"]
    assert [row["mae"] for row in constant["per_output"]] == pytest.approx(np.abs(truth - mean).mean(axis=(0, 1)))
    assert [row["output"] for row in constant["per_output"]] == list(OUTPUTS)
    assert [row["subject"] for row in constant["per_subject"]] == ["e", "f"]
    for name in ("Ridge on RMS", "Random forest on RMS"):
        assert results[name]["mae"] < 0.6 * constant["mae"] and results[name]["r2"] > 0.5
    monkeypatch.setattr(baselines, "_CHUNK_VALUES", 4 * 40 * 7)  # seven windows at a time
    again = run()
    assert again["Ridge on RMS"]["mae"] == pytest.approx(results["Ridge on RMS"]["mae"])
    assert again["Random forest on RMS"]["per_output"] == results["Random forest on RMS"]["per_output"]
