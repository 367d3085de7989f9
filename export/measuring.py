"""Size, latency and peak memory of a graph beside the PyTorch model it was made from.

measurement = measure(model, "OUT/model.onnx", windows.values[0].shape)
measurement.to_dict()                                                   # for report.json
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.comparison import inputs_of, open_session, run_model
from export.errors import ExportError
from tinymyo_hf.quiet import quiet

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

BATCH_SIZES = (1, 32)
REPEATS = (5, 50)
"""Calls of each candidate: at least, and at most."""
LONGEST = 5.0
"""Seconds of a call that is still measured."""
SECONDS = 3.0
"""For all candidates at one batch size, as far as the least number of calls allows."""


@dataclass(frozen=True)
class Latency:
    """Seconds that a call takes, by candidate ("pytorch", "onnx", ...), at one batch size."""

    batch: int
    medians: dict[str, float]
    minima: dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """What a graph costs.

    Attributes:
        bytes: of the PyTorch weights ("pytorch"), and of each graph.
        latencies: one for each batch size.
        peak_memory: bytes of a process that imports what it needs, loads the model and runs one window; "pytorch"
            with transformers (for models of this package), "onnx" with onnxruntime alone. Empty where the system does
            not tell.
        window: shape of an input without the batch, (channels, time) or that of images.
        threads: of both runtimes.
        environment: processor and versions.
    """

    bytes: dict[str, int]
    latencies: tuple[Latency, ...]
    peak_memory: dict[str, int]
    window: tuple[int, ...]
    threads: int
    environment: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def measure(
    model: PreTrainedModel,
    path: str | os.PathLike,
    window: tuple[int, ...],
    others: Mapping[str, onnx.ModelProto | str | os.PathLike] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Measurement:
    """Measure a graph and the model it was made from, on the CPU, with the number of threads that torch has now.

    Args:
        model: on the CPU; run as it is, in eager mode.
        path: of the ONNX file.
        window: shape of an input without the batch to measure with, (channels, time) or that of images.
        others: further graphs of the model to time beside, by name: the one in float32, say.
        batch_sizes: ascending; where the graph has a fixed one, only that is measured. Those are left out of which one
            call would take longer than `LONGEST`.

    Raises:
        VerificationError: onnxruntime cannot run a graph.
        ExportError: the process in which memory is measured failed.
    """
    import onnxruntime
    import torch

    graphs = {"onnx": path, **(others or {})}
    sessions = {name: open_session(graph) for name, graph in graphs.items()}
    sizes = _sizes(sessions["onnx"], batch_sizes)
    one = _inputs(model, sessions["onnx"], (sizes[0], *window))
    memory = {}
    if Path("/proc/self/status").exists():
        threads = torch.get_num_threads()
        memory["onnx"] = onnx_memory(path, one, threads)
        if type(model).__module__.startswith("tinymyo_hf."):  # not of files that came with a checkpoint
            memory["pytorch"] = torch_memory(model, one, threads)
    return Measurement(
        bytes={"pytorch": _weight_bytes(model), **{name: _graph_bytes(graph) for name, graph in graphs.items()}},
        latencies=tuple(_latencies(model.eval(), sessions, sizes, window)),
        peak_memory=memory,
        window=tuple(window),
        threads=torch.get_num_threads(),
        environment=_environment(onnxruntime=onnxruntime.__version__),
    )


def measure_session(
    model: PreTrainedModel,
    runtime: str,
    session: Any,
    path: str | os.PathLike,
    window: tuple[int, ...],
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Measurement:
    """As `measure`, of a graph that another runtime has opened; without memory, of which a process of Python says
    little for such a runtime.

    Args:
        runtime: its name in reports, and that of its package.
        session: the graph, answering as onnxruntime's sessions do.
        path: of its file.
    """
    import torch

    return Measurement(
        bytes={"pytorch": _weight_bytes(model), runtime: Path(path).stat().st_size},
        latencies=tuple(_latencies(model.eval(), {runtime: session}, _sizes(session, batch_sizes), window)),
        peak_memory={},
        window=tuple(window),
        threads=torch.get_num_threads(),
        environment=_environment(**{runtime: metadata.version(runtime)}),
    )


def _sizes(session: Any, batch_sizes: Sequence[int]) -> Sequence[int]:
    """Those that a graph takes."""
    fixed = session.get_inputs()[0].shape[0]
    return batch_sizes if isinstance(fixed, str) else (fixed,)


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call; one call of each candidate in turn, so that all see the same disturbances."""
    for _ in range(warmup):
        for call in candidates.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, call in candidates.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def _latencies(
    model: PreTrainedModel, sessions: Mapping[str, Any], batch_sizes: Sequence[int], window: tuple[int, ...]
) -> Iterator[Latency]:
    latency = None
    for batch in batch_sizes:
        if latency is None or max(latency.medians.values()) * batch / latency.batch < LONGEST:
            latency = _latency(model, sessions, (batch, *window))
            yield latency


def _latency(model: PreTrainedModel, sessions: Mapping[str, Any], shape: tuple[int, ...]) -> Latency:
    session = next(iter(sessions.values()))
    inputs = _inputs(model, session, shape)
    names = [output.name for output in session.get_outputs()]
    candidates: dict[str, Callable[[], object]] = {"pytorch": lambda: run_model(model, inputs, names)}
    for name, candidate in sessions.items():
        candidates[name] = lambda candidate=candidate: candidate.run(None, inputs)
    once = sum(times[0] for times in interleaved(candidates, 1, warmup=1).values())
    repeats = int(np.clip(SECONDS / once, *REPEATS))
    times = interleaved(candidates, repeats)
    return Latency(
        batch=shape[0],
        medians={name: statistics.median(values) for name, values in times.items()},
        minima={name: min(values) for name, values in times.items()},
    )


def _inputs(model: PreTrainedModel, session: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return inputs_of(session, values, getattr(model.config, "patch_size", 1))


def _weight_bytes(model: PreTrainedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _graph_bytes(graph: onnx.ModelProto | str | os.PathLike) -> int:
    return Path(graph).stat().st_size if isinstance(graph, str | os.PathLike) else graph.ByteSize()


def _environment(**runtime: str) -> dict[str, str]:
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, **runtime}
    return {"processor": _processor(), **versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


# --- memory --------------------------------------------------------------------------------------------------------

# The high-water mark of the process's own memory map: `ru_maxrss` starts from that of the process it was forked from.
_PRINT_PEAK = """
lines = open("/proc/self/status").read().splitlines()
print("PEAK", next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
_RUN_ONNX = """
import sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, dict(np.load(sys.argv[2])))
"""
_RUN_TORCH = """
import importlib, sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[3]))
model = getattr(importlib.import_module(sys.argv[4]), sys.argv[5]).from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    model(**{name: torch.from_numpy(values) for name, values in np.load(sys.argv[2]).items()})
"""


def onnx_memory(path: str | os.PathLike, inputs: Mapping[str, np.ndarray], threads: int = 1) -> int:
    """Peak bytes of a process of its own that runs inputs once with onnxruntime and nothing else.

    Raises:
        ExportError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "inputs.npz"), **inputs)
        return _peak(_RUN_ONNX, os.fspath(path), f"{folder}/inputs.npz", str(threads))


def torch_memory(model: PreTrainedModel, inputs: Mapping[str, np.ndarray], threads: int = 1) -> int:
    """As `onnx_memory`, of a process that loads the model from a checkpoint of it with transformers.

    Raises:
        ExportError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "inputs.npz"), **inputs)
        with quiet():
            model.save_pretrained(folder)
        kind = type(model)
        return _peak(_RUN_TORCH, folder, f"{folder}/inputs.npz", str(threads), kind.__module__, kind.__name__)


def _peak(code: str, *arguments: str) -> int:
    command = [sys.executable, "-c", code + _PRINT_PEAK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    *_, last = done.stdout.splitlines() or [""]
    if done.returncode or not last.startswith("PEAK"):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ExportError(f"the process that measures memory failed ({reason}); run without measuring")
    return 1024 * int(last.split()[1])
