"""Tests of the checker: every mistake that a plan can have is put into a good one, and must be found."""

from dataclasses import replace

import pytest
from int8_programs import random_program

from export.gap9.check import PlanCheckError, check_plan
from export.gap9.plan import make_plan
from export.gap9.replay import Replay
from export.gap9.schedule import Budget, PlanError, Region, Transfers

SIZES = {"channels": 3, "samples": 60 * 20, "hidden": 16, "heads": 2, "intermediate": 24, "layers": 2}
BUDGET = Budget(l1=8000, l2=64 * 1024, code=1024)
ATTENTION, MLP = "layers.1.attention", "layers.1.mlp.fc1"


@pytest.fixture(scope="module", params=["classification concat", "regression concat", "regression mean"])
def program(request):
    return random_program(head=request.param, **SIZES)


@pytest.fixture(scope="module")
def plan(program):
    return make_plan(program, BUDGET)


def refused(program, plan, match):
    with pytest.raises(PlanCheckError, match=match):
        check_plan(program, plan)


def with_tensor(plan, name, **changes):
    return replace(plan, tensors=plan.tensors | {name: replace(plan.tensors[name], **changes)})


def with_slab(plan, name, buffer=None, **changes):
    slab = plan.slabs[name]
    return replace(
        plan, slabs=plan.slabs | {name: replace(slab, buffer=replace(slab.buffer, **buffer or {}), **changes)}
    )


def with_step(plan, name, **changes):
    return replace(plan, steps=plan.steps | {name: replace(plan.steps[name], **changes)})


def with_region(plan, step, name, **changes):
    l1 = plan.steps[step].l1
    return with_step(plan, step, l1=l1 | {name: replace(l1[name], **changes)})


def index_of(program, name):
    return [step.name for step in program.steps].index(name)


def test_a_good_plan_passes(program, plan):
    check_plan(program, plan)
    assert issubclass(PlanCheckError, PlanError)


@pytest.mark.parametrize("name", ["patch_embedding", "layers.0.norm1", ATTENTION, MLP])
def test_the_plan_under_test_has_two_full_tiles(program, plan, name):
    assert 2 * plan.steps[name].row_block <= program.tokens  # each buffer of a pair is full once


def test_tensors_that_overlap(program, plan):
    offset = plan.tensors["hidden_states"].offset
    refused(program, with_tensor(plan, MLP, offset=offset), r"L2 at layers\.1\.mlp\.fc1: .*overlap")


def test_input_and_output_of_a_step_that_overlap(program, plan):
    offset = plan.tensors["layers.0.norm2"].offset
    refused(program, with_tensor(plan, "layers.0.mlp.fc1", offset=offset), r"L2 at layers\.0\.mlp\.fc1: .*overlap")


def test_a_tensor_over_the_first_byte_of_parameters_that_are_already_loaded(program, plan):
    # The last slab that is loaded earlier than its step: a tensor of the step before must not lie there.
    name, slab = next(
        (name, slab) for name, slab in plan.slabs.items() if 0 < slab.buffer.first < index_of(program, name)
    )
    victim = program.steps[slab.buffer.first]
    start = slab.buffer.offset - plan.tensors[victim.output].size + 8
    start = max(0, start - start % 8)
    refused(program, with_tensor(plan, victim.output, offset=start), "overlap")


@pytest.mark.parametrize("name", ["hidden_states", "layers.1.norm1", "layers.1.attention.value"])
def test_a_tensor_freed_too_early(program, plan, name):
    buffer = plan.tensors[name]
    refused(program, with_tensor(plan, name, last=buffer.last - 1), f"{name}: lives from step")


@pytest.mark.parametrize("name", ["hidden_states", "layers.1.norm1"])
def test_a_tensor_that_lives_too_late(program, plan, name):
    buffer = plan.tensors[name]
    refused(program, with_tensor(plan, name, first=buffer.first + 1), f"{name}: lives from step")


@pytest.mark.parametrize("change", [-8, 8])
def test_a_tensor_of_another_size(program, plan, change):
    size = plan.tensors["layers.1.attention.value"].size
    refused(
        program, with_tensor(plan, "layers.1.attention.value", size=size + change), r"attention\.value: has \d+ bytes"
    )


def test_a_tensor_that_is_missing_or_not_of_the_program(program, plan):
    missing = {name: buffer for name, buffer in plan.tensors.items() if name != MLP}
    refused(program, replace(plan, tensors=missing), r"tensors: .*layers\.1\.mlp\.fc1")
    refused(program, replace(plan, tensors=plan.tensors | {"other": plan.tensors[MLP]}), "tensors: .*other")


def test_a_step_that_reads_what_is_not_written_yet(program, plan):
    first, second, *others = program.steps
    swapped = replace(program, steps=(second, first, *others))
    steps = {name: plan.steps[name] for name in (second.name, first.name)} | plan.steps
    refused(swapped, replace(plan, steps=steps), "reads hidden_states, which no step before it writes")


def test_parameters_loaded_after_their_step(program, plan):
    index = index_of(program, MLP)
    late = with_slab(plan, MLP, {"first": index + 1, "last": index + 1})
    refused(program, late, r"layers\.1\.mlp\.fc1: its parameters are loaded before step \d+, after they are used")


def test_parameters_given_up_before_their_step(program, plan):
    slab = plan.slabs[MLP]
    refused(program, with_slab(plan, MLP, {"last": slab.buffer.last - 1}), "its parameters live until step")


def test_parameters_loaded_over_a_tensor(program, plan):
    offset = plan.tensors["hidden_states"].offset
    refused(program, with_slab(plan, MLP, {"offset": offset}), "overlap")


def test_parameters_loaded_so_early_that_they_overlap(program, plan):
    # Somewhere before, their place holds something else: with all lives that long, L2 is too small for all.
    slabs = {name: replace(slab, buffer=replace(slab.buffer, first=0)) for name, slab in plan.slabs.items()}
    refused(program, replace(plan, slabs=slabs), "overlap")


def test_parameters_outside_of_the_steps(program, plan):
    refused(program, with_slab(plan, MLP, {"first": -1}), "lives from step -1")


def test_parameters_that_are_missing(program, plan):
    slabs = {name: slab for name, slab in plan.slabs.items() if name != MLP}
    refused(program, replace(plan, slabs=slabs), r"slabs: .*layers\.1\.mlp\.fc1")


def test_parameters_in_another_order_than_steps(program, plan):
    refused(program, replace(plan, slabs=dict(reversed(plan.slabs.items()))), "slabs: not in the order of the steps")


def test_sections_that_do_not_fit(program, plan):
    sections = plan.slabs[MLP].sections
    table, end = sections["table"], plan.slabs[MLP].buffer.size

    def moved(**changes):
        return with_slab(plan, MLP, sections=sections | {"table": replace(table, **changes)})

    refused(program, moved(offset=sections["weights"].offset), "sections weights and table overlap|table and weights")
    refused(program, moved(offset=end), "sections end at")
    refused(program, moved(offset=table.offset + 4), "section table is at")
    refused(program, moved(size=1020), "sections of parameters are")
    without = {name: region for name, region in sections.items() if name != "table"}
    refused(program, with_slab(plan, MLP, sections=without), "sections of parameters are")


def test_parameters_that_overlap_or_leave_a_gap_in_l3(program, plan):
    start = plan.slabs[MLP].l3
    refused(program, with_slab(plan, MLP, l3=start - 8), "L3: parameters of")
    refused(program, with_slab(plan, MLP, l3=start + 8), "L3: parameters of")
    refused(program, with_slab(plan, MLP, l3=start + 4), "L3: .*no multiple of 8")
    refused(program, replace(plan, l3_size=plan.l3_size + 8), "l3_size")


@pytest.mark.parametrize("name", ["hidden_states", MLP])
def test_offsets_that_are_not_aligned(program, plan, name):
    refused(program, with_tensor(plan, name, offset=plan.tensors[name].offset + 4), "no multiple of 8")
    refused(program, with_tensor(plan, name, offset=-8), "no multiple of 8|overlap")


def test_budgets_that_are_exceeded(program, plan):
    for name, short in {
        "l1": replace(plan.budget, l1=plan.l1_size - 8),
        "l2": replace(plan.budget, l2=plan.l2_size + plan.budget.code - 8),
        "code": replace(plan.budget, code=plan.budget.l2 - plan.l2_size + 8),
        "l3": replace(plan.budget, l3=plan.l3_size - 8),
    }.items():
        refused(program, replace(plan, budget=short), {"l1": "L1", "code": "l2_size"}.get(name, f"{name}_size"))


def test_sizes_that_are_too_small(program, plan):
    refused(program, replace(plan, l1_size=plan.l1_size - 8), "l1_size")
    refused(program, replace(plan, l2_size=plan.l2_size - 8), "l2_size")
    refused(program, replace(plan, l3_size=plan.l3_size - 8), "l3_size")


@pytest.mark.parametrize(
    ("step", "region"),
    [(ATTENTION, name) for name in ["query0", "block1", "scores", "reciprocals", "sums", "output1", "exponentials"]]
    + [(MLP, name) for name in ["input0", "input1", "weights0", "channels0", "output0", "output1", "table"]],
)
def test_regions_that_are_too_small(program, plan, step, region):
    size = plan.steps[step].l1[region].size
    refused(program, with_region(plan, step, region, size=size - 1), f"{step}: {region} has {size - 1} bytes")


def test_every_region_of_every_step_is_needed_in_full(program, plan):
    for name, step in plan.steps.items():
        for region in step.l1:
            # The second of a pair is not used where there is only one block.
            if not region.endswith("1"):
                changed = with_region(plan, name, region, size=step.l1[region].size - 1)
                refused(program, changed, f"{name}: {region} has")


def test_regions_that_overlap(program, plan):
    for name, step in plan.steps.items():
        first, *_, last = step.l1.values()
        if len(step.l1) > 1:
            (moved,) = (region for region, place in step.l1.items() if place is last)
            refused(program, with_region(plan, name, moved, offset=first.offset), f"{name}: L1 regions .* overlap")


def test_regions_that_are_misplaced(program, plan):
    place = plan.steps[MLP].l1["table"]
    refused(program, with_region(plan, MLP, "table", offset=place.offset + 1), "L1 region table is at")
    outside = plan.budget.l1 - plan.budget.l1 % 8
    refused(program, with_region(plan, MLP, "table", offset=outside), "of L1")


def test_regions_that_the_executor_does_not_have(program, plan):
    l1 = plan.steps[MLP].l1
    without = {name: region for name, region in l1.items() if name != "input1"}
    refused(program, with_step(plan, MLP, l1=without), "regions of L1 are")
    refused(program, with_step(plan, MLP, l1=l1 | {"rotation0": Region(0, 0)}), "regions of L1 are")


@pytest.mark.parametrize(
    ("step", "changes", "match"),
    [
        (MLP, {"row_block": 0}, "row_block=0"),
        (MLP, {"row_block": 3}, "row_block=3"),
        (MLP, {"output_block": 6}, "output_block=6"),
        (MLP, {"key_block": 4}, "key_block=4"),
        ("layers.0.attention.query_key", {"output_block": 4}, "output_block=4"),
        ("layers.0.attention.query_key", {"output_block": 16}, "output_block is not head_size"),
        ("layers.0.attention.value", {"row_block": 2}, "row_block=2"),
        (ATTENTION, {"key_block": 6}, "key_block=6"),
        (ATTENTION, {"key_block": 0}, "key_block=0"),
        (ATTENTION, {"row_block": 5}, "row_block=5"),
        ("norm", {"row_block": 0}, "row_block=0"),
    ],
)
def test_blocks_that_kernels_do_not_take(program, plan, step, changes, match):
    refused(program, with_step(plan, step, **changes), f"{step}: .*{match}")


def test_heads_cover_all_rows(program, plan):
    name = program.steps[-1].name
    rows = plan.steps[name].row_block
    refused(program, with_step(plan, name, row_block=rows + 1), f"{name}: ")
    if rows > 1:
        refused(program, with_step(plan, name, row_block=rows - 1), f"{name}: ")


@pytest.mark.parametrize("name", ["patch_embedding", "layers.0.norm1", ATTENTION, MLP])
def test_larger_blocks_than_their_regions(program, plan, name):
    larger = with_step(plan, name, row_block=plan.steps[name].row_block + 4)
    refused(program, larger, f"{name}: .* bytes in L1, and needs")


def test_transfers_that_are_miscounted(program, plan):
    for name, step in plan.steps.items():
        done = step.transfers
        for wrong in (
            Transfers(done.read + 1, done.written, done.count),
            Transfers(done.read, done.written - 1, done.count),
            Transfers(done.read, done.written, done.count + 1),
        ):
            refused(program, with_step(plan, name, transfers=wrong), f"{name}: makes")


def test_steps_in_another_order(program, plan):
    steps = dict(reversed(plan.steps.items()))
    refused(program, replace(plan, steps=steps), "steps: the plan has")


@pytest.fixture
def replay():
    regions = {f"tile{i}": Region(0, 300_000) for i in range(20)} | {"small": Region(0, 16)}
    return Replay("step", regions, {"tensor": 300_000, "output": 64})


def test_large_transfers_are_split(replay):
    replay.load("tile0", "tensor", 0, 65_535)
    assert replay.count == 1
    replay.load("tile1", "tensor", 0, 65_536)
    assert replay.count == 3
    replay.load_rows("tile2", "tensor", 0, 3, 30_000, 40_000)  # two rows at a time
    assert replay.count == 5
    assert replay.read == 65_535 + 65_536 + 90_000


@pytest.mark.parametrize(
    ("transfer", "match"),
    [
        (("tile0", "tensor", 0, 1, 4 * 65_535, 4 * 65_535), "in 4 parts"),
        (("tile0", "tensor", 0, 2, 65_536, 70_000), "by 65536 bytes at once"),
        (("small", "tensor", 0, 1, 17, 17), "small has 16 bytes in L1, and needs 17"),
        (("tile0", "tensor", 299_999, 1, 2, 2), "of tensor are moved, which has 300000"),
        (("tile0", "tensor", 0, 3, 100, 149_999), "of tensor are moved"),
        (("tile0", "tensor", -1, 1, 2, 2), "of tensor are moved"),
        (("tile0", "tensor", 0, 2, 8, 4), "2 rows of 8"),
        (("tile0", "tensor", 0, 0, 8, 8), "0 rows of 8"),
        (("tile0", "tensor", 0, 2, 8, 65_536), "rows of tile0 are 65536 bytes apart"),
    ],
)
def test_transfers_that_are_not_legal(replay, transfer, match):
    with pytest.raises(PlanCheckError, match=match):
        replay.load_rows(*transfer)


def test_too_many_transfers_under_way(replay):
    for i in range(16):
        replay.load(f"tile{i}", "tensor", 0, 8)
    with pytest.raises(PlanCheckError, match="17 transfers are under way"):
        replay.load("tile16", "tensor", 0, 8)


def test_use_of_what_is_under_way(replay):
    replay.load("tile0", "tensor", 0, 8)
    with pytest.raises(PlanCheckError, match="tile0 is used while"):
        replay.compute("tile0")
    with pytest.raises(PlanCheckError, match="tile0 is moved while"):
        replay.store("tile0", "output", 0, 8)
    replay.wait("tile0")
    replay.compute("tile0")
    replay.store("tile0", "output", 0, 8)
    with pytest.raises(PlanCheckError, match=r"ends while \['tile0'\]"):
        replay.end("output")


def test_everything_is_loaded_alike_and_stored_once(replay):
    def move(kind, start, size):
        getattr(replay, kind)("tile0", "tensor" if kind == "load" else "output", start, size)
        replay.wait("tile0")

    for start in (0, 100_000, 200_000):
        move("load", start, 100_000 - (start == 200_000))
    move("store", 0, 63)
    with pytest.raises(PlanCheckError, match="bytes of output are stored 0 to 1 times"):
        replay.end("output")
    move("store", 63, 1)
    with pytest.raises(PlanCheckError, match="bytes of tensor are loaded 0 to 1 times"):
        replay.end("output")
    move("load", 299_999, 1)
    replay.end("output")
    move("store", 8, 8)
    with pytest.raises(PlanCheckError, match="bytes of output are stored 1 to 2 times"):
        replay.end("output")
