"""The model card of a training run: metadata the Hub reads, measured figures, and how to reproduce and use them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from trainers.report import METRIC_TITLES, score_table, scores_by_model, subject_table, write_text

_METRIC_TYPES = {"accuracy": "accuracy", "f1_macro": "f1", "auroc_macro": "roc_auc"}


def write_model_card(results: Mapping[str, Any], folder: str | Path) -> None:
    """Write `README.md` from the content of `results.json`."""
    folder = Path(folder)
    write_text(folder / "README.md", f"---\n{_metadata(results, folder.resolve().name)}\n---\n\n{_body(results)}")


def _metadata(results: Mapping[str, Any], name: str) -> str:
    base = results["arguments"]["model"]["model_name_or_path"]
    scores = [
        EvalResult(
            task_type="time-series-classification",
            task_name="EMG classification",
            dataset_type=results["dataset"],
            dataset_name=results["dataset"],
            dataset_split="test",
            metric_type=kind,
            metric_name=METRIC_TITLES[metric],
            metric_value=round(100 * results["test"][metric]["mean"], 2),
        )
        for metric, kind in _METRIC_TYPES.items()
        if results["test"][metric]["mean"] is not None
    ]
    data = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="time-series-classification",
        tags=["emg", "biosignals", "tinymyo", "emg-classification"],
        datasets=None,
        base_model=None if base is None or Path(base).exists() else base,
        model_name=name,
        eval_results=scores,
    )
    return data.to_yaml()


def _body(results: Mapping[str, Any]) -> str:
    window, runs, parameters = results["window"], results["runs"], results["parameters"]
    scores, subjects = scores_by_model(results)
    base = results["arguments"]["model"]["model_name_or_path"]
    preset = results["arguments"]["model"]["preset"]
    origin = f"fine-tuned from `{base}`" if base else f"trained from scratch (`{preset}`)"
    counts = ", ".join(
        f"{split} {results['windows'][split]:,} windows (subjects: {results['subjects'][split]})"
        for split in results["windows"]
    )
    undefined = sorted({results["labels"][i] for run in runs for i in run["test"]["auroc_undefined_classes"]})
    absent = f"Classes without AUROC (absent from the test split): {', '.join(undefined)}." if undefined else ""
    unseen = " No test subject was trained on." if results["unseen_subjects"] else ""
    spread = "" if len(runs) == 1 else f" TinyMyo: mean ± standard deviation over {len(runs)} seeds."
    command = results["command"] or "trainers.finetune.run(...), with the arguments in results.json"
    environment = results["environment"]
    settings = "\n".join(f"| `{name}` | `{value}` |" for name, value in results["hyperparameters"].items())
    return f"""# TinyMyo on {results["dataset"]}

Surface-EMG classifier, {origin}: {parameters["total"]:,} parameters ({parameters["trainable"]:,} trained),
{len(results["labels"])} classes: {", ".join(results["labels"])}.

Input: windows of {window["length"]} samples ({window["seconds"]:g} s at {window["sampling_rate"]:g} Hz); the exact
preprocessing is in `preprocessor_config.json`.

## Use

```python
import tinymyo_hf
from transformers import pipeline

classify = pipeline("emg-classification", model="PATH_OR_HUB_ID")
print(classify("recording.csv", sampling_rate={window["sampling_rate"]:g}))
```

## Measured on the test split

{score_table(scores)}

Percent; each model saw the same windows.{spread} The baselines are linear discriminant analysis and a random forest on
time-domain features (mean absolute value, RMS, waveform length, zero crossings, slope-sign changes, log variance).
{absent}

Data: `{results["dataset"]}`; {counts}.{unseen}
Weights were selected on the validation split; the test split was used once, at the end. The weights in this folder are
those of seed {results["kept_seed"]}.

### By subject (accuracy, percent)

{subject_table(subjects)}

![Accuracy by subject](per_subject.png)

![Confusion matrix](confusion_matrix.png)

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

Measured only on the subjects, electrodes and gestures of `{results["dataset"]}`. Another armband, electrode position or
sampling rate needs its own evaluation, and usually a short fine-tuning. Not a medical device.
"""
