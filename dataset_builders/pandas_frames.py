"""Tables that pandas wrote into HDF5 files ("fixed" format of `HDFStore`), read without pandas' own reader.

That reader needs PyTables and unpickles columns of text, which would run whatever code a file contains. Here the
pickled bytes are only walked through: strings, numbers, lists and tuples are collected, and nothing is imported or
called.
"""

import pickletools
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import RecordingError
from .hdf5_files import check_dataset

_AGAIN = "download the file again"
_ROW_OF_BYTES = h5py.h5t.vlen_create(h5py.h5t.STD_U8LE)

_MARK = object()
_VALUES = (
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "GLOBAL"),
    *("BINSTRING", "SHORT_BINSTRING", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Made:
    """Stands for an object that unpickling would make; keeps the state it would get."""

    state: Any = None


def read_frame(group: h5py.Group, where: str) -> dict[str, np.ndarray]:
    """The columns of a table, each (rows,): numbers as stored, text as an array of objects.

    Args:
        group: as `DataFrame.to_hdf` writes it: `axis0`, `axis1`, and pairs of `blockN_items` and `blockN_values`.
        where: file and table, for messages.

    Raises:
        RecordingError: the group is not laid out so, or its content is damaged.
    """
    columns: dict[str, np.ndarray] = {}
    blocks = 0
    while f"block{blocks}_items" in group:
        items = group[f"block{blocks}_items"]
        check_dataset(items, f"{where}/block{blocks}_items")
        names = [str(name, "utf-8", "replace") for name in items[()].ravel().astype(bytes)]
        values = _block_values(group[f"block{blocks}_values"], len(names), f"{where}/block{blocks}_values")
        if values.shape[1:] != (len(names),):
            raise RecordingError(f"{where}: {len(names)} columns named for values of shape {values.shape}; {_AGAIN}")
        columns |= dict(zip(names, values.T, strict=True))
        blocks += 1
    if not blocks:
        raise RecordingError(f"{where} is no table of pandas (fixed format: no block0_items); {_AGAIN}")
    if len({len(column) for column in columns.values()}) > 1:
        raise RecordingError(f"{where}: its columns differ in length; {_AGAIN}")
    return columns


def _block_values(dataset: h5py.Dataset, columns: int, where: str) -> np.ndarray:
    """Values (rows, columns) of one block; text is a pickled array, stored as bytes in a row of its own."""
    if "shape" in dataset.attrs:  # pandas' mark of a table without rows, which HDF5 files could not hold once
        return np.empty((0, columns), object)
    check_dataset(dataset, where)
    if dataset.dtype.kind in "iufS":
        return dataset[()]
    # in encoded form, as the library crashes over bits that its own comparison of types passes over
    if dataset.id.get_type().encode() != _ROW_OF_BYTES.encode() or dataset.shape != (1,):
        raise RecordingError(f"{where}: neither numbers nor pickled text ({dataset.dtype}, {dataset.shape}); {_AGAIN}")
    if dataset.chunks:
        chunk = dataset.id.get_chunk_info(0)
        if chunk.byte_offset + chunk.size > Path(dataset.file.filename).stat().st_size:
            raise RecordingError(f"{where}: its values would lie beyond the end of the file; {_AGAIN}")
    return unpickled_array(np.asarray(dataset[0]).tobytes(), where)


def unpickled_array(data: bytes, where: str) -> np.ndarray:
    """The array of objects in a pickle of one, its items strings, numbers or None, without running the pickle.

    Raises:
        RecordingError: the bytes are something else, or damaged.
    """
    try:
        made = _walk(data)
        _, shape, _, _, items = made.state
        values = np.empty(len(items), object)
        values[:] = [item if isinstance(item, str | int | float | None) else _no_item(item) for item in items]
        return values.reshape(tuple(shape))  # items come row by row whatever the order in memory
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise RecordingError(f"{where} is not a pickled array of text ({error}); {_AGAIN}") from error


def _no_item(item: object) -> None:
    raise ValueError(f"an item is a {type(item).__name__}")


def _walk(data: bytes) -> Any:
    """What the pickle describes, with `_Made` in place of every object that unpickling would construct."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _SIZES:
            stack.append(tuple(_pop(stack, _SIZES[name])))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("MARK", "EMPTY_LIST"):
            stack.append(_MARK if name == "MARK" else [])
        elif name in ("TUPLE", "APPENDS"):
            items = _pop_to_mark(stack)
            stack.append(tuple(items)) if name == "TUPLE" else stack[-1].extend(items)
        elif name in ("APPEND", "BUILD"):
            (item,) = _pop(stack, 1)
            if name == "APPEND":
                stack[-1].append(item)
            else:
                stack[-1].state = item
        elif name in ("REDUCE", "STACK_GLOBAL"):
            _pop(stack, 2)
            stack.append(_Made())
        elif name == "STOP":
            (result,) = stack
            return result
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"unexpected {name}")
    raise ValueError("no end")


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("items are missing")
    items = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return items


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    at = max(i for i, item in enumerate(stack) if item is _MARK)
    items = stack[at + 1 :]
    del stack[at:]
    return items
