"""Latency of Tiny-BioMoE: PyTorch eager, with folded batch norms, and compiled; ONNX in float32 and int8, in one run.

    python -m benchmarks.biomoe_speed                              # random weights; 1 and 2 threads, batch 1 and 16
    python -m benchmarks.biomoe_speed --threads 1 --clock cpu      # its own work alone, on a busy machine
    python -m benchmarks.biomoe_speed --threads 1 --clock cpu --window   # a window of 8 x 200 samples, beside TinyMyo
    python -m benchmarks.biomoe_speed --profile                    # where calls in eager mode and in ONNX spend time

The candidates run in turn, so that all see the same disturbances. Int8 has all layers in int8 and is calibrated on
noise, which changes its outputs but not its speed. `x published` compares with 28.3 ms, the released code at batch 1
with two threads, measured elsewhere and not again here.
"""

import argparse
import collections
import importlib.metadata
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.onnx_speed import CLOCKS, reported, session_of
from export.graph import trace
from export.measuring import interleaved
from export.onnx_quantization import quantize_static_int8
from tinymyo_hf import (
    TINYMYO_PRESETS,
    BiosignalImageProcessor,
    TinyBioMoEConfig,
    TinyBioMoEModel,
    TinyMyoConfig,
    TinyMyoModel,
    fold_batch_norms,
)

PUBLISHED_MS, PUBLISHED_THREADS = 28.3, 2
CANDIDATES = ("eager", "folded", "compiled", "onnx fp32", "onnx int8")
CALIBRATION_IMAGES = 8


def images(batch: int) -> np.ndarray:
    """(batch, 3, 224, 224) in [0, 1]."""
    return np.random.default_rng(0).random((batch, 3, 224, 224), dtype=np.float32)


def graphs_of(model: TinyBioMoEModel, names: tuple[str, ...]) -> dict[str, onnx.ModelProto]:
    """Those that are asked for."""
    if not any(name.startswith("onnx") for name in names):
        return {}
    graph = trace(model)
    makers = {
        "onnx fp32": lambda: graph,
        "onnx int8": lambda: quantize_static_int8(graph, images(CALIBRATION_IMAGES), batch_size=4),
    }
    return {name: make() for name, make in makers.items() if name in names}


def candidates_of(
    model: TinyBioMoEModel, graphs: Mapping[str, onnx.ModelProto], names: tuple[str, ...], batch: int, threads: int
) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed, each of which gives the embeddings of the same images, and has run once."""
    values = images(batch)
    tensor, folded = torch.from_numpy(values), fold_batch_norms(model)
    calls: dict[str, Callable[[], np.ndarray]] = {
        "eager": lambda: model(tensor).pooler_output.numpy(),
        "folded": lambda: folded(tensor).pooler_output.numpy(),
    }
    if "compiled" in names:
        torch.compiler.reset()
        compiled = torch.compile(folded, dynamic=False)
        calls["compiled"] = lambda: compiled(tensor).pooler_output.numpy()
    for name, graph in graphs.items():
        session = session_of(graph, threads)
        calls[name] = lambda session=session: session.run(None, {"pixel_values": values})[0]
    working = {}
    for name in names:
        with reported(name):
            calls[name]()
            working[name] = calls[name]
    return working


def show_window(model: TinyBioMoEModel, repeats: int, clock: str) -> None:
    """Of one window of 8 x 200 samples: drawing it as one image or as eight, the models of these, and TinyMyo."""
    window = np.random.default_rng(0).normal(size=(1, 8, 200)).astype(np.float32)
    tinymyo, signal = TinyMyoModel(TinyMyoConfig(**TINYMYO_PRESETS["tinymyo-base"])).eval(), torch.from_numpy(window)
    calls: dict[str, Callable[[], object]] = {"TinyMyo": lambda: tinymyo(signal)}
    for way in ("strips", "images"):
        processor = BiosignalImageProcessor(channels_as=way)
        pixels = torch.from_numpy(processor.images(window)[0])
        calls[f"drawing, {way}"] = lambda processor=processor: processor.images(window)
        calls[f"model, {way}"] = lambda pixels=pixels: model(pixels)
    with torch.inference_mode():
        for call in calls.values():
            call()
        for name, seconds in interleaved(calls, repeats, clock=CLOCKS[clock]).items():
            print(f"{name:18s} {1e3 * statistics.median(seconds):8.2f} ms", flush=True)


def table(times: Mapping[str, list[float]], batch: int, threads: int) -> str:
    """A line for each candidate; ratios are of medians."""
    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    comparable = batch == 1 and threads == PUBLISHED_THREADS
    lines = [f"{'':12s} median ms    min ms  images/s  x eager{'  x published' if comparable else ''}"]
    for name, median in medians.items():
        line = f"{name:12s} {median:9.2f} {1e3 * min(times[name]):9.2f} {1e3 * batch / median:9.1f}"
        line += f" {medians['eager'] / median:8.2f}" if "eager" in medians else " " * 9
        lines.append(line + (f" {PUBLISHED_MS / median:12.2f}" if comparable else ""))
    return "\n".join(lines)


def show_profile(model: TinyBioMoEModel, graph: onnx.ModelProto | None) -> None:
    """Shares of the operators, batch 1."""
    values = images(1)
    with torch.inference_mode():
        tensor = torch.from_numpy(values)
        model(tensor)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(10):
                model(tensor)
    spent = {event.key: event.self_cpu_time_total / 1e4 for event in found.key_averages()}
    print_shares("eager, folded batch norms", spent)
    if graph is not None:
        print_shares("onnx fp32", onnx_shares(graph, values))


def onnx_shares(graph: onnx.ModelProto, values: np.ndarray) -> dict[str, float]:
    """Milliseconds of a call by kind of operator."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])
        for _ in range(20):
            session.run(None, {"pixel_values": values})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    fastest: dict[tuple[str, str], float] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            fastest[key] = min(fastest.get(key, np.inf), event["dur"] / 1e3)
    spent: collections.Counter[str] = collections.Counter()
    for (kind, _), duration in fastest.items():
        spent[kind] += duration
    return dict(spent)


def print_shares(title: str, spent: Mapping[str, float], count: int = 12) -> None:
    """The operators that take most."""
    total = sum(spent.values())
    print(f"{title}: {total:.1f} ms")
    for name in sorted(spent, key=lambda name: -spent[name])[:count]:
        print(f"  {name:44s} {spent[name]:7.2f} ms {spent[name] / total:6.1%}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=20, help="at batch 1; a quarter of them at larger batches")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu counts this process's own work alone")
    parser.add_argument("--candidates", default=",".join(CANDIDATES), help=f"some of: {', '.join(CANDIDATES)}")
    parser.add_argument("--profile", action="store_true", help="show where time goes, instead of comparing")
    parser.add_argument("--window", action="store_true", help="time a window of 8 x 200 samples, beside TinyMyo")
    options = parser.parse_args(arguments)
    options.threads = [int(count) for count in options.threads.split(",")]
    options.batches = [int(batch) for batch in options.batches.split(",")]
    options.candidates = tuple(name.strip() for name in options.candidates.split(","))
    if unknown := set(options.candidates) - set(CANDIDATES):
        parser.error(f"--candidates: {sorted(unknown)[0]!r} is unknown; use some of {', '.join(CANDIDATES)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    model = TinyBioMoEModel(TinyBioMoEConfig()).eval()
    graphs = {} if options.window else graphs_of(model, options.candidates)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime"))
    print(
        f"random weights; {versions}; {options.clock} time; published: {PUBLISHED_MS} ms, {PUBLISHED_THREADS} threads"
    )
    for threads in options.threads:
        torch.set_num_threads(threads)
        if options.profile:
            show_profile(fold_batch_norms(model), graphs.get("onnx fp32"))
            continue
        if options.window:
            print(f"{threads} thread(s)")
            show_window(model, options.repeats, options.clock)
            continue
        for batch in options.batches:
            print(f"batch {batch}, {threads} thread(s)", flush=True)
            with torch.inference_mode():
                calls = candidates_of(model, graphs, options.candidates, batch, threads)
                repeats = options.repeats if batch == 1 else max(3, options.repeats // 4)
                times = interleaved(calls, repeats, clock=CLOCKS[options.clock])
            print(table(times, batch, threads), flush=True)


if __name__ == "__main__":
    main()
