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
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoModel
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

    def score(self, encoder: TinyMyoModel, device: torch.device) -> dict[str, float]:
        """Fit and score: `{"probe_accuracy", "probe_f1_macro"}` on the validation windows, fractions."""
        training = encoder.training
        encoder.eval()
        features = {split: encode(encoder, windows, device) for split, windows in self.windows.items()}
        encoder.train(training)
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
def encode(encoder: TinyMyoModel, windows: torch.Tensor, device: torch.device) -> np.ndarray:
    """(windows, channels, time) -> float32 (windows, channels * hidden_size): tokens averaged over time, the channels
    side by side."""
    features = []
    for batch in windows.split(BATCH):
        states = encoder(batch.to(device)).last_hidden_state  # (batch, channels * patches, hidden)
        features.append(states.unflatten(1, (windows.shape[1], -1)).mean(dim=2).flatten(1).float().cpu().numpy())
    return np.concatenate(features)
