"""Latency of a classifier in PyTorch, eager and compiled, and as ONNX in float32, float16 and int8, in one run.

    python -m benchmarks.onnx_speed                      # the published encoder, with weights drawn at random
    python -m benchmarks.onnx_speed CHECKPOINT --threads 1 --shapes 8x200,8x1000 --batches 1,32 --repeats 20

The candidates run in turn, so that all see the same disturbances. Int8 has all that can be quantized in int8 and is
calibrated on noise, which changes its outputs but not its speed.
"""

import argparse
import contextlib
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from export.graph import trace
from export.measuring import interleaved
from export.onnx_float16 import to_float16
from export.onnx_quantization import quantize_dynamic_int8, quantize_static_int8
from tinymyo_hf import TinyMyoConfig, TinyMyoForSequenceClassification

SHAPES = ((8, 200), (8, 1000))
BATCHES = (1, 32)
CLASSES = 6
CANDIDATES = ("eager", "compiled", "fp32", "fp16", "int8 static", "int8 dynamic")
CALIBRATION_WINDOWS = 16
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def load(checkpoint: str | None, channels: int) -> PreTrainedModel:
    if checkpoint:
        return AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    torch.manual_seed(0)
    return TinyMyoForSequenceClassification(TinyMyoConfig(num_channels=channels, num_labels=CLASSES)).eval()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def graphs_of(model: PreTrainedModel, samples: int, names: tuple[str, ...]) -> dict[str, onnx.ModelProto]:
    """The model's graph in each of the number formats that are asked for."""
    traced = trace(model)
    windows = noise(CALIBRATION_WINDOWS, model.config.num_channels, samples)
    makers: dict[str, Callable[[], onnx.ModelProto]] = {
        "fp32": lambda: traced,
        "fp16": lambda: to_float16(traced),
        "int8 static": lambda: quantize_static_int8(traced, windows),
        "int8 dynamic": lambda: quantize_dynamic_int8(traced),
    }
    return {name: make() for name, make in makers.items() if name in names}


def session_of(graph: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait for the next call would take the cores from the candidate that follows.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def reported(name: str) -> Iterator[None]:
    """Goes on without a candidate that fails: compiling needs a C++ compiler, half precision a processor for it."""
    try:
        yield
    except Exception as error:  # whatever a compiler or runtime raises
        print(f"  {name}: left out: {type(error).__name__}: {str(error).splitlines()[0][:120]}", flush=True)


def candidates_of(
    model: PreTrainedModel,
    sessions: Mapping[str, onnxruntime.InferenceSession],
    names: tuple[str, ...],
    window: np.ndarray,
) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed, each of which gives the logits of the same windows, and has run once."""
    signal = torch.from_numpy(window)
    calls: dict[str, Callable[[], np.ndarray]] = {}
    if "eager" in names:
        calls["eager"] = lambda: model(signal).logits.numpy()
    if "compiled" in names:
        torch.compiler.reset()
        compiled = torch.compile(model, dynamic=False)
        calls["compiled"] = lambda: compiled(signal).logits.numpy()
    for name, session in sessions.items():
        calls[name] = lambda session=session: session.run(["logits"], {"input_values": window})[0]
    working = {}
    for name, call in calls.items():
        with reported(name):
            call()
            working[name] = call
    return working


def table(times: Mapping[str, list[float]], sizes: Mapping[str, int]) -> str:
    """A line for each candidate; ratios are of minima, which other work on the machine disturbs least."""
    minima = {name: min(values) for name, values in times.items()}
    lines = []
    for name, values in times.items():
        ratios = [
            f"x{minima[other] / minima[name]:5.2f}" if other in minima else " " * 6
            for other in ("eager", "compiled", "fp32")
        ]
        size = f"{sizes[name] / 1e6:7.2f}" if name in sizes else " " * 7
        lines.append(
            f"  {name:13s} {1e3 * statistics.median(values):9.2f} {1e3 * minima[name]:9.2f}   "
            f"{ratios[0]}    {ratios[1]}    {ratios[2]}   {size}"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="a classifier; shapes have its number of channels then")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=20, help="at batch 1; a quarter of them at larger batches")
    parser.add_argument("--shapes", default=",".join(f"{c}x{t}" for c, t in SHAPES))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu counts this process's own work alone: for one thread on a machine that is busy with other things",
    )
    parser.add_argument("--candidates", default=",".join(CANDIDATES), help=f"some of: {', '.join(CANDIDATES)}")
    options = parser.parse_args(arguments)
    options.shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",")]
    options.batches = [int(batch) for batch in options.batches.split(",")]
    options.candidates = tuple(name.strip() for name in options.candidates.split(","))
    if unknown := set(options.candidates) - set(CANDIDATES):
        parser.error(f"--candidates: {sorted(unknown)[0]!r} is unknown; use some of {', '.join(CANDIDATES)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime"))
    print(f"{options.checkpoint or 'random weights'}; {versions}; {options.threads} thread(s), {options.clock} time")
    for channels, samples in options.shapes:
        model = load(options.checkpoint, channels)
        if model.config.num_channels != channels:
            raise SystemExit(f"--shapes: the checkpoint has {model.config.num_channels} channels, not {channels}")
        graphs = graphs_of(model, samples, options.candidates)
        sessions = {}
        for name, graph in graphs.items():
            with reported(name):
                sessions[name] = session_of(graph, options.threads)
        sizes = {name: graph.ByteSize() for name, graph in graphs.items()}
        for batch in options.batches:
            print(f"({channels}, {samples}), batch {batch}", flush=True)
            print(f"{'times faster than:':>49s}")
            print("                median ms    min ms     eager  compiled      fp32        MB")
            with torch.inference_mode():
                calls = candidates_of(model, sessions, options.candidates, noise(batch, channels, samples))
                repeats = options.repeats if batch == 1 else max(3, options.repeats // 4)
                times = interleaved(calls, repeats, clock=CLOCKS[options.clock])
            print(table(times, sizes), flush=True)


if __name__ == "__main__":
    main()
