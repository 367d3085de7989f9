"""Where a running signal comes from: arrays and files at any pace, and numbers on standard input.

`tinymyo_hf.streaming.lsl` has the source for Lab Streaming Layer.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.recordings import read_recording
from tinymyo_hf.streaming.chunks import Chunk, StreamError

STDIN_TYPES = {"float32": np.dtype("<f4"), "int16": np.dtype("<i2")}
STDIN_FORMATS = (*STDIN_TYPES, "csv")
LONGEST_LINE = 1 << 20


class Source(ABC):
    """A signal in chunks.

    Attributes:
        name: for messages.
        num_channels: of every chunk.
        sampling_rate: Hz.
        paced: whether samples come as they are measured, not as fast as they are taken.
        waits: whether it waits when nobody takes its chunks; else the oldest of them have to be dropped.
    """

    name: str
    num_channels: int
    sampling_rate: float
    paced: bool
    waits: bool

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """The chunks in order of time, until the signal ends; waits for each. Called once, in a thread of its own."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Ends `chunks` soon, also from another thread."""

    def check(self, num_channels: int | None, sampling_rate: float) -> None:
        """Raise `StreamError` unless the source suits a model of `num_channels` (None: any) at `sampling_rate` Hz."""
        if num_channels is not None and self.num_channels != num_channels:
            raise StreamError(
                f"{self.name}: {self.num_channels} channels, but the model takes {num_channels}; select the channels "
                "the model was trained on"
            )
        if abs(self.sampling_rate - sampling_rate) > 1e-6 * sampling_rate:
            raise StreamError(
                f"{self.name}: sampled at {self.sampling_rate:g} Hz, but the model was trained at {sampling_rate:g} "
                "Hz; set the device to that rate, or resample before streaming"
            )


class ArraySource(Source):
    """A recording in memory.

    Args:
        signal: (channels, time).
        sampling_rate: Hz.
        chunk_length: samples per chunk.
        pace: "realtime" gives every chunk when its last sample would have been measured, "fast" at once.
        times: of the samples, in s, (time,); holes and jumps of these are noticed.
        name: for messages.
    """

    waits = True

    def __init__(
        self,
        signal: np.ndarray,
        sampling_rate: float,
        chunk_length: int,
        pace: str = "fast",
        times: np.ndarray | None = None,
        name: str = "recording",
    ):
        if pace not in ("fast", "realtime"):
            raise StreamError(f"pace={pace!r}: unknown; use realtime or fast")
        if signal.ndim != 2 or not signal.size:
            raise StreamError(f"{name}: its shape is {signal.shape}; a recording has the axes channels and time")
        self.name, self.num_channels, self.sampling_rate = name, len(signal), float(sampling_rate)
        self.paced = pace == "realtime"
        self._signal, self._times = signal, times
        self._chunk_length = checked_length(chunk_length)
        self._closed = False

    def chunks(self) -> Iterator[Chunk]:
        """See `Source`; in real time, `arrival` is when the chunk was due, however late it is taken."""
        begin = time.perf_counter()
        samples = self._signal.shape[1]
        for index in range(0, samples, self._chunk_length):
            last = min(index + self._chunk_length, samples)
            due = begin + last / self.sampling_rate
            while self.paced and not self._closed and (left := due - time.perf_counter()) > 0:
                time.sleep(min(left, 0.05))
            if self._closed:
                return
            values = np.ascontiguousarray(self._signal[:, index:last], dtype=np.float32)
            clock = None if self._times is None else float(self._times[index])
            yield Chunk(values, index, due if self.paced else time.perf_counter(), clock)

    def close(self) -> None:
        """See `Source`."""
        self._closed = True


def open_file(
    path: str | Path,
    sampling_rate: float | None,
    num_channels: int | None,
    chunk_seconds: float,
    pace: str = "fast",
    **read_options: Any,
) -> ArraySource:
    """A recording from a file of any of the formats of `tinymyo_hf.recordings`.

    Args:
        path: the file.
        sampling_rate: Hz, where the file does not state it.
        num_channels: of the model, if it takes a certain number.
        chunk_seconds: s per chunk.
        pace: as for `ArraySource`.
        read_options: further arguments of `read_recording`.
    """
    recording = read_recording(path, sampling_rate=sampling_rate, num_channels=num_channels, **read_options)
    if recording.sampling_rate is None:
        raise StreamError(f"{path}: its sampling rate is not known; state it with sampling_rate")
    length = max(1, round(chunk_seconds * recording.sampling_rate))
    return ArraySource(recording.signal, recording.sampling_rate, length, pace, recording.times, str(path))


class StdinSource(Source):
    """Numbers from a pipe: sample after sample, the channels of each side by side.

    "float32" and "int16" are little-endian without any header; "csv" has one sample per line, numbers parted by commas,
    and may begin with lines that start with # and one with names.

    Args:
        num_channels, sampling_rate: of what is sent; the numbers do not say.
        chunk_length: samples per chunk; what is left at the end is a shorter one.
        format: one of `STDIN_FORMATS`.
        descriptor: the open file to read, standard input by default.
    """

    paced = True
    waits = True  # so does whoever writes into the pipe

    def __init__(
        self, num_channels: int, sampling_rate: float, chunk_length: int, format: str = "float32", descriptor: int = 0
    ):
        if format not in STDIN_FORMATS:
            raise StreamError(f"format={format!r}: unknown; use one of {', '.join(STDIN_FORMATS)}")
        self.name = "standard input"
        self.num_channels, self.sampling_rate = num_channels, float(sampling_rate)
        self._chunk_length = checked_length(chunk_length)
        self._format, self._descriptor = format, descriptor

    def chunks(self) -> Iterator[Chunk]:
        """See `Source`.

        Raises:
            StreamError: after all whole samples: what was sent ends within one, or a line is none.
        """
        frames = self._lines() if self._format == "csv" else self._binary()
        index, waiting = 0, np.empty((self.num_channels, 0), np.float32)
        try:
            for new in frames:
                waiting = np.concatenate([waiting, new], axis=1)
                while waiting.shape[1] >= self._chunk_length:
                    chunk, waiting = waiting[:, : self._chunk_length], waiting[:, self._chunk_length :]
                    yield Chunk(chunk, index, time.perf_counter())
                    index += self._chunk_length
        except StreamError:
            if waiting.shape[1]:
                yield Chunk(waiting, index, time.perf_counter())
            raise
        if waiting.shape[1]:
            yield Chunk(waiting, index, time.perf_counter())

    def _binary(self) -> Iterator[np.ndarray]:
        """(channels, samples) as they come."""
        kind = STDIN_TYPES[self._format]
        size = kind.itemsize * self.num_channels
        rest = b""
        # os.read, not sys.stdin: a thread that waits in the latter keeps Python from ending
        while content := os.read(self._descriptor, max(size * self._chunk_length, 1 << 12)):
            content = rest + content
            whole = len(content) // size * size
            rest = content[whole:]
            yield np.frombuffer(content[:whole], kind).reshape(-1, self.num_channels).T.astype(np.float32)
        if rest:
            raise StreamError(
                f"{self.name}: ends with {len(rest)} bytes of a sample of {self.num_channels} x {self._format}; are "
                "number of channels and format right?"
            )

    def _lines(self) -> Iterator[np.ndarray]:
        number, rest = 0, b""
        names_allowed = True
        while True:
            content = os.read(self._descriptor, 1 << 16)
            lines = (rest + content).split(b"\n")
            rest = lines.pop() if content else b""
            if len(rest) > LONGEST_LINE:
                raise StreamError(f"{self.name}: line {number + 1} does not end; is it csv?")
            rows = []
            for line in lines:
                number += 1
                text = line.decode("utf-8", "replace").strip()
                if not text or text.startswith("#"):
                    continue
                try:
                    row = [float(cell) for cell in text.split(",")]
                except ValueError:
                    row = []
                if len(row) != self.num_channels and not (names_allowed and not row):
                    if rows:
                        yield np.array(rows, np.float32).T
                    raise StreamError(
                        f"{self.name}, line {number}: {text[:40]!r} is not a sample of {self.num_channels} numbers "
                        "parted by commas"
                    )
                names_allowed = False
                rows += [row] if row else []
            if rows:
                yield np.array(rows, np.float32).T
            if not content:
                return


def checked_length(chunk_length: int) -> int:
    """`chunk_length`, which must be at least a sample."""
    if chunk_length < 1:
        raise StreamError(f"chunk_length={chunk_length}: must be at least one sample")
    return chunk_length
