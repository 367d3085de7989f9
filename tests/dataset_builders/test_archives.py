"""Archives: every kind, every way of being broken, nothing half-extracted."""

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from dataset_builders.archives import find_root, open_source, source_fingerprint
from dataset_builders.base import ArchiveError, DataError, LayoutError

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
    (tmp_path / "b.txt").write_text("b")
    assert source_fingerprint(tmp_path) != before
    with pytest.raises(DataError, match="does not exist"):
        source_fingerprint(tmp_path / "absent")
