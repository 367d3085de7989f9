"""The C program of an export as its user meets it: what it prints, what it refuses, and that forgotten waits show."""

import json
import os
import shutil
import struct
import subprocess

import pytest
import torch
from int8_programs import random_program, random_windows

from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.schedule import KIB, Budget
from export.gap9.vectors import make_vectors

WEIGHTS, VECTORS = "weights.bin", "test_vectors/vectors.bin"
WARNINGS = "WARNINGS=-Wall -Wextra -Wconversion -Werror"
SHAPE = {"channels": 3, "samples": 340, "hidden": 24, "heads": 3, "intermediate": 40, "layers": 1}
NETWORKS = {
    "regression": {"head": "regression concat", "outputs": 40, "target_length": 40, "seed": 3},
    "classification": {"head": "classification concat", "outputs": 100, "seed": 4},
}
HEADER = struct.Struct("<4s5I")
NAME_BYTES = 32


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            if os.environ.get("CI"):
                pytest.fail(f"needs {tool}")
            pytest.skip(f"needs {tool}")


def make(out, *arguments):
    return subprocess.run(["make", "-s", *arguments], cwd=out, capture_output=True, text=True, check=False)


def run(out, *arguments, weights=WEIGHTS, vectors=VECTORS):
    command = ["build/host/network", weights, vectors, *arguments]
    return subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)


class Network:
    """An export whose L1 is so small that nearly every step has several tiles, built without any warning."""

    def __init__(self, out, name):
        need("make", "gcc")
        self.out = out
        self.program = random_program(**SHAPE, **NETWORKS[name])
        self.plan = make_plan(self.program, Budget(l1=5 * KIB))
        self.vectors = make_vectors(self.program, random_windows(self.program, 1))
        generate(self.program, self.plan, out, self.vectors)
        assert (done := make(out, "host", WARNINGS)).returncode == 0, done.stderr

    def steps(self):
        return [step.name for step in self.program.steps]


@pytest.fixture(scope="session")
def regression(tmp_path_factory):
    return Network(tmp_path_factory.mktemp("runtime"), "regression")


@pytest.fixture(scope="session")
def classification(tmp_path_factory):
    return Network(tmp_path_factory.mktemp("runtime"), "classification")


@pytest.fixture(params=NETWORKS)
def network(request):
    return request.getfixturevalue(request.param)


def test_table_shows_every_step(network):
    done = run(network.out)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == network.steps()
    assert lines[-2:] == [f"vectors: {len(network.vectors)}, wrong logits: 0", "mismatches: 0"]


def test_json_has_what_the_plan_and_the_reference_say(network):
    answer = json.loads(run(network.out, "--json").stdout)
    for step, name in zip(answer["steps"], network.steps(), strict=True):
        planned = network.plan.steps[name].transfers
        assert step["name"] == name
        assert (step["read"], step["written"], step["transfers"]) == (planned.read, planned.written, planned.count)
        assert step["instructions"] == 0
    assert sum(step["streamed"] for step in answer["steps"]) == (network.out / WEIGHTS).stat().st_size
    assert [vector["name"] for vector in answer["vectors"]] == list(network.vectors.names)
    for vector, checksums in zip(answer["vectors"], network.vectors.checksums, strict=True):
        assert vector["logits_ok"]
        assert [step["crc"] for step in vector["steps"]] == checksums.tolist()
        assert all(step["ok"] for step in vector["steps"])


@pytest.mark.parametrize("head, rows", [("regression", 17), ("classification", 1)])
def test_logits_are_interpolated_as_torch_does(request, head, rows):
    network = request.getfixturevalue(head)
    vectors = json.loads(run(network.out, "--json").stdout)["vectors"]
    integers = torch.tensor(network.vectors.logits, dtype=torch.float64)
    real = integers * torch.tensor(network.program.tensors["logits"].scale, dtype=torch.float64)
    assert real.shape[1] == rows
    if network.program.target_length:
        real = torch.nn.functional.interpolate(real.mT, network.program.target_length, mode="linear").mT
    printed = torch.tensor([vector["logits"] for vector in vectors], dtype=torch.float64)
    torch.testing.assert_close(printed, real.flatten(1), rtol=1e-5, atol=1e-5 * real.abs().max().item())


def _change(path, position, data):
    content = bytearray(path.read_bytes())
    content[position : position + len(data)] = data
    path.write_bytes(content)


def _changed_vectors(network, folder, vector, step):
    """A copy of the test vectors with another checksum of one step of one vector."""
    path = folder / "vectors.bin"
    shutil.copy(network.out / VECTORS, path)
    _, _, _, steps, input_size, logits_size = HEADER.unpack_from(path.read_bytes())
    size = NAME_BYTES + input_size + logits_size + 4 * steps
    _change(path, HEADER.size + vector * size + NAME_BYTES + input_size + logits_size + 4 * step, b"\1\2\3\4")
    return path


def test_what_differs_is_told(classification, tmp_path):
    path = _changed_vectors(classification, tmp_path, 5, 2)
    done = run(classification.out, vectors=path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[3].split()[:5] == [classification.steps()[2], *lines[3].split()[1:4], "1"]
    assert lines[3].endswith(classification.vectors.names[5])
    assert lines[-1] == "mismatches: 1"
    answer = json.loads(run(classification.out, "--json", vectors=path).stdout)
    wrong = [
        (vector["name"], i) for vector in answer["vectors"] for i, step in enumerate(vector["steps"]) if not step["ok"]
    ]
    assert wrong == [(classification.vectors.names[5], 2)]


def test_only_one_vector_by_name_or_number(classification):
    name = classification.vectors.names[2]
    for only in (name, "2"):
        answer = json.loads(run(classification.out, "--json", "--only", only).stdout)
        assert [vector["name"] for vector in answer["vectors"]] == [name]


def test_dump_is_what_the_checksums_are_of(regression, tmp_path):
    path = tmp_path / "dump.bin"
    assert run(regression.out, "--only", "1", "--dump", path).returncode == 0
    dumped = path.read_bytes()
    position = 0
    for step, checksum in zip(regression.program.steps, regression.vectors.checksums[1], strict=True):
        tensor = regression.program.tensors[step.output]
        size = torch.Size(tensor.shape).numel() * {"int8": 1, "int16": 2, "int32": 4}[tensor.dtype]
        assert _crc(dumped[position : position + size]) == checksum, step.name
        position += size
    assert position == len(dumped)


def _crc(data):
    """CRC-32, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def _longer(path):
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    "file, damage, message",
    [
        (WEIGHTS, lambda path: path.unlink(), "cannot be opened"),
        (WEIGHTS, _truncated, "ends 3 bytes too early"),
        (WEIGHTS, _longer, "is longer than it should be"),
        (WEIGHTS, lambda path: _change(path, 9, bytes([path.read_bytes()[9] ^ 1])), "CRC-32 is "),
        (VECTORS, lambda path: path.unlink(), "cannot be opened"),
        (VECTORS, _truncated, "ends 3 bytes too early"),
        (VECTORS, lambda path: path.write_bytes(b"GAPV"), "ends 20 bytes too early"),
        (VECTORS, _longer, "is longer than it should be"),
        (VECTORS, lambda path: _change(path, 0, b"gapv"), "does not start with GAPV"),
        (VECTORS, lambda path: _change(path, 4, b"\2"), "of another version"),
        (VECTORS, lambda path: _change(path, 12, b"\1"), "of another network"),
        (VECTORS, lambda path: _change(path, 16, b"\1"), "of another network"),
        (VECTORS, lambda path: _change(path, 20, b"\1"), "of another network"),
    ],
)
def test_damaged_files_are_named(classification, tmp_path, file, damage, message):
    paths = {name: tmp_path / name.replace("/", "_") for name in (WEIGHTS, VECTORS)}
    for name, path in paths.items():
        shutil.copy(classification.out / name, path)
    damage(paths[file])
    done = run(classification.out, weights=paths[WEIGHTS], vectors=paths[VECTORS])
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {paths[file]}: ") and message in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dma", "now"], "--dma is late or early, not 'now'"),
        (["--shuffle", "x"], "--shuffle is a number, not 'x'"),
        (["--fast"], "unknown option '--fast'"),
        (["more"], "one argument too many: 'more'"),
        (["--only"], "nothing follows '--only'"),
        (["--dump", "file"], "--dump needs --only"),
        (["--only", "nobody"], "has no vector 'nobody'"),
    ],
)
def test_command_lines_that_make_no_sense(classification, arguments, message):
    done = run(classification.out, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


INPUT_WAIT = "transfer_wait(&moving.input[tile & 1]);"
OUTPUT_WAIT = "transfer_wait(&moving.output[tile & 1]);"
MISTAKES = [
    ("patch_embedding_step.c", INPUT_WAIT, ""),
    ("patch_embedding_step.c", OUTPUT_WAIT, ""),
    ("patch_embedding_step.c", "transfer_wait(&moving.weights);", ""),
    ("layer_norm_step.c", "transfer_wait(&moving.input[here.slot]);", ""),
    ("layer_norm_step.c", "transfer_wait(&moving.output[here.slot]);", ""),
    ("layer_norm_step.c", ".slot = tile & 1,", ".slot = 0,"),
    ("linear_step.c", "transfer_wait(&moving->input[place.slot]);", ""),
    ("linear_step.c", "transfer_wait(&moving->weights[place.block_slot]);", ""),
    ("linear_step.c", "transfer_wait(&moving->rotation[place.slot]);", ""),
    ("linear_step.c", "transfer_wait(&moving->output[place.slot]);", ""),
    ("linear_step.c", "transfer_wait(&moving->output[slot]);", ""),
    ("linear_step.c", ".block_slot = block & 1,", ".block_slot = 0,"),
    ("attention_step.c", "transfer_wait(&moving->query[place.query_slot]);", ""),
    ("attention_step.c", "transfer_wait(&moving->output[place.query_slot]);", ""),
    ("attention_step.c", "transfer_wait(&moving.block[here.slot]);", ""),
    ("attention_step.c", ".slot = number & 1,", ".slot = 0,"),
    ("pool_step.c", "transfer_wait(&moving.output); /* the mean before this one */", ""),
    ("pool_step.c", "transfer_wait(&moving.input[here.slot]);", ""),
    ("head_step.c", "transfer_wait(&moving.weights[block & 1]);", ""),
    ("head_step.c", "transfer_wait(&moving.output[1]);", ""),
    ("depthwise_step.c", "transfer_wait(&table);", ""),
    ("depthwise_step.c", "transfer_wait(&output);", ""),
    ("network_run.c", "wait_until(&loads, step->slab + 1);", ""),
]


@pytest.mark.parametrize("file, right, wrong", MISTAKES)
def test_mistakes_of_double_buffering_do_not_pass(request, tmp_path, file, right, wrong):
    network = request.getfixturevalue("classification" if file == "pool_step.c" else "regression")
    out = shutil.copytree(network.out, tmp_path / "out")
    source = out / "src" / file
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    assert make(out, "host").returncode == 0
    assert any(run(out, "--dma", mode).returncode in (1, 2) for mode in ("late", "early"))


def test_program_of_the_board(regression):
    done = make(regression.out, "check-board", WARNINGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "mismatches: 0"
    printed = (regression.out / "build" / "check-board.txt").read_text().splitlines()
    assert printed[0] == "one inference: 0 cycles at 370 MHz"
    assert sum(" cycles" in line for line in printed[1:]) == len(regression.vectors) * len(regression.steps())


def test_missing_tools_are_told_with_their_packages(regression):
    done = make(regression.out, "rv32", "RV32_CC=no-such-compiler")
    assert done.returncode == 2
    assert "install the Debian packages gcc-riscv64-unknown-elf and picolibc-riscv64-unknown-elf" in done.stdout
    done = make(regression.out, "qemu", "QEMU=no-such-emulator")
    assert done.returncode == 2
    assert "install the Debian package qemu-system-misc" in done.stdout


@pytest.mark.slow
def test_everything_is_checked_by_one_command(regression, tmp_path):
    need("riscv64-unknown-elf-gcc", "qemu-system-riscv32")
    out = shutil.copytree(regression.out, tmp_path / "out")
    done = make(out, "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines().count("mismatches: 0") == 7
    counted = make(out, "count")
    assert counted.returncode == 0 and counted.stdout.splitlines()[-1] == "mismatches: 0"
    kernel = out / "src" / "pool.c"
    kernel.write_text(kernel.read_text() + "float halved(float x);\nfloat halved(float x) { return x / 2; }\n")
    assert "floats outside of logits.c" in make(out, "check-rv32").stdout
