"""Accuracy on UCI EMG against the share of its labels: from scratch, from pretrained encoders, and classical models.

    python -m benchmarks.label_efficiency RUNS --data_dir uci_emg.tar.xz \\
        --encoder "masked=runs/pretrain_myo" --encoder "masked, no positions=runs/pretrain_myo_none"

trains what is missing in RUNS (`RUNS/NAME/SHARE-SEED`), prints the table of test accuracies and writes
RUNS/label_efficiency.png and .md. Without --data_dir nothing is trained: the table shows what RUNS holds. The seed of a
run decides its labelled windows as well as its initial weights; the classical models see the same windows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from trainers.report import Column, format_score, markdown_table, mean_and_std, save_figure, write_text
from trainers.run import run_recipe

RECIPE = "uci_emg_200_few_labels"  # and the same name with _ft for pretrained encoders
STEPS = {1.0: 800, 0.1: 250, 0.01: 150}  # of 32 windows; other shares take those of the next larger one
ACCURACY = Column("accuracy", "Accuracy", 100)
SCRATCH = {
    "from scratch": (RECIPE, ()),
    "from scratch, no positions": (RECIPE, ("--model_config.position_embedding_type", "none")),
}
MARKERS = "osD^vP*Xdh<>"

Scores = dict[str, dict[float, list[float]]]  # model -> share of the labels -> test accuracy per seed


def read_scores(folder: Path) -> Scores:
    """The test accuracies of every finished run below `folder`, those of the classical models once per share and seed.

    A run's model is named by the folder of `folder` that it lies in.
    """
    scores: Scores = {}
    baselines: dict[tuple[str, float, int], float] = {}
    for file in sorted(folder.glob("*/*/results.json")):
        results = json.loads(file.read_text(encoding="utf-8"))
        data = results["arguments"]["data"]
        share, seed = data["train_fraction"], data["train_fraction_seed"]
        accuracies = [run["test"]["accuracy"] for run in results["runs"]]
        scores.setdefault(file.parent.parent.name, {}).setdefault(share, []).extend(accuracies)
        for name, baseline in results["baselines"].items():
            baselines[name, share, seed] = baseline["accuracy"]
    for (name, share, _), accuracy in sorted(baselines.items()):
        scores.setdefault(name, {}).setdefault(share, []).append(accuracy)
    return scores


def score_rows(scores: Scores) -> str:
    """A row per model, a column per share, largest first: mean and standard deviation over seeds, percent."""
    shares = sorted({share for by_share in scores.values() for share in by_share}, reverse=True)
    rows = []
    for name, by_share in scores.items():
        cells = []
        for share in shares:
            summary = mean_and_std(by_share.get(share, []))
            shown = format_score(ACCURACY, summary) if summary["count"] else ""
            cells.append(f"{shown} ({summary['count']})" if summary["count"] else "")
        rows.append([name, *cells])
    return markdown_table(["Test accuracy (runs)", *(f"{100 * share:g} % of labels" for share in shares)], rows)


def plot_scores(scores: Scores, path: Path) -> None:
    """Accuracy against the share of the labels, a line per model, bars of one standard deviation."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours = plt.get_cmap("tab10")
    for index, (name, by_share) in enumerate(scores.items()):
        summaries = {100 * share: mean_and_std(values) for share, values in sorted(by_share.items())}
        axes.errorbar(
            list(summaries),
            [100 * summary["mean"] for summary in summaries.values()],
            [100 * (summary["std"] or 0.0) for summary in summaries.values()],
            marker=MARKERS[index % len(MARKERS)], color=colours(index % 10), capsize=3, label=name,
            linestyle="--" if name in ("LDA", "Random forest") else "-",
        )  # fmt: skip
    axes.set(
        xscale="log", xlim=(0.8, 125), xlabel="Labelled training windows, percent", ylabel="Test accuracy, percent"
    )
    axes.set_title("UCI EMG, six gestures, windows of 200 samples, unseen subjects")
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_figure(figure, path)


def train_missing(models: Mapping[str, tuple[str, Sequence[str]]], options: argparse.Namespace) -> None:
    """Few labels first, since they take least time; all models with a share before the next.

    Args:
        models: name -> recipe, and what the model changes in it.
    """
    for share in sorted(options.shares):
        steps = STEPS[min(known for known in STEPS if known >= share)]
        for seed in range(options.seeds if share < 1 else options.seeds_with_all):
            for name, (recipe, changes) in models.items():
                output = options.runs / name / f"{share:g}-{seed}"
                if (output / "results.json").is_file():
                    continue
                fields = {
                    "data_dir": options.data_dir, "train_fraction": share, "train_fraction_seed": seed, "seeds": seed,
                    "max_steps": steps, "bf16": options.bf16, "output_dir": output,
                }  # fmt: skip
                print(f"\n{name}, {100 * share:g} % of the labels, seed {seed}", flush=True)
                run_recipe(
                    recipe,
                    [text for field in fields.items() for text in (f"--{field[0]}", str(field[1]))] + list(changes),
                )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--data_dir", help="UCI EMG, folder or archive; none: only read what is there")
    parser.add_argument("--encoder", action="append", default=[], metavar="NAME=CHECKPOINT")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.1, 0.01])
    parser.add_argument("--seeds", type=int, default=3, help="runs with a part of the labels")
    parser.add_argument("--seeds_with_all", type=int, default=1, help="runs with all of them")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    options = parser.parse_args(arguments)
    if any("=" not in encoder for encoder in options.encoder):
        parser.error("--encoder: give NAME=CHECKPOINT")
    if options.data_dir:
        encoders = dict(encoder.split("=", 1) for encoder in options.encoder)
        pretrained = {name: (f"{RECIPE}_ft", ("--model_name_or_path", path)) for name, path in encoders.items()}
        train_missing(SCRATCH | pretrained, options)
    scores = read_scores(options.runs)
    if not scores:
        parser.error(f"{options.runs} holds no finished run: give --data_dir to train")
    table = score_rows(scores)
    write_text(options.runs / "label_efficiency.md", table + "\n")
    plot_scores(scores, options.runs / "label_efficiency.png")
    print(f"\n{table}\n\nPlot: {options.runs / 'label_efficiency.png'}")


if __name__ == "__main__":
    main()
