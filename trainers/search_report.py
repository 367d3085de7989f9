"""What a search found: all trials as JSON, a table and a picture, and the best as a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import yaml
from matplotlib.ticker import MaxNLocator

from trainers.report import COLOURS, Column, format_score, markdown_table, save_figure, write_json, write_text
from trainers.search_space import Parameter

BEST_RECIPE = "best.yaml"


def write_search_report(results: dict[str, Any], space: Sequence[Parameter], column: Column, output: Path) -> None:
    """`search.json`, `search.md`, `search.png` and `best.yaml`; adds `summary`, a text for people, to the results.

    Args:
        results: `recipe`, `metric`, `direction`, `command`, `trials` (rows with `number`, `state`, `score`, `values`,
            `seconds`), `best` (one of them) and `best_recipe` (the fields of `best.yaml`).
        column: how the metric is shown.
    """
    best = results["best"]
    table = markdown_table(
        ["Trial", "State", f"{column.title}, validation", *(parameter.name for parameter in space), "Seconds"],
        [_cells(row, space, column, row is best) for row in results["trials"]],
    )
    results["summary"] = (
        f"{table}\n\nThe best is trial {best['number']}: `tinymyo train {output / BEST_RECIPE}` trains it and scores "
        "it on the test split, which the search has not looked at."
    )
    command = f"    {results['command']}\n\n" if results["command"] else ""
    text = (
        f"# Search: {results['recipe']}\n\n{command}{results['summary']}\n\nA score is the best of a trial's "
        "evaluations of the validation split; that of the best of many trials is optimistic.\n\n"
        "![Scores of the trials](search.png)\n"
    )
    header = f"# The best of {len(results['trials'])} trials by validation {column.title}: see search.md.\n"
    write_text(output / BEST_RECIPE, header + yaml.safe_dump(results["best_recipe"], sort_keys=False))
    write_text(output / "search.md", text)
    _plot(results, space, column, output / "search.png")
    write_json(output / "search.json", results)


def _cells(row: Mapping[str, Any], space: Sequence[Parameter], column: Column, best: bool) -> list[Any]:
    values = [_short(row["values"].get(parameter.name)) for parameter in space]
    score = "–" if row["score"] is None else format_score(column, row["score"])
    seconds = "–" if row["seconds"] is None else f"{row['seconds']:.0f}"
    return [row["number"], f"{row['state']} (best)" if best else row["state"], score, *values, seconds]


def _short(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot(results: Mapping[str, Any], space: Sequence[Parameter], column: Column, path: Path) -> None:
    """The score of each trial in order, with the best so far, and against each of the parameters."""
    complete = [row for row in results["trials"] if row["state"] == "complete"]
    pruned = [row for row in results["trials"] if row["state"] == "pruned" and row["score"] is not None]
    columns = min(3, 1 + len(space))
    lines = -(-(1 + len(space)) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(3.9 * columns, 3.1 * lines), sharey=True, squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for rows, label, style in (
        (complete, "complete", {"color": COLOURS[0]}),
        (pruned, "pruned", {"facecolors": "none", "edgecolors": COLOURS[1]}),
    ):
        scores = [column.scale * row["score"] for row in rows]
        panels[0].scatter([row["number"] for row in rows], scores, label=label, **style)
        for axes, parameter in zip(panels[1:], space, strict=False):
            values = [row["values"][parameter.name] for row in rows]
            if parameter.choices:
                values = [parameter.choices.index(value) for value in values]
            axes.scatter(values, scores, **style)
    best_of = max if results["direction"] == "maximize" else min
    so_far = [best_of(column.scale * row["score"] for row in complete[: i + 1]) for i in range(len(complete))]
    panels[0].step([row["number"] for row in complete], so_far, where="post", color=COLOURS[0], label="best so far")
    panels[0].set(xlabel="Trial", title="In order")
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend(fontsize="small")
    for axes, parameter in zip(panels[1:], space, strict=False):
        axes.set_xlabel(parameter.name)
        if parameter.choices:
            axes.set_xticks(range(len(parameter.choices)), map(str, parameter.choices))
        elif parameter.log:
            axes.set_xscale("log")
    for axes in panels[: 1 + len(space)]:
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{column.title}, validation")
    for axes in panels[1 + len(space) :]:
        axes.set_visible(False)
    save_figure(figure, path)
