"""Reports: markdown tables, confusion matrix and curves as PNG, and JSON written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed, or assumed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from trainers.metrics import HEADLINE_METRICS

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "accuracy_macro": "Macro accuracy",
    "f1_macro": "Macro F1",
    "auroc_macro": "Macro AUROC",
    "cohen_kappa": "Cohen kappa",
}
# Colours that stay apart for colour-blind readers and in greyscale (Okabe & Ito).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


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


def summarize_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per headline metric, `mean_and_std` over the scores of several runs."""
    return {name: mean_and_std([run.get(name) for run in runs]) for name in HEADLINE_METRICS}


def format_score(score: float | None, std: float | None = None) -> str:
    """0.9363, 0.0041 -> "93.63 ± 0.41": scores are fractions in JSON and percentages in tables."""
    if score is None:
        return "undefined"
    return f"{100 * score:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose first column is text and whose other columns are right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def score_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per model, in percent.

    Args:
        models: name -> scores; a score is a number, or a `mean_and_std`.
    """
    rows = []
    for name, scores in models.items():
        cells = []
        for metric in HEADLINE_METRICS:
            score = scores.get(metric)
            cells.append(
                format_score(score["mean"], score["std"]) if isinstance(score, Mapping) else format_score(score)
            )
        rows.append([name, *cells])
    return markdown_table(["Model", *(METRIC_TITLES[metric] for metric in HEADLINE_METRICS)], rows)


def subject_table(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy of every subject under every model, in percent. `models`: name -> `per_subject` rows of the metrics."""
    by_subject = {name: {row["subject"]: row for row in rows} for name, rows in models.items()}
    first = next(iter(by_subject.values()))
    rows = [
        [subject, row["windows"], *(format_score(scores[subject]["accuracy"]) for scores in by_subject.values())]
        for subject, row in first.items()
    ]
    return markdown_table(["Subject", "Windows", *models], rows)


def average_subjects(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """`per_subject` rows of several runs on the same windows -> one row per subject with the mean accuracy."""
    return [
        {
            "subject": rows[0]["subject"],
            "windows": rows[0]["windows"],
            "accuracy": float(np.mean([row["accuracy"] for row in rows])),
            "f1_macro": float(np.mean([row["f1_macro"] for row in rows])),
        }
        for rows in zip(*runs, strict=True)
    ]


def plot_confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: str | Path) -> None:
    """PNG of a confusion matrix (rows: truth) in percent of each row; rows without windows stay empty."""
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    share = 100 * np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    few = len(labels) <= 20  # with more classes the numbers would overlap: the colours carry the message
    size = max(4.0, 0.55 * len(labels) + 2.0) if few else 11.0
    figure, axes = plt.subplots(figsize=(size + 1.2, size), layout="constrained")
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.8, label="% of the true class")
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=45 if few else 90, ha="right" if few else "center")
    axes.set_yticks(ticks, labels)
    if not few:
        axes.tick_params(labelsize=6)
    axes.set(xlabel="Predicted", ylabel="True", title=f"Confusion matrix ({int(counts.sum()):,} test windows)")
    if few:
        for row, column in np.ndindex(*share.shape):
            if totals[row]:
                colour = "white" if share[row, column] > 55 else "black"
                axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=colour)
    _save(figure, path)


def plot_learning_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """PNG with the losses on the left and the validation scores on the right, one line per seed.

    Args:
        histories: name of the run -> rows with `epoch` and any of `train_loss`, `validation_loss`, `accuracy`,
            `f1_macro`; `best` marks the row whose weights were kept.
    """
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    many = len(histories) > 1
    for index, (name, rows) in enumerate(histories.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        suffix = f" ({name})" if many else ""
        for axes, key, style, title in (
            (losses, "train_loss", "--", "training"),
            (losses, "validation_loss", "-", "validation"),
            (scores, "accuracy", "-", "accuracy"),
            (scores, "f1_macro", "--", "macro F1"),
        ):
            points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=title + suffix)
        for row in rows:
            if row.get("best"):
                scores.plot(row["epoch"], row["accuracy"], "o", color=colour, label=f"kept{suffix}")
    losses.set(xlabel="Epoch", ylabel="Loss", title="Loss")
    scores.set(xlabel="Epoch", ylabel="Score", title="Validation")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="small")
    _save(figure, path)


def plot_subjects(models: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, unseen: bool = False) -> None:
    """PNG with one group of bars per subject, one bar per model.

    Args:
        models: name -> `per_subject` rows.
        unseen: say that no window of these subjects was trained on.
    """
    subjects = [row["subject"] for row in next(iter(models.values()))]
    figure, axes = plt.subplots(figsize=(max(6.0, 0.8 * len(subjects) + 2.5), 4), layout="constrained")
    width = 0.8 / len(models)
    for index, (name, rows) in enumerate(models.items()):
        accuracy = {row["subject"]: 100 * row["accuracy"] for row in rows}
        offset = (index - (len(models) - 1) / 2) * width
        heights = [accuracy[subject] for subject in subjects]
        axes.bar(np.arange(len(subjects)) + offset, heights, width, label=name, color=_COLOURS[index % len(_COLOURS)])
    axes.set_xticks(range(len(subjects)), subjects, rotation=45 if len(subjects) > 12 else 0)
    axes.set(ylabel="Accuracy (%)", ylim=(0, 100), title="Accuracy by subject")
    axes.set_xlabel("Subject (unseen in training)" if unseen else "Subject")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(models), frameon=False)
    _save(figure, path)


def _save(figure: Any, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=120)
    plt.close(figure)
    os.replace(partial, path)


def scores_by_model(results: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`results.json` -> (name -> headline scores, name -> per-subject rows): the network first, then the baselines."""
    runs = results["runs"]
    name = "TinyMyo" if len(runs) == 1 else f"TinyMyo, {len(runs)} seeds"
    scores = {name: results["test"], **results["baselines"]}
    subjects = {"TinyMyo": average_subjects([run["test"]["per_subject"] for run in runs])}
    return scores, subjects | {model: rows["per_subject"] for model, rows in results["baselines"].items()}


def write_plots(results: Mapping[str, Any], folder: str | Path) -> None:
    """`confusion_matrix.png` (of the kept seed), `per_subject.png` and, where there is a history, the curves."""
    folder = Path(folder)
    kept = next(run for run in results["runs"] if run["seed"] == results["kept_seed"])
    plot_confusion_matrix(kept["test"]["confusion_matrix"], results["labels"], folder / "confusion_matrix.png")
    plot_subjects(scores_by_model(results)[1], folder / "per_subject.png", results["unseen_subjects"])
    histories = {f"seed {run['seed']}": run["history"] for run in results["runs"] if run["history"]}
    if histories:
        plot_learning_curves(histories, folder / "learning_curves.png")
