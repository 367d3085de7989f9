"""The C of exports for GAP9 makes what the integer reference does, and what is wrong with it does not pass."""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from gap9_exports import PROGRAMS, compiled, export, need, small_export
from int8_programs import random_program

from export.errors import ExportError
from export.gap9 import toolchain
from export.gap9.check import check_plan
from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.toolchain import ToolMissing, build, missing_tool, run
from export.gap9.verify import float_symbols, verify
from export.int8 import reference

HOST = {"host": (("late", 0), ("early", 0), ("late", 1), ("early", 2), ("late", 3))}
LATE = {"host": (("late", 0),), "sanitized": (("late", 0),)}


@pytest.fixture(scope="session")
def objects(tmp_path_factory):
    """A folder whose runtime is compiled."""
    need("host")
    return compiled(tmp_path_factory.mktemp("gap9") / "compiled")


@pytest.fixture(scope="session")
def exports(objects, tmp_path_factory):
    """Exports by name, made when they are asked for; tests change copies only."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def get(name):
        if name not in made:
            shutil.copytree(objects, folder / name)
            made[name] = small_export(name, folder / name)
        return made[name]

    return get


def check(made, **options):
    return verify(made.out, made.program, made.plan, made.vectors, timeout=60, **options)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_step_is_that_of_the_reference(exports, name):
    made = exports(name)
    check_plan(made.program, made.plan)
    tiles = [step.row_block for step in made.plan.steps.values() if step.row_block < made.program.tokens]
    assert len(tiles) >= 10  # most steps have several, or nothing overlaps
    assert len(made.vectors) >= 20 and len(np.unique(made.vectors.checksums[:, -1])) >= 20

    found = check(made, targets=("host", "sanitized"), modes=HOST | {"sanitized": (("late", 4), ("early", 5))})

    assert found.mismatches == 0 and found.by_step == {}
    assert Counter(run.target for run in found.runs) == {"host": 5, "sanitized": 2}
    assert all(run.vectors == len(made.vectors) for run in found.runs)


@pytest.mark.parametrize("name", ["many tokens", "regression concat", "classification concat, rotary"])
def test_tiles_of_all_sizes(exports, tmp_path, name):
    made = exports(name)
    out, tilings = shutil.copytree(made.out, tmp_path / "out"), set()
    for factor in (1.2, 1.6, 2.5, 4):
        budget = replace(made.plan.budget, l1=int(factor * made.plan.budget.l1))
        other = replace(made, out=out, plan=make_plan(made.program, budget))
        generate(other.program, other.plan, out, other.vectors)
        assert check(other, targets=("host",), modes={"host": (("late", 1),)}).mismatches == 0
        tilings.add(tuple((step.row_block, step.output_block, step.key_block) for step in other.plan.steps.values()))
    assert len(tilings) == 4


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_step_is_that_of_the_reference_on_rv32(exports, name):
    need("rv32")
    made = exports(name)

    found = check(made, targets=("rv32",))

    assert found.mismatches == 0 and [run.target for run in found.runs] == ["rv32"]
    assert found.float_routines == {}
    assert list(found.instructions) == [step.name for step in made.program.steps]
    # Every product is a multiplication on this processor.
    fc1 = next(step for step in made.program.steps if step.name == "layers.0.mlp.fc1")
    assert found.instructions["layers.0.mlp.fc1"] > made.program.tokens * fc1.weight.size


def test_full_width_with_the_real_memories(objects, tmp_path):
    """Two layers of the published encoder on 200 samples of 8 channels."""
    made = _full_size(objects, tmp_path / "out", samples=200, layers=2)

    found = check(made, targets=("host",), modes={"host": (("late", 1),)})

    assert found.mismatches == 0 and found.vectors >= 20


@pytest.mark.slow
@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize(("channels", "samples"), [(8, 200), (8, 1000), (16, 1000)])
def test_full_size(objects, tmp_path, channels, samples, rotation):
    made = _full_size(objects, tmp_path / "out", samples=samples, layers=8, channels=channels, rotation=rotation)

    found = check(made, targets=("host",), modes={"host": (("late", 0), ("early", 1))})

    assert found.mismatches == 0 and found.vectors >= 20


def _full_size(objects, out, **sizes):
    shutil.copytree(objects, out)
    width = {"channels": 8, "patch_size": 20, "hidden": 192, "heads": 3, "intermediate": 768, "outputs": 6}
    program = random_program(**(width | sizes))
    return export(program, make_plan(program), out)


def test_float_logits_are_those_of_the_reference(exports):
    made = exports("regression concat")
    assert made.program.target_length == 7  # of 7 rows, which are interpolated

    result = run(build(made.out), made.out, only=1)

    expected = reference.logits(made.program, made.vectors.logits[1])
    assert expected.shape == (7, 5)
    np.testing.assert_allclose(result.logits[0].reshape(7, 5), expected, rtol=1e-5, atol=1e-6)
    assert result.names == (made.vectors.names[1],)


# What is wrong is found.


def test_tensors_that_overlap_in_l2_are_found(exports, tmp_path):
    """Values are written over queries, so that all is wrong from attention on."""
    made = exports("classification mean")
    broken = _overlapping(made, tmp_path / "out", "layers.0.attention.value", "layers.0.attention.query_key")

    found = check(broken, targets=("host",), modes=LATE)

    names = [step.name for step in made.program.steps]
    assert list(found.by_step) == names[names.index("layers.0.attention") :]
    assert found.by_step["layers.0.attention"] > 100
    assert found.mismatches == sum(found.by_step.values())
    done = subprocess.run(["make", "-s", "check-host"], cwd=broken.out, capture_output=True, text=True)
    assert done.returncode != 0 and "layers.0.attention " in done.stdout


def test_loading_what_is_being_stored_is_found(exports, tmp_path):
    made = exports("classification mean")
    broken = _overlapping(made, tmp_path / "out", "layers.0.mlp.fc1", "hidden_states")

    with pytest.raises(ExportError, match="'layers.0.mlp.fc2': .* L2 offset .* that was not waited for"):
        check(broken, targets=("host",), modes=LATE)


def test_parameters_loaded_over_a_tensor_in_use_are_found(exports, tmp_path):
    made = exports("classification mean")
    queries, slabs = made.plan.tensors["layers.1.attention.query_key"], dict(made.plan.slabs)
    norm2 = slabs["layers.1.norm2"]
    buffer = replace(norm2.buffer, first=queries.last, offset=queries.offset)
    broken = made.with_plan(tmp_path / "out", slabs=slabs | {"layers.1.norm2": replace(norm2, buffer=buffer)})

    assert _is_caught(broken, "host")


def _overlapping(made, out, name, other):
    tensors = dict(made.plan.tensors)
    tensors[name] = replace(tensors[name], offset=tensors[other].offset)
    return made.with_plan(out, tensors=tensors)


@pytest.fixture(scope="session")
def other_weight(exports, tmp_path_factory):
    """An export with another weight in its classifier than the program has, and how many logits differ for it."""
    made = exports("classification mean")
    out = shutil.copytree(made.out, tmp_path_factory.mktemp("weight") / "out")
    *encoder, head = made.program.steps
    weight = head.weight.copy()
    weight[2, 7] += 1 if weight[2, 7] < 127 else -1
    other = replace(made.program, steps=(*encoder, replace(head, weight=weight)))
    generate(other, made.plan, out, made.vectors)
    differing = int((reference.run(other, made.vectors.inputs) != made.vectors.logits).sum())
    assert differing >= 10
    return replace(made, out=out), {head.name: differing}


def test_mismatches_are_counted_by_element(other_weight):
    made, differing = other_weight

    found = check(made, targets=("host",), modes={"host": (("late", 0), ("early", 1))})

    assert [run.mismatches for run in found.runs] == [differing, differing]
    assert found.by_step == {name: 2 * count for name, count in differing.items()}
    assert found.to_dict()["mismatches"] == found.mismatches == sum(found.by_step.values())


def test_large_networks_run_one_vector_at_a_time(other_weight, monkeypatch):
    need("rv32")
    made, differing = other_weight
    monkeypatch.setattr("export.gap9.verify._MANY_INSTRUCTIONS", 1000)
    told = []

    found = check(made, targets=("rv32",), say=told.append)

    assert found.by_step == differing
    count = len(made.vectors)
    assert [line for line in told if " of " in line and "vector " in line] == [
        f"rv32, transfers late, order of cores 0: vector {i + 1} of {count}" for i in range(count)
    ]


@pytest.mark.parametrize(
    ("step", "region", "same_as"),
    [
        ("layers.0.mlp.fc1", "input1", "input0"),
        ("layers.0.mlp.fc1", "weights1", "weights0"),
        ("layers.0.attention", "block1", "block0"),
        ("layers.1.norm1", "output1", "input0"),
    ],
)
def test_buffers_that_overlap_in_l1_are_found(exports, tmp_path, step, region, same_as):
    made = exports("classification concat, rotary")
    steps = dict(made.plan.steps)
    l1 = steps[step].l1
    steps[step] = replace(steps[step], l1=l1 | {region: replace(l1[region], offset=l1[same_as].offset)})
    broken = made.with_plan(tmp_path / "out", steps=steps)

    assert _is_caught(broken, "host")


_INPUT = "        transfer_wait(&moving.input[here.slot]);\n"


@pytest.mark.parametrize(
    ("source", "wait", "behind"),
    [
        ("linear_step.c", "        wait(&moving, here);\n", "        compute(step, here);\n"),
        ("layer_norm_step.c", _INPUT, "        compute(step, here);\n"),
        ("pool_step.c", _INPUT, "        compute(step, here);\n"),
        (
            "attention_step.c",
            "    transfer_wait(&moving->query[place.query_slot]);\n",
            "    compute_scores(step, place);\n",
        ),
    ],
)
def test_computing_before_a_transfer_was_waited_for_is_found(exports, tmp_path, source, wait, behind):
    """And only where transfers are late: those that are early have happened by then."""
    made = exports("classification concat, rotary")
    late = replace(made, out=shutil.copytree(made.out, tmp_path / "out"))
    path = late.out / "src" / source
    text = path.read_text()
    assert text.count(wait) == 1 and text.count(behind) == 1
    path.write_text(text.replace(wait, "").replace(behind, behind + wait))

    assert _is_caught(late, "host")
    assert _is_caught(late, "sanitized")
    assert not _is_caught(late, "host", "early")


def test_using_parameters_that_have_not_arrived_is_found(exports, tmp_path):
    made = exports("classification mean")
    out = shutil.copytree(made.out, tmp_path / "out")
    path, wait = out / "src" / "network_run.c", "        wait_until(&loads, step->slab + 1);\n"
    assert path.read_text().count(wait) == 1
    path.write_text(path.read_text().replace(wait, ""))

    with pytest.raises(ExportError, match="load from L2 to L1: .* is part of a load from L3 to L2 .* not waited for"):
        check(replace(made, out=out), targets=("host",), modes=LATE)


def test_a_transfer_that_is_never_waited_for_is_found(exports, tmp_path):
    made = exports("classification mean")
    out = shutil.copytree(made.out, tmp_path / "out")
    path = out / "src" / "pool_step.c"
    text = path.read_text()
    assert text.endswith("    transfer_wait(&moving.output);\n}\n")
    path.write_text(text.removesuffix("    transfer_wait(&moving.output);\n}\n") + "}\n")

    with pytest.raises(ExportError, match="'pool'.*never waited for"):
        check(replace(made, out=out), targets=("host",), modes=LATE)


def _is_caught(made, target, dma="late"):
    try:
        return check(made, targets=(target,), modes={target: ((dma, 0),)}).mismatches > 0
    except ExportError as error:
        assert re.search(r"error: step '|AddressSanitizer", str(error))
        return True


def test_other_transfers_than_planned_are_found(exports):
    made = exports("classification mean")
    steps = dict(made.plan.steps)
    moves = steps["layers.1.mlp.fc2"].transfers
    for changed in (replace(moves, read=moves.read + 4), replace(moves, written=0), replace(moves, count=1)):
        plan = replace(
            made.plan, steps=steps | {"layers.1.mlp.fc2": replace(steps["layers.0.mlp.fc2"], transfers=changed)}
        )
        with pytest.raises(ExportError, match="layers.1.mlp.fc2 read .* by its plan it reads"):
            check(replace(made, plan=plan), targets=("host",), modes=LATE)


def test_weights_and_vectors_of_something_else_are_refused(exports, tmp_path):
    made = exports("classification mean")
    out = shutil.copytree(made.out, tmp_path / "out")
    binary = build(out)
    weights, vectors = (out / "weights.bin"), (out / "test_vectors" / "vectors.bin")
    good_weights, good_vectors = weights.read_bytes(), vectors.read_bytes()

    def refused(message):
        with pytest.raises(ExportError, match=message):
            run(binary, out)

    flipped = bytearray(good_weights)
    flipped[len(flipped) // 2] ^= 1
    weights.write_bytes(flipped)
    refused(r"weights.bin: CRC-32 is [0-9a-f]{8}, that of the network")
    weights.write_bytes(good_weights[:-8])
    refused("weights.bin: ends 8 bytes too early")
    weights.write_bytes(good_weights + b"\0")
    refused("weights.bin: is longer")
    weights.unlink()
    refused("weights.bin: cannot be opened")

    weights.write_bytes(good_weights)
    vectors.write_bytes(good_vectors[:-1])
    refused("vectors.bin: ends 1 bytes too early")
    vectors.write_bytes(b"RIFF" + good_vectors[4:])
    refused("vectors.bin: not a file of test vectors")
    vectors.write_bytes(exports("many tokens").vectors.to_bytes())
    refused("vectors.bin: test vectors of another network")
    vectors.write_bytes(good_vectors)
    assert run(binary, out).logits_agree.all()


def test_a_program_that_hangs_or_does_not_compile_is_told(exports, tmp_path):
    made = exports("classification mean")
    out = shutil.copytree(made.out, tmp_path / "out")
    path = out / "src" / "network_run.c"
    text = path.read_text()
    path.write_text(text.replace("void network_run(observer_t observer) {", "\\g<0>\n    for (;;) {\n    }"))
    with pytest.raises(ExportError, match="cannot be built for host"):
        build(out)
    path.write_text(text.replace("        step->run(step->step);", "        for (;;) {\n        }"))
    with pytest.raises(ExportError, match="did not end in 1 s"):
        run(build(out), out, timeout=1)


def test_missing_tools_name_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install the Debian package make" in str(missing_tool("host"))
    _put(tmp_path, "make")
    assert str(missing_tool("sanitized")).endswith("install the Debian package gcc")
    assert str(missing_tool("rv32")).endswith("install the Debian package gcc-riscv64-unknown-elf")
    _put(tmp_path, toolchain.RV32_COMPILER)
    assert str(missing_tool("rv32")).endswith("install the Debian package qemu-system-misc")
    _put(tmp_path, toolchain.QEMU)
    assert str(missing_tool("rv32")).endswith("install the Debian package picolibc-riscv64-unknown-elf")

    small = small_export("classification mean", tmp_path / "out")
    with pytest.raises(ToolMissing, match="Debian package gcc"):
        check(small)
    found = check(small, skip_missing=True)
    assert set(found.skipped) == {"host", "sanitized", "rv32"} and found.runs == ()
    assert found.to_dict()["mismatches"] is None


def _put(folder, name):
    """A program that prints nothing."""
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_floats_on_rv32_are_found(exports, tmp_path):
    need("rv32")
    out = shutil.copytree(exports("classification mean").out, tmp_path / "out")
    source = out / "src" / "pool.c"
    source.write_text(
        source.read_text() + "\nfloat half_of(float x);\nfloat half_of(float x) {\n    return x / 2;\n}\n"
    )
    build(out, "rv32")
    ((name, routines),) = float_symbols(out).items()
    assert name == "pool.o" and set(routines) <= {"__mulsf3", "__divsf3"}
