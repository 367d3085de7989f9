"""Signals from Lab Streaming Layer, which most amplifiers and armbands have a sender for; needs the package pylsl."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinymyo_hf.streaming.chunks import CLOCK_TOLERANCE, Chunk, StreamError
from tinymyo_hf.streaming.sources import Source, checked_length

WAIT = 0.2
"""s for which a call of the library blocks at most; then it is looked whether the session is over."""


class LslSource(Source):
    """The first stream on the network of that name or type.

    The sender's time stamps show where samples are missing. A sender that comes back is found again by the library;
    how long to wait for it is the session's `timeout`.

    Args:
        chunk_seconds: s per chunk; shorter ones where the sender pauses.
        name: of the stream; None takes the first of type `stream_type`.
        stream_type: "EMG" by default.
        channels: positions of the channels to use, from 0; all by default.
        timeout: s to look for it.

    Raises:
        StreamError: there is no such stream, or it has no constant rate or no such channels.
        ModuleNotFoundError: pylsl is not installed.
    """

    paced = True
    waits = False

    def __init__(
        self,
        chunk_seconds: float,
        name: str | None = None,
        stream_type: str = "EMG",
        channels: Sequence[int] | None = None,
        timeout: float = 5.0,
    ):
        import pylsl

        asked = ("name", name) if name is not None else ("type", stream_type)
        found = pylsl.resolve_byprop(*asked, 1, timeout)
        if not found:
            raise StreamError(
                f"no stream of {asked[0]} {asked[1]!r} within {timeout:g} s on the network; start the sender, or state "
                "the stream's name"
            )
        info = found[0]
        self.name = f"LSL stream {info.name()!r}"
        self.sampling_rate = float(info.nominal_srate())
        if self.sampling_rate <= 0:
            raise StreamError(f"{self.name}: has no constant sampling rate; it is no stream of a signal")
        self._channels = _picked(channels, info.channel_count(), self.name)
        self.num_channels = len(self._channels)
        self._chunk_length = checked_length(max(1, round(chunk_seconds * self.sampling_rate)))
        self._inlet: Any = pylsl.StreamInlet(info, processing_flags=pylsl.proc_clocksync)
        self._closed = False

    def chunks(self) -> Iterator[Chunk]:
        """See `Source`.

        Raises:
            StreamError: the sender is gone for good.
        """
        index, waiting, last = 0, [], None
        while not self._closed:
            missing = self._chunk_length - len(waiting)
            try:
                samples, stamps = self._inlet.pull_chunk(timeout=WAIT, max_samples=missing)
            except RuntimeError as error:  # what all errors of the library are; LostError has moved between versions
                if waiting:
                    yield self._chunk(waiting, index)
                raise StreamError(f"{self.name}: its sender is gone ({error}); start it again") from error
            for sample, stamp in zip(samples, stamps, strict=True):
                jumps = last is not None and abs(stamp - last) > CLOCK_TOLERANCE
                if waiting and jumps:  # what lies before a hole and what after it are not one chunk
                    yield self._chunk(waiting, index)
                    index, waiting = index + len(waiting), []
                waiting.append((sample, stamp))
                last = stamp
            if waiting and (len(waiting) == self._chunk_length or not samples):
                yield self._chunk(waiting, index)
                index, waiting = index + len(waiting), []

    def _chunk(self, waiting: list, index: int) -> Chunk:
        values = np.array([sample for sample, _ in waiting], np.float32).T[self._channels]
        return Chunk(values, index, time.perf_counter(), float(waiting[0][1]))

    def close(self) -> None:
        """See `Source`."""
        self._closed = True


def _picked(channels: Sequence[int] | None, count: int, name: str) -> list[int]:
    picked = list(range(count)) if channels is None else list(channels)
    for channel in picked:
        if not isinstance(channel, int) or not -count <= channel < count:
            raise StreamError(f"{name}: channel {channel!r}: it has {count} channels; give positions from 0")
    return picked
