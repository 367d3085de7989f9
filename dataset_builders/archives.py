"""A corpus as a directory, an archive or a directory of archives: safe, atomic, once-only extraction."""

import contextlib
import hashlib
import itertools
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import datasets
from filelock import FileLock

from .errors import ArchiveError, DataError, LayoutError

ARCHIVE_KINDS = "zip, tar, tar.gz, tar.xz or tar.bz2"
ARCHIVE_NAME = re.compile(r"(?P<stem>.+?)\.(zip|tar|tar\.gz|tgz|tar\.xz|txz|tar\.bz2|tbz2?)", re.IGNORECASE)
UNREADABLE_NAME = re.compile(r".+\.(rar|7z)", re.IGNORECASE)
_READ_ERRORS = (  # what the libraries raise on damaged archives
    EOFError,
    OSError,
    IndexError,
    ValueError,
    OverflowError,
    RuntimeError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
)
_COPY_BYTES = 1 << 20


def open_source(data_dir: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> Path:
    """The directory with a corpus, with its archives extracted.

    An archive is extracted once, into a folder of the cache named after its name, size and modification time; the
    folder appears only when it is complete. A directory that holds archives (s1.zip, s2.zip, ..., or one tar beside a
    metadata.csv) becomes a folder of the cache that has, in place of each archive, a folder with its content, and
    links to all other files. Archives in an archive are extracted likewise, one level deep; archives whose content
    already lies beside them are left out.

    Args:
        data_dir: a directory, or a zip, tar, tar.gz, tar.xz or tar.bz2 file.
        cache_dir: where to extract (default: "extracted_emg" in the cache folder of `datasets`).

    Raises:
        ArchiveError: nothing there, an empty or damaged file, another kind of file, an unsafe member, a full disk.
    """
    path = Path(data_dir).expanduser()
    cache = Path(cache_dir) if cache_dir else Path(datasets.config.HF_DATASETS_CACHE) / "extracted_emg"
    if path.is_dir():
        return _without_archives(path, cache, nesting=2)
    if not path.exists():
        raise ArchiveError(f"{path} does not exist: give the folder of the corpus, or its archive ({ARCHIVE_KINDS})")
    return _without_archives(_extracted(path, cache), cache, nesting=1)


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
    unread = [path.name for path in directory.rglob("*") if UNREADABLE_NAME.fullmatch(path.name)]
    hint = f". Unpack {', '.join(sorted(unread)[:5])} yourself first" if unread else ""
    raise LayoutError(f"{directory} does not hold the corpus: expected {layout}{hint}")


def _extracted(archive: Path, cache: Path) -> Path:
    """The folder of the cache with the content of an archive."""
    status = archive.stat()
    if status.st_size == 0:
        raise ArchiveError(f"{archive} is empty (0 bytes): download it again")
    target = _cache_folder(cache, archive.name, f"{archive.name}|{status.st_size}|{status.st_mtime_ns}")
    with _made_once(target) as missing:
        if missing:
            _extract_atomically(archive, target)
    return target


def _without_archives(folder: Path, cache: Path, nesting: int) -> Path:
    """`folder` itself if it holds no archives, else a folder of the cache with their content in their place."""
    archives = [] if nesting == 0 else [path for path in _visible_files(folder) if ARCHIVE_NAME.fullmatch(path.name)]
    archives = [archive for archive in archives if not _is_unpacked(archive)]
    if not archives:
        return folder
    contents = {}
    for archive in datasets.utils.tqdm(archives, unit=" archives", desc=f"Extracting {folder.name}", leave=False):
        contents[archive] = _without_archives(_extracted(archive, cache), cache, nesting - 1)
    sources = "|".join(map(str, (folder.resolve(), source_fingerprint(folder), *contents.values())))
    target = _cache_folder(cache, folder.name, sources)
    with _made_once(target) as missing:
        if missing:
            with _made_atomically(target) as partial, _translated_errors(folder):
                _link_files(folder, partial, contents)
    return target


def _link_files(folder: Path, view: Path, contents: dict[Path, Path]) -> None:
    """Fill `view` with links to the files of `folder`, and for each archive to those of the folder with its content.

    Only files are links, and folders are folders: `Path.rglob` does not enter folders that are links.
    """
    taken = {path.relative_to(folder) for path in folder.rglob("*")}
    linked_folders = [path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()]
    for path in (*_visible_files(folder), *linked_folders):
        if path not in contents:
            _link(path, view / path.relative_to(folder))
    for archive, content in contents.items():
        place = archive.relative_to(folder)
        stem = place.with_name(ARCHIVE_NAME.fullmatch(place.name)["stem"])
        place = stem if stem not in taken else place
        taken.add(place)
        for path in _visible_files(content):
            _link(path, view / place / path.relative_to(content))


def _link(path: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(path.absolute())


def _is_unpacked(archive: Path) -> bool:
    """Whether the files of an archive lie beside it (of a tar, which has no table of contents, the first file does)."""
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as bundle:
                files = [(info.filename, info.file_size) for info in bundle.infolist() if not info.is_dir()]
        else:
            with tarfile.open(archive, "r:*") as bundle:
                members = (member for member in bundle if member.isfile())
                files = [(member.name, member.size) for member in itertools.islice(members, 1)]
    except _READ_ERRORS:  # extraction will tell
        return False
    stem = ARCHIVE_NAME.fullmatch(archive.name)["stem"]
    return bool(files) and any(
        all((place / name).is_file() and (place / name).stat().st_size == size for name, size in files)
        for place in (archive.parent, archive.parent / stem)
    )


def _visible_files(folder: Path) -> list[Path]:
    """The files in and below `folder` in a fixed order, without hidden ones, which systems and programs leave."""
    files = (path for path in folder.rglob("*") if path.is_file())
    hidden = (".", "__MACOSX")
    return sorted(p for p in files if not any(part.startswith(hidden) for part in p.relative_to(folder).parts))


def _cache_folder(cache: Path, name: str, sources: str) -> Path:
    key = hashlib.sha256(sources.encode()).hexdigest()[:16]
    return cache / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{key}"


@contextlib.contextmanager
def _made_once(target: Path) -> Iterator[bool]:
    """Whether `target` is still to be made, one process at a time."""
    if target.is_dir():
        yield False
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        yield not target.is_dir()


def _extract_atomically(archive: Path, target: Path) -> None:
    with _made_atomically(target) as partial:
        with _translated_errors(archive):
            members = _zip_members(archive) if _is_zip(archive) else _tar_members(archive)
            count = sum(_write_member(partial / name, stream, is_dir) for name, stream, is_dir in members)
        if count == 0:
            raise ArchiveError(f"{archive} contains no file: download it again")


@contextlib.contextmanager
def _made_atomically(target: Path) -> Iterator[Path]:
    """A neighbouring folder to fill, renamed at the end: `target` is complete or absent."""
    prefix = f"{target.name}.incomplete-"
    for left_over in target.parent.glob(f"{prefix}*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _translated_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
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


def _is_zip(archive: Path) -> bool:
    """Whether the file starts as a zip does (`zipfile.is_zipfile` also takes a tar whose last member is a zip)."""
    with open(archive, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


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

    Where the corpus lies does not matter; its contents are not read, and hidden files do not count.
    """
    path = Path(data_dir).expanduser()
    if not path.exists():
        raise ArchiveError(f"{path} does not exist: give the folder of the corpus, or its archive ({ARCHIVE_KINDS})")
    files = _visible_files(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        relative = file.relative_to(path) if path.is_dir() else file.name
        digest.update(f"{relative}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
