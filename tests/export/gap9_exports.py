"""Small exports for GAP9 whose C is compiled once: only network.c differs between networks."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from int8_programs import random_program, random_windows

from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.schedule import Budget, Plan
from export.gap9.toolchain import build, missing_tool
from export.gap9.vectors import Vectors, make_vectors
from export.int8.program import Program

# Of 3 x 7 tokens and outputs that are no multiple of anything.
_SMALL = {"channels": 3, "samples": 140, "patch_size": 20, "hidden": 32, "heads": 2, "intermediate": 40, "outputs": 5}
PROGRAMS = {
    "classification concat, rotary": {"head": "classification concat", "rotation": True, "seed": 1},
    "classification mean": {"head": "classification mean", "rotation": False, "seed": 2},
    "regression concat": {"head": "regression concat", "rotation": False, "seed": 3},
    "regression mean, rotary": {"head": "regression mean", "rotation": True, "seed": 4},
    "many tokens": {"head": "classification mean", "rotation": True, "seed": 5, "samples": 620, "hidden": 16},
}
# Hardly more than the programs need at least, so that most steps have several tiles and the last are smaller ones.
_BUDGETS = {name: Budget(l1=3520 if "regression" in name else 2560, l2=9 * 1024, code=0) for name in PROGRAMS}
_BUDGETS["many tokens"] = Budget(l1=1536, l2=14 * 1024, code=0)


@dataclass(frozen=True)
class Export:
    out: Path
    program: Program
    plan: Plan
    vectors: Vectors

    def with_plan(self, out: Path, **changes) -> "Export":
        """The same network in another folder, with what is already compiled, and with a changed plan."""
        shutil.copytree(self.out, out)
        changed = replace(self, out=out, plan=replace(self.plan, **changes))
        generate(changed.program, changed.plan, out, changed.vectors)
        return changed


def small_program(name: str) -> Program:
    return random_program(**(_SMALL | PROGRAMS[name]))


def export(program: Program, plan: Plan, out: Path) -> Export:
    vectors = make_vectors(program, random_windows(program, 2))
    generate(program, plan, out, vectors)
    return Export(out, program, plan, vectors)


def small_export(name: str, out: Path) -> Export:
    program = small_program(name)
    return export(program, make_plan(program, _BUDGETS[name]), out)


def compiled(out: Path) -> Path:
    """An export that is built for this machine, and for RISC-V where that can be done."""
    small_export("classification mean", out)
    for target in ("host", "sanitized", "rv32"):
        if missing_tool(target) is None:
            build(out, target)
    return out


def need(target: str) -> None:
    """Skip without compiler or emulator; fail where they have to be."""
    if error := missing_tool(target):
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
