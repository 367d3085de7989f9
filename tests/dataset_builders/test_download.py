"""Downloads from a host that drops connections, lies about ranges, changes its files, or refuses."""

import errno
import hashlib
import http.server
import json
import multiprocessing
import os
import random
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate

import pytest

from dataset_builders import download as module
from dataset_builders.base import DataError, EmgBuilder, make_builder
from dataset_builders.download import Download, Patience, download_corpus, fetch, zenodo_files
from dataset_builders.errors import DownloadError

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
QUICK = Patience(tries=3, wait=0.001, timeout=2)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Answers:
    """What the host does: one entry per request, the last one for all further requests.

    Attributes:
        content: the file.
        etag, date: what identifies its version.
        cut: bytes after which the connection is dropped.
        status: instead of the file.
        ranges: whether Range is honoured.
        if_range: whether If-Range is honoured.
        length: whether Content-Length is sent.
        stall: what to wait for before the connection is closed.
    """

    content: bytes = CONTENT
    etag: str | None = '"v1"'
    date: str | None = None
    cut: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    length: bool = True
    stall: threading.Event | None = None


class Host(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: dict[str, list[Answers]] = {}
        self.requests: list[tuple[str, str | None, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    @property
    def ranges(self) -> list[str | None]:
        return [wanted for _, wanted, _ in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        host = self.server
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        host.requests.append((self.path, wanted, condition))
        answers = host.script[self.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.status:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, first = answer.content, 0
        same = condition is None or not answer.if_range or condition in (answer.etag, answer.date)
        if wanted and answer.ranges and same:
            first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if first >= len(content):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        for name, value in {"ETag": answer.etag, "Last-Modified": answer.date, **answer.headers}.items():
            if value:
                self.send_header(name, value)
        if answer.length:
            self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:] if answer.cut is None else content[first : first + answer.cut])
        if answer.stall:
            self.wfile.flush()
            answer.stall.wait(10)


@pytest.fixture
def host():
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def get(host, folder, *answers, patience=QUICK, **stated):
    """Fetch a.zip from a host that answers so; its content."""
    host.script["/a.zip"] = list(answers)
    download = Download(host.url("/a.zip"), "a.zip", **stated)
    (path,) = fetch([download], folder, "https://example.org/corpus", "folders 01 to 36", patience)
    assert path == folder / "a.zip"
    assert sorted(p.name for p in folder.iterdir()) == [".download.lock", "a.zip"], "left-overs"
    return path.read_bytes()


def refused(host, folder, *answers, **stated) -> str:
    """The message of a fetch that fails: it names address, page and layout, and no file gets the final name."""
    with pytest.raises(DownloadError) as caught:
        get(host, folder, *answers, **stated)
    message = str(caught.value)
    for part in (host.url("/a.zip"), "https://example.org/corpus", "folders 01 to 36"):
        assert part in message
    assert not (folder / "a.zip").exists() and isinstance(caught.value, DataError)
    return message


@pytest.mark.parametrize("stated", [{}, {"md5": MD5.upper(), "sha256": hashlib.sha256(CONTENT).hexdigest()}])
def test_fetches_once(host, tmp_path, stated):
    assert get(host, tmp_path / "new/folder", Answers(), size=len(CONTENT), **stated) == CONTENT
    assert get(host, tmp_path / "new/folder", Answers(status=404), size=len(CONTENT), **stated) == CONTENT
    assert host.ranges == [None]


def test_several_files_in_folders(host, tmp_path):
    names = ("s1/S1_E1.mat", "s1/S1_E2.mat", "s2.zip")
    for i, name in enumerate(names):
        host.script[f"/{i}"] = [Answers(content=name.encode())]
    paths = fetch([Download(host.url(f"/{i}"), name) for i, name in enumerate(names)], tmp_path)
    assert [path.read_text() for path in paths] == list(names) and paths[0] == tmp_path / "s1/S1_E1.mat"


def test_dropped_connections_are_resumed(host, tmp_path):
    answers = [Answers(cut=100_000), Answers(cut=50_000), Answers()]
    assert get(host, tmp_path, *answers) == CONTENT
    assert host.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert [condition for _, _, condition in host.requests] == [None, '"v1"', '"v1"']


def test_progress_renews_patience(host, tmp_path):
    assert get(host, tmp_path, *[Answers(cut=20_000)] * 14, Answers()) == CONTENT
    assert len(host.requests) == 15 > QUICK.tries


def test_a_later_run_goes_on(host, tmp_path):
    message = refused(host, tmp_path, Answers(cut=100_000), Answers(status=503))
    assert "503" in message and "3 times in a row" in message and "100000 bytes are kept" in message
    host.requests.clear()
    assert get(host, tmp_path, Answers()) == CONTENT and host.ranges == ["bytes=100000-"]


def test_a_killed_process_leaves_what_the_next_one_needs(host, tmp_path):
    stall = threading.Event()
    host.script["/a.zip"] = [Answers(cut=100_000, stall=stall), Answers()]
    downloads = [Download(host.url("/a.zip"), "a.zip", md5=MD5)]
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(downloads, tmp_path))
    process.start()
    part, deadline = tmp_path / "a.zip.part", time.monotonic() + 10
    while not (part.exists() and part.stat().st_size == 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    stall.set()
    fetch(downloads, tmp_path, patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and host.ranges == [None, "bytes=100000-"]


def test_a_whole_part_is_not_fetched_again(host, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert get(host, tmp_path, Answers(status=404), md5=MD5, size=len(CONTENT)) == CONTENT and not host.requests


def test_a_host_that_ignores_ranges(host, tmp_path):
    assert get(host, tmp_path, Answers(cut=100_000), Answers(ranges=False)) == CONTENT
    assert host.ranges == [None, "bytes=100000-"]


def test_a_host_that_never_gets_further(host, tmp_path):
    assert "ended" in refused(host, tmp_path, Answers(cut=1000, ranges=False, length=False), size=len(CONTENT))
    assert len(host.requests) == QUICK.tries


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("by", ["etag", "date"])
def test_the_file_changes_between_tries(host, tmp_path, if_range, by):
    marks = {"etag": ['"v1"', '"v2"'], "date": [formatdate(0, usegmt=True), formatdate(1e9, usegmt=True)]}[by]
    before, after = ({"etag": None} | {by: mark} for mark in marks)
    changed = Answers(OTHER, if_range=if_range, **after)
    assert get(host, tmp_path, Answers(cut=100_000, **before), changed) == OTHER
    assert host.ranges[1] == "bytes=100000-"


def test_without_a_mark_only_a_checksum_allows_to_resume(host, tmp_path):
    broken = Answers(etag=None, cut=100_000)
    assert get(host, tmp_path / "1", broken, Answers(OTHER, etag=None)) == OTHER
    assert host.ranges == [None, None]
    host.requests.clear()
    assert get(host, tmp_path / "2", broken, Answers(etag='W/"weak"'), md5=MD5) == CONTENT
    assert host.ranges == [None, "bytes=100000-"]
    # the two halves are of different files: the checksum tells, and it starts over
    md5 = hashlib.md5(OTHER).hexdigest()
    assert get(host, tmp_path / "3", broken, Answers(OTHER, etag=None), md5=md5) == OTHER


def test_a_smaller_file_than_the_part(host, tmp_path):
    small = OTHER[:1000]
    assert get(host, tmp_path, Answers(cut=100_000), Answers(small, if_range=False)) == small


def test_a_damaged_state_file_is_no_obstacle(host, tmp_path):
    for content in (b"", b"[1]", b'{"url": 1, "size": "x"}', b"\xff"):
        (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
        (tmp_path / "a.zip.part.json").write_bytes(content)
        assert get(host, tmp_path, Answers(OTHER)) == OTHER
        (tmp_path / "a.zip").unlink()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_hosts_are_asked_again(host, tmp_path, status):
    assert get(host, tmp_path, Answers(status=status), Answers(status=status), Answers()) == CONTENT


@pytest.mark.parametrize("answer", ["7", formatdate(4e9, usegmt=True), "soon"])
def test_the_host_says_how_long_to_wait(host, tmp_path, monkeypatch, answer):
    waits = []
    monkeypatch.setattr("dataset_builders.web.time.sleep", waits.append)
    get(host, tmp_path, Answers(status=429, headers={"Retry-After": answer}), Answers())
    assert waits == [{"7": 7.0, "soon": QUICK.wait}.get(answer, 300.0)]


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403"), (401, "401"), (410, "410")])
def test_refusals_are_final(host, tmp_path, status, words):
    assert words in refused(host, tmp_path, Answers(status=status))
    assert len(host.requests) == 1


def test_a_login_page_is_not_the_file(host, tmp_path):
    page = Answers(b"<html>please log in", headers={"Content-Type": "text/html; charset=utf-8"})
    assert "web page" in refused(host, tmp_path, page)


def test_redirects_are_followed(host, tmp_path):
    host.script["/b"] = [Answers()]
    assert get(host, tmp_path, Answers(status=302, headers={"Location": "/b"})) == CONTENT
    loop = Answers(status=302, headers={"Location": "/a.zip"})
    assert "redirect" in refused(host, tmp_path / "loop", loop)


def test_no_host(tmp_path, host):
    host.shutdown()
    host.server_close()
    assert "3 times in a row" in refused(host, tmp_path, Answers())
    for url in ("ftp://example.org/a", "nonsense", "http://[::1"):
        with pytest.raises(DownloadError, match=re.escape(url)):
            fetch([Download(url, "a")], tmp_path, patience=QUICK)


def test_wrong_checksum_and_size(host, tmp_path):
    sha256 = hashlib.sha256(OTHER).hexdigest()
    message = refused(host, tmp_path, Answers(), sha256=sha256)
    assert "SHA256" in message and sha256 in message and "nothing is kept" in message
    assert "MD5" in refused(host, tmp_path, Answers(), md5="0" * 32)
    assert "300000 bytes where 1000 are stated" in refused(host, tmp_path, Answers(), size=1000)
    assert "300000 bytes" in refused(host, tmp_path, Answers(length=False), size=1000)
    assert [p.name for p in tmp_path.iterdir()] == [".download.lock"]


def test_a_file_of_the_wrong_size_is_replaced(host, tmp_path):
    (tmp_path / "a.zip").write_bytes(CONTENT[:10])
    assert get(host, tmp_path, Answers(), size=len(CONTENT)) == CONTENT


def test_full_disk(host, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
        assert "0.00 GB free" in refused(host, tmp_path, Answers(), size=len(CONTENT))
        assert not host.requests, "known before anything is fetched"
    with monkeypatch.context() as patch:
        patch.setattr(module, "open", FullDisk(100_000), raising=False)
        message = refused(host, tmp_path, Answers())
        assert "is full" in message and "a.zip.part" in message
    kept = (tmp_path / "a.zip.part").stat().st_size
    assert 0 < kept <= 100_000
    host.requests.clear()
    assert get(host, tmp_path, Answers()) == CONTENT and host.ranges == [f"bytes={kept}-"]


class FullDisk:
    """`open` on a disk that holds so many bytes."""

    def __init__(self, capacity: int):
        self.free = capacity

    def __call__(self, path, mode):
        file = open(path, mode, buffering=0)  # noqa: SIM115
        if "a" in mode:
            write = file.write

            class Limited:
                def __enter__(limited):
                    return limited

                def __exit__(limited, *arguments):
                    file.close()

                def flush(limited):
                    pass

                def write(limited, data):
                    written = write(data[: self.free])
                    self.free -= written
                    if written < len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Limited()
        return file


def test_where_it_cannot_write(host, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot write to"):
        fetch([Download(host.url("/a.zip"), "a.zip")], tmp_path / "file")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-tinymyo", "a/../../evil", "..\\evil", "", "a\0b"])
def test_names_that_leave_the_folder(host, tmp_path, name):
    with pytest.raises(DownloadError, match="no file name within a folder"):
        fetch([Download(host.url("/a.zip"), name)], tmp_path / "folder")
    assert not host.requests and not (tmp_path / "evil").exists()


def test_two_at_once(host, tmp_path):
    host.script["/a.zip"] = [Answers(cut=1000)] * 3 + [Answers()]
    download, errors = Download(host.url("/a.zip"), "a.zip", md5=MD5), []

    def work():
        try:
            fetch([download], tmp_path, patience=QUICK)
        except DownloadError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and (tmp_path / "a.zip").read_bytes() == CONTENT and len(host.requests) == 4


# Zenodo


def record(host, *files: tuple[str, bytes]) -> None:
    """A record as Zenodo's API gives it."""
    entries = []
    for name, content in files:
        path = f"/records/7/files/{name.replace(' ', '%20')}"
        host.script[path] = [Answers(content)]
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        entries.append({"key": name, "size": len(content), "checksum": checksum, "links": {"self": host.url(path)}})
    host.script["/api/records/7"] = [Answers(json.dumps({"id": 7, "files": entries}).encode())]


def test_zenodo_states_checksums(host, tmp_path):
    record(host, ("EMG data.zip", CONTENT), ("notes.txt", b"read me"))
    listed = zenodo_files(7, host.url(""))
    url = host.url("/records/7/files/EMG%20data.zip")
    assert listed[0] == Download(url, "EMG data.zip", md5=MD5, size=len(CONTENT))
    assert [file.file_name for file in listed] == ["EMG data.zip", "notes.txt"]
    fetch([Download(f"{url}", "corpus.zip")], tmp_path, patience=QUICK)
    assert (tmp_path / "corpus.zip").read_bytes() == CONTENT
    host.script["/records/7/files/EMG%20data.zip"] = [Answers(OTHER)]
    with pytest.raises(DownloadError, match="MD5"):
        fetch([Download(url, "again.zip")], tmp_path, patience=QUICK)
    with pytest.raises(DownloadError, match="no such file; it has EMG data.zip, notes.txt"):
        fetch([Download(host.url("/records/7/files/other.zip"), "other.zip")], tmp_path, patience=QUICK)


def test_zenodo_is_asked_again(host):
    record(host, ("a", b"a"))
    host.script["/api/records/7"].insert(0, Answers(status=429))
    host.script["/api/records/7"].insert(1, Answers(b"{" * 1000, cut=10))
    assert len(zenodo_files("7", host.url(""), QUICK)) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"files": [1]}', b'{"files": [{"key": "a"}]}', b'{"files": 3}', b"\xff", b"nul"]
)
def test_zenodo_answers_nonsense(host, answer):
    host.script["/api/records/7"] = [Answers(answer)]
    with pytest.raises(DownloadError, match="not a list of files"):
        zenodo_files(7, host.url(""), QUICK)


# Corpora


def corpus(**attributes) -> type[EmgBuilder]:
    return type("Example", (EmgBuilder,), {"HOMEPAGE": "https://example.org", "LAYOUT": "s1.zip"} | attributes)


def test_download_corpus(host, tmp_path):
    host.script["/s1.zip"] = [Answers()]
    builder_class = corpus(DOWNLOADS=(Download(host.url("/s1.zip"), "s1.zip", md5=MD5),))
    assert download_corpus(builder_class, tmp_path / "raw") == tmp_path / "raw"
    assert (tmp_path / "raw/s1.zip").read_bytes() == CONTENT


def test_a_builder_from_nothing(host, tmp_path, uci_dir, monkeypatch):
    """download=True: fetched into the cache once, extracted, read."""
    archive = shutil.make_archive(tmp_path / "packed", "zip", uci_dir.parent, uci_dir.name)
    host.script["/emg.zip"] = [Answers((tmp_path / archive).read_bytes()), Answers(status=404)]
    monkeypatch.setattr("dataset_builders.uci_emg.UciEmg.DOWNLOADS", (Download(host.url("/emg.zip"), "emg.zip"),))
    expected = [recording.name for recording in make_builder("uci_emg", uci_dir).recordings]
    for _ in range(2):
        builder = make_builder("uci_emg", cache_dir=tmp_path / "cache", download=True)
        assert [recording.name for recording in builder.recordings] == expected
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, ("cannot be downloaded by a program", "https://example.org", "s1.zip")),
        ({"LAYOUT": None}, ("nothing to download",)),
        ({"HOMEPAGE": ""}, ("no files to download", "s1.zip")),
    ],
)
def test_corpora_without_public_address(tmp_path, attributes, words):
    with pytest.raises(DownloadError) as caught:
        download_corpus(corpus(**attributes), tmp_path / "raw")
    assert all(word in str(caught.value) for word in ("Example", *words)) and not (tmp_path / "raw").exists()
