"""Search for hyper-parameters with the `Trainer`'s optuna backend, by the validation split only.

    results = search("uci_emg_200", "runs/search", trials=20, overrides=["--data_dir", "uci_emg.tar.xz"])

Every trial trains as `tinymyo train` would with its values and the recipe's first seed. Its score is the best of its
evaluations of the validation split; the test split is not looked at. Trials are kept in `OUTPUT/study.db`: a search
that was interrupted continues, and one that is over goes on when more trials are asked for. OUTPUT also gets
`search.json`, `search.md`, `search.png` and `best.yaml`, a recipe with the best values for `tinymyo train`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from torch import nn
from transformers import EarlyStoppingCallback, set_seed

from tinymyo_hf.quiet import quiet
from trainers.arguments import TrainArguments
from trainers.augmentation import make_augmentation
from trainers.errors import DivergenceError, RecipeError
from trainers.finetune import TASKS, arguments_of_seed, describe_settings, make_trainer, task_of
from trainers.parsing import RECIPES, RecipeArguments, find_recipe, merge_overrides, parse_recipe, read_recipe
from trainers.report import Column
from trainers.search_report import write_search_report
from trainers.search_space import Parameter, read_space
from trainers.tasks import Task

STUDY_FILE = "study.db"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# A trial leaves no checkpoints: what counts is its score, and `best.yaml` trains the best again.
TRIAL_FIELDS = ("--save_strategy", "no", "--load_best_model_at_end", "false", "--report_to", "none")
NOT_SEARCHED = ("output_dir", "seeds", "overwrite", "baselines", "model_name_or_path")
READ_ONCE = ("context", "loss_span", "jitter", "session_chunk", "quantization_aware")  # by `Task.load`, for all trials

Arguments = Callable[[Mapping[str, Any]], RecipeArguments]
"""Values of searched fields -> the groups of arguments of that trial."""


def search(
    recipe: str | Path, output: str | Path, *, trials: int, overrides: Sequence[str] = (), command: str | None = None
) -> dict[str, Any]:
    """Try `trials` settings (those of earlier starts included) and report them.

    Args:
        recipe: a YAML file or the name of a recipe; its `search_space` says what is tried (see
            `trainers/search_space.py`, also for what is tried if it has none).
        output: folder of the search.
        overrides: recipe fields as on the command line, for every trial.
        command: the command line, for the report.

    Returns:
        The content of `search.json`: `trials` in order, `best`, `metric`; `summary` is a text for people.

    Raises:
        RecipeError: a recipe or search space that cannot be used, another search in `output`, or no trial that ended.
        CheckpointError, DataError: the recipe's checkpoint or data cannot be used.
    """
    output = Path(output)
    values, tokens = merge_overrides(read_recipe(recipe), overrides)
    space = read_space(values.pop("search_space", None))

    def arguments_for(parameters: Mapping[str, Any]) -> RecipeArguments:
        fields = [f"--{name}={value}" for name, value in parameters.items()]
        model, data, arguments = parse_recipe(
            values, [*tokens, "--output_dir", str(output / "trials"), *TRIAL_FIELDS, *fields]
        )
        if arguments.TASK in TASKS:
            task_of(model, arguments).complete(model, arguments)
        return model, data, arguments

    model, data, arguments = arguments_for({})
    if arguments.TASK not in TASKS:
        raise RecipeError(f"{recipe}: a {arguments.TASK} recipe cannot be searched; those of {', '.join(TASKS)} can")
    _check_space(space, arguments_for)
    settings = describe_settings(model, data, arguments) | {"space": [asdict(parameter) for parameter in space]}
    study = _open_study(output, arguments, settings)
    task = task_of(model, arguments).load(data, arguments)
    print(task.describe(), flush=True)
    for parameter in space:  # values that no model can have are an error now, not after hours
        for value in parameter.bounds():
            task.build_model(arguments_for({parameter.name: value})[0])
    left = trials - sum(trial.state in DONE for trial in study.trials)
    if left > 0:
        _run_trials(study, left, space, arguments_for, task, output)
    if not _any_complete(study):
        raise RecipeError(f"{output}: no trial came to its end; narrow search_space, or ask for more --trials")
    best = study.best_trial
    fields = {"base": _base(recipe, output), **_chosen_fields(arguments_for(best.params), [*overrides, *best.params])}
    rows = [_describe(trial) for trial in study.trials]
    results = {
        "recipe": str(recipe),
        "metric": arguments.selection_metric,
        "direction": _direction(arguments),
        "command": command,
        "trials": rows,
        "best": rows[best.number],
        "best_recipe": {**fields, "output_dir": str(output / "best")},
    }
    write_search_report(results, space, _column(task, arguments.selection_metric), output)
    return results


def _check_space(space: Sequence[Parameter], arguments_for: Arguments) -> None:
    """Raise `RecipeError` for a field that cannot be searched, or whose bounds a recipe would not accept."""
    for parameter in space:
        field = parameter.name.split(".")[0]
        for value in parameter.bounds():
            model, data, arguments = arguments_for({parameter.name: value})
        if field == "alignment_weight" and not arguments_for({})[2].alignment_weight:
            raise RecipeError("search_space: alignment_weight: give the recipe itself a positive one too")
        if hasattr(data, field) or field in (*NOT_SEARCHED, *READ_ONCE):
            raise RecipeError(
                f"search_space: {field} must be the same in every trial, or their scores compare nothing; remove it"
            )


def _open_study(output: Path, arguments: TrainArguments, settings: dict[str, Any]) -> optuna.Study:
    """The study in `output`, new or continued; trials that were cut short are queued again.

    Raises:
        RecipeError: `output` holds something else.
    """
    database = output / STUDY_FILE
    if not database.is_file() and output.exists() and (output.is_file() or any(output.iterdir())):
        raise RecipeError(f"{output} is not empty and holds no search: name a new or empty folder with --output")
    output.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=output.name, storage=_storage(output), direction=_direction(arguments), load_if_exists=True
    )
    settings = json.loads(json.dumps(settings))  # as it will be read again
    for name in ("data_dir", "cache_dir", "num_proc"):  # where the work is done does not change its outcome
        settings["data"].pop(name)
    earlier = study.user_attrs.get("settings", settings)
    if earlier != settings:
        group = next(group for group in settings if earlier.get(group) != settings[group])
        raise RecipeError(f"{output} holds a search with other settings ({group}): name a new folder with --output")
    study.set_user_attr("settings", settings)
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


def _storage(output: Path) -> str:
    return f"sqlite:///{(output / STUDY_FILE).resolve()}"


def _direction(arguments: TrainArguments) -> str:
    return "maximize" if arguments.greater_is_better else "minimize"


def _run_trials(
    study: optuna.Study, count: int, space: Sequence[Parameter], arguments_for: Arguments, task: Task, output: Path
) -> None:
    model_arguments, _, arguments = arguments_for({})
    seed = arguments.seeds[0]
    arguments = arguments_of_seed(arguments, seed, output / "trials")
    trainer = make_trainer(task.build_model(model_arguments), task, arguments)
    scores: list[float] = []  # of the evaluations of this trial

    def start(trial: optuna.Trial) -> nn.Module:
        """`model_init`: the model of a trial, and the trainer's settings as `make_trainer` would make them."""
        values = {parameter.name: parameter.suggest(trial) for parameter in space}
        print(f"\ntrial {trial.number}: {', '.join(f'{name} {value}' for name, value in values.items())}", flush=True)
        model_arguments, _, chosen = arguments_for(values)
        scores.clear()
        for name in {parameter.name.split(".")[0] for parameter in space}:
            if hasattr(chosen, name):
                setattr(trainer.args, name, getattr(chosen, name))
        model = task.build_model(model_arguments).to(trainer.args.device)
        trainer.compute_loss_func = task.loss(chosen)
        trainer.set_up(model, chosen.layer_decay, make_augmentation(chosen.augmentations), chosen.ema_decay)
        trainer.pop_callback(EarlyStoppingCallback)
        if chosen.early_stopping_patience:
            trainer.add_callback(EarlyStoppingCallback(chosen.early_stopping_patience))
        set_seed(seed)  # as a run that trains this model only
        return model

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        values = {parameter.name: parameter.suggest(trial) for parameter in space}
        return {name: value for name, value in values.items() if hasattr(trainer.args, name)}  # the library sets these

    def best_so_far(metrics: dict[str, float]) -> float:
        scores.append(metrics[f"eval_{arguments.selection_metric}"])
        return max(scores) if arguments.greater_is_better else min(scores)

    trainer.model_init = start
    try:
        with quiet():
            trainer.hyperparameter_search(
                hp_space=suggest,
                compute_objective=best_so_far,
                n_trials=count,
                direction=_direction(arguments),
                backend="optuna",
                study_name=study.study_name,
                storage=_storage(output),
                load_if_exists=True,
                catch=(DivergenceError,),  # of that trial: the others go on
                # Hopeless trials end early, but not while they may still warm up.
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=_steps(task, arguments) // 3),
                # Another seed at every start, or a search that continues would repeat its first suggestions.
                sampler=optuna.samplers.TPESampler(seed=seed + len(study.trials)),
            )
    except ValueError as error:
        if type(error) is not ValueError or _any_complete(study):
            raise
        # What the library asks for at the end, the best trial, there is none: the caller says so.
    finally:
        shutil.rmtree(output / "trials", ignore_errors=True)  # the library makes it, and it stays empty


def _steps(task: Task, arguments: TrainArguments) -> int:
    """Steps of a whole training, as the recipe says."""
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps
    return math.ceil(arguments.num_train_epochs * len(task.splits["train"]) / batch)


def _any_complete(study: optuna.Study) -> bool:
    return any(trial.state == TrialState.COMPLETE for trial in study.trials)


def _describe(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """A row of the report; a pruned trial's score is what it had reached."""
    reached = trial.intermediate_values
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "score": reached[max(reached)] if trial.value is None and reached else trial.value,
        "values": trial.params,
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
    }


def _column(task: Task, metric: str) -> Column:
    return next((column for column in task.columns if column.key == metric), Column(metric, metric, digits=4))


def _base(recipe: str | Path, output: Path) -> str:
    """How a recipe in `output` names the one that was searched."""
    path = find_recipe(recipe).resolve()
    return path.stem if path.parent == RECIPES.resolve() else os.path.relpath(path, output.resolve())


def _chosen_fields(groups: RecipeArguments, tokens: Sequence[str]) -> dict[str, Any]:
    """The fields that overrides or a trial replaced, each with its whole value."""
    model, data, arguments = groups
    known = {**asdict(model), **asdict(data), **arguments.to_dict()}
    names = [re.split("[.=]", token.removeprefix("--"))[0].replace("-", "_") for token in tokens]
    return {name: known[name] for name in dict.fromkeys(names) if name in known}
