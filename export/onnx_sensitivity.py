"""Which layers of an ONNX graph suffer most from int8, and which of them are better left in float.

    quantize = functools.partial(quantize_with_ranges, graph, measure_ranges(graph, windows))
    sweep = sweep_layers(graph, quantize, windows, "classes")
    kept = choose_float_layers(graph, quantize, windows, sweep)
    quantized = quantize(kept)

A layer's sensitivity is the error of the output when that layer alone is quantized. Errors of layers add up nearly as
independent ones do, so that leaving the layer with the largest one in float helps most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.comparison import Difference, Kind, Tally, open_session
from export.errors import ExportError
from export.onnx_quantization import STATIC_KINDS, batches_of, quantizable
from export.verification import TOLERANCES, Tolerance

if TYPE_CHECKING:
    import onnx

Quantize = Callable[[Collection[str]], "onnx.ModelProto"]
"""The graph in int8, given the layers that stay in float."""


@dataclass(frozen=True)
class Sweep:
    """What quantizing each layer alone does to the first output.

    Attributes:
        layers: for each layer, in the order of the graph, the difference from the float graph; its `relative` is the
            root of noise over signal.
        together: with all of them quantized.
        kind: of the output.
        windows: how many they were measured on.
    """

    layers: dict[str, Difference]
    together: Difference
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
            xlabel="error of the output, % of its standard deviation, with this layer alone in int8",
            ylim=(len(names) - 0.4, -0.6),
        )
        axes.set_yticks(range(len(names)), names, fontsize="x-small")
        axes.grid(axis="x", alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize="small")
        FigureCanvasAgg(figure).print_png(Path(path))


def output_error(
    graph: onnx.ModelProto, quantized: onnx.ModelProto, windows: np.ndarray, kind: Kind, batch_size: int = 32
) -> Difference:
    """First output of a quantized graph beside that of the float graph it was made from; arguments as for
    `sweep_layers`."""
    return _Judge(graph, windows, kind, batch_size).error(quantized)


def suffices(error: Difference, tolerance: Tolerance) -> bool:
    """As `export.verification.verify` judges it: by agreement, and by `relative` where there is none."""
    if error.agreement is not None:
        return tolerance.agreement is None or error.agreement >= tolerance.agreement
    return tolerance.relative is None or error.relative <= tolerance.relative


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
    errors: dict[int, Difference] = {}

    def enough_are(count: int) -> bool:
        errors[count] = judge.error(quantize(ranking[:count]))
        return suffices(errors[count], tolerance)

    if enough_are(0):
        return []
    too_few, enough = 0, len(ranking) - 1
    if enough == 0 or not enough_are(enough):
        raise ExportError(
            f"int8: even with all layers but {ranking[-1]} in float the outputs differ by {_told(errors[enough])}; "
            "export fp16, or train with quantization_aware"
        )
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if enough_are(middle) else (middle, enough)
    return ranking[:enough]


def _told(error: Difference) -> str:
    alike = "" if error.agreement is None else f", {error.agreement:.2%} decided alike"
    return f"{error.relative:.1%} of their standard deviation{alike}"


class _Judge:
    """Outputs of a float graph for some windows, to compare those of others with."""

    def __init__(self, graph: onnx.ModelProto, windows: np.ndarray, kind: Kind, batch_size: int):
        self.kind = kind
        self.graph, self.windows, self.batch_size = graph, windows, batch_size
        self.expected = list(self._outputs(graph))

    def error(self, model: onnx.ModelProto) -> Difference:
        tally = Tally(self.kind)
        for expected, found in zip(self.expected, self._outputs(model), strict=True):
            tally.add(expected, found)
        return tally.difference()

    def _outputs(self, model: onnx.ModelProto) -> Iterator[np.ndarray]:
        session = open_session(model)
        name = session.get_outputs()[0].name
        for batch in batches_of(self.graph, session, self.windows, self.batch_size):
            yield session.run([name], batch)[0]
