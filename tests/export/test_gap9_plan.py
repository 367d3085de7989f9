import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from int8_programs import HEADS, random_program

import export.gap9.replay
import export.gap9.transfers
from export.errors import ExportError
from export.gap9 import loading
from export.gap9.arena import Request, live_bytes, peak, place
from export.gap9.assumptions import Assumptions
from export.gap9.check import check_plan
from export.gap9.plan import make_plan, plan_json, timeline
from export.gap9.schedule import Budget, PlanError

RUNTIME = Path(export.gap9.replay.__file__).parent / "runtime"
SIZES = ((8, 200), (8, 1000), (16, 1000))
FULL = {"patch_size": 20, "hidden": 192, "heads": 3, "intermediate": 768, "regression_width": 256}


@cache
def full_program(channels, samples, head, outputs=6, rotation=True, layers=8):
    return random_program(
        channels=channels, samples=samples, head=head, outputs=outputs, rotation=rotation, layers=layers, **FULL
    )


@cache
def full_plan(*args, **kwargs):
    return make_plan(full_program(*args, **kwargs))


@pytest.mark.parametrize("rotation", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("head", "outputs"),
    [("classification concat", 53), ("classification mean", 6), ("regression concat", 5), ("regression mean", 20)],
)
def test_models_of_full_size_fit(size, head, outputs, rotation):
    # Two of the eight layers: all are alike, and it is their steps that take the memory.
    program = full_program(*size, head, outputs, rotation, layers=2)
    plan = make_plan(program)
    check_plan(program, plan)
    assert plan.l1_size <= 104 * 1024
    assert plan.l2_size + 64 * 1024 <= 1536 * 1024


@pytest.mark.parametrize("size", SIZES)
def test_all_layers_fit_as_densely_as_can_be(size):
    program = full_program(*size, "classification concat")
    plan = full_plan(*size, "classification concat")
    check_plan(program, plan)
    most = max(row["tensors"] + row["slabs"] for row in timeline(plan, program))
    assert most <= plan.l2_size <= 1.02 * most


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_loaded_while_earlier_steps_run(size):
    program = full_program(*size, "regression concat", layers=2)
    plan = make_plan(program)
    firsts = []
    for index, step in enumerate(program.steps):
        if step.name in plan.slabs:
            first = plan.slabs[step.name].buffer.first
            assert first < index or index == 0, step.name
            firsts.append(first)
    assert firsts == sorted(firsts)


def test_loads_do_not_wait_for_each_other():
    program = full_program(8, 200, "classification concat")
    plan = full_plan(8, 200, "classification concat")
    needed = {step.name: index for index, step in enumerate(program.steps)}
    for index in range(len(program.steps)):
        waiting = [name for name, slab in plan.slabs.items() if slab.buffer.first <= index <= needed[name]]
        assert len(waiting) <= loading.LOADS


@settings(max_examples=80, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "channels": st.integers(1, 4),
            "samples": st.integers(1, 12).map(lambda patches: 6 * patches),
            "patch_size": st.just(6),
            "hidden": st.sampled_from([8, 16, 24]),
            "heads": st.sampled_from([1, 2]),
            "intermediate": st.sampled_from([12, 24, 40]),
            "layers": st.integers(1, 2),
            "outputs": st.integers(1, 9),
            "rotation": st.booleans(),
            "head": st.sampled_from(HEADS),
        }
    ),
    st.floats(0.4, 1),
    st.floats(0.5, 1),
)
def test_a_plan_is_sound_or_refused(options, l1, l2):
    assume(options["hidden"] // options["heads"] % 4 == 0)
    program = random_program(**options)
    usual = make_plan(program)
    budget = Budget(l1=int(l1 * usual.l1_size), l2=int(l2 * usual.l2_size), code=0, l3=usual.l3_size)
    try:
        plan = make_plan(program, budget)
    except PlanError as error:
        event("refused: " + re.sub(r"need.*|layers\S+|norm|pool|\w+embedding|reg\S+|class\S+", "", str(error)))
        assert re.match(r"L[12]: .* bytes, [\d,]+ more than there are \([\d,]+\): .*; use ", str(error))
    else:
        event("planned")
        check_plan(program, plan)


def test_a_plan_is_found_in_no_more_than_it_needs():
    program = full_program(8, 200, "classification concat", layers=2)
    plan = make_plan(program)
    budget = Budget(l1=plan.l1_size, l2=plan.l2_size, code=0, l3=plan.l3_size)
    check_plan(program, make_plan(program, budget))


def test_less_l2_delays_loads_before_it_is_too_little():
    program = full_program(8, 200, "classification concat", layers=2)
    usual = make_plan(program)
    needed = {step.name: index for index, step in enumerate(program.steps)}
    tensors = max(row["tensors"] for row in timeline(usual, program))
    tight = make_plan(program, Budget(l2=tensors + 160_000, code=0))
    check_plan(program, tight)
    assert tight.l2_size < usual.l2_size

    def leads(plan):
        return sum(needed[name] - slab.buffer.first for name, slab in plan.slabs.items())

    assert leads(tight) < leads(usual)


def test_too_long_windows_are_refused_with_the_buffers_that_need_the_most():
    program = full_program(16, 1200, "classification mean", layers=1)
    # 960 tokens: residual stream, layer norm and its 768 outputs, beside the weights.
    needed = 960 * (2 * 192 + 192 + 768) + 192 * 768 + 768 * 12 + 1024
    limit = (1536 - 168) * 1024 - 300_000
    with pytest.raises(PlanError) as error:
        make_plan(program, Budget(l2=1536 * 1024 - 300_000))
    message = str(error.value)
    assert f"L2: layers.0.mlp.fc1 needs {needed:,} bytes, {needed - limit:,} more than there are ({limit:,})" in message
    assert f"layers.0.mlp.fc1 {960 * 768:,}, hidden_states {960 * 192 * 2:,}" in message
    assert message.endswith("use shorter windows, fewer channels or a smaller model")


def test_too_large_tiles_are_refused_with_their_regions():
    program = full_program(8, 200, "regression concat", layers=1)
    with pytest.raises(PlanError, match=r"L1: the smallest tiles of \S+ need [\d,]+ bytes, [\d,]+ more.*weights"):
        make_plan(program, Budget(l1=4000))


def test_too_many_parameters_are_refused():
    with pytest.raises(ExportError, match=r"L3: all parameters need .* more than there are \(1,000\): .*fc1"):
        make_plan(random_program(), Budget(l3=1000))


def test_a_width_that_is_no_whole_word_is_refused():
    with pytest.raises(PlanError, match=r"layers.0.mlp.fc1: .*\(26, 16\).*multiples of 4"):
        make_plan(random_program(intermediate=26))


def test_plans_are_the_same_every_time():
    first, second = (make_plan(random_program(seed=3)) for _ in range(2))
    assert first == second


def test_plan_as_json():
    plan = make_plan(random_program())
    document = json.loads(json.dumps(plan_json(plan)))
    assert document["l2_size"] == plan.l2_size
    slab = plan.slabs["layers.1.mlp.fc1"]
    found = document["slabs"]["layers.1.mlp.fc1"]
    assert found["l3"] == slab.l3
    assert (found["offset"], found["first"]) == (slab.buffer.offset, slab.buffer.first)
    assert found["sections"]["table"] == [slab.sections["table"].offset, 1024]
    step = plan.steps["layers.1.attention"]
    found = document["steps"]["layers.1.attention"]
    assert (found["row_block"], found["key_block"]) == (step.row_block, step.key_block)
    assert found["l1"]["scores"] == [step.l1["scores"].offset, step.l1["scores"].size]
    assert (found["read"], found["transfers"]) == (step.transfers.read, step.transfers.count)


def test_timeline_counts_what_is_needed_at_each_step():
    program = random_program(channels=2, samples=60, hidden=16, layers=1, rotation=False)  # 6 tokens
    plan = make_plan(program)
    rows = {row["step"]: row for row in timeline(plan, program)}
    assert list(rows) == [step.name for step in program.steps]
    residual = 6 * 16 * 2
    assert rows["patch_embedding"]["tensors"] == 2 * 60 * 2 + residual
    assert rows["layers.0.norm1"]["tensors"] == residual + 6 * 16
    # Queries, keys, values (rows of 8 bytes) and the output beside the residual stream.
    assert rows["layers.0.attention"]["tensors"] == residual + 2 * 6 * 16 + 16 * 8 + 6 * 16
    own = plan.slabs["layers.0.attention"].buffer.size
    assert rows["layers.0.attention"]["slabs"] >= own
    assert rows["layers.0.attention"]["l1"] == max(r.end for r in plan.steps["layers.0.attention"].l1.values())


def test_the_checker_knows_nothing_of_how_plans_are_made():
    found = set()
    for name in ("check", "check_regions", "check_tiles", "replay"):
        found |= set(re.findall(r"^from (export\S*) import", (RUNTIME.parent / f"{name}.py").read_text(), re.M))
    own = {f"export.gap9.{name}" for name in ("check_regions", "check_tiles", "replay")}
    assert found - own == {"export.gap9.schedule", "export.int8.program"}


def test_constants_of_the_runtime_are_the_same_here():
    def constant(file, name):
        return int(re.search(rf"#define {name} (\d+)", (RUNTIME / file).read_text())[1])

    assert constant("transfer.c", "LARGEST_COPY") == export.gap9.transfers.DMA_LIMIT == export.gap9.replay.LARGEST_COPY
    assert constant("transfer.h", "TRANSFER_PARTS") == export.gap9.replay.MOST_PARTS
    assert constant("network_run.c", "LOADS") == loading.LOADS


buffers = st.lists(
    st.tuples(st.integers(1, 200), st.integers(0, 12), st.integers(0, 4)).map(
        lambda values: Request("", values[0] * 8, values[1], values[1] + values[2])
    ),
    max_size=12,
).map(lambda requests: [replace(request, name=str(i)) for i, request in enumerate(requests)])


@settings(max_examples=60, deadline=None)
@given(buffers)
def test_buffers_that_live_at_the_same_time_have_places_of_their_own(requests):
    offsets = place(requests, enough=0)
    for a in requests:
        for b in requests:
            if a is not b and max(a.first, b.first) <= min(a.last, b.last):
                first, second = sorted((a, b), key=lambda request: offsets[request.name])
                assert offsets[first.name] + first.size <= offsets[second.name]
    assert peak(requests, offsets) >= max(live_bytes(requests, 17))


def test_buffers_that_never_meet_share_their_place():
    requests = [Request("a", 80, 0, 1), Request("b", 80, 2, 3), Request("c", 40, 1, 2)]
    assert peak(requests, place(requests, enough=0)) == 120


def test_a_load_starts_early_enough_and_no_earlier():
    figures = Assumptions()
    sizes = {3: 100_000}
    needed = loading.MARGIN * (figures.l3_setup + 100_000 / figures.l3_bytes)
    assert loading.issue_times([1e9, needed, 0.9 * needed, 1.0], sizes) == {3: 1}
    assert loading.issue_times([1e9, 1e9, 1.1 * needed, 1.0], sizes) == {3: 2}
    assert loading.issue_times([1.0, 1.0, 1.0, 1.0], sizes) == {3: 0}
    # A second one starts after the first: both have to be there.
    assert loading.issue_times([1e9, needed, 1.1 * needed, 1.0], {2: 100_000, 3: 100_000}) == {2: 1, 3: 2}
    assert loading.issue_times([1e9, 1.1 * needed, 0.0, 1.0], {2: 100_000, 3: 100_000}) == {2: 0, 3: 1}
