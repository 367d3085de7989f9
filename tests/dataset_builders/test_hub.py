"""Hub-ready folders: readable by `load_dataset`, resumable, never half there."""

import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from dataset_builders.base import (
    ArchiveError,
    ConfigError,
    DataError,
    EmgBuilder,
    LayoutError,
    PreparationError,
    load_corpus,
    make_builder,
)
from dataset_builders.hub import prepare
from dataset_builders.shards import plan_shards
from dataset_builders.torch_view import WindowDataset
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

SMALL = {"num_subjects": 6, "num_sessions": 3, "num_repetitions": 1, "hold": 1.5}
FORK = multiprocessing.get_context("fork")


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepare("synthetic", None, tmp_path_factory.mktemp("prepared") / "synthetic", **SMALL)


def test_load_dataset_reads_it(prepared, tmp_path):
    data = datasets.load_dataset(str(prepared), cache_dir=str(tmp_path))
    assert {split: len(set(part["subject"])) for split, part in data.items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    assert data["train"].features == make_builder("synthetic", **SMALL).info.features
    assert np.array(data["train"][0]["input_values"]).shape == (8, 200)
    same, _ = load_corpus("synthetic", cache_dir=tmp_path, **SMALL)
    for split in data:
        for left, right in zip(WindowDataset(data[split]).arrays(), WindowDataset(same[split]).arrays(), strict=True):
            np.testing.assert_array_equal(left, right)


def test_streaming(prepared):
    stream = datasets.load_dataset(str(prepared), split="train", streaming=True)
    assert stream.num_shards == 12
    assert stream.features["label"].names[1] == "fist"
    assert len(list(stream)) == pq.read_table(prepared / "data", columns=["start"]).num_rows * 4 // 6


def test_card_and_preprocessor(prepared):
    card = (prepared / "README.md").read_text()
    for words in ("path: data/train-*", "8 channels x 200 samples at 200 Hz (1 s)", "| train |", "0 rest, 1 fist"):
        assert words in card
    assert (
        TinyMyoFeatureExtractor.from_pretrained(prepared).to_dict()
        == make_builder("synthetic", **SMALL).extractor.to_dict()
    )


def test_load_corpus_reads_it(prepared, tmp_path):
    data, extractor = load_corpus(prepared, cache_dir=tmp_path)
    assert set(data) == {"train", "validation", "test"} and extractor.window_length == 200
    with pytest.raises(ConfigError, match="already prepared: window_length cannot be changed"):
        load_corpus(prepared, window_length=100)


@pytest.mark.parametrize("damage", ["cut off", "missing", "settings"])
def test_damaged_folder_is_named(prepared, tmp_path, damage):
    folder = Path(shutil.copytree(prepared, tmp_path / "copy"))
    shards = sorted((folder / "data").glob("test-*"))
    if damage == "settings":
        (folder / "preprocessor_config.json").write_text("{")
    elif damage == "cut off":
        shards[0].write_bytes(shards[0].read_bytes()[:-100])
    for shard in shards if damage == "missing" else ():
        shard.unlink()
    with pytest.raises(LayoutError, match=r"copy cannot be read as a prepared dataset \(.*prepare it again"):
        load_corpus(folder, cache_dir=tmp_path / "cache")


def test_subjects_are_in_one_split_each(prepared):
    seen: dict[str, set] = {}
    for file in (prepared / "data").iterdir():
        for subject in pq.read_table(file, columns=["subject"])["subject"].to_pylist():
            seen.setdefault(subject, set()).add(file.name.split("-")[0])
    assert len(seen) == 6 and all(len(splits) == 1 for splits in seen.values())


def test_bytes_do_not_depend_on_the_number_of_processes(prepared, tmp_path):
    assert contents(prepare("synthetic", None, tmp_path / "synthetic", num_proc=2, **SMALL)) == contents(prepared)
    assert {path.name for path in tmp_path.iterdir()} == {"synthetic", "hf_datasets"}


@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_and_resumed(prepared, tmp_path, num_proc):
    """kill -9 in the middle, with and without worker processes; then the same command again."""
    output, partial = tmp_path / "synthetic", tmp_path / "synthetic.incomplete"
    process = FORK.Process(target=prepare, args=("synthetic", None, output, num_proc), kwargs=SMALL)
    process.start()
    while len(list(partial.glob("data/*.parquet"))) < 3:
        assert process.is_alive()
        time.sleep(0.002)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    wait_for_the_end_of(workers)
    assert not output.exists()
    done = {path: path.stat().st_mtime_ns for path in partial.glob("data/*.parquet")}
    assert 3 <= len(done) < 18
    names = {path.name for path in done}

    prepare("synthetic", None, output, num_proc, **SMALL)
    assert contents(output) == contents(prepared)
    assert not partial.exists()
    kept = {name: (output / "data" / name).stat().st_mtime_ns for name in names}
    assert kept == {path.name: moment for path, moment in done.items()}


def wait_for_the_end_of(processes: list[str]) -> None:
    """Workers end by themselves when their parent is killed."""
    deadline = time.monotonic() + 10
    for pid in processes:
        status = Path(f"/proc/{pid}/stat")
        while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() < deadline, f"worker {pid} outlives its parent"
            time.sleep(0.01)


def test_half_written_files_and_other_options_start_clean(prepared, tmp_path):
    partial = tmp_path / "synthetic.incomplete" / "data"
    partial.mkdir(parents=True)
    (partial / "train-00000-of-00012.parquet").write_bytes(b"of another preparation")
    (partial / "train-00001-of-00012.parquet.77.tmp").write_bytes(b"half")
    assert contents(prepare("synthetic", None, tmp_path / "synthetic", **SMALL)) == contents(prepared)


def test_full_disk(prepared, tmp_path):
    """A limit on file sizes stands in for a full disk: nothing looks complete, and the next run goes on."""
    messages = FORK.Queue()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            prepare("synthetic", None, tmp_path / "synthetic", **SMALL)
        except PreparationError as error:
            messages.put(str(error))

    process = FORK.Process(target=limited)
    process.start()
    message = messages.get(timeout=60)
    process.join()
    assert "synthetic.incomplete" in message and "run the same command again" in message
    assert not (tmp_path / "synthetic").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert contents(prepare("synthetic", None, tmp_path / "synthetic", **SMALL)) == contents(prepared)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="workers must inherit what is patched")
def test_killed_worker(tmp_path, monkeypatch):
    """As the system does when memory runs out."""
    monkeypatch.setattr(EmgBuilder, "recording_table", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PreparationError, match=r"out.incomplete: a worker .* smaller num_proc"):
        prepare("synthetic", None, tmp_path / "out", 2, **SMALL)
    assert not (tmp_path / "out").exists()


def test_folder_without_permission(tmp_path, monkeypatch):
    class Refusing(FileLock):
        def acquire(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dataset_builders.hub.FileLock", Refusing)
    with pytest.raises(PreparationError, match="Permission denied"):
        prepare("synthetic", None, tmp_path / "out", **SMALL)


def test_unreadable_corpus_leaves_nothing(tmp_path):
    archive = tmp_path / "corpus.zip"
    archive.write_bytes(b"PK not quite")
    with pytest.raises(ArchiveError):
        prepare("uci_emg", archive, tmp_path / "made" / "out")
    assert not (tmp_path / "made").exists()


def test_output_among_the_raw_files(uci_dir):
    with pytest.raises(PreparationError, match="out lies within the raw files"):
        prepare("uci_emg", uci_dir, uci_dir / "out", window_length=100)
    assert not (uci_dir / "out").exists()


def test_existing_folders(prepared, tmp_path):
    moment = (prepared / "README.md").stat().st_mtime_ns
    assert prepare("synthetic", None, prepared, **SMALL) == prepared
    assert (prepared / "README.md").stat().st_mtime_ns == moment
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(PreparationError, match="holds something else: choose another folder"):
            prepare("synthetic", None, other, overwrite=overwrite, **SMALL)
    assert (other / "thesis.txt").exists()


def test_overwrite_replaces_another_preparation(tmp_path):
    tiny = {"num_subjects": 3, "num_sessions": 1, "num_repetitions": 1, "hold": 1.5}
    folder = prepare("synthetic", None, tmp_path / "out", **tiny)
    with pytest.raises(PreparationError, match="another preparation .*overwrite=True"):
        prepare("synthetic", None, folder, stride=50, **tiny)
    before = len(pq.read_table(folder / "data", columns=["start"]))
    prepare("synthetic", None, folder, overwrite=True, stride=50, **tiny)
    assert len(pq.read_table(folder / "data", columns=["start"])) > before


def test_bad_recording_leaves_nothing_that_looks_complete(uci_dir, tmp_path):
    path = uci_dir / "31" / "2_raw_data_12-12_22.03.16.txt"
    path.write_bytes(path.read_bytes() + b"1\t2\r\n")
    for num_proc in (1, 2):
        with pytest.raises(DataError, match="2_raw_data_12-12_22.03.16.txt, line .* 2 columns"):
            prepare("uci_emg", uci_dir, tmp_path / "out", num_proc, window_length=100)
    assert not (tmp_path / "out").exists()


def test_many_recordings_share_shards(tmp_path):
    shards = plan_shards(make_builder("synthetic", num_subjects=50, num_sessions=2))
    assert max(len(shard.recordings) for shard in shards) == 2
    assert len({shard.file for shard in shards}) == len(shards) == 32 + 20 + 20
    assert sum(len(shard.recordings) for shard in shards) == 100
