"""What reports of speech synthesis show: spectra beside each other, phones that are taken for others, texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from tinymyo_hf.audio import FRAME_RATE
from trainers.report import kept_run, markdown_table, save_figure
from trainers.synthesis_examples import read_examples

MOST_CONFUSED = 10


def plot_examples(results: Mapping[str, Any], folder: Path) -> None:
    """`spectrograms.png`: the examples of the kept run, target above prediction, at the pace of the target."""
    spectra = list(read_examples(folder))
    if not spectra:
        return
    facts = kept_run(results)["test"]["examples"]
    width = [len(target) for target, _ in spectra]
    figure, panels = plt.subplots(
        2,
        len(spectra),
        figsize=(5 * len(spectra), 5.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
        width_ratios=width,
    )
    low, high = np.percentile(np.concatenate([target for target, _ in spectra]), (1, 99.8))
    image = None
    for column, ((target, predicted), example) in enumerate(zip(spectra, facts, strict=True)):
        for axes, spectrum, title in zip(
            panels[:, column], (target, predicted), ("read aloud", "predicted"), strict=True
        ):
            seconds = len(spectrum) / FRAME_RATE
            image = axes.imshow(
                spectrum.T, origin="lower", aspect="auto", vmin=low, vmax=high, extent=(0, seconds, 0, 80), cmap="magma"
            )
            axes.set_title(title, fontsize="small", loc="left")
        panels[0, column].set_title(
            f"{_shortened(example['text'])}\nmel distance {example['mel_distance']:.2f}; read aloud",
            fontsize="small",
            loc="left",
        )
        panels[1, column].set_xlabel("Seconds")
    for axes in panels[:, 0]:
        axes.set_ylabel("Mel band")
    figure.colorbar(image, ax=panels, label="Natural logarithm of the magnitude", shrink=0.8)
    save_figure(figure, folder / "spectrograms.png")


def plot_confusion(results: Mapping[str, Any], path: Path) -> None:
    """PNG: for each phone that was said (row), the shares of its frames that were taken for each phone."""
    counts = np.array(kept_run(results)["test"]["confusion"])
    said = np.flatnonzero(counts.sum(axis=1))
    names = [results["phones"][i] for i in said]
    shares = 100 * counts[said][:, said] / counts[said].sum(axis=1, keepdims=True)
    size = 3 + 0.17 * len(said)
    figure, axes = plt.subplots(figsize=(size + 1, size), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(said)), names, rotation=90, fontsize="x-small")
    axes.set_yticks(range(len(said)), names, fontsize="x-small")
    axes.set(xlabel="Predicted", ylabel="Said", title="Phones, frame by frame")
    figure.colorbar(image, label="% of the frames of the phone that was said", shrink=0.8)
    save_figure(figure, path)


def most_confused(results: Mapping[str, Any]) -> str:
    """Table of the pairs of phones with most wrong frames."""
    counts = np.array(kept_run(results)["test"]["confusion"])
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]:
        said, predicted = np.unravel_index(place, wrong.shape)
        if wrong[said, predicted]:
            share = 100 * wrong[said, predicted] / counts[said].sum()
            names = results["phones"][said], results["phones"][predicted]
            rows.append([*names, f"{wrong[said, predicted]:,}", f"{share:.1f}"])
    return markdown_table(["Said", "Predicted", "Frames", "% of those said"], rows)


def synthesis_details(results: Mapping[str, Any]) -> str:
    """Markdown: what there is to see and to hear of the kept run."""
    scores = kept_run(results)["test"]
    listed = "\n".join(
        f'- `example_{i}_predicted.wav`, `example_{i}_target.wav`: {example["recording"]}, "{example["text"]}"'
        for i, example in enumerate(scores["examples"], 1)
    )
    return f"""{_words(scores)}### Examples

Three test utterances, from near to far. The WAV files of targets are the spectra of the sentence read aloud through the
same vocoder: what it loses is not the model's fault.

{listed}

![Spectra](spectrograms.png)

### Phones that are taken for others

{most_confused(results)}

![Phones](phones.png)"""


def _words(scores: Mapping[str, Any]) -> str:
    if "wer" not in scores:
        return ""
    rows = [["predicted", f"{scores['wer']:.2f}"], ["read aloud, same vocoder", f"{scores['wer_of_targets']:.2f}"]]
    return f"""### Words

{markdown_table(["Heard", "WER (%)"], rows)}

By `{scores["asr_model"]}`, audio by {scores["vocoder"]}.

"""


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
