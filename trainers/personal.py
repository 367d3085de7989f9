"""Calibrate a classifier to one person with a folder of their recordings, and save it: `tinymyo personalize`.

The folder has repetitions of every gesture the classifier knows. Where there are two or more of each, the calibration
is first tried without the last, on which the report scores it; the model that is saved has learned from all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCardData
from torch.utils.data import Subset

from tinymyo_hf import TinyMyoForSequenceClassification
from tinymyo_hf.quiet import quiet
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from trainers.arguments import FAMILIES, DataArguments, ModelArguments, PersonalizationArguments
from trainers.calibration import calibrate, calibration_settings, predict_windows
from trainers.cohort import Cohort
from trainers.errors import CheckpointError, RecipeError
from trainers.models import load_config, load_trained
from trainers.personalize_baselines import headline_scores
from trainers.repetitions import repetition_counts, split_repetitions
from trainers.report import write_json, write_text
from trainers.runs import describe_environment

CORPUS = "emg_folder"


def personalize_checkpoint(
    checkpoint: str,
    data_dir: str | Path,
    output: str | Path,
    *,
    method: str = "head",
    num_proc: int | None = None,
    dataset_config: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    seed: int = 0,
    command: str | None = None,
) -> dict[str, Any]:
    """Calibrate `checkpoint` on the recordings of one person and save the personal model in `output`.

    Args:
        checkpoint: folder or Hub id of a trained classifier.
        data_dir: recordings with a metadata.csv, as `emg_folder` reads them; their labels are those of the checkpoint.
        output: folder to make; an earlier personal model there is replaced.
        method: "head", "lora" or "full".
        dataset_config: options of `emg_folder` that the checkpoint's preprocessing does not fix, e.g. label_column.
        calibration: training fields that replace the method's defaults.

    Returns:
        The content of `results.json`; `summary` is a text for people.

    Raises:
        RecipeError: the recordings are of several people, or lack gestures.
        CheckpointError: the checkpoint cannot be loaded or does not fit the recordings.
        DataError: the recordings cannot be read.
    """
    settings = calibration_settings(method, calibration or {})
    output = _claim(Path(output))
    if isinstance(load_config(checkpoint, *FAMILIES), SEMGTransformerConfig):
        raise CheckpointError(
            f"{checkpoint} is a typing model, this command is for classifiers of gestures. Sessions with keystrokes "
            "make it a personal one: `tinymyo train emg2qwerty_personal_tiny --model_name_or_path "
            f"{checkpoint} --data_dir FOLDER --users NAME`"
        )
    classifier, extractor = load_trained(checkpoint, TinyMyoForSequenceClassification)
    labels = [classifier.config.id2label[index] for index in range(classifier.config.num_labels)]
    config = {"task": "classification", "protocol": "all_train", "class_names": labels} | dict(dataset_config or {})
    data = DataArguments(dataset=CORPUS, data_dir=str(data_dir), num_proc=num_proc, dataset_config=config)
    cohort = Cohort.load(data, checkpoint, extractor)
    classifier = cohort.load_classifier(checkpoint)
    rows = np.arange(len(cohort.windows))
    counts = _check(cohort, rows)

    arguments = PersonalizationArguments(output_dir=str(output))

    def calibrated(chosen: np.ndarray) -> TinyMyoForSequenceClassification:
        windows = Subset(cohort.windows, chosen.tolist())
        return calibrate(classifier, windows, method, settings, arguments, ModelArguments(), seed)

    scores = {}
    if min(counts.values()) > 1:
        split = split_repetitions(
            cohort.origins, rows, [min(counts.values()) - 1], extractor.window_length, evaluation_repetitions=1
        )
        (own,) = split.calibration.values()
        last = Subset(cohort.windows, split.evaluation.tolist())
        scores = {
            "before": headline_scores(*predict_windows(classifier, last)),
            "after": headline_scores(*predict_windows(calibrated(own), last)),
        }
    with quiet():
        calibrated(rows).save_pretrained(output)
    extractor.save_pretrained(output)
    results = {
        "task": "emg-classification",
        "checkpoint": checkpoint,
        "dataset": str(data_dir),
        "labels": labels,
        "method": method,
        "calibration": settings,
        "seed": seed,
        "windows": len(rows),
        "repetitions": {labels[label]: count for label, count in counts.items()},
        "held_out": scores,
        "warnings": _warnings(cohort),
        "command": command,
        "environment": describe_environment(arguments.device),
    }
    results["summary"] = _summary(results, output)
    write_text(output / "README.md", _card(results, output))
    write_json(output / "results.json", results)
    return results


def _claim(output: Path) -> Path:
    if output.is_file():
        raise RecipeError(f"{output} is a file; name a folder")
    if output.is_dir() and any(output.iterdir()) and not _holds_personal_model(output):
        raise RecipeError(f"{output} is not empty and holds no personal model: name a new or empty folder")
    return output


def _holds_personal_model(folder: Path) -> bool:
    record = folder / "results.json"  # of other runs too: the generic model must not be written over
    return record.is_file() and "held_out" in json.loads(record.read_text(encoding="utf-8"))


def _check(cohort: Cohort, rows: np.ndarray) -> dict[int, int]:
    """The repetitions of each class; an error for several people, and for gestures that nobody made."""
    people = cohort.subjects()
    if len(people) > 1:
        raise RecipeError(
            f"{cohort.name}: the recordings are of {len(people)} people ({', '.join(people[:5])}); a personal model is "
            f"for one of them: --subjects '[{people[0]}]'"
        )
    counts = repetition_counts(cohort.origins, rows)
    missing = [name for label, name in enumerate(cohort.labels) if label not in counts]
    if missing:
        raise RecipeError(
            f"no window of {', '.join(missing)}: the checkpoint tells {len(cohort.labels)} gestures apart and would "
            "forget those that are not shown to it. Record at least one repetition of each; for other gestures train a "
            "new head with `tinymyo train RECIPE --model_name_or_path CHECKPOINT`"
        )
    return counts


def _warnings(cohort: Cohort) -> list[str]:
    extractor, origins = cohort.extractor, cohort.origins
    by_file: dict[str, set[int]] = {}
    for recording, label in zip(origins.recording.tolist(), origins.label.tolist(), strict=True):
        by_file.setdefault(recording, set()).add(label)
    whole = extractor.normalization != "none" and extractor.normalization_scope == "recording"
    if whole and all(len(found) == 1 for found in by_file.values()):
        return [
            "The checkpoint normalises each recording as a whole, and each of these holds one gesture only: how strong "
            "the muscles were is lost. Record the gestures one after the other in one file."
        ]
    return []


def _summary(results: Mapping[str, Any], output: Path) -> str:
    return "\n\n".join([*results["warnings"], _measured(results), f"The personal model is in {output}"])


def _measured(results: Mapping[str, Any]) -> str:
    scores = results["held_out"]
    if not scores:
        return "Nothing was measured: there is one repetition of some gesture, which calibrated; record two or more."
    before, after = (100 * scores[name]["accuracy"] for name in ("before", "after"))
    return (
        f"Accuracy on the last repetition of each gesture ({scores['after']['windows']} windows), calibrated without "
        f"it: {after:.1f} %; before calibration {before:.1f} %. The saved model has learned from all repetitions."
    )


def _card(results: Mapping[str, Any], output: Path) -> str:
    base = results["checkpoint"]
    metadata = ModelCardData(
        library_name="transformers",  # and no licence: that of the checkpoint holds
        pipeline_tag="time-series-classification",
        tags=["emg", "biosignals", "tinymyo", "emg-classification", "personalization"],
        base_model=None if Path(base).exists() else base,
        model_name=output.resolve().name,
    )
    repetitions = ", ".join(f"{name} {count}" for name, count in results["repetitions"].items())
    fields = ", ".join(f"`{name}: {value}`" for name, value in results["calibration"].items())
    warnings = "".join(f"{warning}\n\n" for warning in results["warnings"])
    return f"""---
{metadata.to_yaml()}
---

# A personal gesture classifier

`{base}`, calibrated to one person ({results["method"]}: {fields}) with {results["windows"]} windows; repetitions:
{repetitions}.

{_measured(results)}

{warnings}One repetition of one person is little to measure on, and says nothing about other days, other electrode
positions or other people: calibrate anew after putting the electrodes on again. Not a medical device.
The licence of `{base}` holds.

    {results["command"] or "trainers.personal.personalize_checkpoint(...)"}
"""
