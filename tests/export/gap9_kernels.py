"""The C kernels of the GAP9 export, compiled for this machine and called through ctypes."""

import ctypes
import random
import subprocess
from pathlib import Path

import numpy as np

RUNTIME = Path(__file__).parents[2] / "export" / "gap9" / "runtime"
SOURCES = [
    RUNTIME / f"{name}.c"
    for name in (
        "crc32",
        "depthwise",
        "head",
        "layer_norm",
        "linear",
        "patch_embedding",
        "pool",
        "rotary",
        "scores",
        "softmax",
        "values",
    )
]
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
GUARD = 64

_POINTERS = {
    "patch_embedding": "input weights channels output",
    "layer_norm": "input weights bias output",
    "linear": "input weights channels table output residual",
    "rotary": "states rotation",
    "scores": "queries keys scores",
    "softmax": "scores reciprocals exponentials",
    "values": "weights values reciprocals sums output",
    "pool": "input sums output",
    "depthwise": "input weights channels table output",
    "head": "input weights bias output",
}
_INTEGERS = {
    "patch_embedding": "rows depth outputs",
    "layer_norm": "epsilon:i64 rows width shift",
    "linear": "rows depth outputs row_stride output_stride",
    "rotary": "rows half",
    "scores": "rows key_count depth stride multiplier shift",
    "softmax": "rows key_count stride reciprocal:u32",
    "values": "rows key_count depth stride shift first last",
    "pool": "rows width multiplier shift limit first last",
    "depthwise": "rows width padding",
    "head": "rows depth outputs",
}
_TYPES = {"i64": ctypes.c_int64, "u32": ctypes.c_uint32, "": ctypes.c_int32}


def _tile_class(kernel: str) -> type[ctypes.Structure]:
    fields = [(name, ctypes.c_void_p) for name in _POINTERS[kernel].split()]
    for entry in _INTEGERS[kernel].split():
        name, _, kind = entry.partition(":")
        fields.append((name, _TYPES[kind]))
    return type(kernel, (ctypes.Structure,), {"_fields_": fields})


TILES = {kernel: _tile_class(kernel) for kernel in _POINTERS}


def guarded(values: np.ndarray) -> np.ndarray:
    """A copy of `values` with bytes around it that `check_guards` looks at."""
    block = np.full(values.nbytes + 2 * GUARD, 0xA5, np.uint8)
    inside = block[GUARD : GUARD + values.nbytes].view(values.dtype).reshape(values.shape)
    inside[...] = values
    return inside


def check_guards(values: np.ndarray) -> None:
    """Fails where something was written before or behind an array that `guarded` made."""
    block = values
    while block.base is not None:
        block = block.base
    for part in (block[:GUARD], block[len(block) - GUARD :]):
        assert (part == 0xA5).all(), "written outside of an array"


def channels_of(bias, multiplier, shift) -> np.ndarray:
    """channel_t of every output."""
    return np.stack([np.asarray(part, np.int32) for part in (bias, multiplier, shift)], axis=-1)


class Kernels:
    """The compiled kernels."""

    def __init__(self, folder: Path, *options: str | Path):
        library = folder / "kernels.so"
        subprocess.run(
            ["gcc", *WARNINGS, *options, "-shared", "-fPIC", "-o", library, *SOURCES], check=True, timeout=300
        )
        self.library = ctypes.CDLL(str(library))

    def run(self, kernel: str, cores: int = 1, only: int | None = None, **fields) -> None:
        """Call a kernel for all cores, in random order, or for `only` one; arrays are those of `guarded`, or None."""
        tile = TILES[kernel]()
        for name, value in fields.items():
            setattr(tile, name, value.ctypes.data if isinstance(value, np.ndarray) else value)
        order = random.Random(cores).sample(range(cores), cores) if only is None else [only]
        for core in order:
            getattr(self.library, f"{kernel}_kernel")(ctypes.byref(tile), core, cores)
        for value in fields.values():
            if isinstance(value, np.ndarray):
                check_guards(value)

    def crc32(self, data: bytes, before: int = 0) -> int:
        self.library.crc32_update.restype = ctypes.c_uint32
        return self.library.crc32_update(ctypes.c_uint32(before), data, ctypes.c_uint32(len(data)))
