"""`tinymyo simulate`: simulated corpora as files, in the layout of recorded ones; `tinymyo_hf.cli` registers it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    gaddy = "gaddy"


def simulate(
    context: typer.Context,
    layout: Annotated[Layout, typer.Argument(help="The corpus whose layout is written.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    parallel: Annotated[int, typer.Option(help="Sentences read both aloud and in silence.")] = 500,
    nonparallel: Annotated[int, typer.Option(help="Sentences read aloud only.")] = 1200,
    seed: Annotated[int, typer.Option(help="Another seed: another person, other sentences.")] = 0,
) -> None:
    """Write a simulated corpus of silent speech: EMG, audio, texts, alignments and a split file (under a minute)."""
    from dataset_builders.simulation.gaddy_corpus import SPLIT_FILE, write_gaddy_corpus

    written = write_gaddy_corpus(out, parallel, nonparallel, seed)
    typer.echo(
        f"{written.minutes:.1f} minutes of EMG written to {out}: {written.silent} silent utterances "
        f"({written.dev} for development, {written.test} for the test), {written.voiced} of the same sentences read "
        f"aloud, {written.nonparallel} of others\n"
        f"Prepare it with: tinymyo prepare {layout.value} --data-dir {out} --split_file {SPLIT_FILE} --out FOLDER"
    )
