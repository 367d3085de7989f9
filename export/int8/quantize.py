"""From a graph and calibration windows to its integer program.

    quantized = quantize(graph, windows.values)
    quantized.program                                # run by export.int8.reference
    quantized.report.to_dict()                       # what was chosen, and why

Weights have a scale for each output, that of the largest of its row. Activations have one for each tensor, and 8 bits;
which range these cover is a choice between rounding all values more coarsely and cutting off the largest ones. It is
made by measurement: of several methods the one is taken whose integer logits are closest to the float ones on windows
that no range was found on. Tensors of 12 and 16 bits have room to spare, and cover twice what was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.calibration import LEAST_WINDOWS, CalibrationError
from export.errors import ExportError
from export.int8.agreement import signal_to_noise
from export.int8.builder import RESIDUAL, QuantizedTensor, build_program, quantized_tensors
from export.int8.fixed_point import quantize_window
from export.int8.nodes import INPUT, Attention, Graph, LayerNorm, Linear, PatchEmbedding, preactivation
from export.int8.program import Program
from export.int8.ranges import METHODS, Histogram, Range, Say, check_windows, collect, join, quiet
from export.int8.reference import logits, run

HEADROOM = 2.0
"""How far beyond the largest value seen the tensors of 12 and 16 bits reach: no calibration saw the largest peak."""
SATURATION_LIMIT = 0.001
"""Share of saturating values of a tensor beyond which the report warns."""
HIDDEN_LIMIT, DEPTH_LIMIT = 1024, 8192
"""Widest layer norm, and deepest head, whose sums fit 32 bits."""
TRAINED = "trained"
"""In reports, the method of ranges that quantization-aware training found."""
_TOKENS_HELD_OUT = 5120
"""Of windows to measure on; long ones have more of them, and take longer."""
_ENOUGH = 40.0
"""dB beyond which hardly a decision differs, and no other methods are tried for groups of tensors."""
_CLEAR_GAIN = 0.5
"""dB by which a method must be better for a group of tensors than the one of all to be taken: less is chance."""
_CONTENDERS = 2
"""Methods tried for a group: those next best for all tensors."""

Trained = Mapping[str, Mapping[str, Sequence[float]]]
"""Layer -> "input" -> [lowest, highest], as in a checkpoint's activation_ranges.json."""


@dataclass(frozen=True)
class TensorReport:
    """
    Attributes:
        method: that chose the range, or "trained".
        low, high: that are covered; around 0 both are `max(-low, high)`.
        lowest, highest: that were seen.
        saturating: share of the calibration values beyond the range.
    """

    method: str
    low: float
    high: float
    lowest: float
    highest: float
    saturating: float


@dataclass(frozen=True)
class Report:
    """How ranges were chosen.

    Attributes:
        method: asked for.
        chosen: method of each group of tensors ("norm", "query_key", "value", "attention", "activation", "pool").
        candidates: signal-to-noise ratio of the logits in dB, by method for all tensors.
        sqnr: that of what was chosen.
        windows, held_out: calibration windows, and how many of them the ratios were measured on.
        tensors: by name.
    """

    method: str
    chosen: dict[str, str]
    candidates: dict[str, float]
    sqnr: float
    windows: int
    held_out: int
    tensors: dict[str, TensorReport]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of tensors that saturate in more than one value of a thousand."""
        return tuple(
            f"{name}: {entry.saturating:.2%} of the calibration values are beyond its range ({entry.method}), "
            f"{entry.low:.3g} to {entry.high:.3g}; calibrate on windows of the same kind, or with the method minmax"
            for name, entry in self.tensors.items()
            if entry.saturating > SATURATION_LIMIT
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}


@dataclass(frozen=True)
class Quantized:
    program: Program
    report: Report


def quantize(
    graph: Graph,
    windows: np.ndarray,
    method: str = "auto",
    trained: Trained | None = None,
    labels: Sequence[str] = (),
    say: Say = quiet,
) -> Quantized:
    """
    Args:
        windows: float32 (count, channels, samples), at least 32, as the model takes them. The time is that of running
            all of them in float, and with "auto" some of them five to fifteen times in integers.
        method: one of `export.int8.ranges.METHODS`, or "auto": of these the one with the best signal-to-noise ratio of
            the logits on windows held out, and where that is low another for a group of tensors (all layer norms, say)
            that it helps.
        trained: ranges of quantization-aware training, for the 8-bit tensors that they name.
        labels: names of the classes or outputs, in order.
        say: told how far it has come.

    Raises:
        CalibrationError: windows of another shape, too few, NaN, infinite or constant, or a tensor that is always 0.
        ExportError: an unknown method, a model that is too wide for the sums of the arithmetic, or trained ranges of
            another model.
    """
    if method != "auto" and method not in METHODS:
        raise ExportError(f"method={method!r}: use auto, {', '.join(METHODS)}")
    _check_widths(graph)
    windows = check_windows(windows, graph, LEAST_WINDOWS)
    held_out = _held_out(len(windows), graph)
    search = _Search(graph, windows[~held_out], windows[held_out], _trained_ranges(graph, trained or {}), say)
    candidates = {name: search.measure(name) for name in (METHODS if method == "auto" else (method,))}
    best = max(candidates, key=candidates.__getitem__)
    chosen, ratio = search.refine(best, candidates) if method == "auto" else (search.all(best), candidates[best])
    histograms = join(search.histograms, search.held_out_histograms)
    ranges = search.ranges(chosen, histograms)
    report = Report(
        method=method,
        chosen=chosen,
        candidates=candidates,
        sqnr=ratio,
        windows=len(windows),
        held_out=int(held_out.sum()),
        tensors=search.report(chosen, ranges, histograms),
    )
    return Quantized(build_program(graph, ranges, labels), report)


class _Search:
    """Tries methods: ranges are found on some windows, and measured on others."""

    def __init__(self, graph: Graph, windows: np.ndarray, held_out: np.ndarray, trained: Mapping[str, Range], say: Say):
        self.graph, self.trained, self.say = graph, trained, say
        self.tensors = quantized_tensors(graph)
        self.groups = {name: _group(entry) for name, entry in self.tensors.items()}
        self.histograms, _ = collect(graph, windows, say)
        self.held_out, (self.held_out_histograms, self.logits) = held_out, collect(graph, held_out)

    def all(self, method: str) -> dict[str, str]:
        """The same method for all groups that there are."""
        groups = (group for name, group in self.groups.items() if group and name not in self.trained)
        return dict.fromkeys(groups, method)

    def measure(self, method: str) -> float:
        ratio = self._ratio(self.all(method))
        self.say(f"{method}: {ratio:.1f} dB")
        return ratio

    def refine(self, best: str, candidates: Mapping[str, float]) -> tuple[dict[str, str], float]:
        """Another method for each group where it is clearly better, one group after the other."""
        chosen, ratio = self.all(best), candidates[best]
        if ratio > _ENOUGH:
            return chosen, ratio
        contenders = sorted(candidates, key=candidates.__getitem__)[:-1][-_CONTENDERS:]
        for group in chosen:
            tried = {name: self._ratio(chosen | {group: name}) for name in contenders}
            better = max(tried, key=tried.__getitem__)
            if tried[better] > ratio + _CLEAR_GAIN:
                chosen, ratio = chosen | {group: better}, tried[better]
                self.say(f"{better} for {group}: {ratio:.1f} dB")
        return chosen, ratio

    def ranges(self, chosen: Mapping[str, str], histograms: Mapping[str, Histogram]) -> dict[str, Range]:
        """Of all tensors, and of what goes into activations.

        Raises:
            CalibrationError: a tensor that is always 0.
        """
        found = {}
        for name, entry in self.tensors.items():
            histogram = _joined(entry, histograms)
            covered = Range(HEADROOM * histogram.lowest, HEADROOM * histogram.highest)
            if name in self.trained:
                covered = self.trained[name]
            elif group := self.groups[name]:
                covered = METHODS[chosen[group]](histogram, symmetric=entry.kind != "activation")
            if covered.limit <= 0:
                raise CalibrationError(
                    f"{name}: 0 for every calibration window, which gives no range; give windows of real signals"
                )
            found[name] = covered if entry.kind == "activation" else Range(-covered.limit, covered.limit)
        for node in self.graph.nodes:
            if getattr(node, "activation", None):
                histogram = histograms[preactivation(node)]
                found[preactivation(node)] = Range(histogram.lowest, histogram.highest)
        return found

    def report(
        self, chosen: Mapping[str, str], ranges: Mapping[str, Range], histograms: Mapping[str, Histogram]
    ) -> dict[str, TensorReport]:
        entries = {}
        for name, entry in self.tensors.items():
            histogram, covered, group = _joined(entry, histograms), ranges[name], self.groups[name]
            entries[name] = TensorReport(
                method=TRAINED if name in self.trained else chosen[group] if group else f"{HEADROOM:g} x minmax",
                low=covered.low,
                high=covered.high,
                lowest=histogram.lowest,
                highest=histogram.highest,
                saturating=histogram.saturating(covered),
            )
        return entries

    def _ratio(self, chosen: Mapping[str, str]) -> float:
        program = build_program(self.graph, self.ranges(chosen, self.histograms))
        integers = run(program, quantize_window(self.held_out, program.tensors[INPUT].scale))
        return signal_to_noise(self.logits, logits(program, integers))


def _group(entry: QuantizedTensor) -> str | None:
    """Tensors that get their range by one method; None for those of more than 8 bits."""
    if entry.kind in ("int16", "features"):
        return None
    if isinstance(entry.node, Linear) and not entry.node.activation:
        return "value" if entry.node.name.endswith(".v") else "query_key"
    return {LayerNorm: "norm", Attention: "attention", Linear: "activation"}.get(type(entry.node), "pool")


def _joined(entry: QuantizedTensor, histograms: Mapping[str, Histogram]) -> Histogram:
    first, *others = (histograms[source] for source in entry.sources)
    return first.joined(*others) if others else first


def _held_out(count: int, graph: Graph) -> np.ndarray:
    """Which windows to measure on, spread over all: a quarter, or fewer of long ones."""
    tokens = len(graph.nodes) and graph.shapes[graph.nodes[0].output][0]
    held_out = min(max(_TOKENS_HELD_OUT // tokens, LEAST_WINDOWS // 4), count // 4)
    chosen = np.zeros(count, bool)
    chosen[np.linspace(0, count - 1, held_out + 2)[1:-1].round().astype(int)] = True
    return chosen


def _check_widths(graph: Graph) -> None:
    for node in graph.nodes:
        if isinstance(node, PatchEmbedding) and len(node.weight) > HIDDEN_LIMIT:
            raise ExportError(
                f"hidden_size={len(node.weight)}: at most {HIDDEN_LIMIT}, of which the sums fit 32 bits; train a "
                "narrower model"
            )
    head = graph.nodes[-1]
    if head.weight.shape[1] > DEPTH_LIMIT:
        raise ExportError(
            f"{head.name}: it has {head.weight.shape[1]} inputs, at most {DEPTH_LIMIT}, of which the sums fit 32 bits; "
            'use fewer channels, or channel_fusion="mean"'
        )


def _trained_ranges(graph: Graph, trained: Trained) -> dict[str, Range]:
    """Tensor -> range, of 8-bit tensors; those with more bits lose nothing by covering more.

    Raises:
        ExportError: a layer that is none of the graph's, or what is no range.
    """
    inputs = {node.name.replace(".attention.qk", ".attention.qkv"): node.inputs[0] for node in graph.nodes}
    fused = {node.output: node.inputs[0] for node in graph.nodes if node.name == "fuse"}
    tensors, ranges = quantized_tensors(graph), {}
    for layer, entry in trained.items():
        name = layer.removeprefix("tinymyo.")
        try:
            tensor = fused.get(inputs[name], inputs[name])
            low, high = (float(bound) for bound in entry["input"])
        except (KeyError, TypeError, ValueError):
            low = high = np.nan
        if not low <= 0 <= high or not max(-low, high) > 0 or not np.isfinite(high - low):
            raise ExportError(
                f"{layer}: a trained range that is no [lowest, highest] of an input of this model; copy the checkpoint "
                "again, or leave the trained ranges out"
            )
        if tensor != RESIDUAL and tensors[tensor].kind in ("int8", "activation"):
            ranges[tensor] = Range(low, high)
    return ranges
