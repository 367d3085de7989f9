"""Published figures beside measured ones: train the recipe of every row of a table, as far as its data are at hand.

    results = reproduce(read_tables()["gestures"], "runs/reproduce", seeds=5, data_dir="corpora")

`OUTPUT/TABLE/ROW` holds the run of a row; `OUTPUT/TABLE` the comparison: `results.json`, `report.md`, `comparison.png`.
Started again, finished rows are taken from there and interrupted ones continue.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset_builders.base import BUILDERS, DataError, make_builder
from dataset_builders.inspection import is_prepared
from tinymyo_hf.signal import SignalError
from trainers.arguments import DataArguments
from trainers.errors import CheckpointError, EvaluationError, RecipeError
from trainers.parsing import parse_recipe
from trainers.published import Row, Table
from trainers.report import write_json
from trainers.reproduce_report import summary, write_report
from trainers.run import run_recipe

MEASURED, NOT_RUN, FAILED = "measured", "not run", "failed"
USER_ERRORS = (RecipeError, CheckpointError, EvaluationError, DataError, SignalError)


class _NotAvailable(Exception):
    """What a row needs is not there; the message says what, and how to give it."""


def reproduce(
    table: Table,
    output: str | Path,
    *,
    seeds: int | None = None,
    data_dir: str | Path | None = None,
    pretrained: str | None = None,
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
    command: str | None = None,
) -> dict[str, Any]:
    """Run the rows of a table that can be run, and compare.

    Args:
        seeds: runs per row, with the seeds 0, 1, ...; None for those of its recipe.
        data_dir: where the corpora are: a folder with a folder, archive or prepared folder per corpus, named after it;
            one such corpus; or a YAML file that maps the name of a corpus or a row to its path.
        pretrained: checkpoint for the rows that start from one (folder or Hub id); None for what their recipes name.
        only: names of rows, with wildcards; the others are not run, but earlier results of theirs are shown.
        overrides: fields for every recipe, as on the command line.
        command: the command line, for the report.

    Returns:
        The content of `results.json`: per row `state` ("measured", "not run" or "failed", with `reason`), `published`
        and `measured` figures; `summary` is a text for people.

    Raises:
        RecipeError: `only` names no row, or `data_dir` cannot be used.
    """
    output = Path(output) / table.name
    selected = _selected(table, only)
    places = _Places(data_dir)
    rows = _earlier_rows(output / "results.json", table)
    for row in table.rows.values():
        if row.name not in selected:
            rows.setdefault(row.name, _record(row, NOT_RUN, reason="not asked for"))
    results: dict[str, Any] = {"table": table.name, "title": table.title, "source": table.source, "command": command}
    for row in selected.values():
        try:
            plan = _plan(row, output / row.name, pretrained, seeds, overrides)
            if rows.get(row.name, {}).get("settings") == plan.settings:
                print(f"{row.name}: finished earlier, see {output / row.name}", flush=True)
                continue
            tokens = [*plan.tokens, *places.tokens(row, plan.data)]
            print(f"\n{row.name}: {row.title}", flush=True)
            rows[row.name] = _measured(row, table, plan, run_recipe(row.recipe, tokens, command))
        except (_NotAvailable, *USER_ERRORS) as error:
            state = NOT_RUN if isinstance(error, _NotAvailable) else FAILED
            reason = " ".join(str(error).split())
            if state == FAILED:
                print(f"{row.name}: {state}: {reason}", flush=True)
            if row.name in rows:  # measured earlier, with other settings
                rows[row.name]["attempt"] = f"{state}: {reason}"
            else:
                rows[row.name] = _record(row, state, reason=reason)
        results["rows"] = {name: rows[name] for name in table.rows if name in rows}
        write_json(output / "results.json", results)  # what a start after an interruption need not measure again
    results["rows"] = {name: rows[name] for name in table.rows}
    results["summary"] = f"{summary(results, table)}\n\nreport.md, results.json and comparison.png are in {output}"
    write_json(output / "results.json", results)
    write_report(results, table, output)
    return results


def _selected(table: Table, only: Sequence[str]) -> dict[str, Row]:
    if not only:
        return dict(table.rows)
    for pattern in only:
        if not fnmatch.filter(table.rows, pattern):
            raise RecipeError(f"table {table.name} has no row {pattern}: choose from {', '.join(table.rows)}")
    return {name: row for name, row in table.rows.items() if any(fnmatch.fnmatch(name, p) for p in only)}


def _earlier_rows(path: Path, table: Table) -> dict[str, Any]:
    """What an earlier start measured, with the published figures of today."""
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    measured = {name: row for name, row in rows.items() if name in table.rows and row["state"] == MEASURED}
    for name, row in measured.items():
        row.pop("attempt", None)
        row.update(_record(table.rows[name], MEASURED))
    return measured


@dataclass(frozen=True)
class _Plan:
    """How a row is run.

    Attributes:
        tokens: overrides of its recipe, but for where the recordings are.
        settings: by which a finished run is recognised.
        data: its recipe's.
    """

    tokens: list[str]
    settings: dict[str, Any]
    data: DataArguments


def _plan(row: Row, folder: Path, pretrained: str | None, seeds: int | None, overrides: Sequence[str]) -> _Plan:
    tokens = [*row.overrides, *overrides, "--output_dir", str(folder)]
    if seeds is not None:
        tokens += ["--seeds", *map(str, range(seeds))]
    model, data, arguments = parse_recipe(row.recipe, tokens)
    checkpoint = model.model_name_or_path
    if checkpoint is not None:
        if pretrained is None and not Path(checkpoint).is_dir():
            raise _NotAvailable(
                f"starts from a trained model, and there is none at {checkpoint}: train it first, as the recipe "
                f"{Path(row.recipe).stem} says, or name one with --pretrained"
            )
        checkpoint = pretrained or checkpoint
        tokens += ["--model_name_or_path", checkpoint]
    teacher = getattr(arguments, "teacher_name_or_path", None)
    if teacher is not None and not Path(teacher).is_dir():
        raise _NotAvailable(
            f"learns from a teacher, and there is none at {teacher}: train it first, as the recipe "
            f"{Path(row.recipe).stem} says, or name one with --teacher_name_or_path"
        )
    if "wer" in row.published and getattr(arguments, "asr_model", "") is None:
        raise _NotAvailable("counts the words that a speech recogniser hears: name one with --asr_model")
    settings = {
        "recipe": row.recipe,
        **({"of_the_row": list(row.overrides)} if row.overrides else {}),
        **({"teacher": teacher} if teacher else {}),
        "overrides": list(overrides),
        "seeds": list(arguments.seeds),
        "dataset": data.dataset,
        "dataset_config": data.dataset_config,
        "checkpoint": checkpoint,
    }
    return _Plan(tokens, settings, data)


class _Places:
    """Where the corpora are, as `data_dir` of `reproduce` says."""

    def __init__(self, data_dir: str | Path | None):
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self.paths: dict[str, Path] = {}
        if self.data_dir is None:
            return
        if not self.data_dir.exists():
            raise RecipeError(f"data_dir {self.data_dir}: no such file or folder")
        if self.data_dir.suffix in (".yaml", ".yml"):
            self.paths = self._read_mapping(self.data_dir)
            return
        found = [self.data_dir, *(sorted(self.data_dir.iterdir()) if self.data_dir.is_dir() else ())]
        for path in reversed(found):  # the folder itself, then entries in their order, take precedence
            self.paths[path.name.split(".")[0]] = path

    @staticmethod
    def _read_mapping(file: Path) -> dict[str, Path]:
        try:
            paths = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{file} cannot be read as YAML: {error}") from None
        if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
            raise RecipeError(f"{file} must hold lines such as `uci_emg: folder_or_archive`")
        return {str(name): file.parent / Path(path).expanduser() for name, path in paths.items()}

    def tokens(self, row: Row, data: DataArguments) -> list[str]:
        """The overrides that lead a recipe to its recordings.

        Raises:
            _NotAvailable: there are none, or they were prepared with other settings.
        """
        corpus = data.dataset
        if corpus not in BUILDERS or data.data_dir is not None or make_builder(corpus).LAYOUT is None:
            return []  # a prepared dataset, a place that is known already, or a corpus without files
        path = self.paths.get(row.name, self.paths.get(corpus))
        if path is None:
            where = "pass --data-dir" if self.data_dir is None else f"there is none in {self.data_dir}"
            raise _NotAvailable(f"needs the recordings of {corpus}: {where} (a folder or archive called {corpus})")
        if not path.exists():
            raise _NotAvailable(f"needs the recordings of {corpus}: {path} does not exist")
        if not is_prepared(path):
            return ["--data_dir", str(path)]
        stored = json.loads((path / "preprocessor_config.json").read_text(encoding="utf-8"))
        for name, value in data.dataset_config.items():
            if name in stored and stored[name] != value:
                raise _NotAvailable(
                    f"{path} was prepared with {name}={stored[name]}, the recipe says {value}: give the raw files, or "
                    f"`tinymyo prepare {corpus} --{name} {value} ...`"
                )
        return ["--dataset", str(path), "--dataset_config={}"]


def _record(row: Row, state: str, **fields: Any) -> dict[str, Any]:
    published = {key: dict(figure) for key, figure in row.published.items()}
    return {"title": row.title, "recipe": row.recipe, "state": state, "published": published, **fields}


def _measured(row: Row, table: Table, plan: _Plan, results: Mapping[str, Any]) -> dict[str, Any]:
    missing = [
        column.key for column in table.columns if column.key in row.published and column.key not in results["test"]
    ]
    if missing:
        raise RecipeError(
            f"{row.recipe} measures no {missing[0]}: its scores are {', '.join(results['test'])}; correct the metrics "
            f"of table {table.name}"
        )
    return _record(
        row,
        MEASURED,
        measured={column.key: results["test"][column.key] for column in table.columns if column.key in row.published},
        settings=plan.settings,
        windows=results["windows"],
        subjects=results["subjects"],
        test_split=results["test_split"],
        train_seconds=[run["train_seconds"] for run in results["runs"]],
        environment=results["environment"],
    )
