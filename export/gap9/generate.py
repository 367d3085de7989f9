"""The folder of an export: C sources, weights, test vectors, and what builds them."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from export.gap9.network import network_source, weights_image
from export.gap9.schedule import Plan
from export.gap9.vectors import Vectors
from export.int8.program import Program

_COPIES = {"runtime": "src", "platform": "platform", "project": "."}
"""Folders of this package that every export has a copy of, and where."""


def generate(program: Program, plan: Plan, out: Path, vectors: Vectors) -> None:
    """Write everything that is needed to build and verify a network: the same bytes for the same arguments.

    Args:
        out: folder, made if need be; files of the same names are replaced.
        vectors: of `make_vectors`.
    """
    for source, target in _COPIES.items():
        _copy(resources.files("export.gap9").joinpath(source), out / target)
    weights = weights_image(program, plan)
    _write(out / "src" / "network.c", network_source(program, plan, weights).encode())
    _write(out / "weights.bin", weights)
    _write(out / "test_vectors" / "vectors.bin", vectors.to_bytes())


def _copy(source: Traversable, target: Path) -> None:
    for entry in source.iterdir():
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            _write(target / entry.name, entry.read_bytes())


def _write(path: Path, data: bytes) -> None:
    if path.is_file() and path.read_bytes() == data:
        return  # what has not changed need not be built again
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.incomplete")
    unfinished.write_bytes(data)
    unfinished.replace(path)
