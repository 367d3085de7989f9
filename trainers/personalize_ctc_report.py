"""The report of a personalization of typing: a row per user, before and after, as tables, a picture and a README.

Rows are what `results.json` holds under `rows`: `{"user", "model", "seed", "learning_rate", "cer", "ier", ...}`, with a
model of `MODEL_TITLES`; for the generic model, which is scored once per user, the seed and the learning rate are None.
Error rates are in percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from huggingface_hub import ModelCardData

from trainers.report import COLOURS, Column, format_score, markdown_table, mean_and_std, save_figure, write_text

GENERIC, PERSONAL, SCRATCH = "generic", "personalised", "from scratch"
MODEL_TITLES = {GENERIC: "Generic", PERSONAL: "Personalised", SCRATCH: "From scratch"}

Rows = Sequence[Mapping[str, Any]]


def user_scores(rows: Rows, model: str, key: str) -> dict[str, dict[str, Any]]:
    """User -> `mean_and_std` of a score over seeds; empty for a model that was not trained."""
    found: dict[str, list[float | None]] = {}
    for row in rows:
        if row["model"] == model:
            found.setdefault(row["user"], []).append(row[key])
    return {user: mean_and_std(values) for user, values in found.items()}


def over_users(rows: Rows, model: str, key: str) -> dict[str, Any]:
    """`mean_and_std` over users, of the means over seeds."""
    return mean_and_std([score["mean"] for score in user_scores(rows, model, key).values()])


def over_seeds(rows: Rows, model: str, key: str) -> dict[str, Any]:
    """`mean_and_std` over seeds, of the means over users: the spread that the paper publishes (appendix A.4)."""
    by_seed: dict[int | None, list[float | None]] = {}
    for row in rows:
        if row["model"] == model:
            by_seed.setdefault(row["seed"], []).append(row[key])
    return mean_and_std([mean_and_std(values)["mean"] for values in by_seed.values()])


def models_of(rows: Rows) -> list[str]:
    """The models there are, in the order of `MODEL_TITLES`."""
    return [model for model in MODEL_TITLES if any(row["model"] == model for row in rows)]


def summarize(rows: Rows, columns: Sequence[Column]) -> dict[str, dict[str, dict[str, Any]]]:
    """Model -> key of a score -> {"users": `over_users`, "seeds": `over_seeds`}."""
    return {
        model: {
            column.key: {"users": over_users(rows, model, column.key), "seeds": over_seeds(rows, model, column.key)}
            for column in columns
        }
        for model in models_of(rows)
    }


def user_table(rows: Rows, column: Column) -> str:
    """A row per user (mean and standard deviation over seeds) and one for all (over users)."""
    models = models_of(rows)
    scores = {model: user_scores(rows, model, column.key) for model in models}
    body = [
        [user, *(format_score(column, scores[model][user]) if user in scores[model] else "–" for model in models)]
        for user in dict.fromkeys(row["user"] for row in rows)
    ]
    body.append(["**Mean**", *(format_score(column, over_users(rows, model, column.key)) for model in models)])
    return markdown_table(["User", *(f"{MODEL_TITLES[model]} {column.title}" for model in models)], body)


def error_table(rows: Rows, columns: Sequence[Column]) -> str:
    """A row per model, a column per kind of error: mean and standard deviation over users."""
    body = [
        [MODEL_TITLES[model], *(format_score(column, over_users(rows, model, column.key)) for column in columns)]
        for model in models_of(rows)
    ]
    return markdown_table(["Model", *(column.title for column in columns)], body)


def gain_sentence(rows: Rows, key: str = "cer") -> str:
    """How many users personalization helps, and by how much."""
    before, after = (user_scores(rows, model, key) for model in (GENERIC, PERSONAL))
    gains = {
        user: before[user]["mean"] - after[user]["mean"]
        for user in after
        if before[user]["mean"] is not None and after[user]["mean"] is not None
    }
    if not gains:
        return "Nothing can be compared: the scores are undefined."
    errors = float(np.mean([before[user]["mean"] for user in gains]))
    gain = float(np.mean(list(gains.values())))
    share = f" ({100 * gain / errors:.0f} % of the generic model's)" if errors else ""
    least = min(gains, key=gains.__getitem__)
    return (
        f"Personalization lowers the CER of {sum(value > 0 for value in gains.values())} of {len(gains)} users, on "
        f"average by {gain:.2f} points{share}; least for {least}: {gains[least]:+.2f}."
    )


def plot_users(rows: Rows, path: str | Path, column: Column) -> None:
    """PNG: for every user the score before and after, joined by a line (bars: standard deviation over seeds), and on
    the right the mean over users (and theirs)."""
    users = list(dict.fromkeys(row["user"] for row in rows))
    figure, axes = plt.subplots(figsize=(max(7.0, 0.7 * len(users) + 3.5), 4.5), layout="constrained")
    styles = {GENERIC: (COLOURS[1], "o"), PERSONAL: (COLOURS[0], "o"), SCRATCH: ("0.55", "s")}
    before, after = (user_scores(rows, model, column.key) for model in (GENERIC, PERSONAL))
    for place, user in enumerate(users):
        pair = [scores[user]["mean"] for scores in (before, after) if user in scores]
        if None not in pair:
            axes.plot([place] * len(pair), [column.scale * value for value in pair], color="0.75", zorder=1)
    for model in models_of(rows):
        scores = user_scores(rows, model, column.key)
        points = [(users.index(user), score) for user, score in scores.items() if score["mean"] is not None]
        points.append((len(users), over_users(rows, model, column.key)))
        defined = [(place, score) for place, score in points if score["mean"] is not None]
        axes.errorbar(
            [place for place, _ in defined],
            [column.scale * score["mean"] for _, score in defined],
            yerr=[column.scale * (score["std"] or 0.0) for _, score in defined],
            linestyle="none",
            color=styles[model][0],
            marker=styles[model][1],
            markerfacecolor="white" if model == GENERIC else styles[model][0],
            capsize=3,
            label=MODEL_TITLES[model],
        )
    axes.axvline(len(users) - 0.5, color="0.8", linewidth=0.8)
    axes.set_xticks(range(len(users) + 1), [*users, "mean"], rotation=30 if len(users) > 6 else 0)
    axes.set(ylabel=column.title, ylim=(0, None), title="Before and after personalization")
    axes.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def render_summary(results: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """The tables of a finished run, for the terminal."""
    parts = [user_table(results["rows"], columns[0]), gain_sentence(results["rows"])]
    parts += [f"Failed: {user}: {reason}" for user, reason in results["failed"].items()]
    return "\n\n".join(parts)


def write_report(results: Mapping[str, Any], columns: Sequence[Column], folder: str | Path) -> None:
    """Write `README.md` and `cer.png` from the content of `results.json`. `columns`: the scores, CER first."""
    folder = Path(folder)
    plot_users(results["rows"], folder / f"{columns[0].key}.png", columns[0])
    base = results["checkpoint"]
    metadata = ModelCardData(
        library_name="transformers",  # and no licence: that of the checkpoint holds
        tags=["emg", "biosignals", "emg-to-text", "personalization"],
        base_model=None if Path(base).exists() else base,
        model_name=folder.resolve().name,
    )
    write_text(folder / "README.md", f"---\n{metadata.to_yaml()}\n---\n\n{_body(results, columns)}")


def _body(results: Mapping[str, Any], columns: Sequence[Column]) -> str:
    rows, environment, cer = results["rows"], results["environment"], columns[0]
    command = results["command"] or "trainers.personalize_ctc.run(...), with the arguments in results.json"
    seconds = sum(run["train_seconds"] for run in results["runs"])
    return f"""# Personal models on {results["dataset"]}

`{results["checkpoint"]}` trained further on the recordings of one user at a time, and tested on other sessions of the
same user. {results["protocol"]}

## CER (percent; mean ± standard deviation)

{user_table(rows, cer)}

{gain_sentence(rows)} {_spread(results, cer)}

![CER of every user](cer.png)

{error_table(rows, columns)}

CER is the edits that turn the prediction into what was typed, per typed character, over the test sessions of a user,
each taken whole; insertions, deletions and substitutions add up to it.{_scratch(results)}

## The users

{_users(results)}
{_failed(results)}
## Training

{_training(results)}

Reproduce with

    {command}

Measured on {environment["hardware"]} with torch {environment["torch"]} and transformers {environment["transformers"]};
{seconds:,.0f} s of training in all.

## Limits

- {len(results["users"])} users of one corpus. How long a personal model lasts, beyond the days between the sessions,
  was not measured.
- A personal model is of no use to anybody else: for others take the checkpoint it started from, whose licence holds.
- What is typed can be read from these signals, passwords included: recordings and models are personal data.
"""


def _spread(results: Mapping[str, Any], cer: Column) -> str:
    if len(results["seeds"]) < 2:
        return "Spreads are over users; there is one seed."
    over = format_score(cer, over_seeds(results["rows"], PERSONAL, cer.key))
    return (
        f"Spreads are over {len(results['seeds'])} seeds in the rows of users, and over users in that of the mean; "
        f"over seeds, the mean of the users is {over}."
    )


def _scratch(results: Mapping[str, Any]) -> str:
    rate = next((row["learning_rate"] for row in results["rows"] if row["model"] == SCRATCH), None)
    if rate is None:
        return ""
    return (
        '\n\n"From scratch" is the same network, trained from random weights on the same recordings of the user: what '
        f"they give\nwithout the generic model. Its learning rate is {rate:g}, all else is as below."
    )


def _users(results: Mapping[str, Any]) -> str:
    splits = ("train", "validation", "test")
    body = [
        [
            user,
            *(f"{facts['sessions'][split]} ({facts['keystrokes'][split]:,})" for split in splits),
            f"[`{facts['folder']}`]({facts['folder']})",
        ]
        for user, facts in results["users"].items()
    ]
    header = ["User", *(f"{split} sessions (keystrokes)" for split in splits), "Model"]
    return markdown_table(header, body) + (
        "\n\nA user's folder holds the model of the seed that validated best, with a model card of its own."
    )


def _failed(results: Mapping[str, Any]) -> str:
    if not results["failed"]:
        return ""
    lines = "\n".join(f"- {user}: {reason}" for user, reason in results["failed"].items())
    return f"\nNot finished; started again, the run tries these again:\n\n{lines}\n"


def _training(results: Mapping[str, Any]) -> str:
    fields = markdown_table(
        ["Field", "Value"], [[f"`{name}`", f"`{value}`"] for name, value in results["hyperparameters"].items()]
    )
    return (
        f"{fields}\n\nThe weights with the lowest CER on the user's validation sessions are kept; the test sessions "
        "were used once, at the end."
    )
