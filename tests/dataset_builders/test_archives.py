"""Archives: every kind, every way of being broken, nothing half-extracted."""

import functools
import io
import random
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builders import archives
from dataset_builders.archives import find_root, open_source, source_fingerprint
from dataset_builders.base import ArchiveError, DataError, LayoutError, make_builder

KINDS = ("zip", "tar", "tar.gz", "tar.xz", "tar.bz2")
FILES = {"top/01/a.txt": random.Random(0).randbytes(4000), "top/02/b.txt": random.Random(1).randbytes(3000)}


def make_archive(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in files.items():
                bundle.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return path


def refused(archive: Path, cache: Path, *words: str) -> None:
    """`archive` is refused with a message that has all `words`, and leaves nothing behind."""
    with pytest.raises(ArchiveError) as caught:
        open_source(archive, cache)
    for word in (archive.name, *words):
        assert word in str(caught.value)
    assert not [entry for entry in cache.glob("*") if entry.is_dir()]


@pytest.mark.parametrize("kind", KINDS)
def test_extracts_every_kind_once(tmp_path, kind):
    archive = make_archive(tmp_path / f"corpus.{kind}", FILES)
    folder = open_source(archive, tmp_path / "cache")
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.txt")} == FILES
    (folder / "mark").touch()
    assert (open_source(archive, tmp_path / "cache") / "mark").exists()
    assert find_root(folder, lambda f: (f / "01").is_dir(), "folder 01") == folder / "top"


def test_a_changed_archive_is_extracted_anew(tmp_path):
    archive = make_archive(tmp_path / "corpus.zip", FILES)
    first = open_source(archive, tmp_path / "cache")
    make_archive(archive, {"top/03/c.txt": b"new"})
    assert open_source(archive, tmp_path / "cache") != first


def test_left_overs_of_a_killed_extraction_are_removed(tmp_path):
    archive, cache = make_archive(tmp_path / "corpus.zip", FILES), tmp_path / "cache"
    folder = open_source(archive, cache)
    folder.rename(cache / f"{folder.name}.incomplete-abc")
    assert open_source(archive, cache) == folder
    assert [entry for entry in cache.iterdir() if entry.is_dir()] == [folder]


def test_a_directory_is_taken_as_it_is(tmp_path):
    assert open_source(tmp_path) == tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated(tmp_path, kind, share):
    archive = make_archive(tmp_path / f"corpus.{kind}", FILES)
    content = archive.read_bytes()
    # an uncompressed tar is padded with zeros, which may be lost without harm
    archive.write_bytes(content[: int(share * (8500 if kind == "tar" else len(content)))])
    refused(archive, tmp_path / "cache", "truncated or corrupt", "download it again")


def test_tar_cut_between_two_members(tmp_path):
    archive = make_archive(tmp_path / "corpus.tar", FILES)
    archive.write_bytes(archive.read_bytes()[: 512 + 4096])
    refused(archive, tmp_path / "cache", "truncated")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_flipped_bytes(tmp_path, kind):
    archive = make_archive(tmp_path / f"corpus.{kind}", FILES)
    content = bytearray(archive.read_bytes())
    for position in range(2000, 2040):
        content[position] ^= 0xFF
    archive.write_bytes(bytes(content))
    refused(archive, tmp_path / "cache", "truncated or corrupt")


def test_damaged_tar_header(tmp_path):
    archive = make_archive(tmp_path / "corpus.tar", FILES)
    content = bytearray(archive.read_bytes())
    content[512 + 4096 + 5] ^= 0xFF
    archive.write_bytes(bytes(content))
    refused(archive, tmp_path / "cache", "truncated or corrupt")


def test_missing_empty_and_foreign_files(tmp_path):
    refused(tmp_path / "absent.zip", tmp_path / "cache", "does not exist")
    empty = tmp_path / "empty.tar.gz"
    empty.touch()
    refused(empty, tmp_path / "cache", "0 bytes")
    foreign = tmp_path / "notes.txt"
    foreign.write_text("hello " * 500)
    refused(foreign, tmp_path / "cache", "not an archive", "tar.xz")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_without_files(tmp_path, kind):
    refused(make_archive(tmp_path / f"corpus.{kind}", {}), tmp_path / "cache", "no file")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil-tinymyo", "..\\evil.txt", "C:\\evil"])
def test_members_that_leave_the_folder(tmp_path, kind, name):
    archive = make_archive(tmp_path / f"corpus.{kind}", {"fine.txt": b"x", name: b"evil"})
    refused(archive, tmp_path / "cache", "points outside")
    assert not list(tmp_path.rglob("evil*")) and not Path("/tmp/evil-tinymyo").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_tar_links_and_devices(tmp_path, kind):
    archive = tmp_path / "corpus.tar"
    with tarfile.open(archive, "w") as bundle:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        bundle.addfile(info)
    refused(archive, tmp_path / "cache", "link or a device")


def test_zip_link_and_encrypted_member(tmp_path):
    archive = tmp_path / "corpus.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
    refused(archive, tmp_path / "cache", "link or a device")
    make_archive(archive, {"a.txt": b"secret"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))
    refused(archive, tmp_path / "cache", "encrypted")


def test_zip_member_without_a_name(tmp_path):
    archive = make_archive(tmp_path / "corpus.zip", {"a": b"x"})
    content = bytearray(archive.read_bytes())
    for signature, length in ((b"PK\x03\x04", 30), (b"PK\x01\x02", 46)):
        content[content.index(signature) + length] = 0
    archive.write_bytes(bytes(content))
    refused(archive, tmp_path / "cache", "truncated or corrupt")


def test_repeated_member(tmp_path):
    archive = tmp_path / "corpus.tar"
    with tarfile.open(archive, "w") as bundle:
        for _ in range(2):
            bundle.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    refused(archive, tmp_path / "cache", "exists")


def test_find_root_messages(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "01").mkdir(parents=True)
    with pytest.raises(LayoutError, match="several corpora"):
        find_root(tmp_path, lambda f: (f / "01").is_dir(), "folder 01")
    with pytest.raises(LayoutError, match="expected folder 99"):
        find_root(tmp_path, lambda f: (f / "99").is_dir(), "folder 99")


def test_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    before = source_fingerprint(tmp_path)
    assert before == source_fingerprint(tmp_path)
    (tmp_path / ".download.lock").touch()
    assert source_fingerprint(tmp_path) == before
    (tmp_path / "b.txt").write_text("b")
    assert source_fingerprint(tmp_path) != before
    with pytest.raises(DataError, match="does not exist"):
        source_fingerprint(tmp_path / "absent")


# Folders of archives


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def downloads(tmp_path) -> Path:
    """Archives as downloaded, one of them in a folder, beside plain files and what systems leave."""
    folder = tmp_path / "raw"
    (folder / "more").mkdir(parents=True)
    make_archive(folder / "s1.zip", {"s1/a.mat": b"1a", "s1/b.mat": b"1b", "__MACOSX/s1/._a.mat": b"x"})
    make_archive(folder / "s2.tar.gz", {"a.mat": b"2a"})
    make_archive(folder / "more/s3.tar.xz", {"S3/a.mat": b"3a"})
    (folder / "metadata.csv").write_bytes(b"meta")
    (folder / "more/notes.txt").write_bytes(b"notes")
    (folder / ".download.lock").touch()
    return folder


CONTENT = {
    "s1/s1/a.mat": b"1a",
    "s1/s1/b.mat": b"1b",
    "s2/a.mat": b"2a",
    "more/s3/S3/a.mat": b"3a",
    "metadata.csv": b"meta",
    "more/notes.txt": b"notes",
}


def test_a_folder_of_archives(downloads, tmp_path):
    before = tree(downloads)
    folder = open_source(downloads, tmp_path / "cache")
    assert tree(folder) == CONTENT and tree(downloads) == before
    assert open_source(downloads, tmp_path / "cache") == folder
    assert find_root(folder, lambda f: (f / "a.mat").is_file() and f.name == "S3", "S3") == folder / "more/s3/S3"


def test_only_what_changed_is_extracted_anew(downloads, tmp_path, monkeypatch):
    extracted = []
    original = archives._extract_atomically

    def spy(archive, target):
        extracted.append(archive.name)
        return original(archive, target)

    monkeypatch.setattr(archives, "_extract_atomically", spy)
    cache = tmp_path / "cache"
    first = open_source(downloads, cache)
    assert sorted(extracted) == ["s1.zip", "s2.tar.gz", "s3.tar.xz"]
    make_archive(downloads / "s2.tar.gz", {"a.mat": b"changed"})
    (downloads / "new.csv").write_bytes(b"new")
    second = open_source(downloads, cache)
    assert extracted[3:] == ["s2.tar.gz"] and second != first
    assert tree(second) == CONTENT | {"s2/a.mat": b"changed", "new.csv": b"new"}


def test_goes_on_after_a_damaged_archive(downloads, tmp_path):
    good = (downloads / "s2.tar.gz").read_bytes()
    (downloads / "s2.tar.gz").write_bytes(good[:-20])
    with pytest.raises(ArchiveError, match="s2.tar.gz is truncated or corrupt"):
        open_source(downloads, tmp_path / "cache")
    kept = [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert sorted(name.split("-")[0] for name in kept) == ["s1", "s3"]
    (downloads / "s2.tar.gz").write_bytes(good)
    assert tree(open_source(downloads, tmp_path / "cache")) == CONTENT


def test_archives_unpacked_in_place_are_left_out(tmp_path):
    for place in ("", "s1"):
        folder = tmp_path / f"raw{place}"
        folder.mkdir()
        for kind in ("zip", "tar.gz"):
            make_archive(folder / f"s1.{kind}", {"top/a.mat": b"a", "top/b.mat": b"b"})
        for name in "ab":
            (folder / place / "top").mkdir(parents=True, exist_ok=True)
            (folder / place / f"top/{name}.mat").write_bytes(name.encode())
        assert open_source(folder, tmp_path / "cache") == folder
    (folder / "s1/top/b.mat").unlink()  # unpacking was interrupted: the zip tells
    assert "s1.zip/top/b.mat" in tree(open_source(folder, tmp_path / "cache"))


def test_an_archive_in_an_archive(tmp_path):
    inner = make_archive(tmp_path / "inner.zip", {"deep/a.mat": b"a"})
    innermost = make_archive(tmp_path / "third.zip", {"inner.zip": inner.read_bytes()})
    outer = {"inner.zip": inner.read_bytes(), "README.txt": b"read me"}
    (tmp_path / "raw").mkdir()
    for name in ("corpus.zip", "raw/corpus.tar"):
        make_archive(tmp_path / name, outer)
    expected = {"inner/deep/a.mat": b"a", "README.txt": b"read me"}
    assert tree(open_source(tmp_path / "corpus.zip", tmp_path / "cache")) == expected
    folder = open_source(tmp_path / "raw", tmp_path / "cache")
    assert tree(folder) == {f"corpus/{name}": content for name, content in expected.items()}
    make_archive(tmp_path / "corpus.zip", {"third.zip": innermost.read_bytes()})
    deep = open_source(tmp_path / "corpus.zip", tmp_path / "cache")
    assert [path.name for path in deep.rglob("*") if path.is_file()] == ["inner.zip"], "one level is enough"


def test_unsafe_members_inside(tmp_path):
    evil = make_archive(tmp_path / "evil.zip", {"../evil.txt": b"evil"})
    outer = make_archive(tmp_path / "outer.zip", {"evil.zip": evil.read_bytes()})
    with pytest.raises(ArchiveError, match="points outside"):
        open_source(outer, tmp_path / "cache")
    assert not list(tmp_path.rglob("evil.txt"))


def test_rar_files_are_named(tmp_path):
    (tmp_path / "EMG.rar").touch()
    with pytest.raises(LayoutError, match="Unpack EMG.rar yourself"):
        find_root(tmp_path, lambda f: False, "folder 01")


def test_a_corpus_in_archives(uci_dir, tmp_path):
    """A builder sees the same recordings whether its folders came as archives or not."""
    plain = make_builder("uci_emg", uci_dir, tmp_path / "cache").recordings
    packed = tmp_path / "packed"
    packed.mkdir()
    files = {p.relative_to(uci_dir.parent).as_posix(): p.read_bytes() for p in uci_dir.rglob("*.txt")}
    make_archive(packed / "emg+data+for+gestures.zip", files)
    builder = make_builder("uci_emg", packed, tmp_path / "cache")
    assert [r.name for r in builder.recordings] == [r.name for r in plain]
    tables = [
        b.recording_table(b.recordings[0]) for b in (builder, make_builder("uci_emg", uci_dir, tmp_path / "cache"))
    ]
    assert tables[0].equals(tables[1]) and len(tables[0]) > 0


@functools.cache  # archives hold the time at which they were made: examples must start from one and the same
def whole_archive(kind):
    """Bytes of an archive with another one inside."""
    with tempfile.TemporaryDirectory() as name:
        inner = make_archive(Path(name) / "inner.zip", {"b.mat": b"b" * 300})
        files = {"s1/a.mat": b"a" * 600, "s1/inner.zip": inner.read_bytes()}
        return make_archive(Path(name) / f"s1.{kind}", files).read_bytes()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_archives_raise_our_errors_only(tmp_path_factory, kind, data):
    folder = tmp_path_factory.mktemp("raw")
    archive = folder / f"s1.{kind}"
    archive.write_bytes(data.draw(damaged(whole_archive(kind))))
    for source in (folder, archive):
        try:
            open_source(source, folder / "cache")
        except DataError as error:
            assert "s1" in str(error)
