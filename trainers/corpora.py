"""The corpora of a mix: prepared, checked against each other, and seen as windows of one shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from dataset_builders.base import BUILDERS, load_corpus
from dataset_builders.continuous_view import ContinuousDataset, Cutting
from dataset_builders.torch_view import WindowDataset
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.errors import RecipeError
from trainers.pretrain_arguments import CorpusArguments, PretrainingArguments
from trainers.window_mix import WindowMix


@dataclass
class Corpus:
    """One corpus of the mix.

    Attributes:
        name: its dataset, numbered where a recipe names it twice.
        arguments: its entry in the recipe.
        splits: "train", and "validation" where it has one.
        extractor: the preprocessing that made it.
    """

    name: str
    arguments: CorpusArguments
    splits: datasets.DatasetDict
    extractor: TinyMyoFeatureExtractor

    @property
    def stores_recordings(self) -> bool:
        """Whether windows are cut as they are needed."""
        return "recording_length" in self.splits["train"].features

    @property
    def channels(self) -> int:
        """Of every window."""
        return self.splits["train"].features["input_values"].length

    def view(self, split: str, seed: int = 0) -> torch.utils.data.Dataset:
        """Windows (channels, `window_length`) of a split, normalised as the corpus says.

        Raises:
            RecipeError: no recording of the split is as long as a window.
        """
        data = self.splits[split]
        if not self.stores_recordings:
            return WindowDataset(data, columns=())
        length = self.extractor.window_length
        long_enough = np.flatnonzero(np.asarray(data.data.column("recording_length"))[_rows(data)] >= length)
        if not len(long_enough):
            raise RecipeError(f"corpus {self.name}: no recording of its {split} split has {length} samples, a window")
        cutting = Cutting(length, self.extractor.stride, jitter=self.arguments.jitter and split == "train")
        whole = data if len(long_enough) == len(data) else data.select(long_enough)
        return ContinuousDataset(whole, cutting, extractor=self.extractor, seed=seed)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `results.json` says about it."""
        return {
            "name": self.name,
            "dataset": self.arguments.dataset,
            "channels": self.channels,
            "windows": {split: len(self.view(split)) for split in self.splits},
            "subjects": {split: _distinct(data, "subject") for split, data in self.splits.items()},
            "recordings": {split: _distinct(data, "recording") for split, data in self.splits.items()},
            "rows": "recordings" if self.stores_recordings else "windows",
            "jitter": self.arguments.jitter,
            "probability": self.arguments.probability,
            "preprocessing": json.loads(self.extractor.to_json_string()),
            "licence": self.splits["train"].info.license or "not stated",
            "citation": self.splits["train"].info.citation,
        }


def _rows(data: datasets.Dataset) -> np.ndarray:
    """Row of the table for each row of the dataset."""
    return np.arange(len(data)) if data._indices is None else data._indices.column(0).to_numpy()


def _distinct(data: datasets.Dataset, column: str) -> int | None:
    return len(data.unique(column)) if column in data.features else None


def load_corpora(
    mix: Sequence[CorpusArguments], num_proc: int | None = None, cache_dir: str | None = None
) -> list[Corpus]:
    """Prepare the corpora of a recipe and check that they go together.

    Raises:
        RecipeError: an unknown corpus, one without training windows, none with validation windows, or two whose windows
            differ in length or sampling rate.
        DataError: the data cannot be read.
    """
    named = [entry.dataset for entry in mix]
    for entry in mix:
        name = entry.dataset
        if name not in BUILDERS and "/" not in name and not Path(name).expanduser().is_dir():
            raise RecipeError(
                f"corpora: {name!r} is neither a builder ({', '.join(BUILDERS)}) nor a folder made by `tinymyo prepare`"
            )
    corpora = []
    for i, entry in enumerate(mix):
        name = entry.dataset if named.count(entry.dataset) == 1 else f"{entry.dataset}_{named[:i].count(entry.dataset)}"
        data, extractor = load_corpus(
            entry.dataset, data_dir=entry.data_dir, num_proc=num_proc, cache_dir=cache_dir, **entry.dataset_config
        )
        if len(data.get("train", ())) == 0:
            raise RecipeError(
                f"corpus {name} has no training windows (it has {', '.join(data) or 'no split at all'}): name subjects "
                "for train in its dataset_config, or in the metadata of your folder"
            )
        kept = {split: data[split] for split in ("train", "validation") if len(data.get(split, ()))}
        corpus = Corpus(name, entry, datasets.DatasetDict(kept), extractor)
        if entry.jitter and not corpus.stores_recordings:
            raise RecipeError(
                f"corpus {name}: jitter moves windows within stored recordings, but this corpus stores windows; add "
                "`rows: recordings` to its dataset_config, or leave jitter out"
            )
        corpora.append(corpus)
    _check_alike(corpora)
    if not any("validation" in corpus.splits for corpus in corpora):
        raise RecipeError("no corpus of the mix has a validation split: name subjects for it in a dataset_config")
    return corpora


def _check_alike(corpora: Sequence[Corpus]) -> None:
    first = corpora[0]
    for other in corpora[1:]:
        for field, unit in (("window_length", "samples"), ("sampling_rate", "Hz")):
            mine, theirs = getattr(first.extractor, field), getattr(other.extractor, field)
            if mine != theirs:
                raise RecipeError(
                    f"corpora {first.name} and {other.name} cannot be mixed: {field} is {mine:g} {unit} in one and "
                    f"{theirs:g} {unit} in the other; set it in their dataset_config"
                )


def make_mixes(
    corpora: Sequence[Corpus], arguments: PretrainingArguments, patch_size: int, mask_ratio: float
) -> tuple[WindowMix, WindowMix]:
    """The training windows and the validation windows of all corpora.

    Raises:
        RecipeError: a corpus has more channels than `num_channels`, or windows are no whole number of patches.
    """
    time = corpora[0].extractor.window_length
    if time % patch_size:
        raise RecipeError(
            f"windows of {time} samples are no multiple of the model's patch_size {patch_size}: change window_length "
            "in the dataset_config of every corpus, or model_config.patch_size"
        )
    num_channels = arguments.num_channels or max(corpus.channels for corpus in corpora)
    for corpus in corpora:
        if corpus.channels > num_channels:
            raise RecipeError(
                f"corpus {corpus.name} has {corpus.channels} channels, more than num_channels={num_channels}: raise "
                "it, or select `channels` in its dataset_config"
            )
    shared = {
        "time": time,
        "patch_size": patch_size,
        "mask_ratio": mask_ratio,
        "num_channels": num_channels,
        "seed": arguments.seed,
    }
    processes = arguments.world_size
    train = WindowMix(
        [corpus.view("train", arguments.seed) for corpus in corpora],
        [corpus.channels for corpus in corpora],
        weights=None if corpora[0].arguments.probability is None else [c.arguments.probability for c in corpora],
        windows_per_epoch=arguments.windows_per_epoch,
        batch_size=arguments.train_batch_size * arguments.gradient_accumulation_steps * processes,
        **shared,
    )
    held_out = [corpus for corpus in corpora if "validation" in corpus.splits]
    validation = WindowMix(
        [evenly_spaced(corpus.view("validation"), arguments.validation_windows) for corpus in held_out],
        [corpus.channels for corpus in held_out],
        shuffle=False,
        **shared,
    )
    return train, validation


def evenly_spaced(view: torch.utils.data.Dataset, count: int) -> torch.utils.data.Dataset:
    """At most `count` items of a view, spread over all of it."""
    if len(view) <= count:
        return view
    return torch.utils.data.Subset(view, np.linspace(0, len(view) - 1, count).round().astype(int).tolist())
