"""Reader of MATLAB's version 5 to 7 files (.mat), for numeric arrays and structs of them.

`scipy.io.loadmat` crashes the whole process on some damaged files; here every size is checked before it is used.
Source of the layout: "MAT-File Format", The MathWorks, chapter 1 (Level 5).
"""

import struct
import zlib
from collections.abc import Collection, Iterator

import numpy as np

HEADER_BYTES = 128
COMPRESSED, MATRIX = 15, 14
STRUCT_CLASS = 2
STORED_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
DEEPEST_STRUCT = 16
NAME_WITHIN_BYTES = 512  # of a compressed variable: where its name ends at the latest


def parse_mat(content: bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Real numeric variables by name, (rows, columns, ...); members of 1x1 structs as "struct/member".

    Texts, cells, sparse and complex arrays and arrays of structs are passed over, as are variables that are not in
    `names` if it is given. Raises ValueError on damage.
    """
    if len(content) < HEADER_BYTES or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB file of version 5 or later")
    order = "<" if content[126:128] == b"IM" else ">"
    variables: dict[str, np.ndarray] = {}
    try:
        for kind, data in _elements(memoryview(content)[HEADER_BYTES:], order):
            if kind == COMPRESSED:
                head = zlib.decompressobj().decompress(data, NAME_WITHIN_BYTES)
                if names is not None and _name(memoryview(head)[8:], order) not in names:
                    continue
                kind, data = next(_elements(memoryview(zlib.decompress(data)), order))
            if kind == MATRIX and (names is None or _name(data, order) in names):
                _add_matrix(variables, "", data, order, 0)
    except zlib.error as error:
        raise ValueError(f"a compressed variable is damaged: {error}") from error
    except (StopIteration, IndexError) as error:
        raise ValueError("a variable lacks one of its parts") from error
    return variables


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The (type, content) of the elements that lie one after the other in `data`."""
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError("the file ends within an element")
        kind, size = struct.unpack_from(order + "II", data, position)
        if kind >> 16:  # a small element: size and type in the first four bytes, content in the next four
            kind, size, start, padded = kind & 0xFFFF, kind >> 16, position + 4, 4
        else:
            start, padded = position + 8, size if kind == COMPRESSED else size + -size % 8
        if start + size > len(data) or size > padded:
            raise ValueError("the file ends within an element")
        yield kind, data[start : start + size]
        position = start + padded


def _name(data: memoryview, order: str) -> str:
    """The name of a matrix whose content starts with `data`."""
    parts = _elements(data, order)
    _flags, _shape, name = next(parts), next(parts), next(parts)
    return bytes(name[1]).decode("ascii", "replace")


def _add_matrix(variables: dict[str, np.ndarray], prefix: str, data: memoryview, order: str, depth: int) -> None:
    if len(data) == 0 or depth > DEEPEST_STRUCT:  # an empty member of a struct
        return
    parts = _elements(data, order)
    flags = int(_numbers(next(parts), order)[0])
    shape = tuple(int(n) for n in _numbers(next(parts), order))
    name = prefix + bytes(next(parts)[1]).decode("ascii", "replace")
    matrix_class, is_complex = flags & 0xFF, bool(flags & 0x0800)
    if matrix_class in NUMERIC_CLASSES and not is_complex:
        values = _numbers(next(parts), order)
        if min(shape) < 0 or int(np.prod(shape, dtype=object)) != values.size:
            raise ValueError(f"variable {name}: {values.size} values for shape {shape}")
        variables[name] = values.astype(NUMERIC_CLASSES[matrix_class]).reshape(shape, order="F")
    elif matrix_class == STRUCT_CLASS and all(n == 1 for n in shape):
        width = int(_numbers(next(parts), order)[0])
        if width <= 0:
            raise ValueError(f"struct {name}: field names of length {width}")
        text = bytes(next(parts)[1])
        for i in range(0, len(text), width):
            field = text[i : i + width].split(b"\0")[0].decode("ascii", "replace")
            kind, member = next(parts)
            if kind == MATRIX:
                _add_matrix(variables, f"{name}/{field}", member, order, depth + 1)


def _numbers(element: tuple[int, memoryview], order: str) -> np.ndarray:
    kind, data = element
    if kind not in STORED_TYPES:
        raise ValueError(f"type {kind} where numbers are expected")
    return np.frombuffer(data, dtype=order + STORED_TYPES[kind])
