"""A share of a training split: how much a model learns from few labels."""

from __future__ import annotations

import datasets
import numpy as np
import torch

from dataset_builders.continuous_view import ContinuousDataset


def training_fraction(split: datasets.Dataset, fraction: float, seed: int = 0) -> datasets.Dataset:
    """A random share of the windows, of each class alike where there are classes; at least one window of a class.

    A smaller share drawn with the same seed is part of a larger one.
    """
    if fraction == 1.0:
        return split
    classes = np.asarray(split.with_format("numpy")["label"]) if "label" in split.features else np.zeros(len(split))
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(classes):
        order = rng.permutation(np.flatnonzero(classes == label))
        chosen.append(order[: max(1, round(fraction * len(order)))])
    return split.select(np.sort(np.concatenate(chosen)))


class WindowShare(torch.utils.data.Subset):
    """A random share of the windows of a view, at least one. With jitter, the windows still move in every epoch."""

    def __init__(self, windows: ContinuousDataset, fraction: float, seed: int = 0):
        order = np.random.default_rng(seed).permutation(len(windows))
        super().__init__(windows, np.sort(order[: max(1, round(fraction * len(windows)))]).tolist())

    def set_epoch(self, epoch: int) -> None:
        """As of the view; the `Trainer` calls this."""
        self.dataset.set_epoch(epoch)
