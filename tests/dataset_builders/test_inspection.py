"""Inspection: every fault put into a signal is found where it is, and sound signals raise no alarm."""

import itertools

import numpy as np
import pytest
from fuzzing import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from uci_files import uci_lines, write_uci_file

from dataset_builders.base import DataError, Events, LayoutError, RecordingError, Signal, make_builder
from dataset_builders.hub import prepare
from dataset_builders.inspection import Survey, inspect_corpus, inspect_file, inspect_prepared, is_prepared
from dataset_builders.inspection_plot import plot_recording
from dataset_builders.signal_quality import ChannelQuality, run_lengths
from tinymyo_hf.signal import SignalError

RATE = 1000.0


def noise(channels: int = 4, samples: int = 20_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=100.0, size=(channels, samples))


def survey_of(samples: np.ndarray, rate: float = RATE) -> Survey:
    survey = Survey("test", recordings=1, read=1)
    survey.add(Signal(samples, rate), "a")
    return survey


def only_warning(samples: np.ndarray, rate: float = RATE) -> str:
    (warning,) = survey_of(samples, rate).warnings()
    return warning


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection") / "synthetic"
    return prepare("synthetic", None, folder, num_subjects=4, num_sessions=1, num_repetitions=1, hold=1.5)


@pytest.mark.parametrize("make", [lambda x: x, np.round, lambda x: np.round(x / 50), lambda x: x.astype(np.float32)])
def test_sound_signals_raise_no_alarm(make):
    for seed in range(5):
        survey = survey_of(make(noise(seed=seed)))
        assert survey.warnings() == [] and "Nothing conspicuous" in survey.report()


def test_amplitudes():
    samples = noise() * np.array([[1.0], [2.0], [3.0], [4.0]]) + np.array([[0.0], [10.0], [20.0], [30.0]])
    quality = ChannelQuality(4)
    for part in np.split(samples, [3000, 3001], axis=1):
        quality.add(part, RATE)
    np.testing.assert_allclose(quality.offset, samples.mean(axis=1))
    np.testing.assert_allclose(quality.rms, samples.std(axis=1))
    np.testing.assert_array_equal(quality.low, samples.min(axis=1))
    np.testing.assert_array_equal(quality.high, samples.max(axis=1))
    assert quality.takes == 3


def test_gaps():
    samples = noise()
    samples[2, 100:130] = np.nan
    samples[2, 500] = np.inf
    assert only_warning(samples) == "channel 2 has 2 gaps (NaN), the longest of 30 samples"


def test_dead_channels():
    samples = noise()
    samples[1] = 7.0
    assert "channel 1 is dead: it never changes" in survey_of(samples).warnings()
    survey = survey_of(samples)
    survey.add(Signal(noise(), RATE), "b")
    assert any(line.startswith("channel 1 is dead") and "1 of 2 takes" in line for line in survey.warnings())


@pytest.mark.parametrize("limit", [150.0, 200.0])
@pytest.mark.parametrize("round_to", [None, 1.0])
@pytest.mark.parametrize("hold", [1, 10])
def test_saturation(limit, round_to, hold):
    samples = noise() if round_to is None else np.round(noise())
    samples[3] = np.clip(samples[3], -limit, limit)
    expected = np.mean(np.abs(samples[3]) == limit)
    held = np.repeat(samples, hold, axis=1)
    quality = ChannelQuality(4)
    quality.add(held, RATE)
    np.testing.assert_allclose(quality.saturation, [0, 0, 0, expected])
    message = next(line for line in survey_of(held).warnings() if "saturated" in line)
    assert message.startswith(f"channel 3 is saturated {100 * expected:.2g} %"[:27]) and f"{limit:g}" in message


def test_one_long_plateau_is_saturation_and_one_spike_is_not():
    samples = noise()
    samples[0, 700:760] = 2000.0
    samples[1, 700] = 5000.0
    quality = ChannelQuality(4)
    quality.add(samples, RATE)
    assert quality.clipped.tolist() == [60, 0, 0, 0] and quality.clipped_runs.tolist() == [1, 0, 0, 0]


def test_held_values():
    held = np.repeat(noise(samples=3000), 10, axis=1)
    message = only_warning(held)
    assert "only 10 % of the samples differ" in message and "every 10.0 samples" in message
    # a channel that moves on its own is no held sample
    held[2] = noise(samples=30_000)[2]
    assert survey_of(held).warnings() == []


@pytest.mark.parametrize(
    ("mains", "rate"), [(50.0, 1000.0), (60.0, 1000.0), (100.0, 2000.0), (50.0, 200.0), (60.0, 441.7)]
)
def test_line_noise(mains, rate):
    samples = noise()
    time = np.arange(samples.shape[1]) / rate
    samples[1] += 60 * np.sin(2 * np.pi * mains * time)
    assert only_warning(samples, rate).startswith(f"line noise at {mains:g} Hz in channel 1, up to ")
    levels = survey_of(samples, rate).quality.hum()
    # power of the sine in a bin of a Hann window (1.5 Hz wide) over the density of white noise
    expected = 10 * np.log10((60**2 / 2 / 1.5) / (2 * 100**2 / rate))
    assert abs(levels[mains][1] - expected) < 1.5 and levels[mains][[0, 2, 3]].max() < 8
    assert all(frequency < rate / 2 for frequency in levels)


def test_weak_channels_and_offsets():
    samples = noise(8)
    samples[4] /= 50
    samples[6] += 5000
    messages = survey_of(samples).warnings()
    assert [m.split(":")[0] for m in messages] == ["channel 4 is weak", "channel 6 is off zero by 50 times its RMS"]


def test_many_channels_take_one_line():
    samples = noise(16)
    samples[:8] = np.clip(samples[:8], -150, 150)
    message = only_warning(samples)
    assert message.startswith("channels 0, 1, 2, 3, 4, 5, 6, 7 are saturated; worst, channel ")


def test_run_lengths():
    mask = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool)
    assert run_lengths(mask).tolist() == [len(list(g)) for value, g in itertools.groupby(mask) if value]
    assert run_lengths(np.zeros(3, bool)).tolist() == []


def test_short_and_empty_takes():
    for length in (0, 1, 2, 10, 100):
        survey = survey_of(noise(samples=length))
        assert "4" in survey.report() and survey.durations == [(length, RATE)]


def test_a_corpus(uci_dir):
    survey = inspect_corpus(make_builder("uci_emg", uci_dir))
    assert (survey.recordings, survey.read) == (6, 6)
    assert survey.subjects == {"01": 2, "25": 2, "31": 2} and survey.sessions == {"1": 3, "2": 3}
    assert survey.splits == {"train": 2, "validation": 2, "test": 2}
    # per file: 90 and 30 rows without class, 260 + 240 of each of six classes, in two segments each
    assert survey.classes == {(-1, 200.0): 6 * 120, **{(label, 200.0): 6 * 500 for label in range(6)}}
    assert survey.segments == {-1: 0, **{label: 12 for label in range(6)}}
    report = survey.report()
    for text in ("recordings  6\n", "200 Hz", "hand clenched in a fist", "3: 01, 25, 31", "15.6 s to 15.6 s"):
        assert text in report


def test_some_recordings_of_a_corpus(uci_dir):
    survey = inspect_corpus(make_builder("uci_emg", uci_dir), limit=3)
    assert (survey.recordings, survey.read) == (6, 3) and "6 (3 of them read)" in survey.report()
    assert survey.subjects.total() == 6, "all are listed"


def test_unreadable_recordings_are_listed(uci_dir):
    broken = write_uci_file(uci_dir / "01/3_raw_data_x.txt", [*uci_lines([(1, 300)]), "1\t2\t3"])
    survey = inspect_corpus(make_builder("uci_emg", uci_dir))
    assert (survey.recordings, survey.read) == (7, 6)
    assert f"cannot be read: {broken}" in survey.warnings()[0]
    for path in uci_dir.rglob("*_raw_data*.txt"):
        path.write_text("nothing")
    with pytest.raises(DataError):
        inspect_corpus(make_builder("uci_emg", uci_dir))


def test_events_texts_and_targets():
    survey = Survey("test", ("tap",))
    for name in "ab":
        events = Events(("tap", "swipe", "tap"), np.arange(3.0), np.arange(3.0) + 1)
        survey.add(Signal(noise(), RATE, events=events, text="hello", targets=np.zeros((10, 5)), notes={"x": 2}), name)
    assert survey.events == {"tap": 4, "swipe": 2}
    assert (survey.texts, survey.characters, survey.targets) == (2, 10, 5)
    report = survey.report()
    assert "5 outputs" in report and "2, 10 characters" in report and "while reading: x: 4" in report


def test_takes_must_agree_on_channels():
    survey = survey_of(noise(4))
    with pytest.raises(RecordingError, match="b: 5 channels where the recordings before have 4"):
        survey.add(Signal(noise(5), RATE), "b")
    survey.add(Signal(noise(4), 500.0), "c")
    assert "the sampling rates differ: 1000 Hz (1), 500 Hz (1)" in survey.warnings()


def test_a_file(tmp_path):
    samples, labels = np.round(noise(3, 3000)), np.repeat(["rest", "fist", "rest"], 1000)
    path = tmp_path / "a.csv"
    rows = [f"{a},{b},{c},{label}" for (a, b, c), label in zip(samples.T, labels, strict=True)]
    path.write_text("\n".join(["x,y,z,class", *rows]))
    survey = inspect_file(path, "class", sampling_rate=RATE)
    assert survey.class_names == ("fist", "rest") and survey.classes == {(0, RATE): 1000, (1, RATE): 2000}
    assert survey.segments == {0: 1, 1: 2} and survey.durations == [(3000, RATE)]
    path.write_text(
        "\n".join(["x,y,class", *(f"{a},{b},{'rest' if i < 9 else ''}" for i, (a, b, _) in enumerate(samples.T))])
    )
    assert inspect_file(path, "class").classes == {(0, None): 9, (-1, None): 2991}
    unknown = inspect_file(path, channels=["x", "y"])
    assert "sampling rate is not known" in unknown.warnings()[0] and "3000 samples" in unknown.report()
    with pytest.raises(SignalError, match="no such file"):
        inspect_file(tmp_path / "b.csv")


def test_a_prepared_folder(uci_dir, tmp_path):
    folder = prepare("uci_emg", uci_dir, tmp_path / "out")
    assert is_prepared(folder) and not is_prepared(uci_dir)
    survey = inspect_prepared(folder)
    # per file, windows of 200 with stride 100 in segments of 260 and 240 rows: one each
    assert survey.recordings == survey.read == 6 * 12 and survey.splits["train"] == 2 * 12
    assert survey.classes[0, 200.0] == 12 * 200 and survey.class_names[1] == "hand clenched in a fist"
    some = inspect_prepared(folder, limit=5)
    assert (some.recordings, some.read) == (72, 5) and "rows        72 (5 of them read)" in some.report()
    assert some.first[0] == "01/1_raw_data_11-12_22.03.16.txt, from sample 90"
    shard = next((folder / "data").glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(LayoutError, match="cannot be read as a prepared dataset"):
        inspect_prepared(folder)
    (folder / "data").rename(folder / "gone")
    with pytest.raises(LayoutError, match="no parquet files"):
        inspect_prepared(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_prepared_folders_raise_our_errors_only(prepared, data):
    file = data.draw(st.sampled_from([prepared / "preprocessor_config.json", next((prepared / "data").glob("test-*"))]))
    valid = file.read_bytes()
    try:
        file.write_bytes(data.draw(damaged(valid)))
        inspect_prepared(prepared, limit=20).report()
    except DataError as error:
        assert str(prepared) in str(error)
    finally:
        file.write_bytes(valid)


@pytest.mark.parametrize("kind", ["float32", "int16"])
def test_a_prepared_folder_of_recordings(tmp_path, kind):
    options = {"preset": "events", "num_subjects": 3, "sample_type": kind, "duration": 6.0, "chunk_length": 5000}
    survey = inspect_prepared(prepare("synthetic", None, tmp_path / "out", **options))
    raw = inspect_corpus(make_builder("synthetic", **options))
    # nothing is filtered in this preset: every sample is stored once, as the converter gave it
    assert survey.quality.samples.tolist() == raw.quality.samples.tolist() and survey.recordings > raw.recordings
    np.testing.assert_allclose(survey.quality.rms, raw.quality.rms, rtol=1e-4)
    np.testing.assert_allclose(survey.quality.low, raw.quality.low, rtol=1e-6)
    assert survey.events == raw.events and survey.events["thumb_up"]
    events = survey.first[1].events
    assert 0 <= events.starts.min() <= events.starts.max() < 5000


@pytest.mark.parametrize("case", ["labels", "events", "many classes", "no rate", "gaps", "dead", "short", "one"])
def test_pictures(tmp_path, case):
    samples = noise(1 if case == "one" else 3, 150 if case == "short" else 6000)
    labels = np.repeat(np.arange(30), 200) if case == "many classes" else np.repeat([-1, 0, 1], 2000)
    if case in ("gaps", "dead"):
        samples[1, 100 if case == "gaps" else 0 : 2000 if case == "gaps" else None] = np.nan
        samples[2] = 0.0
    signal = Signal(
        samples,
        0.0 if case == "no rate" else RATE,
        labels[: samples.shape[1]],
        events=Events(("tap",), np.array([50.0]), np.array([60.0])) if case == "events" else None,
    )
    path = tmp_path / "new/picture.png"
    plot_recording(signal, path, "a title", ("rest", "fist"))
    image = imread(path)
    assert image.shape[1] > 1000 and image[..., :3].std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_labels_are_coloured(tmp_path):
    """The tint of a class covers its share of the picture's first panel."""
    plain, tinted = tmp_path / "plain.png", tmp_path / "tinted.png"
    samples = np.zeros((1, 1000))
    samples[0, ::100] = 1
    plot_recording(Signal(samples, RATE), plain, "title")
    plot_recording(Signal(samples, RATE, np.repeat([0, -1], 500)), tinted, "title", ("fist",))
    tint = np.array([0.68, 0.82, 0.91])  # blue at 32 % on white
    counts = [(np.abs(imread(p)[..., :3] - tint).max(axis=-1) < 0.03).sum() for p in (plain, tinted)]
    assert counts[0] < 100 and counts[1] > 5000
