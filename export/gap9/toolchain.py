"""Builds the program of an export's test vectors with its Makefile, and runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.errors import ExportError

TARGETS = ("host", "sanitized", "rv32")
"""This machine, optimized and with address and undefined-behaviour sanitizers; 32-bit RISC-V under QEMU."""
BUILD_TIMEOUT = 600
RV32_COMPILER, RV32_SYMBOLS, QEMU = "riscv64-unknown-elf-gcc", "riscv64-unknown-elf-nm", "qemu-system-riscv32"
_FOLDERS = {"host": "host", "sanitized": "host-sanitized", "rv32": "rv32"}
"""Targets of the Makefile, and folders in `build` that they make."""
_PACKAGES = {
    "make": "make",
    "gcc": "gcc",
    RV32_COMPILER: "gcc-riscv64-unknown-elf",
    QEMU: "qemu-system-misc",
}
_TOOLS = {"host": ("make", "gcc"), "sanitized": ("make", "gcc"), "rv32": ("make", RV32_COMPILER, QEMU)}
_MACHINE = ("-machine", "virt", "-m", "64M", "-bios", "none", "-nographic")
_ANSWERED = (0, 1)
"""Exit status of a program that ran to its end: no mismatch, or some."""
_QUOTED = 2000
"""Characters of what a program printed instead of a result, such as the report of a sanitizer."""


class ToolMissing(ExportError):
    """A compiler or emulator is not installed; the message names its Debian package."""


@dataclass(frozen=True)
class StepCost:
    """Of one step, for one vector.

    Attributes:
        read, written, transfers: between L2 and L1, bytes and number of transfers.
        streamed: bytes from L3 to L2.
        instructions: of all cores together, those of the emulated memories left out; 0 where they are not counted.
    """

    read: int
    written: int
    transfers: int
    streamed: int
    instructions: int


@dataclass(frozen=True, eq=False)
class RunResult:
    """
    Attributes:
        names: of the vectors that were run.
        checksums: uint32 (vectors, steps), CRC-32 of what the steps made.
        logits: float32 (vectors, numbers), classes or frames after frames of outputs.
        logits_agree: bool (vectors,), whether the integer logits are those of `vectors.bin`.
        costs: by step, of the last vector.
    """

    names: tuple[str, ...]
    checksums: np.ndarray
    logits: np.ndarray
    logits_agree: np.ndarray
    costs: dict[str, StepCost]


def missing_tool(target: str) -> ToolMissing | None:
    """The error that building or running for a target would end in; None where everything is installed."""
    for tool in _TOOLS[target]:
        if shutil.which(tool) is None:
            return ToolMissing(f"{tool} is missing: install the Debian package {_PACKAGES[tool]}")
    if target == "rv32" and not _has_picolibc():
        return ToolMissing(f"{RV32_COMPILER} has no picolibc: install the Debian package picolibc-riscv64-unknown-elf")
    return None


def require(target: str) -> None:
    """
    Raises:
        ToolMissing: something is not installed.
    """
    if error := missing_tool(target):
        raise error


def build(out: Path, target: str = "host", timeout: float = BUILD_TIMEOUT) -> Path:
    """Build the program of the test vectors in an export, and return its path.

    Args:
        target: one of `TARGETS`.

    Raises:
        ToolMissing: the compiler is missing.
        ExportError: it does not compile, or not in `timeout` seconds.
    """
    require(target)
    jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    command = ["make", "-s", f"-j{jobs}", _FOLDERS[target]]
    done = _execute(command, f"{out}: building for {target}", out, timeout)
    if done.returncode != 0:
        raise ExportError(f"{out}: cannot be built for {target}:\n{done.stderr.strip() or done.stdout.strip()}")
    return out / "build" / _FOLDERS[target] / "network"


def run(
    binary: Path,
    out: Path,
    *,
    dma: str = "late",
    shuffle: int = 0,
    only: int | None = None,
    dump: Path | None = None,
    count: bool = False,
    timeout: float | None = None,
) -> RunResult:
    """Run what `build` made on the test vectors of an export.

    Args:
        dma: when transfers between memories take effect, "late" (when they are waited for) or "early" (at once).
        shuffle: seed of the order in which cores run, 0 for none.
        only: number of the only vector to run.
        dump: file for the outputs of all steps of that vector, one after the other.
        count: count the instructions of every step (RISC-V).
        timeout: in seconds.

    Raises:
        ToolMissing: QEMU is missing.
        ExportError: the program ended with an error, which the message quotes, or did not end in time.
    """
    arguments = ["weights.bin", "test_vectors/vectors.bin", "--json", "--dma", dma, "--shuffle", str(shuffle)]
    arguments += [] if only is None else ["--only", str(only)]
    arguments += [] if dump is None else ["--dump", str(dump.resolve())]
    arguments += ["--count"] if count else []
    emulated = binary.parent.name == _FOLDERS["rv32"]
    command = _emulated(binary, arguments, count) if emulated else [str(binary.resolve()), *arguments]
    done = _execute(command, str(binary), out, timeout)
    if done.returncode not in _ANSWERED:
        raise ExportError(f"{binary}: ended with status {done.returncode}:\n{done.stderr.strip()}")
    printed = done.stderr if emulated else done.stdout  # QEMU's console is there
    try:
        return _result(json.loads(printed))
    except (ValueError, KeyError) as error:
        instead = (printed.strip() or done.stderr.strip())[:_QUOTED]
        raise ExportError(f"{binary}: printed no result, but:\n{instead}") from error


def _has_picolibc() -> bool:
    found = subprocess.run([RV32_COMPILER, "-print-file-name=picolibc.specs"], capture_output=True, text=True)
    return Path(found.stdout.strip()).is_absolute()


def _emulated(binary: Path, arguments: Sequence[str], count: bool) -> list[str]:
    if shutil.which(QEMU) is None:
        require("rv32")
    words = ",".join(f"arg={word.replace(',', ',,')}" for word in arguments)
    # One instruction a tick makes the counters exact.
    counting = ("-icount", "shift=0") if count else ()
    semihosting = ("-semihosting-config", f"enable=on,target=native,{words}")
    return [QEMU, *_MACHINE, *counting, *semihosting, "-kernel", str(binary.resolve())]


def _execute(command: Sequence[str], what: str, folder: Path, timeout: float | None) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{what} did not end in {timeout:.0f} s; allow more time, or look whether it hangs"
        ) from error


def _result(answer: dict) -> RunResult:
    vectors = answer["vectors"]
    return RunResult(
        names=tuple(vector["name"] for vector in vectors),
        checksums=np.array([[step["crc"] for step in vector["steps"]] for vector in vectors], np.uint32),
        logits=np.array([vector["logits"] for vector in vectors], np.float32),
        logits_agree=np.array([vector["logits_ok"] for vector in vectors], bool),
        costs={step.pop("name"): StepCost(**step) for step in answer["steps"]},
    )
