"""The C kernels follow docs/gap9-arithmetic.md to the bit, for every shape and number of cores."""

import os
import shutil
import subprocess
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gap9_kernels import SOURCES, WARNINGS, Kernels, channels_of, guarded
from int8_scalar import layer_norm_row, weights_of

CORES = (1, 3, 8)


BUILDS = {
    "vectors": (),
    "other vectors": ("-U__SSE2__", "-D__ARM_NEON"),
    "words": ("-U__SSE2__", "-U__ARM_NEON"),
    "board": ("-DGAP9", "-include", Path(__file__).with_name("pulp_builtins.h"), "-fno-sanitize=alignment"),
}


@pytest.fixture(scope="session", params=BUILDS)
def kernels(request, tmp_path_factory):
    """As for computers with the vectors of this one and with others, for any core, and for the board, whose compiler's
    builtins are emulated, and which may load words from anywhere."""
    return Kernels(tmp_path_factory.mktemp("kernels"), "-O2", "-fsanitize=undefined", *BUILDS[request.param])


@pytest.fixture(autouse=True)
def no_undefined_behaviour(capfd):
    yield
    assert "runtime error" not in capfd.readouterr().err


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


def integers(rng, dtype, shape):
    """All values of a type; now and then only its extremes."""
    info = np.iinfo(dtype)
    if rng.random() < 0.2:
        return guarded(rng.choice(np.array([info.min, info.max, 0], dtype), shape))
    return guarded(rng.integers(info.min, info.max, shape, dtype, endpoint=True))


def weights_like(rng, dtype, shape):
    return guarded(np.maximum(integers(rng, np.int8, shape), -127).astype(dtype))


def ratios(rng, count, sums, largest):
    """Multipliers and shifts that bring sums of this size to about `largest`, and some of the whole range."""
    exponent = np.log2(np.abs(sums.astype(np.float64)).max() + 1) - np.log2(largest)
    shift = np.clip(np.round(31 + exponent + rng.integers(-2, 3, count)), 1, 62)
    strange = rng.random(count) < 0.2
    shift = np.where(strange, rng.integers(1, 63, count), shift)
    multiplier = np.where(rng.random(count) < 0.05, 0, rng.integers(2**30, 2**31, count))
    return multiplier.astype(np.int32), shift.astype(np.int32)


def rounded(values, shift):
    shift = np.asarray(shift, np.int64)
    return (values.astype(np.int64) + (np.int64(1) << (shift - 1))) >> shift


def requant(sums, multiplier, shift):
    return rounded(sums.astype(np.int64) * np.asarray(multiplier, np.int64), shift)


def clamp(values, low, high):
    return np.minimum(np.maximum(values, low), high)


def product(left, right):
    """(rows, outputs) of (rows, depth) and (outputs, depth)."""
    return left.astype(np.int64) @ right.astype(np.int64).T


def packed(weights):
    outputs, depth = weights.shape
    return weights.reshape(outputs // 4, 4, depth // 4, 4).transpose(0, 2, 1, 3).copy()


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("depth", [1, 2, 7, 20, 64])
def test_patch_embedding(kernels, rng, depth, cores):
    for rows in range(1, 10):
        for outputs in (4, 12, 16):
            x, w = integers(rng, np.int16, (rows, depth)), weights_like(rng, np.int16, (outputs, depth))
            bias = rng.integers(-(2**28), 2**28, outputs)
            sums = product(x, w) + bias
            multiplier, shift = ratios(rng, outputs, sums, 2**15)
            output = guarded(np.zeros((rows, outputs), np.int16))
            channels = guarded(channels_of(bias, multiplier, shift))
            kernels.run(
                "patch_embedding", cores, input=x, weights=w, channels=channels, output=output,
                rows=rows, depth=depth, outputs=outputs,
            )  # fmt: skip
            np.testing.assert_array_equal(output, clamp(requant(sums, multiplier, shift), -(2**15), 2**15 - 1))


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("width", [1, 2, 5, 32, 192])
def test_layer_norm(kernels, rng, width, cores):
    rows, shift = 7, 17
    x = integers(rng, np.int16, (rows, width))
    x[0] = -32768  # constant
    x[1] = rng.integers(-1, 2, width)  # next to constant
    x[2] = 0
    x[2, 0] = 32767  # one peak
    x[3] = np.where(np.arange(width) % 2, 32767, -32768)  # the largest variance
    x[4] = rng.normal(0, 30, width)
    g, b = rng.integers(-8191, 8192, width), rng.integers(-(2**21), 2**21, width)
    for epsilon in (1, 1000, 2**40):
        layer = SimpleNamespace(weight=g, bias=b, shift=shift, epsilon=epsilon)
        output = guarded(np.zeros((rows, width), np.int8))
        weights, bias = guarded(g.astype(np.int16)), guarded(b.astype(np.int32))
        kernels.run(
            "layer_norm", cores, input=x, weights=weights, bias=bias, output=output,
            epsilon=epsilon, rows=rows, width=width, shift=shift,
        )  # fmt: skip
        assert output.tolist() == [layer_norm_row(row, layer) for row in x.tolist()]


@pytest.mark.parametrize("scale", range(16))
def test_layer_norm_of_every_variance(kernels, rng, scale):
    width, largest = 1024, min(2**scale, 2**15 - 1)
    x = guarded(np.zeros((3, width), np.int16))
    x[0] = rng.integers(-largest, largest, width, endpoint=True)
    x[1, -1] = -largest
    x[2] = np.where(rng.random(width) < 0.5, largest, -largest)
    g = np.where(rng.random(width) < 0.5, 8191, -8191)
    b = np.where(g > 0, 2**29, -(2**29))
    for shift in (1, 24, 30):
        layer = SimpleNamespace(weight=g, bias=b, shift=shift, epsilon=1)
        output = guarded(np.zeros((3, width), np.int8))
        weights, bias = guarded(g.astype(np.int16)), guarded(b.astype(np.int32))
        kernels.run(
            "layer_norm", 3, input=x, weights=weights, bias=bias, output=output,
            epsilon=1, rows=3, width=width, shift=shift,
        )  # fmt: skip
        assert output.tolist() == [layer_norm_row(row, layer) for row in x.tolist()]


@pytest.mark.parametrize("spread", [0.3, 1, 10, 300, 5000, 30000])
def test_layer_norm_to_the_last_bit_of_what_is_normalized(kernels, rng, spread):
    """z in 1/4096 has more bits than the output: the bias moves those of every element into its range."""
    width = 512
    x = guarded(np.clip(rng.normal(100, spread, (1, width)), -32768, 32767).astype(np.int16))
    about = np.rint(4096 * (x[0] - x.mean()) / np.sqrt(x.var() + 1 / width**2)).astype(np.int64)
    layer = SimpleNamespace(weight=np.full(width, 2), bias=-2 * about, shift=1, epsilon=1)
    output = guarded(np.zeros((1, width), np.int8))
    weights, bias = guarded(layer.weight.astype(np.int16)), guarded(layer.bias.astype(np.int32))
    kernels.run(
        "layer_norm", input=x, weights=weights, bias=bias, output=output, epsilon=1, rows=1, width=width, shift=1
    )
    assert np.abs(output.astype(int)).max() < 100  # nothing saturates
    assert output[0].tolist() == layer_norm_row(x[0].tolist(), layer)


def linear_case(rng, rows, outputs, depth, largest):
    """Fields of a tile, the weights as they are, and the sums requantized."""
    x, w = integers(rng, np.int8, (rows, depth)), weights_like(rng, np.int8, (outputs, depth))
    bias = rng.integers(-(2**30), 2**30, outputs) if rng.random() < 0.3 else rng.integers(-9999, 9999, outputs)
    sums = product(x, w) + bias
    multiplier, shift = ratios(rng, outputs, sums, largest)
    fields = {
        "input": x,
        "weights": guarded(packed(w)),
        "channels": guarded(channels_of(bias, multiplier, shift)),
        "rows": rows,
        "depth": depth,
        "outputs": outputs,
    }
    return fields, requant(sums, multiplier, shift)


SHAPES = [(rows, outputs, depth) for rows in range(1, 10) for outputs in (4, 12, 20) for depth in (4, 16, 64, 192)]


@pytest.mark.parametrize("cores", CORES)
def test_linear_plain_and_transposed(kernels, rng, cores):
    for rows, outputs, depth in SHAPES:
        fields, result = linear_case(rng, rows, outputs, depth, 128)
        expected = clamp(result, -128, 127)
        output = guarded(np.zeros((rows, outputs), np.int8))
        kernels.run("linear", cores, output=output, row_stride=outputs, output_stride=1, **fields)
        np.testing.assert_array_equal(output, expected)

        stride = (rows + 3) // 4 * 4
        output = guarded(np.full((outputs, stride), 77, np.int8))
        kernels.run("linear", cores, output=output, row_stride=1, output_stride=stride, **fields)
        np.testing.assert_array_equal(output[:, :rows], expected.T)
        assert (output[:, rows:] == 77).all()


@pytest.mark.parametrize("cores", CORES)
def test_linear_activated(kernels, rng, cores):
    table = integers(rng, np.int8, 1024)
    for rows, outputs, depth in SHAPES:
        fields, result = linear_case(rng, rows, outputs, depth, 512)
        output = guarded(np.zeros((rows, outputs), np.int8))
        kernels.run("linear", cores, output=output, table=table, row_stride=outputs, output_stride=1, **fields)
        np.testing.assert_array_equal(output, table[clamp(result, -512, 511) + 512])


@pytest.mark.parametrize("cores", CORES)
def test_linear_added_to_the_residual_stream(kernels, rng, cores):
    for rows, outputs, depth in SHAPES:
        fields, result = linear_case(rng, rows, outputs, depth, 2**15)
        before = integers(rng, np.int16, (rows, outputs))
        residual = guarded(before)
        kernels.run("linear", cores, residual=residual, **fields)
        np.testing.assert_array_equal(residual, clamp(before + result, -(2**15), 2**15 - 1))


def test_linear_of_the_largest_sums(kernels):
    """2^31 - 1 and -2^31, times the largest and smallest ratios."""
    depth = 4
    x, w = guarded(np.full((1, depth), -128, np.int8)), np.full((4, depth), -127, np.int8)
    bias = np.array([2**31 - 1 - 4 * 128 * 127, -(2**31) - 4 * 128 * 127 + 2**17, -(2**31), 0])
    w[2:] = 0
    sums = product(x, w) + bias
    assert sums[0, 0] == 2**31 - 1 and sums[0, 2] == -(2**31)
    for multiplier in (2**31 - 1, 2**30, 0):
        for shift in (1, 2, 31, 32, 33, 34, 61, 62):
            channels = guarded(channels_of(bias, np.full(4, multiplier), np.full(4, shift)))
            for start in (-32768, 32767):
                residual = guarded(np.full((1, 4), start, np.int16))
                kernels.run(
                    "linear", input=x, weights=guarded(packed(w)), channels=channels, residual=residual,
                    rows=1, depth=depth, outputs=4,
                )  # fmt: skip
                expected = clamp(start + requant(sums, multiplier, shift), -(2**15), 2**15 - 1)
                np.testing.assert_array_equal(residual, expected)


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("half", [1, 4, 32])
def test_rotary(kernels, rng, half, cores):
    for rows in range(1, 10):
        states = integers(rng, np.int8, (rows, 2 * half))
        rotation = guarded(np.maximum(integers(rng, np.int16, (rows, 2, half)), -32767))
        a, b = states[:, :half].astype(np.int64), states[:, half:].astype(np.int64)
        cos, sin = rotation[:, 0], rotation[:, 1]
        expected = clamp(rounded(np.hstack([a * cos - b * sin, b * cos + a * sin]), 15), -128, 127)
        kernels.run("rotary", cores, states=states, rotation=rotation, rows=rows, half=half)
        np.testing.assert_array_equal(states, expected)


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("depth", [4, 20, 64])
def test_scores(kernels, rng, depth, cores):
    for rows in range(1, 10):
        for keys in (1, 2, 3, 4, 5, 11, 20):
            q, k = integers(rng, np.int8, (rows, depth)), integers(rng, np.int8, (keys, depth))
            sums = product(q, k)
            multiplier, shift = (int(part[0]) for part in ratios(rng, 1, sums, 2**15))
            stride = (keys + 3) // 4 * 4 + 4
            scores = guarded(np.full((rows, stride), 77, np.int16))
            kernels.run(
                "scores", cores, queries=q, keys=k, scores=scores,
                rows=rows, key_count=keys, depth=depth, stride=stride, multiplier=multiplier, shift=shift,
            )  # fmt: skip
            expected = clamp(requant(sums, multiplier, shift), -(2**15), 2**15 - 1)
            np.testing.assert_array_equal(scores[:, :keys], expected)
            assert (scores[:, keys:] == 77).all()


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("keys", [1, 2, 3, 4, 9, 50, 257])
def test_softmax(kernels, rng, keys, cores):
    exponentials = guarded(np.rint(255 * 256 * 2.0 ** (-np.arange(256) / 256)).astype(np.uint16))
    rows, stride, reciprocal = 9, (keys + 3) // 4 * 4, 0xFFFFFFFF
    scores = integers(rng, np.int16, (rows, stride))
    scores[0] = 300  # all alike
    scores[1] = -32768
    scores[1, keys // 2] = 32767  # one dominates
    scores[2] = -np.arange(stride)
    scores[3] = rng.permutation(stride) * 16  # every octave
    scores[4:7] = rng.normal(0, 700, (3, stride)).astype(np.int16)
    expected = [weights_of(row) for row in scores[:, :keys].tolist()]
    reciprocals = guarded(np.zeros(rows, np.uint32))
    kernels.run(
        "softmax", cores, scores=scores, reciprocals=reciprocals, exponentials=exponentials,
        rows=rows, key_count=keys, stride=stride, reciprocal=reciprocal,
    )  # fmt: skip
    weights = scores.view(np.uint8)
    assert weights[:, :keys].tolist() == expected
    assert not weights[:, keys:stride].any()
    assert reciprocals.tolist() == [reciprocal // sum(row) for row in expected]


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("shift", [1, 22, 26, 27, 31, 32, 33, 40, 62])
def test_values(kernels, rng, shift, cores):
    for rows in (1, 2, 5, 9):
        for depth, blocks in ((4, [4]), (12, [8, 4]), (8, [20, 20, 8])):
            p = integers(rng, np.uint8, (rows, sum(blocks)))
            p[:, -1] = 255
            if rows > 2:
                p[0] = 0
                p[0, 1] = 255  # the largest reciprocal
                p[1] = 255
            v = integers(rng, np.int8, (depth, sum(blocks)))
            a = guarded((0xFFFFFFFF // p.sum(axis=1, dtype=np.int64)).astype(np.uint32))
            sums, output = guarded(np.full((rows, depth), 9, np.int32)), guarded(np.zeros((rows, depth), np.int8))
            done = 0
            for block in blocks:
                weights, values = guarded(p[:, done : done + block]), guarded(v[:, done : done + block])
                first, done = int(done == 0), done + block
                kernels.run(
                    "values", cores, weights=weights, values=values, reciprocals=a, sums=sums, output=output,
                    rows=rows, key_count=block, depth=depth, stride=block, shift=shift,
                    first=first, last=int(done == sum(blocks)),
                )  # fmt: skip
            exact = product(p, v) * a[:, None].astype(np.int64)
            np.testing.assert_array_equal(output, clamp(rounded(exact, shift), -128, 127))


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("limit", [127, 2047])
def test_pool(kernels, rng, limit, cores):
    for width in (1, 5, 8, 32):
        blocks = [integers(rng, np.int8, (rows, width)) for rows in (1, 4, 3)]
        total = np.concatenate(blocks).astype(np.int64).sum(axis=0)
        multiplier, shift = (int(part[0]) for part in ratios(rng, 1, total, limit))
        sums = guarded(np.full(width, 5, np.int32))
        output = guarded(np.zeros(width, np.int16 if limit > 127 else np.int8))
        for i, x in enumerate(blocks):
            kernels.run(
                "pool", cores, input=x, sums=sums, output=output, rows=len(x), width=width,
                multiplier=multiplier, shift=shift, limit=limit, first=int(i == 0), last=int(i == 2),
            )  # fmt: skip
        np.testing.assert_array_equal(output, clamp(requant(total, multiplier, shift), -limit, limit))


@pytest.mark.parametrize("cores", CORES)
def test_depthwise(kernels, rng, cores):
    table = guarded(rng.integers(-2047, 2048, 1024).astype(np.int16))
    for rows in range(1, 10):
        for width in (1, 4, 7, 20):
            x, w = integers(rng, np.int8, (rows, width)), weights_like(rng, np.int8, (width, 3))
            bias, padding = rng.integers(-50000, 50000, width), int(rng.integers(-128, 128))
            around = np.pad(x.astype(np.int64), ((1, 1), (0, 0)), constant_values=padding)
            sums = bias + sum(around[j : j + rows] * w[:, j] for j in range(3))
            multiplier, shift = ratios(rng, width, sums, 512)
            output = guarded(np.zeros((rows, width), np.int16))
            kernels.run(
                "depthwise", cores, input=x, weights=w, channels=guarded(channels_of(bias, multiplier, shift)),
                table=table, output=output, rows=rows, width=width, padding=padding,
            )  # fmt: skip
            np.testing.assert_array_equal(output, table[clamp(requant(sums, multiplier, shift), -512, 511) + 512])


@pytest.mark.parametrize("cores", CORES)
@pytest.mark.parametrize("depth", [1, 16, 1536, 8192])
def test_head(kernels, rng, depth, cores):
    for rows, outputs in ((1, 1), (1, 6), (2, 5), (5, 20)):
        x = guarded(rng.integers(-2047, 2048, (rows, depth)).astype(np.int16))
        w = weights_like(rng, np.int8, (outputs, depth))
        bias = rng.integers(-(2**20), 2**20, outputs)
        x[0], w[0], bias[0] = 2047, 127, 0  # the largest sum
        output = guarded(np.zeros((rows, outputs), np.int32))
        kernels.run(
            "head", cores, input=x, weights=w, bias=guarded(bias.astype(np.int32)), output=output,
            rows=rows, depth=depth, outputs=outputs,
        )  # fmt: skip
        np.testing.assert_array_equal(output, product(x, w) + bias)


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 8])
def test_cores_share_evenly_and_do_nothing_twice(kernels, rng, cores):
    """Of all blocks (2 rows by 4 outputs), each is one core's, and no core has two more than another."""
    for rows, outputs in ((1, 4), (2, 8), (7, 20), (9, 12)):
        fields, _ = linear_case(rng, rows, outputs, 4, 2**10)
        fields["channels"][:] = (1000, 2**30, 31)  # no sum is 0
        fields["input"][:] = 0
        done, counts = np.zeros((rows, outputs), int), []
        for core in range(cores):
            residual = guarded(np.zeros((rows, outputs), np.int16))
            kernels.run("linear", cores, only=core, residual=residual, **fields)
            written = residual != 0
            done += written
            counts.append(_blocks(written))
        assert (done == 1).all()
        assert max(counts) - min(counts) <= 1


def _blocks(written):
    rows, outputs = written.shape
    return sum(written[r : r + 2, o : o + 4].any() for r in range(0, rows, 2) for o in range(0, outputs, 4))


def test_crc32_is_that_of_zlib(kernels, rng):
    data = rng.bytes(1000)
    assert kernels.crc32(b"") == 0
    assert kernels.crc32(data) == zlib.crc32(data)
    assert kernels.crc32(data[300:], kernels.crc32(data[:300])) == zlib.crc32(data)


def test_kernels_of_the_core_use_no_float_and_no_more_of_libgcc_than_known(tmp_path):
    compiler = shutil.which("riscv64-unknown-elf-gcc")
    if compiler is None:
        assert "CI" not in os.environ, "install gcc-riscv64-unknown-elf and picolibc-riscv64-unknown-elf"
        pytest.skip("needs riscv64-unknown-elf-gcc")
    subprocess.run(
        [compiler, "-march=rv32imac", "-mabi=ilp32", "--specs=picolibc.specs", "-O2", *WARNINGS, "-c", *SOURCES],
        check=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    objects = [tmp_path / f"{source.stem}.o" for source in SOURCES]
    listing = subprocess.run(
        ["riscv64-unknown-elf-nm", "-u", *objects], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    undefined = {line.split()[1] for line in listing.splitlines() if line.strip().startswith("U ")}
    assert undefined <= {"__clzsi2"}  # the length of a number in bits, once a row of a layer norm
