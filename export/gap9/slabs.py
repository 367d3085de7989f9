"""Parameters of a step as bytes, in the order in which the kernels of `runtime/kernels.h` read them.

A slab is the sections of one step, one after the other, each from a multiple of 8 bytes. Numbers are little-endian.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from export.gap9.schedule import Region
from export.int8.fixed_point import exponentials
from export.int8.program import (
    Attention,
    DepthwiseConv,
    Head,
    LayerNorm,
    Linear,
    PatchEmbedding,
    Requant,
    Rotation,
    Step,
)

ALIGNMENT = 8
"""Every offset is a multiple of it, so that any number may be read with one access."""
WORD = 4
"""int8 values of one SIMD word, and outputs of one group of packed weights."""

Sections = dict[str, bytes]


def slab_sections(step: Step) -> Sections:
    """Parameters of a step by name of the section; empty where it has none.

    - "weights": of `Linear` int8, packed (`pack_weights`); of `PatchEmbedding` (outputs, patch_size) and `LayerNorm`
      (width,) int16; of `DepthwiseConv` (width, 3) and `Head` (outputs, depth) int8
    - "channels": records of int32 bias, multiplier and shift, one per output
    - "bias": of `LayerNorm` and `Head`, int32
    - "table": of an activation, 1024 of int8, or of int16 (`DepthwiseConv`)
    - "rotation": int16 (tokens, 2, head_size / 2), cosines before sines
    - "exponentials": of `Attention`, uint16 (256,)
    """
    build = _SECTIONS.get(type(step))
    return build(step) if build else {}


def layout(sections: Mapping[str, bytes]) -> dict[str, Region]:
    """Where each section lies in its slab."""
    regions: dict[str, Region] = {}
    offset = 0
    for name, data in sections.items():
        regions[name] = Region(offset, len(data))
        offset = aligned(offset + len(data))
    return regions


def slab_bytes(sections: Mapping[str, bytes]) -> bytes:
    """The slab, sections and the zeros between them, up to a multiple of 8 bytes."""
    return b"".join(data.ljust(aligned(len(data)), b"\0") for data in sections.values())


def aligned(size: int) -> int:
    """`size`, rounded up to a multiple of 8."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pack_weights(weight: np.ndarray) -> np.ndarray:
    """int8 (outputs, depth), both multiples of 4, -> (outputs / 4, depth / 4, 4 outputs, 4 k).

    The inner loop reads sixteen bytes in a row: for four k, the words of four outputs.
    """
    outputs, depth = weight.shape
    groups = weight.reshape(outputs // WORD, WORD, depth // WORD, WORD)
    return np.ascontiguousarray(groups.transpose(0, 2, 1, 3))


def _patch_embedding(step: PatchEmbedding) -> Sections:
    return {"weights": _bytes(step.weight, "<i2"), "channels": _channels(step.bias, step.requant)}


def _layer_norm(step: LayerNorm) -> Sections:
    return {"weights": _bytes(step.weight, "<i2"), "bias": _bytes(step.bias, "<i4")}


def _linear(step: Linear) -> Sections:
    sections = {
        "weights": _bytes(pack_weights(step.weight), "i1"),
        "channels": _channels(step.bias, step.requant),
    }
    if step.table is not None:
        sections["table"] = _bytes(step.table, "i1")
    if step.rotation is not None:
        sections["rotation"] = _rotation(step.rotation)
    return sections


def _rotation(rotation: Rotation) -> bytes:
    return _bytes(np.stack((rotation.cos, rotation.sin), axis=1), "<i2")


def _attention(step: Attention) -> Sections:
    return {"exponentials": _bytes(exponentials(), "<u2")}


def _depthwise(step: DepthwiseConv) -> Sections:
    return {
        "weights": _bytes(step.weight, "i1"),
        "channels": _channels(step.bias, step.requant),
        "table": _bytes(step.table, "<i2"),
    }


def _head(step: Head) -> Sections:
    return {"weights": _bytes(step.weight, "i1"), "bias": _bytes(step.bias, "<i4")}


_SECTIONS: dict[type[Step], Callable[..., Sections]] = {
    PatchEmbedding: _patch_embedding,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Attention: _attention,
    DepthwiseConv: _depthwise,
    Head: _head,
}


def _channels(bias: np.ndarray, requant: Requant) -> bytes:
    """channel_t: a ratio for all outputs is repeated for each."""
    columns = np.broadcast_arrays(bias, requant.multiplier, requant.shift)
    return _bytes(np.stack(columns, axis=1), "<i4")


def _bytes(array: np.ndarray, dtype: str) -> bytes:
    return np.ascontiguousarray(array).astype(dtype, casting="same_kind").tobytes()
