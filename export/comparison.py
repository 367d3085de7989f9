"""A model beside its graph: both run on the same windows, and how far their outputs are apart."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from export.calibration import CalibrationWindows
from export.errors import ExportError
from export.extras import need

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession
    from transformers import PreTrainedModel

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # whose operators plain onnxruntime has
_MOST_FRAMES = 50  # in checks of other lengths: what goes wrong there does so in short windows too

Kind = Literal["classes", "events", "values"]
"""What an output is, which decides what agreement is about: the largest logit, the sign of each logit, or nothing."""


class VerificationError(ExportError):
    """A graph whose outputs are not those of the model; the message names the output and by how much it differs."""


@dataclass(frozen=True)
class Difference:
    """Of an output of the graph from that of the model.

    Attributes:
        maximum, mean: of the absolute differences.
        relative: root mean square of the differences over the standard deviation of the model's output around the
            means of its last axis (over all windows verified on).
        agreement: share of windows, or frames, with the same largest logit (of events: of logits with the same sign);
            None where there is nothing to decide.
    """

    maximum: float
    mean: float
    relative: float
    agreement: float | None


@dataclass(frozen=True)
class ShapeCheck:
    """For inputs of one shape, (batch, channels, time) or that of images: the largest absolute difference of any
    output, and `relative` of the first one as in `Difference`, over the same standard deviation."""

    shape: tuple[int, ...]
    maximum: float
    relative: float


def open_session(graph: onnx.ModelProto | str | os.PathLike, threads: int | None = None) -> InferenceSession:
    """A graph or the file of one in onnxruntime, on the CPU.

    Args:
        threads: by default those of torch.

    Raises:
        VerificationError: onnxruntime cannot run it.
    """
    need("onnxruntime")
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    options.log_severity_level = 3
    data = os.fspath(graph) if isinstance(graph, str | os.PathLike) else graph.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class but this one
        raise VerificationError(f"onnxruntime cannot run the graph: {error}") from error


def run_model(model: PreTrainedModel, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """Outputs of the PyTorch model by the names of the graph's."""
    import torch

    with torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    missing = [name for name in names if outputs.get(name) is None]
    if missing:
        raise VerificationError(f"the graph has an output {missing[0]!r}, which {type(model).__name__} has not")
    return [outputs[name].float().numpy() for name in names]


def inputs_of(session: InferenceSession, values: np.ndarray, patch_size: int) -> dict[str, np.ndarray]:
    """Inputs of a graph for windows (batch, channels, time), or images: the same half of the tokens is always the one
    masked."""
    first, *others = (entry.name for entry in session.get_inputs())
    inputs = {first: values}
    if "bool_masked_pos" in others:
        batch, channels, samples = values.shape
        tokens = np.random.default_rng(0).random((batch, channels * samples // patch_size))
        inputs["bool_masked_pos"] = tokens < 0.5
    return inputs


def checked(graph: onnx.ModelProto | str | os.PathLike) -> onnx.ModelProto | str | os.PathLike:
    """The same graph, if it is a valid one without custom operators.

    Raises:
        VerificationError: it is not.
    """
    need("onnx")
    import onnx

    try:
        proto = onnx.load(graph) if isinstance(graph, str | os.PathLike) else graph
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # of several unrelated classes
        raise VerificationError(f"not a valid ONNX graph: {error}") from error
    if custom := sorted({entry.domain for entry in proto.opset_import} - _DOMAINS):
        raise VerificationError(f"the graph has operators of {custom[0]!r}, which onnxruntime does not bring")
    return graph


class Tally:
    """Sums over the differences of an output, kept instead of the outputs themselves."""

    def __init__(self, kind: Kind):
        self.kind = kind
        self.count = self.decisions = self.alike = 0
        self.maximum = self.absolute = self.squared = 0.0
        self.rows = 0
        self.sums: np.ndarray | float = 0.0
        self.squares: np.ndarray | float = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Outputs (..., last axis) of the model and of the graph."""
        expected, found = expected.astype(np.float64), found.astype(np.float64)
        difference = np.abs(expected - found)
        self.count += difference.size
        self.maximum = max(self.maximum, float(difference.max()))
        self.absolute += float(difference.sum())
        self.squared += float(np.square(difference).sum())
        rows = expected.reshape(-1, expected.shape[-1])
        self.rows += len(rows)
        self.sums = self.sums + rows.sum(0)
        self.squares = self.squares + np.square(rows).sum(0)
        if self.kind != "values":
            decided = (expected.argmax(-1), found.argmax(-1)) if self.kind == "classes" else (expected > 0, found > 0)
            self.decisions += decided[0].size
            self.alike += int((decided[0] == decided[1]).sum())

    @property
    def spread(self) -> float:
        """Standard deviation of the model's output around the means of its last axis."""
        variances = self.squares / self.rows - np.square(self.sums / self.rows)
        return max(float(np.sqrt(np.maximum(variances, 0.0).mean())), 1e-9)

    @property
    def scale(self) -> float:
        """What an absolute tolerance is multiplied by."""
        return max(1.0, self.spread) if self.kind == "values" else 1.0

    def difference(self) -> Difference:
        """Of everything added."""
        return Difference(
            maximum=self.maximum,
            mean=self.absolute / self.count,
            relative=(self.squared / self.count) ** 0.5 / self.spread,
            agreement=self.alike / self.decisions if self.decisions else None,
        )


class Comparison:
    """A model beside its graph.

    Args:
        model: on the CPU.
        session: the graph, in onnxruntime or in what answers alike.
        runtime: what runs it, in reports.

    Attributes:
        dynamic: axes of the input that may differ from call to call: some of "batch", "channels", "time", "images".
        tallies: what `over` has found, by output.
    """

    def __init__(self, model: PreTrainedModel, session: InferenceSession, runtime: str = "onnx"):
        self.model = model.eval()
        self.session, self.runtime = session, runtime
        self.names = [output.name for output in self.session.get_outputs()]
        self.dynamic = {dim for dim in self.session.get_inputs()[0].shape if isinstance(dim, str)}
        self.tallies = {name: Tally(kind_of(name, model)) for name in self.names}

    def over(self, windows: CalibrationWindows, batch: int) -> dict[str, dict[str, float]]:
        """Compare on all windows; returns what both score where these have labels, as in `Verification.scores`."""
        sums = np.zeros(2)
        for start in range(0, len(windows), batch):
            outputs = self._outputs(windows.values[start : start + batch])
            for tally, pair in zip(self.tallies.values(), outputs, strict=True):
                tally.add(*pair)
            if windows.labels is not None:
                labels = windows.labels[start : start + batch]
                sums += [_score(output, labels) for output in outputs[0]]
        if windows.labels is None:
            return {}
        name = "accuracy" if windows.labels.ndim == 1 else "mae"
        return {name: dict(zip(("pytorch", self.runtime), (sums / len(windows)).tolist(), strict=True))}

    def shapes(self, values: np.ndarray, batch_sizes: Sequence[int]) -> Iterator[ShapeCheck]:
        """Checks of inputs made of the first windows, for each batch size, length and number of channels or images;
        after `over`, which finds the spread of the output."""
        for window in self._windows(values.shape[1:]):
            for batch in batch_sizes:
                pairs = self._outputs(_tiled(values, (batch, *window)))
                differences = [np.abs(a - b) for a, b in pairs]
                error = float(np.sqrt(np.square(differences[0], dtype=np.float64).mean()))
                yield ShapeCheck(
                    (batch, *window),
                    maximum=max(float(difference.max()) for difference in differences),
                    relative=error / self.tallies[self.names[0]].spread,
                )

    def _windows(self, window: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shapes to check, for windows of one shape."""
        if len(window) == 2:
            return list(itertools.product(self._channel_counts(window[0]), self._lengths(window[1])))
        return [(count, *window[1:]) for count in sorted({1, window[0]})] if "images" in self.dynamic else [window]

    def _channel_counts(self, channels: int) -> list[int]:
        return sorted({max(channels // 2, 1), channels, channels + 1}) if "channels" in self.dynamic else [channels]

    def _lengths(self, samples: int) -> list[int]:
        """A shorter and a longer one, and of models of frames one that is no whole number of them."""
        if "time" not in self.dynamic:
            return [samples]
        config = self.model.config
        if config.model_type == "tinymyo" and config.stem == "patches":
            patches = min(samples // config.patch_size, _MOST_FRAMES)
            return [count * config.patch_size for count in (max(patches // 2, 1), patches, patches + patches // 2 + 1)]
        semg = config.model_type == "semg_transformer"
        shortest, hop = (
            (config.receptive_field, config.hop_length) if semg else (config.stem_kernel_size, config.frame_stride)
        )
        samples = min(samples, shortest + _MOST_FRAMES * hop)
        return sorted({max(samples // 2 + 3, shortest), samples, samples + samples // 2})

    def _outputs(self, values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of the model and of the graph, for each output."""
        inputs = inputs_of(self.session, np.ascontiguousarray(values), getattr(self.model.config, "patch_size", 1))
        expected = run_model(self.model, inputs, self.names)
        try:
            found = self.session.run(self.names, inputs)
        except Exception as error:  # runtimes' errors share no base class but this one
            raise VerificationError(f"{self.runtime} cannot run windows of shape {values.shape}: {error}") from error
        for name, a, b in zip(self.names, expected, found, strict=True):
            if a.shape != b.shape:
                raise VerificationError(
                    f"{name}: shape {b.shape} for windows of {values.shape}, where the model gives {a.shape}"
                )
            for values_of, whose in ((a, "PyTorch's"), (b, "the graph's")):
                if not np.isfinite(values_of).all():
                    raise VerificationError(f"{name}: {whose} are NaN or infinite for windows of shape {values.shape}")
        return list(zip(expected, found, strict=True))


def kind_of(name: str, model: PreTrainedModel) -> Kind:
    """What an output of a model's graph is."""
    head = type(model).__name__
    if not name.endswith("logits") or head.endswith("ForRegression"):
        return "values"
    return "events" if head.endswith("ForFrameClassification") else "classes"


def _score(output: np.ndarray, labels: np.ndarray) -> float:
    """Sum over windows: of right decisions, or of mean absolute errors."""
    if labels.ndim == 1:
        return float((output.argmax(-1) == labels).sum())
    return float(np.abs(output.astype(np.float64) - labels).mean(axis=(1, 2)).sum())


def _tiled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Windows repeated and cut to a shape."""
    values = values[: shape[0]]
    repeats = [-(-wanted // length) for wanted, length in zip(shape, values.shape, strict=True)]
    return np.tile(values, repeats)[tuple(map(slice, shape))]
