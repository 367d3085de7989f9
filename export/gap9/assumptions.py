"""What the model of cost rests on, figure by figure, with where each comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from export.errors import ExportError

NOTE = "modelled on public figures, not run on GAP9"
MEASURED = "measured on a cycle-approximate simulator of the same cluster class"
PUBLISHED = "published"
ASSUMED = "assumed"


def _figure(default: Any, unit: str, source: str, meaning: str) -> Any:
    return field(default=default, metadata={"unit": unit, "source": source, "meaning": meaning})


@dataclass(frozen=True)
class Assumptions:
    """Figures of the hardware and of the kernels; `rows` says of each what it is and where it comes from.

    Cycles "of a core" are those that one core spends while the others work on their shares.

    Raises:
        ExportError: figures that are not positive, or fewer than two rates of products.
    """

    clock_hz: float = _figure(370e6, "Hz", PUBLISHED, "clock of the cluster")
    power_mw: float = _figure(57.18, "mW", PUBLISHED, "average power, taken as the same whatever the cores do")
    cores: int = _figure(8, "cores", PUBLISHED, "that compute; one more leads them")
    gemm_rates: tuple[tuple[int, float], ...] = _figure(
        ((64, 12.1), (192, 15.7), (400, 16.9), (768, 17.5)),
        "(depth, MAC/cycle on 8 cores)",
        MEASURED,
        "int8 matrix product in L1, blocks of 2 x 4, packed weights, with requantization; at other depths time per "
        "output is linear in the depth",
    )
    int16_factor: float = _figure(2.0, "times", ASSUMED, "time of a product of int16, two at once instead of four")
    head_product: float = _figure(3.0, "cycles of a core per MAC", ASSUMED, "int16 by int8 in the head: two loads, MAC")
    requantization: float = _figure(
        8.0, "cycles of a core per output", ASSUMED, "upper word of a product and rounding, beyond the measured product"
    )
    residual: float = _figure(5.0, "cycles of a core per output", ASSUMED, "load, add, saturate and store int16")
    activation: float = _figure(
        10.13, "cycles of a core per output", MEASURED, "GELU by table as a pass of its own: 4,096 elements in 5,188"
    )
    softmax: float = _figure(
        31.21, "cycles of a core per score", MEASURED, "naive softmax by table: 8 rows of 400 in 12,483 cycles"
    )
    layer_norm: float = _figure(
        33.64, "cycles of a core per element", MEASURED, "naive layer norm: 8 rows of 192 in 6,458 cycles"
    )
    rotary: float = _figure(8.0, "cycles of a core per element", ASSUMED, "two products, rounded, saturated, in place")
    pool: float = _figure(4.0, "cycles of a core per element", ASSUMED, "load, add to an int32 sum, store")
    depthwise: float = _figure(30.0, "cycles of a core per element", ASSUMED, "three products, requantization, table")
    section: float = _figure(
        300.0, "cycles", ASSUMED, "start of a kernel on all cores, its arguments, and the barrier at its end"
    )
    dma_bytes: float = _figure(7.6, "B/cycle", MEASURED, "between L2 and L1")
    dma_setup: float = _figure(60.0, "cycles per transfer", ASSUMED, "of the leading core, while the others wait")
    l3_bytes_per_second: float = _figure(150e6, "B/s", ASSUMED, "external RAM to L2; 100 to 200 MB/s are usual")
    l3_setup: float = _figure(2000.0, "cycles per load", ASSUMED, "until a load from external RAM is under way")

    def __post_init__(self) -> None:
        depths = [depth for depth, _ in self.gemm_rates]
        if len(depths) < 2 or depths != sorted(set(depths)):
            raise ExportError(f"gemm_rates={self.gemm_rates}: give rates of at least two depths, in their order")
        positive = {name: getattr(self, name) for name in ("clock_hz", "cores", "dma_bytes", "l3_bytes_per_second")}
        positive["gemm_rates"] = min(min(pair) for pair in self.gemm_rates)
        for name, value in positive.items():
            if not value > 0:
                raise ExportError(f"{name}={value}: give a positive number")

    def product(self, depth: int, factor: float = 1.0) -> float:
        """Cycles of a core per output of a matrix product of this depth.

        Args:
            factor: time of a multiplication relative to one of int8.
        """
        points = [(k, 8 * k / rate) for k, rate in self.gemm_rates]  # cycles of a core per output
        left = max((i for i, (k, _) in enumerate(points[:-1]) if k <= depth), default=0)
        (k0, time0), (k1, time1) = points[left], points[left + 1]
        slope = (time1 - time0) / (k1 - k0)
        return time0 + slope * (depth - k0) + (factor - 1) * slope * depth

    @property
    def l3_bytes(self) -> float:
        """Bytes per cycle of the cluster."""
        return self.l3_bytes_per_second / self.clock_hz

    def rows(self) -> list[dict[str, Any]]:
        """Every figure: name, value, unit, source, meaning."""
        return [{"name": entry.name, "value": getattr(self, entry.name), **entry.metadata} for entry in fields(self)]
