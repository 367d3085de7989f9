"""What a pretraining leaves to read: curves, summary and model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from huggingface_hub import ModelCardData

from trainers.report import Column, format_score, markdown_table, save_figure, write_text

EXPLAINED = (
    Column("strength_explained", "strength explained %", scale=100.0),
    Column("explained", "signal explained %", scale=100.0),
)
PROBE = Column("probe_accuracy", "probe accuracy %", scale=100.0)
COLUMNS = (EXPLAINED[0], PROBE, EXPLAINED[1])


def write_plots(results: Mapping[str, Any], folder: Path) -> None:
    """`learning_curves.png`: training and validation loss, what is explained and, where there is one, the probe."""
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for rows, style, title in ((results["losses"], "--", "training"), (results["evaluations"], "-", "validation")):
        losses.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], style, marker=".", label=title)
    losses.set(xlabel="Epoch", ylabel="Loss", title="Loss", yscale="log")
    for column in COLUMNS:
        points = [(row["epoch"], 100 * row[column.key]) for row in results["evaluations"] if column.key in row]
        if points:
            scores.plot(*zip(*points, strict=True), marker=".", label=column.title)
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
    columns = [column for column in EXPLAINED if column.key in last]
    prefixes = {"all": ""} | {c["name"]: f"{c['name']}_" for c in results["corpora"] if f"{c['name']}_loss" in last}
    rows = [
        [name, f"{last[f'{prefix}loss']:.5f}", *(format_score(c, last[f"{prefix}{c.key}"]) for c in columns)]
        for name, prefix in prefixes.items()
    ]
    table = markdown_table(["Validation windows", "loss", *(column.title for column in columns)], rows)
    if PROBE.key in last:
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
    strength = ""
    if "strength_explained" in results["evaluations"][-1]:
        strength = "Strength explained: the same for the log RMS of each hidden token, against the window's mean.\n"
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

Surface-EMG encoder of {results["parameters"]["total"]:,} parameters (with the decoder it was trained with), pretrained
by masked reconstruction: {results["mask_ratio"]:.0%} of the tokens of each window are hidden, and the model restores
{"their samples and how strong each is" if strength else "their samples"}.

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

Each corpus keeps its own licence, which may restrict what may be done with a model trained on it.

{citations}

## Result

{_score_table(results)}

Signal explained: 1 - squared error / squared deviation from the channel's mean in the window, over the hidden samples.
{strength}Scored are at most {results["validation_windows"]:,} windows of each corpus, always with the same tokens
hidden.

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
