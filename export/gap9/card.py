"""How to build, check and feed an export: what its README says under "Use"."""

from __future__ import annotations

from typing import Any

from export.gap9.assumptions import NOTE
from export.int8.program import Program


def how_to_use(program: Program, preprocessing: Any) -> list[str]:
    """Paragraphs for `export.card.export_card`.

    Args:
        preprocessing: of the model.
    """
    return [_ON_ANY_MACHINE, _ON_GAP9, *_input(program, preprocessing), _VERIFIED]


_ON_ANY_MACHINE = """On any Linux machine, without GAP9 and its SDK: build the network, run it on all test vectors, and
compare every step with the integer reference.

```bash
make host        # the C as a program of this machine (gcc)
make rv32        # and of a 32-bit RISC-V (Debian: gcc-riscv64-unknown-elf, picolibc-riscv64-unknown-elf)
make check       # both, with sanitizers besides; prints mismatches, fails on any (Debian: qemu-system-misc)
make count       # instructions of every step on RISC-V
```"""
_ON_GAP9 = """On GAP9, with the settings of your board in the shell (`source` the SDK's configuration):

```bash
cmake -B build/gap9 && cmake --build build/gap9 -t run        # newer SDKs
make -f platform/gap9/Makefile.gap clean all run              # older ones
```

The program copies `weights.bin` from flash to external RAM, runs the test vectors, and prints for every step its cycles
and whether it computed what the reference does. To use the network in a program of your own, take all of `src/` and see
`platform/gap9/main.c`: it sets `memories`, loads the weights, and calls `network_run` on the cluster."""
_VERIFIED = f"""Verified is what `report.md` lists: the C against the integer reference, bit by bit, on the machines it
names. It never ran on GAP9: builtins of its cores (`src/simd.h`), drivers and build files are written after their
documentation, and times and energy are {NOTE}. `make check` runs the plain C that stands for these builtins."""


def _input(program: Program, preprocessing: Any) -> list[str]:
    channels, samples = program.channels, program.samples
    scale = float(program.tensors["input_values"].scale)
    frames = "(labels,)" if program.target_length is None else f"({program.target_length}, {len(program.labels)})"
    return [
        f"Input: int16 ({channels}, {samples}), channel after channel, at `memories.l2 + network.input`: a window "
        f"at {preprocessing.sampling_rate:g} Hz, preprocessed as `preprocessor_config.json` says, divided by "
        f"`network.input_scale` ({scale:.9g}), rounded and saturated:",
        "```python\n"
        f"samples = np.clip(np.rint(window / {scale:.9g}), -32768, 32767).astype(np.int16)  # ({channels}, {samples})\n"
        "```",
        "```c\n"
        "memcpy(memories.l2 + network.input, samples, network.input_size);\n"
        "network_run(NULL);                     /* on the cluster's leading core */\n"
        "network_logits(memories.l2, logits);   /* the only floats */\n"
        "```",
        f"Output: float logits {frames}; the integers before their scaling are int32 at `memories.l2 + "
        f"network.output`. Labels: {', '.join(program.labels) or 'none'}.",
    ]
