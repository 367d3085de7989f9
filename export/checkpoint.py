"""A checkpoint with all that an export takes from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BESIDE = ("lexicon.txt", "lm.arpa")
"""Files of a checkpoint that its task reads where they are there."""
RANGES = "activation_ranges.json"
_TASKS_WITHOUT_PIPELINE = {"ForPreTraining": "reconstruction", "Model": "embedding"}


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded.

    Attributes:
        name: as the user named it.
        model: on the CPU, in float32, in evaluation mode.
        extractor: its feature extractor.
        tokenizer: of models that write text, else None.
        card: the text of its README.md, "" where it has none.
        beside: further files that belong to it, by name.
        ranges: file of the ranges that quantization-aware training found; None where there was none.
    """

    name: str
    model: PreTrainedModel
    extractor: Any
    tokenizer: Any
    card: str
    beside: dict[str, Path]
    ranges: Path | None

    @property
    def task(self) -> str:
        """The pipeline for the model, or "embedding" and "reconstruction" of models without a task."""
        from tinymyo_hf.tasks import task_of

        name = type(self.model).__name__
        tasks = (task for ending, task in _TASKS_WITHOUT_PIPELINE.items() if name.endswith(ending))
        return task_of([name]) or next(tasks)

    def save(self, folder: Path) -> None:
        """Write all but the weights and the card."""
        import shutil

        self.model.config.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        for name, path in self.beside.items():
            shutil.copyfile(path, folder / name)


def load_checkpoint(source: str) -> Checkpoint:
    """Load a checkpoint, a folder or a Hub id.

    Raises:
        PredictionError: it cannot be loaded, or is not whole.
        ExportError: its feature extractor or tokenizer is missing, or its card cannot be read.
    """
    import torch

    from tinymyo_hf.pipelines.loading import load_model

    model = load_model(source).to("cpu", torch.float32).eval()
    beside = {name: path for name in BESIDE if (path := _file(source, name)) is not None}
    return Checkpoint(
        name=source,
        model=model,
        extractor=_part("AutoFeatureExtractor", source, "preprocessor_config.json"),
        tokenizer=_part("AutoTokenizer", source, "vocab.json") if type(model).__name__.endswith("ForCTC") else None,
        card=_card(source),
        beside=beside,
        ranges=_file(source, RANGES),
    )


def read_ranges(path: Path) -> dict[str, dict[str, list[float]]]:
    """What is in the file of `Checkpoint.ranges`: layer -> "input" or "output" -> [lowest, highest].

    Raises:
        ExportError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read ({error}); copy the checkpoint again") from None


def _part(loader: str, source: str, file: str) -> Any:
    import transformers

    from tinymyo_hf.quiet import quiet

    try:
        with quiet():
            return getattr(transformers, loader).from_pretrained(source)
    except (OSError, ValueError, AttributeError, TypeError) as error:  # the last two of JSON that is no object
        reason = " ".join(str(error).split())
        raise ExportError(f"{source}: {file} is missing or damaged ({reason}); copy the checkpoint again") from error


def _card(source: str) -> str:
    """The text of its README.md, whose metadata hold the licence."""
    import yaml
    from huggingface_hub import ModelCard

    path = _file(source, "README.md")
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="utf-8")
        ModelCard(text, ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"{source}: README.md cannot be read as a model card ({reason}); put it right") from error
    return text


def _file(source: str, name: str) -> Path | None:
    """A file of the checkpoint, where it has it."""
    from transformers.utils import cached_file

    path = cached_file(
        source,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)
