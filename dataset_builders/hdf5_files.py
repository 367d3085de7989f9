"""HDF5 files of recordings: whatever is wrong with one becomes an error that names file, dataset, field and fix.

The library that reads HDF5 trusts a file further than a damaged one deserves: it loops for ever over a damaged heap of
texts, crashes while converting numbers of a damaged type, fills missing chunks with zeros, and reads other files of the
disk where a dataset says so. These are refused before it comes to that. A changed value in uncompressed samples shows
nowhere.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from .errors import DataError, RecordingError

Fields = Mapping[str, tuple[str, tuple[int, ...]]]
"""Fields of a compound dataset: kinds of number allowed ("f", "iu", ..., as `numpy.dtype.kind`) and shape of a row."""

BLOCK_BYTES = 16 << 20
DEFLATE_LIMIT = 1100
"""No file holds more bytes than this per byte of its own: deflate shrinks zeros 1032 times at most."""

_HEAP = b"GCOL\x01\0\0\0"
_AGAIN = "download the file again, or leave it out"


@contextlib.contextmanager
def open_group(path: Path | str, group: str = "/") -> Iterator[h5py.Group]:
    """A group of an HDF5 file, for reading.

    Errors of the library raised within the `with` block become `RecordingError` too.

    Raises:
        RecordingError: the file is missing, damaged or not HDF5, or has no such group.
    """
    try:
        _check_heaps(Path(path))
        with h5py.File(path, "r") as file:
            if outside := file.visititems_links(
                lambda name, link: name if isinstance(link, h5py.ExternalLink) else None
            ):
                raise RecordingError(f"{path}: {outside!r} lies in another file; copy it into this one")
            found = file.get(group)
            if not isinstance(found, h5py.Group):
                raise RecordingError(
                    f"{path}: no group {group!r} (found: {_names(file)}); is it a file of this corpus?"
                )
            yield found
    except DataError:
        raise
    except Exception as error:  # which of a dozen types the library raises depends on the byte that is wrong
        reason = str(error) or type(error).__name__
        raise RecordingError(f"{path}: cannot be read as HDF5 ({reason}): {_AGAIN}") from error


def read_fields(path: Path | str, group: str, dataset: str, fields: Fields) -> dict[str, np.ndarray]:
    """Fields of a compound dataset, each (rows, *shape) in the type stored; other fields of the dataset are ignored.

    Needs the memory of the result and `BLOCK_BYTES`.

    Raises:
        RecordingError: as `open_group`; or dataset or field are missing, of other type or shape, or incomplete.
    """
    with open_group(path, group) as opened:
        source = opened.get(dataset)
        where = f"{path}, dataset {group.rstrip('/')}/{dataset}"
        if not isinstance(source, h5py.Dataset):
            raise RecordingError(f"{where}: there is none (found: {_names(opened)}); is it a file of this corpus?")
        check_dataset(source, where)
        _check_type(source, fields, where)
        result = {name: np.empty((len(source), *shape), source.dtype[name].base) for name, (_, shape) in fields.items()}
        rows = max(1, BLOCK_BYTES // source.dtype.itemsize)
        if source.chunks:
            rows = -(-rows // source.chunks[0]) * source.chunks[0]
        for start in range(0, len(source), rows):
            block = source[start : start + rows]
            for name, values in result.items():
                values[start : start + rows] = block[name]
    return result


def check_dataset(dataset: h5py.Dataset, where: str) -> None:
    """Refuse a dataset that is not wholly in its file.

    Args:
        dataset: any dataset that is about to be read.
        where: file and dataset, for messages.

    Raises:
        RecordingError: values lie in other files, chunks are missing, or its size or type is impossible.
    """
    if dataset.is_virtual or dataset.external:
        raise RecordingError(f"{where}: its values lie in other files; copy them into this one")
    if dataset.nbytes > DEFLATE_LIMIT * Path(dataset.file.filename).stat().st_size:
        raise RecordingError(f"{where}: shape {dataset.shape} is more than the file can hold: {_AGAIN}")
    # the library converts numbers whose type in the file is not numpy's, and trusts a damaged type while it does
    if dataset.dtype.kind in "iufV" and not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)):
        raise RecordingError(f"{where}: its numbers are of a type that no computer uses: {_AGAIN}")
    if dataset.chunks:
        expected = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)], dtype=object))
        if (present := dataset.id.get_num_chunks()) != expected:
            raise RecordingError(f"{where}: {present} of its {expected} chunks are there: {_AGAIN}")
    elif dataset.id.get_storage_size() < dataset.nbytes:
        stored = dataset.id.get_storage_size()
        raise RecordingError(f"{where}: {stored} of its {dataset.nbytes} bytes are there: {_AGAIN}")


def check_timestamps(times: np.ndarray, sampling_rate: float, path: Path | str, tolerance: float = 0.5) -> int:
    """The number of gaps in the times of samples.

    Args:
        times: seconds, (samples,).
        sampling_rate: Hz.
        path: file, for messages.
        tolerance: in samples: a gap is where a step is longer than 1 + `tolerance` sample periods.

    Raises:
        RecordingError: a time is no number, or earlier than the one before.
    """
    missing = np.flatnonzero(~np.isfinite(times))
    if missing.size:
        raise RecordingError(f"{path}, field 'time', sample {missing[0]}: {times[missing[0]]} is no time; {_AGAIN}")
    steps = np.diff(times)
    back = np.flatnonzero(steps < 0)
    if back.size:
        first = int(back[0]) + 1
        raise RecordingError(
            f"{path}, field 'time', sample {first}: {float(times[first])} s comes after {float(times[first - 1])} s; "
            f"times must not go back: {_AGAIN}"
        )
    return int(np.count_nonzero(steps * sampling_rate > 1 + tolerance))


def _check_type(dataset: h5py.Dataset, fields: Fields, where: str) -> None:
    present = dataset.dtype.names or ()
    if dataset.ndim != 1:
        raise RecordingError(f"{where}: its shape is {dataset.shape} where a table has one axis, time: {_AGAIN}")
    for name, (kinds, shape) in fields.items():
        if name not in present:
            raise RecordingError(f"{where}: no field {name!r} (found: {', '.join(present) or 'none'}): {_AGAIN}")
        kind = dataset.dtype[name]
        if kind.base.kind not in kinds or kind.shape != shape:
            raise RecordingError(
                f"{where}, field {name!r}: {kind.base} {kind.shape} in a row where {_KINDS[kinds[0]]} {shape} are "
                f"expected; is it a file of this corpus?"
            )


_KINDS = {"f": "floating-point numbers", "i": "whole numbers", "u": "whole numbers", "S": "texts", "O": "texts"}


def _names(group: h5py.Group) -> str:
    return ", ".join(list(group)[:10]) or "nothing"


def _check_heaps(path: Path) -> None:
    """Walk the heaps of texts of variable length: the library hangs where a length is zero, or so large that it wraps.

    Layout: HDF5 file format, III.E "Disk Format: Level 1E - Global Heap": signature, version, three zeros, size (8
    bytes); then objects of index (2), count (2), four zeros, size (8) and data padded to 8 bytes; the index 0 stands
    for the free space, whose size includes its own 16 bytes.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise RecordingError(f"{path} is {'empty' if path.is_file() else 'missing'}: {_AGAIN}")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        heap = content.find(_HEAP)
        while 0 <= heap <= len(content) - 16:
            (size,) = struct.unpack_from("<Q", content, heap + 8)
            position, end = heap + 16, min(heap + size, len(content))
            while position + 16 <= end:
                index, length = struct.unpack_from("<H6xQ", content, position)
                length = length if index == 0 else 16 + (length + 7) // 8 * 8
                if not 0 < length <= end - position:
                    raise RecordingError(f"{path}: its heap of texts is damaged at byte {position}: {_AGAIN}")
                position += length
            heap = content.find(_HEAP, heap + len(_HEAP))
