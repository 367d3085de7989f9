"""How long the parts of a stream take: bounded memory, whatever the length of the session."""

import math
from typing import Any

LEAST, GROWTH = 1e-6, 1.02
BINS = 1 + math.ceil(math.log(1e4 / LEAST) / math.log(GROWTH))


class Durations:
    """A histogram of durations in s, with bins of 2 % from a microsecond to hours."""

    def __init__(self) -> None:
        self._counts = [0] * BINS
        self.count = 0
        self.total = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Counts one duration."""
        place = math.floor(math.log(max(seconds, LEAST) / LEAST) / math.log(GROWTH))
        self._counts[min(place, BINS - 1)] += 1
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float:
        """The duration that so many percent do not exceed, to 2 % (never more than the longest); 0 without any."""
        wanted, seen = math.ceil(self.count * percent / 100), 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(LEAST * GROWTH ** (place + 1), self.longest)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Milliseconds: {"p50", "p95", "max"}."""
        return {
            "p50": 1000 * self.percentile(50),
            "p95": 1000 * self.percentile(95),
            "max": 1000 * self.longest,
        }


class LatencyStatistics:
    """Times of the chunks of a session.

    Args:
        algorithmic_delay: s from a sample to the first moment at which a prediction may depend on it, without any
            computing: waiting for the chunk, the window or the frame to be complete, and look-ahead.
        paced: whether samples arrive as they are measured. Else queues are always full, and only computing is timed.
    """

    def __init__(self, algorithmic_delay: float, paced: bool):
        self.algorithmic_delay = algorithmic_delay
        self.paced = paced
        self.signal = 0.0
        self.compute = Durations()
        self.queue = Durations()
        self.end_to_end = Durations()

    def add(self, seconds: float, arrival: float, begin: float, end: float) -> None:
        """One chunk of `seconds`: when it arrived, when its processing began and ended (the same clock, s)."""
        self.signal += seconds
        self.compute.add(end - begin)
        self.queue.add(max(begin - arrival, 0.0))
        self.end_to_end.add(max(end - arrival, 0.0))

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing per second of signal; 0 before the first chunk."""
        return self.compute.total / self.signal if self.signal else 0.0

    def as_dict(self) -> dict[str, Any]:
        """ "chunks", "signal_s", "compute_s", "real_time_factor", "algorithmic_delay_ms", and p50, p95, max in ms of
        "compute_ms" and, if paced, "queue_ms" and "end_to_end_ms" (from the arrival of a chunk to its predictions)."""
        result: dict[str, Any] = {
            "chunks": self.compute.count,
            "signal_s": self.signal,
            "compute_s": self.compute.total,
            "real_time_factor": self.real_time_factor,
            "algorithmic_delay_ms": 1000 * self.algorithmic_delay,
            "compute_ms": self.compute.summary(),
        }
        if self.paced:
            result |= {"queue_ms": self.queue.summary(), "end_to_end_ms": self.end_to_end.summary()}
        return result

    def table(self) -> str:
        """The same as lines of text."""
        rows = [("compute per chunk", self.compute)]
        if self.paced:
            rows += [("wait in queue", self.queue), ("arrival to prediction", self.end_to_end)]
        lines = [
            f"{self.signal:.1f} s of signal in {self.compute.count} chunks, {self.compute.total:.2f} s of computing: "
            f"real-time factor {self.real_time_factor:.3f}",
            f"{'ms':<22}{'p50':>9}{'p95':>9}{'max':>9}",
        ]
        for name, durations in rows:
            lines.append(f"{name:<22}" + "".join(f"{value:>9.2f}" for value in durations.summary().values()))
        lines.append(f"algorithmic delay {1000 * self.algorithmic_delay:.0f} ms, in addition to these")
        return "\n".join(lines)
