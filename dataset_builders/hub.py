"""Hub-ready folders: parquet shards per split, a dataset card, and the preprocessing that made the windows.

    prepare("uci_emg", "EMG_data.zip", "uci_emg_200", num_proc=4)
    load_dataset("uci_emg_200", split="train", streaming=True)

Work goes on in OUTPUT.incomplete, which becomes OUTPUT when everything is there. A shard appears there under its name
only when it is whole, so a preparation that was killed goes on where it stopped; if the settings or the raw files have
changed since, it starts clean. The bytes written depend on neither `num_proc` nor interruptions.
"""

import contextlib
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from .base import EmgBuilder, make_builder
from .card import write_card
from .errors import PreparationError
from .protocols import SPLITS

MANIFEST = "preparation.json"
MAX_SHARDS = 32
ROW_GROUP_BYTES = 4 << 20


@dataclass(frozen=True)
class Shard:
    """One parquet file to write: `file` relative to the output folder, from `recordings` in this order."""

    file: str
    recordings: tuple


def prepare(
    builder_name: str,
    data_dir: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    num_proc: int | None = None,
    overwrite: bool = False,
    cache_dir: str | os.PathLike | None = None,
    **config: object,
) -> Path:
    """Write the windows of a corpus as a Hub-ready folder.

    Args:
        builder_name: "uci_emg", "synthetic" or "emg_folder".
        data_dir: folder or archive with the raw files; None for a generated corpus.
        output_dir: folder to make. If it already holds the same preparation, nothing is done.
        num_proc: processes that work in parallel.
        overwrite: replace a folder that holds another preparation.
        cache_dir: where archives are extracted.
        config: options of the builder.

    Returns:
        The finished folder.

    Raises:
        DataError: a subclass names the file, option or disk at fault. Shards finished so far are kept in
            OUTPUT.incomplete, and running the same command again goes on from there.
    """
    builder = make_builder(builder_name, data_dir, cache_dir, **config)
    output = Path(output_dir).expanduser().absolute()
    partial = output.with_name(output.name + ".incomplete")
    manifest = {"builder": builder.name, "configuration": builder.config_id, "options": builder.config.shaping_fields()}
    manifest_text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    with _disk_errors(partial):
        output.parent.mkdir(parents=True, exist_ok=True)
    with _locked(output):
        if not _needs_work(output, manifest_text, overwrite):
            return output
        shards = plan_shards(builder)  # before anything is written: it fails where the corpus cannot be read at all
        with _disk_errors(partial):
            _start_or_resume(partial, manifest_text)
        _write_missing(builder, partial, shards, num_proc or 1)
        with _disk_errors(partial):
            builder.extractor.save_pretrained(partial)
            write_card(builder, partial, [shard.file for shard in shards])
            if output.exists():
                shutil.rmtree(output)
            partial.rename(output)
    return output


def plan_shards(builder: EmgBuilder) -> list[Shard]:
    """Which recordings go into which file: consecutive ones, at most `MAX_SHARDS` files per split."""
    shards = []
    for split in SPLITS:
        recordings = [recording for recording in builder.recordings if recording.split == split]
        count = min(MAX_SHARDS, len(recordings))
        for i in range(count):
            first, last = i * len(recordings) // count, (i + 1) * len(recordings) // count
            shards.append(Shard(f"data/{split}-{i:05d}-of-{count:05d}.parquet", tuple(recordings[first:last])))
    return shards


@contextlib.contextmanager
def _disk_errors(partial: Path) -> Iterator[None]:
    """A full disk, a missing permission and the like, as an error that says what is kept and how to go on."""
    try:
        yield
    except OSError as error:
        raise PreparationError(
            f"cannot write to {partial}: {error.strerror or error}. The shards finished so far are kept there: free "
            "some space and run the same command again, or choose another folder"
        ) from error


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """One process at a time works on `output`; others wait, and find the work done."""
    path = output.with_name(f".{output.name}.lock")
    with FileLock(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _needs_work(output: Path, manifest_text: str, overwrite: bool) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return True
    manifest = output / MANIFEST
    if manifest.is_file() and manifest.read_text() == manifest_text:
        return False
    if overwrite and manifest.is_file():
        return True
    what = "another preparation (other options or other raw files)" if manifest.is_file() else "something else"
    fix = "pass overwrite=True to replace it, or " if manifest.is_file() else ""
    raise PreparationError(f"{output} exists and holds {what}: {fix}choose another folder")


def _start_or_resume(partial: Path, manifest_text: str) -> None:
    """Leave in `partial` only whole shards of this very preparation."""
    manifest = partial / MANIFEST
    if partial.exists() and not (manifest.is_file() and manifest.read_text() == manifest_text):
        shutil.rmtree(partial)
    (partial / "data").mkdir(parents=True, exist_ok=True)
    for left_over in (partial / "data").glob("*.tmp"):
        left_over.unlink()
    _write_atomically(manifest, lambda path: path.write_text(manifest_text))


def _write_missing(builder: EmgBuilder, partial: Path, shards: list[Shard], num_proc: int) -> None:
    todo = [shard for shard in shards if not (partial / shard.file).exists()]
    total = sum(len(shard.recordings) for shard in shards)
    done = total - sum(len(shard.recordings) for shard in todo)
    with datasets.utils.tqdm(total=total, initial=done, unit=" recordings", desc=f"Preparing {builder.name}") as bar:
        for shard in _run(builder, partial, todo, min(num_proc, len(todo))):
            bar.update(len(shard.recordings))


def _run(builder: EmgBuilder, partial: Path, todo: list[Shard], num_proc: int) -> Iterator[Shard]:
    if num_proc <= 1:
        yield from (_write_shard(builder, partial, shard) for shard in todo)
        return
    with ProcessPoolExecutor(num_proc, initializer=_exit_with_parent) as pool:
        try:
            futures = [pool.submit(_write_shard, builder, partial, shard) for shard in todo]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise PreparationError(
                f"cannot go on with {partial}: a worker process was killed, as happens when memory runs out. The "
                "shards finished so far are kept there: run the same command again with a smaller num_proc"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _exit_with_parent() -> None:
    """Let a worker die with its parent: a killed parent must not leave workers writing behind its successor's back."""
    sentinel = multiprocessing.parent_process().sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_shard(builder: EmgBuilder, partial: Path, shard: Shard) -> Shard:
    tables = [builder.recording_table(recording) for recording in shard.recordings]
    with _disk_errors(partial):
        _write_atomically(partial / shard.file, functools.partial(_write_parquet, pa.concat_tables(tables)))
    return shard


def _write_parquet(table: pa.Table, path: Path) -> None:
    window_bytes = max(1, table.nbytes // max(1, len(table)))
    rows = max(1, ROW_GROUP_BYTES // window_bytes)
    # overlapping windows repeat their samples, which zstd finds and the default compression does not
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(table, path, row_group_size=rows, use_dictionary=text, compression="zstd")


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temporary)`, then rename: `path` is whole or absent."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
