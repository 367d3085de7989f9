"""The commands that run several trainings and compare them, or calibrate; `tinymyo_hf.cli` registers them."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperArgument


class Method(StrEnum):
    head = "head"
    lora = "lora"
    full = "full"


def personalize(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub id of a trained classifier.")],
    data_dir: Annotated[Path, typer.Option(help="Recordings of one person with a metadata.csv, as for emg_folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the personal model.")],
    method: Annotated[
        Method, typer.Option(help="What is trained: the last layer (seconds), LoRA adapters, or every weight.")
    ] = Method.head,
    num_proc: Annotated[int | None, typer.Option(min=1, help="Processes that prepare recordings.")] = None,
) -> None:
    """Calibrate a classifier to one person, with a few repetitions of each of its gestures.

    Further `--field value` pairs are options of emg_folder: `--label_column gesture`. They cannot change the
    preprocessing, which is the checkpoint's.
    """
    from trainers.parsing import parse_fields
    from trainers.personal import personalize_checkpoint

    results = personalize_checkpoint(
        checkpoint,
        data_dir,
        out,
        method=method.value,
        num_proc=num_proc,
        dataset_config=parse_fields(context.args),
        command=_command_line(context),
    )
    typer.echo(results["summary"])


def reproduce(
    context: typer.Context,
    table: Annotated[
        str | None, typer.Argument(help="A table of published figures; without it they are listed.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs per row; by default those of its recipe.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with a folder or archive per corpus, one of them, or a YAML file: corpus -> path."),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Checkpoint for the fine-tuned rows, folder or Hub id.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Row to run, wildcards allowed; may be repeated.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the runs and the comparison.")] = Path("runs/reproduce"),
    tables: Annotated[Path | None, typer.Option(help="YAML file with other tables than the package's.")] = None,
) -> None:
    """Train the recipes of a table of published figures and put both side by side.

    Rows whose recordings or pretrained encoder are missing are shown with the reason. Finished rows are not run again.
    Further `--field value` pairs are fields for every recipe, as in `tinymyo train`.
    """
    from trainers.errors import RecipeError
    from trainers.published import describe_tables, read_tables

    known = read_tables(tables)
    if table is None:
        typer.echo(describe_tables(known))
        return
    if table not in known:
        raise RecipeError(f"there is no table {table}: choose from {', '.join(known)}")
    from trainers.reproduce import reproduce as run_rows

    results = run_rows(
        known[table],
        output,
        seeds=seeds,
        data_dir=data_dir,
        pretrained=pretrained,
        only=only or (),
        overrides=context.args,
        command=_command_line(context),
    )
    typer.echo(f"\n{results['summary']}")


def search(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes with the package.")],
    trials: Annotated[int, typer.Option(min=1, help="Settings to try, those of earlier starts included.")] = 20,
    output: Annotated[Path | None, typer.Option(help="Folder of the search; by default runs/search/RECIPE.")] = None,
) -> None:
    """Search the hyper-parameters of a recipe by its validation split; needs `pip install 'tinymyo-hf[search]'`.

    What is tried is the recipe's `search_space`: `learning_rate: {low: 1e-4, high: 2e-3, log: true}`, ... The best is
    written as a recipe. Further `--field value` pairs are fields for every trial, as in `tinymyo train`.
    """
    from trainers.search import search as run_search

    folder = output or Path("runs/search") / Path(recipe).stem
    results = run_search(recipe, folder, trials=trials, overrides=context.args, command=_command_line(context))
    typer.echo(f"\n{results['summary']}\n\nsearch.json, search.md and search.png are in {folder}")


def _command_line(context: typer.Context) -> str:
    """What was typed to get here, for reports."""
    words = ["tinymyo", str(context.info_name)]
    for parameter in context.command.params:
        if context.get_parameter_source(parameter.name).name != "COMMANDLINE":
            continue
        given = context.params[parameter.name]
        for value in given if isinstance(given, list | tuple) else [given]:
            words += [str(value)] if isinstance(parameter, TyperArgument) else [parameter.opts[0], str(value)]
    return shlex.join([*words, *context.args])
