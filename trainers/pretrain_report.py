"""What a pretraining leaves to read: curves, summary and model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from huggingface_hub import ModelCardData

from trainers.report import Column, format_score, markdown_table, save_figure, write_text

COLUMNS = (
    Column("explained", "variance explained %", scale=100.0),
    Column("probe_accuracy", "probe accuracy %", scale=100.0),
)


def write_plots(results: Mapping[str, Any], folder: Path) -> None:
    """`learning_curves.png`: training and validation loss, variance explained and, where there is one, the probe."""
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for rows, style, title in ((results["losses"], "--", "training"), (results["evaluations"], "-", "validation")):
        losses.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], style, label=title)
    losses.set(xlabel="Epoch", ylabel="Loss", title="Loss", yscale="log")
    for column in COLUMNS:
        points = [(row["epoch"], 100 * row[column.key]) for row in results["evaluations"] if column.key in row]
        if points:
            scores.plot(*zip(*points, strict=True), label=column.title)
    scores.set(xlabel="Epoch", ylabel="%", title="Validation")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, folder / "learning_curves.png")


def summarize(results: Mapping[str, Any], folder: Path) -> str:
    """The last evaluation in words, and where everything is."""
    return f"{_score_table(results)}\n\nEncoder, model card, results.json and pictures are in {folder}"


def _score_table(results: Mapping[str, Any]) -> str:
    last = results["evaluations"][-1]
    names = [corpus["name"] for corpus in results["corpora"] if f"{corpus['name']}_loss" in last]
    rows = [["all", f"{last['loss']:.5f}", format_score(COLUMNS[0], last["explained"])]]
    rows += [
        [name, f"{last[f'{name}_loss']:.5f}", format_score(COLUMNS[0], last[f"{name}_explained"])] for name in names
    ]
    table = markdown_table(["Validation windows", "Loss", "Variance explained where masked (%)"], rows)
    if "probe_accuracy" in last:
        table += (
            f"\n\nLinear probe on {results['probe']['dataset']}: accuracy {100 * last['probe_accuracy']:.2f} %, "
            f"macro F1 {100 * last['probe_f1_macro']:.2f} %"
        )
    return table


def write_pretraining_card(results: Mapping[str, Any], folder: Path) -> None:
    """Write `README.md` from the content of `results.json`."""
    data = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        tags=["emg", "biosignals", "tinymyo", "emg-pretraining"],
    )
    write_text(folder / "README.md", f"---\n{data.to_yaml()}\n---\n\n{_body(results)}")


def _body(results: Mapping[str, Any]) -> str:
    window, batch, environment = results["window"], results["batch"], results["environment"]
    corpora = markdown_table(
        ["Corpus", "Channels", "Subjects", "Training windows", "Per epoch", "Validation windows", "Licence"],
        [
            [
                corpus["name"],
                corpus["channels"],
                corpus["subjects"]["train"],
                f"{corpus['windows']['train']:,}",
                f"{results['windows_per_epoch'][corpus['name']]:,}",
                f"{corpus['windows'].get('validation', 0):,}",
                corpus["licence"],
            ]
            for corpus in results["corpora"]
        ],
    )
    citations = "\n".join(f"- {corpus['citation']}" for corpus in results["corpora"] if corpus["citation"])
    settings = "\n".join(f"| `{name}` | `{value}` |" for name, value in results["hyperparameters"].items())
    command = results["command"] or "trainers.pretrain.run(...), with the arguments in results.json"
    return f"""# TinyMyo encoder

Surface-EMG encoder of {results["parameters"]["total"]:,} parameters, pretrained by masked reconstruction: half of the
tokens of each window are hidden, and the model restores their samples.

Input: windows of {window["length"]} samples ({window["length"] / window["sampling_rate"]:g} s at
{window["sampling_rate"]:g} Hz), up to {window["channels"]} channels in training; the encoder takes any number.
`preprocessor_config.json` holds the preprocessing of the first corpus; `results.json` that of each.

## Use

```python
from tinymyo_hf import TinyMyoForSequenceClassification

model = TinyMyoForSequenceClassification.from_pretrained("PATH_OR_HUB_ID", num_channels=8, num_labels=6)
```

The same works with every other head. `tinymyo train RECIPE --model_name_or_path PATH_OR_HUB_ID` fine-tunes it.

## Data

{corpora}

The weights are this project's; each corpus keeps its own licence, which may restrict what may be done with a model
trained on it.

{citations}

## Result

{_score_table(results)}

Variance explained: 1 - squared error / variance of the channel within the window, over the masked samples.

![Learning curves](learning_curves.png)

Pictures of reconstructions, one per evaluation, are in `reconstructions/`.

## Training

{results["steps"]:,} steps ({results["epochs"]:g} epochs) in batches of {batch["total"]} windows
({batch["windows"]} x {batch["accumulation"]} micro-batches x {batch["processes"]} processes); the last start took
{results["train_seconds"]:,.0f} s.

| Field | Value |
| --- | --- |
{settings}

Reproduce with

    {command}

Measured on {environment["hardware"]} with torch {environment["torch"]} and transformers {environment["transformers"]}.
"""
