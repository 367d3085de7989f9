"""How near synthesised speech is to what was said: distances of spectra, and phones.

Silent speech is scored along the path of dynamic time warping on which the spectra are nearest to each other, as
utterances of different pace are; the phones have no part in that. A target frame to which several predicted frames
belong counts once, with their mean. Speech read aloud is scored frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.fft import dct
from scipy.spatial.distance import cdist

from trainers.dtw import Path, dtw_path, one_per_column

NUM_CEPSTRA = 24
_DECIBEL = 10 / np.log(10)


@dataclass(frozen=True)
class Prediction:
    """What was predicted of an utterance, and what was said.

    Attributes:
        name: of its recording.
        spectrum: predicted log-mel spectrum, (frames, 80), natural logarithm of magnitudes.
        phones: predicted ids, (frames,).
        targets: (target frames, 80).
        target_phones: (target frames,) ids.
        silent: whether the targets belong to another recording of the sentence.
        text: what was said.
    """

    name: str
    spectrum: np.ndarray
    phones: np.ndarray
    targets: np.ndarray
    target_phones: np.ndarray
    silent: bool
    text: str = ""

    @cached_property
    def path(self) -> Path:
        """The pairs of predicted and target frames that are compared."""
        if self.silent:
            return dtw_path(cdist(self.spectrum, self.targets))
        return (np.arange(len(self.targets)),) * 2


def mel_cepstra(log_mel: np.ndarray) -> np.ndarray:
    """Cepstral coefficients 1 to 24 of log-mel spectra (frames, bands): (frames, 24).

    c_k = 2 / bands * sum_n log_mel_n cos(pi k (n + 1/2) / bands), so that the spectrum is its mean plus
    sum_k c_k cos(...). Coefficient 0, the level, is left out.
    """
    return dct(log_mel, type=2, axis=-1)[..., 1 : NUM_CEPSTRA + 1] / log_mel.shape[-1]


def mel_cepstral_distortion(spectrum: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """In dB, of pairs of log-mel frames (pairs, bands): (pairs,).

    10 / ln 10 * sqrt(2 sum_k (c_k - c'_k)^2) over `mel_cepstra` (Kubichek, 1993): the root mean square difference of
    the two spectral envelopes, their levels left aside.
    """
    difference = mel_cepstra(np.asarray(spectrum, np.float64)) - mel_cepstra(np.asarray(targets, np.float64))
    return _DECIBEL * np.sqrt(2 * np.square(difference).sum(axis=-1))


class UtteranceScores(NamedTuple):
    """Sums over the target frames of an utterance: their number, their `mel_distance`, their distortion, and how many
    phones are right."""

    frames: float
    distance: float
    distortion: float
    right_phones: float


def score_utterance(prediction: Prediction) -> UtteranceScores:
    """The scores of an utterance."""
    path = prediction.path
    predicted, targets = prediction.spectrum[path[0]], prediction.targets[path[1]]
    phones = prediction.phones[one_per_column(path)]
    return UtteranceScores(
        len(prediction.targets),
        float(_mean_of_columns(path, np.linalg.norm(predicted - targets, axis=1)).sum()),
        float(_mean_of_columns(path, mel_cepstral_distortion(predicted, targets)).sum()),
        int((phones == prediction.target_phones).sum()),
    )


def totals(scores: Sequence[UtteranceScores]) -> dict[str, float]:
    """Means over all target frames: `mel_distance` (Euclidean, of 80 natural logarithms), `mcd` (dB) and
    `phone_accuracy`."""
    frames, distance, distortion, right_phones = np.sum(scores, axis=0)
    return {
        "mel_distance": float(distance / frames),
        "mcd": float(distortion / frames),
        "phone_accuracy": float(right_phones / frames),
    }


def phone_confusion(predictions: Iterable[Prediction], num_phones: int) -> np.ndarray:
    """Target frames by their phone (row) and the one predicted (column): int64 (phones, phones)."""
    counts = np.zeros((num_phones, num_phones), dtype=np.int64)
    for prediction in predictions:
        np.add.at(counts, (prediction.target_phones, prediction.phones[one_per_column(prediction.path)]), 1)
    return counts


def aligned_spectrum(prediction: Prediction) -> np.ndarray:
    """The predicted frames at the pace of the targets, several of a target frame averaged: (target frames, 80)."""
    rows, columns = prediction.path
    warped = np.zeros_like(prediction.targets)
    np.add.at(warped, columns, prediction.spectrum[rows])
    return warped / np.bincount(columns)[:, None]


def _mean_of_columns(path: Path, values: np.ndarray) -> np.ndarray:
    """The mean over the pairs of each target frame: (target frames,)."""
    columns = path[1]
    return np.bincount(columns, values) / np.bincount(columns)
