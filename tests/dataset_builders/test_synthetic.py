"""The simulator: reproducible, physically plausible, and neither trivial nor hopeless to decode."""

import numpy as np
import pytest
from scipy import signal as scipy_signal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from dataset_builders.base import ConfigError, make_builder
from dataset_builders.simulation.signals import (
    CONTROL_RATE,
    MUSCLES,
    UNITS_PER_MUSCLE,
    _action_potential,
    _firings,
    _volume_conductor,
    draw_forearm,
    simulate_emg,
)
from dataset_builders.synthetic import CLASS_NAMES, GESTURES, simulate_gestures, simulate_recording
from tinymyo_hf.recordings import read_recording


def test_everything_follows_from_the_seed():
    emg, labels = simulate_gestures([1, 2], subject=3, seed=5)
    again, _ = simulate_gestures([1, 2], subject=3, seed=5)
    np.testing.assert_array_equal(emg, again)
    for other in ({"subject": 4, "seed": 5}, {"subject": 3, "seed": 6}, {"subject": 3, "seed": 5, "session": 2}):
        different = simulate_gestures([1, 2], **other)[0]
        assert different.shape != emg.shape or not np.array_equal(different, emg)
    assert emg.shape == (8, len(labels)) and emg.dtype == np.float32
    assert set(labels) == {-1, 1, 2} and (labels == 1).sum() == 600


def test_values_are_those_of_an_8_bit_converter():
    emg, _ = simulate_gestures([1], subject=1)
    steps = emg / 1e-5
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-2)
    assert steps.min() >= -128 and steps.max() <= 127


@pytest.mark.parametrize("sampling_rate", [100, 200, 500, 1000])
def test_sampling_rates(sampling_rate):
    emg, labels = simulate_gestures([1], subject=1, sampling_rate=sampling_rate, num_channels=5)
    assert emg.shape == (5, len(labels)) and (labels == 1).sum() == 3 * sampling_rate


def test_muscles_show_where_they_lie():
    """Wrist extensors drive the electrodes on the back of the hand's side, flexors those on the palm's."""
    forearm = draw_forearm(np.random.default_rng(0), turn=0)
    names = list(MUSCLES)
    for gesture, strongest in (("wrist extension", {3, 4, 5}), ("wrist flexion", {7, 0, 1})):
        drive = np.array([[GESTURES[gesture].get(name, 0.0)] for name in names]) * np.ones((1, 3 * CONTROL_RATE))
        emg = simulate_emg(forearm, drive, 1000, np.random.default_rng(1))
        assert int(emg.std(axis=1).argmax()) in strongest


def test_amplitude_grows_with_drive_and_spectrum_is_that_of_emg():
    forearm = draw_forearm(np.random.default_rng(0))
    levels = []
    for level in (0.0, 0.1, 0.3, 0.6):
        drive = np.full((len(MUSCLES), 4 * CONTROL_RATE), level)
        emg = simulate_emg(forearm, drive, 1000, np.random.default_rng(1))
        levels.append(float(np.median(emg.std(axis=1))))
    assert levels == sorted(levels) and levels[-1] > 4 * levels[0]
    frequency, power = scipy_signal.welch(emg, 1000, nperseg=512)
    median = frequency[np.searchsorted(np.cumsum(power.mean(axis=0)) / power.mean(axis=0).sum(), 0.5)]
    assert 40 < median < 150


def test_units_fire_at_plausible_rates_in_the_order_of_their_size():
    drive = np.zeros((len(MUSCLES), 20 * CONTROL_RATE))
    drive[2] = 0.3
    units, times = _firings(drive, np.random.default_rng(0))
    assert set(units // UNITS_PER_MUSCLE) == {2}
    rates = np.bincount(units % UNITS_PER_MUSCLE, minlength=UNITS_PER_MUSCLE) / 20
    recruited = np.flatnonzero(rates)
    np.testing.assert_array_equal(recruited, np.arange(len(recruited)))
    assert 5 < len(recruited) < UNITS_PER_MUSCLE and rates[recruited].min() > 7 and rates.max() < 36
    intervals = np.diff(np.sort(times[units % UNITS_PER_MUSCLE == 0]))
    assert 0.1 < intervals.std() / intervals.mean() < 0.4


def test_volume_conductor_falls_and_slows_with_distance():
    forearm = draw_forearm(np.random.default_rng(0))
    gain, waveform = _volume_conductor(forearm)
    assert gain.shape == waveform.shape == (8, len(MUSCLES) * UNITS_PER_MUSCLE) and (gain > 0).all()
    order = np.argsort(gain[:, 0])
    assert (np.diff(waveform[order, 0]) <= 0).all()
    assert abs(_action_potential(2e-3).sum()) < 1e-3


def test_recordings_for_demos(tmp_path):
    path = simulate_recording(tmp_path / "new" / "try.csv", gestures=["fist", "open hand"])
    read = read_recording(path, label_column="label")
    assert read.signal.shape[0] == 8 and read.columns[0] == "emg1"
    assert set(read.labels) == {"", "fist", "open hand"}
    array = np.load(simulate_recording(tmp_path / "try.npy", gestures=["fist", "open hand"]), allow_pickle=False)
    np.testing.assert_allclose(array, read.signal, atol=1e-9)
    with pytest.raises(ConfigError, match="'wave' is unknown"):
        simulate_recording(tmp_path / "try.csv", gestures=["wave"])
    with pytest.raises(ConfigError, match="csv or .npy"):
        simulate_recording(tmp_path / "try.wav")


def test_within_subject_protocol():
    builder = make_builder("synthetic", protocol="within_subject", num_subjects=2, num_sessions=1, num_repetitions=3)
    with pytest.raises(ConfigError, match="num_repetitions=2: .* at least 3"):
        _ = make_builder("synthetic", protocol="within_subject", num_repetitions=2).recordings
    kept = {recording.split: recording.repetitions for recording in builder.recordings}
    assert kept == {"train": (1,), "validation": (2,), "test": (3,)}
    table = builder.recording_table(builder.recordings[0])
    assert set(table["repetition"].to_pylist()) == {1} and set(table["label"].to_pylist()) == set(range(8))


def test_how_hard_it_is():
    """Linear on RMS: good for a known person, clearly worse for a new one."""
    builder = make_builder("synthetic", num_subjects=8, num_sessions=1, num_repetitions=4)
    windows, labels, subjects, repetitions = [], [], [], []
    for recording in builder.recordings:
        table = builder.recording_table(recording)
        windows.append(np.asarray(table["input_values"].combine_chunks().flatten().flatten()).reshape(-1, 8, 200))
        labels += table["label"].to_pylist()
        subjects += table["subject"].to_pylist()
        repetitions += table["repetition"].to_pylist()
    features = np.sqrt((np.concatenate(windows) ** 2).mean(axis=2))
    labels, subjects, repetitions = np.array(labels), np.array(subjects), np.array(repetitions)

    def accuracy(train: np.ndarray, test: np.ndarray) -> float:
        return LinearDiscriminantAnalysis().fit(features[train], labels[train]).score(features[test], labels[test])

    known = [(subjects == s) & (repetitions < 4) for s in set(subjects)]
    new = [(subjects == s) & (repetitions == 4) for s in set(subjects)]
    within = np.mean([accuracy(train, test) for train, test in zip(known, new, strict=True)])
    across = np.mean([accuracy(subjects != s, subjects == s) for s in set(subjects)])
    assert 0.85 < within < 1 and 0.5 < across < 0.85 and across < within - 0.1
    assert len(CLASS_NAMES) == 8
