"""Pieces of a running signal, and where it is interrupted.

A source numbers its samples and may have a clock. `Continuity` puts the chunks of a source on one axis of time that
never goes back, and says where something is missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError

Event = dict[str, Any]
"""What a session reports: "type" says which kind, "time" (s from the first sample of the session) when."""

CLOCK_TOLERANCE = 0.1
"""s: a jump of a source's clock by less is jitter of its time stamps, which come in bursts from many devices."""

CLOCK_TRACKING = 0.05
"""Share of a deviation of the clock that is taken as drift, chunk by chunk: no device keeps its rate exactly."""


class StreamError(SignalError):
    """A source or a setting that cannot be streamed, or a source that failed; it names the place and the fix."""


@dataclass(frozen=True)
class Chunk:
    """Successive samples of a source.

    Attributes:
        samples: float32 (channels, time), at least one sample.
        index: of the first sample, counted by the source from 0, with those that it knows to have lost.
        arrival: when the last sample was there, `time.perf_counter()` in s.
        time: of the first sample by the source's clock, in s; None if the source has none.
    """

    samples: np.ndarray
    index: int
    arrival: float
    time: float | None = None


@dataclass(frozen=True)
class Break:
    """An interruption of the signal, before the samples at `position`.

    Attributes:
        kind: "gap": samples are missing; "overrun": they were dropped, because they could not be processed in time;
            "restart": the source began again; "backwards": its numbers or its clock went back; "invalid": samples that
            are no finite numbers were left out.
        position: of the first sample after it, on the axis of the session.
        lost: samples that are missing.
    """

    kind: str
    position: int
    lost: int

    def event(self, sampling_rate: float) -> Event:
        """{"type": "break", "kind", "time" and "lost" in s}."""
        return {
            "type": "break",
            "kind": self.kind,
            "time": self.position / sampling_rate,
            "lost": self.lost / sampling_rate,
        }


class Continuity:
    """Positions of chunks on an axis of samples that never goes back, and the breaks between them.

    Where numbers are missing, the axis goes on by as many; where the clock jumps ahead by more than
    `CLOCK_TOLERANCE`, by what it jumped. Where numbers or clock go back, the axis goes on without a hole.

    Args:
        sampling_rate: Hz.
    """

    def __init__(self, sampling_rate: float):
        self._rate = sampling_rate
        self._expected: int | None = None  # None until the first chunk
        self._shift = 0  # position - index
        self._clock = 0.0  # time - position / rate, smoothed

    @property
    def end(self) -> int:
        """The position behind the last sample so far."""
        return self._expected or 0

    def place(self, chunk: Chunk, missing: str = "gap") -> tuple[int, Break | None]:
        """The position of a chunk's first sample, and the break before it if there is one.

        Args:
            chunk: the next one.
            missing: the kind of break if samples are missing before it, where the caller knows more.
        """
        if self._expected is None:
            self._shift = -chunk.index
            self._expected = 0
            if chunk.time is not None:
                self._clock = chunk.time
        found = self._by_index(chunk, missing)
        if chunk.time is not None:
            found = self._by_clock(chunk, found)
        position = chunk.index + self._shift
        lost = position - self._expected
        self._expected = position + chunk.samples.shape[1]
        return position, None if found is None else Break(found, position, lost)

    def _by_index(self, chunk: Chunk, missing: str) -> str | None:
        position = chunk.index + self._shift
        if position == self._expected:
            return None
        if position > self._expected:
            return missing
        self._shift = self._expected - chunk.index
        return "restart" if chunk.index == 0 else "backwards"

    def _by_clock(self, chunk: Chunk, found: str | None) -> str | None:
        deviation = chunk.time - (chunk.index + self._shift) / self._rate - self._clock
        if found in ("restart", "backwards"):  # the clock may have begun again with the numbers
            self._clock += deviation
            return found
        if abs(deviation) <= CLOCK_TOLERANCE:
            self._clock += CLOCK_TRACKING * deviation
            return found
        if deviation < 0:
            self._clock += deviation
            return found or "backwards"
        self._shift += round(deviation * self._rate)
        return found or "gap"


def finite_parts(chunk: Chunk, sampling_rate: float) -> list[Chunk]:
    """The parts of a chunk in which all channels are finite numbers; those between them are left out."""
    good = np.isfinite(chunk.samples).all(axis=0)
    if good.all():
        return [chunk]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]).astype(np.int8)))
    return [
        Chunk(
            chunk.samples[:, first:last],
            chunk.index + int(first),
            chunk.arrival,
            None if chunk.time is None else chunk.time + first / sampling_rate,
        )
        for first, last in edges.reshape(-1, 2)
    ]
