"""A table of published and measured figures: as text, as `report.md` and as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from trainers.published import Table
from trainers.report import COLOURS, Column, format_score, markdown_table, save_figure, write_text

NOTHING = "–"


def summary(results: Mapping[str, Any], table: Table) -> str:
    """The comparison as a markdown table, and why rows of it were not run."""
    header = ["Row", "Seeds"]
    for column in table.columns:
        header += [f"{column.title}, published", "measured"]
    rows = []
    for name, row in results["rows"].items():
        cells = [name, len(row["settings"]["seeds"]) if "settings" in row else NOTHING]
        for column in table.columns:
            cells += [_cell(column, row["published"]), _cell(column, row.get("measured", {}))]
        rows.append(cells)
    notes = _notes(results["rows"])
    text = f"{table.title}; published: {table.source}\n\n{markdown_table(header, rows)}"
    return "\n\n".join([text, "\n".join(notes)] if notes else [text])


def _notes(rows: Mapping[str, Any]) -> list[str]:
    """A line for each reason why rows have no measured figures, or not those of the recipe as it is."""
    names: dict[str, list[str]] = {}
    for name, row in rows.items():
        if "reason" in row:
            names.setdefault(f"{row['state']}: {row['reason']}", []).append(name)
        if "settings" in row and row["settings"]["overrides"]:
            names.setdefault(f"measured with {' '.join(row['settings']['overrides'])}", []).append(name)
        if "attempt" in row:
            names.setdefault(f"measured earlier; this time {row['attempt']}", []).append(name)
    return [f"- {', '.join(members)}: {reason}" for reason, members in names.items()]


def write_report(results: Mapping[str, Any], table: Table, folder: str | Path) -> None:
    """`report.md` and `comparison.png`."""
    folder = Path(folder)
    measured = {name: row for name, row in results["rows"].items() if row["state"] == "measured"}
    _plot(results["rows"], table, folder / "comparison.png")
    command = f"    {results['command']}\n\n" if results["command"] else ""
    text = f"""# {table.title}: published and measured

{command}{summary(results, table)}

Published figures are those of {table.source}: nobody measured them here. Measured figures are means and standard
deviations over the seeds, on the split named below, each model chosen on the validation split.

![Published and measured](comparison.png)
"""
    if measured:
        text += f"\n## How it was measured\n\n{_circumstances(measured)}\n"
    write_text(folder / "report.md", text)


def _cell(column: Column, figures: Mapping[str, Any]) -> str:
    return format_score(column, figures[column.key]) if column.key in figures else NOTHING


def _circumstances(measured: Mapping[str, Any]) -> str:
    header = ["Row", "Windows (people)", "Scored on", "Minutes per seed", "On", "Recipe"]
    rows = []
    for name, row in measured.items():
        windows = ", ".join(f"{split} {count:,} ({row['subjects'][split]})" for split, count in row["windows"].items())
        minutes = sum(row["train_seconds"]) / len(row["train_seconds"]) / 60
        settings = row["settings"]
        recipe = " ".join([Path(settings["recipe"]).stem, *settings.get("of_the_row", ()), *settings["overrides"]])
        if settings["checkpoint"]:
            recipe += f", from {settings['checkpoint']}"
        if "teacher" in settings:
            recipe += f", taught by {settings['teacher']}"
        rows.append([name, windows, row["test_split"], f"{minutes:.1f}", row["environment"]["hardware"], recipe])
    return markdown_table(header, rows)


def _plot(rows: Mapping[str, Any], table: Table, path: Path) -> None:
    """One panel per column, one line per row: published figures hollow, measured ones filled, with their deviations."""
    count = len(table.columns)
    figure, panels = plt.subplots(
        1, count, figsize=(2.6 + 3.2 * count, 1.6 + 0.4 * len(rows)), sharey=True, squeeze=False, layout="constrained"
    )
    kinds = (
        ("published", "published", -0.12, {"color": COLOURS[1], "marker": "D", "markerfacecolor": "none"}),
        ("measured", "measured", 0.12, {"color": COLOURS[0], "marker": "o"}),
    )
    for axes, column in zip(panels[0], table.columns, strict=True):
        for key, label, offset, style in kinds:
            points = [
                (position + offset, row[key][column.key])
                for position, row in enumerate(rows.values())
                if row.get(key, {}).get(column.key, {}).get("mean") is not None
            ]
            heights = [height for height, _ in points]
            means = [column.scale * score["mean"] for _, score in points]
            spreads = [column.scale * (score["std"] or 0.0) for _, score in points]
            axes.errorbar(means, heights, xerr=spreads, linestyle="none", capsize=3, label=label, **style)
        axes.set_xlabel(column.title)
        axes.grid(axis="x", alpha=0.3)
    names = [
        row["title"] if row["state"] == "measured" else f"{row['title']} ({row['state']})" for row in rows.values()
    ]
    panels[0][0].set_yticks(range(len(rows)), names)
    panels[0][0].set_ylim(len(rows) - 0.5, -0.5)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)
