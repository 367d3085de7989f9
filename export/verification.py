"""Does a graph compute what the PyTorch model does? Compared on the same windows, at several batch sizes and lengths.

verification = verify(model, "OUT/model.onnx", windows, dtype="int8")     # raises VerificationError if not
verification.to_dict()                                                     # for report.json
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from export.calibration import CalibrationWindows
from export.comparison import Comparison, Difference, ShapeCheck, Tally, VerificationError, checked, open_session
from export.errors import ExportError

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession
    from transformers import PreTrainedModel

BATCH_SIZES = (1, 3, 32)
_SAMPLES_AT_ONCE = 200_000  # of a channel: long windows go through in smaller batches
_IMAGES_AT_ONCE = 32
_ANOTHER_OUTPUT = 0.5  # what differs by so much of its spread does so for more than rounding


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may differ. None does not look.

    Attributes:
        maximum: largest absolute difference of any output, at any shape. Of outputs in units of their own
            (trajectories, spectra) it is relative to their standard deviation where that is above 1.
        agreement: smallest share of windows (frames, events) of the first output for which both decide alike.
        relative: largest root mean square of the difference of the first output over the standard deviation of the
            output itself; looked at where there is nothing to decide.
    """

    maximum: float | None = None
    agreement: float | None = None
    relative: float | None = None


TOLERANCES = {
    "fp32": Tolerance(maximum=1e-4),
    "fp16": Tolerance(agreement=0.99, relative=0.01),
    "int8": Tolerance(agreement=0.99, relative=0.1),
}


def tolerance_of(dtype: str, agreement: float | None = None) -> Tolerance:
    """The usual one, but for another least agreement where one is given.

    Raises:
        ExportError: an agreement for float32.
    """
    if agreement is None:
        return TOLERANCES[dtype]
    if dtype == "fp32":
        raise ExportError("agreement: fp32 agrees to rounding; leave it out")
    return replace(TOLERANCES[dtype], agreement=agreement)


@dataclass(frozen=True)
class Verification:
    """What was compared and found.

    Attributes:
        dtype: "fp32", "fp16" or "int8", of the graph.
        source, windows: what it was verified on, and how many.
        outputs: the differences over all windows, by output.
        shapes: those at other batch sizes, lengths and numbers of channels.
        scores: {"accuracy": {"pytorch": .., "onnx": ..}} (or another runtime) where windows have
            labels, "mae" where they have targets.
        tolerance: that was kept.
    """

    dtype: str
    source: str
    windows: int
    outputs: dict[str, Difference]
    shapes: tuple[ShapeCheck, ...]
    scores: dict[str, dict[str, float]]
    tolerance: Tolerance

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def verify(
    model: PreTrainedModel,
    graph: onnx.ModelProto | str | os.PathLike,
    windows: CalibrationWindows,
    dtype: str = "fp32",
    tolerance: Tolerance | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Verification:
    """Compare a graph with the model it was made from, on the CPU.

    All windows are compared; then, for each batch size, inputs made of the first windows, and where "time" or
    "channels" is dynamic also inputs of other lengths and numbers of channels.

    Args:
        model: on the CPU, in float32.
        graph: or the file of one.
        dtype: of the graph; it decides the tolerance.
        tolerance: by default that of `TOLERANCES`.
        batch_sizes: where "batch" is dynamic.

    Raises:
        VerificationError: the graph is invalid, cannot be run, or its outputs differ by more than the tolerance.
        ImportError: onnxruntime is missing; the message names the extra.
    """
    return verify_session(model, open_session(checked(graph)), windows, dtype, tolerance, batch_sizes)


def verify_session(
    model: PreTrainedModel,
    session: InferenceSession,
    windows: CalibrationWindows,
    dtype: str = "fp32",
    tolerance: Tolerance | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    runtime: str = "onnx",
) -> Verification:
    """As `verify`, of a graph that is open already: in onnxruntime, or in what answers alike.

    Args:
        runtime: what runs it, in reports.

    Raises:
        VerificationError: as `verify`.
    """
    tolerance = tolerance or TOLERANCES[dtype]
    comparison = Comparison(model, session, runtime)
    axes = comparison.dynamic
    shape = windows.values.shape
    sizes = _sizes(shape, batch_sizes) if "batch" in axes else (1,)
    scores = comparison.over(windows, _at_once(shape, sizes))
    verification = Verification(
        dtype=dtype,
        source=windows.source,
        windows=len(windows),
        outputs={name: tally.difference() for name, tally in comparison.tallies.items()},
        shapes=tuple(comparison.shapes(windows.values, sizes)),
        scores=scores,
        tolerance=tolerance,
    )
    _check(verification, comparison.tallies)
    return verification


def _sizes(shape: tuple[int, ...], batch_sizes: Sequence[int]) -> Sequence[int]:
    """Batches to check, of windows of a shape (windows, ...): of several images each, not all of them."""
    if len(shape) == 3:
        return batch_sizes
    return [size for size in batch_sizes if size * math.prod(shape[1:-3]) <= _IMAGES_AT_ONCE] or [1]


def _at_once(shape: tuple[int, ...], sizes: Sequence[int]) -> int:
    """Windows that go through together, where all are compared."""
    return min(max(sizes), max(_SAMPLES_AT_ONCE // shape[2], 1)) if len(shape) == 3 else max(sizes)


def _check(verification: Verification, tallies: Mapping[str, Tally]) -> None:
    """Raise `VerificationError` for what is beyond the tolerance."""
    tolerance = verification.tolerance
    if tolerance.maximum is not None:
        for name, difference in verification.outputs.items():
            limit = tolerance.maximum * tallies[name].scale
            if not difference.maximum <= limit:
                raise VerificationError(
                    f"{name}: differs from PyTorch by up to {difference.maximum:.2g}, more than {limit:.2g}"
                )
        limit = tolerance.maximum * max(tally.scale for tally in tallies.values())
        for check in verification.shapes:
            if not check.maximum <= limit:
                raise VerificationError(
                    f"differs from PyTorch by up to {check.maximum:.2g}, more than {limit:.2g}, for inputs "
                    f"{_told(check.shape)}"
                )
    name, first = next(iter(verification.outputs.items()))
    for check in verification.shapes:
        if tolerance != Tolerance() and check.relative > _ANOTHER_OUTPUT:
            raise VerificationError(
                f"{name}: differs from PyTorch by {check.relative:.0%} of the output's standard deviation, for inputs "
                f"{_told(check.shape)}"
            )
    if first.agreement is not None and tolerance.agreement is not None and first.agreement < tolerance.agreement:
        raise VerificationError(
            f"{name}: {verification.dtype} and PyTorch decide alike in {first.agreement:.2%} of the cases, less than "
            f"{tolerance.agreement:.2%}: keep more layers in float, calibrate on more windows, or fine-tune with "
            "quantization in mind"
        )
    if first.agreement is None and tolerance.relative is not None and first.relative > tolerance.relative:
        raise VerificationError(
            f"{name}: {verification.dtype} differs from PyTorch by {first.relative:.2%} of the output's standard "
            f"deviation, more than {tolerance.relative:.2%}: keep more layers in float, calibrate on more windows, or "
            "fine-tune with quantization in mind"
        )


def _told(shape: tuple[int, ...]) -> str:
    return f"of shape (batch, channels, time) = {shape}" if len(shape) == 3 else f"of shape {shape}"
