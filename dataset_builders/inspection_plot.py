"""A picture of one recording: every channel with its labels, a close-up, and its spectrum."""

import os
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.signal import welch

from .content import UNLABELLED, Signal
from .signal_quality import MAINS

COLUMNS = 1500  # what is longer is drawn as the span of its values in each of so many stretches
CLOSE_UP = 200  # samples
ROW_HEIGHT = 0.62  # inches per channel
GOLDEN_RATIO = 0.618
INK, RULE, MARK = "#1f2a33", "#d7dce0", "#D55E00"
# Colours that stay apart for colour-blind readers (Okabe & Ito); corpora with more classes use a wheel.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


def plot_recording(signal: Signal, path: str | Path, title: str, class_names: tuple[str, ...] = ()) -> None:
    """Write a PNG (or what the suffix of `path` says): the channels over time, a close-up, the spectra.

    Args:
        signal: (channels, time) with labels, events or neither; a rate of 0 stands for an unknown one.
        path: to write, whole or not at all.
        title: of the picture.
        class_names: of the labels.
    """
    channels = len(signal.samples)
    height = max(3.2, (ROW_HEIGHT if channels <= 16 else 0.75 * ROW_HEIGHT) * channels + 1.6)
    figure = Figure(figsize=(14, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display, and leaves the reader's own settings alone
    axes = figure.subplots(channels, 3, sharex="col", squeeze=False, gridspec_kw={"width_ratios": (6, 2.4, 2)})
    colours = _class_colours(signal, class_names)
    middle = _liveliest(signal.samples)
    limit = _shared_limit(signal.samples)
    for channel, (overview, close_up, spectrum) in enumerate(axes):
        values = np.asarray(signal.samples[channel], np.float64)
        _draw_overview(overview, values, signal, colours, limit, middle)
        _draw_close_up(close_up, values, signal, colours, middle)
        _draw_spectrum(spectrum, values, signal.sampling_rate)
        overview.set_ylabel(str(channel), rotation=0, ha="right", va="center", fontsize=10, color=INK)
        for axis in (overview, close_up, spectrum):
            _clean(axis, bottom=channel == channels - 1)
    _name_columns(axes, signal, limit)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK, fontweight="bold")
    _draw_legend(figure, colours)
    _save(figure, Path(path))


def _draw_overview(
    axis: Axes, values: np.ndarray, signal: Signal, colours: dict[str, tuple], limit: float, middle: slice
) -> None:
    seconds = _unit(signal)
    _shade(axis, signal, colours, slice(0, len(values)))
    finite = np.isfinite(values)
    centred = np.where(finite, values - (values[finite].mean() if finite.any() else 0.0), np.nan)
    if len(values) <= COLUMNS:
        axis.plot(np.arange(len(values)) * seconds, centred, color=INK, linewidth=0.8)
    else:
        low, high, edges = _envelope(centred)
        # a column that touches its neighbour by nothing would be drawn as a gap
        axis.fill_between(edges * seconds, low, high, step="post", color=INK, linewidth=0.5, edgecolor=INK)
    _mark_gaps(axis, values, seconds)
    _mark_events(axis, signal)
    axis.axvspan(middle.start * seconds, middle.stop * seconds, facecolor="none", edgecolor=MARK, linewidth=1.0)
    axis.set_xlim(0, len(values) * seconds)
    axis.set_ylim(-limit, limit)


def _draw_close_up(axis: Axes, values: np.ndarray, signal: Signal, colours: dict[str, tuple], middle: slice) -> None:
    seconds = _unit(signal)
    _shade(axis, signal, colours, middle)
    axis.plot(np.arange(middle.start, middle.stop) * seconds, values[middle], color=INK, linewidth=0.8)
    axis.set_xlim(middle.start * seconds, middle.stop * seconds)
    axis.yaxis.tick_right()
    axis.margins(y=0.15)


def _draw_spectrum(axis: Axes, values: np.ndarray, rate: float) -> None:
    scale = rate or 1.0
    window = min(len(values), max(64, round(rate)))
    frequencies, power = welch(np.nan_to_num(values), scale, nperseg=window)
    shown = frequencies > (0.004 * scale)  # what is left of the offset would set the scale
    decibels = 10 * np.log10(np.maximum(power[shown], np.finfo(float).tiny))
    for mains in MAINS if rate else ():
        for line in np.arange(mains, min(rate / 2, 4.5 * mains), mains):
            axis.axvline(line, color=MARK if mains == 50 else "#0072B2", linewidth=0.6, linestyle=(0, (2, 2)), zorder=0)
    floor = decibels.max() - 60
    decibels = np.maximum(decibels, floor)
    axis.fill_between(frequencies[shown], decibels, floor - 60, color="#8fa3b0", linewidth=0)
    axis.plot(frequencies[shown], decibels, color=INK, linewidth=0.7)
    axis.set_xlim(0, scale / 2)
    axis.set_ylim(max(np.percentile(decibels, 2) - 6, floor), decibels.max() + 3)
    axis.set_yticks([])


def _shade(axis: Axes, signal: Signal, colours: dict[str, tuple], stretch: slice) -> None:
    """Tint the background with the class of the samples."""
    if signal.labels is None or not colours:
        return
    labels = np.asarray(signal.labels)[stretch]
    borders = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(labels)]]) + stretch.start
    by_id = {label: colour for label, colour in colours.values()}
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        label = int(signal.labels[start])
        if label in by_id:
            axis.axvspan(start * _unit(signal), stop * _unit(signal), color=by_id[label], alpha=0.32, linewidth=0)


def _mark_gaps(axis: Axes, values: np.ndarray, seconds: float) -> None:
    missing = ~np.isfinite(values)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]])))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        axis.axvspan(start * seconds, stop * seconds, color=MARK, alpha=0.8, linewidth=0.8)


def _mark_events(axis: Axes, signal: Signal) -> None:
    if signal.events is not None:
        for start in signal.events.starts:
            axis.axvline(start * _unit(signal), ymin=0.84, color=MARK, linewidth=0.8, alpha=0.6)


def _name_columns(axes: np.ndarray, signal: Signal, limit: float) -> None:
    time = "seconds" if signal.sampling_rate else "samples"
    spectrum = "spectrum, dB (dots: line noise)" if signal.sampling_rate else "spectrum, dB"
    overview = f"signal, mean removed, ±{limit:.3g} for every channel"
    if signal.events is not None:
        overview += "; the marks on top are events"
    headings = (overview, "close-up of the frame, raw values", spectrum)
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, fontsize=10, loc="left", color=INK)
    for axis, text in zip(axes[-1], (time, time, "Hz" if signal.sampling_rate else "cycles per sample"), strict=True):
        axis.set_xlabel(text, fontsize=10, color=INK)


def _draw_legend(figure: Figure, colours: dict[str, tuple]) -> None:
    if colours:
        patches = [Patch(color=colour, alpha=0.4, label=name) for name, (_, colour) in colours.items()]
        columns = min(len(patches), 8)
        figure.legend(handles=patches, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)


def _clean(axis: Axes, bottom: bool) -> None:
    for name, spine in axis.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(RULE)
    axis.tick_params(length=0, labelsize=8, colors=INK, labelbottom=bottom)
    axis.tick_params(axis="x", length=2 if bottom else 0)
    axis.locator_params(axis="y", nbins=3)


def _class_colours(signal: Signal, class_names: tuple[str, ...]) -> dict[str, tuple[int, object]]:
    """{class name: (label, colour)} of the classes that occur."""
    if signal.labels is None:
        return {}
    present = [int(label) for label in np.unique(signal.labels) if label != UNLABELLED]
    if len(present) <= len(PALETTE):
        wheel = PALETTE
    else:
        wheel = [colormaps["hsv"](i * GOLDEN_RATIO % 1) for i in range(len(present))]  # neighbours lie far apart
    names = [class_names[label] if label < len(class_names) else str(label) for label in present]
    return {name: (label, wheel[i]) for i, (name, label) in enumerate(zip(names, present, strict=True))}


def _envelope(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest value in each of `COLUMNS` stretches, and their first samples."""
    starts = np.linspace(0, len(values), COLUMNS, endpoint=False).astype(np.int64)
    low = np.fmin.reduceat(values, starts)
    high = np.fmax.reduceat(values, starts)
    # neighbours overlap, as the line through them would
    low[1:], high[1:] = np.fmin(low[1:], high[:-1]), np.fmax(high[1:], low[:-1])
    return low, high, starts


def _liveliest(samples: np.ndarray) -> slice:
    """The stretch of `CLOSE_UP` samples with the most movement, all channels taken together."""
    length = samples.shape[1]
    if length <= CLOSE_UP:
        return slice(0, length)
    deviation = np.abs(np.nan_to_num(np.asarray(samples, np.float64)))
    deviation = np.abs(np.diff(deviation / np.maximum(deviation.std(axis=1, keepdims=True), 1e-30), axis=1)).sum(axis=0)
    sums = np.convolve(deviation, np.ones(CLOSE_UP - 1), "valid")
    # a single step, as of an electrode that comes off, is not what is of interest: the liveliest but for 0.5 %
    start = int(np.argmin(np.abs(sums - np.quantile(sums, 0.995))))
    return slice(start, start + CLOSE_UP)


def _shared_limit(samples: np.ndarray) -> float:
    """A scale for all rows that leaves out rare peaks."""
    rows = [row[np.isfinite(row)] for row in samples if np.isfinite(row).any()]
    limits = [np.quantile(np.abs(row - row.mean()), 0.999) for row in rows]
    return float(max(limits, default=0.0)) * 1.1 or 1.0


def _unit(signal: Signal) -> float:
    """Seconds per sample, or 1 where the rate is not known."""
    return 1 / signal.sampling_rate if signal.sampling_rate else 1.0


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=110)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
