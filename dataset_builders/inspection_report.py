"""The findings of an inspection as text: tables for the figures, plain words for what is wrong."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .content import UNLABELLED
from .protocols import listed
from .signal_quality import ChannelQuality

if TYPE_CHECKING:
    from .inspection import Survey

SHOWN = 40  # lines of a table, names in a list
HUM_DECIBELS = 10.0
SATURATED = 1e-4
HELD = 0.9
MOST_LINES = 3  # about the same matter
WEAK = 0.1
OFFSET = 3.0


def report(survey: "Survey") -> str:
    """Tables and warnings of a survey."""
    parts = [survey.title, _overview(survey)]
    parts += [part for part in (_classes(survey), _events(survey), _channels(survey)) if part]
    found = warnings(survey)
    parts.append("\n".join(["Warnings", *(f"- {line}" for line in found)]) if found else "Nothing conspicuous.")
    return "\n\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns: text to the left, numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [all(_is_numeric(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in columns)
        for columns in (zip(row, widths, numeric, strict=True) for row in cells)
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:]))


def warnings(survey: "Survey") -> list[str]:
    """What a reader should know before using the data."""
    found = [f"cannot be read: {message}" for message in survey.unreadable[:SHOWN]]
    if len(survey.unreadable) > SHOWN:
        found.append(f"{len(survey.unreadable) - SHOWN} more recordings cannot be read")
    found += [f"while reading: {what}: {count}" for what, count in survey.notes.items() if count]
    if len(survey.rates) > 1:
        rates = ", ".join(f"{_rate(rate)} ({count})" for rate, count in survey.rates.items())
        found.append(f"the sampling rates differ: {rates}")
    if None in survey.rates:
        found.append("the sampling rate is not known, so nothing is said about frequencies: state it")
    found += _absent_classes(survey)
    quality = survey.quality
    if quality is not None:
        found += [*_gap_warnings(quality), *_shape_warnings(quality), *_hum_warnings(quality)]
        if quality.changing < HELD:
            found.append(
                f"values are held: only {_percent(quality.changing)} of the samples differ from the one before, an "
                f"update every {1 / max(quality.changing, 1e-9):.1f} samples; the true rate is that much lower"
            )
    return found


def _absent_classes(survey: "Survey") -> list[str]:
    seen = {label for label, _ in survey.classes}
    absent = [name for i, name in enumerate(survey.class_names) if i not in seen] if survey.classes else []
    return [f"no sample of {', '.join(absent)} in what was read"] if absent else []


def _gap_warnings(quality: ChannelQuality) -> list[str]:
    def gaps(c: int) -> str:
        return f"{quality.gaps[c]} gaps (NaN), the longest of {quality.longest_gap[c]} samples"

    return _per_channel(quality.gaps > 0, quality.missing, "has", gaps)


def _shape_warnings(quality: ChannelQuality) -> list[str]:
    rms, offset, typical = quality.rms, np.abs(quality.offset), np.median(quality.rms)

    def dead(c: int) -> str:
        return "dead: it never changes" + (
            f" in {quality.dead[c]} of {quality.takes} takes" if quality.takes > 1 else ""
        )

    def saturated(c: int) -> str:
        limits = f"{quality.low[c]:g} or {quality.high[c]:g}"
        return f"saturated {_percent(quality.saturation[c])} of the time, {quality.clipped_runs[c]} times at {limits}"

    def weak(c: int) -> str:
        return f"weak: its RMS is {_percent(rms[c] / typical)} of what is usual here"

    def shifted(c: int) -> str:
        return f"off zero by {offset[c] / rms[c]:.0f} times its RMS: filter that out"

    alive = rms > 0
    return [
        *_per_channel(quality.dead > 0, quality.dead, "is", dead),
        *_per_channel(quality.saturation > SATURATED, quality.saturation, "is", saturated),
        *_per_channel(alive & (rms < WEAK * typical), -rms, "is", weak),
        *_per_channel(alive & (offset > OFFSET * rms), offset / np.where(alive, rms, 1), "is", shifted),
    ]


def _per_channel(affected: np.ndarray, severity: np.ndarray, verb: str, describe: Callable[[int], str]) -> list[str]:
    """A line for each channel, or one for all if there are many, with the worst as the example."""
    channels = np.flatnonzero(affected)
    if len(channels) <= MOST_LINES:
        return [f"channel {c} {verb} {describe(c)}" for c in channels]
    worst = channels[np.argmax(severity[channels])]
    plural = {"is": "are", "has": "have"}[verb]
    what = describe(worst).split(":")[0].split(" ")[0]
    which = _channel_names(channels, len(affected))
    what = what if verb == "is" else "gaps (NaN)"
    return [f"{which} {plural} {what}; worst, channel {worst} {verb} {describe(worst)}"]


def _channel_names(channels: np.ndarray, count: int) -> str:
    if len(channels) == count > 1:
        return "all channels"
    return f"channel{'s' if len(channels) > 1 else ''} {', '.join(map(str, channels))}"


def _hum_warnings(quality: ChannelQuality) -> list[str]:
    found = []
    for frequency, levels in quality.hum().items():
        loud = np.flatnonzero(levels > HUM_DECIBELS)
        if len(loud):
            which = _channel_names(loud, quality.channels)
            level = f"{levels.max():.0f} dB above its neighbourhood"
            found.append(f"line noise at {frequency:g} Hz in {which}, up to {level}")
    return found


def _overview(survey: "Survey") -> str:
    lengths = np.array([length for length, _ in survey.durations])
    seconds = np.array([length / rate for length, rate in survey.durations if rate])
    span = f"{lengths.min()} to {lengths.max()} samples, median {np.median(lengths):g}"
    if len(seconds) == len(lengths):
        span = _time(seconds.sum())
        if len(seconds) > 1:
            median = _time(float(np.median(seconds)))
            span += f" in all; {_time(seconds.min())} to {_time(seconds.max())}, median {median}"
    read = f"{survey.read} of them read"
    rows = [
        (survey.unit, str(survey.recordings) if survey.read == survey.recordings else f"{survey.recordings} ({read})"),
        ("takes", str(len(survey.durations)) if len(survey.durations) != survey.read else ""),
        ("duration", span),
        ("rate", ", ".join(map(_rate, survey.rates))),
        ("channels", str(survey.quality.channels)),
        ("subjects", _names(survey.subjects)),
        ("sessions", _names(survey.sessions)),
        ("splits", ", ".join(f"{name} {count}" for name, count in survey.splits.items())),
        ("targets", f"{survey.targets} outputs" if survey.targets else ""),
        ("texts", f"{survey.texts}, {survey.characters} characters" if survey.texts else ""),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in rows if value)


def _classes(survey: "Survey") -> str:
    rows = []
    total = sum(survey.classes.values())
    for label in sorted({label for label, _ in survey.classes}):
        known = 0 <= label < len(survey.class_names)
        name = "(no class)" if label == UNLABELLED else survey.class_names[label] if known else str(label)
        per_rate = {rate: count for (other, rate), count in survey.classes.items() if other == label}
        samples = sum(per_rate.values())
        time = "" if None in per_rate else _time(sum(count / rate for rate, count in per_rate.items()))
        rows.append((name, survey.segments[label] or "", samples, time, _percent(samples / total)))
    if len(rows) > SHOWN:
        rows = [*rows[:SHOWN], (f"and {len(rows) - SHOWN} more", "", "", "", "")]
    return table(("class", "segments", "samples", "time", "share"), rows) if rows else ""


def _events(survey: "Survey") -> str:
    rows = [(name if name.strip() else repr(name), count) for name, count in survey.events.most_common(SHOWN)]
    if len(survey.events) > SHOWN:
        rows.append((f"and {len(survey.events) - SHOWN} more", ""))
    return table(("event", "count"), rows) if rows else ""


def _channels(survey: "Survey") -> str:
    quality = survey.quality
    hum = quality.hum()
    frequencies = [f for f in hum if f in (50.0, 60.0) or hum[f].max() > HUM_DECIBELS]
    header = ("channel", "lowest", "highest", "offset", "RMS", "saturated", "missing", "dead in")
    rows = [
        (
            str(c),
            f"{quality.low[c]:.4g}",
            f"{quality.high[c]:.4g}",
            f"{quality.offset[c]:.3g}",
            f"{quality.rms[c]:.3g}",
            _percent(quality.saturation[c]),
            int(quality.missing[c]),
            int(quality.dead[c]),
            *(f"{round(hum[f][c]) if np.isfinite(hum[f][c]) else hum[f][c]} dB" for f in frequencies),
        )
        for c in range(quality.channels)
    ]
    return table((*header, *(f"{f:g} Hz" for f in frequencies)), rows)


def _names(counts: dict) -> str:
    names = [name for name in counts if name]
    runs = listed(names).split(", ")
    shown = ", ".join(runs[:SHOWN]) + (", ..." if len(runs) > SHOWN else "")
    return f"{len(names)}: {shown}" if names else ""


def _is_numeric(cell: str) -> bool:
    return not cell or cell[0] in "0123456789-+." or cell in ("inf", "nan")


def _percent(share: float) -> str:
    """A share as percent, with digits where it is small."""
    value = 100 * share
    if value == 0 or value >= 9.95:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.1g} %"


def _rate(rate: float | None) -> str:
    return "not known" if rate is None else f"{rate:g} Hz"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
