"""What int8 linear layers cost a typing model in character errors, and how much smaller and faster they make it.

    python -m benchmarks.ctc_int8 runs/synthetic_typing
    python -m benchmarks.ctc_int8 CHECKPOINT --dataset emg2qwerty --data_dir emg2qwerty.tar.gz --split test

decodes the whole sessions of a split with the checkpoint and with its quantized copy. Without --dataset the corpus is
that of the run in whose folder the checkpoint lies.
"""

import argparse
import io
import json
import time
from pathlib import Path

import datasets
import torch

from dataset_builders.base import load_corpus
from dataset_builders.continuous_view import ContinuousDataset, Cutting
from tinymyo_hf import SEMGTransformerForCTC
from tinymyo_hf.decoding import greedy_decode
from tinymyo_hf.semg_transformer.quantization import quantize_dynamic
from tinymyo_hf.semg_transformer.streaming import session_logits
from trainers.text_metrics import Errors, character_errors


def megabytes(model: SEMGTransformerForCTC) -> float:
    """Of the saved weights."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 1e6


def read_corpus(options: argparse.Namespace) -> datasets.DatasetDict:
    """That of the options, or that on which the checkpoint's run was trained."""
    if options.dataset:
        name, config, found = options.dataset, json.loads(options.dataset_config), {}
    else:
        results = json.loads((Path(options.checkpoint) / "results.json").read_text(encoding="utf-8"))
        found = results["arguments"]["data"]
        name, config = found["dataset"], found["dataset_config"]
    places = {field: getattr(options, field) or found.get(field) for field in ("data_dir", "cache_dir")}
    return load_corpus(name, **places, **config)[0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--dataset", help="a corpus's name or a prepared folder; by default that of the run")
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--dataset_config", default="{}", help="fields of the corpus, as JSON")
    parser.add_argument("--split", default="test")
    parser.add_argument("--sessions", type=int, help="only the first so many")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = SEMGTransformerForCTC.from_pretrained(options.checkpoint).eval()
    networks = {"float32": model, "int8": quantize_dynamic(model)}
    sessions = ContinuousDataset(read_corpus(options)[options.split], Cutting())
    count = min(options.sessions or len(sessions), len(sessions))
    errors, seconds = dict.fromkeys(networks, Errors()), dict.fromkeys(networks, 0.0)
    same = frames = 0
    for session in (sessions[i] for i in range(count)):
        best = {}
        for name, network in networks.items():
            start = time.perf_counter()
            logits = session_logits(network, session["input_values"][None])
            seconds[name] += time.perf_counter() - start
            best[name] = logits.argmax(-1)
            decoded = greedy_decode(logits.numpy(), blank=model.config.pad_token_id)[0]
            errors[name] = errors[name] + character_errors(decoded, session["event_ids"].tolist())
        same += int((best["float32"] == best["int8"]).sum())
        frames += best["float32"].numel()
    print(f"{options.checkpoint}, {count} sessions of {options.split}, {errors['int8'].target_length} characters")
    for name, network in networks.items():
        cer = errors[name].rates()["cer"]
        print(f"{name:8s} CER {cer:6.2f} %   {megabytes(network):7.2f} MB   {seconds[name]:7.2f} s")
    print(f"frames with the same best character: {100 * same / frames:.2f} %")


if __name__ == "__main__":
    main()
