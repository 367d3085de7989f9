"""The C of GAP9 exports against the integer reference at full size, every step to the bit, and how long it takes.

    python -m benchmarks.gap9_verification                                  # the published encoder, random weights
    python -m benchmarks.gap9_verification --shapes 8x200 --targets host,rv32 --json found.json

The network is quantized on noise, which exercises the same arithmetic as recordings do, and runs on noise and extreme
windows: on this machine with transfers that take effect late and early and with cores in shuffled orders, with
sanitizers, and on an emulated RISC-V (hours for all of it, on one core).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from export.gap9.check import check_plan
from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.toolchain import TARGETS
from export.gap9.vectors import make_vectors
from export.gap9.verify import Mode, Verification, verify
from export.int8.fixed_point import quantize_window
from export.int8.ir import build_graph
from export.int8.program import Program
from export.int8.quantize import quantize
from tinymyo_hf import TinyMyoConfig, TinyMyoForSequenceClassification
from tinymyo_hf.prediction_output import replacing

SHAPES = ((8, 200), (8, 1000), (16, 1000))
POSITIONS = ("rope", "none")
CLASSES = 6
CALIBRATION_WINDOWS = 32
TEST_WINDOWS = 2
MODES: dict[str, tuple[Mode, ...]] = {
    "host": (("late", 0), ("early", 0), ("late", 1), ("early", 2), ("late", 3), ("early", 4)),
    "sanitized": (("late", 5), ("early", 6)),
    "rv32": (("late", 0),),
}


def program_of(channels: int, samples: int, positions: str, layers: int) -> Program:
    torch.manual_seed(0)
    config = TinyMyoConfig(
        num_channels=channels, num_labels=CLASSES, num_hidden_layers=layers, position_embedding_type=positions
    )
    model = TinyMyoForSequenceClassification(config).eval()
    windows = noise(CALIBRATION_WINDOWS, channels, samples)
    return quantize(build_graph(model, channels, samples), windows, "minmax").program


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def verified(program: Program, targets: tuple[str, ...]) -> Verification:
    plan = make_plan(program)
    check_plan(program, plan)
    windows = noise(TEST_WINDOWS, program.channels, program.samples)
    vectors = make_vectors(program, quantize_window(windows, float(program.tensors["input_values"].scale)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(program, plan, out, vectors)
        return verify(out, program, plan, vectors, targets=targets, modes=MODES, skip_missing=True, say=say)


def say(message: str) -> None:
    print(f"  {message}", file=sys.stderr, flush=True)


def table(found: Verification) -> str:
    lines = [f"  {'target':10s} {'transfers':>9s} {'order':>5s} {'vectors':>7s} {'mismatches':>10s} {'seconds':>8s}"]
    for run in found.runs:
        count = sum(run.mismatches.values())
        lines.append(
            f"  {run.target:10s} {run.dma:>9s} {run.shuffle:5d} {run.vectors:7d} {count:10d} {run.seconds:8.1f}"
        )
    if found.mismatches:
        lines.append(f"  first in {next(iter(found.by_step))}")
    lines += [f"  {target}: not run: {reason}" for target, reason in found.skipped.items()]
    if found.instructions:
        routines = "none" if not found.float_routines else found.float_routines
        lines.append(f"  rv32: {sum(found.instructions.values()):,} instructions; routines for floats: {routines}")
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(f"{c}x{t}" for c, t in SHAPES), help="channels x samples")
    parser.add_argument("--positions", default=",".join(POSITIONS), help=f"some of: {', '.join(POSITIONS)}")
    parser.add_argument("--targets", default=",".join(TARGETS), help=f"some of: {', '.join(TARGETS)}")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file for what was found, complete after every network")
    options = parser.parse_args(arguments)
    options.shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",")]
    for name, known in (("positions", POSITIONS), ("targets", TARGETS)):
        chosen = tuple(getattr(options, name).split(","))
        if unknown := set(chosen) - set(known):
            parser.error(f"--{name}: {sorted(unknown)[0]!r} is unknown; use some of {', '.join(known)}")
        setattr(options, name, chosen)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Status 1 if anything differs."""
    options = parse(arguments)
    results = []
    for channels, samples in options.shapes:
        for positions in options.positions:
            start = time.monotonic()
            program = program_of(channels, samples, positions, options.layers)
            print(f"{channels} x {samples}, {positions}, {program.tokens} tokens, {options.layers} layers", flush=True)
            found = verified(program, options.targets)
            print(table(found), flush=True)
            results.append(
                {
                    "channels": channels,
                    "samples": samples,
                    "positions": positions,
                    "layers": options.layers,
                    "seconds": round(time.monotonic() - start, 1),
                    **found.to_dict(),
                }
            )
            if options.json:
                with replacing(options.json, "w") as file:
                    json.dump(results, file, indent=1)
    return int(any(result["mismatches"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
