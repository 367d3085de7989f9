"""Personalise a typing model: train a generic one further on the sessions of one user, for each of several users.

    model, data, arguments = parse_recipe("emg2qwerty_personal_tiny", ["--data_dir", "emg2qwerty"])
    results = run(model, data, arguments)

The generic model and the personal ones are scored on the same sessions of the user, which no model has seen. An output
folder holds `results.json`, the report `README.md` and the plot `cer.png`; `users/NAME` is a run of `task: ctc` of its
own, with the personal model of the seed that validated best. Started again, finished runs are not repeated and
interrupted ones go on; users may be added.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataset_builders.base import BUILDERS, DataError
from dataset_builders.protocols import SPLITS, natural_key
from trainers import finetune
from trainers.arguments import DataArguments, ModelArguments
from trainers.cohort import training_record
from trainers.ctc import CTCTask
from trainers.ctc_arguments import CTCArguments
from trainers.ctc_corpus import keystrokes_of, read_tokenizer
from trainers.ctc_models import semg_config
from trainers.errors import RecipeError
from trainers.personalize_ctc_arguments import CTCPersonalizationArguments, personal_learning_rate
from trainers.personalize_ctc_report import (
    GENERIC,
    PERSONAL,
    SCRATCH,
    over_seeds,
    render_summary,
    summarize,
    user_scores,
    write_report,
)
from trainers.report import format_score, write_json
from trainers.runs import check_one_process, claim_output, describe_environment
from trainers.tasks import read_corpus

Row = dict[str, Any]

BEFORE = "Before personalization"  # the generic model, in the report of a user
USER_OPTIONS = {"emg2qwerty": "user"}  # which has a split file for each; of other corpora, subjects are selected


@dataclass(frozen=True, eq=False)
class User:
    """One to personalise to.

    Attributes:
        name: as the recipe says it.
        data: the recipe's data, of this user alone.
        subjects: what the corpus calls the user.
        sessions, keystrokes: split -> how many.
    """

    name: str
    data: DataArguments
    subjects: tuple[str, ...]
    sessions: Mapping[str, int]
    keystrokes: Mapping[str, int]


def run(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: CTCPersonalizationArguments,
    command: str | None = None,
) -> dict[str, Any]:
    """Personalise to every user and write the output folder.

    Args:
        model_arguments: `model_name_or_path` is the generic model; `lora` trains adapters instead of every weight.
        command: the command line that reproduces the run, for the report.

    Returns:
        The content of `results.json`. A user whose training fails is in `failed`, with the reason; the others go on.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described, a user has not the sessions for it,
            or it fails for every user.
    """
    _check(model_arguments, data_arguments, arguments)
    config = semg_config(model_arguments)
    settings = finetune.describe_settings(model_arguments, data_arguments, arguments)
    output = Path(arguments.output_dir)
    claim_output(output, settings, arguments.overwrite)
    users = load_users(data_arguments, arguments.users)
    subjects = [subject for user in users for subject in user.subjects]
    protocol = training_record(model_arguments.model_name_or_path, data_arguments.dataset, subjects)

    session = _Session(model_arguments, arguments, personal_learning_rate(config.hidden_size), output, command)
    outcome = session.personalize_all(users)
    if not outcome.finished:
        raise RecipeError(f"nobody could be personalised to: {_listed(outcome.failed)}")
    results = {
        "task": "emg-text-personalization",
        "dataset": data_arguments.dataset,
        "checkpoint": model_arguments.model_name_or_path,
        "protocol": protocol,
        **outcome.facts(),
        "seeds": arguments.seeds,
        "arguments": settings,
        "command": command,
        "environment": describe_environment(arguments.device),
    }
    tables = render_summary(results, CTCTask.columns)
    results["summary"] = f"{tables}\n\nresults.json, README.md, cer.png and the models in users/ are in {output}"
    write_json(output / "results.json", results)
    write_report(results, CTCTask.columns, output)
    return results


def load_users(data: DataArguments, names: list[str]) -> list[User]:
    """The users with what they recorded.

    Raises:
        RecipeError: for some of them there are no training, validation or test sessions, sessions that are in two
            splits, or no keystrokes; the message names all of them.
    """
    users, unusable = [], {}
    for name in dict.fromkeys(names):
        try:
            users.append(_load_user(name, data))
        except (RecipeError, DataError) as error:
            unusable[name] = " ".join(str(error).split())
    if unusable:
        raise RecipeError(
            f"{len(unusable)} of {len(users) + len(unusable)} users cannot be personalised to, and nothing was "
            f"trained: {_listed(unusable)}. Put that right, or leave them out of users"
        )
    return users


def _check(model: ModelArguments, data: DataArguments, arguments: CTCPersonalizationArguments) -> None:
    if model.model_name_or_path is None:
        raise RecipeError("personalization starts from a generic model: --model_name_or_path FOLDER")
    if not arguments.users:
        raise RecipeError("users is empty: name whom to personalise to, for instance `users: [user0, user1]`")
    if data.dataset not in BUILDERS:
        raise RecipeError(
            f"dataset {data.dataset}: the sessions of one user are selected by a builder, so name one of "
            f"{', '.join(BUILDERS)}; emg_folder is for recordings of your own"
        )
    field = USER_OPTIONS.get(data.dataset, "subjects")
    if field in data.dataset_config:
        raise RecipeError(f"dataset_config: {field} is what `users` decides; remove it")
    check_one_process(arguments)


def _load_user(name: str, data: DataArguments) -> User:
    field = USER_OPTIONS.get(data.dataset, "subjects")
    own = dataclasses.replace(data, dataset_config={**data.dataset_config, field: name if field == "user" else [name]})
    splits, _ = read_corpus(own, SPLITS)
    read_tokenizer(splits, data.dataset)  # for its errors
    sessions = {split: set(splits[split].unique("session")) for split in SPLITS}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = sorted(sessions[first] & sessions[second], key=natural_key)
        if both:
            raise RecipeError(
                f"session {both[0]} is in {first} and in {second}; a personal model is tested on other sessions than "
                "it has learned from: choose a protocol that splits by session"
            )
    keystrokes = {split: sum(len(ids) for ids, _ in keystrokes_of(splits[split])) for split in SPLITS}
    silent = [split for split in SPLITS if not keystrokes[split]]
    if silent:
        raise RecipeError(f"there are no keystrokes in the sessions for {' and '.join(silent)}")
    subjects = {subject for split in SPLITS for subject in splits[split].unique("subject")}
    counts = {split: len(found) for split, found in sessions.items()}
    return User(name, own, tuple(sorted(subjects, key=natural_key)), counts, keystrokes)


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


@dataclass
class _Outcome:
    """What became of the users: `finished` with the `results.json` of the personal model, `failed` with the reason."""

    rows: list[Row]
    finished: dict[User, dict[str, Any]]
    failed: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """What `results.json` says of it."""
        runs = [result for own in self.finished.values() for result in own["runs"]]
        return {
            "users": {user.name: _facts(user, own) for user, own in self.finished.items()},
            "failed": self.failed,
            "subjects": {"test": len(self.finished)},
            "windows": {split: sum(own["windows"][split] for own in self.finished.values()) for split in SPLITS},
            "test_split": "test",
            "test": {column.key: over_seeds(self.rows, PERSONAL, column.key) for column in CTCTask.columns},
            "scores": summarize(self.rows, CTCTask.columns),
            "rows": self.rows,
            "runs": [{name: result[name] for name in ("seed", "train_seconds", "epochs")} for result in runs],
            "hyperparameters": next(iter(self.finished.values()))["hyperparameters"],
        }


@dataclass
class _Session:
    """One run: what every user needs. `learning_rate`: of personal models, where the recipe says none."""

    model: ModelArguments
    arguments: CTCPersonalizationArguments
    learning_rate: float
    output: Path
    command: str | None

    def personalize_all(self, users: list[User]) -> _Outcome:
        """Personalise to one after the other; one who fails does not hold up the others."""
        outcome = _Outcome([], {}, {})
        for user in users:
            try:
                rows, own = self.personalize(user)
            except (ValueError, RuntimeError, OSError) as error:  # of the data, of the device, of the disk: no defects
                outcome.failed[user.name] = " ".join(str(error).split())
                print(f"{user.name}: failed: {outcome.failed[user.name]}", flush=True)
                continue
            outcome.rows += rows
            outcome.finished[user] = own
            print(_progress(user.name, rows), flush=True)
        return outcome

    def personalize(self, user: User) -> tuple[list[Row], dict[str, Any]]:
        """The rows of a user, and the `results.json` of the personal model."""
        rate = self.arguments.learning_rate or self.learning_rate
        own = self._train("users", user, self.model, rate, _beside(self.model))
        rows = [{"user": user.name, "model": GENERIC, "seed": None, "learning_rate": None, **own["baselines"][BEFORE]}]
        rows += _rows(user, PERSONAL, own)
        if self.arguments.from_scratch:
            rows += _rows(user, SCRATCH, self._train("from_scratch", user, _untrained(self.model), None, CTCTask))
        return rows, own

    def _train(
        self, kind: str, user: User, model: ModelArguments, learning_rate: float | None, task: type[CTCTask]
    ) -> dict[str, Any]:
        """A run of one user, in a folder of its own."""
        folder = self.output / kind / folder_name(user.name)
        values = {f.name: getattr(self.arguments, f.name) for f in dataclasses.fields(CTCArguments) if f.init}
        own = {"output_dir": str(folder), "learning_rate": learning_rate, "baselines": False, "overwrite": False}
        print(f"\n{folder}", flush=True)
        return finetune.run(model, user.data, CTCArguments(**values | own), self.command, task)


def _beside(generic: ModelArguments) -> type[CTCTask]:
    """Training with CTC, with the scores of the generic model, without what the recipe changes in it, on the same
    sessions beside its own."""
    generic = ModelArguments(model_name_or_path=generic.model_name_or_path)

    class PersonalTask(CTCTask):
        def references(self, arguments: CTCArguments) -> dict[str, Any]:
            file = Path(arguments.output_dir) / "generic.json"
            if not file.is_file():
                trainer = finetune.make_trainer(self.build_model(generic), self, arguments)
                scores = self.score(trainer, "test")
                write_json(file, {column.key: scores[column.key] for column in self.columns})
            return {BEFORE: json.loads(file.read_text(encoding="utf-8"))}

    return PersonalTask


def folder_name(user: str) -> str:
    """The name of a user as a file name."""
    return quote(user, safe="")


def _untrained(model: ModelArguments) -> ModelArguments:
    """The network of a checkpoint, from random weights."""
    config = semg_config(model)
    usual = type(config)()
    own = {name: getattr(config, name) for name in type(config).__annotations__}
    shown = {name: value for name, value in own.items() if value != getattr(usual, name)}
    return ModelArguments(
        preset="semg-transformer-tiny", model_config=shown | {"intermediate_size": config.intermediate_size}
    )


def _rows(user: User, model: str, results: Mapping[str, Any]) -> list[Row]:
    return [
        {
            "user": user.name,
            "model": model,
            "seed": result["seed"],
            "learning_rate": results["hyperparameters"]["learning_rate"],
            **{column.key: result["test"][column.key] for column in CTCTask.columns},
            "validation": result["validation"],
        }
        for result in results["runs"]
    ]


def _facts(user: User, own: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "subjects": list(user.subjects),
        "sessions": dict(user.sessions),
        "keystrokes": dict(user.keystrokes),
        "folder": f"users/{folder_name(user.name)}",
        "kept_seed": own["kept_seed"],
    }


def _progress(user: str, rows: list[Row]) -> str:
    cer = CTCTask.columns[0]
    parts = [
        f"{model} {format_score(cer, user_scores(rows, model, cer.key)[user])}"
        for model in dict.fromkeys(row["model"] for row in rows)
    ]
    return f"{user}: {cer.title} {', '.join(parts)}"
