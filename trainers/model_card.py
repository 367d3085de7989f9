"""The model card of a training run: metadata the Hub reads, measured figures, and how to reproduce and use them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from trainers.report import family_of, score_table, scores_by_model, write_text
from trainers.tasks import Task


def write_model_card(results: Mapping[str, Any], task: type[Task], folder: str | Path) -> None:
    """Write `README.md` from the content of `results.json`."""
    folder = Path(folder)
    text = f"---\n{_metadata(results, task, folder.resolve().name)}\n---\n\n{_body(results, task)}"
    write_text(folder / "README.md", text)


def _metadata(results: Mapping[str, Any], task: type[Task], name: str) -> str:
    base = results["arguments"]["model"]["model_name_or_path"]
    scores = [
        EvalResult(
            task_type="time-series-classification",
            task_name=task.name,
            dataset_type=results["dataset"],
            dataset_name=results["dataset"],
            dataset_split=results["test_split"],
            metric_type=column.metric_type,
            metric_name=column.title,
            metric_value=round(column.scale * results["test"][column.key]["mean"], column.digits),
        )
        for column in task.columns
        if column.metric_type and results["test"].get(column.key, {}).get("mean") is not None
    ]
    distilled = ["distillation"] if "teacher" in results else []
    data = ModelCardData(
        library_name="transformers",
        # of a base model, and maybe of a teacher, the licence goes on, and is not known here
        license=None if base or "teacher" in results else "apache-2.0",
        pipeline_tag="time-series-classification" if task.name == "emg-classification" else None,
        tags=["emg", "biosignals", family_of(results).lower().replace(" ", "-"), task.name, *distilled],
        datasets=None,
        base_model=None if base is None or Path(base).exists() else base,
        model_name=name,
        eval_results=scores,
    )
    return data.to_yaml()


def _body(results: Mapping[str, Any], task: type[Task]) -> str:
    runs, parameters = results["runs"], results["parameters"]
    base, preset = (results["arguments"]["model"][name] for name in ("model_name_or_path", "preset"))
    origin = f"fine-tuned from `{base}`" if base else f"trained from scratch (`{preset}`)"
    counts = ", ".join(
        f"{split} {results['windows'][split]:,} {task.unit} (subjects: {results['subjects'][split]})"
        for split in results["windows"]
    )
    command = results["command"] or "trainers.finetune.run(...), with the arguments in results.json"
    environment = results["environment"]
    settings = "\n".join(f"| `{name}` | `{value}` |" for name, value in results["hyperparameters"].items())
    part = task.card(results)
    licence = f" The licence of `{base}` holds for weights fine-tuned from it." if base else ""
    unseen = " No test subject was trained on." if results["unseen_subjects"] else ""
    if unseen and base:
        unseen = " No test subject was fine-tuned on; the checkpoint it started from may know some."
    spread = "" if len(runs) == 1 else f" {family_of(results)}: mean ± standard deviation over {len(runs)} seeds."
    return f"""# {family_of(results)} on {results["dataset"]}

{part["model"]} {parameters["total"]:,} parameters ({parameters["trainable"]:,} trained), {origin}.

Input: {_input(results["window"], task)}; the exact preprocessing is in
`preprocessor_config.json`.

## Use

```python
import tinymyo_hf
from transformers import pipeline

{part["use"]}
```

## Measured on the {results["test_split"]} split

{score_table(scores_by_model(results), task.columns)}

{part["scores"]}{spread}

Data: `{results["dataset"]}`; {counts}.{_fraction(results)}{unseen}
{_selection(results)} The weights in this folder are those of seed {results["kept_seed"]}.

{part["details"]}

## Training

| Field | Value |
| --- | --- |
{settings}

![Learning curves](learning_curves.png)

Reproduce with

    {command}

Measured on {environment["hardware"]} with torch {environment["torch"]} and transformers {environment["transformers"]};
{sum(run["train_seconds"] for run in runs):,.0f} s of training in all.

## Limits

{part["limits"]} Another device, electrode position or sampling rate needs its own evaluation, and usually a short
fine-tuning. Not a medical device.{licence}
"""


def _input(window: Mapping[str, float], task: type[Task]) -> str:
    if task.unit != "windows":
        return f"whole {task.unit} at {window['sampling_rate']:g} Hz"
    return f"windows of {window['length']} samples ({window['seconds']:g} s at {window['sampling_rate']:g} Hz)"


def _fraction(results: Mapping[str, Any]) -> str:
    fraction = results["arguments"]["data"]["train_fraction"]
    return "" if fraction == 1.0 else f" The training windows are {100 * fraction:g} % of those there are, at random."


def _selection(results: Mapping[str, Any]) -> str:
    if results["test_split"] == "test":
        return "Weights were selected on the validation split; the test split was used once, at the end."
    return (
        "This protocol has no test split: the weights were selected on the very split that is reported here, which "
        "favours the network."
    )
