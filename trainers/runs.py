"""The folder of a run: whose it is, from where it resumes, and on what it was measured."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from trainers.errors import RecipeError
from trainers.report import write_json

SETTINGS_FILE = "run.json"
# What may change between two starts of one run: it decides how and where the work is done, not its outcome.
_FREE = {
    "data": {"data_dir", "cache_dir", "num_proc"},
    "training": {
        "seeds", "users", "from_scratch", "overwrite", "baselines", "disable_tqdm", "report_to",
        "dataloader_num_workers", "run_name",
    },
}  # fmt: skip


def check_one_process(arguments: TrainingArguments) -> None:
    """Raise `RecipeError` for a personalization in several processes or on several devices."""
    if arguments.world_size > 1 or arguments.n_gpu > 1:
        raise RecipeError(
            "personalization runs in one process on one device: start it without torchrun, with CUDA_VISIBLE_DEVICES=0"
        )


def claim_output(folder: Path, settings: Mapping[str, Mapping[str, Any]], overwrite: bool = False) -> None:
    """Make `folder` the output of the run described by `settings`; a folder of the same run is continued, one in which
    nothing was trained (the recipe was refused) is taken over.

    Args:
        settings: group -> field -> value, JSON types only.
        overwrite: discard another run found there.

    Raises:
        RecipeError: the folder holds another run and `overwrite` is off, or holds something that is no run.
    """
    record = folder / SETTINGS_FILE
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"output_dir {folder} is a file; name a folder")
    if record.is_file():
        earlier = json.loads(record.read_text(encoding="utf-8"))
        changed = _first_difference(earlier, settings)
        if changed and not overwrite and _has_trained(folder):
            raise RecipeError(
                f"{folder} holds another run ({changed}): pass --output_dir for a new folder, or --overwrite to "
                "replace it"
            )
        if changed or overwrite:
            _discard(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise RecipeError(f"output_dir {folder} is not empty and holds no run: name a new or empty folder")
    write_json(record, settings)


def _first_difference(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    for group, values in settings.items():
        old = earlier.get(group, {})
        for name in sorted({*old, *values} - _FREE.get(group, set())):
            if old.get(name) != values.get(name):
                return f"{name}: {old.get(name)} there, {values.get(name)} here"
    return None


def _has_trained(folder: Path) -> bool:
    # a run may hold those of several users: users/NAME/seed-0
    return any(folder.glob("seed-*")) or any(folder.glob("*/*/seed-*")) or (folder / "results.json").is_file()


def _discard(folder: Path) -> None:
    """Remove what a run writes, and nothing else a user may have put beside it."""
    for entry in folder.iterdir():
        if re.fullmatch(r"seed-\d+|reconstructions|users|from_scratch", entry.name) and entry.is_dir():
            shutil.rmtree(entry)
        elif entry.suffix in {".json", ".png", ".safetensors", ".wav", ".npz"} or entry.name == "README.md":
            entry.unlink()


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest `checkpoint-N` that was written to its end; those cut short by a kill are removed."""
    complete = None
    for checkpoint in _checkpoints(folder):
        if (checkpoint / "trainer_state.json").is_file():  # written last
            complete = checkpoint
        else:
            shutil.rmtree(checkpoint)
    if complete is not None:
        _relocate_best(complete)
    return complete


def _relocate_best(checkpoint: Path) -> None:
    """The state names the best checkpoint by its path at the time; point it into the folder as it is now."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    here = str(checkpoint.parent / Path(best).name) if best else best
    if best != here:
        write_json(path, state | {"best_model_checkpoint": here})


def remove_checkpoints(folder: Path) -> None:
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Hardware and versions, for the reader of a report."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {_cpu_name()}"
    return {
        "hardware": hardware,
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("tinymyo-hf", "torch", "transformers", "datasets")},
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"
