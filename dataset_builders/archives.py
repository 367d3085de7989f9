"""A corpus as a directory or as an archive: safe, atomic, once-only extraction."""

import contextlib
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import datasets
from filelock import FileLock

from .errors import ArchiveError, LayoutError

ARCHIVE_KINDS = "zip, tar, tar.gz, tar.xz or tar.bz2"
_READ_ERRORS = (
    EOFError,
    OSError,
    NotImplementedError,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
)
_COPY_BYTES = 1 << 20


def open_source(data_dir: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> Path:
    """The directory with a corpus, extracting it first if `data_dir` is an archive.

    An archive is extracted once, into a folder of the cache named after its name, size and modification time; the
    folder appears only when it is complete.

    Args:
        data_dir: a directory, or a zip, tar, tar.gz, tar.xz or tar.bz2 file.
        cache_dir: where to extract (default: "extracted_emg" in the cache folder of `datasets`).

    Raises:
        ArchiveError: nothing there, an empty or damaged file, another kind of file, an unsafe member, a full disk.
    """
    path = Path(data_dir).expanduser()
    if path.is_dir():
        return path
    if not path.exists():
        raise ArchiveError(f"{path} does not exist: give the folder of the corpus, or its archive ({ARCHIVE_KINDS})")
    if path.stat().st_size == 0:
        raise ArchiveError(f"{path} is empty (0 bytes): download it again")
    root = Path(cache_dir) if cache_dir else Path(datasets.config.HF_DATASETS_CACHE) / "extracted_emg"
    status = path.stat()
    key = hashlib.sha256(f"{path.name}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = root / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', path.name)}-{key}"
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            _extract_atomically(path, target)
    return target


def find_root(directory: Path, is_root: Callable[[Path], bool], layout: str, max_depth: int = 3) -> Path:
    """The one folder in or below `directory` that `is_root` accepts: archives wrap corpora in folders of any name.

    Args:
        directory: where to start; the shallowest match wins.
        is_root: says whether a folder holds the corpus.
        layout: the layout expected, for the message.
        max_depth: how many levels down to look.
    """
    level = [directory]
    for _ in range(max_depth + 1):
        matches = [folder for folder in level if is_root(folder)]
        if len(matches) > 1:
            raise LayoutError(f"{directory} holds several corpora ({', '.join(map(str, matches))}): name one of them")
        if matches:
            return matches[0]
        level = [sub for folder in level for sub in sorted(folder.iterdir()) if sub.is_dir() and sub.name != "__MACOSX"]
    raise LayoutError(f"{directory} does not hold the corpus: expected {layout}")


def _extract_atomically(archive: Path, target: Path) -> None:
    """Extract into a neighbouring folder and rename it, so that `target` is complete or absent."""
    prefix = f"{target.name}.incomplete-"
    for left_over in target.parent.glob(f"{prefix}*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with _translated_errors(archive):
            members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
            count = sum(_write_member(partial / name, stream, is_dir) for name, stream, is_dir in members)
        if count == 0:
            raise ArchiveError(f"{archive} contains no file: download it again")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _translated_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except ArchiveError:
        raise
    except _READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ArchiveError(f"cannot extract {archive}: {error.strerror} ({error.filename or 'cache'})") from error
        raise ArchiveError(f"{archive} is truncated or corrupt ({error}): download it again") from error


def _write_member(path: Path, stream: IO[bytes] | None, is_dir: bool) -> int:
    """Write one member; returns how many files that made (0 or 1)."""
    if is_dir or stream is None:
        path.mkdir(parents=True, exist_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    # "x": a member that repeats an earlier name would overwrite it silently
    with stream, open(path, "xb") as out:
        shutil.copyfileobj(stream, out, _COPY_BYTES)
    return 1


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None, bool]]:
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            name = _safe_name(archive, info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(archive, info.filename, "is a link or a device")
            if info.flag_bits & 0x1:
                raise ArchiveError(f"{archive}: member {info.filename!r} is encrypted: unpack it yourself first")
            yield name, None if info.is_dir() else bundle.open(info), info.is_dir()


class _StrictTarInfo(tarfile.TarInfo):
    """Reports a damaged or missing header, where `TarFile` takes either for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _open_tar(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, "r:*", tarinfo=_StrictTarInfo)
    except tarfile.ReadError as error:
        if _looks_compressed(archive) or archive.name.lower().endswith((".tar", ".zip")):
            raise
        raise ArchiveError(f"{archive} is not an archive this reads: expected {ARCHIVE_KINDS}") from error


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None, bool]]:
    with _open_tar(archive) as bundle:
        for member in bundle:
            name = _safe_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise _unsafe(archive, member.name, "is a link or a device")
            yield name, None if member.isdir() else bundle.extractfile(member), member.isdir()
        # the checksum of a compressed file comes last, after what tarfile reads
        while bundle.fileobj.read(_COPY_BYTES):
            pass


def _looks_compressed(archive: Path) -> bool:
    """Whether the file starts with the signature of gzip, xz, bzip2 or zip."""
    with open(archive, "rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"PK"))


def _safe_name(archive: Path, name: str) -> str:
    """The member's relative path, refused if it could land outside the target folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts and name.strip("./") == "":
        return "."
    if parts[0] == "/" or ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or "\0" in name:
        raise _unsafe(archive, name, "points outside the archive")
    return str(PurePosixPath(*parts))


def _unsafe(archive: Path, member: str, why: str) -> ArchiveError:
    return ArchiveError(
        f"{archive}: member {member!r} {why}; nothing was extracted. Get the archive from its official source, "
        "or unpack it yourself and pass the folder"
    )


def source_fingerprint(data_dir: str | os.PathLike) -> str:
    """Hash of the names, sizes and modification times of a corpus: changes when a file is added, edited or removed.

    Where the corpus lies does not matter; its contents are not read.
    """
    path = Path(data_dir).expanduser()
    if not path.exists():
        raise ArchiveError(f"{path} does not exist: give the folder of the corpus, or its archive ({ARCHIVE_KINDS})")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        relative = file.relative_to(path) if path.is_dir() else file.name
        digest.update(f"{relative}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
