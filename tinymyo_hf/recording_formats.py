"""What the binary formats of recordings hold, as named numpy arrays; `tinymyo_hf.recordings` gives them a meaning.

Nothing here loads pickled objects. A reader raises whatever its library raises; the caller turns that into one error.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from tinymyo_hf.mat_format import parse_mat

Variables = dict[str, np.ndarray]

RAW_TYPES = {"int8": "i1", "int16": "<i2", "int32": "<i4", "float32": "<f4", "float64": "<f8"}
"""Types of the numbers in headerless binary files, all little-endian."""

MAX_RATIO = 2000
"""No compression of hdf5 stores numbers in so few bytes: a dataset that claims to is damaged and would fill memory."""


def read_npy(path: Path) -> Variables:
    """The one array of the file under the name "array", or its fields if it is structured."""
    variables: Variables = {}
    _collect(variables, "array", np.load(path, allow_pickle=False))
    return variables


def read_npz(path: Path) -> Variables:
    """Every numeric array of the archive."""
    variables: Variables = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                _collect(variables, name, archive[name])
            except ValueError as error:
                if "allow_pickle" not in str(error):  # a member of Python objects is passed over, damage is not
                    raise
    return variables


def read_mat(path: Path, names: Collection[str] | None = None) -> Variables:
    """Numeric variables of a MATLAB file of version 5 or later; members of structs are named "struct/member".

    Given `names`, other variables are passed over unread.
    """
    content = path.read_bytes()
    if content.startswith(b"MATLAB 7.3"):  # HDF5 with the axes of every array reversed
        return {name: array.T for name, array in read_hdf5(path, names).items()}
    return parse_mat(content, names)


def read_hdf5(path: Path, names: Collection[str] | None = None) -> Variables:
    """Numeric datasets by their path, fields of compound ones as "dataset/field", and scalar attributes likewise.

    Given `names`, other datasets are passed over unread.
    """
    import h5py

    variables: Variables = {}
    size = path.stat().st_size

    def visit(name: str, item: Any) -> None:
        if names is not None and name not in names:
            return
        for attribute, value in item.attrs.items():
            if np.size(value) == 1:
                _collect(variables, f"{name}/{attribute}".lstrip("/"), value)
        # MATLAB keeps texts as numbers; "#refs#" are the bodies of its cells.
        if isinstance(item, h5py.Dataset) and item.attrs.get("MATLAB_class") != b"char" and not name.startswith("#"):
            if item.shape is not None and item.nbytes > MAX_RATIO * size:
                raise ValueError(f"{name} claims {item.nbytes} bytes in a file of {size}")
            _collect(variables, name, item[()])

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)  # does not follow soft or external links: nothing outside the file is read
    return variables


def read_parquet(path: Path) -> tuple[Variables, float | None]:
    """Columns by name (object arrays where they are not numbers), and the schema's `sampling_rate` entry if any."""
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path).read()
    rate = (table.schema.metadata or {}).get(b"sampling_rate")
    columns = {name: table.column(i).to_numpy() for i, name in enumerate(table.column_names)}
    return columns, None if rate is None else float(rate)


def read_raw(path: Path, raw_type: str) -> np.ndarray:
    """The numbers of a headerless file, as far as they are whole; `raw_type` is one of `RAW_TYPES`."""
    return np.fromfile(path, RAW_TYPES[raw_type])


ARRAY_READERS: dict[str, Callable[[Path], Variables]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}


def _collect(variables: Variables, name: str, value: Any) -> None:
    """Add `value`, or the fields it is made of, to `variables` where it is numeric."""
    array = np.asarray(value)
    if array.dtype.names:
        for field in array.dtype.names:
            _collect(variables, f"{name}/{field}", array[field])
    elif array.dtype.kind in "fiub":
        variables[name] = array
