"""What each way of streaming a typing model costs in accuracy, on the simulated typing of `synthetic_typing`.

    python -m benchmarks.streaming_choices RUNS --bf16

trains the networks that are missing in RUNS (`RUNS/NAME`, about six minutes each on a free core), decodes the test
sessions of each as a stream, prints the table and writes RUNS/streaming_choices.md and .png. All networks have the
published size of 128 x 4 and differ in nothing but the choice; one seed each. The published arrangement cannot be
streamed exactly: it stands there decoded with whole sessions, with its last four seconds computed again every hop, and
with the statistics of another session of the same person in place of those of the session.
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
CAUSAL = {"positional_conv_causal": "true"}
BAND = {"attention_window": "100"}
PUBLISHED = "published"
NETWORKS: dict[str, tuple[str, dict[str, str]]] = {
    PUBLISHED: ("", {}),
    "running": ("running norm", {"input_norm": "running"}),
    "running_causal": ("running norm, causal positions", {"input_norm": "running"} | CAUSAL),
    "running_causal_band": (
        "running norm, causal positions, attention to 1 s",
        {"input_norm": "running"} | CAUSAL | BAND,
    ),
    "frozen_causal_band": ("frozen norm, causal positions, attention to 1 s", {"input_norm": "frozen"} | CAUSAL | BAND),
}
PUSH = 200  # samples, 100 ms

Session = dict[str, Any]  # an item of ContinuousDataset


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


def read_sessions(run: Path, split: str, corpora: dict[str, datasets.DatasetDict]) -> list[Session]:
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


def published_rows(model: SEMGTransformerForCTC, sessions: list[Session], earlier: list[Session]) -> Iterator[Row]:
    """Ways to use a model whose norm needs the whole window. `earlier`: other sessions of the same people."""
    yield score("published: whole sessions", None, sessions, lambda s: session_logits(model, s["input_values"][None]))
    for hop, look_ahead in ((200, 63), (2000, 63), (200, 10), (200, 0)):
        stream = WindowedStream(model, 8000, hop, look_ahead)
        yield score(
            f"published: last 4 s every {hop // 2} ms, {10 * look_ahead} ms of look-ahead",
            milliseconds(stream.delay),
            sessions,
            lambda s, stream=stream: streamed(stream, s),
        )
    known = {
        subject: torch.cat([s["input_values"] for s in earlier if s["subject"] == subject], dim=-1)
        for subject in {s["subject"] for s in sessions}
    }
    statistics = {subject: session_statistics(model, samples[None]) for subject, samples in known.items()}
    yield score(
        "published: statistics of an earlier session of the person",
        milliseconds(63),
        sessions,
        lambda s: streamed(SEMGTransformerStream(model, statistics=statistics[s["subject"]]), s),
    )


def rows_of(folder: Path) -> Iterator[Row]:
    corpora: dict[str, datasets.DatasetDict] = {}
    for name, (title, _) in NETWORKS.items():
        run = folder / name
        if not (run / "results.json").is_file():
            continue
        model = SEMGTransformerForCTC.from_pretrained(run).eval()
        sessions = read_sessions(run, "test", corpora)
        if name == PUBLISHED:
            yield from published_rows(model, sessions, read_sessions(run, "validation", corpora))
        else:
            stream = SEMGTransformerStream(model)
            yield score(title, milliseconds(stream.delay), sessions, lambda s, stream=stream: streamed(stream, s))


def plot_rows(rows: Sequence[Row], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(rows) + 1.2), layout="constrained")
    colours = ["tab:grey" if row.name.startswith("published") else "tab:blue" for row in rows]
    labels = [
        f"{row.name} ({'offline' if row.delay is None else f'{row.delay:.0f} ms late'})" for row in reversed(rows)
    ]
    bars = axes.barh(labels, [row.cer for row in reversed(rows)], color=colours[::-1])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="Character error rate of the test sessions, percent", xlim=(0, 1.1 * max(row.cer for row in rows)))
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
