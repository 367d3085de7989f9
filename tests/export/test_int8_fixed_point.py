"""Fixed point against Python integers and fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import ExportError
from export.int8.fixed_point import (
    activation_table,
    clamp,
    clamp8,
    clamp16,
    epsilon_of,
    exponentials,
    gain_of,
    isqrt32,
    matmul,
    quantize_window,
    reciprocal_of,
    reciprocal_root,
    requant,
    requant_of,
    rotation_tables,
    shift_rounding,
    table_index,
)
from export.int8.program import Requant

quick = settings(max_examples=150, deadline=None)
INT32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1])
MULTIPLIERS = st.integers(2**30, 2**31 - 1) | st.sampled_from([0, 2**30, 2**31 - 1])


@quick
@given(acc=st.lists(INT32, min_size=1, max_size=6), m=MULTIPLIERS, n=st.integers(1, 62))
def test_requant_is_exact(acc, m, n):
    ratio = Requant(np.int32(m), np.int32(n))
    result = requant(np.array(acc), ratio)
    assert result.dtype == np.int64
    assert result.tolist() == [(a * m + (1 << (n - 1))) >> n for a in acc]


def test_requant_per_output():
    ratio = requant_of(np.array([0.5, 1.0, 1024.0]))
    assert requant(np.array([[3, -3, 7], [-3, 5, -(2**31)]]), ratio).tolist() == [[2, -3, 7168], [-1, 5, -(2**41)]]


@pytest.mark.parametrize("acc", [2**31, -(2**31) - 1])
def test_sums_of_more_than_32_bits_are_refused(acc):
    with pytest.raises(ExportError, match="32 bits"):
        requant(np.array([0, acc]), requant_of(1.0))


@quick
@given(st.floats(2.0**-32, 2.0**30 * (1 - 2.0**-31)))
def test_ratios_are_nearest(ratio):
    fixed = requant_of(ratio)
    assert fixed.multiplier.dtype == fixed.shift.dtype == np.int32
    m, n = int(fixed.multiplier), int(fixed.shift)
    assert 2**30 <= m < 2**31 and 1 <= n <= 62
    assert abs(Fraction(m, 2**n) - Fraction(ratio)) <= Fraction(1, 2 ** (n + 1))


@pytest.mark.parametrize(
    ("ratio", "m", "n"),
    [
        (0.0, 0, 1),
        (1.0, 2**30, 30),
        (2.0**-32, 2**30, 62),
        (2.0**29, 2**30, 1),
        (1 - 2.0**-40, 2**30, 30),  # rounds up to the next power of two
        (0.75, 3 * 2**29, 31),
    ],
)
def test_ratios_at_the_ends(ratio, m, n):
    fixed = requant_of(ratio)
    assert (int(fixed.multiplier), int(fixed.shift)) == (m, n)
    assert fixed.multiplier.shape == fixed.shift.shape == ()


@pytest.mark.parametrize("ratio", [-1.0, math.nan, math.inf, 2.0**-33, 2.0**30, 2.0**30 * (1 - 2.0**-33)])
def test_ratios_that_do_not_fit_are_refused(ratio):
    with pytest.raises(ExportError, match="ratio"):
        requant_of(ratio)
    with pytest.raises(ExportError, match="ratio"):
        requant_of(np.array([1.0, ratio]))


@quick
@given(st.floats(2.0**-30, 2.0**30))
def test_reciprocals_of_attention_are_nearest(ratio):
    reciprocal, shift = reciprocal_of(ratio)
    assert 2**31 <= reciprocal < 2**32 and 1 <= shift <= 62
    assert abs(Fraction(reciprocal, 2**shift) - Fraction(ratio)) <= Fraction(1, 2 ** (shift + 1))


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf, 2.0**-32, 2.0**31])
def test_reciprocals_that_do_not_fit_are_refused(ratio):
    with pytest.raises(ExportError, match="ratio"):
        reciprocal_of(ratio)


def test_square_roots():
    roots = np.arange(1, 2**16)
    for values in (roots**2 - 1, roots**2, np.random.default_rng(0).integers(0, 2**32, 20000)):
        assert isqrt32(values).tolist() == [math.isqrt(v) for v in values.tolist()]
    assert isqrt32(np.array([0, 2**32 - 1])).tolist() == [0, 2**16 - 1]


VARIANCES = st.integers(0, 50).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1) - 1))


@quick
@given(VARIANCES)
def test_reciprocal_roots(variance):
    r, k = (int(v) for v in reciprocal_root(np.array(variance)))
    assert 2**16 <= r < 2**17 and 5 <= k <= 30
    assert abs(r / 2.0**k / (4096 / math.sqrt(variance)) - 1) < 2.0**-14


@pytest.mark.parametrize("bits", range(51))
def test_reciprocal_roots_of_powers_of_two(bits):
    variances = [2**bits, 2 ** (bits + 1) - 1]
    r, k = reciprocal_root(np.array(variances))
    for v, r_of_v, k_of_v in zip(variances, r.tolist(), k.tolist(), strict=True):
        e = ((v.bit_length() + 1) & ~1) - 32
        root = math.isqrt(v >> e if e >= 0 else v << -e)
        assert (r_of_v, k_of_v) == ((2**32 - 1) // root, 20 + e // 2)


@pytest.mark.parametrize("variance", [0, -1, 2**51])
def test_variances_out_of_range_are_refused(variance):
    with pytest.raises(ExportError, match="variance"):
        reciprocal_root(np.array([1, variance]))


def test_exponentials():
    table = exponentials()
    assert table.dtype == np.uint16 and table.shape == (256,)
    assert table[0] == 65280
    assert all(abs(int(t) - 65280 * 2 ** (-f / 256)) <= 0.5 for f, t in enumerate(table))


@quick
@given(
    st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=4).filter(
        lambda pairs: any(g or b for g, b in pairs)
    ),
    st.floats(1e-3, 1.0),
)
def test_gains_are_as_fine_as_they_can_be(pairs, scale):
    weight, bias = np.array(pairs).T
    gain, offset, shift = gain_of(weight, bias, scale)
    assert gain.dtype == np.int16 and offset.dtype == np.int32
    assert 1 <= shift <= 30
    np.testing.assert_allclose(gain / 2.0**shift, weight / 4096 / scale, rtol=0, atol=0.5001 / 2**shift)
    np.testing.assert_allclose(offset / 2.0**shift, bias / scale, rtol=0, atol=0.5001 / 2**shift)
    assert np.abs(gain).max() <= 8191 and np.abs(offset).max() <= 2**29
    finer = np.rint(weight / 4096 / scale * 2.0 ** (shift + 1)), np.rint(bias / scale * 2.0 ** (shift + 1))
    assert shift == 30 or np.abs(finer[0]).max() > 8191 or np.abs(finer[1]).max() > 2**29


@pytest.mark.parametrize(("weight", "bias", "scale"), [(1e9, 0.0, 1e-3), (1.0, math.nan, 1.0), (1.0, 1e9, 1e-3)])
def test_gains_that_do_not_fit_are_refused(weight, bias, scale):
    with pytest.raises(ExportError, match="scale"):
        gain_of(np.array([weight]), np.array([bias]), scale)


def test_epsilon():
    assert epsilon_of(1e-5, 200, 0.01) == 4000
    assert epsilon_of(1e-12, 8, 1.0) == 1


def test_tables_of_activations():
    table = activation_table(np.tanh, step=1 / 64, scale=1 / 200, zero_point=-10, low=-128, high=127)
    assert table.shape == (1024,)
    assert table[512] == -10
    assert table[512 + 16] == round(200 * math.tanh(0.25)) - 10
    assert (table.min(), table.max()) == (-128, 127)
    assert table_index(np.array([-(2**40), -513, -512, -1, 0, 511, 512])).tolist() == [0, 0, 0, 511, 512, 1023, 1023]


def test_tables_of_rotations():
    cos, sin = rotation_tables(np.array([[0.0, math.pi / 2], [math.pi, math.pi / 3]]))
    assert cos.dtype == sin.dtype == np.int16
    assert cos.tolist() == [[32767, 0], [-32768, 16384]]
    assert sin.tolist() == [[0, 32767], [0, round(32768 * math.sqrt(0.75))]]


def test_windows_are_rounded_half_to_even_and_saturate():
    window = np.array([[0.25, 0.75, 1.25, -0.25, -0.75, 1e9, -1e9, 16383.75, -16384.25]], np.float32)
    quantized = quantize_window(window, 0.5)
    assert quantized.dtype == np.int16
    assert quantized.tolist() == [[0, 2, 2, 0, -2, 32767, -32768, 32767, -32768]]
    with pytest.raises(ExportError, match="finite"):
        quantize_window(np.array([[0.0, math.nan]], np.float32), 1.0)


def test_saturation_and_shifts():
    assert clamp(np.array([-5, 0, 5]), -2, 3).tolist() == [-2, 0, 3]
    assert clamp8(np.array([-129, -128, 127, 128])).tolist() == [-128, -128, 127, 127]
    assert clamp16(np.array([-(2**40), 32767, 32768])).tolist() == [-32768, 32767, 32767]
    assert (clamp8(np.array([1])).dtype, clamp16(np.array([1])).dtype) == (np.int8, np.int16)
    assert shift_rounding(np.array([-3, -2, -1, 0, 1, 2, 3]), 1).tolist() == [-1, -1, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("depth", [1, 1023, 1024, 1025, 2049])
@pytest.mark.parametrize(("left", "right"), [(np.int8, np.int8), (np.uint8, np.int8), (np.int16, np.int8)])
def test_products_are_exact(depth, left, right):
    """Around the depths where sums outgrow the mantissas of float32."""
    random = np.random.default_rng(depth)
    for low in (False, True):
        ends = np.iinfo(left), np.iinfo(right)
        a, b = ((e.min if low else e.max) - random.integers(0, 2, 2 * depth) * (-1 if low else 1) for e in ends)
        a, b = a.reshape(2, depth).astype(left), b.reshape(depth, 2).astype(right)
        expected = [[sum(x * y for x, y in zip(row, col, strict=True)) for col in b.T.tolist()] for row in a.tolist()]
        result = matmul(a, b)
        assert result.dtype == np.int64
        assert result.tolist() == expected


def test_products_that_may_not_be_exact_are_refused():
    wide = np.zeros((1, 2), np.int32)
    with pytest.raises(ExportError, match="2\\*\\*53"):
        matmul(wide, wide.T)
