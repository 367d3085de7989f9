"""The synthetic presets: reproducible, true to what they claim to simulate, learnable and not trivial."""

import functools
import itertools

import numpy as np
import pytest
from scipy import signal as scipy_signal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from dataset_builders.base import ConfigError, load_corpus, make_builder
from dataset_builders.protocols import SPLITS
from dataset_builders.simulation.kinematics import ANGLES
from dataset_builders.simulation.speech import PHONE_NAMES
from dataset_builders.simulation.text import LEXICON, PARTS
from dataset_builders.synthetic import PRESETS

SMALL = {"num_subjects": 3, "num_sessions": 1, "num_repetitions": 3, "duration": 6}
NEW = [name for name in PRESETS if name != "gestures"]


def builder(preset, **config):
    return make_builder("synthetic", preset=preset, **(SMALL | config))


@functools.cache
def signals(preset, **config):
    """{(subject, block): [signal, ...]}."""
    made = builder(preset, **config)
    return {(r.subject, r.repetitions[0]): list(made.read_takes(r)) for r in made.recordings}


def first_signal(preset, **config):
    """The first take of the first recording."""
    made = builder(preset, **config)
    return next(made.read_takes(made.recordings[0]))


def envelope(samples, rate, seconds=0.05):
    kernel = np.ones(round(seconds * rate)) / round(seconds * rate)
    return np.sqrt(scipy_signal.convolve(np.asarray(samples, float) ** 2, kernel[None], mode="same").clip(0))


@pytest.mark.parametrize("preset", NEW)
def test_a_recording_follows_from_seed_subject_session_and_block(preset):
    made = builder(preset, num_sessions=2)
    first = made.recording_table(made.recordings[0])
    alone = builder(preset, num_sessions=2, num_subjects=5, num_repetitions=4)
    name = made.recordings[0].name
    assert alone.recording_table(next(r for r in alone.recordings if r.name == name)).equals(first)
    values = first["input_values"]
    others = [next(r for r in made.recordings if r.subject == "02"), *made.recordings[1:4:2]]
    assert len({(r.subject, r.session, r.repetitions) for r in others}) == 3
    for other in others:
        assert not made.recording_table(other)["input_values"].equals(values)
    reseeded = builder(preset, seed=1)
    assert not reseeded.recording_table(reseeded.recordings[0])["input_values"].equals(values)


def test_processes_do_not_matter(tmp_path):
    config = SMALL | {"preset": "speech", "num_subjects": 4}
    one, _ = load_corpus("synthetic", cache_dir=tmp_path / "one", **config)
    two, _ = load_corpus("synthetic", cache_dir=tmp_path / "two", num_proc=2, **config)
    assert [len(one[split]) for split in one] == [len(two[split]) for split in two]
    for split in one:
        assert one[split].with_format("arrow")[:].equals(two[split].with_format("arrow")[:])


@pytest.mark.parametrize("preset", NEW)
def test_no_block_and_no_unseen_subject_is_in_two_splits(preset):
    made = builder(preset, num_subjects=5)
    subjects = {split: {r.subject for r in made.recordings if r.split == split} for split in SPLITS}
    assert all(subjects.values())
    assert not any(a & b for a, b in itertools.combinations(subjects.values(), 2))
    within = builder(preset, protocol="within_subject", num_sessions=2, num_repetitions=4).recordings
    assert len({r.name for r in within}) == len(within) == 3 * 2 * 4
    blocks = {split: {r.repetitions for r in within if r.split == split} for split in SPLITS}
    assert blocks == {"train": {(1,), (2,)}, "validation": {(3,)}, "test": {(4,)}}
    sessions = builder(preset, protocol="unseen_sessions", num_sessions=4).recordings
    by_subject = {(r.subject, r.split): set() for r in sessions}
    for recording in sessions:
        by_subject[recording.subject, recording.split].add(recording.session)
    expected = {"train": {"1", "2"}, "validation": {"3"}, "test": {"4"}}
    assert by_subject == {(s, split): expected[split] for s in {r.subject for r in sessions} for split in SPLITS}
    with pytest.raises(ConfigError, match="num_sessions=2: .* at least 3"):
        _ = builder(preset, protocol="unseen_sessions", num_sessions=2).recordings


@pytest.mark.parametrize("preset", ["events", "typing", "speech"])
def test_whole_numbers_of_steps_are_stored(preset):
    whole = builder(preset)
    table = whole.recording_table(whole.recordings[0])
    assert whole.info.features["input_values"].feature.feature.dtype == "int16"
    assert set(table["scale"].to_pylist()) == {1.0}
    real = builder(preset, sample_type="float32").recording_table(whole.recordings[0])
    for a, b in zip(table["input_values"].to_pylist(), real["input_values"].to_pylist(), strict=True):
        np.testing.assert_array_equal(np.array(a, np.float32), np.array(b, np.float32))
    values = np.concatenate([np.ravel(row) for row in table["input_values"].to_pylist()])
    assert 10 < np.abs(values).max() <= 128
    assert np.shape(table["input_values"][0].as_py())[0] == {"events": 16, "typing": 32, "speech": 8}[preset]


def test_wristbands_reach_beyond_450_hz():
    def share(preset, **config):
        signal = first_signal(preset, **config)
        frequency, power = scipy_signal.welch(signal.samples.astype(float), signal.sampling_rate, nperseg=1024)
        return power[:, (frequency > 300) & (frequency < 500)].sum() / power[:, frequency > 20].sum()

    assert share("events") > 0.1 > 0.02 > share("kinematics", sampling_rate=1000, normalization="none")


def test_windows_carry_the_angles_of_their_samples():
    made = builder("kinematics", stride=60)
    recording = made.recordings[1]
    (signal,) = made.read_takes(recording)
    table = made.recording_table(recording)
    assert made.info.features["targets"].length == 200 and made.info.features["targets"].feature.length == 5
    for row in table.to_pylist()[::5]:
        np.testing.assert_array_equal(np.array(row["targets"], np.float32), signal.targets[row["start"] :][:200])
        assert row["repetition"] == recording.repetitions[0] and np.shape(row["input_values"]) == (8, 200)


def test_angles_are_smooth_and_within_their_ranges_at_any_frame_rate():
    signal = first_signal("kinematics", duration=60)
    low, high = np.array(list(ANGLES.values())).T
    assert signal.targets.shape == (12000, 5)
    assert (signal.targets >= low).all() and (signal.targets <= high).all()
    assert (np.ptp(signal.targets, axis=0) > 0.5 * (high - low)).all()
    # the fastest minimum-jerk movement: 1.875 ranges in half a second
    assert (np.abs(np.diff(signal.targets, axis=0)).max(axis=0) * 200 <= 1.9 / 0.5 * (high - low)).all()
    coarse = first_signal("kinematics", duration=60, target_hop=20, window_length=200)
    np.testing.assert_allclose(coarse.targets, signal.targets[::20], atol=1e-3)


def test_muscles_precede_the_movement():
    lags = []
    for (signal,) in signals("kinematics", duration=40, num_repetitions=1).values():
        effort = envelope(scipy_signal.detrend(np.diff(signal.samples)), 200).mean(axis=0)
        bent = (signal.targets - signal.targets.min(axis=0)).sum(axis=1)[1:]
        tried = np.arange(-60, 61, 2)  # samples by which the angles come later
        later = [bent[100 + lag : len(bent) - 100 + lag] for lag in tried]
        correlation = [np.corrcoef(effort[100:-100], angles)[0, 1] for angles in later]
        lags.append(tried[np.argmax(correlation)] / 200)
        assert max(correlation) > 0.5
    assert all(0.04 < lag < 0.3 for lag in lags), lags


def test_angles_can_be_learnt_but_not_perfectly():
    made = builder("kinematics", duration=60)
    scores = []
    for subject in ("01", "02", "03"):
        features, targets = [], []
        for recording in (r for r in made.recordings if r.subject == subject):
            table = made.recording_table(recording)
            windows, angles = (
                np.asarray(table[column].combine_chunks().flatten().flatten()).reshape(len(table), *shape)
                for column, shape in (("input_values", (8, 4, 50)), ("targets", (200, 5)))
            )
            features.append(np.log(windows.std(axis=3).reshape(len(windows), -1)))
            targets.append(angles[:, 25::50].reshape(len(windows), -1))
        model = Ridge(10).fit(np.concatenate(features[:2]), np.concatenate(targets[:2]))
        scores.append(r2_score(targets[2], model.predict(features[2])))
    assert 0.3 < np.mean(scores) < 0.8


def test_presses_are_released_and_every_event_is_a_burst():
    counts = {}
    for (signal,) in signals("events", duration=30).values():
        names, starts = signal.events.names, signal.events.starts
        assert (np.diff(starts) > 0).all() and (signal.events.ends == starts).all()
        for name, following in zip(names, names[1:], strict=False):
            counts[name] = counts.get(name, 0) + 1
            assert not name.endswith("_press") or following == name.replace("press", "release")
            assert not following.endswith("_release") or name == following.replace("release", "press")
        loud = envelope(signal.samples, 2000, 0.1).max(axis=0)
        assert np.median(loud[starts.astype(int)]) > 4 * np.quantile(loud, 0.25)
    assert set(counts) == set(PRESETS["events"].class_names)


def test_events_in_the_rows_are_those_of_the_recording():
    made = builder("events", chunk_length=5000)
    (signal,) = made.read_takes(made.recordings[0])
    rows = made.recording_table(made.recordings[0]).to_pylist()
    assert [row["start"] for row in rows] == [0, 5000, 10000] and rows[0]["recording_length"] == 12000
    stored = [(made.class_names()[e["name"]], e["start"]) for row in rows for e in row["events"]]
    assert stored == list(zip(signal.events.names, signal.events.starts.tolist(), strict=True)) and len(stored) > 4
    assert all(row["start"] <= e["start"] < row["start"] + 5000 for row in rows for e in row["events"])


def around(signal, spans):
    """Features of each event: log standard deviation of each channel in spans of seconds around it."""
    rows = [
        [signal.samples[:, int(s + a * 2000) : int(s + b * 2000)].std(axis=1) + 0.3 for a, b in spans]
        for s in signal.events.starts
    ]
    return np.log(np.array(rows)).reshape(len(rows), -1), np.array(signal.events.names)


def accuracy(recordings, spans):
    """Mean accuracy (within, across) subjects of a linear classifier; blocks 1 and 2 train, 3 tests."""
    data = {key: around(signal, spans) for key, (signal,) in recordings.items()}
    subjects = sorted({subject for subject, _ in data})

    def score(train, test):
        (x, y), (xt, yt) = (
            [np.concatenate(part) for part in zip(*(data[k] for k in keys), strict=True)] for keys in (train, test)
        )
        classes, counts = np.unique(y, return_counts=True)
        common = np.isin(y, classes[counts >= 4])
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(x[common], y[common])
        return model.score(xt, yt)

    within = [score([(s, 1), (s, 2)], [(s, 3)]) for s in subjects]
    across = [score([k for k in data if k[0] != s], [k for k in data if k[0] == s]) for s in subjects]
    return np.mean(within), np.mean(across)


def test_events_can_be_told_apart_better_in_a_known_person():
    within, across = accuracy(signals("events", duration=30), [(-0.08, 0), (0, 0.08)])
    assert within > 0.85 and 0.4 < across < within - 0.08


def typed_text(events):
    """What is on the screen in the end."""
    text = []
    for name in events.names:
        if name == "⌫":
            text.pop()
        elif name != "⇧":
            text.append("\n" if name == "⏎" else name)
    return "".join(text)


def test_keystrokes_make_sentences():
    names = set()
    for (signal,) in signals("typing", duration=25).values():
        names |= set(signal.events.names)
        sentences = typed_text(signal.events).split("\n")
        assert len(sentences) > 1
        for sentence in sentences[:-1]:
            assert sentence[0].isupper() and sentence[-1] in ".?!"
            words = sentence[:-1].replace(",", "").lower().split(" ")
            assert all(word in LEXICON or word.isdigit() for word in words), sentence
        events = list(zip(signal.events.names, signal.events.starts, signal.events.ends, strict=True))
        for (name, start, end), (following, pressed, released) in itertools.pairwise(events):
            assert start < pressed and start < end < start + 2000
            if name == "⇧":
                assert (following.isupper() or following in "!?:") and start < pressed and end > released
    assert names >= {" ", "⌫", "⏎", "⇧", "e", "t"} and names <= set(PRESETS["typing"].class_names)


def test_each_hand_types_its_half_of_the_keyboard():
    right_hand = []
    for (signal,) in signals("typing", duration=25).values():
        rates = envelope(signal.samples, 2000).reshape(2, 16, -1)
        rates = (rates / np.median(rates, axis=2, keepdims=True)).mean(axis=1)
        at = signal.events.starts.astype(int)
        right_hand += zip(signal.events.names, rates[1, at] > rates[0, at], strict=True)
    left = [right for name, right in right_hand if name.lower() in "qwertasdfgzxcvb"]
    right = [right for name, right in right_hand if name.lower() in "yuiophjklnm"]
    assert len(left) > 40 and len(right) > 40 and np.mean(left) < 0.15 and np.mean(right) > 0.85


def test_keys_can_be_told_apart_better_in_a_known_person():
    within, across = accuracy(signals("typing", duration=25), [(-0.12, -0.05), (-0.05, 0), (0, 0.06)])
    assert 0.6 < within < 0.97 and 0.3 < across < within - 0.1


def test_every_word_is_in_the_dictionary_and_every_phone_is_used():
    words = {word for part in PARTS.values() for word in part} | {"an"}
    assert words == set(LEXICON)
    assert {phone for word in words for phone in LEXICON[word]} | {"sil"} == set(PHONE_NAMES)


def test_phones_spell_the_text_and_frames_keep_time():
    names = []
    for takes in signals("speech").values():
        assert sum(take.samples.shape[1] for take in takes) >= 6 * 800
        names.append([take.name for take in takes])
        for take in takes:
            spoken = [PHONE_NAMES[phone] for phone, _ in itertools.groupby(take.phones)]
            expected = [phone for word in take.text.split() for phone in LEXICON[word]]
            expected = [phone for phone, _ in itertools.groupby(expected)]
            without_pauses = [phone for phone, _ in itertools.groupby(p for p in spoken if p != "sil")]
            assert without_pauses == expected and spoken[0] == spoken[-1] == "sil"
            assert take.samples.shape == (8, 8 * len(take.phones)) and take.targets.shape == (len(take.phones), 80)
    assert names[0][:2] == ["001", "002"]


def test_rows_are_sentences():
    made = builder("speech", speech_mode="silent")
    takes = list(made.read_takes(made.recordings[0]))
    rows = made.recording_table(made.recordings[0]).to_pylist()
    assert [row["text"] for row in rows] == [take.text for take in takes]
    assert [row["recording"] for row in rows] == [f"subject01_session1_block1/{take.name}" for take in takes]
    for row, take in zip(rows, takes, strict=True):
        np.testing.assert_array_equal(row["phones"], take.phones)
        np.testing.assert_array_equal(np.array(row["targets"], np.float32), take.targets)
        assert row["mode"] == "silent" and row["start"] == 0


def test_spectra_have_the_resonances_of_their_phones():
    """Of "iy" the second resonance is high, of "uw" it is low; "s" is loud at the top; silence is silent."""
    takes = [take for takes in signals("speech", duration=30).values() for take in takes]
    phones, frames = (np.concatenate([getattr(take, name) for take in takes]) for name in ("phones", "targets"))
    mean = {name: frames[phones == PHONE_NAMES.index(name)].mean(axis=0) for name in ("iy", "uw", "s", "sil")}
    hertz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82)[1:-1] / 2595) - 1)
    low, high, top = (hertz > 700) & (hertz < 1100), (hertz > 1900) & (hertz < 2700), hertz > 5000
    assert mean["iy"][high].mean() > mean["iy"][low].mean() + 1
    assert mean["uw"][low].mean() > mean["uw"][high].mean() + 1
    assert mean["s"][top].mean() > mean["iy"][top].mean() + 1
    assert mean["sil"].max() < -9 and frames.min() >= np.float32(np.log(1e-5)) and frames.max() < 2


def test_in_silence_the_larynx_rests():
    def throat(mode):
        takes = itertools.chain(*signals("speech", speech_mode=mode, duration=15, num_repetitions=1).values())
        ratio = [np.std(take.samples[3]) / np.std(take.samples[2]) for take in takes]
        assert all(take.metadata == {"mode": mode} for take in takes)
        return np.mean(ratio)

    assert throat("silent") < 0.8 * throat("voiced")
    modes = {take.metadata["mode"] for takes in signals("speech").values() for take in takes}
    assert modes == {"voiced", "silent"}


def test_phones_can_be_told_apart_but_not_perfectly():
    made = signals("speech", duration=30)
    scores = []
    for subject in ("01", "02", "03"):
        blocks = []
        for block in (1, 2, 3):
            takes = made[subject, block]
            features = [np.log(envelope(take.samples, 800, 0.04)[:, 4::8] + 0.3).T for take in takes]
            features = [np.hstack([np.roll(f, lag, axis=0) for lag in (8, 5, 2)]) for f in features]
            x, y = np.concatenate(features), np.concatenate([take.phones for take in takes])
            blocks.append((x[y > 0], y[y > 0]))
        train = [np.concatenate(part) for part in zip(*blocks[:2], strict=True)]
        scores.append(LinearDiscriminantAnalysis().fit(*train).score(*blocks[2]))
    assert 0.25 < np.mean(scores) < 0.8


def test_presets_give_defaults_that_options_replace():
    config = builder("events", sampling_rate=1000, num_channels=8).config
    assert (config.sampling_rate, config.num_channels) == (1000, 8)
    assert (config.rows, config.sample_type) == ("recordings", "int16")
    signal = first_signal("events", sampling_rate=1000, num_channels=8)
    assert signal.samples.shape == (8, 6000)
    gestures = make_builder("synthetic").config
    assert (gestures.sampling_rate, gestures.num_subjects, gestures.band_pass) == (200.0, 20, (20.0, 90.0))
    assert builder("kinematics").config.create_config_id({}) != builder("gestures").config.create_config_id({})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"preset": "juggling"}, "preset='juggling' is unknown; use one of gestures, kinematics"),
        ({"preset": "speech", "speech_mode": "sung"}, "speech_mode='sung' is unknown"),
        ({"preset": "typing", "num_channels": 31}, "num_channels=31 must be a multiple of 2"),
        ({"preset": "speech", "num_channels": 16}, "speech has 8 electrodes"),
        ({"preset": "events", "sampling_rate": 1500}, "sampling_rate=1500 must be a divisor of 2000 Hz"),
        ({"preset": "events", "duration": 1}, "duration=1 must be 5 to 3600 s"),
        ({"preset": "events", "num_repetitions": 0}, "num_repetitions=0 must be a whole number"),
        ({"preset": "typing", "rows": "windows", "sample_type": "float32"}, 'use rows="recordings"'),
    ],
)
def test_impossible_options_are_named(config, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        _ = make_builder("synthetic", **config).recordings
