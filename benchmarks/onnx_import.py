"""What a first prediction costs: seconds and memory from an empty process, with onnxruntime and with transformers.

    python -m benchmarks.onnx_import                     # the published encoder, with weights drawn at random
    python -m benchmarks.onnx_import CHECKPOINT --int8 EXPORT --repeats 5

A process imports `pipeline`, loads the model and predicts a recording of ten seconds; then one of the other kind. The
line of summary has medians: seconds of the import alone and of all of it, seconds of the processor since the process
began (which count the same on a busy machine), and the most memory that it held.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from export.onnx import export_onnx
from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForSequenceClassification

CHANNELS, CLASSES, SECONDS = 8, 6, 10

SCRIPT = """
import sys, time
began = time.perf_counter()
{imports}
imported = time.perf_counter()
import numpy as np
classify = pipeline("emg-classification", model="{model}", {options})
rate, channels = {rate}, {channels}
signal = np.random.default_rng(0).normal(size=(channels, int({seconds} * rate)))
classify(signal, sampling_rate=rate)
done = time.perf_counter()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
loaded = "torch" in sys.modules
print(imported - began, done - began, time.process_time(), peak / 1024, loaded)
"""
"""`VmHWM`, in KiB, is of the process alone; `ru_maxrss` starts from that of the process it was forked from."""

WAYS = {
    "transformers": ("import tinymyo_hf; from transformers import pipeline", 'device="cpu"'),
    "onnxruntime": ("from tinymyo_hf.onnx import pipeline", "num_threads={threads}"),
}
"""What is imported, and how the pipeline is told where to run."""


def measure(way: str, model: str, threads: int, extractor: TinyMyoFeatureExtractor) -> list[float]:
    """Seconds of the import, of all of it, and of the processor, and MiB, in a process of its own."""
    imports, options = WAYS[way]
    script = SCRIPT.format(
        imports=imports,
        model=model,
        options=options.format(threads=threads),
        rate=extractor.recording_rate,
        channels=extractor.feature_size or CHANNELS,
        seconds=SECONDS,
    )
    environment = os.environ | {"TINYMYO_HF_REGISTER": "0" if way == "onnxruntime" else "1"}
    environment |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    *numbers, torch_loaded = done.stdout.split()
    assert torch_loaded == str(way == "transformers")
    return [float(number) for number in numbers]


def random_checkpoint(folder: Path) -> str:
    torch.manual_seed(0)
    TinyMyoForSequenceClassification(TinyMyoConfig(num_channels=CHANNELS, num_labels=CLASSES)).save_pretrained(folder)
    TinyMyoFeatureExtractor(feature_size=CHANNELS).save_pretrained(folder)
    return str(folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", help="a classifier; by default the published size, untrained")
    parser.add_argument("--int8", help="folder of an int8 export of the same checkpoint, measured too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or random_checkpoint(Path(folder) / "model")
        export_onnx(checkpoint, Path(folder) / "export", measured=False)
        extractor = TinyMyoFeatureExtractor.from_pretrained(checkpoint)
        candidates = {
            "transformers": ("transformers", checkpoint),
            "onnxruntime fp32": ("onnxruntime", f"{folder}/export"),
        }
        if options.int8:
            candidates["onnxruntime int8"] = ("onnxruntime", options.int8)
        found: dict[str, list[list[float]]] = {name: [] for name in candidates}
        for _ in range(options.repeats + 1):  # the first reads the files into the system's cache
            for name, (way, model) in candidates.items():
                found[name].append(measure(way, model, options.threads, extractor))
    for name, runs in found.items():
        imported, total, busy, peak = (statistics.median(values) for values in zip(*runs[1:], strict=True))
        seconds = f"import {imported:.2f} s, first prediction after {total:.2f} s ({busy:.2f} s of processor)"
        print(f"{name:>18}: {seconds}, {peak:.0f} MiB")


if __name__ == "__main__":
    main()
