"""The report of a classifier: accuracy by subject and confusion matrix, as tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from trainers.report import COLOURS, family_of, kept_run, markdown_table, save_figure


def subject_table(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy of every subject under every model, in percent. `models`: name -> `per_subject` rows of the metrics."""
    by_subject = {name: {row["subject"]: row for row in rows} for name, rows in models.items()}
    first = next(iter(by_subject.values()))
    rows = [
        [subject, row["windows"], *(_percent(scores[subject]["accuracy"]) for scores in by_subject.values())]
        for subject, row in first.items()
    ]
    return markdown_table(["Subject", "Windows", *models], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


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
    save_figure(figure, path)


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
        axes.bar(np.arange(len(subjects)) + offset, heights, width, label=name, color=COLOURS[index % len(COLOURS)])
    axes.set_xticks(range(len(subjects)), subjects, rotation=45 if len(subjects) > 12 else 0)
    axes.set(ylabel="Accuracy (%)", ylim=(0, 100), title="Accuracy by subject")
    axes.set_xlabel("Subject (unseen in training)" if unseen else "Subject")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(models), frameon=False)
    save_figure(figure, path)


def subjects_by_model(results: Mapping[str, Any]) -> dict[str, Any]:
    """`results.json` -> name -> rows per subject: the network first, then the baselines."""
    network = average_subjects([run["test"]["per_subject"] for run in results["runs"]])
    baselines = {name: scores["per_subject"] for name, scores in results["baselines"].items()}
    return {family_of(results): network} | baselines


def plot_classification(results: Mapping[str, Any], folder: Path) -> None:
    """`confusion_matrix.png` (of the kept seed) and `per_subject.png`."""
    matrix = kept_run(results)["test"]["confusion_matrix"]
    plot_confusion_matrix(matrix, results["labels"], folder / "confusion_matrix.png")
    plot_subjects(subjects_by_model(results), folder / "per_subject.png", results["unseen_subjects"])
