"""`tinymyo stream`: a live session on the command line; `tinymyo_hf.cli` registers it."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinymyo_hf.streaming import LiveSession, Recognizer, Source
    from tinymyo_hf.streaming.output import EventLog

SYNTHETIC_PRESETS = {"emg-classification": "gestures", "emg-events": "events", "emg-to-text": "typing"}
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
OPTIONS_OF_SOURCE = {
    "file": ("input", "pace", "sampling_rate", "channels", "key", "layout", "raw_type", "raw_channels"),
    "stdin": ("format", "sampling_rate", "raw_channels"),
    "lsl": ("input", "channels"),
    "synthetic": ("pace",),
}


class SourceName(StrEnum):
    file = "file"
    stdin = "stdin"
    lsl = "lsl"
    synthetic = "synthetic"


class Pace(StrEnum):
    realtime = "realtime"
    fast = "fast"


class Mode(StrEnum):
    exact = "exact"
    windowed = "windowed"


class Decoder(StrEnum):
    greedy = "greedy"
    beam = "beam"


class Smoothing(StrEnum):
    majority = "majority"
    hysteresis = "hysteresis"


class Format(StrEnum):
    float32 = "float32"
    int16 = "int16"
    csv = "csv"


def stream(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub id of a model of gestures, events or typing.")],
    source: Annotated[SourceName, typer.Option(help="Where the signal comes from.")],
    input: Annotated[str | None, typer.Option(help="The file; of lsl, the stream's name (else the first EMG).")] = None,
    chunk_ms: Annotated[float, typer.Option(min=1, help="Signal that is processed at a time.")] = 20,
    hop_ms: Annotated[float | None, typer.Option(min=1, help="From one window to the next.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="Typing: exact where the model can, or by windows.")] = None,
    decoder: Annotated[Decoder | None, typer.Option(help="Typing: greedy, or beam search.")] = None,
    lm: Annotated[Path | None, typer.Option(help="Typing: a KenLM language model for the beam search.")] = None,
    smoothing: Annotated[Smoothing | None, typer.Option(help="Gestures: votes of windows, or two thresholds.")] = None,
    votes: Annotated[int | None, typer.Option(min=1, help="Windows that must agree (3) ...")] = None,
    vote_windows: Annotated[int | None, typer.Option(min=1, help="... of so many (5).")] = None,
    enter: Annotated[float | None, typer.Option(help="Probability from which a gesture holds (0.7) ...")] = None,
    leave: Annotated[float | None, typer.Option(help="... and until which it goes on (0.4).")] = None,
    threshold: Annotated[float | None, typer.Option(help="Events: probability at which there is one.")] = None,
    pace: Annotated[Pace | None, typer.Option(help="Of file and synthetic: as measured (realtime), or fast.")] = None,
    format: Annotated[Format | None, typer.Option(help="Of stdin: raw little-endian numbers, or lines.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz, where the source does not state it.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to use, by name or position: 0,1,2.")] = None,
    key: Annotated[str | None, typer.Option(help="Variable to read from a file of several arrays.")] = None,
    layout: Annotated[str | None, typer.Option(help="channels_time or time_channels, for arrays.")] = None,
    raw_type: Annotated[str | None, typer.Option(help="Numbers in a .dat, .bin or .raw file: int16, ...")] = None,
    raw_channels: Annotated[int | None, typer.Option(min=1, help="Numbers per sample in it, or on stdin.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without samples after which to give up.")] = 5.0,
    buffer: Annotated[float, typer.Option(help="Seconds of signal that may wait.")] = 2.0,
    duration: Annotated[float | None, typer.Option(help="Seconds of signal after which to end.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write events and summary to this .jsonl file.")] = None,
) -> None:
    """Recognize gestures, events or text live, and tell at the end how long it took.

    Ctrl-C ends the session. Further `--field value` pairs are options of the synthetic corpus: `--seed 3`.
    """
    from tinymyo_hf.streaming import LiveSession, load_recognizer
    from tinymyo_hf.streaming.output import EventLog

    given = {
        "input": input,
        "pace": pace,
        "format": format,
        "sampling_rate": sampling_rate,
        "channels": channels,
        "key": key,
        "layout": layout,
        "raw_type": raw_type,
        "raw_channels": raw_channels,
    }
    log = EventLog(output)
    options = _options_of_source(source.value, {name: value for name, value in given.items() if value is not None})
    fields = _fields(source.value, context.args)
    recognizer, task = load_recognizer(
        checkpoint,
        hop_ms=hop_ms,
        mode=mode,
        decoder=decoder,
        lm=lm,
        smoothing=smoothing,
        votes=votes,
        vote_windows=vote_windows,
        enter=enter,
        leave=leave,
        threshold=threshold,
    )
    opened = _open_source(source.value, options, fields, chunk_ms / 1000, recognizer, task, timeout)
    session = LiveSession(opened, recognizer, chunk_ms / 1000, timeout, buffer, duration)
    for note in recognizer.notes:
        typer.echo(f"tinymyo: {note}", err=True)
    typer.echo(f"tinymyo: {opened.name}: {opened.num_channels} channels at {opened.sampling_rate:g} Hz", err=True)
    _run(session, recognizer, log, output)


def _options_of_source(source: str, given: dict[str, Any]) -> dict[str, Any]:
    from tinymyo_hf.streaming import StreamError

    others = [name for name in given if name not in OPTIONS_OF_SOURCE[source]]
    if others:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise StreamError(f"{named}: not for --source {source}; leave it out")
    if source == "file" and "input" not in given:
        raise StreamError("--input: which file? give its path")
    return given


def _fields(source: str, arguments: list[str]) -> dict[str, Any]:
    """Fields of the synthetic corpus."""
    from tinymyo_hf.streaming import StreamError

    if not arguments:
        return {}
    if source != "synthetic":
        raise StreamError(f"{arguments[0]}: there is no such option; `tinymyo stream --help` lists them")
    from trainers.parsing import parse_fields

    return parse_fields(arguments)


def _open_source(
    source: str,
    options: dict[str, Any],
    fields: dict[str, Any],
    chunk_seconds: float,
    recognizer: "Recognizer",
    task: str,
    timeout: float,
) -> "Source":
    from tinymyo_hf.streaming import StdinSource, StreamError, open_file

    pace = options.pop("pace", Pace.realtime).value
    if "channels" in options:
        parts = [part.strip() for part in options["channels"].split(",")]
        options["channels"] = [int(part) if part.lstrip("-").isdigit() else part for part in parts]
    if source == "file":
        path, rate = options.pop("input"), options.pop("sampling_rate", None)
        return open_file(path, rate, recognizer.num_channels, chunk_seconds, pace, **options)
    if source == "lsl":
        from tinymyo_hf.streaming.lsl import LslSource

        return LslSource(chunk_seconds, options.get("input"), channels=options.get("channels"), timeout=timeout)
    if source == "synthetic":
        return _synthetic(fields, chunk_seconds, recognizer, task, pace)
    channels = options.get("raw_channels", recognizer.num_channels)
    if channels is None:
        raise StreamError("--raw-channels: this model takes any number of channels; state how many come on stdin")
    if "sampling_rate" not in options:
        raise StreamError("--sampling-rate: numbers on stdin do not state it; give it in Hz")
    rate = options["sampling_rate"]
    length = max(1, round(chunk_seconds * rate))
    return StdinSource(channels, rate, length, options.get("format", Format.float32).value)


def _synthetic(
    fields: dict[str, Any], chunk_seconds: float, recognizer: "Recognizer", task: str, pace: str
) -> "Source":
    """The last recording of the simulated corpus that has what the model recognizes."""
    from dataset_builders.base import make_builder
    from tinymyo_hf.streaming import ArraySource

    rate = int(recognizer.sampling_rate)
    fitting: dict[str, Any] = {"preset": SYNTHETIC_PRESETS[task], "sampling_rate": rate}
    if recognizer.num_channels is not None:
        fitting["num_channels"] = recognizer.num_channels
    builder = make_builder("synthetic", None, **fitting | fields)
    recording = builder.list_recordings(None)[-1]
    signal = next(iter(builder.read_takes(recording)))
    length = max(1, round(chunk_seconds * signal.sampling_rate))
    return ArraySource(signal.samples, signal.sampling_rate, length, pace, name=f"synthetic {recording.name}")


def _run(session: "LiveSession", recognizer: "Recognizer", log: "EventLog", output: Path | None) -> None:
    """Prints and logs until the session ends, whatever ends it; then tells what happened."""
    from tinymyo_hf.streaming import TextRecognizer
    from tinymyo_hf.streaming.output import Printer

    printer = Printer(sys.stdout, sys.stderr)
    with log, _stopped_by_signals(session):
        try:
            events = session.events()
            for event in events:
                log.write(event)
                printer.show(event)
            printer.end_line()
        finally:  # also when whoever reads the output has gone away
            events.close()
            for event in session.finish():
                log.write(event)
            summary = session.summary()
            if isinstance(recognizer, TextRecognizer):
                summary |= {"text": recognizer.text, "keystrokes": recognizer.keystrokes}
            log.write(summary)
    typer.echo(f"\n{session.statistics.table()}", err=True)
    if session.breaks:
        counts = ", ".join(f"{kind} {count}" for kind, count in session.breaks.items())
        typer.echo(f"interruptions: {counts}; {summary['lost']:.3f} s are lost", err=True)
    if output is not None:
        typer.echo(f"events and summary written to {output}", err=True)
    if session.error is not None:
        raise session.error


@contextmanager
def _stopped_by_signals(session: "LiveSession") -> Iterator[None]:
    """Within, Ctrl-C, SIGTERM and a terminal that is closed end the session; a second Ctrl-C is as usual."""

    def stop(number: int, frame: object) -> None:
        session.stop()
        signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():  # where no handlers can be set
        yield
        return
    before = {number: signal.signal(number, stop) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
