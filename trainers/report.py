"""Reports of any task: markdown tables, learning curves as PNG, and files written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed, or assumed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

# Colours that stay apart for colour-blind readers and in greyscale (Okabe & Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


@dataclass(frozen=True)
class Column:
    """A score as tables show it.

    Attributes:
        key: of the score in `results.json`.
        title: of the column, with the unit.
        scale: factor from the stored to the shown value: 100 for percentages.
        digits: after the point.
        metric_type: what the Hub calls the metric; None leaves it out of the card's metadata.
    """

    key: str
    title: str
    scale: float = 1.0
    digits: int = 2
    metric_type: str | None = None


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader sees either the old content or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: str | Path, content: Any) -> None:
    """`write_text` of indented JSON; NaN is refused, because it is not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def mean_and_std(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean, sample standard deviation (None for a single value) and count of the values that are defined."""
    defined = np.array([value for value in values if value is not None], dtype=np.float64)
    return {
        "mean": float(defined.mean()) if defined.size else None,
        "std": float(defined.std(ddof=1)) if defined.size > 1 else None,
        "count": int(defined.size),
    }


def summarize_seeds(runs: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """Per column, `mean_and_std` over the scores of several runs; without columns that no run has measured."""
    return {
        column.key: mean_and_std([run.get(column.key) for run in runs])
        for column in columns
        if any(column.key in run for run in runs)
    }


def format_score(column: Column, score: float | Mapping[str, Any] | None) -> str:
    """A score, or its `mean_and_std`, as its column shows it: 0.9363, 0.0041 -> "93.63 ± 0.41"."""
    value, std = (score["mean"], score["std"]) if isinstance(score, Mapping) else (score, None)
    if value is None:
        return "undefined"
    numbers = (value,) if std is None else (value, std)
    return " ± ".join(f"{column.scale * number:.{column.digits}f}" for number in numbers)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose first column is text and whose other columns are right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def score_table(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """One row per model, without columns that were measured of none. `models`: name -> scores; a score is a number, or
    a `mean_and_std`."""
    columns = [column for column in columns if any(column.key in scores for scores in models.values())]
    rows = [
        [name, *(format_score(column, scores.get(column.key)) for column in columns)] for name, scores in models.items()
    ]
    return markdown_table(["Model", *(column.title for column in columns)], rows)


def plot_learning_curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], columns: Sequence[Column], path: str | Path
) -> None:
    """PNG with the losses on the left and a validation score on the right, one line per seed.

    Args:
        histories: name of the run -> rows with `epoch` and any of `train_loss`, `validation_loss` and the score; `best`
            marks the row whose weights were kept.
        columns: the score to show is the first of them that there is.
    """
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    rows_of_all = [row for rows in histories.values() for row in rows]
    column = next((c for c in columns if any(row.get(c.key) is not None for row in rows_of_all)), columns[0])
    many = len(histories) > 1
    for index, (name, rows) in enumerate(histories.items()):
        colour = COLOURS[index % len(COLOURS)]
        suffix = f" ({name})" if many else ""
        for axes, key, scale, style, title in (
            (losses, "train_loss", 1.0, "--", "training"),
            (losses, "validation_loss", 1.0, "-", "validation"),
            (scores, column.key, column.scale, "-", column.title),
        ):
            points = [(row["epoch"], scale * row[key]) for row in rows if row.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, marker=".", color=colour, label=title + suffix)
        for row in rows:
            if row.get("best") and row.get(column.key) is not None:
                scores.plot(row["epoch"], column.scale * row[column.key], "o", color=colour, label=f"kept{suffix}")
    losses.set(xlabel="Epoch", ylabel="Loss", title="Loss")
    scores.set(xlabel="Epoch", ylabel=column.title, title="Validation")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    save_figure(figure, path)


def save_figure(figure: Any, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=120)
    plt.close(figure)
    os.replace(partial, path)


def scores_by_model(results: Mapping[str, Any]) -> dict[str, Any]:
    """`results.json` -> name -> scores of its table: the network first, then the baselines."""
    runs, family = results["runs"], family_of(results)
    name = family if len(runs) == 1 else f"{family}, {len(runs)} seeds"
    return {name: results["test"], **results["baselines"]}


def family_of(results: Mapping[str, Any]) -> str:
    """What reports call the model."""
    return results.get("family", "TinyMyo")  # files of earlier runs have no such field


def kept_run(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run whose weights are in the folder."""
    return next(run for run in results["runs"] if run["seed"] == results["kept_seed"])


def plot_histories(results: Mapping[str, Any], columns: Sequence[Column], folder: Path) -> None:
    """`learning_curves.png` of all runs, where there is a history."""
    histories = {f"seed {run['seed']}": run["history"] for run in results["runs"] if run["history"]}
    if histories:
        plot_learning_curves(histories, columns, folder / "learning_curves.png")
