"""What reports of event detection show: probabilities beside the events, and what happened to each gesture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from tinymyo_hf.event_detection import THRESHOLD, TimedEvents
from trainers.report import COLOURS, kept_run, markdown_table, save_figure

EXCERPT_SECONDS = 8.0
ERROR_TITLE = "Error of detected events (%)"
RATE_TITLES = {"misses_per_hour": "Misses per hour", "false_activations_per_hour": "False activations per hour"}


def excerpt(
    name: str,
    probabilities: np.ndarray,
    times: np.ndarray,
    truth: TimedEvents,
    found: TimedEvents,
    labels: Sequence[str],
) -> dict[str, Any]:
    """The middle 8 s of a recording, as `plot_excerpt` takes them; plain types.

    Args:
        name: of the recording.
        probabilities: (frames, gestures); `times` (frames,) in s.

    Returns:
        `recording`; `times`, first and last in s; `percent`, a text of whole numbers, one per frame, for each gesture;
        `events` and `detected`, [gesture, s] each.
    """
    start = max((times[-1] - EXCERPT_SECONDS) / 2, 0.0)
    frames = (times >= start) & (times <= start + EXCERPT_SECONDS)
    percent = np.round(100 * probabilities[frames]).astype(int)

    def inside(events: TimedEvents) -> list[list]:
        pairs = zip(events.labels.tolist(), events.times.tolist(), strict=True)
        return [[labels[label], round(t, 4)] for label, t in pairs if start <= t <= start + EXCERPT_SECONDS]

    shown = times[frames]
    return {
        "recording": name,
        "times": [round(float(shown[0]), 4), round(float(shown[-1]), 4)],
        "percent": {
            label: " ".join(map(str, column)) for label, column in zip(labels, percent.T.tolist(), strict=True)
        },
        "events": inside(truth),
        "detected": inside(found),
    }


def plot_excerpt(example: Mapping[str, Any], path: str | Path) -> None:
    """PNG with a row per gesture: its probability, a line at each true event and a triangle at each detected one."""
    labels = list(example["percent"])
    figure, axes = plt.subplots(figsize=(12, 0.6 * len(labels) + 1.6), layout="constrained")
    for row, label in enumerate(labels):
        values = np.array(example["percent"][label].split(), dtype=float) / 100
        base = len(labels) - 1 - row
        times = np.linspace(*example["times"], len(values))
        colour = COLOURS[row % len(COLOURS)]
        axes.axhline(base + 0.8 * THRESHOLD, color="0.85", linewidth=0.8)
        axes.fill_between(times, base, base + 0.8 * values, color=colour, alpha=0.6, linewidth=0)
        true = [time for name, time in example["events"] if name == label]
        found = [time for name, time in example["detected"] if name == label]
        axes.vlines(true, base, base + 0.85, color="black", linewidth=1.4, label="true event" if not row else None)
        axes.plot(
            found, np.full(len(found), base + 0.8 * THRESHOLD), ">", color="#D55E00", markersize=7,
            markeredgecolor="white", label="detected event" if not row else None,
        )  # fmt: skip
    axes.set_yticks([len(labels) - 1 - row + 0.4 for row in range(len(labels))], labels)
    axes.set(xlabel="Time (s)", xlim=example["times"], ylim=(-0.1, len(labels)))
    axes.set_title(f"Probability of each gesture, {example['recording']} (grey: threshold {THRESHOLD})")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def plot_gestures(models: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """PNG with bars for each gesture and model: error, misses and false activations.

    Args:
        models: name -> `per_gesture` rows of `event_scores`.
    """
    gestures = [row["gesture"] for row in next(iter(models.values()))]
    figure, panels = plt.subplots(1, 3, figsize=(13, 0.5 * len(gestures) + 1.8), layout="constrained", sharey=True)
    height = 0.8 / len(models)
    for axes, (key, title) in zip(panels, {"error": ERROR_TITLE, **RATE_TITLES}.items(), strict=True):
        for index, (name, rows) in enumerate(models.items()):
            values = [np.nan if row[key] is None else row[key] * (100 if key == "error" else 1) for row in rows]
            places = np.arange(len(gestures)) + (index - (len(models) - 1) / 2) * height
            axes.barh(places, values, height, color=COLOURS[index % len(COLOURS)], label=name)
        axes.set(xlabel=title, xlim=(0, None))
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(gestures)), gestures)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models), frameon=False)
    save_figure(figure, path)


def plot_event_confusion(scores: Mapping[str, Any], labels: Sequence[str], path: str | Path) -> None:
    """PNG of the counts: a row per true gesture with what it was taken for, or missed; the last row are predictions
    without an event. Colours are shares of the row."""
    matched = np.asarray(scores["confusion_matrix"])
    counts = np.zeros((len(labels) + 1, len(labels) + 1), int)
    counts[:-1, :-1], counts[:-1, -1], counts[-1, :-1] = matched, scores["missed"], scores["false"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.6 * len(labels) + 2.6
    figure, axes = plt.subplots(figsize=(size + 0.8, size), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels) + 1), [*labels, "missed"], rotation=45, ha="right")
    axes.set_yticks(range(len(labels) + 1), [*labels, "no event"])
    axes.set(xlabel="Predicted", ylabel="True", title=f"Events ({scores['events']:,} in {scores['hours']:.2f} h)")
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize="small")
    save_figure(figure, path)


def plot_event_results(results: Mapping[str, Any], folder: Path) -> None:
    """`events.png`, `per_gesture.png` and `confusion_matrix.png` of the kept seed."""
    scores = kept_run(results)["test"]
    plot_excerpt(scores["example"], folder / "events.png")
    plot_gestures(_gestures_by_model(results), folder / "per_gesture.png")
    plot_event_confusion(scores, results["labels"], folder / "confusion_matrix.png")


def gesture_tables(results: Mapping[str, Any]) -> str:
    """Markdown: pictures, and a row per gesture for each model."""
    models = _gestures_by_model(results)
    rows = []
    for index, first in enumerate(next(iter(models.values()))):
        cells = [
            f"{_percent(row['error'])} / {row['misses_per_hour']:.0f} / {row['false_activations_per_hour']:.0f}"
            for row in (of[index] for of in models.values())
        ]
        rows.append([first["gesture"], first["events"], *cells])
    table = markdown_table(["Gesture", "Events", *models], rows)
    return f"""### By gesture (error of detected events in percent / misses per hour / false activations per hour)

{table}

![By gesture](per_gesture.png)

![Probabilities and events](events.png)

![What events were taken for](confusion_matrix.png)"""


def _gestures_by_model(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    network = {"TinyMyo": kept_run(results)["test"]["per_gesture"]}
    return network | {name: scores["per_gesture"] for name, scores in results["baselines"].items()}


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}"
