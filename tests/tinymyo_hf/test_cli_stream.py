"""`tinymyo stream`: every source and kind of model, every way in which a session ends, and that nothing is lost."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from test_streaming import FakeLsl
from typer.testing import CliRunner

import tinymyo_hf.streaming
from tinymyo_hf import (
    EmgCharacterTokenizer,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForFrameClassification,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
)
from tinymyo_hf.charset import apply_keystrokes
from tinymyo_hf.cli import app
from tinymyo_hf.decoding import greedy_decode
from tinymyo_hf.streaming import GestureRecognizer, MajorityFilter
from tinymyo_hf.streaming.output import EventLog, Printer


def tinymyo(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def refused(*arguments):
    message = tinymyo("stream", *arguments, code=2).stderr.splitlines()[-1]
    assert message.startswith("tinymyo: ")
    return message


def events_in(path):
    *events, summary = [json.loads(line) for line in path.read_text().splitlines()]
    assert summary["type"] == "summary" and not list(path.parent.glob("*.partial"))
    return events, summary


def noise(samples=2000, channels=4, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, samples)).astype(np.float32)


def save_classifier(folder, config, **settings):
    torch.manual_seed(0)
    model = TinyMyoForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=3)
    model.save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=4, window_length=100, stride=50, patch_size=10, **settings).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def classifier(tiny_config, tmp_path):
    return save_classifier(tmp_path / "gestures", tiny_config)


@pytest.fixture
def recording(tmp_path):
    np.save(tmp_path / "recording.npy", noise())
    return tmp_path / "recording.npy"


@pytest.fixture
def typist(tmp_path):
    torch.manual_seed(0)
    config = SEMGTransformerConfig(
        num_channels=4, conv_dim=[8, 8, 8], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, input_norm="frozen", attention_window=50,
    )  # fmt: skip
    model = SEMGTransformerForCTC(config)
    torch.nn.init.normal_(model.lm_head.weight, std=2)
    model.save_pretrained(tmp_path / "typing")
    SEMGTransformerFeatureExtractor(num_channels=4, bands=(2, 2)).save_pretrained(tmp_path / "typing")
    EmgCharacterTokenizer().save_pretrained(tmp_path / "typing")
    return tmp_path / "typing"


FAST = ("--source", "file", "--pace", "fast", "--input")


def test_gestures_of_a_file(classifier, recording, tmp_path):
    command = ("stream", classifier, *FAST, recording, "--sampling-rate", 200, "--votes", 2, "--vote-windows", 3)
    result = tinymyo(*command, "--hop-ms", 100, "--output", tmp_path / "out/events.jsonl")
    model = TinyMyoForSequenceClassification.from_pretrained(classifier)
    extractor = TinyMyoFeatureExtractor.from_pretrained(classifier)
    expected = GestureRecognizer(model, extractor, 20, MajorityFilter(2, 3)).push(noise())
    events, summary = events_in(tmp_path / "out/events.jsonl")
    assert [(e["time"], e["label"]) for e in events] == [(e["time"], e["label"]) for e in expected] and len(events) > 3
    lines = result.stdout.splitlines()
    assert len(lines) == len(events) and lines[0].split()[:2] == [f"{events[0]['time']:.3f}", events[0]["label"]]
    assert (summary["ended"], summary["error"], summary["seconds"], summary["lost"]) == ("end", None, 10.0, 0)
    assert summary["statistics"]["chunks"] == 500 and "queue_ms" not in summary["statistics"]
    for part in ("forwards only", "recording.npy: 4 channels at 200 Hz", "real-time factor", "events.jsonl"):
        assert part in result.stderr


def test_two_thresholds_and_an_early_end(classifier, recording, tmp_path):
    command = ("stream", classifier, *FAST, recording, "--sampling-rate", 200, "--output", tmp_path / "e.jsonl")
    tinymyo(*command, "--smoothing", "hysteresis", "--enter", 0.9, "--leave", 0.9, "--duration", 5)
    events, summary = events_in(tmp_path / "e.jsonl")
    assert summary["ended"] == "duration" and summary["seconds"] == pytest.approx(5, abs=0.02)
    assert None in {event["label"] for event in events}


def test_a_hole_in_a_file_in_real_time(classifier, tmp_path):
    x = noise(50)
    x[:, 20:24] = np.nan
    np.save(tmp_path / "holed.npy", x)
    result = tinymyo(
        "stream", classifier, "--source", "file", "--input", tmp_path / "holed.npy", "--sampling-rate", 200,
        "--output", tmp_path / "e.jsonl",
    )  # fmt: skip
    events, summary = events_in(tmp_path / "e.jsonl")
    assert events == [{"type": "break", "kind": "invalid", "time": 0.12, "lost": 0.02}]
    assert "0.120 s: invalid in the signal, 0.020 s are lost" in result.stderr
    assert "interruptions: invalid 1; 0.020 s are lost" in result.stderr
    assert "wait in queue" in result.stderr and summary["statistics"]["queue_ms"]["p50"] >= 0


def test_events_of_a_file(tmp_path):
    torch.manual_seed(1)
    model = TinyMyoForFrameClassification(
        TinyMyoConfig(
            stem="convolution", hidden_size=24, num_hidden_layers=1, intermediate_size=48, num_channels=4,
            is_causal=True, id2label={0: "index_press", 1: "index_release", 2: "thumb_click"},
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.frame_classifier.weight, std=2)
    model.save_pretrained(tmp_path / "events")
    TinyMyoFeatureExtractor(
        feature_size=4, sampling_rate=2000, band_pass=None, notch_frequencies=(), normalization="none",
        window_length=400, stride=100,
    ).save_pretrained(tmp_path / "events")  # fmt: skip
    np.savez(tmp_path / "x.npz", emg=noise() * (1 + 40 * (np.arange(2000) // 150 % 3 == 1)), fs=2000)
    command = ("stream", tmp_path / "events", *FAST, tmp_path / "x.npz", "--output", tmp_path / "e.jsonl")
    lines = tinymyo(*command, "--threshold", 0.5).stdout.splitlines()
    events, _ = events_in(tmp_path / "e.jsonl")
    assert len(events) > 3 and [e["gesture"] for e in events] == [line.split()[1] for line in lines]


def test_text_of_a_file(typist, tmp_path):
    np.savez(tmp_path / "x.npz", emg=noise(3000), fs=2000)
    command = ("stream", typist, *FAST, tmp_path / "x.npz", "--output", tmp_path / "e.jsonl")
    out = tinymyo(*command).stdout
    model = SEMGTransformerForCTC.from_pretrained(typist)
    with torch.no_grad():
        logits = model(torch.from_numpy(noise(3000))[None]).logits.numpy()
    keys = EmgCharacterTokenizer().decode(greedy_decode(logits)[0])
    events, summary = events_in(tmp_path / "e.jsonl")
    assert len(keys) > 5 and "".join(event["key"] for event in events) == summary["keystrokes"] == keys
    assert summary["text"] == apply_keystrokes(keys) and out.rstrip("\n") == keys.replace("⏎", "\n").rstrip("\n")
    assert summary["statistics"]["algorithmic_delay_ms"] == pytest.approx(20 + (20 * 3 + 59) / 2)
    again = tinymyo(*command, "--decoder", "beam", "--mode", "windowed", "--hop-ms", 100)
    assert "every window of 4 s is computed for itself" in again.stderr
    assert events_in(tmp_path / "e.jsonl")[1]["keystrokes"]


def test_a_model_that_needs_whole_windows(typist, tmp_path):
    model = SEMGTransformerForCTC.from_pretrained(typist)
    model.config.input_norm, model.config.attention_window = "window", None
    SEMGTransformerForCTC(model.config).save_pretrained(typist)
    np.savez(tmp_path / "x.npz", emg=noise(3000), fs=2000)
    assert "computed for itself" in tinymyo("stream", typist, *FAST, tmp_path / "x.npz").stderr
    assert 'input_norm="window"' in refused(typist, *FAST, tmp_path / "x.npz", "--mode", "exact")


class Feeder:
    """Standard input: what is written, in the process itself."""

    def __init__(self, monkeypatch, content, keep_open=False):
        self.read_end, self.write_end = os.pipe()
        self.content, self.keep_open = content, keep_open
        source = functools.partial(tinymyo_hf.streaming.StdinSource, descriptor=self.read_end)
        monkeypatch.setattr(tinymyo_hf.streaming, "StdinSource", source)

    def __enter__(self):
        threading.Thread(target=self.write, daemon=True).start()

    def write(self):
        os.write(self.write_end, self.content)
        if not self.keep_open:
            os.close(self.write_end)

    def __exit__(self, *exception):
        if self.keep_open:
            os.close(self.write_end)


STDIN = ("--source", "stdin", "--sampling-rate", 200, "--votes", 1, "--vote-windows", 1)


def test_standard_input(classifier, recording, tmp_path, monkeypatch):
    options = ("--sampling-rate", 200, "--votes", 1, "--vote-windows", 1, "--output", tmp_path / "file.jsonl")
    tinymyo("stream", classifier, *FAST, recording, *options)
    expected, _ = events_in(tmp_path / "file.jsonl")
    lines = "".join(",".join(map(repr, row)) + "\n" for row in noise().T.tolist()).encode()
    for content, form in ((noise().T.tobytes(), ()), (lines, ("--format", "csv"))):
        with Feeder(monkeypatch, content):
            tinymyo("stream", classifier, *STDIN, *form, "--output", tmp_path / "e.jsonl")
        assert events_in(tmp_path / "e.jsonl")[0] == expected and len(expected) > 3
        monkeypatch.undo()


def test_a_sample_cut_off(classifier, tmp_path, monkeypatch):
    with Feeder(monkeypatch, noise().T.tobytes()[:-1]):
        message = refused(classifier, *STDIN, "--output", tmp_path / "e.jsonl")
    assert "ends with 15 bytes of a sample of 4 x float32" in message
    events, summary = events_in(tmp_path / "e.jsonl")
    assert len(events) > 3 and summary["ended"] == "error" and summary["error"] in message


def test_a_source_that_stops(classifier, tmp_path, monkeypatch):
    with Feeder(monkeypatch, noise().T.tobytes(), keep_open=True):
        message = refused(classifier, *STDIN, "--timeout", 0.2, "--output", tmp_path / "e.jsonl")
    assert "standard input: no samples for 0.2 s" in message
    events, summary = events_in(tmp_path / "e.jsonl")
    assert len(events) > 3 and summary["ended"] == "timeout" and summary["seconds"] == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_session(classifier, tmp_path, monkeypatch, number):
    write = EventLog.write

    def write_and_kill(log, event):
        write(log, event)
        if event["type"] == "gesture" and event["time"] > 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(EventLog, "write", write_and_kill)
    before = signal.getsignal(number)
    with Feeder(monkeypatch, noise().T.tobytes(), keep_open=True):
        out = tinymyo("stream", classifier, *STDIN, "--timeout", 60, "--output", tmp_path / "e.jsonl")
    events, summary = events_in(tmp_path / "e.jsonl")
    assert summary["ended"] == "stopped" and events and "real-time factor" in out.stderr
    assert signal.getsignal(number) is before


def test_whoever_reads_has_seen_enough(classifier, recording, tmp_path, monkeypatch):
    def gone(printer, event):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(Printer, "show", gone)
    options = ("--sampling-rate", 200, "--output", tmp_path / "e.jsonl")
    assert "tinymyo: Broken" not in tinymyo("stream", classifier, *FAST, recording, *options, code=1).stderr
    events, summary = events_in(tmp_path / "e.jsonl")
    assert len(events) == 1 and summary["ended"] == "stopped"


def test_a_process_that_waits_for_standard_input(classifier, tmp_path):
    """Ends when told to, although a thread hangs in a read."""
    arguments = [*STDIN, "--timeout", 60, "--output", tmp_path / "e.jsonl"]
    command = [sys.executable, "-m", "tinymyo_hf.cli", "stream", str(classifier), *map(str, arguments)]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen(command, **pipes) as process:
        process.stdin.write(noise().T.tobytes())
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Fatal" not in process.stderr.read().decode()
    events, summary = events_in(tmp_path / "e.jsonl")
    assert first.split()[1].decode() == events[0]["label"] and summary["ended"] == "stopped"


def test_lsl(classifier, recording, tmp_path, monkeypatch):
    samples = [([*row, 0.0], i / 200) for i, row in enumerate(noise().T.tolist())]
    monkeypatch.setitem(sys.modules, "pylsl", FakeLsl([samples], rate=200.0, channels=5))
    # with room for all: on a busy machine the oldest samples would be dropped
    options = ("--source", "lsl", "--input", "armband", "--buffer", 60, "--output", tmp_path / "e.jsonl")
    message = refused(classifier, *options, "--channels", "0,1,2,3")
    tinymyo("stream", classifier, *FAST, recording, "--sampling-rate", 200, "--output", tmp_path / "file.jsonl")
    live, of_file = (events_in(tmp_path / name)[0] for name in ("e.jsonl", "file.jsonl"))
    assert "its sender is gone" in message and live == of_file and len(live) > 1
    assert "5 channels, but the model takes 4" in refused(classifier, *options)
    assert "channel 'a'" in refused(classifier, *options, "--channels", "a")
    monkeypatch.setitem(sys.modules, "pylsl", None)
    assert "pip install 'tinymyo-hf[lsl]'" in refused(classifier, *options)


def test_synthetic(tiny_config, tmp_path):
    folder = save_classifier(tmp_path / "model", tiny_config)
    command = ("stream", folder, "--source", "synthetic", "--pace", "fast", "--output", tmp_path / "e.jsonl")
    result = tinymyo(*command, "--hold", 0.5, "--num-repetitions", 1, "--seed", 1)
    assert "synthetic subject20_session2: 4 channels at 200 Hz" in result.stderr
    assert events_in(tmp_path / "e.jsonl")[0]
    assert "no_such" in refused(folder, "--source", "synthetic", "--no_such", 1)
    assert "5 channels" in refused(folder, "--source", "synthetic", "--num_channels", 5)


def test_what_is_refused(classifier, typist, recording, tmp_path, tiny_config):
    options = (*FAST, recording, "--sampling-rate")
    output = ("--output", tmp_path / "e.jsonl")
    TinyMyoForRegression(tiny_config).save_pretrained(tmp_path / "regression")
    for arguments, message in (
        ((tmp_path / "none", *options, 200), "no such checkpoint"),
        ((tmp_path / "regression", *options, 200), "emg-regression.*use `tinymyo predict`"),
        ((classifier, "--source", "file"), "--input: which file"),
        ((classifier, *FAST, tmp_path / "none.npy", "--sampling-rate", 200), "none.npy: no such file"),
        ((classifier, *FAST, recording), "its sampling rate is not known"),
        ((classifier, *options, 1000), "sampled at 1000 Hz, but the model was trained at 200 Hz"),
        ((classifier, *options, 200, "--channels", "0,1"), "2 channels.*4 are expected"),
        ((classifier, *options, 200, "--format", "csv"), "--format: not for --source file"),
        ((classifier, "--source", "stdin", "--raw-type", "int8"), "--raw-type: not for --source stdin"),
        ((classifier, "--source", "stdin"), "--sampling-rate: numbers on stdin"),
        ((classifier, "--source", "stdin", "--sampling-rate", 200, "--raw-channels", 3), "3 channels"),
        ((classifier, *options, 200, "--no-such", 1), "--no-such: there is no such option"),
        ((classifier, *options, 200, "--lm", "x.arpa"), "lm: not for a model of emg-classification"),
        ((classifier, *options, 200, "--enter", 0.5), "enter: not for smoothing by majority"),
        ((classifier, *options, 200, "--votes", 1), "votes=1 of 5"),
        ((classifier, *options, 200, "--timeout", 0), "timeout=0"),
        ((typist, *options, 2000, "--votes", 1), "votes: not for a model of emg-to-text"),
        ((typist, *options, 2000, "--lm", "x.arpa"), "lm_path: greedy decoding"),
        ((typist, *options, 2000, "--decoder", "beam", "--lm", tmp_path / "x.arpa"), "x.arpa"),
        ((typist, *options, 2000, "--hop-ms", 100), "hop=200: in the mode exact"),
        ((typist, *options, 2000, "--mode", "windowed", "--hop-ms", 101), "hop=202 must be positive multiples of 20"),
    ):
        found = refused(*arguments, *output)
        assert all(part in found for part in message.split(".*")), (found, message)
    assert not (tmp_path / "e.jsonl").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def key(character, at=0.0):
    return {"type": "key", "time": at, "key": character}


def test_keys_on_a_terminal_and_in_a_pipe():
    gap = {"type": "break", "kind": "gap", "time": 1.5, "lost": 0.25}
    for events, expected in ((Terminal(), "ab\b \bT\nx\ny\n"), (io.StringIO(), "ab⌫⇧T\nx\ny\n")):
        notices = io.StringIO()
        printer = Printer(events, notices)
        for character in "ab⌫⇧T⏎x":
            printer.show(key(character))
        printer.show(gap)
        printer.show(key("y"))
        printer.end_line()
        printer.end_line()
        assert events.getvalue() == expected
        assert notices.getvalue() == "tinymyo: 1.500 s: gap in the signal, 0.250 s are lost\n"


def test_what_is_known_is_printed_while_the_source_is_silent(classifier, monkeypatch):
    shown, show = [], Printer.show

    def note_time(printer, event):
        show(printer, event)
        shown.append(time.perf_counter())

    monkeypatch.setattr(Printer, "show", note_time)
    with Feeder(monkeypatch, noise(120).T.tobytes(), keep_open=True):
        refused(classifier, *STDIN, "--timeout", 0.2)
    assert time.perf_counter() - shown[0] >= 0.2
