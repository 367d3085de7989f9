"""Pushing: nothing is sent before it is asked for, nothing that is not whole, nothing public by accident."""

import dataclasses
import shutil
from types import SimpleNamespace

import httpx2
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from dataset_builders.base import DataError, LayoutError
from dataset_builders.errors import PushError
from dataset_builders.hub import prepare
from dataset_builders.push import plan_push, push


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push") / "synthetic"
    return prepare("synthetic", None, folder, num_subjects=4, num_sessions=1, num_repetitions=1, hold=1.5)


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "folder")


class Api:
    """Takes down what is asked of the Hub."""

    def __init__(self, private=None, error=None):
        self.private, self.error, self.calls = private, error, []

    def repo_info(self, repo_id, repo_type):
        if self.private is None:
            request = httpx2.Request("GET", "https://huggingface.co")
            raise RepositoryNotFoundError("not found", response=httpx2.Response(404, request=request))
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo_id, **options):
        self.calls.append(("create_repo", repo_id, options))
        return f"https://huggingface.co/datasets/{repo_id}"

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", options))
        if self.error:
            raise self.error


def test_the_plan_lists_everything(folder):
    (folder / ".cache").mkdir()
    (folder / ".cache/secret").write_text("x")
    (folder / "notes.txt").write_text("mine")
    plan = plan_push(folder, "me/corpus")
    rows = {s: sum(pq.read_metadata(f).num_rows for f in folder.glob(f"data/{s}-*")) for s in plan.rows}
    assert plan.rows == rows and list(rows) == ["train", "validation", "test"] and min(rows.values()) > 0
    names = {str(p.relative_to(folder)) for p in folder.glob("data/*")}
    assert {n for n, _ in plan.files} == names | {"README.md", "preparation.json", "preprocessor_config.json"}
    assert all((folder / name).stat().st_size == size for name, size in plan.files)
    report = plan.report()
    assert "(private)" in report and "apache-2.0" in report and "warning" not in report
    assert all(name in report for name in names)
    many = dataclasses.replace(plan, files=tuple((f"data/{i}", 100) for i in range(50))).report()
    assert "data/19" in many and "data/20" not in many and "and 30 more" in many and "5 kB" in many


def test_push_sends_what_was_planned(folder):
    api = Api()
    plan = plan_push(folder, "me/corpus")
    assert push(plan, api) == "https://huggingface.co/datasets/me/corpus"
    (create, repo_id, created), (upload, sent) = api.calls
    assert (create, repo_id, upload) == ("create_repo", "me/corpus", "upload_folder")
    assert created == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert sent["repo_type"] == "dataset" and sent["folder_path"] == folder and sent["repo_id"] == "me/corpus"
    assert sent["allow_patterns"] == [name for name, _ in plan.files] and sent["delete_patterns"] == ["data/*.parquet"]


@pytest.mark.parametrize(
    ("private", "public", "fine"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_repository_that_exists(folder, private, public, fine):
    api = Api(private=private)
    plan = plan_push(folder, "me/corpus", public=public)
    if fine:
        push(plan, api)
        assert api.calls[0][2]["private"] is not public
    else:
        with pytest.raises(PushError, match="exists and is public"):
            push(plan, api)
        assert not api.calls


def edit_licence(folder, licence):
    card = folder / "README.md"
    text = card.read_text().replace("license: apache-2.0\n", f"license: {licence}\n" if licence else "")
    card.write_text(text)


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        (None, "states no licence"),
        ("other", "terms of its own"),
        ("cc-by-nd-4.0", "not known to allow"),
        ("cc-by-nc-nd-4.0", "not known to allow"),
        ("unknown", "not known to allow"),
    ],
)
def test_licences_that_forbid(folder, licence, words):
    edit_licence(folder, licence)
    plan = plan_push(folder, "me/corpus")
    assert words in plan.warning and plan.warning in plan.report()
    with pytest.raises(PushError, match="is not published"):
        plan_push(folder, "me/corpus", public=True)


@pytest.mark.parametrize("licence", ["cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0", "mit", "CC-BY-4.0"])
def test_licences_that_allow(folder, licence):
    edit_licence(folder, licence)
    assert plan_push(folder, "me/corpus", public=True).warning is None


@pytest.mark.parametrize("name", ["preparation.json", "preprocessor_config.json", "README.md"])
def test_folders_that_lack_something(folder, name):
    (folder / name).unlink()
    with pytest.raises(LayoutError, match=f"not a finished dataset.*{name}"):
        plan_push(folder, "me/corpus")


def test_shards_that_are_missing_or_damaged(folder):
    shard = sorted(folder.glob("data/train-*"))[0]
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(LayoutError, match="1 of the . shards of train are missing, the first is number 0"):
        plan_push(folder, "me/corpus")
    for damaged in (content[: len(content) // 2], b"", content[:200] + bytes(4000) + content[4200:]):
        shard.write_bytes(damaged)
        with pytest.raises(LayoutError, match=f"{shard.name} cannot be read"):
            plan_push(folder, "me/corpus")
    other = sorted(folder.glob("data/train-*"))[1]
    shard.write_bytes(content)
    pq.write_table(pq.read_table(other).slice(1), other)
    with pytest.raises(LayoutError, match="states .* rows, the shards hold"):
        plan_push(folder, "me/corpus")
    (folder / "data/x.parquet").touch()
    with pytest.raises(LayoutError, match="does not belong"):
        plan_push(folder, "me/corpus")
    shutil.rmtree(folder / "data")
    with pytest.raises(LayoutError, match="no shards"):
        plan_push(folder, "me/corpus")


@pytest.mark.parametrize(
    "text", ["", "no front matter", "---\n: {\n---\n", "---\n- 1\n---\n", "---\nlicense: mit\n---\n"]
)
def test_cards_that_cannot_be_read(folder, text):
    (folder / "README.md").write_text(text)
    with pytest.raises(LayoutError, match=r"README\.md"):
        plan_push(folder, "me/corpus")


def test_a_preparation_that_is_not_finished(folder):
    with pytest.raises(LayoutError, match="is not finished"):
        plan_push(folder.rename(folder.with_name("folder.incomplete")), "me/corpus")


@pytest.mark.parametrize("repo_id", ["corpus", "a/b/c", "me/", "me/cor pus", "", "me/-x", "me/a..b"])
def test_names_no_repository_can_have(folder, repo_id):
    with pytest.raises(PushError):
        plan_push(folder, repo_id)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalTokenNotFoundError("no token"), "hf auth login"),
        (httpx2.ConnectError("no route to host"), "no route to host"),
        (OSError("disk"), "disk"),
        (
            HfHubHTTPError("403 Forbidden", response=httpx2.Response(403, request=httpx2.Request("POST", "https://x"))),
            "403",
        ),
    ],
)
def test_uploads_that_fail(folder, error, words):
    with pytest.raises(DataError, match=words):
        push(plan_push(folder, "me/corpus"), Api(error=error))
