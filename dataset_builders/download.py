"""Files of a corpus from their official host: resumed, checked, retried.

    fetch([Download("https://zenodo.org/records/4421500/files/EMG-EPN612%20Dataset.zip", "epn612.zip")], "raw/epn612")

A file arrives as FILE.part and gets its name when it is whole and its checksum is right. What a broken connection or a
killed process left of it is continued, provided that the host says it still is the same file (its ETag or date, kept in
FILE.part.json) or that a checksum will tell.
"""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote

import datasets
import httpx2
from filelock import FileLock

from .errors import DownloadError
from .web import Broken, Patience, open_client, request, retry

if TYPE_CHECKING:
    from .base import EmgBuilder

__all__ = ["Download", "Patience", "download_corpus", "fetch", "zenodo_files"]

ZENODO = "https://zenodo.org"
LOCK = ".download.lock"
_ZENODO_FILE = re.compile(
    r"(?P<base>https?://[^/]+)/(?:api/)?records/(?P<record>\d+)/files/(?P<name>[^?]+?)(?:/content)?(?:\?.*)?"
)


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    Attributes:
        url: where it lies, http or https.
        file_name: what to call it here, relative to the folder; may have folders ("S1/S1_E1_A1.mat").
        md5, sha256: hex digests, as far as the host states them.
        size: bytes, where known.
    """

    url: str
    file_name: str
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class _State:
    """What the host said of the file of which FILE.part is the beginning."""

    url: str
    validator: str | None = None
    size: int | None = None


def download_corpus(
    builder_class: "type[EmgBuilder]", folder: str | os.PathLike, patience: Patience | None = None
) -> Path:
    """Fetch the official files of a corpus into `folder`; files already there and whole are left alone.

    Args:
        builder_class: says which files (`DOWNLOADS`), from which page (`HOMEPAGE`), in which layout (`LAYOUT`).
        folder: where to put them; use it as `data_dir`.
        patience: how long to try.

    Returns:
        The folder.

    Raises:
        DownloadError: the host does not give the files to programs, or a file could not be fetched.
    """
    name = builder_class.__name__
    if builder_class.LAYOUT is None:
        raise DownloadError(f"{name} is generated, there is nothing to download: leave out download")
    if not builder_class.DOWNLOADS:
        if not builder_class.HOMEPAGE:
            raise DownloadError(f"{name} has no files to download: give as data_dir {builder_class.LAYOUT}")
        raise DownloadError(
            f"{name} cannot be downloaded by a program. {_by_hand(builder_class.HOMEPAGE, builder_class.LAYOUT)}"
        )
    fetch(builder_class.DOWNLOADS, folder, builder_class.HOMEPAGE, builder_class.LAYOUT, patience)
    return Path(folder)


def fetch(
    downloads: Iterable[Download],
    folder: str | os.PathLike,
    page: str = "",
    layout: str = "",
    patience: Patience | None = None,
) -> list[Path]:
    """Fetch files into `folder`, one process at a time; others wait, and find the work done.

    MD5 and size of files in a Zenodo record are asked from Zenodo where no checksum is given.

    Args:
        downloads: what to fetch. A file that is there, with the size stated if one is, is left alone.
        folder: made if need be.
        page, layout: where the files can be got by hand and how to lay them out, for the messages.
        patience: how long to try.

    Returns:
        The files, in the order of `downloads`.

    Raises:
        DownloadError: naming the address, what happened, and how to go on.
    """
    downloads, folder, patience = tuple(downloads), Path(folder).expanduser(), patience or Patience()
    targets = [folder / _safe_name(download) for download in downloads]
    if all(map(_is_whole, downloads, targets)):  # also where the folder cannot be written to
        return targets
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK), open_client(patience) as client:
            stated = _with_zenodo_checksums(client, downloads, patience)
            todo = [pair for pair in zip(stated, targets, strict=True) if not _is_whole(*pair)]
            _check_space(folder, [(download, _part(target)) for download, target in todo])
            for download, target in todo:
                _fetch_file(client, download, target, patience)
    except DownloadError as error:
        raise DownloadError(f"{error}. {_by_hand(page, layout)}") from error.__cause__
    except OSError as error:
        raise DownloadError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder, or make it writable"
        ) from error
    return targets


def zenodo_files(record: str | int, base_url: str = ZENODO, patience: Patience | None = None) -> tuple[Download, ...]:
    """The files of a record on Zenodo (or another InvenioRDM host at `base_url`), with MD5 and size in bytes.

    Source: `GET /api/records/RECORD`, https://developers.zenodo.org/#records.
    """
    patience = patience or Patience()
    with open_client(patience) as client:
        return _zenodo_files(client, str(record), base_url, patience)


def _by_hand(page: str, layout: str) -> str:
    """How to do without the download."""
    source = f"To do it by hand, get the files from {page}" if page else "To do it by hand, get the files"
    return f"{source} and give as data_dir a folder with {layout or 'them'}"


# One file -------------------------------------------------------------------------------------------------------------


def _fetch_file(client: httpx2.Client, download: Download, target: Path, patience: Patience) -> None:
    """Try until `target` is whole, as long as the attempts bring something."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    with datasets.utils.tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=target.name) as bar:
        retry(download.url, patience, lambda: _attempt(client, download, part, bar), lambda: _size(part))
    os.replace(part, target)
    _state_file(part).unlink(missing_ok=True)


def _attempt(client: httpx2.Client, download: Download, part: Path, bar: datasets.utils.tqdm) -> None:
    """One request for what is missing of `part`; afterwards it is whole and right, or an error is raised."""
    continued = _size(part) > 0
    total = _total(download, part)
    if total is None or _size(part) != total:
        continued = _receive(client, download, part, bar)
        total = _total(download, part)
    size = _size(part)
    if total is not None and size < total:
        raise Broken(f"the connection ended after {size} of {total} bytes")
    problem = f"{size} bytes came where {total} are stated" if total not in (None, size) else None
    problem = problem or _wrong_checksum(download, part)
    if problem:
        _discard(part)
        if continued:  # the host may have changed the file between the parts
            raise Broken(f"{problem}; starting over")
        raise DownloadError(
            f"{download.url}: {problem}: the file was changed at its source or replaced on the way; nothing is kept"
        )


def _receive(client: httpx2.Client, download: Download, part: Path, bar: datasets.utils.tqdm) -> bool:
    """Append what the host sends, or start over; returns whether `part` was continued."""
    have, state = _size(part), _state(download, part)
    headers = {"Accept-Encoding": "identity"}  # positions in a compressed answer are others
    if have and (state.validator or download.md5 or download.sha256):
        headers["Range"] = f"bytes={have}-"
        if state.validator:
            headers["If-Range"] = state.validator
    with request(client, download.url, headers) as response:
        continued = response.status_code == 206 and _continues(response, have, state)
        if response.status_code != 200 and not continued:
            _discard(part)
            raise Broken(f"the host does not go on from byte {have}; starting over")
        _refuse_page(response, download)
        if not continued:
            _refuse_other_size(download, _write_state(download, part, response))
        _check_space(part.parent, [(download, part)])
        bar.reset(total=_total(download, part))
        bar.update(_size(part))
        with open(part, "ab") as file:
            for chunk in response.iter_raw():  # as it comes: a larger chunk would be lost when the connection breaks
                _write(file, chunk, download, part)
                bar.update(len(chunk))
    return continued


def _write(file: BinaryIO, chunk: bytes, download: Download, part: Path) -> None:
    try:
        file.write(chunk)
        file.flush()  # a full disk shows here, not while closing
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DownloadError(
            f"{download.url}: the disk of {part.parent} is full; what has arrived is kept in "
            f"{part.name}: free some space and run the same command again, or choose another folder"
        ) from error


def _continues(response: httpx2.Response, have: int, state: _State) -> bool:
    """Whether a partial answer is the rest of the file that `state` describes; some hosts ignore If-Range."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("content-range", ""))
    if match is None or int(match[1]) != have or state.validator not in (None, _validator(response)):
        return False
    return match[3] == "*" or state.size in (None, int(match[3]))


def _validator(response: httpx2.Response) -> str | None:
    """What identifies this version of the file: a strong ETag, else the date; a weak ETag may stand for other bytes."""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified")


def _refuse_page(response: httpx2.Response, download: Download) -> None:
    """Hosts that want a login answer with a page and the status 200."""
    is_page = response.headers.get("content-type", "").lower().startswith("text/html")
    if is_page and not download.file_name.lower().endswith((".html", ".htm")):
        raise DownloadError(f"{download.url}: the host sends a web page instead of the file, as for a login")


def _refuse_other_size(download: Download, state: _State) -> None:
    if None not in (state.size, download.size) and state.size != download.size:
        raise DownloadError(
            f"{download.url}: the host announces {state.size} bytes where {download.size} are stated: the file was "
            "changed at its source"
        )


def _wrong_checksum(download: Download, part: Path) -> str | None:
    for kind in ("md5", "sha256"):
        expected = getattr(download, kind)
        if expected is None:
            continue
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected.lower():
            return f"its {kind.upper()} is {found} where {expected.lower()} is stated"
    return None


# What is on the disk --------------------------------------------------------------------------------------------------


def _is_whole(download: Download, target: Path) -> bool:
    # a name is given only to what has been checked; the size catches copies that were cut off elsewhere
    return target.is_file() and download.size in (None, target.stat().st_size)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _total(download: Download, part: Path) -> int | None:
    return download.size if download.size is not None else _state(download, part).size


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _state(download: Download, part: Path) -> _State:
    """What is known of the file of which `part` is the beginning; nothing if that is lost or of another address."""
    try:
        state = _State(**json.loads(_state_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _State(download.url)
    fits = state.url == download.url and isinstance(state.size, int | None)
    return state if fits else _State(download.url)


def _write_state(download: Download, part: Path, response: httpx2.Response) -> _State:
    part.unlink(missing_ok=True)  # it must never stand beside the state of another file
    length = response.headers.get("content-length", "")
    state = _State(download.url, _validator(response), int(length) if length.isdecimal() else None)
    _state_file(part).write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
    return state


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _check_space(folder: Path, todo: list[tuple[Download, Path]]) -> None:
    """Refuse before hours of work what cannot fit."""
    needed = sum(max(0, (_total(download, part) or 0) - _size(part)) for download, part in todo)
    free = shutil.disk_usage(folder).free
    if needed > free:
        more = f" and {len(todo) - 1} more files" if len(todo) > 1 else ""
        raise DownloadError(
            f"{todo[0][0].url}{more}: {needed / 1e9:.2f} GB are missing and the disk of {folder} has "
            f"{free / 1e9:.2f} GB free: free some space or choose another folder"
        )


def _safe_name(download: Download) -> Path:
    """The file's place in the folder; names come from hosts, too."""
    parts = PurePosixPath(download.file_name).parts
    if not parts or parts[0] == "/" or ".." in parts or any(c in download.file_name for c in "\\\0"):
        raise DownloadError(f"{download.url}: {download.file_name!r} is no file name within a folder")
    return Path(*parts)


# Zenodo ---------------------------------------------------------------------------------------------------------------


def _zenodo_files(client: httpx2.Client, record: str, base_url: str, patience: Patience) -> tuple[Download, ...]:
    url = f"{base_url}/api/records/{record}"

    def ask() -> bytes:
        with request(client, url, {"Accept": "application/json"}) as response:
            return response.read()

    answer = retry(url, patience, ask, lambda: 0)
    try:
        files = []
        for entry in json.loads(answer)["files"]:
            kind, _, digest = entry["checksum"].partition(":")
            checksum = {kind: digest} if kind in ("md5", "sha256") else {}
            files.append(Download(entry["links"]["self"], entry["key"], **checksum, size=int(entry["size"])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{url}: the answer is not a list of files ({type(error).__name__}: {error})") from error
    return tuple(files)


def _with_zenodo_checksums(
    client: httpx2.Client, downloads: tuple[Download, ...], patience: Patience
) -> tuple[Download, ...]:
    """Fill in checksum and size of files in Zenodo records that come without."""
    records: dict[tuple[str, str], dict[str, Download]] = {}
    result = []
    for download in downloads:
        match = _ZENODO_FILE.fullmatch(download.url)
        if match and not (download.md5 or download.sha256):
            key = (match["record"], match["base"])
            if key not in records:
                records[key] = {file.file_name: file for file in _zenodo_files(client, *key, patience)}
            listed = records[key].get(unquote(match["name"]))
            if listed is None:
                raise DownloadError(f"{download.url}: the record has no such file; it has {', '.join(records[key])}")
            download = dataclasses.replace(download, md5=listed.md5, sha256=listed.sha256, size=listed.size)
        result.append(download)
    return tuple(result)
