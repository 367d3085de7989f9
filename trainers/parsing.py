"""Recipes: YAML files, overridden on the command line, read into the dataclasses of `trainers/arguments.py`.

    task: classification
    dataset: uci_emg
    dataset_config: {window_length: 200, stride: 100}
    learning_rate: 5.0e-4

`--learning_rate 1e-4` replaces a field; `--dataset_config.stride 50` replaces one entry of a mapping.

    base: uci_emg_200
    output_dir: runs/mine

starts from another recipe: each field named here replaces the one there, mappings as a whole. `search_space` is for
`tinymyo search` (trainers/search_space.py); training passes over it.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from trainers.arguments import (
    ClassificationArguments,
    DataArguments,
    EventsArguments,
    ImageClassificationArguments,
    ModelArguments,
    PersonalizationArguments,
    RegressionArguments,
)
from trainers.ctc_arguments import CTCArguments
from trainers.distill_arguments import ClassificationDistillationArguments, CTCDistillationArguments
from trainers.errors import RecipeError
from trainers.personalize_ctc_arguments import CTCPersonalizationArguments
from trainers.pretrain_arguments import PretrainingArguments
from trainers.speech_arguments import RecognitionArguments, SynthesisArguments

RECIPES = Path(__file__).parent / "recipes"
TASK_ARGUMENTS: dict[str, type[TrainingArguments]] = {
    arguments.TASK: arguments
    for arguments in (
        ClassificationArguments,
        RegressionArguments,
        EventsArguments,
        ImageClassificationArguments,
        CTCArguments,
        PersonalizationArguments,
        CTCPersonalizationArguments,
        PretrainingArguments,
        RecognitionArguments,
        SynthesisArguments,
    )
}
DISTILLATION = "distillation"
STUDENT_ARGUMENTS: dict[str, type[TrainingArguments]] = {
    arguments.STUDENT_TASK: arguments for arguments in (ClassificationDistillationArguments, CTCDistillationArguments)
}
TASKS_OF_SEVERAL_CORPORA = ("pretraining",)

RecipeArguments = tuple[ModelArguments, DataArguments, TrainingArguments]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> None:
        raise RecipeError(message)


def find_recipe(name: str | Path) -> Path:
    """The YAML file of a recipe: a path, or the name of one in `trainers/recipes`.

    Raises:
        RecipeError: there is no such file.
    """
    for candidate in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise RecipeError(f"there is no recipe {name}: give a YAML file, or one of {known}")


def read_recipe(name: str | Path) -> dict[str, Any]:
    """The fields of a recipe, those of its `base` included.

    Raises:
        RecipeError: YAML that cannot be read or is no mapping; a base that does not exist or leads back to the recipe.
    """
    path = find_recipe(name)
    recipe = _read_yaml(path)
    chain = [path.resolve()]
    while "base" in recipe:
        base = recipe.pop("base")
        beside = path.parent / str(base)
        path = beside if beside.is_file() else _find_base(str(base), path)
        chain.append(path.resolve())
        if chain[-1] in chain[:-1]:
            raise RecipeError(f"base leads in a circle: {' -> '.join(link.stem for link in chain)}; remove one `base`")
        recipe = {**_read_yaml(path), **recipe}
    return recipe


def _find_base(base: str, path: Path) -> Path:
    try:
        return find_recipe(base)
    except RecipeError as error:
        raise RecipeError(f"{path}: base {base}: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(recipe, dict):
        raise RecipeError(f"{path} must hold `field: value` lines, got {type(recipe).__name__}")
    return recipe


def parse_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RecipeArguments:
    """Recipe file (or its fields) and command-line overrides -> the three argument groups.

    Args:
        recipe: a path, the name of a recipe in `trainers/recipes`, or the fields themselves.
        overrides: `["--learning_rate", "1e-4", "--dataset_config.stride=50", ...]`.

    Raises:
        RecipeError: an unknown field, a value of the wrong type, or fields that contradict each other.
    """
    source = "the recipe" if isinstance(recipe, Mapping) else str(find_recipe(recipe))
    values = dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    arguments, overridden = merge_overrides(values, overrides)
    arguments.pop("search_space", None)
    task = arguments.pop("task", "classification")
    groups = (ModelArguments, DataArguments, _task_arguments(source, task, arguments))
    _check_names(source, groups, [*arguments, *(token[2:] for token in overridden if token.startswith("--"))])
    parser = _Parser(groups, allow_abbrev=False)
    parser.set_defaults(**{name: value for name, value in arguments.items() if value is None or value == []})
    tokens = [token for name, value in arguments.items() for token in _as_tokens(name, value)]
    try:
        model, data, training = parser.parse_args_into_dataclasses([*tokens, *overridden], look_for_args_file=False)
    except ValueError as error:
        raise RecipeError(f"{source}: {error}") from None
    if data.dataset is None and task not in TASKS_OF_SEVERAL_CORPORA:
        raise RecipeError(
            f"{source} names no dataset: add `dataset: uci_emg` (or another builder or a prepared folder), or pass "
            "--dataset"
        )
    return model, data, training


def _task_arguments(source: str, task: str, arguments: dict[str, Any]) -> type[TrainingArguments]:
    """The class of the training fields; takes the field that chooses it out of `arguments`."""
    if task == DISTILLATION:
        student = arguments.pop("student_task", None)
        if student not in STUDENT_ARGUMENTS:
            raise RecipeError(f"{source}: student_task is {student!r}; use one of {', '.join(STUDENT_ARGUMENTS)}")
        return STUDENT_ARGUMENTS[student]
    if task not in TASK_ARGUMENTS:
        raise RecipeError(f"{source}: unknown task {task!r}; use one of {', '.join([*TASK_ARGUMENTS, DISTILLATION])}")
    return TASK_ARGUMENTS[task]


def _check_names(source: str, groups: Sequence[type], names: Sequence[str]) -> None:
    known = [entry.name for group in groups for entry in fields(group) if entry.init]
    for name in names:
        name = name.split("=")[0]
        if name.replace("-", "_") not in known and name.removeprefix("no_") not in known:
            close = difflib.get_close_matches(name, known, n=1)
            elsewhere = "a builder's fields go under dataset_config, a model's under model_config"
            hint = f"did you mean {close[0]}?" if close else elsewhere
            raise RecipeError(f"{source}: unknown field {name!r}; {hint}")


def _as_tokens(name: str, value: Any) -> list[str]:
    """A YAML value as the command line would give it, so that both are checked by the same parser."""
    if value is None or value == []:
        return []
    if isinstance(value, list):
        return [f"--{name}", *map(_as_text, value)]
    return [f"--{name}={_as_text(value)}"]


def _as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def merge_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Merge `--mapping.key value` into the recipe's mappings; return them and the overrides that are left."""
    values = copy.deepcopy(dict(values))
    left: list[str] = []
    tokens = list(overrides)
    while tokens:
        token = tokens.pop(0)
        name, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or "." not in name:
            left.append(token)
            continue
        if not equals:
            if not tokens:
                raise RecipeError(f"{token} needs a value")
            text = tokens.pop(0)
        *path, last = name.split(".")
        target = values
        for step in path:
            target = _entry(target, step, token)
        if isinstance(target, list):
            raise RecipeError(f"{token}: name the field to replace, {name}.FIELD")
        target[last] = _scalar(text)
    return values, left


def _entry(target: dict | list, step: str, token: str) -> dict | list:
    """The mapping or list under `step`; in a list, `step` is a position: `--corpora.0.data_dir FOLDER`."""
    if isinstance(target, list):
        if not step.isdigit() or int(step) >= len(target):
            raise RecipeError(f"{token}: {step} is no position in a list of {len(target)}; they count from 0")
        return target[int(step)]
    if not isinstance(target.get(step), dict | list):
        target[step] = {}
    return target[step]


def parse_fields(tokens: Sequence[str]) -> dict[str, Any]:
    """`["--window_length", "1000", "--protocol=reference"]` -> field -> value, with the types of YAML.

    Raises:
        RecipeError: something else than `--field value` pairs.
    """
    fields: dict[str, Any] = {}
    tokens = list(tokens)
    while tokens:
        token = tokens.pop(0)
        name, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or not name:
            raise RecipeError(f"cannot use {token!r}: write `--field value`")
        if not equals:
            if not tokens or tokens[0].startswith("--"):
                raise RecipeError(f"{token} needs a value; a switch takes true or false: {token} true")
            text = tokens.pop(0)
        fields[name.replace("-", "_")] = _scalar(text)
    return fields


def _scalar(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML reads 1e-4, without a dot, as text
    except ValueError:
        return value
