"""docs/gap9-arithmetic.md once more, one Python integer after the other, with the widths it states asserted.

Slow and plain on purpose: nothing of `export.int8` but the classes of steps is used, so that the reference, and C, can
be held against it.
"""

import math

from export.int8.program import Attention, DepthwiseConv, Head, LayerNorm, Linear, PatchEmbedding, Pool


def fits(value, bits, signed=True):
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    assert low <= value < high, f"{value} does not fit {bits} bits"
    return value


def clamp(value, low, high):
    return max(low, min(high, value))


def clamp8(value):
    return clamp(value, -128, 127)


def clamp16(value):
    return clamp(value, -32768, 32767)


def requant(acc, m, n):
    assert m == 0 or 2**30 <= m < 2**31
    assert 1 <= n <= 62
    return fits(fits(acc, 32) * m + (1 << (n - 1)), 64) >> n


def ratio_of(ratio, output):
    """Multiplier and shift of an output, of one or of all."""
    return tuple(int(v if v.ndim == 0 else v[output]) for v in (ratio.multiplier, ratio.shift))


def dot(bias, left, right):
    acc = fits(int(bias), 32)
    for a, b in zip(left, right, strict=True):
        acc = fits(acc + a * b, 32)
    return acc


def layer_norm_row(x, step):
    d = len(x)
    total = fits(sum(x), 32)
    v = d * sum(a * a for a in x) - total * total + step.epsilon
    assert 1 <= v < 2**51
    e = ((v.bit_length() + 1) & ~1) - 32
    assert e % 2 == 0 and -30 <= e <= 20
    normal = v >> e if e >= 0 else v << -e
    assert 2**30 <= normal < 2**32
    root = math.isqrt(normal)
    assert 2**15 <= root < 2**16
    r = (2**32 - 1) // root
    assert 2**16 <= r <= 2**17 - 1
    k = 20 + e // 2
    row = []
    for a, g, b in zip(x, step.weight.tolist(), step.bias.tolist(), strict=True):
        z = fits(fits((d * a - total) * r, 63) + (1 << (k - 1)), 64) >> k
        assert abs(z) < 2**17
        row.append(clamp8(fits(z * g + b + (1 << (step.shift - 1)), 32) >> step.shift))
    return row


def patch_embedding(step, values):
    window, size = values[step.input], step.weight.shape[1]
    patches = [channel[i : i + size] for channel in window for i in range(0, len(channel), size)]
    weight = step.weight.tolist()
    return [
        [clamp16(requant(dot(step.bias[o], x, weight[o]), *ratio_of(step.requant, o))) for o in range(len(step.weight))]
        for x in patches
    ]


def layer_norm(step, values):
    rows = [layer_norm_row(x, step) for x in values[step.input]]
    if step.channels == 1:
        return rows
    patches = len(rows) // step.channels
    return [sum((rows[c * patches + p] for c in range(step.channels)), []) for p in range(patches)]


def linear(step, values):
    x, weight, rows = values[step.input], step.weight.tolist(), []
    for t in range(len(x)):
        scaled = [requant(dot(step.bias[o], x[t], weight[o]), *ratio_of(step.requant, o)) for o in range(len(weight))]
        if step.residual:
            rows.append([clamp16(old + y) for old, y in zip(values[step.output][t], scaled, strict=True)])
        elif step.table is not None:
            rows.append([int(step.table[clamp(y, -512, 511) + 512]) for y in scaled])
        else:
            rows.append([clamp8(y) for y in scaled])
    if step.layout == "rows":
        return rows
    size = step.head_size
    heads = [[row[h * size : (h + 1) * size] for row in rows] for h in range(len(weight) // size)]
    if step.layout == "transposed":
        return [[list(column) for column in zip(*head, strict=True)] for head in heads]
    if step.rotation is not None:
        heads = [[rotate(row, t, step.rotation) for t, row in enumerate(head)] for head in heads]
    return heads


def rotate(x, t, rotation):
    half, y = len(x) // 2, list(x)
    for j in range(half):
        a, b, cos, sin = x[j], x[j + half], int(rotation.cos[t, j]), int(rotation.sin[t, j])
        y[j] = clamp8(fits(a * cos - b * sin + 2**14, 32) >> 15)
        y[j + half] = clamp8(fits(b * cos + a * sin + 2**14, 32) >> 15)
    return y


def weights_of(scores):
    """p of one row of scores."""
    row, rest = [], 128
    for s in scores:
        below = max(scores) - s
        i, entry = below >> 8, round(255 * 256 * 2 ** (-(below & 255) / 256))
        rest += entry >> i
        row.append(fits(rest >> 8, 8, signed=False))
        rest &= 255
    assert max(row) == 255
    return row


def attention(step, values):
    heads = values[step.input]
    count, tokens = len(heads) // 2, len(heads[0])
    output = [[] for _ in range(tokens)]
    for h in range(count):
        query, key, value = heads[h], heads[count + h], values[step.values][h]
        for t in range(tokens):
            scores = [clamp16(requant(dot(0, query[t], k), *ratio_of(step.scores, 0))) for k in key]
            p = weights_of(scores)
            a = fits(step.reciprocal // sum(p), 32, signed=False)
            for column in value:
                total = fits(dot(0, p, column) * a, 63) + (1 << (step.shift - 1))
                output[t].append(clamp8(fits(total, 64) >> step.shift))
    return output


def pool(step, values):
    flat = flatten(values[step.input])
    m, n = ratio_of(step.requant, 0)
    rows = []
    for outer in range(step.outer):
        start = outer * step.count * step.inner
        for i in range(step.inner):
            total = sum(flat[start + c * step.inner + i] for c in range(step.count))
            rows.append(clamp(requant(total, m, n), -step.limit, step.limit))
    return rows


def depthwise(step, values):
    x, weight = values[step.input], step.weight.tolist()
    beyond = [[step.padding] * len(x[0])]
    x = beyond + x + beyond
    rows = []
    for t in range(len(x) - 2):
        taps = zip(x[t], x[t + 1], x[t + 2], strict=True)
        scaled = [requant(dot(step.bias[o], tap, weight[o]), *ratio_of(step.requant, o)) for o, tap in enumerate(taps)]
        rows.append([clamp(int(step.table[clamp(y, -512, 511) + 512]), -2047, 2047) for y in scaled])
    return rows


def head(step, values):
    weight = step.weight.tolist()
    return [[dot(b, x, w) for b, w in zip(step.bias, weight, strict=True)] for x in values[step.input]]


STEPS = {
    PatchEmbedding: patch_embedding,
    LayerNorm: layer_norm,
    Linear: linear,
    Attention: attention,
    Pool: pool,
    DepthwiseConv: depthwise,
    Head: head,
}


def flatten(values):
    return [v for part in values for v in flatten(part)] if isinstance(values, list) else [values]


def nested(flat, shape):
    if len(shape) == 1:
        return flat
    size = len(flat) // shape[0]
    return [nested(flat[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


def scalar_run(program, window):
    """Name of every step and its output as nested lists, in order; `window` int16 (channels, samples)."""
    values, outputs = {"input_values": window.tolist()}, []
    for step in program.steps:
        result = STEPS[type(step)](step, values)
        if isinstance(step, Pool):
            result = nested(result, program.tensors[step.output].shape)
        values[step.output] = result
        outputs.append((step.name, result))
    return outputs
