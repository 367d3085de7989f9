"""The model of cost, against small cases computed by hand and against the known size of TinyMyo."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from int8_programs import HEADS, random_program

from export.errors import ExportError
from export.gap9.assumptions import Assumptions
from export.gap9.cost import model_cost, sensitivity
from export.gap9.plan import make_plan
from export.gap9.schedule import Budget, Buffer, Plan, Slab, StepPlan, Transfers
from export.gap9.work import count_macs
from export.int8.program import Head, LayerNorm, Linear, Program, Requant, Tensor

# Powers of two, so that products below are easy to follow: a product of depth k takes k core cycles per output.
FIGURES = Assumptions(
    clock_hz=1e6,
    power_mw=10.0,
    cores=8,
    gemm_rates=((64, 8.0), (128, 8.0)),
    requantization=0.0,
    residual=3.0,
    activation=5.0,
    layer_norm=10.0,
    head_product=2.0,
    section=0.0,
    dma_bytes=4.0,
    dma_setup=0.0,
    l3_bytes_per_second=2e6,
    l3_setup=0.0,
)


def linear(name, rows=64, outputs=32, depth=64, **fields):
    ratio = Requant(np.full(outputs, 1 << 30, np.int32), np.full(outputs, 40, np.int32))
    return Linear(name, "x", name, np.zeros((outputs, depth), np.int8), np.zeros(outputs, np.int32), ratio, **fields)


def program_of(*steps, rows=64, depth=64):
    tensors = {"x": Tensor((rows, depth), "int8", 1.0)}
    return Program(1, rows * 20, 20, depth, 1, steps, tensors)


def plan_of(program, row_block=64, output_block=32, read=0, written=0, count=0, slabs=None):
    step = StepPlan(row_block, output_block, 0, {}, Transfers(read, written, count))
    steps = {entry.name: step for entry in program.steps}
    return Plan(Budget(), {}, slabs or {}, steps, l1_size=0, l2_size=0, l3_size=0)


def slab(size, first, last):
    return Slab(0, Buffer(0, size, first, last), {})


def test_products_are_shared_by_the_cores():
    program = program_of(linear("a"))
    (step,) = model_cost(program, plan_of(program), FIGURES).steps
    assert step.macs == 64 * 32 * 64
    assert step.compute == step.cycles == 8 * 32 * 64  # of 64 rows a core has 8


# In blocks of 2 rows by 4 outputs, eight of which lie side by side: 1, 2, 3, 5 of each core, or of one of them.
@pytest.mark.parametrize(
    ("rows", "outputs", "share"),
    [(1, 32, 8), (2, 32, 8), (3, 32, 16), (4, 32, 16), (2, 36, 16), (6, 28, 24), (10, 32, 40), (2, 6, 8), (1, 3, 8)],
)
def test_what_cannot_be_shared_evenly_takes_as_long_as_the_largest_share(rows, outputs, share):
    program = program_of(linear("a", outputs=outputs), rows=rows)
    assert model_cost(program, plan_of(program, output_block=64), FIGURES).cycles == share * 64


def test_tails_of_blocks_are_tiles_of_their_own():
    program = program_of(linear("a", outputs=40), rows=70)
    cost = model_cost(program, plan_of(program), FIGURES)
    # Outputs of the core that has most: of whole tiles an eighth, of 6 x 32 three blocks, of 6 x 8 one.
    assert cost.cycles == (256 + 64 + 24 + 8) * 64
    overhead = model_cost(program, plan_of(program, count=5), replace(FIGURES, section=100.0, dma_setup=7.0))
    assert overhead.steps[0].overhead == 4 * 100 + 5 * 7


def test_epilogues_cost_per_output():
    table = np.zeros(1024, np.int8)
    program = program_of(linear("a"), linear("b", table=table), linear("c", residual=True))
    a, b, c = model_cost(program, plan_of(program), FIGURES).steps
    assert (b.compute - a.compute, c.compute - a.compute) == (8 * 32 * 5, 8 * 32 * 3)


def test_rates_are_met_where_they_were_measured_and_lie_between_them_elsewhere():
    figures = Assumptions()
    rate = {depth: 8 * depth / figures.product(depth) for depth in (20, 64, 128, 192, 300, 400, 768, 1024)}
    assert [rate[depth] for depth in (64, 192, 400, 768)] == pytest.approx([12.1, 15.7, 16.9, 17.5])
    assert list(rate.values()) == sorted(rate.values())
    # By hand, depth 128: halfway between 64 / 12.1 = 5.289 and 192 / 15.7 = 12.229 cycles per output of 8 cores.
    assert rate[128] == pytest.approx(128 / ((64 / 12.1 + 192 / 15.7) / 2))


def test_transfers_hide_behind_computing_but_for_both_ends():
    program = program_of(linear("a"), rows=256)  # four tiles of 16,384 cycles
    cost = model_cost(program, plan_of(program, read=24_000, written=8_000), FIGURES).steps[0]
    assert cost.compute == 4 * 16_384
    assert cost.dma == 32_000 / 4 / 4  # 8,000 cycles in all, a quarter of which is the first load and the last store
    assert cost.l1_bytes == 32_000
    slow = model_cost(program, plan_of(program, read=300_000, written=100_000), FIGURES).steps[0]
    # 100,000 cycles: 25,000 at the ends, and beside each tile 18,750, of which 16,384 are hidden.
    assert slow.dma == 25_000 + 4 * (18_750 - 16_384)


def test_stores_of_a_residual_stream_are_waited_for():
    program = program_of(linear("a", residual=True), rows=256)  # four tiles
    cost = model_cost(program, plan_of(program, read=24_000, written=8_000), FIGURES).steps[0]
    assert cost.dma == 32_000 / 4 / 4 + 3 * 8_000 / 4 / 4  # both ends, and the stores but the last
    slow = model_cost(program, plan_of(program, read=600_000, written=200_000), FIGURES).steps[0]
    # 50,000 at the ends, three more stores of 12,500, and loads of 28,125 beside what each tile computes.
    assert slow.dma == 50_000 + 3 * 12_500 + 4 * (28_125 - slow.compute / 4)


def test_a_step_of_one_tile_hides_nothing():
    program = program_of(linear("a"))
    assert model_cost(program, plan_of(program, read=400), FIGURES).steps[0].dma == 100


def test_parameters_are_waited_for_where_they_come_late():
    program = program_of(linear("a"), linear("b"), linear("c"))  # 16,384 cycles each; L3 gives 2 bytes a cycle
    slabs = {"a": slab(2_000, 0, 0), "b": slab(30_000, 0, 1), "c": slab(40_000, 1, 2)}
    a, b, c = model_cost(program, plan_of(program, slabs=slabs), FIGURES).steps
    assert a.stall == 1_000  # nothing ran before
    assert b.stall == 0  # from 1,000 to 16,000, while a runs until 17,384
    assert c.stall == 20_000 - 16_384  # from 17,384 to 37,384; b ends at 33,768
    assert (a.l3_bytes, b.l3_bytes, c.l3_bytes) == (2_000, 30_000, 40_000)


def test_loads_follow_one_another():
    program = program_of(linear("a"), linear("b"))
    slabs = {"a": slab(2_000, 0, 0), "b": slab(60_000, 0, 1)}
    a, b = model_cost(program, plan_of(program, slabs=slabs), FIGURES).steps
    assert b.stall == 1_000 + 30_000 - (1_000 + 16_384)


def test_layer_norms_and_heads():
    norm = LayerNorm("n", "x", "n", np.zeros(64, np.int16), np.zeros(64, np.int32), 1, 1)
    head = Head("h", "x", "logits", np.zeros((6, 64), np.int8), np.zeros(6, np.int32))
    program = program_of(norm, head, rows=12)
    n, h = model_cost(program, plan_of(program, row_block=12, output_block=4), FIGURES).steps
    assert (n.macs, n.cycles) == (0, 2 * 64 * 10)  # twelve rows on eight cores
    assert (h.macs, h.cycles) == (12 * 6 * 64, (6 + 3) * 64 * 2)  # 48 and 24 logits


@pytest.mark.parametrize(("channels", "layers"), [(8, 1_907_097_600), (16, 4_797_235_200)])
def test_operations_of_the_published_networks(channels, layers):
    program = tinymyo(channels)
    cost = model_cost(program, rows_plan(program))
    parts = cost.macs_by_part()
    tokens = channels * 50
    assert parts == {"patch_embedding": 20 * 192 * tokens, "layers": layers, "head": channels * 192 * 6}
    assert cost.macs == sum(parts.values()) == sum(count_macs(program).values())


def test_every_operation_is_computed_somewhere():
    """Cycles of products alone, at 8 MAC per cycle and whole shares, are the operations."""
    program = tinymyo(8)
    free = {
        name: 0.0 for name in ("requantization", "residual", "activation", "softmax", "layer_norm", "rotary", "pool")
    }
    figures = replace(FIGURES, **free, int16_factor=1.0, head_product=1.0, gemm_rates=((64, 8.0), (768, 8.0)))
    cost = model_cost(program, rows_plan(program), figures)
    for step in cost.steps:
        if step.macs and step.name != "classifier":  # whose six outputs eight cores cannot share evenly
            assert step.compute == pytest.approx(step.macs / 8), step.name


@pytest.mark.parametrize("head", HEADS)
def test_every_step_has_a_cost(head):
    cost = model_cost(*small(head))
    assert all(step.compute > 0 for step in cost.steps)
    assert [step.cycles for step in cost.steps] == pytest.approx(
        [step.compute + step.dma + step.stall + step.overhead for step in cost.steps]
    )


MORE_IS_FASTER = {"clock_hz", "cores", "dma_bytes", "l3_bytes_per_second"}


@pytest.mark.parametrize("name", [entry.name for entry in fields(Assumptions) if entry.name != "gemm_rates"])
def test_cost_follows_every_figure_in_its_direction(name):
    program, plan = small("regression mean")
    figures = Assumptions()
    values = [getattr(figures, name) * factor for factor in (0.25, 0.5, 1, 2, 4)]
    if name == "cores":
        values = [int(value) for value in values]
    costs = [model_cost(program, plan, replace(figures, **{name: value})) for value in values]
    measured = [cost.energy_mj if name == "power_mw" else cost.seconds for cost in costs]
    assert measured == sorted(measured, reverse=name in MORE_IS_FASTER)
    assert measured[0] != measured[-1]


def test_energy_is_power_times_time():
    program = program_of(linear("a"))
    cost = model_cost(program, plan_of(program), FIGURES)
    assert (cost.seconds, cost.energy_mj) == pytest.approx((0.016384, 0.16384))


def test_sensitivity_is_about_the_same_program():
    program, plan = small("classification concat")
    rows = {row["name"]: row for row in sensitivity(program, plan)}
    assert (
        rows["as assumed"]["cycles"] == rows["external RAM at 150 MB/s"]["cycles"] == model_cost(program, plan).cycles
    )
    memory = [rows[f"external RAM at {rate} MB/s"]["seconds"] for rate in (100, 150, 200)]
    assert memory == sorted(memory, reverse=True) and memory[0] > memory[2]
    assert rows["matrix products 20 % slower"]["cycles"] > rows["as assumed"]["cycles"]
    power = rows["power 30 % higher, as more of each core works"]
    assert power["cycles"] == rows["as assumed"]["cycles"]
    assert power["energy_mj"] == pytest.approx(1.3 * rows["as assumed"]["energy_mj"])


def test_every_figure_says_where_it_comes_from():
    rows = Assumptions().rows()
    assert [row["name"] for row in rows] == [entry.name for entry in fields(Assumptions)]
    assert all(row["unit"] and row["meaning"] for row in rows)
    sources = {row["source"].split(" on ")[0] for row in rows}
    assert sources == {"published", "measured", "assumed"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clock_hz", 0),
        ("dma_bytes", -1.0),
        ("l3_bytes_per_second", float("nan")),
        ("gemm_rates", ((64, 12.0),)),
        ("gemm_rates", ((192, 15.0), (64, 12.0))),
        ("gemm_rates", ((64, 12.0), (192, 0.0))),
    ],
)
def test_figures_that_mean_nothing_are_refused(field, value):
    with pytest.raises(ExportError, match=field):
        replace(Assumptions(), **{field: value})


def test_the_guide_says_what_the_model_says():
    """A plan may become a little better without it; the cost of the published size is within its target."""
    text = (Path(__file__).parents[2] / "docs" / "export-gap9.md").read_text(encoding="utf-8")
    rows = {row[0].strip(): row[1:] for line in text.splitlines() if (row := line.strip("|").split("|"))[1:]}
    for column, (channels, samples) in {0: (8, 200), 1: (8, 1000), 3: (16, 1000)}.items():
        program = tinymyo(channels, samples)
        cost = model_cost(program, make_plan(program))
        told = {name: float(re.sub("[^0-9.]", "", cells[column])) for name, cells in rows.items() if name in _TOLD}
        expected = {name: value(cost) for name, value in _TOLD.items()}
        assert told == pytest.approx(expected, rel=0.02), (channels, samples)
        if (channels, samples) == (8, 1000):
            assert cost.seconds <= 0.45 and cost.energy_mj <= 25


_TOLD = {
    "operations, MAC": lambda cost: cost.macs / 1e9,
    "of which transformer layers": lambda cost: cost.macs_by_part()["layers"] / 1e9,
    "cycles": lambda cost: cost.cycles / 1e6,
    "MAC per cycle": lambda cost: cost.macs / cost.cycles,
    "s at 370 MHz": lambda cost: cost.seconds,
    "mJ at the published 57.18 mW": lambda cost: cost.energy_mj,
}


def tinymyo(channels, samples=1000):
    fields = {"hidden": 192, "heads": 3, "intermediate": 768, "layers": 8, "outputs": 6}
    return random_program(channels=channels, samples=samples, **fields)


def rows_plan(program):
    """Blocks of 16 rows: whole shares of 8 cores in pairs."""
    step = StepPlan(16, 64, 16, {}, Transfers(800, 200, 10))
    return Plan(Budget(), {}, {}, {entry.name: step for entry in program.steps}, l1_size=0, l2_size=0, l3_size=0)


def small(head):
    """Only the first step waits for its parameters, so that no other hides what it computes behind theirs."""
    program = random_program(channels=4, samples=400, head=head)
    return program, replace(rows_plan(program), slabs={"patch_embedding": slab(5_000, 0, 0)})
