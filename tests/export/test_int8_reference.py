"""The golden model against the page, one Python integer after the other, and against real numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from int8_programs import HEADS, extreme_windows, random_program, random_windows
from int8_scalar import scalar_run, weights_of

from export.errors import ExportError
from export.int8.program import FEATURE_LIMIT, Attention, LayerNorm, Linear, Program, Tensor
from export.int8.reference import GROUP, attention_weights, logits, run

NORM_WIDTHS = (1, 2, 48, 1024)


def collect(program, window):
    """[(name of the step, its output)]."""
    seen = []
    run(program, window, lambda name, values: seen.append((name, values.copy())))
    return seen


def program_of(step, tensors, channels=1, samples=1):
    """A program of one step that reads the window; its tensors are declared here."""
    width = tensors[step.input].shape[-1]
    return Program(channels, samples, 1, width, 1, (step,), tensors)


# All steps, to the bit.


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rotation", [True, False])
def test_every_step_is_what_the_page_says(head, rotation):
    program = random_program(HEADS.index(head), rotation=rotation, head=head)
    window = random_windows(program, 1, seed=3)[0]
    for (name, expected), (seen, values) in zip(scalar_run(program, window), collect(program, window), strict=True):
        assert name == seen
        np.testing.assert_array_equal(values, np.array(expected), err_msg=name)


@pytest.mark.parametrize("name", ["minimum", "maximum", "zeros", "ramp", "peaks", "noise", "signs"])
def test_windows_at_the_ends_of_the_range(name):
    program = random_program(11, channels=3, samples=20, patch_size=5, hidden=12, heads=3, head="regression concat")
    window = extreme_windows(program)[name]
    for (step, expected), (_, values) in zip(scalar_run(program, window), collect(program, window), strict=True):
        np.testing.assert_array_equal(values, np.array(expected), err_msg=step)


def _saturating(program):
    """The program with everything that is scaled 2**12 times larger."""
    steps = []
    for step in program.steps:
        if hasattr(step, "requant"):
            larger = np.maximum(step.requant.shift - 12, 1)
            step = replace(step, requant=replace(step.requant, shift=larger))
        if isinstance(step, Attention):
            step = replace(step, scores=replace(step.scores, shift=step.scores.shift - 12), shift=step.shift - 12)
        if isinstance(step, LayerNorm):
            step = replace(step, shift=1)
        steps.append(step)
    return replace(program, steps=tuple(steps))


@pytest.mark.parametrize("head", ["classification concat", "regression mean"])
def test_everything_saturates(head):
    program = _saturating(random_program(5, samples=40, head=head))
    window = random_windows(program, 1)[0]
    activated = [step.name for step in program.steps if getattr(step, "table", None) is not None]
    for (step, expected), (_, values) in zip(scalar_run(program, window), collect(program, window), strict=True):
        np.testing.assert_array_equal(values, np.array(expected), err_msg=step)
        if values.dtype != np.int32 and step not in activated:
            limit = FEATURE_LIMIT if (step, values.dtype) == ("pool", np.int16) else np.iinfo(values.dtype).max
            assert np.mean(np.abs(values.astype(int)) >= limit) > 0.3, step


def _norm_program(width, rows, weight, bias, shift, epsilon):
    weight, bias = np.full(width, weight, np.int16), np.full(width, bias, np.int32)
    step = LayerNorm("norm", "input_values", "logits", weight, bias, shift, epsilon)
    tensors = {"input_values": Tensor((rows, width), "int16", 1.0), "logits": Tensor((rows, width), "int8", 1.0)}
    return replace(program_of(step, tensors), channels=rows, samples=width)


def _norm_rows(width):
    random = np.random.default_rng(width)
    rows = [np.full(width, value) for value in (-32768, -1, 0, 1, 32767)]
    rows += [np.where(np.arange(width) == 0, 32767, -32768), np.where(np.arange(width) == 0, -32768, 32767)]
    rows += [np.where(np.arange(width) % 2, 32767, -32768), np.where(np.arange(width) == 0, 1, 0)]
    rows += [np.rint(random.normal(0, 10.0**power, width)).clip(-32768, 32767) for power in range(5)]
    return np.array(rows).astype(np.int16)


@pytest.mark.parametrize("width", NORM_WIDTHS)
@pytest.mark.parametrize(
    ("weight", "bias", "shift", "epsilon"),
    [(8191, 2**29, 30, 1), (-8191, -(2**29), 30, 2**49), (8191, 0, 1, 1), (77, -12345, 12, 10**6)],
)
def test_layer_norm_at_its_bounds(width, weight, bias, shift, epsilon):
    rows = _norm_rows(width)
    program = _norm_program(width, len(rows), weight, bias, shift, epsilon)
    [(_, expected)] = scalar_run(program, rows)  # asserts the widths as it goes
    np.testing.assert_array_equal(run(program, rows), np.array(expected))


def test_rows_without_variance_become_the_bias():
    program = _norm_program(16, 3, 4000, 50 << 10, 10, 1)
    rows = np.array([[-32768], [0], [32767]]).repeat(16, axis=1).astype(np.int16)
    np.testing.assert_array_equal(run(program, rows), np.full((3, 16), 50))


@pytest.mark.parametrize(
    "scores",
    [[0], [0, 0, 0], [-32768, 32767], [32767, 32767, -32768], list(range(0, -4400, -37)), [5, 4, -3000, -4092, -4100]],
)
def test_weights_of_attention(scores):
    values = np.array(scores, np.int16)
    assert attention_weights(values).tolist() == weights_of(scores)
    exact = 255 * 2.0 ** ((values - values.max().astype(int)) / 256)
    # Sums from the first token on are rounded, not each weight.
    assert np.abs(np.cumsum(attention_weights(values).astype(int) - exact)).max() <= 0.51 + 0.005 * len(scores)


# In real numbers. What is saturated is not compared.


def _program_and_values():
    program = random_program(2, channels=4, samples=100, hidden=64, heads=2, intermediate=128, layers=2)
    window = random_windows(program, 1)[0]
    return program, window, collect(program, window)


def test_layer_norm_in_real_numbers():
    program, _, seen = _program_and_values()
    stream = None
    compared = 0
    for step, (_, values) in zip(program.steps, seen, strict=True):
        if isinstance(step, LayerNorm):
            scale = program.tensors["hidden_states"].scale
            x = torch.tensor(stream * scale)
            weight, bias = (torch.tensor(v / 2.0**step.shift) for v in (step.weight * 4096.0, step.bias))
            expected = torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-5).numpy()
            inside = np.abs(expected) < 126
            assert np.abs(values - expected)[inside].max() < 0.5 + 0.05
            compared += 1
        elif step.output == "hidden_states":
            stream = values.astype(np.float64)
    assert compared == 5


def test_attention_in_real_numbers():
    program, _, seen = _program_and_values()
    values = dict(seen)
    for step in program.steps:
        if isinstance(step, Attention):
            scale = program.tensors[step.input].scale
            query, key = np.split(torch.tensor(values[step.input] * scale), 2)
            value = torch.tensor(values[step.values] * program.tensors[step.values].scale).mT
            expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
            expected = expected.transpose(0, 1).flatten(1).numpy() / program.tensors[step.output].scale
            inside = np.abs(expected) < 126
            assert np.abs(values[step.name] - expected)[inside].max() < 0.5 + 0.5


def test_rotation_keeps_products_of_distances():
    """The score of two rotated vectors depends on the distance of their positions only."""
    program = random_program(4, channels=1, samples=800, patch_size=20, hidden=32, heads=1, layers=1, rotation=True)
    step = next(step for step in program.steps if isinstance(step, Linear) and step.rotation is not None)
    constant = replace(step, weight=np.zeros_like(step.weight), bias=step.bias * 10)
    program = replace(program, steps=tuple(constant if s is step else s for s in program.steps))
    query, key = dict(collect(program, random_windows(program, 1)[0]))[step.name].astype(float)
    scores = query @ key.T
    assert scores.std() > 0.1 * np.linalg.norm(query[0]) * np.linalg.norm(key[0])
    for distance in (-20, -1, 0, 7):
        diagonal = np.diagonal(scores, distance)
        assert np.ptp(diagonal) < 0.05 * np.linalg.norm(query[0]) * np.linalg.norm(key[0])


# What runs as what.


def test_windows_of_a_batch_are_computed_one_by_one():
    program = random_program(9, samples=40, layers=1, head="regression concat")
    windows = random_windows(program, GROUP + 3)
    seen = []
    together = run(program, windows, lambda name, values: seen.append((name, values)))
    alone = np.stack([run(program, window) for window in windows])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together, axis=0)) == len(windows)
    assert [name for name, _ in seen] == [step.name for step in program.steps] * 2
    for name, values in seen:
        step = next(step for step in program.steps if step.name == name)
        tensor = program.tensors[step.output]
        assert values.dtype == tensor.dtype and values.shape[1:] == tensor.shape
    assert sum(len(values) for name, values in seen if name == "norm") == len(windows)
    assert run(program, windows[:0]).shape == (0, 2, 3)


def test_what_is_observed_stays_as_it_was():
    program = random_program(9, samples=40)
    kept = []
    run(program, random_windows(program, 1)[0], lambda name, values: kept.append(values))
    for values, (name, copied) in zip(kept, collect(program, random_windows(program, 1)[0]), strict=True):
        np.testing.assert_array_equal(values, copied, err_msg=name)


def test_logits_of_a_classification_are_scaled_per_output():
    program = random_program(0)
    scale = np.array([0.5, 0.25, 2.0], np.float32)
    program.tensors["logits"] = replace(program.tensors["logits"], scale=scale)
    integers = np.array([[[3, -4, 5]], [[0, 1, -2147483648]]], np.int32)
    values = logits(program, integers)
    assert values.dtype == np.float32
    assert values.tolist() == [[1.5, -1.0, 10.0], [0.0, 0.25, -4294967296.0]]
    assert logits(program, integers[0]).tolist() == [1.5, -1.0, 10.0]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 80, 101])
def test_logits_of_a_regression_are_interpolated_as_torch_does(length):
    program = random_program(0, samples=80, head="regression mean", target_length=length)
    integers = np.random.default_rng(length).integers(-(10**6), 10**6, (2, 4, 3)).astype(np.int32)
    rows = torch.tensor(integers) * torch.tensor(program.tensors["logits"].scale)
    expected = torch.nn.functional.interpolate(rows.transpose(1, 2), length, mode="linear").transpose(1, 2)
    values = logits(program, integers)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.numpy(), rtol=1e-5, atol=1e-5 * rows.abs().max().item())
    np.testing.assert_array_equal(logits(program, integers[0]), values[0])


@pytest.mark.parametrize(
    "window",
    [np.zeros((2, 60), np.int32), np.zeros((2, 60)), np.zeros((3, 60), np.int16), np.zeros(60, np.int16)],
)
def test_windows_of_other_shapes_and_types_are_refused(window):
    with pytest.raises(ExportError, match=r"give int16 \(2, 60\)"):
        run(random_program(0), window)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hidden_states", {"shape": (5, 16)}),
        ("layers.0.norm1", {"dtype": "int16"}),
        ("layers.1.attention.value", {"shape": (2, 3, 8)}),
    ],
)
def test_tensors_are_what_they_are_declared_as(name, change):
    program = random_program(0)
    program.tensors[name] = replace(program.tensors[name], **change)
    with pytest.raises(ExportError, match=rf"tensor {name} is declared as"):
        run(program, random_windows(program, 1)[0])


@pytest.mark.parametrize("head", HEADS)
def test_random_programs_neither_saturate_nor_vanish(head):
    """What tests of others build upon."""
    program = random_program(3, channels=4, samples=100, hidden=32, intermediate=64, layers=3, outputs=6, head=head)
    for name, values in collect(program, random_windows(program, 4)):
        ends = np.iinfo(values.dtype)
        assert np.mean((values == ends.min) | (values == ends.max)) < 0.1, name
        assert len(np.unique(values)) > 5, name
        assert values.std() > 10, name
        assert len(np.unique(values, axis=0)) == 4, name
