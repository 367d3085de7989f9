"""The main job from end to end in a few minutes: data, windows, training, unseen subjects, a reloaded pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline

from dataset_builders.base import make_builder
from dataset_builders.synthetic import simulate_recording
from tinymyo_hf.quiet import quiet
from tinymyo_hf.recordings import read_recording
from trainers.arguments import DataArguments
from trainers.finetune import run
from trainers.parsing import parse_recipe, read_recipe

# What a recipe of hours is cut down to for the demo on real recordings.
UCI_IN_MINUTES = {"num_train_epochs": 3, "early_stopping_patience": 0, "seeds": [0]}
SHOWN_SEGMENTS = 12


def run_demo(
    data_dir: str | None, output: str | Path, overrides: Sequence[str] = (), num_proc: int | None = None
) -> dict[str, Any]:
    """Train on the synthetic corpus (or on UCI EMG in `data_dir`), test on unseen subjects, predict a recording.

    Args:
        data_dir: UCI EMG recordings, a folder or an archive; None for the synthetic corpus.
        output: folder of the run; a demo that was interrupted continues there.
        overrides: recipe fields as on the command line.
        num_proc: processes that prepare the windows.

    Returns:
        `{"results": results.json, "prediction": output of the pipeline, "agreement": share of right windows}`.
    """
    started = time.perf_counter()
    recipe = read_recipe("uci_emg_200") | UCI_IN_MINUTES if data_dir else read_recipe("synthetic")
    recipe |= {"output_dir": str(output), "data_dir": data_dir, "num_proc": num_proc, "bf16": fast_bf16()}
    model_arguments, data_arguments, arguments = parse_recipe(recipe, overrides)

    _say("1/4", f"windows of {data_arguments.dataset}, and TinyMyo trained on them from scratch")
    command = "tinymyo demo" + (f" --data-dir {data_dir}" if data_dir else "")
    results = run(model_arguments, data_arguments, arguments, command=command)

    unseen = "subjects never trained on" if results["unseen_subjects"] else "the test split"
    _say("2/4", f"scores on {unseen}, in percent")
    print(results["summary"])

    _say("3/4", f"the saved model, loaded again from {output}")
    with quiet():
        classify = pipeline("emg-classification", model=str(output))
    print(f"{type(classify.model).__name__}, {sum(p.numel() for p in classify.model.parameters()):,} parameters")

    file, subject, truth = unseen_recording(data_arguments, results["labels"], Path(output))
    rate = classify.feature_extractor.sampling_rate
    _say("4/4", f"{file}, a raw recording of {subject}, predicted window by window")
    prediction = classify(str(file), sampling_rate=rate)
    labelled = with_truth(prediction["windows"], truth, rate)
    print(format_segments(labelled))
    known = [window for window in labelled if window["truth"]]
    agreement = float(np.mean([window["label"] == window["truth"] for window in known])) if known else None
    if agreement is not None:
        print(f"{100 * agreement:.1f} % of its {len(known)} labelled windows are right")

    minutes = (time.perf_counter() - started) / 60
    _say("done", f"{minutes:.1f} minutes")
    print(_what_next(Path(output), file, rate, data_dir))
    return {"results": results, "prediction": prediction, "agreement": agreement}


def fast_bf16() -> bool:
    """Whether bfloat16 matrix products are fast here: a GPU that has them, or a CPU with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    features = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch: then assume neither
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def unseen_recording(arguments: DataArguments, labels: Sequence[str], output: Path) -> tuple[Path, str, np.ndarray]:
    """A raw file that was not trained on, whose it is, and the label of each sample: str (time,), "" for none.

    Of the synthetic corpus, which has no files, one is simulated: somebody who is in no split.
    """
    if arguments.dataset == "synthetic":
        file = simulate_recording(output / "recording.csv")
        return file, "a simulated person who is in no split", read_recording(file, label_column="label").labels
    builder = make_builder(arguments.dataset, arguments.data_dir, arguments.cache_dir, **arguments.dataset_config)
    recording = next(recording for recording in builder.recordings if recording.split == "test")
    ids = builder.read_recording(recording).labels
    names = np.array([*labels, ""])  # UNLABELLED is -1: the last
    return Path(recording.path), f"test subject {recording.subject}", names[ids]


def with_truth(windows: Sequence[dict[str, Any]], truth: np.ndarray, rate: float) -> list[dict[str, Any]]:
    """Add `truth` to each window: its label if it has one throughout, else ""."""
    result = []
    for window in windows:
        inside = truth[round(window["start"] * rate) : round(window["end"] * rate)]
        result.append({**window, "truth": str(inside[0]) if (inside == inside[0]).all() else ""})
    return result


def format_segments(windows: Sequence[dict[str, Any]], rows: int = SHOWN_SEGMENTS) -> str:
    """Neighbouring windows with the same prediction and truth in one line; the first `rows` of them."""
    segments: list[dict[str, Any]] = []
    for window in windows:
        if not window["truth"]:
            continue
        last = segments[-1] if segments else None
        if last and last["label"] == window["label"] and last["truth"] == window["truth"]:
            last["end"] = window["end"]
        else:
            segments.append(dict(window))
    width = max([len("predicted"), *(len(segment["label"]) for segment in segments)])
    lines = [f"{'start s':>9}  {'end s':>9}  {'predicted':<{width}}  recorded"]
    lines += [
        f"{segment['start']:9.2f}  {segment['end']:9.2f}  {segment['label']:<{width}}  {segment['truth']}"
        for segment in segments[:rows]
    ]
    if len(segments) > rows:
        lines.append(f"... {len(segments) - rows} more")
    return "\n".join(lines)


def _say(step: str, text: str) -> None:
    print(f"\n[{step}] {text}\n", flush=True)


def _what_next(output: Path, recording: Path, rate: float, data_dir: str | None) -> str:
    more = (
        f"tinymyo train uci_emg_200 --data_dir {data_dir}    # the full recipe"
        if data_dir
        else "tinymyo demo --data-dir uci_emg.zip    # the same on recorded EMG: UCI dataset 481"
    )
    return f"""Here is
  {output}/README.md        the model card, with scores per subject
  {output}/results.json     the same as data, with settings and learning curve
  {output}/*.png            confusion matrix, learning curves, accuracy by subject
  {output}/seed-0/runs      what `tensorboard --logdir {output}` shows

Try next
  tinymyo predict {output} {recording} --sampling-rate {rate:g}
  {more}
  tinymyo prepare emg_folder --data-dir YOUR_RECORDINGS --out windows    # then `dataset: windows` in a recipe
"""
