"""Takes chunks from a source in a thread of its own, so that samples are fetched while the network computes."""

import threading
import time
from collections import deque

from tinymyo_hf.streaming.chunks import Chunk, StreamError
from tinymyo_hf.streaming.sources import Source

TURN = 0.1
"""s after which a wait looks whether it has been stopped: signals of the system interrupt no wait in Python."""


class SourceTimeout(StreamError):
    """A source that gave nothing for too long."""


class Reader:
    """A queue of bounded length between a source and the network.

    When it is full, a source that waits is made to; of another the oldest chunks are dropped, whole, and counted.

    Args:
        source: is read from now on.
        buffer: chunks that may wait.

    Attributes:
        dropped_chunks, dropped_samples: so far.
    """

    def __init__(self, source: Source, buffer: int):
        self._source, self._buffer = source, max(1, buffer)
        self._waiting: deque[Chunk] = deque()
        self._changed = threading.Condition()
        self._finished = self._closed = False
        self._dropped_since = False
        self._error: BaseException | None = None
        self.dropped_chunks = self.dropped_samples = 0
        self._thread = threading.Thread(target=self._read, name="reader of samples", daemon=True)
        self._thread.start()

    def get(self, timeout: float, stop: threading.Event) -> tuple[Chunk, bool] | None:
        """The next chunk, and whether chunks before it were dropped; None at the end, or once `stop` is set.

        Args:
            timeout: s to wait.

        Raises:
            SourceTimeout: nothing came within `timeout`.
            Exception: what the source raised, after all chunks before it.
        """
        until = time.perf_counter() + timeout
        with self._changed:
            while not self._waiting:
                if stop.is_set():
                    return None
                if self._finished:
                    if self._error is not None:
                        raise self._error
                    return None
                left = until - time.perf_counter()
                if left <= 0:
                    raise SourceTimeout(f"{self._source.name}: no samples for {timeout:g} s; is the device still on?")
                self._changed.wait(min(left, TURN))
            if stop.is_set():
                return None
            dropped, self._dropped_since = self._dropped_since, False
            chunk = self._waiting.popleft()
            self._changed.notify_all()
            return chunk, dropped

    def close(self) -> None:
        """Ends reading; returns at once, also where the source is stuck."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._source.close()
        self._thread.join(TURN)

    def _read(self) -> None:
        try:
            for chunk in self._source.chunks():
                if not self._put(chunk):
                    return
        except BaseException as error:  # whatever it is, it is raised where chunks are taken
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _put(self, chunk: Chunk) -> bool:
        """Whether to go on."""
        with self._changed:
            while self._source.waits and len(self._waiting) >= self._buffer and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if len(self._waiting) >= self._buffer:
                oldest = self._waiting.popleft()
                self.dropped_chunks += 1
                self.dropped_samples += oldest.samples.shape[1]
                self._dropped_since = True
            self._waiting.append(chunk)
            self._changed.notify_all()
            return True
