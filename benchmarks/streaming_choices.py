"""What each way of streaming a typing model costs in accuracy, on the simulated typing of `synthetic_typing`.

    python -m benchmarks.streaming_choices RUNS --bf16

trains the networks that are missing in RUNS (`RUNS/NAME`, about six minutes each on a free core), decodes the test
sessions of each as a stream, prints the table and writes RUNS/streaming_choices.md and .png. All networks have the
published size of 128 x 4 and differ in nothing but the choice; one seed each. What has the published norm, of the whole
window, cannot be streamed exactly: it is decoded with whole sessions, with its last seconds computed again every hop,
and with the statistics of another session of the same person in place of those of the session.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import matplotlib.pyplot as plt
import torch

from dataset_builders.base import load_corpus
from dataset_builders.continuous_view import ContinuousDataset, Cutting
from tinymyo_hf import SEMGTransformerForCTC
from tinymyo_hf.decoding import greedy_decode
from tinymyo_hf.semg_transformer.streaming import (
    SEMGTransformerStream,
    WindowedStream,
    session_logits,
    session_statistics,
)
from trainers.report import markdown_table, save_figure, write_text
from trainers.run import run_recipe
from trainers.text_metrics import Errors, character_errors

RECIPE = ("synthetic_typing", "--preset", "semg-transformer-128x4", "--num_train_epochs", "5", "--baselines", "false")
FULL, WINDOW = "full", "window"
NETWORKS: dict[str, tuple[str, dict[str, str]]] = {
    FULL: ("published", {"attention_window": "null"}),
    WINDOW: ("attention to 1 s", {}),
    "running": ("attention to 1 s, running norm", {"input_norm": "running"}),
    "running_causal": (
        "attention to 1 s, running norm, causal positions",
        {"input_norm": "running", "positional_conv_causal": "true"},
    ),
    "frozen_causal": (
        "attention to 1 s, frozen norm, causal positions",
        {"input_norm": "frozen", "positional_conv_causal": "true"},
    ),
}
LAST_SECONDS = ((FULL, 4, 63), (FULL, 2, 63), (WINDOW, 4, 63), (WINDOW, 4, 10), (WINDOW, 4, 0))
"""Models that are computed again every half second on so many last seconds, and frames of look-ahead."""
HOP = 1000
PUSH = 200  # samples, 100 ms

Session = dict[str, Any]  # an item of ContinuousDataset
Corpora = dict[str, datasets.DatasetDict]  # by their configuration
Statistics = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Row:
    """A way of decoding sessions. `delay`: ms from the end of a frame to its logits; None: after the session."""

    name: str
    delay: float | None
    errors: Errors

    @property
    def cer(self) -> float:
        return self.errors.rates()["cer"]


def train_missing(folder: Path, extra: Sequence[str]) -> None:
    for name, (_, fields) in NETWORKS.items():
        if not (folder / name / "results.json").is_file():
            changes = [text for key, value in fields.items() for text in (f"--model_config.{key}", value)]
            run_recipe(RECIPE[0], [*RECIPE[1:], *changes, *extra, "--output_dir", str(folder / name)])


def read_sessions(run: Path, split: str, corpora: Corpora) -> list[Session]:
    """The whole sessions of a split of the corpus that a run was trained on; corpora are read once."""
    data = json.loads((run / "results.json").read_text(encoding="utf-8"))["arguments"]["data"]
    key = json.dumps(data["dataset_config"], sort_keys=True)
    if key not in corpora:
        fields = {name: data[name] for name in ("data_dir", "cache_dir")}
        corpora[key], _ = load_corpus(data["dataset"], **fields, **data["dataset_config"])
    view = ContinuousDataset(corpora[key][split], Cutting(), ["subject"])
    return [view[i] for i in range(len(view))]


def score(
    name: str, delay: float | None, sessions: Sequence[Session], logits: Callable[[Session], torch.Tensor]
) -> Row:
    errors = Errors()
    for session in sessions:
        ids = greedy_decode(logits(session).float().numpy())[0]
        errors = errors + character_errors(ids, session["event_ids"].tolist())
    row = Row(name, delay, errors)
    print(f"{name}: CER {row.cer:.2f} %", flush=True)
    return row


def streamed(stream: SEMGTransformerStream | WindowedStream, session: Session) -> torch.Tensor:
    """Logits (1, frames, vocab) of a session that comes in pieces of 100 ms."""
    stream.reset()
    pieces = session["input_values"][None].split(PUSH, dim=-1)
    return torch.cat([*(stream.push(piece) for piece in pieces), stream.finish()], dim=1)


def milliseconds(frames: int) -> float:
    return 10.0 * frames


def window_rows(name: str, title: str, model: SEMGTransformerForCTC, run: Path, corpora: Corpora) -> Iterator[Row]:
    """Ways to use a model whose norm needs the whole window."""
    sessions = read_sessions(run, "test", corpora)
    yield score(f"{title}: whole sessions", None, sessions, lambda s: session_logits(model, s["input_values"][None]))
    for network, seconds, look_ahead in LAST_SECONDS:
        if network == name:
            stream = WindowedStream(model, 2000 * seconds, HOP, look_ahead)
            yield score(
                f"{title}: last {seconds} s every 500 ms, {10 * look_ahead} ms of look-ahead",
                milliseconds(stream.delay),
                sessions,
                lambda s, stream=stream: streamed(stream, s),
            )
    if name == WINDOW:
        statistics = earlier_statistics(model, read_sessions(run, "validation", corpora))
        yield score(
            f"{title}: norm frozen to an earlier session of the person",
            milliseconds(63),
            sessions,
            lambda s: streamed(SEMGTransformerStream(model, statistics=statistics[s["subject"]]), s),
        )


def earlier_statistics(model: SEMGTransformerForCTC, sessions: Sequence[Session]) -> dict[str, Statistics]:
    """Per person, the mean and variance to normalise with."""
    signals: dict[str, list[torch.Tensor]] = {}
    for session in sessions:
        signals.setdefault(session["subject"], []).append(session["input_values"])
    return {subject: session_statistics(model, torch.cat(parts, dim=-1)[None]) for subject, parts in signals.items()}


def rows_of(folder: Path) -> Iterator[Row]:
    corpora: Corpora = {}
    for name, (title, _) in NETWORKS.items():
        run = folder / name
        if not (run / "results.json").is_file():
            continue
        model = SEMGTransformerForCTC.from_pretrained(run).eval()
        if model.config.input_norm == "window":
            yield from window_rows(name, title, model, run, corpora)
        else:
            sessions = read_sessions(run, "test", corpora)
            stream = SEMGTransformerStream(model)
            yield score(title, milliseconds(stream.delay), sessions, lambda s, stream=stream: streamed(stream, s))


def plot_rows(rows: Sequence[Row], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(rows) + 1.2), layout="constrained")
    colours = ["tab:grey" if row.delay is None else "tab:blue" for row in rows]
    labels = [
        f"{row.name} ({'offline' if row.delay is None else f'{row.delay:.0f} ms late'})" for row in reversed(rows)
    ]
    bars = axes.barh(labels, [row.cer for row in reversed(rows)], color=colours[::-1])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="Character error rate of the test sessions, percent", xlim=(0, 1.15 * max(row.cer for row in rows)))
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--bf16", action="store_true", help="train with bfloat16 autocast")
    parser.add_argument("--read_only", action="store_true", help="train nothing: show what RUNS holds")
    options = parser.parse_args(arguments)
    if not options.read_only:
        train_missing(options.runs, ["--bf16", "true"] if options.bf16 else [])
    rows = list(rows_of(options.runs))
    if not rows:
        parser.error(f"{options.runs} holds no finished run: leave out --read_only")
    table = markdown_table(["Model and how it is run", "Comes late by (ms)", "CER (%)"], table_cells(rows))
    write_text(options.runs / "streaming_choices.md", table + "\n")
    plot_rows(rows, options.runs / "streaming_choices.png")
    print(f"\n{table}\n\nPlot: {options.runs / 'streaming_choices.png'}")


def table_cells(rows: Sequence[Row]) -> list[list[str]]:
    return [[row.name, "offline" if row.delay is None else f"{row.delay:.0f}", f"{row.cer:.2f}"] for row in rows]


if __name__ == "__main__":
    main()
