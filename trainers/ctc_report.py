"""What reports of typing show: errors by user and kind, and a stretch of text beside what was decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from trainers.report import COLOURS, Column, family_of, format_score, kept_run, markdown_table, save_figure

EXCERPT = 240  # characters
PARTS = ("ser", "der", "ier")
"""Of which the error rate is the sum."""


def text_excerpt(session: str, typed: str, decoded: str) -> dict[str, str]:
    """The beginning of a session, as `user_tables` shows it."""
    return {"session": session, "typed": typed[:EXCERPT], "decoded": decoded[:EXCERPT]}


def user_tables(results: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """Markdown: a row per user for the kept seed, with the baselines' error rates beside it, and an excerpt."""
    scores = kept_run(results)["test"]
    others = {name: {row["subject"]: row for row in of["per_subject"]} for name, of in _detailed(results).items()}
    header = ["User", "Sessions", "Characters", *(c.title for c in columns), *(f"{name}: CER (%)" for name in others)]
    rows = [
        [
            row["subject"],
            row["sequences"],
            f"{row['characters']:,}",
            *(format_score(column, row[column.key]) for column in columns),
            *(format_score(columns[0], of.get(row["subject"], {}).get(columns[0].key)) for of in others.values()),
        ]
        for row in scores["per_subject"]
    ]
    seed = f", seed {results['kept_seed']}" if len(results["runs"]) > 1 else ""
    return f"""### By user (split {_split(results)}{seed})

{markdown_table(header, rows)}

![Errors by user](per_user.png)
{_notes(results)}{_excerpt(scores["example"])}"""


def _split(results: Mapping[str, Any]) -> str:
    return results.get("split") or results["test_split"]  # of an evaluation, of a training run


def _detailed(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Models beside the network of which scores by user are known."""
    return {name: scores for name, scores in results["baselines"].items() if "per_subject" in scores}


def _notes(results: Mapping[str, Any]) -> str:
    """What of the data could not be learned from or scored."""
    too_long = results["texts"].get("train", {}).get("windows_with_too_long_texts", 0)
    return f"\n{too_long:,} training windows have more characters than frames, and teach nothing.\n" if too_long else ""


def _excerpt(example: Mapping[str, str] | None) -> str:
    if example is None:
        return ""
    return f"""
### The beginning of session {example["session"]}

Typed:

    {example["typed"]}

Decoded:

    {example["decoded"]}
"""


def plot_users(results: Mapping[str, Any], columns: Sequence[Column], path: str | Path) -> None:
    """PNG with a bar per user and model: substitutions, deletions and insertions on top of each other."""
    models = {family_of(results): kept_run(results)["test"], **_detailed(results)}
    users = [row["subject"] for row in next(iter(models.values()))["per_subject"]]
    titles = {column.key: column.title for column in columns}
    figure, axes = plt.subplots(figsize=(10, 0.32 * len(users) * len(models) + 1.8), layout="constrained")
    height = 0.8 / len(models)
    for index, (name, scores) in enumerate(models.items()):
        rows = {row["subject"]: row for row in scores["per_subject"]}
        places = np.arange(len(users)) + (index - (len(models) - 1) / 2) * height
        left = np.zeros(len(users))
        for part, colour in zip(PARTS, COLOURS, strict=False):
            values = np.array([rows.get(user, {}).get(part) or 0.0 for user in users])
            axes.barh(
                places, values, 0.9 * height, left=left, color=colour, alpha=1.0 if not index else 0.55,
                label=titles[part] if not index else None,
            )  # fmt: skip
            left += values
        for place, total in zip(places, left, strict=True):
            axes.text(total, place, f" {total:.1f}  {name if len(models) > 1 else ''}", va="center", fontsize="small")
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.35 * left.max(), 1.0))
    axes.set_yticks(range(len(users)), users)
    axes.invert_yaxis()
    axes.set(xlabel="Errors in percent of the characters typed", title=f"Errors by user, split {_split(results)}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(PARTS), frameon=False)
    save_figure(figure, path)
