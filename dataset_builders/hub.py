"""Hub-ready folders: parquet shards per split, a dataset card, and the preprocessing that made the windows.

    prepare("uci_emg", "EMG_data.zip", "uci_emg_200", num_proc=4)
    load_dataset("uci_emg_200", split="train", streaming=True)

Work goes on in OUTPUT.incomplete, which becomes OUTPUT when everything is there; how it is divided, written and resumed
is in `shards`. If the settings or the raw files have changed since a preparation was interrupted, it starts clean.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from .base import make_builder
from .card import write_card
from .errors import PreparationError, disk_errors
from .shards import plan_digest, plan_shards, write_atomically, write_shards

MANIFEST = "preparation.json"


def prepare(
    builder_name: str,
    data_dir: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    num_proc: int | None = None,
    overwrite: bool = False,
    cache_dir: str | os.PathLike | None = None,
    download: bool = False,
    **config: object,
) -> Path:
    """Write the windows of a corpus as a Hub-ready folder.

    Args:
        builder_name: one of `BUILDERS`.
        data_dir: folder or archive with the raw files; None for a generated corpus.
        output_dir: folder to make. If it already holds the same preparation, nothing is done.
        num_proc: processes that work in parallel.
        overwrite: replace a folder that holds another preparation.
        cache_dir: where archives are extracted, and downloaded to unless `data_dir` says where.
        download: fetch missing raw files from the official source.
        config: options of the builder.

    Returns:
        The finished folder.

    Raises:
        DataError: a subclass names the file, option or disk at fault. What is finished is kept in
            OUTPUT.incomplete, and running the same command again goes on from there.
    """
    builder = make_builder(builder_name, data_dir, cache_dir, download, **config)
    output = Path(output_dir).expanduser().absolute()
    partial = output.with_name(output.name + ".incomplete")
    if builder.config.data_dir and output.resolve().is_relative_to(builder.config.data_dir):
        raise PreparationError(f"{output} lies within the raw files, which would change by it: choose another folder")
    shards = plan_shards(builder)  # before anything is written: it fails where the corpus cannot be read at all
    manifest = {
        "builder": builder.name,
        "configuration": builder.config_id,
        "options": builder.config.shaping_fields(),
        "plan": plan_digest(shards),
    }
    manifest_text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    with disk_errors(partial):
        output.parent.mkdir(parents=True, exist_ok=True)
    with _locked(output):
        if not _needs_work(output, manifest_text, overwrite):
            return output
        with disk_errors(partial):
            _start_or_resume(partial, manifest_text)
        write_shards(builder, partial, shards, num_proc or 1)
        with disk_errors(partial):
            builder.extractor.save_pretrained(partial)
            write_card(builder, partial, [shard.file for shard in shards])
            if output.exists():
                shutil.rmtree(output)
            partial.rename(output)
    return output


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """One process at a time works on `output`; others wait, and find the work done."""
    path = output.with_name(f".{output.name}.lock")
    lock = FileLock(path)
    with disk_errors(output):
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for it then makes another
        lock.release()


def _needs_work(output: Path, manifest_text: str, overwrite: bool) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return True
    manifest = output / MANIFEST
    if manifest.is_file() and manifest.read_text() == manifest_text:
        return False
    if overwrite and manifest.is_file():
        return True
    what = "another preparation (other options or other raw files)" if manifest.is_file() else "something else"
    fix = "pass overwrite=True (--overwrite) to replace it, or " if manifest.is_file() else ""
    raise PreparationError(f"{output} exists and holds {what}: {fix}choose another folder")


def _start_or_resume(partial: Path, manifest_text: str) -> None:
    """Leave in `partial` only whole shards of this very preparation."""
    manifest = partial / MANIFEST
    if partial.exists() and not (manifest.is_file() and manifest.read_text() == manifest_text):
        shutil.rmtree(partial)
    (partial / "data").mkdir(parents=True, exist_ok=True)
    for left_over in partial.rglob("*.tmp"):
        left_over.unlink()
    write_atomically(manifest, lambda path: path.write_text(manifest_text))
