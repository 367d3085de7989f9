"""How much a frozen encoder knows about gestures: a linear classifier on its features, fitted in seconds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dataset_builders.base import load_corpus
from dataset_builders.torch_view import WindowDataset
from tinymyo_hf import TinyMyoForPreTraining
from trainers.corpora import evenly_spaced
from trainers.errors import RecipeError
from trainers.pretrain_arguments import ProbeArguments

BATCH = 128


@dataclass
class LinearProbe:
    """Labelled windows of a corpus: a classifier is fitted on `train` and scored on `validation`.

    Attributes:
        dataset: name of the corpus.
        windows: split -> float32 (windows, channels, time).
        labels: split -> int64 (windows,).
    """

    dataset: str
    windows: dict[str, torch.Tensor]
    labels: dict[str, np.ndarray]

    @classmethod
    def load(
        cls,
        arguments: ProbeArguments,
        sampling_rate: float,
        patch_size: int,
        num_proc: int | None = None,
        cache_dir: str | None = None,
    ) -> LinearProbe:
        """Prepare the corpus.

        Args:
            sampling_rate: Hz of the windows the encoder learns from.
            patch_size: samples per token.

        Raises:
            RecipeError: no labels, no training or validation windows, another sampling rate, or broken patches.
            DataError: the data cannot be read.
        """
        data, extractor = load_corpus(
            arguments.dataset,
            data_dir=arguments.data_dir,
            num_proc=num_proc,
            cache_dir=cache_dir,
            **arguments.dataset_config,
        )
        name = arguments.dataset
        if extractor.sampling_rate != sampling_rate or extractor.window_length % patch_size:
            raise RecipeError(
                f"probe: windows of {name} have {extractor.window_length} samples at {extractor.sampling_rate:g} Hz; "
                f"the encoder learns from {sampling_rate:g} Hz in patches of {patch_size}: change its dataset_config"
            )
        windows, labels = {}, {}
        for split in ("train", "validation"):
            if "label" not in data.get("train", {}).features or not len(data.get(split, ())):
                raise RecipeError(f"probe: {name} has no labelled windows in its {split} split; choose another corpus")
            view = evenly_spaced(WindowDataset(data[split], columns=["label"]), arguments.max_windows)
            items = view.__getitems__(range(len(view)))
            windows[split] = torch.stack([item["input_values"] for item in items])
            labels[split] = np.array([item["labels"] for item in items])
        return cls(name, windows, labels)

    def score(self, model: TinyMyoForPreTraining, device: torch.device) -> dict[str, float]:
        """Fit and score: `{"probe_accuracy", "probe_f1_macro"}` on the validation windows, fractions."""
        model.eval()
        features = {split: encode(model, windows, device) for split, windows in self.windows.items()}
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a score to compare with, not a model to keep
            classifier.fit(features["train"], self.labels["train"])
        predicted = classifier.predict(features["validation"])
        return {
            "probe_accuracy": float(accuracy_score(self.labels["validation"], predicted)),
            "probe_f1_macro": float(f1_score(self.labels["validation"], predicted, average="macro")),
        }


@torch.no_grad()
def encode(model: TinyMyoForPreTraining, windows: torch.Tensor, device: torch.device) -> np.ndarray:
    """(windows, channels, time) -> float32 (windows, channels * hidden_size): the encoder's tokens averaged over time,
    the channels side by side. Nothing is masked."""
    channels, tokens = windows.shape[1], windows.shape[1] * (windows.shape[2] // model.config.patch_size)
    features: list[np.ndarray] = []

    def keep(module: torch.nn.Module, inputs: tuple, states: torch.Tensor) -> None:
        features.append(states.unflatten(1, (channels, -1)).mean(dim=2).flatten(1).float().cpu().numpy())

    # Through the whole model, because sharded weights are gathered by its own forward pass only.
    hook = model.tinymyo.norm.register_forward_hook(keep)  # (batch, tokens, hidden)
    try:
        for batch in windows.split(BATCH):
            nothing = torch.zeros(len(batch), tokens, dtype=torch.bool, device=device)
            model(input_values=batch.to(device), bool_masked_pos=nothing)
    finally:
        hook.remove()
    return np.concatenate(features)
