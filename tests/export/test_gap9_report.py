"""Reports of GAP9 exports: what they hold, and that what people read is what was computed."""

import json
import struct
from dataclasses import replace

import pytest
from int8_programs import random_program

from export.gap9.assumptions import NOTE, Assumptions
from export.gap9.cost import model_cost
from export.gap9.plan import make_plan
from export.gap9.render import render_report, render_summary
from export.gap9.report import CYCLES, MEMORY, write_report
from export.gap9.schedule import KIB

AGREEMENT = {
    "windows": 123,
    "top1": 0.9921,
    "correlation": 0.99876,
    "sqnr": 30.0,
    "maximum": 0.25,
    "mean": 0.01,
    "metric": "accuracy",
    "score": {"fp32": 0.9372, "int8": 0.9377},
}
TENSOR = {"method": "mse", "low": -1.5, "high": 1.5, "lowest": -2.5, "highest": 2.25, "saturating": 0.0123}
QUANTIZATION = {
    "method": "auto",
    "chosen": {"norm": "mse"},
    "candidates": {"minmax": 27.5, "mse": 30.25},
    "sqnr": 30.25,
    "windows": 64,
    "held_out": 16,
    "tensors": {"norm": TENSOR},
    "warnings": ["norm: 1.23% of the calibration values are beyond its range"],
}
RUN = {"target": "host", "dma": "late", "shuffle": 0, "mismatches": 0, "seconds": 1.5}


def verification(program, **changes):
    found = {
        "mismatches": 0,
        "mismatches_by_step": {},
        "vectors": 28,
        "steps": len(program.steps),
        "runs": [RUN, RUN | {"target": "rv32", "dma": "early", "shuffle": 7}],
        "skipped": {"sanitized": "gcc is missing: install the Debian package gcc"},
        "float_routines": {},
        "instructions": {step.name: 1000 + i for i, step in enumerate(program.steps)},
    }
    return found | changes


def written(folder, head="classification concat", channels=8, assumptions=None, **changes):
    program = random_program(channels=channels, samples=200, head=head)
    plan = make_plan(program)
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "network.c").write_text("/* */")
    report = write_report(
        folder,
        program,
        plan,
        checkpoint="hands",
        task="emg-regression" if head.startswith("regression") else "emg-classification",
        quantization=QUANTIZATION,
        accuracy={"uci_200, split test": AGREEMENT},
        verification=verification(program, **changes),
        assumptions=assumptions,
    )
    return report, program, plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return (folder, *written(folder))


def test_figures_are_those_of_the_plan_and_of_the_cost(made):
    folder, report, program, plan = made
    assert json.loads((folder / "report.json").read_text()) == report
    cost = model_cost(program, plan)
    headline = {
        "macs": cost.macs,
        "modelled_cycles": round(cost.cycles),
        "modelled_seconds_at_370mhz": cost.cycles / 370e6,
        "modelled_energy_mj": pytest.approx(57.18 * cost.cycles / 370e6),
        "l1_peak_bytes": plan.l1_size,
        "l2_peak_bytes": plan.l2_size + 168 * KIB,
        "l3_bytes": plan.l3_size,
        "mismatches": 0,
    }
    assert dict(list(report.items())[: len(headline)]) == headline
    assert sum(step["cycles"] for step in report["steps"]) == pytest.approx(
        report["modelled_cycles"], abs=len(cost.steps)
    )
    for step, expected in zip(report["steps"], program.steps, strict=True):
        transfers = plan.steps[expected.name].transfers
        assert step["name"] == expected.name
        assert step["bytes_l2_l1"] == transfers.read + transfers.written
        parts = ("compute", "transfers_not_hidden", "waiting_for_l3", "overhead")
        assert step["cycles"] == pytest.approx(sum(step[part] for part in parts), abs=2)
    assert [step["instructions_rv32"] for step in report["steps"]] == [1000 + i for i in range(len(program.steps))]
    assert sum(step["bytes_l3_l2"] for step in report["steps"]) == plan.l3_size
    assert report["plan"]["l2_size"] == plan.l2_size and set(report["plan"]["steps"]) == set(plan.steps)
    assert report["quantization"] == QUANTIZATION and report["accuracy"]["uci_200, split test"] == AGREEMENT
    assert report["files"] == sorted({"src/network.c", "report.json", "report.md", MEMORY, CYCLES})


def test_what_people_read(made):
    folder, report, _, _ = made
    text = (folder / "report.md").read_text()
    assert text == render_report(report) and text.startswith(render_summary(report))
    lines = text.splitlines()
    published = {"seconds": "0.785", "energy": "44.91", "power": "57.18", "cycles at": "290.5 M"}
    for name, value in published.items():
        row = next(line for line in lines if line.startswith(f"| {name}"))
        assert row.split("|")[4].strip() == value
    assert "Published, 8 x 1000" in text and "at most 0.45" in text and "at most 25" in text
    assert NOTE in render_summary(report)
    assert f"| {report['modelled_energy_mj']:.2f} |" in text
    for row in Assumptions().rows():
        assert any(line.startswith(f"| {row['name']} |") and row["source"] in line for line in lines), row["name"]
    assert "99.21%" in text and "accuracy 93.72%" in text and "accuracy 93.77%" in text and "0.99876" in text
    assert "30.2" in text and "1.2300%" in text and QUANTIZATION["warnings"][0] in text
    assert "install the Debian package gcc" in text and "when waited for" in text and "shuffled, 7" in text
    assert "Not run on GAP9" in text
    assert f"![Memory over the steps]({MEMORY})" in text and f"({CYCLES})" in text


def test_pictures_open(made, tmp_path):
    written(tmp_path, "regression mean", channels=2)
    for path in (folder / name for folder in (made[0], tmp_path) for name in (MEMORY, CYCLES)):
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
        width, height = struct.unpack(">II", data[16:24])
        assert 600 <= width <= 1600 and 250 <= height <= 1600


@pytest.fixture
def without_pictures(monkeypatch):
    for name in ("plot_memory", "plot_cycles"):
        monkeypatch.setattr(f"export.gap9.report.{name}", lambda *what: None)


def test_what_was_not_run_is_no_success(tmp_path, without_pictures):
    skipped = {target: "gcc is missing" for target in ("host", "sanitized", "rv32")}
    nothing = {"mismatches": None, "runs": [], "skipped": skipped, "instructions": {}, "float_routines": None}
    report, *_ = written(tmp_path, channels=2, **nothing)
    assert report["mismatches"] is None
    text = (tmp_path / "report.md").read_text()
    assert (
        text.count("gcc is missing") == 3 and "Instructions" not in text and "beside the integer reference" not in text
    )


def test_another_clock_does_not_change_the_figures_at_370_mhz(tmp_path, made, without_pictures):
    report, *_ = written(tmp_path, assumptions=replace(Assumptions(), clock_hz=185e6))
    usual = made[1]
    assert report["modelled_seconds_at_370mhz"] == usual["modelled_seconds_at_370mhz"]
    assert report["clock_hz"] == 185e6
    assert usual["modelled_seconds"] < report["modelled_seconds"] < 2 * usual["modelled_seconds"]
