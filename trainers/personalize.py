"""Personalise a gesture classifier: how much do a few repetitions of somebody's own gestures help?

    model, data, arguments = parse_recipe("personalize_uci", ["--data_dir", "uci_emg.tar.xz"])
    results = run(model, data, arguments)

A generic classifier that never saw a person is calibrated with the first 0, 1, 2, ... repetitions of each gesture by
that person, in several ways, and scored on later ones, always the same; classical models fitted on the same
repetitions, with and without the other people's, stand beside it. An output folder holds `results.json`, the report
`README.md`, the plot, and `seed-N/` with a file per person and the generic models. Started again, an interrupted run
goes on with the people that are left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch.utils.data import Subset

from tinymyo_hf import TinyMyoForSequenceClassification
from trainers.arguments import DataArguments, ModelArguments, PersonalizationArguments
from trainers.augmentation import make_augmentation
from trainers.calibration import METHODS, calibrate, calibration_settings, predict_windows
from trainers.cohort import Cohort, Fold, training_record
from trainers.errors import RecipeError
from trainers.finetune import describe_settings, run_seed
from trainers.models import load_trained
from trainers.personalize_baselines import ClassicalModels, headline_scores
from trainers.personalize_report import METHOD_TITLES, render_summary, summarize, write_report
from trainers.repetitions import ShotSplit, check_shots, describe_split, personalizable, split_repetitions
from trainers.report import write_json
from trainers.runs import check_one_process, claim_output, describe_environment

Row = dict[str, Any]


def run(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: PersonalizationArguments,
    command: str | None = None,
) -> dict[str, Any]:
    """Personalise to every person and write the output folder.

    Args:
        model_arguments: what the generic model starts from, or the classifier itself; its `lora_` fields describe the
            adapters of the method "lora".
        command: the command line that reproduces the run, for the report.

    Returns:
        The content of `results.json`.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described.
    """
    _check(model_arguments, data_arguments, arguments)
    settings = {name: calibration_settings(name, arguments.calibration.get(name, {})) for name in arguments.methods}
    recipe = describe_settings(model_arguments, data_arguments, arguments)
    output = Path(arguments.output_dir)
    claim_output(output, recipe, arguments.overwrite)
    cohort, folds, protocol = _plan(model_arguments, data_arguments, arguments)
    kept, left_out = personalizable(
        cohort.origins,
        [subject for fold in folds for subject in fold.subjects],
        arguments.shots,
        len(cohort.labels),
        arguments.evaluation_repetitions,
    )
    if not kept:
        raise RecipeError(f"nobody in {data_arguments.dataset} can be personalised to: {_reasons(left_out)}")
    session = _Session(cohort, model_arguments, arguments, settings, output)
    splits = {subject: session.split(subject) for subject in kept}
    rows = [row for seed in arguments.seeds for fold in folds for row in session.run_fold(fold, splits, seed)]
    results = {
        "task": "emg-personalization",
        "dataset": data_arguments.dataset,
        "protocol": protocol,
        "labels": cohort.labels,
        "subjects": kept,
        "left_out": left_out,
        "seeds": arguments.seeds,
        "shots": sorted(set(arguments.shots)),
        "evaluation_repetitions": arguments.evaluation_repetitions,
        "normalization": cohort.extractor.normalization,
        "normalization_scope": cohort.extractor.normalization_scope,
        "windows": {subject: describe_split(split, cohort.origins) for subject, split in splits.items()},
        "calibration": settings,
        "scores": {name: summarize(rows, name) for name in ("accuracy", "f1_macro")},
        "rows": rows,
        "arguments": recipe,
        "command": command,
        "environment": describe_environment(arguments.device),
    }
    results["summary"] = f"{render_summary(results)}\n\nresults.json, README.md and accuracy.png are in {output}"
    write_report(results, output)
    write_json(output / "results.json", results)
    return results


def _check(model: ModelArguments, data: DataArguments, arguments: PersonalizationArguments) -> None:
    check_shots(arguments.shots, arguments.evaluation_repetitions)
    unknown = [method for method in [*arguments.methods, *arguments.calibration] if method not in METHODS]
    if unknown or not arguments.methods:
        raise RecipeError(f"methods {unknown or '[]'}: use {', '.join(METHODS)}")
    if model.lora or model.freeze_encoder:
        raise RecipeError("lora and freeze_encoder are for fine-tuning: here `methods: [head, lora]` asks for them")
    if data.train_fraction != 1.0:
        raise RecipeError("train_fraction has no meaning here: `shots` says how much of a person's data is used")
    check_one_process(arguments)
    if arguments.protocol == "checkpoint":
        if model.model_name_or_path is None:
            raise RecipeError("protocol: checkpoint needs a trained classifier: --model_name_or_path FOLDER")
        for name, value in (("folds", arguments.folds), ("model_config", model.model_config)):
            if value:
                raise RecipeError(f"{name} has no meaning with protocol: checkpoint, whose model is trained; remove it")


def _reasons(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{subject} has {reason}" for subject, reason in left_out.items())


def _plan(
    model: ModelArguments, data: DataArguments, arguments: PersonalizationArguments
) -> tuple[Cohort, list[Fold], str]:
    """The windows, who is held out together, and a sentence about it for the report."""
    if arguments.protocol == "leave_subjects_out":
        cohort = Cohort.load(data, None, None)
        folds = cohort.folds(arguments.folds)
        sizes = f"{len(folds)} groups" if arguments.folds else f"{len(folds)} people one by one"
        start, known = "random weights", ""
        if model.model_name_or_path:
            start = f"the encoder of `{model.model_name_or_path}`"
            known = " " + training_record(model.model_name_or_path, data.dataset, cohort.subjects())
        protocol = (
            f"Leave-subjects-out over {sizes}: for each, a generic model is trained from {start} on everybody else "
            f"but the next, on whom its weights are selected.{known}"
        )
        return cohort, folds, protocol
    _, extractor = load_trained(model.model_name_or_path, TinyMyoForSequenceClassification)
    cohort = Cohort.load(data, model.model_name_or_path, extractor)
    cohort.load_classifier(model.model_name_or_path)  # for its errors, before anything slow
    fold = cohort.given_fold(arguments.splits)
    known = training_record(model.model_name_or_path, data.dataset, fold.subjects)
    return cohort, [fold], f"The people of the split {' and '.join(arguments.splits)}. {known}"


@dataclass
class _Session:
    """One run: what every fold and person needs."""

    cohort: Cohort
    model_arguments: ModelArguments
    arguments: PersonalizationArguments
    settings: Mapping[str, Mapping[str, float]]
    output: Path

    def split(self, subject: str) -> ShotSplit:
        return split_repetitions(
            self.cohort.origins,
            self.cohort.origins.of_subject(subject),
            self.arguments.shots,
            self.cohort.extractor.window_length,
            self.arguments.evaluation_repetitions,
        )

    def run_fold(self, fold: Fold, splits: Mapping[str, ShotSplit], seed: int) -> Iterator[Row]:
        """The rows of everybody in a fold; those finished earlier are read."""
        folder = self.output / f"seed-{seed}"
        mine = {subject: splits[subject] for subject in fold.subjects if subject in splits}
        files = {subject: folder / f"subject-{quote(subject, safe='')}.json" for subject in mine}
        unfinished = [subject for subject in mine if not self._is_finished(files[subject])]
        if unfinished:
            classifier = self._generic(fold, seed, folder)
            classical = self._classical(fold, seed) if self.arguments.baselines else None
        for subject in unfinished:
            started = time.perf_counter()
            rows = [*self._network_rows(classifier, mine[subject], seed)]
            if classical is not None:
                rows += classical.rows(mine[subject])
            write_json(files[subject], [{"subject": subject, "seed": seed, **row} for row in rows])
            print(_progress(subject, rows, time.perf_counter() - started), flush=True)
        for file in files.values():
            yield from json.loads(file.read_text(encoding="utf-8"))

    def _is_finished(self, file: Path) -> bool:
        """Whether the rows of a person are there, with those of the classical models if they are asked for."""
        if not file.is_file():
            return False
        models = {row["model"] for row in json.loads(file.read_text(encoding="utf-8"))}
        return not self.arguments.baselines or not models <= set(METHOD_TITLES.values())

    def _generic(self, fold: Fold, seed: int, folder: Path) -> TinyMyoForSequenceClassification:
        """The classifier before any calibration: given, or trained on the others of this fold."""
        if not fold.name:
            return self.cohort.load_classifier(self.model_arguments.model_name_or_path)
        parts = {"train": self.cohort.part(fold.others), "validation": self.cohort.part(fold.validation)}
        task = self.cohort.task(parts)
        print(f"{fold.name}, without {', '.join(fold.subjects)}: {task.describe()}", flush=True)
        augmentation = make_augmentation(self.arguments.augmentations)
        run_seed(seed, task, self.model_arguments, self.arguments, augmentation, folder / fold.name)
        return self.cohort.load_classifier(str(folder / fold.name))

    def _network_rows(self, classifier: TinyMyoForSequenceClassification, split: ShotSplit, seed: int) -> Iterator[Row]:
        """Every method with every number of repetitions; without any, all methods are the classifier as it is."""
        uncalibrated = self._score(classifier, split) if 0 in split.calibration else {}
        for method in self.arguments.methods:
            for shots, rows in split.calibration.items():
                started, scores = time.perf_counter(), uncalibrated
                if shots:
                    own = Subset(self.cohort.windows, rows.tolist())
                    settings = self.settings[method]
                    model = calibrate(classifier, own, method, settings, self.arguments, self.model_arguments, seed)
                    seconds = time.perf_counter() - started
                    scores = self._score(model, split) | {"seconds": round(seconds, 2)}
                yield {"model": METHOD_TITLES[method], "shots": shots, **scores}

    def _score(self, model: TinyMyoForSequenceClassification, split: ShotSplit) -> dict[str, float | None]:
        evaluation = Subset(self.cohort.windows, split.evaluation.tolist())
        return headline_scores(*predict_windows(model, evaluation))

    def _classical(self, fold: Fold, seed: int) -> ClassicalModels:
        return ClassicalModels(*self.cohort.features, fold.others, len(self.cohort.labels), seed)


def _progress(subject: str, rows: Sequence[Row], seconds: float) -> str:
    shots = {row["shots"] for row in rows}
    parts = [
        f"{row['model']} {100 * row['accuracy']:.1f}"
        for row in rows
        if row["shots"] == max(shots) and row["model"] in METHOD_TITLES.values()
    ]
    before = [f"{100 * row['accuracy']:.1f}" for row in rows if row["shots"] == 0][:1]
    start = f"{before[0]} without calibration; " if before else ""
    return f"subject {subject}: accuracy {start}with {max(shots)} repetitions {', '.join(parts)} ({seconds:.0f} s)"
