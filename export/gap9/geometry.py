"""Sizes that follow from a program alone, before anything is planned."""

from __future__ import annotations

import math

import numpy as np

from export.int8.program import Attention, Linear, PatchEmbedding, Program, Step

CHANNEL_BYTES = 12
"""Of `channel_t`: bias, multiplier and shift of one output."""


def round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def tensor_bytes(program: Program, name: str) -> int:
    """Bytes of a tensor in L2. Rows of values (what a "transposed" linear layer writes) are whole words."""
    tensor = program.tensors[name]
    *outer, last = tensor.shape
    if any(isinstance(step, Linear) and step.layout == "transposed" and step.output == name for step in program.steps):
        last = round_up(last, 4)
    return math.prod(outer) * last * np.dtype(tensor.dtype).itemsize


def rows_of(program: Program, step: Step) -> int:
    """Rows of the input as the step sees it: tokens, or those of the head."""
    return program.tokens if isinstance(step, PatchEmbedding) else program.tensors[step.input].shape[0]


def tensors_of(step: Step) -> tuple[str, ...]:
    """Names of all tensors that a step reads or writes."""
    values = (step.values,) if isinstance(step, Attention) else ()
    return (step.input, *values, step.output)
