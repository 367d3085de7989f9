"""The report of a regression: scores by output and subject as tables and bars, and predicted against true traces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from tinymyo_hf.tasks.blending import blend_windows
from trainers.report import COLOURS, kept_run, markdown_table, save_figure

TRACE_SECONDS = 20.0
TRACE_RATE = 20.0  # Hz at most: joints move at a few Hz
MOST_TRACES = 10


def models_of(results: Mapping[str, Any], rows: str, key: str) -> dict[str, list[dict[str, Any]]]:
    """`results.json` -> model -> `rows` ("per_output", "per_subject"): the network, averaged over seeds, first.

    Args:
        key: of a row's name, "output" or "subject".
    """
    runs = zip(*(run["test"][rows] for run in results["runs"]), strict=True)
    network = [{key: same[0][key]} | {score: _mean(same, score) for score in ("mae", "rmse", "r2")} for same in runs]
    return {"TinyMyo": network} | {name: scores[rows] for name, scores in results["baselines"].items()}


def _mean(rows: Sequence[Mapping[str, Any]], score: str) -> float | None:
    values = [row[score] for row in rows]
    return None if None in values else float(np.mean(values))


def score_rows(models: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> str:
    """Table of MAE / RMSE / R2 with a row per output or subject and a column per model, as `models_of` gives them."""
    rows = [
        [same[0][key], *(" / ".join((_shown(r["mae"]), _shown(r["rmse"]), _shown(r["r2"], 3))) for r in same)]
        for same in zip(*models.values(), strict=True)
    ]
    return markdown_table([key.capitalize(), *models], rows)


def _shown(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def typical_trace(
    predictions: np.ndarray,
    targets: np.ndarray,
    recordings: Sequence[str],
    starts: Sequence[int],
    window_length: int,
    sampling_rate: float,
) -> dict[str, Any]:
    """A stretch of at most `TRACE_SECONDS` of the recording whose error is the median of all recordings.

    Overlapping windows are blended as in `pipeline("emg-regression")`, at the stride of the split.

    Args:
        predictions, targets: (windows, frames, outputs).
        recordings, starts: (windows,) recording, and first sample in it, of each window.
        window_length: samples; sampling_rate: Hz.

    Returns:
        `recording`, `start` (seconds in the recording), `rate` (Hz, at most `TRACE_RATE`), and `target` and
        `prediction`: for each output a text of numbers, one per frame.
    """
    recordings, starts, frames = np.asarray(recordings), np.asarray(starts), targets.shape[1]
    error = np.abs(predictions - targets).mean(axis=(1, 2))
    names = np.unique(recordings)
    by_error = sorted(names, key=lambda name: error[recordings == name].mean())
    typical = by_error[(len(by_error) - 1) // 2]
    mine = np.flatnonzero(recordings == typical)
    mine = mine[np.argsort(starts[mine], kind="stable")]
    breaks = np.flatnonzero(np.diff(starts[mine]) > window_length) + 1  # nothing is known between such windows
    mine = max(np.split(mine, breaks), key=len)
    mine = mine[starts[mine] + window_length <= starts[mine[0]] + max(window_length, TRACE_SECONDS * sampling_rate)]

    first = (starts[mine] - starts[mine[0]]) * frames // window_length
    length = int(first[-1]) + frames
    frame_rate = sampling_rate * frames / window_length
    step = math.ceil(frame_rate / TRACE_RATE)

    def stitched(values: np.ndarray) -> list[str]:
        joined = blend_windows(((at, values[i]) for at, i in zip(first.tolist(), mine, strict=True)), length)
        return [" ".join(f"{value:.5g}" for value in output) for output in joined[::step].T]

    return {
        "recording": str(typical),
        "start": float(starts[mine[0]] / sampling_rate),
        "rate": frame_rate / step,
        "target": stitched(targets),
        "prediction": stitched(predictions),
    }


def plot_trace(trace: Mapping[str, Any], outputs: Sequence[str], path: str | Path) -> None:
    """PNG of predicted and true trajectories, one row per output, at most `MOST_TRACES`. `trace`: `typical_trace`."""
    truth, prediction = (np.array([t.split() for t in trace[k]], float).T for k in ("target", "prediction"))
    shown = outputs[:MOST_TRACES]
    seconds = trace["start"] + np.arange(len(truth)) / trace["rate"]
    figure, rows = plt.subplots(
        len(shown), 1, figsize=(10, 1.2 + 1.35 * len(shown)), sharex=True, squeeze=False, layout="constrained"
    )
    for i, (axes, name) in enumerate(zip(rows[:, 0], shown, strict=True)):
        axes.plot(seconds, truth[:, i], color="black", linewidth=1.6, label="true")
        axes.plot(seconds, prediction[:, i], color=COLOURS[0], linewidth=1.4, label="predicted")
        mae = np.abs(prediction[:, i] - truth[:, i]).mean()
        axes.set_title(f"{name}   (MAE here {mae:.2f})", fontsize="small", loc="left")
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    rows[-1, 0].set_xlabel("Seconds")
    more = "" if len(shown) == len(outputs) else f", the first {len(shown)} of {len(outputs)} outputs"
    figure.suptitle(f"{trace['recording']}: the recording of median error{more}", fontsize="medium")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    save_figure(figure, path)


def plot_outputs(models: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """PNG with MAE and R2 of each output, a bar per model. `models`: name -> `per_output` rows; R2 below 0 is cut."""
    outputs = [row["output"] for row in next(iter(models.values()))]
    size = (max(9.0, 0.9 * len(outputs) + 5), 4.2)
    figure, panels = plt.subplots(1, 2, figsize=size, layout="constrained")
    width = 0.8 / len(models)
    for axes, score, title in zip(
        panels, ("mae", "r2"), ("MAE (less is better)", "R2 (1 is best, below 0 is not shown)"), strict=True
    ):
        for index, (name, rows) in enumerate(models.items()):
            offset = (index - (len(models) - 1) / 2) * width
            heights = [np.nan if row[score] is None else row[score] for row in rows]
            axes.bar(np.arange(len(outputs)) + offset, heights, width, label=name, color=COLOURS[index % len(COLOURS)])
        axes.set_xticks(range(len(outputs)), outputs, rotation=30, ha="right")
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    panels[1].set_ylim(0, 1)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models), frameon=False)
    save_figure(figure, path)


def plot_regression(results: Mapping[str, Any], folder: Path) -> None:
    """`traces.png` (of the kept seed) and `per_output.png`."""
    plot_trace(kept_run(results)["test"]["trace"], results["outputs"], folder / "traces.png")
    plot_outputs(models_of(results, "per_output", "output"), folder / "per_output.png")
