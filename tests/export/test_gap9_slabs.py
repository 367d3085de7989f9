import struct

import numpy as np
import pytest
from int8_programs import random_program

from export.gap9.slabs import layout, pack_weights, slab_bytes, slab_sections


@pytest.fixture(scope="module")
def steps():
    program = random_program(channels=2, samples=100, head="regression concat")
    return {step.name: step for step in program.steps}


@pytest.mark.parametrize("shape", [(4, 4), (12, 20), (24, 16)])
def test_weights_lie_in_the_order_in_which_the_kernel_reads_them(shape):
    outputs, depth = shape
    weight = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    data = np.frombuffer(pack_weights(weight).tobytes(), np.int8)
    for output in range(outputs):
        for k in range(depth):
            group, column, word, byte = output // 4, output % 4, k // 4, k % 4
            assert data[group * 4 * depth + word * 16 + column * 4 + byte] == weight[output, k]


def test_blocks_of_outputs_are_contiguous():
    weight = np.arange(16 * 8, dtype=np.uint8).astype(np.int8).reshape(16, 8)
    assert pack_weights(weight).tobytes()[4 * 8 : 12 * 8] == pack_weights(weight[4:12]).tobytes()


def test_channels_are_records_of_bias_multiplier_and_shift(steps):
    step = steps["layers.0.mlp.fc1"]
    records = list(struct.iter_unpack("<3i", slab_sections(step)["channels"]))
    assert records == [
        (int(bias), int(multiplier), int(shift))
        for bias, multiplier, shift in zip(step.bias, step.requant.multiplier, step.requant.shift, strict=True)
    ]


def test_weights_of_the_patch_embedding_are_widened(steps):
    step = steps["patch_embedding"]
    values = [value for (value,) in struct.iter_unpack("<h", slab_sections(step)["weights"])]
    assert values == step.weight.ravel().tolist()


def test_layer_norms_have_16_bit_weights_and_32_bit_bias(steps):
    step = steps["norm"]
    sections = slab_sections(step)
    assert sections["weights"] == struct.pack(f"<{len(step.weight)}h", *step.weight.tolist())
    assert sections["bias"] == struct.pack(f"<{len(step.bias)}i", *step.bias.tolist())


def test_rotations_have_the_cosines_of_a_token_before_its_sines(steps):
    step = steps["layers.1.attention.query_key"]
    half = step.head_size // 2
    rows = list(struct.iter_unpack(f"<{2 * half}h", slab_sections(step)["rotation"]))
    assert len(rows) == len(step.rotation.cos) == 10
    for token, row in enumerate(rows):
        assert list(row) == [*step.rotation.cos[token], *step.rotation.sin[token]]


def test_tables_and_plain_weights(steps):
    assert slab_sections(steps["layers.0.mlp.fc1"])["table"] == steps["layers.0.mlp.fc1"].table.tobytes()
    depthwise, head = steps["regressor.depthwise"], steps["regressor.conv2"]
    assert slab_sections(depthwise)["weights"] == depthwise.weight.tobytes()
    assert slab_sections(depthwise)["table"] == struct.pack("<1024h", *depthwise.table.tolist())
    assert slab_sections(head)["weights"] == head.weight.tobytes()
    exponentials = struct.unpack("<256H", slab_sections(steps["layers.0.attention"])["exponentials"])
    assert exponentials == tuple(round(255 * 256 * 2 ** (-i / 256)) for i in range(256))


def test_sections_begin_at_multiples_of_8_where_the_layout_says(steps):
    for step in steps.values():
        sections = slab_sections(step)
        data = slab_bytes(sections)
        assert len(data) % 8 == 0
        for name, region in layout(sections).items():
            assert region.offset % 8 == 0
            assert data[region.offset : region.end] == sections[name]


def test_a_step_without_parameters_has_no_sections():
    program = random_program()
    (pool,) = (step for step in program.steps if step.name == "pool")
    assert slab_sections(pool) == {}
