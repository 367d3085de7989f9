"""network.c: an integer program and its memory plan as constant structures of C."""

from __future__ import annotations

import string
import zlib
from collections.abc import Iterable
from importlib import resources

import numpy as np

from export.gap9.descriptors import Fields, comment_of, fields_of, structure_of
from export.gap9.geometry import round_up
from export.gap9.names import address, identifier, parameters
from export.gap9.schedule import Plan
from export.gap9.slabs import slab_bytes, slab_sections
from export.int8.program import Linear, Program, Step, Tensor

_NAME = "TinyMyo"


def weights_image(program: Program, plan: Plan) -> bytes:
    """Contents of `weights.bin`: every slab at its place in L3."""
    image = bytearray(max((slab.l3 + slab.buffer.size for slab in plan.slabs.values()), default=0))
    for step in program.steps:
        if step.name in plan.slabs:
            start, data = plan.slabs[step.name].l3, slab_bytes(slab_sections(step))
            image[start : start + len(data)] = data
    return bytes(image)


def network_source(program: Program, plan: Plan, weights: bytes) -> str:
    """C99 source of `network.c`.

    Args:
        weights: contents of `weights.bin`, whose CRC-32 is checked at start-up.
    """
    template = string.Template(resources.files("export.gap9").joinpath("templates/network.c").read_text("utf-8"))
    logits, window = program.tensors["logits"], program.tensors["input_values"]
    return template.substitute(
        title=_title(program),
        memory_map=_lines(_memory_map(program, plan)),
        steps="\n\n".join(_step(program, plan, step) for step in program.steps),
        slabs=_lines(_slabs(plan)),
        table=_lines(_table(program, plan)),
        output_scales=_lines(f"{_float(scale)}," for scale in np.ravel(logits.scale)),
        labels=_lines(f"{_string(label)}," for label in program.labels or map(str, range(logits.shape[-1]))),
        name=_string(_NAME),
        l1_size=plan.l1_size,
        l2_size=plan.l2_size,
        l3_size=len(weights),
        weights_crc=f"0x{zlib.crc32(weights):08x}u",
        input_size=_size(window),
        output_rows=logits.shape[0],
        outputs=logits.shape[1],
        target_length=program.target_length or 0,
        input_scale=_float(window.scale),
        slab_count=len(plan.slabs),
        step_count=len(program.steps),
    )


def geometry(step: Step, tensor: Tensor) -> tuple[int, int, int]:
    """How the output of a step lies in memory: rows, bytes of a row, and bytes from one row to the next."""
    row = tensor.shape[-1] * np.dtype(tensor.dtype).itemsize
    padded = isinstance(step, Linear) and step.layout == "transposed"
    return int(np.prod(tensor.shape[:-1])), row, round_up(row, 4) if padded else row


def _title(program: Program) -> str:
    rows, outputs = program.tensors["logits"].shape
    task = f"{outputs} classes"
    if program.target_length is not None:
        task = f"{rows} rows of {outputs} outputs, interpolated to {program.target_length} frames"
    return f"{_NAME}: {program.channels} channels x {program.samples} samples -> {task}."


def _memory_map(program: Program, plan: Plan) -> Iterable[str]:
    places = [(buffer, address(name), _shape(program.tensors[name])) for name, buffer in plan.tensors.items()]
    places += [(slab.buffer, parameters(name), "parameters") for name, slab in plan.slabs.items()]
    places.sort(key=lambda place: (place[0].first, place[0].offset))
    width = max(len(name) for _, name, _ in places)
    for buffer, name, what in places:
        definition = f"{name:{width}s} = {buffer.offset},"
        yield f"{definition:{width + 12}s}/* {buffer.size} bytes, steps {buffer.first}-{buffer.last}: {what} */"


def _step(program: Program, plan: Plan, step: Step) -> str:
    comment = "\n * ".join(comment_of(program, plan, step))
    definition = f"static const {structure_of(step)}_step_t {identifier(step.name)} = {{"
    return "\n".join((f"/* {comment} */", definition, *_fields(fields_of(program, plan, step)), "};"))


def _fields(fields: Fields, indent: str = "    ") -> Iterable[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield f"{indent}.{name} = {{"
            yield from _fields(value, indent + "    ")
            yield f"{indent}}},"
        else:
            value = f"{{{', '.join(map(str, value))}}}" if isinstance(value, tuple) else value
            yield f"{indent}.{name} = {value},"


def _slabs(plan: Plan) -> Iterable[str]:
    for name, slab in plan.slabs.items():
        buffer = slab.buffer
        yield f"{{.l3 = {slab.l3}, .l2 = {parameters(name)}, .size = {buffer.size}, .issued_at = {buffer.first}}},"


def _table(program: Program, plan: Plan) -> Iterable[str]:
    numbers = {name: i for i, name in enumerate(plan.slabs)}
    for i, step in enumerate(program.steps):
        rows, row_bytes, stride = geometry(step, program.tensors[step.output])
        yield f"/* {i} */"
        yield f"{{.name = {_string(step.name)}, .run = run_{structure_of(step)}, .step = &{identifier(step.name)},"
        yield f" .slab = {numbers.get(step.name, -1)}, .output = {address(step.output)},"
        yield f" .rows = {rows}, .row_bytes = {row_bytes}, .stride = {stride}}},"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join("    " + line for line in lines)


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _size(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


def _float(value: float) -> str:
    """A C literal that is read back as exactly this float32."""
    return f"{np.float32(value)!s}f"


def _string(text: str) -> str:
    """A C literal; whatever is not plain ASCII as octal escapes, which end after three digits."""
    plain = set(string.ascii_letters + string.digits + " _-.,:;+*/()[]<>=!#&%$@^|~'{}")
    escaped = (chr(byte) if chr(byte) in plain else f"\\{byte:03o}" for byte in text.encode("utf-8"))
    return f'"{"".join(escaped)}"'
