"""Where onnxruntime spends its time: milliseconds of a call by kind of work (or by operator), graphs side by side.

    python -m benchmarks.onnx_profile fp32/model.onnx int8/model.onnx --batch 1 --samples 1000 --threads 1
    python -m benchmarks.onnx_profile int8/model.onnx --by operator

Profiling itself costs some microseconds per operation; the last line is the fastest call without it.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from export.measuring import interleaved

PRODUCTS = {
    "Conv", "ConvInteger", "DynamicQuantizeMatMul", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul",
    "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul",
}  # fmt: skip
KINDS = {
    "to and from int8": {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"},
    "softmax": {"QLinearSoftmax", "Softmax"},
    "norms": {"InstanceNormalization", "LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"},
    "activations": {"BiasGelu", "Erf", "FastGelu", "Gelu", "QuickGelu", "Relu", "Sigmoid", "Tanh"},
    "sums and products": {"Add", "Cos", "Div", "Mul", "Neg", "Pow", "QLinearAdd", "QLinearMul", "Sin", "Sqrt", "Sub"},
    "conversions": {"Cast"},
    "rearranging": {
        "Concat", "Expand", "Flatten", "Gather", "GatherND", "Pad", "Reshape", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze",
    },
}  # fmt: skip


def kind_of(operator: str, node: str) -> str:
    """Nodes with weights are named after their modules, "encoder.layers.0.mlp.fc1", products of activations are not."""
    if operator in PRODUCTS:
        return "layers with weights" if "." in node else "attention products"
    return next((kind for kind, operators in KINDS.items() if operator in operators), "other")


def session_of(path: str, threads: int, profile: str | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def profile(path: str, window: np.ndarray, options: argparse.Namespace) -> Counter:
    """Seconds of a call by kind of work, or by operator; the median call of each node."""
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(path, options.threads, str(Path(folder) / "profile"))
        for _ in range(options.runs):
            session.run(None, {"input_values": window})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    durations: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            key = (event["args"]["op_name"], name.removesuffix("_kernel_time"))
            durations.setdefault(key, []).append(event["dur"] * 1e-6)
    seconds: Counter = Counter()
    for (operator, node), values in durations.items():
        # Names of nodes that the optimizer made may repeat.
        calls = round(len(values) / options.runs)
        row = operator if options.by == "operator" else kind_of(operator, node)
        seconds[row] += calls * statistics.median(values)
    return seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="+", help="ONNX files; nodes with weights named after modules, as exported")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--by", choices=("kind", "operator"), default="kind")
    options = parser.parse_args(arguments)
    sessions = {path: session_of(path, options.threads, None) for path in options.graphs}
    channels = {session.get_inputs()[0].shape[1] for session in sessions.values()}
    if len(channels) > 1:
        raise SystemExit(f"graphs: they take different numbers of channels, {sorted(channels)}; profile them apart")
    shape = (options.batch, *channels, options.samples)
    window = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    columns = {path: profile(path, window, options) for path in options.graphs}
    print(
        f"{shape}, {options.threads} thread(s), onnxruntime {onnxruntime.__version__}; milliseconds of a call (share)"
    )
    for path in options.graphs:
        print(f"  {chr(65 + options.graphs.index(path))}: {path}")
    print(" " * 22 + "".join(f"{chr(65 + i):>19s}" for i in range(len(columns))))
    rows = sorted(set().union(*columns.values()), key=lambda row: -max(column[row] for column in columns.values()))
    for row in rows:
        cells = [
            f"{1e3 * column[row]:10.3f} ({100 * column[row] / column.total():4.1f} %)" for column in columns.values()
        ]
        print(f"{row:22s}" + " ".join(cells))
    print(f"{'sum':22s}" + " ".join(f"{1e3 * column.total():10.3f}{'':9s}" for column in columns.values()))
    calls = {path: lambda s=session: s.run(None, {"input_values": window}) for path, session in sessions.items()}
    # The time of one thread alone: other work on the machine does not count.
    clock = time.process_time if options.threads == 1 else time.perf_counter
    fastest = [min(seconds) for seconds in interleaved(calls, options.runs, clock=clock).values()]
    print(f"{'fastest, not profiled':22s}" + " ".join(f"{1e3 * value:10.3f}{'':9s}" for value in fastest))


if __name__ == "__main__":
    main()
