"""The report of a personalization: scores against repetitions recorded, as tables, a picture and a README.

Rows are what `results.json` holds under `rows`: `{"subject", "seed", "model", "shots", "accuracy", "f1_macro", ...}`,
one for each model, number of repetitions and seed. Spreads are over people: seeds are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from huggingface_hub import ModelCardData
from matplotlib.ticker import MaxNLocator

from trainers.personalize_baselines import ALONE
from trainers.report import COLOURS, Column, format_score, markdown_table, mean_and_std, save_figure, write_text

METHOD_TITLES = {"head": "TinyMyo, head", "lora": "TinyMyo, LoRA", "full": "TinyMyo, full"}
ACCURACY = Column("accuracy", "Accuracy", 100)
F1 = Column("f1_macro", "Macro F1", 100)

Rows = Sequence[Mapping[str, Any]]


def subject_scores(rows: Rows, model: str, shots: int, key: str) -> dict[str, float]:
    """Subject -> score of a model calibrated with so many repetitions, averaged over seeds; empty if not measured."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["model"] == model and row["shots"] == shots:
            found.setdefault(row["subject"], []).append(row[key])
    return {subject: float(np.mean(values)) for subject, values in found.items()}


def summarize(rows: Rows, key: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Model -> shots (as text) -> `mean_and_std` of a score over subjects."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for model, shots in dict.fromkeys((row["model"], row["shots"]) for row in rows):
        scores = subject_scores(rows, model, shots, key)
        summary.setdefault(model, {})[str(shots)] = mean_and_std(list(scores.values()))
    return summary


def shots_table(rows: Rows, column: Column) -> str:
    """A row per model, a column per number of repetitions: mean and standard deviation over subjects."""
    summary = summarize(rows, column.key)
    shots = sorted({row["shots"] for row in rows})
    body = [
        [model, *(format_score(column, scores[str(k)]) if str(k) in scores else "–" for k in shots)]
        for model, scores in summary.items()
    ]
    return markdown_table([f"{column.title}, repetitions of one's own", *map(str, shots)], body)


def gain_table(rows: Rows, column: Column) -> str:
    """What calibration changes for people: from the fewest repetitions to the most, of models that exist with both."""
    least, most = min(row["shots"] for row in rows), max(row["shots"] for row in rows)
    body = []
    for model in dict.fromkeys(row["model"] for row in rows):
        before, after = (subject_scores(rows, model, shots, column.key) for shots in (least, most))
        if before and after:
            gains = np.array([after[subject] - before[subject] for subject in before])
            body.append(
                [
                    model,
                    format_score(column, mean_and_std(gains.tolist())),
                    f"{int((gains > 0).sum())} / {int((gains == 0).sum())} / {int((gains < 0).sum())}",
                    f"{column.scale * gains.min():+.{column.digits}f}",
                ]
            )
    return markdown_table([f"{column.title}, from {least} to {most}", "Gain", "Better / same / worse", "Worst"], body)


def subject_table(rows: Rows, column: Column) -> str:
    """A row per person: every model with the fewest and the most repetitions."""
    least, most = min(row["shots"] for row in rows), max(row["shots"] for row in rows)
    models = list(dict.fromkeys(row["model"] for row in rows))
    pairs = [(model, shots) for model in models for shots in dict.fromkeys((least, most))]
    scores = {pair: subject_scores(rows, *pair, column.key) for pair in pairs}
    shown = [pair for pair in pairs if scores[pair]]
    body = [
        [subject, *(format_score(column, scores[pair][subject]) for pair in shown)]
        for subject in dict.fromkeys(row["subject"] for row in rows)
    ]
    return markdown_table(["Subject", *(f"{model} ({shots})" for model, shots in shown)], body)


def plot_shots(rows: Rows, path: str | Path, column: Column = ACCURACY) -> None:
    """PNG of the mean score against repetitions: networks solid, with a thin line per person; classical ones dashed."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    networks = set(METHOD_TITLES.values())
    summary = summarize(rows, column.key)
    families = list(dict.fromkeys(_family(model) for model in summary))
    for model, scores in summary.items():
        colour = COLOURS[families.index(_family(model)) % len(COLOURS)]
        shots = sorted(map(int, scores))
        if model in networks:
            by_shots = [subject_scores(rows, model, k, column.key) for k in shots]
            for subject in by_shots[0]:
                person = [column.scale * found[subject] for found in by_shots]
                axes.plot(shots, person, color=colour, alpha=0.25, linewidth=0.8)
            style = {"linewidth": 2.2, "marker": "o"}
        else:
            style = {
                "linestyle": ":" if model == ALONE.format(_family(model)) else "--",
                "marker": "s",
                "markersize": 4,
            }
        means = [column.scale * scores[str(k)]["mean"] for k in shots]
        axes.plot(shots, means, color=colour, label=model, **style)
    axes.set(xlabel="Repetitions of each gesture that calibrate", ylabel=f"{column.title} (%)")
    people = len({row["subject"] for row in rows})
    axes.set_title(f"The same windows of {people} people at every number of repetitions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    save_figure(figure, path)


def _family(model: str) -> str:
    """The name by which a model has its colour: that of a classical model, whatever it is fitted on."""
    return model if model in METHOD_TITLES.values() else model.split(",")[0]


def render_summary(results: Mapping[str, Any]) -> str:
    """The tables of a finished run, for the terminal."""
    return f"{shots_table(results['rows'], ACCURACY)}\n\n{gain_table(results['rows'], ACCURACY)}"


def write_report(results: Mapping[str, Any], folder: str | Path) -> None:
    """Write `README.md` and `accuracy.png` from the content of `results.json`."""
    folder = Path(folder)
    plot_shots(results["rows"], folder / "accuracy.png")
    metadata = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        tags=["emg", "biosignals", "tinymyo", "personalization"],
        model_name=folder.resolve().name,
    )
    write_text(folder / "README.md", f"---\n{metadata.to_yaml()}\n---\n\n{_body(results)}")


def _body(results: Mapping[str, Any]) -> str:
    rows, environment = results["rows"], results["environment"]
    calibration = "\n".join(
        f"| {METHOD_TITLES[method]} | {', '.join(f'`{name}: {value}`' for name, value in fields.items())} |"
        for method, fields in results["calibration"].items()
    )
    command = results["command"] or "trainers.personalize.run(...), with the arguments in results.json"
    spread = f" Scores of {len(results['seeds'])} seeds are averaged first." if len(results["seeds"]) > 1 else ""
    return f"""# Personalization on {results["dataset"]}

A classifier of {len(results["labels"])} gestures ({", ".join(results["labels"])}), calibrated with the first
repetitions of each gesture by people it was not trained on, and tested on later repetitions of theirs.

{results["protocol"]}

## Accuracy and macro F1 (percent, mean ± standard deviation over {len(results["subjects"])} people)

{shots_table(rows, ACCURACY)}

{shots_table(rows, F1)}

"0" is the model as it comes. "Others and own": fitted on the training people and the calibration repetitions together;
"own only": on the calibration repetitions alone, which is what a user would do without any of this.{spread}

![Accuracy against repetitions](accuracy.png)

## What calibration changes

{gain_table(rows, ACCURACY)}

{subject_table(rows, ACCURACY)}

## How it was measured

{_evaluation(results)}

| Method | Calibration |
| --- | --- |
{calibration}

No validation windows were used in a calibration: it runs for so many epochs and keeps the last weights.

Reproduce with

    {command}

Measured on {environment["hardware"]} with torch {environment["torch"]} and transformers {environment["transformers"]}.

## Limits

{_limits(results)}
"""


def _evaluation(results: Mapping[str, Any]) -> str:
    windows = [split["evaluation"] for split in results["windows"].values()]
    last = results["evaluation_repetitions"]
    which = f"those after the first {max(results['shots'])}" if last is None else f"the last {last}"
    left_out = "".join(f"\n- {subject}: {reason}" for subject, reason in results["left_out"].items())
    return (
        f"Evaluated on {which} of each gesture's repetitions ({min(windows)} to {max(windows)} windows per person), "
        "which no model saw:\nthe same for every method and number of repetitions. A repetition is never divided "
        "between calibration and evaluation." + (f"\n\nLeft out:\n{left_out}" if left_out else "")
    )


def _limits(results: Mapping[str, Any]) -> str:
    points = [
        f"{len(results['subjects'])} people of one corpus: differences between methods that are small beside the "
        "standard deviations prove nothing.",
        "How long a calibration lasts was not measured beyond what lies between the repetitions of the corpus.",
    ]
    if results["normalization"] != "none" and results["normalization_scope"] == "recording":
        points.append(
            "Each recording was normalised as a whole, evaluation samples included (without their labels); live use "
            "has to normalise with what it has seen."
        )
    return "\n".join(f"- {point}" for point in points)
