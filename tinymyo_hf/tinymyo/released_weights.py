"""Tensors out of checkpoints of released implementations, of which nothing is unpickled beyond tensors, and the folders
they become."""

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file

from tinymyo_hf.tinymyo.configuration_tinymyo import TinyMyoConfig
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoPreTrainedModel

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", "")
STATE_ENTRIES = ("state_dict", "model_state_dict", "generator")


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message names file, keys and the fix."""


class Savable(Protocol):
    """A model, a feature extractor or a tokenizer."""

    def save_pretrained(self, folder: Path) -> object: ...


def check_empty(folder: Path) -> None:
    """Raise `ConversionError` unless `folder` can be made: it does not exist, or is empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConversionError(f"{folder}: exists already and is not an empty folder; remove it or choose another")


def write_folder(folder: Path, parts: Sequence[Savable]) -> None:
    """Save all `parts` in `folder`, which appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.incomplete-", dir=folder.parent))
    try:
        for part in parts:
            part.save_pretrained(unfinished)
        unfinished.chmod(0o755)  # mkdtemp makes it private
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read_tensors(source: Path) -> dict[str, torch.Tensor]:
    """The weights in a file by their reference names, without the prefix that the training put before them all
    (`model.`, `network.`, ...).

    Raises:
        ConversionError: the file is missing, unreadable, holds other things than tensors, or weights that are not
            finite.
    """
    if not source.is_file():
        raise ConversionError(f"{source}: no such file; give a .safetensors or .ckpt file")
    if source.suffix == ".safetensors":
        tensors = _read_safetensors(source)
    elif source.suffix in PICKLE_SUFFIXES:
        tensors = _read_pickle(source)
    else:
        suffixes = ", ".join(filter(None, PICKLE_SUFFIXES))
        raise ConversionError(f"{source}: give a file ending in .safetensors or {suffixes}")
    prefix = _prefix_of(tensors)
    tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    broken = sorted(key for key, tensor in tensors.items() if not torch.isfinite(tensor).all())
    if broken:
        raise ConversionError(f"{source}: NaN or infinite weights{listed('in', broken)}; the training diverged")
    return tensors


def _prefix_of(tensors: dict[str, torch.Tensor]) -> str:
    """What stands before the encoder's blocks."""
    found = (re.match(r"((?:\w+\.)*?)blocks\.\d", key) for key in tensors)
    return next((match[1] for match in found if match), "")


def _read_safetensors(source: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(source)
    except SafetensorError as error:
        with open(source, "rb") as file:
            start = file.read(2)
        # Whole safetensors files may begin so too, with their header's length.
        if start == b"PK" or start[:1] == b"\x80":
            raise ConversionError(
                f"{source}: a pickled checkpoint under the name of a safetensors file; rename it to end in .ckpt (only "
                "its tensors will be read)"
            ) from error
        raise ConversionError(f"{source}: not a whole safetensors file ({error}); download it again") from error


def _read_pickle(source: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost anything on damaged files
        raise ConversionError(
            f"{source}: cannot be read as tensors alone ({type(error).__name__}); it is damaged, or holds other Python "
            "objects, which are not loaded for safety: where it was trained, save its state_dict as safetensors"
        ) from error
    if isinstance(content, dict):
        content = next((content[key] for key in STATE_ENTRIES if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise ConversionError(f"{source}: holds no state dict; give a checkpoint with the entry `state_dict`, or one")
    return content


def listed(what: str, items: list[str], most: int = 12) -> str:
    """`; what: item, item, ...` for the end of a message; nothing if there are no items."""
    if not items:
        return ""
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return f"; {what}: {', '.join(items[:most])}{more}"


def count_blocks(tensors: dict[str, torch.Tensor], name: str) -> int:
    """How many modules `name`.0, `name`.1, ... there are, at least 1."""
    indices = [int(match[1]) for key in tensors if (match := re.match(rf"{name}\.(\d{{1,3}})\.", key))]
    return max(indices, default=0) + 1


def check_names(
    source: Path, found: Collection[str], wanted: Collection[str], optional: Collection[str] = frozenset()
) -> None:
    """Raise `ConversionError` unless the keys of a TinyMyo checkpoint are those `wanted`; `optional` ones may be there
    or not."""
    missing = sorted(set(wanted) - set(found) - set(optional))
    unexpected = sorted(set(found) - set(wanted) - set(optional))
    if missing or unexpected:
        raise ConversionError(
            f"{source}: the keys are not those of a TinyMyo checkpoint{listed('missing', missing)}"
            f"{listed('unexpected', unexpected)}; check that the file is complete and of this model"
        )


def check_dimensions(source: Path, tensors: dict[str, torch.Tensor], dimensions: dict[str, int]) -> None:
    """Raise `ConversionError` where one of `tensors` has other than so many `dimensions`."""
    for key, expected in dimensions.items():
        if key in tensors and tensors[key].ndim != expected:
            raise ConversionError(
                f"{source}: {key} has shape {tuple(tensors[key].shape)} where {expected} dimensions are expected; "
                "check that the file is of this model"
            )


def build_model(
    source: Path, model_class: type[TinyMyoPreTrainedModel], fields: dict[str, object]
) -> TinyMyoPreTrainedModel:
    """A model of these fields of its configuration; `ConversionError` if they contradict each other."""
    try:
        return model_class(TinyMyoConfig(**fields))
    except StrictDataclassError as error:
        raise ConversionError(f"{source}: {error}") from error


def copy_weights(source: Path, model: TinyMyoPreTrainedModel, state: dict[str, torch.Tensor]) -> None:
    """Copy all weights, by native names, into a float32 model; `ConversionError` where their shapes differ."""
    wanted = model.state_dict()
    wrong = [
        f"{key} {tuple(tensor.shape)} instead of {tuple(wanted[key].shape)}"
        for key, tensor in state.items()
        if tensor.shape != wanted[key].shape
    ]
    if wrong:
        raise ConversionError(f"{source}: shapes that do not fit together{listed('in', wrong)}; check the file")
    model.load_state_dict(state)
