"""Predictions for one recording on the command line: made by the pipeline, shown as a table, written as CSV or JSON."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoFeatureExtractor, AutoModelForSequenceClassification, Pipeline, pipeline

from tinymyo_hf.quiet import quiet
from tinymyo_hf.signal import SignalError

SUFFIXES = (".csv", ".json")


class PredictionError(ValueError):
    """A prediction that cannot be made or written; the message names the file and the fix."""


def classify_file(
    checkpoint: str, file: str | Path, output: str | Path | None = None, batch_size: int = 32, **settings: Any
) -> dict[str, Any]:
    """Classify a recording with `pipeline("emg-classification")`, after checking that `output` can be written.

    Args:
        checkpoint: folder or Hub id of a trained classifier.
        file: the recording.
        output: where the windows will be written; checked before the work, not after it.
        settings: arguments of the pipeline's call; those that are None are left out.

    Raises:
        PredictionError: no usable checkpoint, or `output` of another kind.
        SignalError: the recording cannot be read, or does not suit the model.
    """
    if output is not None and Path(output).suffix.lower() not in SUFFIXES:
        raise PredictionError(f"{output}: predictions are written as {' or '.join(SUFFIXES)}; change the name")
    if not Path(checkpoint).exists() and Path(checkpoint).is_absolute():
        raise PredictionError(f"{checkpoint}: no such checkpoint; check the path")
    classify = _load_pipeline(checkpoint, batch_size)
    return classify(str(file), **{name: value for name, value in settings.items() if value is not None})


def _load_pipeline(checkpoint: str, batch_size: int) -> Pipeline:
    try:
        with quiet():
            model, found = AutoModelForSequenceClassification.from_pretrained(
                checkpoint, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
            _refuse_random_weights(checkpoint, found)
            extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
            return pipeline("emg-classification", model=model, feature_extractor=extractor, batch_size=batch_size)
    except (PredictionError, SignalError):
        raise
    except (OSError, ValueError, RuntimeError, StrictDataclassError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise PredictionError(f"{checkpoint} cannot be loaded as an EMG classifier: {reason}") from error


def _refuse_random_weights(checkpoint: str, found: dict[str, Any]) -> None:
    """Where weights are missing or do not fit, the library goes on with random ones."""
    if found["missing_keys"]:
        missing = ", ".join(sorted(found["missing_keys"])[:3])
        raise PredictionError(f"{checkpoint} is no trained classifier: it lacks {missing}; fine-tune it first")
    if found["mismatched_keys"]:
        name, stored, configured = min(found["mismatched_keys"])
        raise PredictionError(
            f"{checkpoint}: {name} has the shape {tuple(stored)}, but config.json asks for {tuple(configured)}; these "
            "files do not belong together"
        )


def format_windows(prediction: dict[str, Any], rows: int = 20) -> str:
    """The first windows as a table, and the recording's label with the scores of all labels below it."""
    windows = prediction["windows"]
    width = max(len(window["label"]) for window in windows)
    lines = [f"{'start s':>9}  {'end s':>9}  {'label':<{width}}  score"]
    lines += [
        f"{window['start']:9.2f}  {window['end']:9.2f}  {window['label']:<{width}}  {window['score']:.3f}"
        for window in windows[:rows]
    ]
    if len(windows) > rows:
        lines.append(f"... {len(windows) - rows} more windows; --output FILE.csv writes them all")
    scores = ", ".join(f"{label} {score:.3f}" for label, score in prediction["scores"].items())
    return "\n".join([*lines, "", f"whole recording: {prediction['label']} ({scores})"])


def write_predictions(prediction: dict[str, Any], path: str | Path) -> None:
    """Write the windows as CSV (start and end in seconds), or everything as JSON; whole or not at all."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        text = json.dumps(prediction, indent=2, ensure_ascii=False) + "\n"
    else:
        table = io.StringIO()
        writer = csv.DictWriter(table, ["start", "end", "label", "score"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(prediction["windows"])
        text = table.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
