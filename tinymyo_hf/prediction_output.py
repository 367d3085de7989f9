"""What the pipelines return, as tables for the terminal and as files."""

import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

Result = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """How the results of one pipeline are shown and written.

    Attributes:
        unit: what a row is: "windows", "frames", "events", "characters", "words".
        suffixes: files it can be written to.
        table: (result, rows) -> text for the terminal.
        header: result -> names of the columns.
        rows: result -> the rows of a table with everything, which .csv and .npy files hold.
        apart: entries of the result that .json files leave out, as they are files of their own.
    """

    unit: str
    suffixes: tuple[str, ...]
    table: Callable[[Result, int], str]
    header: Callable[[Result], list[str]]
    rows: Callable[[Result], Iterable[Iterable[Any]]]
    apart: tuple[str, ...] = ()

    def write(self, result: Result, path: Path) -> str:
        """Write a .csv table, a .npy array of its numbers, or the result itself as .json; returns "39 windows"."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = list(self.rows(result))
        if path.suffix.lower() == ".npy":
            with replacing(path, "wb") as file:
                np.save(file, np.array(rows, dtype=np.float64).reshape(len(rows), -1))
        elif path.suffix.lower() == ".json":
            with replacing(path, "w") as file:
                document = {name: entry for name, entry in result.items() if name not in self.apart}
                json.dump(document, file, indent=2, ensure_ascii=False, default=_plain)
                file.write("\n")
        else:
            with replacing(path, "w") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self.header(result))
                writer.writerows(rows)
        return f"{len(rows)} {self.unit}"


def _windows_table(result: Result, rows: int) -> str:
    """The first windows, and the recording's label with the scores of all labels below them."""
    windows = result["windows"]
    width = max(len(window["label"]) for window in windows)
    lines = [f"{'start s':>9}  {'end s':>9}  {'label':<{width}}  score"]
    lines += [
        f"{window['start']:9.2f}  {window['end']:9.2f}  {window['label']:<{width}}  {window['score']:.3f}"
        for window in windows[:rows]
    ]
    scores = ", ".join(f"{label} {score:.3f}" for label, score in result["scores"].items())
    return "\n".join([*lines, *_more(windows, rows, "windows"), "", f"whole recording: {result['label']} ({scores})"])


def _trajectory_table(result: Result, rows: int) -> str:
    """Mean and range of each output."""
    times, values = result["times"], result["values"]
    width = max(len("output"), *(len(name) for name in result["names"]))
    lines = [
        f"{len(times)} frames at {result['sampling_rate']:g} Hz, from {times[0]:.2f} to {times[-1]:.2f} s",
        "",
        f"{'output':<{width}}  {'mean':>11}  {'min':>11}  {'max':>11}",
    ]
    for name, output in list(zip(result["names"], values.T, strict=True))[:rows]:
        mean = output.mean(dtype=np.float64)
        lines.append(f"{name:<{width}}  {mean:11.5g}  {output.min():11.5g}  {output.max():11.5g}")
    return "\n".join([*lines, *_more(result["names"], rows, "outputs")])


def _events_table(result: Result, rows: int) -> str:
    """The first events, and how many there are of each gesture."""
    events = result["events"]
    if not events:
        return "no events"
    width = max(len("gesture"), *(len(event["gesture"]) for event in events))
    lines = [f"{'time s':>9}  {'gesture':<{width}}  score"]
    lines += [f"{event['time']:9.3f}  {event['gesture']:<{width}}  {event['score']:.3f}" for event in events[:rows]]
    counts = Counter(event["gesture"] for event in events)
    counted = ", ".join(f"{gesture} {count}" for gesture, count in counts.most_common())
    return "\n".join([*lines, *_more(events, rows, "events"), "", f"whole recording: {counted}"])


def _text_table(result: Result, rows: int) -> str:
    """What was typed, and how fast."""
    characters = result["characters"]
    if not characters:
        return "nothing was typed"
    first, last = characters[0]["time"], characters[-1]["time"]
    return f"{result['text']}\n\n{len(characters)} keys from {first:.2f} to {last:.2f} s: {result['keystrokes']}"


def _words_table(result: Result, rows: int) -> str:
    """What was said, and when."""
    timed = [word for word in result["words"] if word["start"] is not None]
    if not timed:
        return result["text"] or "nothing was said"
    return f"{result['text']}\n\n{len(timed)} words from {timed[0]['start']:.2f} to {timed[-1]['end']:.2f} s"


def _audio_table(result: Result, rows: int) -> str:
    """How long it is, and the phonemes one after the other."""
    seconds = len(result["audio"]) / result["sampling_rate"]
    phonemes = " ".join(name for name, _ in itertools.groupby(result["phonemes"]))
    return f"{seconds:.2f} s of audio at {result['sampling_rate']:,} Hz\n\nphonemes: {phonemes}"


def _audio_rows(result: Result) -> Iterator[list[Any]]:
    """Of each frame its second of the audio, its phoneme and its spectrum."""
    step = len(result["audio"]) / len(result["spectrogram"]) / result["sampling_rate"]
    for i, (phoneme, frame) in enumerate(zip(result["phonemes"], result["spectrogram"], strict=True)):
        yield [i * step, phoneme, *frame]


def _more(entries: list, rows: int, unit: str) -> list[str]:
    more = len(entries) - rows
    return [f"... {more} more {unit}; --output FILE.csv writes them all"] if more > 0 else []


FORMATS = {
    "emg-classification": Format(
        "windows",
        (".csv", ".json"),
        _windows_table,
        lambda result: ["start", "end", "label", "score"],
        lambda result: (window.values() for window in result["windows"]),
    ),
    "emg-regression": Format(
        "frames",
        (".csv", ".json", ".npy"),
        _trajectory_table,
        lambda result: ["time", *result["names"]],
        lambda result: ([time, *frame] for time, frame in zip(result["times"], result["values"], strict=True)),
    ),
    "emg-events": Format(
        "events",
        (".csv", ".json"),
        _events_table,
        lambda result: ["time", "gesture", "score"],
        lambda result: (event.values() for event in result["events"]),
    ),
    "emg-to-text": Format(
        "characters",
        (".csv", ".json"),
        _text_table,
        lambda result: ["character", "time"],
        lambda result: (character.values() for character in result["characters"]),
    ),
    "emg-to-audio": Format(
        "frames",
        (".csv", ".json"),
        _audio_table,
        lambda result: ["time", "phoneme", *(f"mel {i}" for i in range(result["spectrogram"].shape[1]))],
        _audio_rows,
        apart=("audio",),
    ),
}
"""By pipeline. The rows of a trajectory are the time in seconds and the outputs. Text is that of typing."""

SPOKEN = Format(
    "words",
    (".csv", ".json"),
    _words_table,
    lambda result: ["word", "start", "end"],
    lambda result: (word.values() for word in result["words"]),
)
"""For "emg-to-text" of speech."""


def format_of(task: str, result: Result) -> Format:
    """How what a pipeline returned is shown and written."""
    return SPOKEN if "words" in result else FORMATS[task]


def _plain(array: np.ndarray) -> list:
    """Numbers of float32 with the digits that tell them apart, no more."""
    return [_plain(row) for row in array] if array.ndim > 1 else [float(str(number)) for number in array]


@contextmanager
def replacing(path: Path, mode: str) -> Iterator[BinaryIO | TextIO]:
    """A file that takes its name when all is written: a failure leaves the old file, or none."""
    partial = path.with_name(f".{path.name}.partial")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(partial, mode, **text) as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
