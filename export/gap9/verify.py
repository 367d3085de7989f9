"""Proves that the C program of an export computes what the integer reference does: every step, to the bit.

    verification = verify(out, program, plan, vectors, say=print)
    verification.mismatches            # 0

The program runs with transfers that take effect late and early, with cores in shuffled orders, with sanitizers, and on
an emulated 32-bit RISC-V.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.gap9.schedule import Plan
from export.gap9.toolchain import RV32_SYMBOLS, TARGETS, RunResult, StepCost, build, missing_tool, require, run
from export.gap9.vectors import Vectors
from export.int8 import reference
from export.int8.program import Program

Mode = tuple[str, int]
"""When transfers take effect, and the seed of the order of cores."""

MODES: Mapping[str, tuple[Mode, ...]] = {
    "host": (("late", 0), ("early", 0), ("late", 1), ("early", 2)),
    "sanitized": (("late", 3), ("early", 4)),
    "rv32": (("late", 0),),
}
_FLOAT_ROUTINE = re.compile(r"__\w*([sd]f[0-9]|[sd]i[sd]f|[sd]f[sd]i)\w*")
VECTOR_TIMEOUT = 900
_MANY_INSTRUCTIONS = 500_000_000
"""For one vector: programs with more run them one by one, to tell about the progress."""
_FLOATS_ALLOWED = "logits.o"
_LOGITS_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Run:
    """One program on all vectors in one mode.

    Attributes:
        mismatches: elements that differ from the reference, by step in order; only steps that have any.
        seconds: that it took.
    """

    target: str
    dma: str
    shuffle: int
    vectors: int
    mismatches: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Verification:
    """
    Attributes:
        vectors, steps: how many were compared in every run.
        runs: that were made.
        skipped: why a target was not run, by target.
        instructions: of the steps on RISC-V for one vector, all cores together; empty where it was not run.
        float_routines: of C's run-time library that kernels and steps call on RISC-V, by object file; None where it was
            not built.
    """

    vectors: int
    steps: int
    runs: tuple[Run, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, int] = field(default_factory=dict)
    float_routines: dict[str, list[str]] | None = None

    @property
    def mismatches(self) -> int:
        """Elements that differ from the reference, of all runs."""
        return sum(self.by_step.values())

    @property
    def by_step(self) -> dict[str, int]:
        """Mismatches by step; only steps that have any."""
        return dict(sum((Counter(run.mismatches) for run in self.runs), Counter()))

    def to_dict(self) -> dict[str, Any]:
        """Of what JSON knows; `mismatches` is None where nothing was run."""
        return {
            "mismatches": self.mismatches if self.runs else None,
            "mismatches_by_step": self.by_step,
            "vectors": self.vectors,
            "steps": self.steps,
            "runs": [
                {
                    "target": run.target,
                    "dma": run.dma,
                    "shuffle": run.shuffle,
                    "mismatches": sum(run.mismatches.values()),
                    "seconds": round(run.seconds, 2),
                }
                for run in self.runs
            ],
            "skipped": self.skipped,
            "float_routines": self.float_routines,
            "instructions": self.instructions,
        }


def verify(
    out: Path,
    program: Program,
    plan: Plan,
    vectors: Vectors,
    *,
    targets: Sequence[str] = TARGETS,
    modes: Mapping[str, Sequence[Mode]] = MODES,
    skip_missing: bool = False,
    say: Callable[[str], None] = lambda message: None,
    timeout: float = VECTOR_TIMEOUT,
) -> Verification:
    """Build and run an export, and compare it with the reference.

    Args:
        out: folder of `generate`, made of the other arguments.
        modes: by target.
        skip_missing: go on without targets whose compiler or emulator is missing.
        say: told about the progress.
        timeout: seconds for one vector.

    Raises:
        ToolMissing: a compiler or emulator is missing, unless `skip_missing`.
        ExportError: a program cannot be built, ends with an error of the emulated memories or of a sanitizer, or in not
            `timeout` seconds; a step moves other bytes than the plan says; float logits are not those of the reference.
    """
    missing = {target: error for target in targets if (error := missing_tool(target))}
    if missing and not skip_missing:
        raise next(iter(missing.values()))
    check = _Check(out, program, plan, vectors, say, timeout)
    runs: list[Run] = []
    instructions: dict[str, int] = {}
    for target in (target for target in targets if target not in missing):
        say(f"building for {target}")
        binary = build(out, target)
        if target == "rv32":
            say("rv32: counting instructions")
            instructions = check.instructions(binary)
        one_by_one = sum(instructions.values()) > _MANY_INSTRUCTIONS
        runs += [check.run_all(target, binary, *mode, one_by_one) for mode in modes[target]]
    return Verification(
        vectors=len(vectors),
        steps=len(program.steps),
        runs=tuple(runs),
        skipped={target: str(error) for target, error in missing.items()},
        instructions=instructions,
        float_routines=float_symbols(out) if "rv32" in targets and "rv32" not in missing else None,
    )


def float_symbols(out: Path) -> dict[str, list[str]]:
    """Routines for floats that the network's object files call on RISC-V, by file; empty as it should be. The logits,
    which become floats at the end, are not looked at.

    Raises:
        ToolMissing: the compiler is missing.
        ExportError: it was not built for rv32.
    """
    require("rv32")
    objects = sorted(path for path in (out / "build" / "rv32" / "src").glob("*.o") if path.name != _FLOATS_ALLOWED)
    if not objects:
        raise ExportError(f"{out}: was not built for rv32")
    found: dict[str, list[str]] = {}
    for path in objects:
        symbols = subprocess.run([RV32_SYMBOLS, "-u", str(path)], capture_output=True, text=True, check=True).stdout
        routines = [symbol for symbol in symbols.split() if _FLOAT_ROUTINE.fullmatch(symbol)]
        if routines:
            found[path.name] = routines
    return found


@dataclass(frozen=True)
class _Check:
    """Compares what programs make with what the reference does."""

    out: Path
    program: Program
    plan: Plan
    vectors: Vectors
    say: Callable[[str], None]
    timeout: float

    def run_all(self, target: str, binary: Path, dma: str, shuffle: int, one_by_one: bool) -> Run:
        what = f"{target}, transfers {dma}, order of cores {shuffle}"
        start = time.monotonic()
        mismatches: Counter[str] = Counter()
        numbers, limit = (range(len(self.vectors)), 1) if one_by_one else ((None,), len(self.vectors))
        for number in numbers:
            result = run(binary, self.out, dma=dma, shuffle=shuffle, only=number, timeout=self.timeout * limit)
            mismatches += self._mismatches(what, binary, (dma, shuffle), number, result)
            if number is not None:
                self.say(f"{what}: vector {number + 1} of {len(self.vectors)}")
        self.say(f"{what}: {sum(mismatches.values())} mismatches in {len(self.vectors)} vectors")
        ordered = {step.name: mismatches[step.name] for step in self.program.steps if mismatches[step.name]}
        return Run(target, dma, shuffle, len(self.vectors), ordered, time.monotonic() - start)

    def instructions(self, binary: Path) -> dict[str, int]:
        costs = run(binary, self.out, only=0, count=True, timeout=self.timeout).costs
        return {name: cost.instructions for name, cost in costs.items()}

    def _mismatches(self, what: str, binary: Path, mode: Mode, number: int | None, result: RunResult) -> Counter[str]:
        """Of all vectors, or of that number."""
        self._check_costs(what, result.costs)
        numbers = range(len(self.vectors)) if number is None else (number,)
        if result.names != tuple(self.vectors.names[i] for i in numbers):
            raise ExportError(f"{what}: ran the vectors {result.names}; {self.out} has others than were generated.")
        mismatches: Counter[str] = Counter()
        for i, checksums, agrees in zip(numbers, result.checksums, result.logits_agree, strict=True):
            if not (agrees and np.array_equal(checksums, self.vectors.checksums[i])):
                mismatches += self._count(binary, mode, i, checksums, agrees)
        if not mismatches:
            self._check_logits(what, result.logits, self.vectors.logits[list(numbers)])
        return mismatches

    def _check_costs(self, what: str, costs: Mapping[str, StepCost]) -> None:
        for name, cost in costs.items():
            planned = self.plan.steps[name].transfers
            moved = cost.read, cost.written, cost.transfers
            if moved != (planned.read, planned.written, planned.count):
                raise ExportError(
                    f"{what}: {name} read {cost.read} bytes and wrote {cost.written} in {cost.transfers} transfers; "
                    f"by its plan it reads {planned.read} and writes {planned.written} in {planned.count}."
                )

    def _check_logits(self, what: str, logits: np.ndarray, integers: np.ndarray) -> None:
        """Floats of the program against those of the reference."""
        expected = reference.logits(self.program, integers).reshape(logits.shape)
        error = float(np.abs(logits - expected).max(initial=0))
        if error > _LOGITS_TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0))):
            raise ExportError(f"{what}: float logits are up to {error:.3g} from those of the reference.")

    def _count(self, binary: Path, mode: Mode, number: int, checksums: np.ndarray, logits_agree: bool) -> Counter[str]:
        """Elements that differ in one vector, by step."""
        made = self._dump(binary, mode, number)
        counts: Counter[str] = Counter()

        def compare(name: str, expected: np.ndarray) -> None:
            nonlocal made
            values = np.frombuffer(made, expected.dtype, expected.size)
            made = made[expected.nbytes :]
            counts[name] = int((values != expected.ravel()).sum())

        reference.run(self.program, self.vectors.inputs[number], observe=compare)
        for step, same in zip(self.program.steps, checksums == self.vectors.checksums[number], strict=True):
            # A difference that is not there when the vector is run on its own is one nevertheless.
            counts[step.name] = max(counts[step.name], int(not same))
        last = self.program.steps[-1].name
        counts[last] = max(counts[last], int(not logits_agree))
        return +counts

    def _dump(self, binary: Path, mode: Mode, number: int) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder, "steps.bin")
            run(binary, self.out, dma=mode[0], shuffle=mode[1], only=number, dump=dump, timeout=self.timeout)
            return dump.read_bytes()
