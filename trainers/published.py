"""Tables of published figures (`published.yaml`, or a file of the user's), each row with the recipe that measures it.

    tables = read_tables()
    tables["gestures"].rows["uci_emg_1000"].published["accuracy"]  # {"mean": 0.9756, "std": 0.0032}

Figures are in the units of `results.json` (fractions), not in those of print (percent): a table's columns know the
factor between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainers.errors import RecipeError
from trainers.report import Column, format_score

PUBLISHED = Path(__file__).parent / "published.yaml"


@dataclass(frozen=True)
class Row:
    """One published result, and the recipe (a name or a YAML file) that trains the same.

    Attributes:
        published: key of a column -> `{"mean", "std"}`, the latter None where it was not published.
        overrides: fields that this row replaces in the recipe, as on the command line.
    """

    name: str
    title: str
    recipe: str
    published: Mapping[str, Mapping[str, float | None]]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows that share their columns and their source."""

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: Mapping[str, Row]


def read_tables(path: str | Path | None = None) -> dict[str, Table]:
    """The tables of a YAML file, by default those that come with the package; `published.yaml` explains the format.

    Raises:
        RecipeError: no such file, no valid YAML, or a field that is missing, unknown or of the wrong kind.
    """
    path = Path(path) if path else PUBLISHED
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: the tables of published figures cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    tables = _mapping(content, str(path))
    return {str(name): _table(str(name), fields, f"{path}, {name}", path.parent) for name, fields in tables.items()}


def describe_tables(tables: Mapping[str, Table]) -> str:
    """Every table with its rows and published figures, as text."""
    blocks = []
    for table in tables.values():
        lines = [f"{table.name}: {table.title} ({table.source})"]
        width = max(map(len, table.rows))
        for row in table.rows.values():
            figures = ", ".join(
                f"{column.title} {format_score(column, row.published[column.key])}"
                for column in table.columns
                if column.key in row.published
            )
            lines.append(f"  {row.name:<{width}}  published {figures}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _table(name: str, fields: Any, where: str, folder: Path) -> Table:
    fields = _checked(fields, where, {"title", "source", "metrics", "rows"})
    columns = {}
    for key, column in _mapping(fields["metrics"], f"{where}, metrics").items():
        column = _checked(column, f"{where}, metrics, {key}", {"title"}, {"scale", "digits"})
        columns[key] = Column(str(key), **column)
    rows = {}
    for row, values in _mapping(fields["rows"], f"{where}, rows").items():
        rows[str(row)] = _row(str(row), values, f"{where}, {row}", columns, folder)
    return Table(name, fields["title"], fields["source"], tuple(columns.values()), rows)


def _row(name: str, fields: Any, where: str, columns: Mapping[str, Column], folder: Path) -> Row:
    fields = _checked(fields, where, {"title", "recipe", "published"}, {"overrides"})
    overrides = []
    for key, value in (_mapping(fields["overrides"], f"{where}, overrides") if "overrides" in fields else {}).items():
        if not isinstance(value, str | int | float):
            raise RecipeError(f"{where}, overrides, {key}: give a text or a number, not {value!r}")
        overrides.append(f"--{key}={value}")
    published = {}
    for key, figure in _mapping(fields["published"], f"{where}, published").items():
        if key not in columns:
            raise RecipeError(f"{where}: {key} is none of the table's metrics ({', '.join(columns)})")
        numbers = figure if isinstance(figure, list) else [figure]
        if not 1 <= len(numbers) <= 2 or not all(isinstance(number, int | float) for number in numbers):
            raise RecipeError(f"{where}, {key}: write [mean, standard deviation] or a number, not {figure!r}")
        stored = [round(number / columns[key].scale, 10) for number in numbers]
        published[key] = {"mean": stored[0], "std": stored[1] if len(stored) > 1 else None}
    recipe = str(fields["recipe"])
    beside = folder / recipe  # a file beside the table, or else a recipe of the package
    path = str(beside) if beside.is_file() else recipe
    return Row(name, fields["title"], path, published, tuple(overrides))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise RecipeError(f"{where}: `name: value` lines are expected, not {value!r}")
    return value


def _checked(fields: Any, where: str, required: set[str], optional: set[str] = frozenset()) -> dict[str, Any]:
    fields = _mapping(fields, where)
    missing, unknown = sorted(required - fields.keys()), sorted(map(str, fields.keys() - required - optional))
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown field {unknown[0]}"
        raise RecipeError(f"{where} {problem}; its fields are {', '.join(sorted(required | optional))}")
    return fields
