"""Folders that `prepare` wrote, or Hub repositories of them, read again."""

import os
from pathlib import Path

import datasets
from huggingface_hub import DatasetCard, hf_hub_download

from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

from .errors import LayoutError


def load_prepared(
    name: str, cache_dir: str | os.PathLike | None = None, streaming: bool = False
) -> tuple[datasets.DatasetDict | datasets.IterableDatasetDict, TinyMyoFeatureExtractor]:
    """A prepared folder, or the Hub repository of one."""
    cache = str(cache_dir) if cache_dir else None
    local = Path(name).is_dir()
    if local and not (Path(name) / "preprocessor_config.json").is_file():
        raise LayoutError(
            f"{name} is not a prepared dataset (no preprocessor_config.json). Recordings of your own are read with "
            f'load_corpus("emg_folder", data_dir="{name}")'
        )
    try:
        data = datasets.load_dataset(name, cache_dir=cache, streaming=streaming)
        folder = name if local else Path(hf_hub_download(name, "preprocessor_config.json", repo_type="dataset")).parent
        return data, TinyMyoFeatureExtractor.from_pretrained(folder)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        fix = "copy it again if files are missing or cut off, or prepare it again" if local else "check the name"
        raise LayoutError(f"{name} cannot be read as a prepared dataset ({error.__cause__ or error}): {fix}") from error


def prepared_target_names(name: str | os.PathLike) -> tuple[str, ...]:
    """Names of the targets of a prepared folder or of the Hub repository of one, from its card.

    Empty without targets, and for folders prepared before their names were stored.
    """
    path = Path(os.path.expanduser(name))
    try:
        card = DatasetCard.load(path / "README.md" if path.is_dir() else str(name))
    except (OSError, ValueError):  # the data can be read without its card
        return ()
    return tuple(card.data.get("target_names") or ())
