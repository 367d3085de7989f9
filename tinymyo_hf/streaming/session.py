"""A live session: samples from a source, events from a recognizer, and an account of both."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tinymyo_hf.streaming.chunks import Break, Chunk, Continuity, Event, StreamError, finite_parts
from tinymyo_hf.streaming.reader import Reader, SourceTimeout
from tinymyo_hf.streaming.recognizers import Recognizer
from tinymyo_hf.streaming.sources import Source
from tinymyo_hf.streaming.statistics import LatencyStatistics

ANOTHER_RECORDING = ("restart", "backwards")


class LiveSession:
    """Runs a recognizer on a source until that ends, stops, fails, or `stop` is called.

    Args:
        source: of the signal.
        recognizer: of what is in it.
        chunk_seconds: of the source, for the algorithmic delay.
        timeout: s without samples after which the source counts as stopped.
        buffer_seconds: of signal that may wait to be processed.
        duration: s of signal after which the session ends; None for no end.

    Attributes:
        ended: why: "end" of the source, "duration", "stopped" (by `stop`), "timeout", "error"; None while it runs.
        error: what to raise or to tell after "timeout" and "error".
        breaks: how many of each kind (`Break.kind`) there were.

    Raises:
        StreamError: the source does not suit the recognizer.

    Example:
        >>> session = LiveSession(source, GestureRecognizer(model, extractor))          # doctest: +SKIP
        >>> for event in session.events():                                              # doctest: +SKIP
        ...     print(event["time"], event["type"])
        >>> print(session.statistics.table())                                           # doctest: +SKIP
    """

    def __init__(
        self,
        source: Source,
        recognizer: Recognizer,
        chunk_seconds: float = 0.05,
        timeout: float = 5.0,
        buffer_seconds: float = 2.0,
        duration: float | None = None,
    ):
        for field, value in (
            ("timeout", timeout),
            ("chunk_seconds", chunk_seconds),
            ("buffer_seconds", buffer_seconds),
            ("duration", duration),
        ):
            if value is not None and not value > 0:
                raise StreamError(f"{field}={value:g}: must be a positive number of seconds")
        if timeout <= chunk_seconds:
            raise StreamError(f"timeout={timeout:g}: a chunk alone takes {chunk_seconds:g} s; wait longer")
        source.check(recognizer.num_channels, recognizer.sampling_rate)
        self._source, self._recognizer = source, recognizer
        self._timeout, self._duration = timeout, duration
        self._buffer = max(2, round(buffer_seconds / chunk_seconds))
        self._continuity = Continuity(source.sampling_rate)
        self._stop = threading.Event()
        self._flushed = False
        self._samples = self._seen = 0  # finite, and all
        self._invalid = 0  # since the last finite one
        self._lost = self._dropped = 0
        self.statistics = LatencyStatistics(recognizer.delay + chunk_seconds, source.paced)
        self.breaks: Counter[str] = Counter()
        self.ended: str | None = None
        self.error: Exception | None = None

    def events(self) -> Iterator[Event]:
        """What the recognizer finds and the breaks of the signal ({"type": "break"}: `Break.event`), as they come.

        Nothing is raised where the source stops or fails, or the recognizer does: all that was recognized is given
        first; then `ended` and `error` say what happened.
        """
        reader = Reader(self._source, self._buffer)
        try:
            while self.ended is None:
                got = self._next(reader)
                if got is not None:
                    yield from self._process(*got)
            yield from self.finish()
        finally:
            reader.close()
            self._dropped = reader.dropped_samples

    def stop(self) -> None:
        """Ends the session after the chunk in hand; may be called in another thread or a signal handler."""
        self._stop.set()

    def finish(self) -> list[Event]:
        """What the recognizer still held back, and the break of a signal that ends with samples that are no numbers;
        for who leaves `events` before its end. Nothing the second time."""
        if self._flushed:
            return []
        self._flushed = True
        events = self._recognizer.finish()
        if self._invalid:
            self._count(Break("invalid", self._continuity.end + self._invalid, self._invalid), events)
        return events

    def summary(self) -> dict[str, Any]:
        """{"type": "summary", "ended", "error", "seconds" of signal, "lost" s, "breaks", "dropped" s by the reader,
        "statistics"}."""
        rate = self._source.sampling_rate
        return {
            "type": "summary",
            "ended": self.ended or "stopped",
            "error": None if self.error is None else str(self.error),
            "seconds": self._samples / rate,
            "lost": self._lost / rate,
            "dropped": self._dropped / rate,
            "breaks": dict(self.breaks),
            "statistics": self.statistics.as_dict(),
        }

    def _next(self, reader: Reader) -> tuple[Chunk, bool] | None:
        """The next chunk; None when the session ends here, which `ended` then tells."""
        if self._duration is not None and self._seen >= self._duration * self._source.sampling_rate:
            self.ended = "duration"
            return None
        try:
            got = reader.get(self._timeout, self._stop)
        except SourceTimeout as error:
            self.ended, self.error = "timeout", error
            return None
        except Exception as error:  # of the source
            self.ended, self.error = "error", error
            return None
        if got is None:
            self.ended = "stopped" if self._stop.is_set() else "end"
            if self.ended == "end" and not self._samples:
                self.ended, self.error = "error", StreamError(f"{self._source.name}: {self._why_nothing()}")
        return got

    def _why_nothing(self) -> str:
        if self._seen:
            return "no sample in which all channels are finite numbers; is an electrode off, or the format another?"
        return "ended without a single sample; is what should send them running, and the format right?"

    def _process(self, chunk: Chunk, dropped: bool) -> list[Event]:
        begin = time.perf_counter()
        events: list[Event] = []
        try:
            self._recognize(chunk, dropped, events)
        except Exception as error:  # what was found before it is not lost
            self.ended, self.error = "error", error
            self._flushed = True  # what the recognizer still holds is not to be trusted
        seconds = chunk.samples.shape[1] / self._source.sampling_rate
        self.statistics.add(seconds, chunk.arrival, begin, time.perf_counter())
        return events

    def _recognize(self, chunk: Chunk, dropped: bool, events: list[Event]) -> None:
        """Adds to `events` what there is in a chunk and before it."""
        known = chunk.index  # end of the finite samples so far
        for part in finite_parts(chunk, self._source.sampling_rate):
            missing = "invalid" if self._invalid or part.index > chunk.index else "overrun" if dropped else "gap"
            self._invalid = 0
            _, found = self._continuity.place(part, missing)
            if found is not None:
                self._interrupt(found, events)
            events += self._recognizer.push(part.samples)
            known = part.index + part.samples.shape[1]
            self._samples += part.samples.shape[1]
        self._invalid += chunk.index + chunk.samples.shape[1] - known
        self._seen += chunk.samples.shape[1]

    def _interrupt(self, found: Break, events: list[Event]) -> None:
        events += self._recognizer.finish()
        self._count(found, events)
        self._recognizer.reset(found.position, forget=found.kind in ANOTHER_RECORDING)

    def _count(self, found: Break, events: list[Event]) -> None:
        self.breaks[found.kind] += 1
        self._lost += found.lost
        events.append(found.event(self._source.sampling_rate))
