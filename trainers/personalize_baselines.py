"""What somebody would do with a few repetitions of their own and no neural network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from trainers.baselines import make_classifiers
from trainers.metrics import HEADLINE_METRICS, classification_metrics
from trainers.repetitions import ShotSplit

WITH_OTHERS, ALONE = "{}, others and own", "{}, own only"


def headline_scores(
    scores: np.ndarray, labels: np.ndarray, probabilities: bool = False
) -> dict[str, float | int | None]:
    """The headline metrics of one evaluation and its number of `windows`; arguments as of `classification_metrics`."""
    found = classification_metrics(scores, labels, probabilities=probabilities)
    return {name: found[name] for name in (*HEADLINE_METRICS, "windows")}


class ClassicalModels:
    """LDA (with shrinkage) and a random forest on time-domain features, for the people of one fold.

    Args:
        features, labels: of all windows of the corpus, (windows, features) and (windows,).
        others: rows of the people that the generic network was trained on; may be empty.
        num_labels: classes; one that a model has not seen gets probability 0.
        seed: of the forest.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, others: np.ndarray, num_labels: int, seed: int):
        self.features = features
        self.labels = labels
        self.others = others
        self.num_labels = num_labels
        self.seed = seed

    def rows(self, split: ShotSplit) -> Iterator[dict[str, Any]]:
        """`{"model", "shots", scores, "seconds" of fitting}` for one person: with the others' windows, and without."""
        for name in self._unfitted():
            for shots, own in split.calibration.items():
                if len(self.others):
                    started = time.perf_counter()
                    model = self._fit(name, np.concatenate([self.others, own])) if shots else self._without_own[name]
                    yield self._row(WITH_OTHERS.format(name), model, shots, split, started)
        for name in self._unfitted():
            for shots, own in split.calibration.items():
                if shots:
                    started = time.perf_counter()
                    yield self._row(ALONE.format(name), self._fit(name, own), shots, split, started)

    @cached_property
    def _without_own(self) -> dict[str, Any]:
        """Fitted once: they are the same for everybody."""
        return {name: self._fit(name, self.others) for name in self._unfitted()}

    def _unfitted(self) -> dict[str, Any]:
        return make_classifiers(self.seed, n_jobs=-1, few_windows=True)

    def _fit(self, name: str, rows: np.ndarray) -> Any:
        return self._unfitted()[name].fit(self.features[rows], self.labels[rows])

    def _row(self, title: str, model: Any, shots: int, split: ShotSplit, started: float) -> dict[str, Any]:
        seconds = time.perf_counter() - started
        probabilities = np.zeros((len(split.evaluation), self.num_labels))
        probabilities[:, model.classes_] = model.predict_proba(self.features[split.evaluation])
        scores = headline_scores(probabilities, self.labels[split.evaluation], probabilities=True)
        return {"model": title, "shots": shots, **scores, "seconds": round(seconds, 2)}
