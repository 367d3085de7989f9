"""The host's PMSIS finds what a board would forgive: transfers out of bounds, races, and forgotten waits."""

import shutil
import subprocess
from pathlib import Path

import pytest

GAP9 = Path(__file__).parents[2] / "export" / "gap9"
HOST, RUNTIME = GAP9 / "platform" / "host", GAP9 / "runtime"
SOURCES = [HOST / f"{name}.c" for name in ("shim", "transfers", "cluster", "board")]
MODES = ("late", "early")
POISON = "165 165"


def build(out, *arguments, cases="gap9_shim_cases.c"):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    warnings = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    sources = [*SOURCES, Path(__file__).with_name(cases)]
    subprocess.run(["gcc", *warnings, *arguments, "-I", HOST, *sources, "-o", out], check=True)
    return out


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    return build(tmp_path_factory.mktemp("shim") / "cases")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory):
    return build(tmp_path_factory.mktemp("shim") / "sanitized", "-fsanitize=address,undefined")


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def output(program, *arguments):
    result = run(program, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("mode", MODES)
def test_moves_what_it_is_told_to(cases, mode):
    lines = output(cases, "moves_both_ways", mode).splitlines()
    assert [line.split() for line in lines] == [
        ["8", "9", "10", "11"],
        ["100", "101", "110", "111", "120", "121"],
        ["100", "101", "110", "203"],
        ["111", "120", "121", "253"],
        ["8", "9", "10", "11", "4"],
        ["3", "4", "5", "6", "248"],
        ["22", "10", "4", "4"],
    ]


def test_forgotten_waits_show_as_different_results(cases):
    assert output(cases, "read_before_wait", "early") == "8 9 10 11 \n"
    assert output(cases, "read_before_wait", "late") == f"{POISON} {POISON} \n"
    assert output(cases, "write_before_wait", "early") == "7 7 7 7 \n"
    assert output(cases, "write_before_wait", "late") == "9 9 9 9 \n"
    assert output(cases, "stream_before_wait", "early") == "0 1 2 3 \n"
    assert output(cases, "stream_before_wait", "late") == f"{POISON} {POISON} \n"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "case, message",
    {
        "outside_l1": "load from L2 to L1: 9 bytes at L1 address 0x",
        "before_l1": "load from L2 to L1: 9 bytes at L1 address 0x",
        "outside_l2": "store from L1 to L2: 1 rows of 9 bytes, 9 apart, at L2 address 0x",
        "l1_for_l2": "are not inside one allocation",
        "last_row_outside_l2": "3 rows of 10 bytes, 50 apart, at L2 address 0x",
        "outside_l3": "4 bytes at L3 address 0x000013fd were not allocated",
        "stream_outside_l2": "load from L3 to L2: 4 bytes at L2 address 0x",
        "nothing": "has 0 bytes; the DMA moves 1 to 65535",
        "too_large": "has 65536 bytes; the DMA moves 1 to 65535",
        "too_large_rows": "has 65600 bytes; the DMA moves 1 to 65535",
        "broken_row": "has 25 bytes in rows of 10, 50 apart",
        "overlapping_rows": "has 30 bytes in rows of 10, 9 apart",
        "rows_too_far_apart": "has 10 bytes in rows of 10, 65536 apart",
        "seventeen_under_way": "16 transfers are under way already",
        "same_l1": "L1 offset 15 is part of a load from L2 to L1 of offset 0 that was not waited for",
        "loaded_while_stored": "L2 offset 40 is part of a store from L1 to L2 of offset 32 that was not waited for",
        "on_rows": "L2 offset 49 is part of a store from L1 to L2 of offset 0 that was not waited for",
        "loaded_while_streamed": "L2 offset 40 is part of a load from L3 to L2 of offset 32 that was not waited for",
        "never_waited": "load from L2 to L1 of L2 offset 48 was never waited for",
        "never_waited_stream": "load from L3 to L2 of L2 offset 48 was never waited for",
        "waited_twice": "waits for a transfer that is not under way",
        "behind_l1": "L1: byte at offset 102400 of an allocation of 102400 bytes was written",
        "before_l2": "L2: byte at offset -5 of an allocation of 1024 bytes was written",
        "forks_in_a_fork": "itself of a team, starts another one",
        "forks_nine": "a team of 9 cores; the cluster has 8",
    }.items(),
)
def test_errors_name_step_and_place(cases, case, message, mode):
    result = run(cases, case, mode)
    assert result.returncode == 2
    assert result.stderr.startswith("error: step 'tested': ")
    assert message in result.stderr


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "case", ["last_row_inside_l2", "largest", "sixteen_under_way", "next_to_in_l1", "between_rows"]
)
def test_what_the_chip_can_do_is_no_error(cases, case, mode):
    output(cases, case, mode)


def test_l1_is_poison_before_and_after_every_step(cases):
    assert output(cases, "poisons", "late").splitlines() == [f"{POISON} "] * 2


def test_memories_have_the_size_of_the_chip(cases):
    assert output(cases, "too_much_memory", "late") == "1 1 1\n"


def test_cores_run_once_each_in_an_order_of_the_seed(cases):
    in_order = output(cases, "forks", "late").splitlines()
    assert in_order == ["0 1 2 3 4 5 6 7 8"] * 4
    shuffled = output(cases, "forks", "late", "1").splitlines()
    assert len(set(shuffled)) == 4
    assert all(sorted(line.split()) == list("012345678") and line.endswith(" 8") for line in shuffled)
    assert shuffled != output(cases, "forks", "late", "2").splitlines()
    assert shuffled == output(cases, "forks", "late", "1").splitlines()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["read_before_wait", "write_before_wait", "behind_l1", "before_l2"])
def test_sanitizer_stops_at_the_access_itself(sanitized, case, mode):
    assert f"in {case}" in run(sanitized, case, mode).stderr
    assert run(sanitized, case, mode).returncode == 1


@pytest.mark.parametrize("mode", MODES)
def test_sanitizer_allows_what_was_waited_for(sanitized, mode):
    output(sanitized, "moves_both_ways", mode)


@pytest.mark.parametrize("mode", MODES)
def test_the_network_splits_what_the_dma_cannot_move_at_once(tmp_path, mode):
    program = build(tmp_path / "transfers", "-I", RUNTIME, RUNTIME / "transfer.c", cases="gap9_transfer_cases.c")
    assert output(program, mode) == "1 1 1 1 1 1 1\n"
