"""Test vectors: windows, and what every step makes of them by the integer reference, for the C program to compare with.

Layout of `vectors.bin`, little-endian: "GAPV", then uint32 version, number of vectors, number of steps, bytes of an
input, bytes of logits; for every vector its name (32 bytes, zeros behind), the window in int16, the logits in int32,
and the CRC-32 of every step's output as it is in memory right after the step, without padding.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from export.errors import ExportError
from export.int8 import reference
from export.int8.program import Program

MAGIC = b"GAPV"
VERSION = 1
NAME_BYTES = 32
_LOW, _HIGH = -32768, 32767


@dataclass(frozen=True, eq=False)
class Vectors:
    """
    Attributes:
        names: of the vectors, ASCII, shorter than 32 characters.
        inputs: int16 (vectors, channels, samples).
        logits: int32 (vectors, rows, outputs).
        checksums: uint32 (vectors, steps), CRC-32 of the steps' outputs.
    """

    names: tuple[str, ...]
    inputs: np.ndarray
    logits: np.ndarray
    checksums: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def to_bytes(self) -> bytes:
        """Contents of `vectors.bin`."""
        header = struct.pack(
            "<4s5I",
            MAGIC,
            VERSION,
            len(self),
            self.checksums.shape[1],
            2 * int(np.prod(self.inputs.shape[1:])),
            4 * int(np.prod(self.logits.shape[1:])),
        )
        parts = [header]
        for name, window, logits, checksums in zip(self.names, self.inputs, self.logits, self.checksums, strict=True):
            parts += [
                name.encode("ascii").ljust(NAME_BYTES, b"\0"),
                window.astype("<i2").tobytes(),
                logits.astype("<i4").tobytes(),
                checksums.astype("<u4").tobytes(),
            ]
        return b"".join(parts)


def make_vectors(program: Program, windows: np.ndarray | None = None, seed: int = 0) -> Vectors:
    """Test vectors of `windows` and of the 24 inputs of `extreme_windows`, run by the integer reference.

    Args:
        windows: int16 (windows, channels, samples), quantized recordings (`export.int8.fixed_point.quantize_window`).
        seed: of the random inputs.

    Raises:
        ExportError: the windows are not int16 of the program's shape.
    """
    shape = (program.channels, program.samples)
    extremes = extreme_windows(*shape, program.patch_size, seed)
    names = tuple(extremes)
    inputs = np.stack(list(extremes.values()))
    if windows is not None:
        if windows.dtype != np.int16 or windows.ndim != 3 or windows.shape[1:] != shape:
            raise ExportError(
                f"windows are {windows.dtype} {windows.shape}; give int16 (windows, {shape[0]}, {shape[1]})"
            )
        names = tuple(f"window {i}" for i in range(len(windows))) + names
        inputs = np.concatenate((windows, inputs))
    return _expected(program, names, inputs)


def extreme_windows(channels: int, samples: int, patch_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """24 windows by name, int16 (channels, samples), that no recording looks like and every overflow hides behind."""
    rng = np.random.default_rng(seed)
    shape = (channels, samples)
    channel, time = np.arange(channels)[:, None], np.arange(samples)
    patch = time // patch_size
    ramp = np.linspace(_LOW, _HIGH, samples).round()
    made = {
        "zeros": np.zeros(shape),
        "lowest": np.full(shape, _LOW),
        "highest": np.full(shape, _HIGH),
        "one": np.ones(shape),
        "minus one": -np.ones(shape),
        "alternating samples": np.where(time % 2, _LOW, _HIGH),
        "alternating patches": np.where(patch % 2, _LOW, _HIGH),
        "alternating channels": np.where(channel % 2, _LOW, _HIGH),
        "step": np.where(time < samples // 2, _LOW, _HIGH),
        "ramp up": ramp,
        "ramp down": ramp[::-1],
        "ramp of channels": np.linspace(_LOW, _HIGH, channels).round()[:, None],
        "ramp of patches": np.linspace(_LOW, _HIGH, patch[-1] + 1).round()[patch],
        "ramp in every patch": np.linspace(_LOW, _HIGH, patch_size).round()[time % patch_size],
        "impulse at the start": _impulse(shape, (0, 0), _HIGH),
        "impulse at the end": _impulse(shape, (-1, -1), _LOW),
        "impulse in every patch": np.where(time % patch_size == 0, _HIGH, 0),
        "one channel": np.where(channel == channels // 2, rng.integers(_LOW, _HIGH, samples, endpoint=True), 0),
        "random": rng.integers(_LOW, _HIGH, shape, endpoint=True),
        "random again": rng.integers(_LOW, _HIGH, shape, endpoint=True),
        "random extremes": rng.choice((_LOW, _HIGH), shape),
        "random small": rng.integers(-8, 8, shape, endpoint=True),
        "noise": rng.normal(0, 500, shape).round(),
        "noise with peaks": (rng.normal(0, 500, shape) * (1 + 99 * (rng.random(shape) < 0.01))).round(),
    }
    return {name: np.broadcast_to(values, shape).clip(_LOW, _HIGH).astype(np.int16) for name, values in made.items()}


def _impulse(shape: tuple[int, int], where: tuple[int, int], height: int) -> np.ndarray:
    window = np.zeros(shape)
    window[where] = height
    return window


def _expected(program: Program, names: tuple[str, ...], inputs: np.ndarray) -> Vectors:
    checksums: dict[str, list[int]] = {step.name: [] for step in program.steps}

    def note(name: str, outputs: np.ndarray) -> None:
        checksums[name] += [zlib.crc32(np.ascontiguousarray(output)) for output in outputs]

    logits = reference.run(program, inputs, observe=note)
    return Vectors(names, inputs, logits, np.array(list(checksums.values()), np.uint32).T)
