"""Live typing on one core: real-time factor of TINY and SMALL by the length of the pieces, and cost over long streams.

    python -m benchmarks.ctc_streaming [--minutes 10] [--plot docs/ctc-streaming.png]

The models have a running input norm and a causal positional convolution, so that logits come without delay, and attend
to the last 4 s (the length of the published training windows); the long stream also runs with attention to all frames.
Weights are random, which changes no time.
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch

from tinymyo_hf import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig, SEMGTransformerForCTC
from tinymyo_hf.semg_transformer.quantization import quantize_dynamic
from tinymyo_hf.semg_transformer.streaming import SEMGTransformerStream
from trainers.report import save_figure

RATE = 2000  # Hz
PIECES = (10, 20, 50, 100)  # ms
BAND = 400  # frames
LONG_PIECE = 100  # ms


def build(size: str, attention_window: int | None) -> SEMGTransformerForCTC:
    config = SEMGTransformerConfig(
        **SEMG_TRANSFORMER_PRESETS[f"semg-transformer-{size}"],
        input_norm="running",
        positional_conv_causal=True,
        attention_window=attention_window,
    )
    return SEMGTransformerForCTC(config).eval()


def piece_of(milliseconds: int) -> torch.Tensor:
    return torch.randn(1, 32, RATE * milliseconds // 1000)


def push_times(stream: SEMGTransformerStream, milliseconds: int, seconds: float) -> np.ndarray:
    """Seconds of each push, of a stream whose attention is full."""
    stream.reset()
    stream.push(piece_of(10 * BAND + 500))
    piece, times = piece_of(milliseconds), []
    for _ in range(max(5, round(1000 * seconds / milliseconds))):
        start = time.perf_counter()
        stream.push(piece)
        times.append(time.perf_counter() - start)
    return np.array(times)


def print_real_time_factors(seconds: float) -> None:
    print(f"time per second of signal, attention to {BAND / 100:g} s (median push; 95 % of pushes take at most)")
    for size in ("tiny", "small"):
        model = build(size, BAND)
        for kind, network in (("float32", model), ("int8", quantize_dynamic(model))):
            stream = SEMGTransformerStream(network)
            cells = []
            for piece in PIECES:
                times = 1000 * push_times(stream, piece, seconds)
                cells.append(f"{piece} ms: {np.median(times) / piece:.3f} ({np.percentile(times, 95):.1f} ms)")
            print(f"{size} {kind:8s} " + "   ".join(cells), flush=True)


def long_stream(attention_window: int | None, minutes: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every 10 s of a stream through TINY: time (min), cost (ms per frame), memory of the process (MB)."""
    stream = SEMGTransformerStream(build("tiny", attention_window))
    process, piece, pushes, rows = psutil.Process(), piece_of(LONG_PIECE), 10_000 // LONG_PIECE, []
    for part in range(max(1, round(6 * minutes))):
        start = time.perf_counter()
        frames = sum(stream.push(piece).shape[1] for _ in range(pushes))
        cost = (time.perf_counter() - start) / frames
        rows.append(((part + 1) / 6, 1000 * cost, process.memory_info().rss / 1e6))
    return tuple(np.array(rows).T)


def plot_streams(streams: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    figure, (cost, memory) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for name, (minutes, milliseconds, megabytes) in streams.items():
        cost.plot(minutes, milliseconds, label=name)
        memory.plot(minutes, megabytes, label=name)
    cost.axhline(10, color="grey", linestyle="--", linewidth=1, label="real time")
    cost.set(ylabel="Computing, ms per frame of 10 ms")
    memory.set(ylabel="Memory of the process, MB")
    for axes in (cost, memory):
        axes.set(xlabel="Length of the stream, minutes", ylim=(0, 1.1 * axes.dataLim.y1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(f"TINY on one core, pushes of {LONG_PIECE} ms")
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of signal, for each real-time factor")
    parser.add_argument("--minutes", type=float, default=10.0, help="of signal, for the cost of a long stream")
    parser.add_argument("--plot", type=Path, help="PNG of the cost of a long stream")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads")
    print_real_time_factors(options.seconds)
    streams = {}
    for name, window in ((f"attention to the last {BAND / 100:g} s", BAND), ("attention to all frames", None)):
        streams[name] = minutes, cost, megabytes = long_stream(window, options.minutes)
        print(
            f"{name}: {cost[0]:.2f} ms per frame at first, {cost[-1]:.2f} after {minutes[-1]:.1f} minutes; process "
            f"{megabytes[0]:.0f} and {megabytes[-1]:.0f} MB",
            flush=True,
        )
    if options.plot:
        plot_streams(streams, options.plot)


if __name__ == "__main__":
    main()
