"""Which layers of an ONNX graph suffer most from int8, and which of them are better left in float.

    quantize = functools.partial(quantize_with_ranges, graph, measure_ranges(graph, windows))
    sweep = sweep_layers(graph, quantize, windows, "classes")
    kept = choose_float_layers(graph, quantize, windows, sweep)
    quantized = quantize(kept)

A layer's sensitivity is the error of the output when that layer alone is quantized. Errors of layers add up nearly as
independent ones do, so that leaving the layer with the largest one in float helps most.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.comparison import Kind
from export.errors import ExportError
from export.extras import need
from export.onnx_quantization import STATIC_KINDS, batches_of, quantizable
from export.verification import TOLERANCES, Tolerance

if TYPE_CHECKING:
    import onnx

Quantize = Callable[[Collection[str]], "onnx.ModelProto"]
"""The graph in int8, given the layers that stay in float."""


@dataclass(frozen=True)
class OutputError:
    """Of the first output of a quantized graph, beside that of the float graph.

    Attributes:
        relative: root mean square of the difference over the standard deviation of the output around the means of its
            last axis.
        agreement: share of windows (frames, events) decided alike; None where there is nothing to decide.
    """

    relative: float
    agreement: float | None

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise, in decibels."""
        return -20 * math.log10(max(self.relative, 1e-9))

    def within(self, tolerance: Tolerance) -> bool:
        """As `export.verification.verify` judges it: by agreement, and by `relative` where there is none."""
        if self.agreement is not None:
            return tolerance.agreement is None or self.agreement >= tolerance.agreement
        return tolerance.relative is None or self.relative <= tolerance.relative


@dataclass(frozen=True)
class Sweep:
    """What quantizing each layer alone does to the output.

    Attributes:
        layers: error of each layer, in the order of the graph.
        together: error with all of them quantized.
        kind: of the output.
        windows: how many they were measured on.
    """

    layers: dict[str, OutputError]
    together: OutputError
    kind: Kind
    windows: int

    @property
    def ranking(self) -> list[str]:
        """Layers, the most sensitive first."""
        return sorted(self.layers, key=lambda layer: -self.layers[layer].relative)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def plot(self, path: str | os.PathLike, float_layers: Collection[str] = ()) -> None:
        """Draw the errors as a .png; `float_layers` are those that the final graph keeps in float."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names = list(self.layers)
        figure = Figure(figsize=(7.5, 1.3 + 0.19 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for label, color, chosen in (
            ("int8", "tab:blue", [name for name in names if name not in float_layers]),
            ("kept in float", "tab:orange", [name for name in names if name in float_layers]),
        ):
            errors = [100 * self.layers[name].relative for name in chosen]
            axes.barh([names.index(name) for name in chosen], errors, color=color, label=label if chosen else None)
        axes.axvline(100 * self.together.relative, color="black", linestyle="--", label="all layers in int8")
        axes.set(
            xscale="log",
            xlabel="error of the output with this layer alone in int8, % of the output's standard deviation",
            ylim=(len(names) - 0.4, -0.6),
        )
        axes.set_yticks(range(len(names)), names, fontsize="x-small")
        axes.grid(axis="x", alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize="small")
        FigureCanvasAgg(figure).print_png(Path(path))


def output_error(
    graph: onnx.ModelProto, quantized: onnx.ModelProto, windows: np.ndarray, kind: Kind, batch_size: int = 32
) -> OutputError:
    """Error of a quantized graph beside the one in float that it was made from; arguments as for `sweep_layers`."""
    return _Judge(graph, windows, kind, batch_size).error(quantized)


def sweep_layers(
    graph: onnx.ModelProto,
    quantize: Quantize,
    windows: np.ndarray,
    kind: Kind,
    kinds: Collection[str] = STATIC_KINDS,
    batch_size: int = 32,
    progress: bool = True,
) -> Sweep:
    """Quantize each layer alone and measure what that does to the output.

    Args:
        graph: in float32.
        quantize: makes its int8 graph, with ranges that were measured once.
        windows: float32 (windows, channels, time), preprocessed; a hundred tell layers apart.
        kind: of the first output: "classes" (the largest of its last axis counts), "events" (every sign counts) or
            "values".
        kinds: operators that `quantize` quantizes; of dynamic int8 `DYNAMIC_KINDS`.
        batch_size: windows run at a time.
        progress: show a bar.

    Raises:
        ExportError: windows of another shape than the graph takes.
    """
    from tqdm.auto import tqdm

    judge = _Judge(graph, windows, kind, batch_size)
    layers = quantizable(graph, kinds)
    errors = {}
    for layer in tqdm(layers, desc="sensitivity of layers", unit=" layers", disable=not progress):
        errors[layer] = judge.error(quantize([name for name in layers if name != layer]))
    return Sweep(errors, judge.error(quantize(())), kind, len(windows))


def choose_float_layers(
    graph: onnx.ModelProto,
    quantize: Quantize,
    windows: np.ndarray,
    sweep: Sweep,
    tolerance: Tolerance = TOLERANCES["int8"],
    batch_size: int = 32,
) -> list[str]:
    """The fewest of the most sensitive layers that have to stay in float for the output to be within a tolerance.

    Args:
        graph, quantize, windows, batch_size: as for `sweep_layers`; the windows may be others, and more.
        sweep: of these layers.
        tolerance: of the output's agreement, or of its relative error where there is nothing to decide.

    Returns:
        Their names, the most sensitive first; none where all can be quantized.

    Raises:
        ExportError: not even quantizing the least sensitive layer alone is within the tolerance.
    """
    judge = _Judge(graph, windows, sweep.kind, batch_size)
    ranking = sweep.ranking
    errors: dict[int, OutputError] = {}

    def suffice(count: int) -> bool:
        errors[count] = judge.error(quantize(ranking[:count]))
        return errors[count].within(tolerance)

    if suffice(0):
        return []
    too_few, enough = 0, len(ranking) - 1
    if enough == 0 or not suffice(enough):
        raise ExportError(
            f"int8: even with all layers but {ranking[-1]} in float the outputs differ by {_told(errors[enough])}; "
            "export fp16, or train with quantization_aware"
        )
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if suffice(middle) else (middle, enough)
    return ranking[:enough]


def _told(error: OutputError) -> str:
    alike = "" if error.agreement is None else f", {error.agreement:.2%} decided alike"
    return f"{error.relative:.1%} of their standard deviation{alike}"


class _Judge:
    """Outputs of a float graph for some windows, to compare those of others with."""

    def __init__(self, graph: onnx.ModelProto, windows: np.ndarray, kind: Kind, batch_size: int):
        need("onnx", "onnxruntime")
        self.kind = kind
        self.batches = list(batches_of(graph, windows, batch_size))
        self.expected = self._outputs(graph)
        rows = self.expected.reshape(-1, self.expected.shape[-1])
        self.spread = max(float(np.sqrt(rows.var(0).mean())), 1e-9)

    def error(self, model: onnx.ModelProto) -> OutputError:
        found = self._outputs(model)
        relative = float(np.sqrt(np.square(found - self.expected).mean())) / self.spread
        if self.kind == "values":
            return OutputError(relative, None)
        decide = (lambda values: values.argmax(-1)) if self.kind == "classes" else (lambda values: values > 0)
        return OutputError(relative, float((decide(found) == decide(self.expected)).mean()))

    def _outputs(self, model: onnx.ModelProto) -> np.ndarray:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        name = session.get_outputs()[0].name
        return np.concatenate([session.run([name], batch)[0] for batch in self.batches]).astype(np.float64)
