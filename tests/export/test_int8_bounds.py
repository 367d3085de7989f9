"""Programs for which a window exists that leaves a width of the page are refused, and the step is named."""

from dataclasses import replace

import numpy as np
import pytest
from int8_programs import HEADS, random_program, random_windows

from export.errors import ExportError
from export.int8.bounds import check_bounds
from export.int8.fixed_point import requant_of
from export.int8.program import Requant
from export.int8.reference import run


def changed(name, change, head="classification concat"):
    """A random program with fields of a step changed: `change` makes them of the step."""
    program = random_program(0, head=head)
    assert any(step.name == name for step in program.steps)
    steps = tuple(replace(step, **change(step)) if step.name == name else step for step in program.steps)
    return replace(program, steps=steps)


def with_first(values, value):
    values = values.copy()
    values.flat[0] = value
    return values


def room(weight, largest):
    """The largest bias with which the first output stays within 32 bits."""
    return 2**31 - 1 - largest * int(np.abs(weight[0].astype(int)).sum())


def depth_of(outputs, depth):
    weight = np.full((outputs, depth), 127, np.int8)
    return {"weight": weight, "bias": np.zeros(outputs, np.int32)}


@pytest.mark.parametrize("head", HEADS)
def test_programs_within_bounds(head):
    check_bounds(random_program(0, head=head))


@pytest.mark.parametrize(("name", "largest"), [("patch_embedding", 32768), ("layers.0.mlp.fc1", 128)])
def test_the_largest_bias(name, largest):
    def fits(step):
        return {"bias": with_first(step.bias, room(step.weight, largest))}

    def exceeds(step):
        return {"bias": with_first(step.bias, -room(step.weight, largest) - 1)}

    check_bounds(changed(name, fits))
    with pytest.raises(ExportError, match=f"{name}: .*32 bits of a sum"):
        check_bounds(changed(name, exceeds))


def test_the_head_takes_8192_features():
    check_bounds(changed("classifier", lambda step: depth_of(3, 8192)))
    with pytest.raises(ExportError, match="classifier: .*32 bits of a sum"):
        check_bounds(changed("classifier", lambda step: depth_of(3, 8270)))


REFUSED = [
    ("patch_embedding", lambda step: {"weight": with_first(step.weight, -128)}, "-127 .. 127"),
    ("patch_embedding", lambda step: {"requant": Requant(np.int32(2**30 - 1), np.int32(1))}, "multiplier"),
    ("layers.0.mlp.fc2", lambda step: {"requant": Requant(np.int32(2**30), np.int32(63))}, "shift"),
    ("layers.0.attention.proj", lambda step: {"requant": Requant(np.int32(2**30), np.int32(0))}, "shift"),
    ("layers.0.norm1", lambda step: {"weight": with_first(step.weight, 8192)}, "weight exceeds"),
    ("layers.0.norm1", lambda step: {"bias": with_first(step.bias, -(2**29) - 1)}, "bias exceeds"),
    ("layers.1.norm2", lambda step: {"shift": 31}, "shift 31"),
    ("layers.1.norm2", lambda step: {"epsilon": 0}, "epsilon 0"),
    ("layers.1.norm2", lambda step: {"epsilon": 2**51}, "epsilon"),
    ("norm", lambda step: {"weight": np.ones(1025, np.int16), "bias": np.ones(1025, np.int32)}, "1025 features"),
    ("layers.0.mlp.fc1", lambda step: {"table": step.table[:512]}, "table"),
    ("layers.0.mlp.fc1", lambda step: {"table": step.table.astype(np.int16)}, "table"),
    ("layers.1.attention", lambda step: {"reciprocal": 2**31 - 1}, "R = "),
    ("layers.1.attention", lambda step: {"reciprocal": 2**32}, "R = "),
    ("layers.1.attention", lambda step: {"shift": 63}, "shift 63"),
    ("layers.1.attention", lambda step: {"scores": Requant(np.int32(1), np.int32(1))}, "multiplier"),
    ("pool", lambda step: {"limit": 2048}, "limit 2048"),
    ("pool", lambda step: {"count": 2}, "elements"),
    ("pool", lambda step: {"requant": replace(requant_of(1.0), shift=np.int32(0))}, "shift"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_constants_out_of_range(name, change, message):
    program = changed(name, change)
    with pytest.raises(ExportError, match=rf"^{name}: .*{message}"):
        check_bounds(program)
    with pytest.raises(ExportError, match=rf"^{name}: "):
        run(program, random_windows(program, 1)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step: {"table": with_first(step.table, 2048)}, "exceeds 2047"),
        (lambda step: {"padding": 128}, "padding"),
        (lambda step: {"bias": with_first(step.bias, 2**31 - 1)}, "32 bits of a sum"),
    ],
)
def test_constants_of_depthwise_convolutions(change, message):
    with pytest.raises(ExportError, match=rf"^regressor.depthwise: .*{message}"):
        check_bounds(changed("regressor.depthwise", change, "regression concat"))


def test_windows_are_whole_patches():
    with pytest.raises(ExportError, match="61 samples"):
        check_bounds(replace(random_program(0), samples=61))
