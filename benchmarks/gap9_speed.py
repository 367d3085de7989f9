"""Latency of the C of GAP9 exports on this machine, one thread, beside onnxruntime in int8 and float32.

    python -m benchmarks.gap9_speed
    python -m benchmarks.gap9_speed --shapes 8x1000 --flags=-march=native --repeats 10

The C emulates the chip: eight cores one after the other, transfers between memories as copies, checked and counted, and
a checksum of every step's output. All of it is in its time. The candidates run in turn.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.gap9_verification import noise
from benchmarks.timing import alternate
from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.vectors import Vectors, make_vectors
from export.graph import trace
from export.int8.fixed_point import quantize_window
from export.int8.ir import build_graph
from export.int8.program import Program
from export.int8.quantize import quantize
from export.onnx_quantization import quantize_static_int8
from tinymyo_hf import TinyMyoConfig, TinyMyoForSequenceClassification

SHAPES = ((8, 200), (8, 1000))
CLASSES = 6
CALIBRATION_WINDOWS = 32
WINDOWS = 8


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def build(program: Program, windows: np.ndarray, flags: str, out: Path) -> Path:
    """The test program, with the first vector alone and with all of them."""
    vectors = make_vectors(program, quantize_window(windows, float(program.tensors["input_values"].scale)))
    vectors = _first(vectors, len(windows))
    generate(program, make_plan(program), out, vectors)
    (out / "one.bin").write_bytes(_first(vectors, 1).to_bytes())
    subprocess.run(["make", "-s", "host", f"CC=gcc {flags}"], cwd=out, check=True)
    return out / "build" / "host" / "network"


def _first(vectors: Vectors, count: int) -> Vectors:
    return Vectors(vectors.names[:count], vectors.inputs[:count], vectors.logits[:count], vectors.checksums[:count])


def candidates(channels: int, samples: int, flags: str, out: Path) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    model = TinyMyoForSequenceClassification(TinyMyoConfig(num_channels=channels, num_labels=CLASSES)).eval()
    calibration, windows = noise(CALIBRATION_WINDOWS, channels, samples), noise(WINDOWS, channels, samples)
    binary = build(quantize(build_graph(model, channels, samples), calibration, "minmax").program, windows, flags, out)
    traced = trace(model)
    sessions = {"fp32": session(traced), "int8": session(quantize_static_int8(traced, calibration))}

    def run_c(vectors: str) -> None:
        subprocess.run([binary, out / "weights.bin", out / vectors], check=True, stdout=subprocess.DEVNULL)

    def run_onnx(name: str) -> None:
        for window in windows:
            sessions[name].run(None, {"input_values": window[None]})

    return {
        "C, all": lambda: run_c("test_vectors/vectors.bin"),
        "C, one": lambda: run_c("one.bin"),
        "onnx int8": lambda: run_onnx("int8"),
        "onnx fp32": lambda: run_onnx("fp32"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(f"{c}x{t}" for c, t in SHAPES), help="channels x samples")
    parser.add_argument("--flags", default="", help="further flags of gcc")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"ms a window, one thread, medians of {options.repeats}; gcc -O3 {options.flags}")
    for shape in options.shapes.split(","):
        channels, samples = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            times = alternate(candidates(channels, samples, options.flags, Path(folder)), options.repeats, warmup=1)
        engine = (times["C, all"] - times["C, one"]) / (WINDOWS - 1)  # without start and loading
        int8, fp32 = times["onnx int8"] / WINDOWS, times["onnx fp32"] / WINDOWS
        print(
            f"{channels} x {samples}: C int8 {1e3 * engine:.1f}, onnxruntime int8 {1e3 * int8:.1f}, "
            f"float32 {1e3 * fp32:.1f}; C takes {engine / int8:.2f} x the time of onnxruntime int8"
        )


if __name__ == "__main__":
    main()
