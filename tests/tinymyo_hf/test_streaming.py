"""Sources, sessions and their account of time: what is missing, what comes late, and that nothing decoded is lost."""

import json
import os
import sys
import threading
import time
import types

import h5py
import numpy as np
import pytest

from tinymyo_hf.recordings import RecordingError, read_recording
from tinymyo_hf.streaming import ArraySource, Chunk, LiveSession, Source, StdinSource, StreamError, open_file
from tinymyo_hf.streaming.chunks import Continuity
from tinymyo_hf.streaming.lsl import LslSource
from tinymyo_hf.streaming.output import EventLog
from tinymyo_hf.streaming.statistics import Durations, LatencyStatistics


def ramp(samples=100, channels=2, first=0):
    return (first + np.arange(samples) + np.zeros((channels, 1))).astype(np.float32)


def chunk(index, samples=10, clock=None):
    return Chunk(ramp(samples, first=index), index, time.perf_counter(), clock)


class Listed(Source):
    """Gives chunks, raises the exceptions and waits for the events among them."""

    num_channels, sampling_rate, name, paced = 2, 100.0, "device", True

    def __init__(self, *steps, waits=True):
        self.steps, self.waits = steps, waits

    def chunks(self):
        for step in self.steps:
            if isinstance(step, Chunk):
                yield step
            elif isinstance(step, threading.Event):
                step.wait()
            else:
                raise step


class Counter:
    """Says of every sample which it was, once the next one is there: the last is held back until the end."""

    num_channels, sampling_rate, delay, notes = 2, 100.0, 0.01, ()

    def __init__(self, before=lambda: None):
        self.held, self.position, self.before = [], 0, before

    def push(self, samples):
        assert samples.dtype == np.float32 and np.isfinite(samples).all()
        self.before()
        known, self.held = self.held, []
        for value in samples[0].tolist():
            known += self.held
            self.held = [{"type": "sample", "time": self.position / 100, "value": value}]
            self.position += 1
        return known

    def finish(self):
        known, self.held = self.held, []
        return known

    def reset(self, position, forget):
        assert not self.held
        self.position = position


def run(*steps, timeout=1.0, **options):
    session = LiveSession(Listed(*steps), Counter(), chunk_seconds=0.02, timeout=timeout, **options)
    return session, list(session.events())


def samples_of(events):
    return [(round(100 * event["time"]), event["value"]) for event in events if event["type"] == "sample"]


def breaks_of(events):
    return [(e["kind"], round(100 * e["time"]), round(100 * e["lost"])) for e in events if e["type"] == "break"]


def test_an_unbroken_signal():
    session, events = run(*(chunk(index) for index in range(0, 100, 10)))
    assert samples_of(events) == [(i, i) for i in range(100)] and len(events) == 100
    summary = session.summary()
    assert (session.ended, session.error, summary["breaks"], summary["lost"]) == ("end", None, {}, 0)
    assert summary["seconds"] == 1.0 and summary["statistics"]["chunks"] == 10
    assert summary["statistics"]["algorithmic_delay_ms"] == pytest.approx(30)
    assert session.finish() == []


def test_numbers_that_go_on_later_or_again():
    """Before every break, what was held back comes out; times never go back."""
    session, events = run(chunk(0), chunk(25), chunk(35), chunk(0), chunk(10), chunk(7), chunk(17))
    assert breaks_of(events) == [("gap", 25, 15), ("restart", 45, 0), ("backwards", 65, 0)]
    values = [*range(10), *range(25, 45), *range(20), *range(7, 27)]
    assert [value for _, value in samples_of(events)] == values
    positions = [position for position, _ in samples_of(events)]
    assert positions == [*range(10), *range(25, 45), *range(45, 65), *range(65, 85)]
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert session.summary()["breaks"] == {"gap": 1, "restart": 1, "backwards": 1}
    assert session.summary()["lost"] == pytest.approx(0.15)


def test_the_first_chunk_need_not_be_number_0():
    _, events = run(chunk(40), chunk(50))
    assert samples_of(events)[0] == (0, 40) and not breaks_of(events)


def place_all(clock_of, count=400, samples=10):
    continuity = Continuity(100.0)
    return [continuity.place(chunk(i * samples, samples, clock_of(i)), "gap") for i in range(count)]


def test_a_clock_that_jitters_or_drifts_has_no_gaps():
    rng = np.random.default_rng(0)
    jitter = rng.uniform(-0.045, 0.045, 400)
    for clock in (lambda i: 5e8 + 0.1 * i + jitter[i], lambda i: 0.102 * i, lambda i: 0.099 * i):
        placed = place_all(clock)
        assert all(found is None for _, found in placed)
        assert [position for position, _ in placed] == list(range(0, 4000, 10))


def test_a_clock_that_jumps():
    placed = place_all(lambda i: 0.1 * i + (0.3 if i >= 5 else 0) - (2.0 if i >= 8 else 0), count=12)
    found = [(i, b.kind, b.position, b.lost) for i, (_, b) in enumerate(placed) if b]
    assert found == [(5, "gap", 80, 30), (8, "backwards", 110, 0)]
    assert [position for position, _ in placed] == [*range(0, 50, 10), *range(80, 150, 10)]


def test_numbers_and_clock_that_agree_are_one_gap():
    continuity = Continuity(100.0)
    continuity.place(chunk(0, clock=7.0))
    position, found = continuity.place(chunk(60, clock=7.6), "overrun")
    assert (position, found.kind, found.lost) == (60, "overrun", 50)
    position, found = continuity.place(chunk(0, clock=0.0))
    assert (position, found.kind) == (70, "restart")
    assert continuity.place(chunk(10, clock=0.1)) == (80, None)


def test_samples_that_are_no_numbers():
    holed = ramp(30)
    holed[0, 4:6] = np.nan
    holed[1, 27:] = np.inf
    whole = Chunk(ramp(10, first=30) * np.nan, 30, 0.0)
    session, events = run(Chunk(holed, 0, 0.0), whole, chunk(40), chunk(60))
    assert breaks_of(events) == [("invalid", 6, 2), ("invalid", 40, 13), ("gap", 60, 10)]
    assert [value for _, value in samples_of(events)] == [*range(4), *range(6, 27), *range(40, 50), *range(60, 70)]
    assert session.summary()["lost"] == pytest.approx(0.25)


def test_a_signal_that_ends_with_no_numbers():
    ending = ramp(10, first=10)
    ending[0, 4:] = np.nan
    session, events = run(chunk(0), Chunk(ending, 10, 0.0), Chunk(ramp(10, first=20) * np.nan, 20, 0.0))
    assert [value for _, value in samples_of(events)] == [*range(14)]
    assert breaks_of(events) == [("invalid", 30, 16)] and session.summary()["lost"] == pytest.approx(0.16)
    assert (session.ended, session.error) == ("end", None)


def test_a_signal_without_a_sample_that_can_be_used():
    nothing = [Chunk(ramp(10, first=i) * np.nan, i, 0.0) for i in range(0, 100, 10)]
    session, events = run(*nothing)
    assert breaks_of(events) == [("invalid", 100, 100)] and session.ended == "error"
    assert "device: no sample in which all channels are finite numbers" in session.summary()["error"]
    session, events = run(*nothing, duration=0.3)
    assert breaks_of(events) == [("invalid", 30, 30)] and session.ended == "duration"
    session, events = run()
    assert not events and "device: ended without a single sample" in str(session.error)


def test_a_source_that_stops():
    never = threading.Event()
    session, events = run(chunk(0), never, timeout=0.2)
    assert samples_of(events) == [(i, i) for i in range(10)]
    assert session.ended == "timeout" and "device: no samples for 0.2 s" in session.summary()["error"]
    never.set()


@pytest.mark.parametrize("error", [StreamError("unplugged"), OSError("unplugged"), RuntimeError("unplugged")])
def test_a_source_that_fails(error):
    session, events = run(chunk(0), chunk(10), error)
    assert len(samples_of(events)) == 20 and session.ended == "error" and session.error is error


def test_stop_from_elsewhere():
    never = threading.Event()
    session = LiveSession(Listed(chunk(0), never), Counter(), timeout=30)
    threading.Timer(0.03, session.stop).start()
    begin = time.perf_counter()
    assert len(samples_of(session.events())) == 10
    assert time.perf_counter() - begin < 5 and session.ended == "stopped" and session.summary()["error"] is None
    never.set()


def test_leaving_early_loses_nothing_that_is_known():
    """As when the reader of a pipe goes away."""
    session = LiveSession(Listed(*(chunk(i) for i in range(0, 100, 10))), Counter())
    stream = session.events()
    seen = [next(stream) for _ in range(9)]
    stream.close()
    seen += session.finish()
    assert samples_of(seen) == [(i, i) for i in range(10)] and session.summary()["ended"] == "stopped"


def test_a_session_of_given_length():
    session, events = run(*(chunk(i) for i in range(0, 100, 10)), duration=0.25)
    assert len(samples_of(events)) == 30 and session.ended == "duration"


def gated(waits):
    """A session whose recognizer waits in the first chunk until its source could give no more (or all of ten)."""
    given = threading.Event()

    class Eager(Listed):
        def chunks(self):
            for i in range(0, 100, 10):
                if waits and i == 30:  # one is in hand, two are in the queue, this one has to wait
                    given.set()
                yield chunk(i)
            given.set()

    recognizer = Counter(before=lambda: given.wait(5))
    session = LiveSession(Eager(waits=waits), recognizer, chunk_seconds=0.1, buffer_seconds=0.2)
    return session, list(session.events())


def test_a_source_that_cannot_wait_loses_its_oldest_chunks():
    session, events = gated(waits=False)
    kept = [value for _, value in samples_of(events)]
    lost = 100 - len(kept)
    assert kept[-20:] == list(range(80, 100)) and lost >= 50  # a chunk in hand, two in the queue
    assert all(kind == "overrun" for kind, *_ in breaks_of(events))
    assert session.summary()["dropped"] == pytest.approx(lost / 100)
    assert samples_of(events) == [(value - kept[0], value) for value in kept]  # where they were measured


def test_a_source_that_can_wait_loses_nothing():
    session, events = gated(waits=True)
    assert samples_of(events) == [(i, i) for i in range(100)] and not breaks_of(events)
    assert session.summary()["dropped"] == 0


def test_what_does_not_fit_is_refused():
    source = ArraySource(ramp(), 100, 10)
    three, fast = Counter(), Counter()
    three.num_channels, fast.sampling_rate = 3, 2000.0
    for recognizer, options, message in (
        (three, {}, "recording: 2 channels, but the model takes 3; select"),
        (fast, {}, "sampled at 100 Hz, but the model was trained at 2000 Hz"),
        (Counter(), {"timeout": 0}, "timeout=0"),
        (Counter(), {"timeout": 0.5, "chunk_seconds": 0.5}, "timeout=0.5: a chunk alone takes 0.5 s"),
        (Counter(), {"buffer_seconds": float("nan")}, "buffer_seconds=nan"),
        (Counter(), {"chunk_seconds": -1}, "chunk_seconds=-1"),
        (Counter(), {"duration": -1}, "duration=-1"),
    ):
        with pytest.raises(StreamError, match=message):
            LiveSession(source, recognizer, **options)
    three.num_channels = None
    LiveSession(source, three)


def test_arrays():
    x, times = ramp(25), np.arange(25) / 100
    times[20:] += 1
    chunks = list(ArraySource(x, 100, 10, times=times).chunks())
    assert [(c.index, c.samples.shape[1], c.time) for c in chunks] == [(0, 10, 0.0), (10, 10, 0.1), (20, 5, 1.2)]
    np.testing.assert_array_equal(np.concatenate([c.samples for c in chunks], axis=1), x)
    for arguments, message in (
        ((x, 100, 0), "chunk_length=0"),
        ((x, 100, 10, "slow"), "pace='slow'.*realtime or fast"),
        ((x[0], 100, 10), r"its shape is \(25,\)"),
    ):
        with pytest.raises(StreamError, match=message):
            ArraySource(*arguments)


def test_real_time():
    source = ArraySource(ramp(30), 1000, 10, "realtime")
    begin = time.perf_counter()
    arrivals = [c.arrival - begin for c in source.chunks() if time.perf_counter() >= c.arrival]
    assert arrivals[0] >= 0.01 and np.diff(arrivals) == pytest.approx([0.01, 0.01])
    slow = ArraySource(ramp(30), 0.001, 10, "realtime")
    threading.Timer(0.02, slow.close).start()
    assert list(slow.chunks()) == []


def test_files(tmp_path):
    np.savez(tmp_path / "x.npz", emg=ramp(25), fs=100)
    source = open_file(tmp_path / "x.npz", None, 2, 0.1, pace="realtime")
    assert source.paced and source.sampling_rate == 100 and [c.samples.shape[1] for c in source.chunks()] == [10, 10, 5]
    np.save(tmp_path / "x.npy", ramp(25))
    with pytest.raises(StreamError, match="x.npy: its sampling rate is not known"):
        open_file(tmp_path / "x.npy", None, 2, 0.1)
    with pytest.raises(RecordingError, match="x.npy: 2 channels.*3 are expected"):
        open_file(tmp_path / "x.npy", 100, 3, 0.1)
    assert open_file(tmp_path / "x.npy", 100, 1, 0.1, channels=[1]).num_channels == 1


def write_session(path, left, right, times):
    fields = [("emg_left", "f4", (16,)), ("emg_right", "f4", (16,)), ("time", "f8")]
    table = np.zeros(len(times), fields)
    table["emg_left"], table["emg_right"], table["time"] = left, right, times
    with h5py.File(path, "w") as file:
        file.create_group("emg2qwerty").create_dataset("timeseries", data=table)


def test_sessions_of_emg2qwerty(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 500, 16)).astype(np.float32)
    times = 1.6e9 + np.arange(500) / 2000
    times[300:] += 0.5
    path = tmp_path / "session.hdf5"
    write_session(path, left, right, times)
    recording = read_recording(path)
    np.testing.assert_array_equal(recording.signal, np.concatenate([left, right], axis=1).T)
    np.testing.assert_array_equal(recording.times, times)
    assert recording.sampling_rate == 2000 and recording.columns[16] == "emg_right_0"
    assert read_recording(path, num_channels=32, sampling_rate=2000).signal.shape == (32, 500)
    with pytest.raises(RecordingError, match="states a sampling rate of 2000 Hz"):
        read_recording(path, sampling_rate=200)
    only = read_recording(path, channels=["emg2qwerty/timeseries/emg_right"])
    np.testing.assert_array_equal(only.signal, right.T)

    recognizer = Counter()
    recognizer.num_channels, recognizer.sampling_rate = 32, 2000.0
    session = LiveSession(open_file(path, None, 32, 0.05), recognizer)
    (gap,) = (event for event in session.events() if event["type"] == "break")
    assert gap["kind"] == "gap" and gap["lost"] == pytest.approx(0.5, abs=0.01)

    write_session(path, left, right, times[::-1])
    with pytest.raises(RecordingError, match="session.hdf5.*its times do not increase"):
        read_recording(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RecordingError, match=r"session.hdf5: cannot be read as a \.hdf5 file"):
        read_recording(path)


class Pipe:
    """Writes to a pipe in a thread, part by part."""

    def __init__(self, *parts):
        self.read_end, self.write_end = os.pipe()
        self.parts = parts

    def __enter__(self):
        threading.Thread(target=self.write, daemon=True).start()
        return self.read_end

    def write(self):
        for part in self.parts:
            os.write(self.write_end, part)
            time.sleep(0.002)
        os.close(self.write_end)

    def __exit__(self, *exception):
        os.close(self.read_end)


def read_pipe(*parts, error=None, **options):
    with Pipe(*parts) as descriptor:
        chunks = []
        try:
            for one in StdinSource(2, 100, 10, descriptor=descriptor, **options).chunks():
                chunks.append(one)
        except StreamError as raised:
            assert error is not None and error in str(raised)
        else:
            assert error is None
        return chunks


@pytest.mark.parametrize(("kind", "dtype"), [("float32", "<f4"), ("int16", "<i2")])
def test_numbers_on_standard_input(kind, dtype):
    x = np.arange(50).reshape(25, 2)
    content = x.astype(dtype).tobytes()
    chunks = read_pipe(content[:3], content[3:90], content[90:], format=kind)  # cut anywhere
    assert [(c.index, c.samples.shape) for c in chunks] == [(0, (2, 10)), (10, (2, 10)), (20, (2, 5))]
    np.testing.assert_array_equal(np.concatenate([c.samples for c in chunks], axis=1), x.T)
    chunks = read_pipe(content[:-1], format=kind, error=f"bytes of a sample of 2 x {kind}")
    assert sum(c.samples.shape[1] for c in chunks) == 24


def test_lines_on_standard_input():
    x = np.arange(50).reshape(25, 2) / 4
    lines = "".join(f"{a},{b}\r\n" for a, b in x).encode()
    for head in (b"", b"# from a device\n\nleft,right\n"):
        chunks = read_pipe(head + lines[:40], lines[40:], format="csv")
        assert [c.samples.shape[1] for c in chunks] == [10, 10, 5]
        np.testing.assert_array_equal(np.concatenate([c.samples for c in chunks], axis=1), x.T)
    assert read_pipe(lines[:-2], format="csv")[-1].samples.shape[1] == 5  # the last line need not end
    for damage in (b"1,2,3\n", b"1\n", b"left,right\n", b"1;2\n"):
        chunks = read_pipe(lines + damage + lines, format="csv", error="line 26")
        assert sum(c.samples.shape[1] for c in chunks) == 25
    assert read_pipe(b"1,2\n3,nan\n", format="csv")[0].samples.shape == (2, 2)  # the session leaves it out
    with pytest.raises(StreamError, match="format='wav'.*float32, int16, csv"):
        StdinSource(2, 100, 10, format="wav")


class FakeLsl(types.ModuleType):
    """As much of pylsl as is used; its inlet gives what is listed, then nothing, or raises."""

    proc_clocksync = 1

    class LostError(RuntimeError):
        pass

    def __init__(self, script, rate=100.0, channels=3):
        super().__init__("pylsl")
        self.script, self.rate, self.channels, self.asked = list(script), rate, channels, None

    def resolve_byprop(self, prop, value, minimum, timeout):
        self.asked = (prop, value)
        return [self] if value in ("EMG", "armband") else []

    def name(self):
        return "armband"

    def nominal_srate(self):
        return self.rate

    def channel_count(self):
        return self.channels

    def StreamInlet(self, info, processing_flags):  # noqa: N802 - the library's name
        assert info is self and processing_flags == self.proc_clocksync
        return self

    def pull_chunk(self, timeout, max_samples):
        if not self.script:
            raise self.LostError("gone")
        if not isinstance(self.script[0], list):
            self.script.pop(0)
            return [], []
        taken, rest = self.script[0][:max_samples], self.script[0][max_samples:]
        self.script[:1] = [rest] if rest else []
        return [sample for sample, _ in taken], [stamp for _, stamp in taken]


def lsl_samples(first, count, clock=1000.0):
    return [([float(i), i + 0.5, -1.0], clock + i / 100) for i in range(first, first + count)]


def test_lsl(monkeypatch):
    script = [lsl_samples(0, 4), lsl_samples(4, 21), None, lsl_samples(25, 5) + lsl_samples(30, 5, clock=1001.0)]
    fake = FakeLsl(script)
    monkeypatch.setitem(sys.modules, "pylsl", fake)
    source = LslSource(0.1, channels=[1, 0])
    assert (source.name, source.num_channels, source.sampling_rate) == ("LSL stream 'armband'", 2, 100.0)
    assert source.paced and not source.waits and fake.asked == ("type", "EMG")
    session = LiveSession(source, Counter())
    events = list(session.events())
    assert [value for _, value in samples_of(events)] == [i + 0.5 for i in range(35)]
    assert breaks_of(events) == [("gap", 130, 100)]  # at the very sample, in the midst of what came at once
    assert session.ended == "error" and "its sender is gone (gone); start it again" in str(session.error)

    stopped = LslSource(0.1, name="armband")
    assert fake.asked == ("name", "armband")
    stopped.close()
    assert list(stopped.chunks()) == []


def test_lsl_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylsl", FakeLsl([]))
    with pytest.raises(StreamError, match="no stream of name 'other' within 5 s"):
        LslSource(0.1, name="other")
    with pytest.raises(StreamError, match="channel 3: it has 3 channels"):
        LslSource(0.1, channels=[0, 3])
    monkeypatch.setitem(sys.modules, "pylsl", FakeLsl([], rate=0.0))
    with pytest.raises(StreamError, match="no constant sampling rate"):
        LslSource(0.1)
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(ModuleNotFoundError):
        LslSource(0.1)


def test_durations():
    rng = np.random.default_rng(0)
    seconds = np.exp(rng.normal(-5, 2, 5000))
    durations = Durations()
    for value in seconds:
        durations.add(value)
    summary = durations.summary()
    for name, percent in (("p50", 50), ("p95", 95)):
        assert summary[name] == pytest.approx(1000 * np.percentile(seconds, percent), rel=0.03)
    assert summary["max"] == 1000 * seconds.max() and durations.total == pytest.approx(seconds.sum())
    extremes = Durations()
    assert extremes.summary() == {"p50": 0, "p95": 0, "max": 0}
    for value in (0.0, 1e9):
        extremes.add(value)
    assert extremes.percentile(50) < 2e-6 and extremes.percentile(100) >= 1e4


def test_latency():
    statistics = LatencyStatistics(0.2, paced=True)
    for i in range(10):
        statistics.add(0.1, arrival=i, begin=i + 0.010, end=i + 0.035)
    found = statistics.as_dict()
    assert found["real_time_factor"] == pytest.approx(0.25) and found["signal_s"] == pytest.approx(1)
    assert found["compute_ms"]["p50"] == pytest.approx(25, rel=0.03)
    assert found["queue_ms"]["p95"] == pytest.approx(10, rel=0.03)
    assert found["end_to_end_ms"]["max"] == pytest.approx(35)
    table = statistics.table()
    assert "real-time factor 0.250" in table and "algorithmic delay 200 ms" in table and "wait in queue" in table
    unpaced = LatencyStatistics(0.2, paced=False)
    assert unpaced.real_time_factor == 0 and "queue_ms" not in unpaced.as_dict() and "queue" not in unpaced.table()


def test_the_log_is_whole_or_what_there_was(tmp_path):
    path = tmp_path / "out" / "events.jsonl"
    with pytest.raises(RuntimeError), EventLog(path) as log:
        log.write({"type": "key", "label": "⌫"})
        assert not path.exists() and (tmp_path / "out/.events.jsonl.partial").read_text().count("\n") == 1
        raise RuntimeError
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"type": "key", "label": "⌫"}]
    assert list(path.parent.iterdir()) == [path]
    with EventLog(None) as log:
        log.write({})
    (tmp_path / "folder.jsonl").mkdir()
    for name, message in (("recording.csv", "as .jsonl"), ("folder.jsonl", "is a folder")):
        with pytest.raises(StreamError, match=f"{name}: .*{message}"):
            EventLog(tmp_path / name)
