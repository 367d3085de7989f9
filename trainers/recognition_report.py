"""What reports of recognition show: errors by how it was said, and texts beside what was made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from trainers.report import COLOURS, Column, family_of, format_score, kept_run, markdown_table, save_figure

PARTS = (("substitutions", "substituted"), ("deletions", "deleted"), ("insertions", "inserted"))
_RATES = (
    Column("wer", "WER, greedy (%)"),
    Column("cer", "CER, greedy (%)"),
    Column("wer_lm", "WER, beam + LM (%)"),
    Column("cer_lm", "CER, beam + LM (%)"),
)


def recognition_details(results: Mapping[str, Any]) -> str:
    """Markdown: scores by mode and example texts of the kept seed, and what was left out."""
    scores = kept_run(results)["test"]
    rows = [
        [row["mode"], row["utterances"], f"{row['words']:,}", *(format_score(c, row.get(c.key)) for c in _RATES)]
        for row in scores["per_mode"]
    ]
    seed = f", seed {results['kept_seed']}" if len(results["runs"]) > 1 else ""
    return f"""### By mode of speaking (split {_split(results)}{seed})

{markdown_table(["Mode", "Utterances", "Words", *(c.title for c in _RATES)], rows)}

![Errors in words](words.png)
{_notes(results)}
Recognising took {scores["real_time_factor"]:.3f} times as long as speaking{_with_beam(scores)}.

### Examples

{_examples(scores["examples"])}"""


def _split(results: Mapping[str, Any]) -> str:
    return results.get("split") or results["test_split"]  # of an evaluation, of a training run


def _with_beam(scores: Mapping[str, Any]) -> str:
    factor = scores.get("real_time_factor_lm")
    return "" if factor is None else f", with the beam search {factor:.3f} times"


def _notes(results: Mapping[str, Any]) -> str:
    """What of the data could not be learned from or scored."""
    lines = []
    for split, found in results["texts"].items():
        if found["utterances_without_text"]:
            lines.append(f"{found['utterances_without_text']:,} utterances of {split} have no text and are left out.")
    too_short = results["texts"].get("train", {}).get("utterances_too_short_for_their_text", 0)
    if too_short:
        lines.append(f"{too_short:,} training utterances have more characters than frames, and teach nothing.")
    return "".join(f"\n{line}\n" for line in lines)


def _examples(examples: list[Mapping[str, Any]]) -> str:
    parts = []
    for example in examples:
        lines = [f"said:   {example['said']}", f"greedy: {example['greedy']}"]
        if example["beam"] is not None:
            lines.append(f"beam:   {example['beam']}")
        parts.append(f"{example['recording']} ({example['mode']}):\n\n" + "\n".join(f"    {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def plot_words(results: Mapping[str, Any], path: str | Path) -> None:
    """PNG with a bar per model and decoder: words substituted, deleted and inserted, in percent of those said."""
    bars = {}
    for name, scores in {family_of(results): kept_run(results)["test"], **results["baselines"]}.items():
        for suffix, how in (("_lm", "beam + LM"), ("", "greedy")):
            if f"wer{suffix}" in scores:
                label = name if name in results["baselines"] and "wer_lm" not in scores else f"{name}, {how}"
                bars[label] = [100.0 * scores[f"{part}{suffix}"] / scores["words"] for part, _ in PARTS]
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(bars) + 1.6), layout="constrained")
    places, left = np.arange(len(bars)), np.zeros(len(bars))
    for index, (_, title) in enumerate(PARTS):
        values = np.array([parts[index] for parts in bars.values()])
        axes.barh(places, values, 0.7, left=left, color=COLOURS[index], label=title)
        left += values
    for place, total in zip(places, left, strict=True):
        axes.text(total, place, f" {total:.1f}", va="center", fontsize="small")
    axes.set_xlim(0, max(1.12 * left.max(), 1.0))
    axes.set_yticks(places, bars)
    axes.invert_yaxis()
    axes.set(xlabel="Errors in percent of the words said", title=f"Errors in words, split {_split(results)}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(PARTS), frameon=False)
    save_figure(figure, path)
