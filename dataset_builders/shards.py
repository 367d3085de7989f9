"""Parquet shards of a preparation: planned, written by several processes, and resumed recording by recording.

Each recording is converted into a part of its own (an Arrow file in `parts`); when a shard's parts are all there they
are joined to one parquet file, a row group at a time. Memory is bounded by one recording per process, and what a killed
run had converted is not converted again. The bytes written depend on neither the number of processes nor interruptions.
"""

import functools
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .base import NOTES, EmgBuilder, table_notes
from .checks import empty_split
from .content import Recording
from .errors import PreparationError, disk_errors
from .protocols import SPLITS

SHARDS_PER_SPLIT = 32
SHARD_BYTES = 256 << 20  # of raw files: with more of them per split, more shards
ROW_GROUP_BYTES = 4 << 20


@dataclass(frozen=True)
class Shard:
    """One parquet file to write: `file` relative to the output folder, from `recordings` in this order."""

    file: str
    recordings: tuple[Recording, ...]

    def part(self, folder: Path, index: int) -> Path:
        """The Arrow file with the rows of recording `index`, until the shard is joined."""
        return folder / "parts" / Path(self.file).stem / f"{index:06d}.arrow"

    def missing(self, folder: Path) -> list[int]:
        """Recordings that have no part yet."""
        return [i for i in range(len(self.recordings)) if not self.part(folder, i).exists()]


def plan_shards(builder: EmgBuilder) -> list[Shard]:
    """Which recordings go into which file: consecutive ones, of about `SHARD_BYTES` of raw data at most."""
    shards = []
    for split in SPLITS:
        recordings = [recording for recording in builder.recordings if recording.split == split]
        raw_bytes = sum(os.path.getsize(recording.path) for recording in recordings if recording.path)
        count = min(len(recordings), max(SHARDS_PER_SPLIT, -(-raw_bytes // SHARD_BYTES)))
        for i in range(count):
            first, last = i * len(recordings) // count, (i + 1) * len(recordings) // count
            shards.append(Shard(f"data/{split}-{i:05d}-of-{count:05d}.parquet", tuple(recordings[first:last])))
    return shards


def plan_digest(shards: list[Shard]) -> str:
    """Changes when a recording comes, goes or moves to another place: parts of another plan are of no use."""
    plan = [(shard.file, [(r.name, r.repetitions) for r in shard.recordings]) for shard in shards]
    return hashlib.sha256(repr(plan).encode()).hexdigest()[:16]


def write_shards(builder: EmgBuilder, folder: Path, shards: list[Shard], num_proc: int) -> None:
    """Write the shards that are not yet in `folder`, showing progress in recordings.

    Raises:
        DataError: of a recording, of the disk, because a worker was killed, or because a split has no row; what is
            finished stays in `folder`.
    """
    todo = [shard for shard in shards if not (folder / shard.file).exists()]
    total = sum(len(shard.recordings) for shard in shards)
    left = sum(len(shard.missing(folder)) for shard in todo)
    with datasets.utils.tqdm(
        total=total, initial=total - left, unit=" recordings", desc=f"Preparing {builder.name}"
    ) as bar:
        run = _run_here if num_proc <= 1 else _run_in_processes
        for converted in run(builder, folder, todo, num_proc):
            bar.update(converted)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    rows = Counter()
    for shard in shards:
        rows[shard.recordings[0].split] += pq.read_metadata(folder / shard.file).num_rows
    for split, count in rows.items():
        if not count:
            raise empty_split(builder.name, split)


def shard_notes(file: Path) -> Counter:
    """What was left out of a finished shard, counted."""
    return table_notes(pq.read_schema(file))


Job = list[tuple[int, int]]
"""Recordings to convert together, as (number of the shard, position in it)."""


def _plan_jobs(folder: Path, shards: list[Shard]) -> tuple[deque[Job], list[int]]:
    """The conversions that are missing, and how many each shard waits for.

    Recordings of one file (repetitions in several splits) are one job, because its signal is processed only once.
    """
    jobs: dict[object, Job] = {}
    waiting = []
    for number, shard in enumerate(shards):
        missing = shard.missing(folder)
        waiting.append(len(missing))
        for index in missing:
            path = shard.recordings[index].path
            jobs.setdefault(path or (number, index), []).append((number, index))
    return deque(jobs.values()), waiting


def _finish(job: Job, waiting: list[int]) -> list[int]:
    """Count a job as done; the shards that can be joined now."""
    for number, _ in job:
        waiting[number] -= 1
    return sorted({number for number, _ in job if not waiting[number]})


def _run_here(builder: EmgBuilder, folder: Path, shards: list[Shard], num_proc: int) -> Iterator[int]:
    jobs, waiting = _plan_jobs(folder, shards)
    for number, count in enumerate(waiting):
        if not count:
            _join(folder, shards[number])
    for job in jobs:
        yield _convert(builder, folder, shards, job)
        for number in _finish(job, waiting):
            _join(folder, shards[number])


def _run_in_processes(builder: EmgBuilder, folder: Path, shards: list[Shard], num_proc: int) -> Iterator[int]:
    """Few jobs are in flight at a time, so that shards are joined (and their parts removed) as soon as they can be."""
    jobs, waiting = _plan_jobs(folder, shards)
    joins = deque(number for number, count in enumerate(waiting) if not count)
    running: dict[Future, Job] = {}
    with ProcessPoolExecutor(num_proc, initializer=_start_worker, initargs=(builder, folder, shards)) as pool:
        try:
            while jobs or joins or running:
                while (jobs or joins) and len(running) < 2 * num_proc:
                    if joins:
                        running[pool.submit(_join_in_worker, joins.popleft())] = []
                    else:
                        job = jobs.popleft()
                        running[pool.submit(_convert_in_worker, job)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield future.result()
                    joins.extend(_finish(running.pop(future), waiting))
        except BrokenProcessPool as error:
            raise PreparationError(
                f"cannot go on with {folder}: a worker process was killed, as happens when memory runs out. What is "
                "finished is kept there: run the same command again with a smaller num_proc"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[EmgBuilder, Path, list[Shard]] | None = None  # sent to each worker process once, not with each job


def _start_worker(builder: EmgBuilder, folder: Path, shards: list[Shard]) -> None:
    """Remember what to work on, and die with the parent: a killed parent must not leave workers writing behind the
    back of its successor."""
    global _worker
    _worker = builder, folder, shards
    sentinel = multiprocessing.parent_process().sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _convert_in_worker(job: Job) -> int:
    return _convert(*_worker, job)


def _join_in_worker(number: int) -> int:
    _, folder, shards = _worker
    return _join(folder, shards[number])


def _convert(builder: EmgBuilder, folder: Path, shards: list[Shard], job: Job) -> int:
    """Write the parts of a job; returns how many recordings were converted."""
    for number, index in job:
        table = builder.recording_table(shards[number].recordings[index])
        path = shards[number].part(folder, index)
        with disk_errors(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, functools.partial(_write_arrow, table))
    return len(job)


def _write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _join(folder: Path, shard: Shard) -> int:
    """Join the parts of a shard to one parquet file; returns how many recordings that converted, none."""
    parts = [shard.part(folder, index) for index in range(len(shard.recordings))]
    with disk_errors(folder):
        write_atomically(folder / shard.file, lambda temporary: _write_parquet(parts, temporary))
        shutil.rmtree(parts[0].parent)
    return 0


def _write_parquet(parts: list[Path], path: Path) -> None:
    schemas = [_open_arrow(part).schema for part in parts]
    notes = sum(map(table_notes, schemas), Counter())
    schema = schemas[0].with_metadata(schemas[0].metadata | {NOTES: json.dumps(notes, sort_keys=True).encode()})
    # overlapping windows repeat their samples, which zstd finds and the default compression does not
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    checked = {"write_page_checksum": True}  # so that damage on the way to a reader is noticed
    with pq.ParquetWriter(path, schema, use_dictionary=text, compression="zstd", **checked) as writer:
        kept: list[pa.Table] = []
        for part in parts:
            kept.append(_open_arrow(part).read_all().cast(schema))
            if sum(table.nbytes for table in kept) >= ROW_GROUP_BYTES or part == parts[-1]:
                table = pa.concat_tables(kept)
                kept = []
                if len(table):  # readers stumble over a row group without rows
                    row_bytes = max(1, table.nbytes // len(table))
                    writer.write_table(table, row_group_size=max(1, ROW_GROUP_BYTES // row_bytes))


def _open_arrow(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temporary)`, then rename: `path` is whole or absent."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
