"""Folders of exports for GAP9: the same bytes every time, plain C, and vectors for everything."""

import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gap9_exports import need, small_export
from int8_programs import random_program, random_windows

from export.errors import ExportError
from export.gap9.generate import generate
from export.gap9.vectors import extreme_windows, make_vectors

ROOT = Path(__file__).parents[2]


def test_the_same_bytes_every_time(tmp_path):
    first, second = (small_export("regression concat", tmp_path / name) for name in ("a", "b"))
    contents = [
        {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        for out in (first.out, second.out)
    ]
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in b"".join(contents[0].values())
    names = {path.as_posix() for path in contents[0]}
    assert {
        "Makefile",
        "CMakeLists.txt",
        "sdk.config",
        "weights.bin",
        "test_vectors/vectors.bin",
        "src/network.c",
        "src/linear.c",
        "platform/host/pmsis.h",
        "platform/gap9/main.c",
    } <= names


def test_what_has_not_changed_is_not_written_again(tmp_path):
    made = small_export("classification mean", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    generate(replace(made.program, labels=("a", "b", "c", "d", 'e"?\\\n')), made.plan, tmp_path, made.vectors)
    changed = {path.name for path, time in before.items() if path.is_file() and path.stat().st_mtime_ns != time}
    assert changed == {"network.c"}
    assert '    "e\\042\\077\\134\\012",\n' in (tmp_path / "src" / "network.c").read_text()


@pytest.mark.parametrize("name", ["classification concat, rotary", "regression mean, rotary"])
def test_network_is_plain_c99(tmp_path, name):
    need("host")
    source = small_export(name, tmp_path).out / "src" / "network.c"
    strict = ["-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror"]
    done = subprocess.run(["gcc", *strict, "-fsyntax-only", str(source)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, source.read_text().splitlines())) <= 120


def test_sources_are_installed():
    """All files of the package but Python modules match a pattern of its data."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["export.gap9"]
    package = ROOT / "export" / "gap9"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    installed = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    assert files == installed and len(files) > 40


def test_extreme_windows():
    windows = extreme_windows(8, 200, 20)
    assert len(windows) >= 20 and len({window.tobytes() for window in windows.values()}) == len(windows)
    assert all(window.shape == (8, 200) and window.dtype == np.int16 for window in windows.values())
    assert (windows["lowest"] == -32768).all() and (windows["highest"] == 32767).all()
    assert max(map(len, windows)) < 32


def test_windows_of_another_shape_are_refused():
    program = random_program()
    with pytest.raises(ExportError, match=r"give int16 \(windows, 2, 60\)"):
        make_vectors(program, random_windows(program)[:, :, :40])
    with pytest.raises(ExportError, match="windows are float64"):
        make_vectors(program, random_windows(program) / 2)
