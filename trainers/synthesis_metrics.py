"""How near synthesised speech is to what was said: distances of spectra, and phones.

Silent speech is scored along the path of dynamic time warping on which the spectra are nearest to each other, as
utterances of different pace are; the phones have no part in that. A target frame to which several predicted frames
belong counts once, with their mean. Speech read aloud is scored frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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


@dataclass
class SynthesisScores:
    """Sums over utterances.

    Attributes:
        confusion: (phones, phones) target frames by their phone (row) and the one predicted (column).
        rows: one per utterance.
    """

    num_phones: int
    frames: int = 0
    distance: float = 0.0
    distortion: float = 0.0
    confusion: np.ndarray = field(init=False)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.num_phones, self.num_phones), dtype=np.int64)

    def add(self, prediction: Prediction) -> None:
        """Count an utterance in."""
        path = prediction.path()
        predicted, targets = prediction.spectrum[path[0]], prediction.targets[path[1]]
        frames = len(prediction.targets)
        distance = _mean_of_columns(path, np.linalg.norm(predicted - targets, axis=1)).sum()
        distortion = _mean_of_columns(path, mel_cepstral_distortion(predicted, targets)).sum()
        self.frames += frames
        self.distance += float(distance)
        self.distortion += float(distortion)
        np.add.at(self.confusion, (prediction.target_phones, prediction.phones[one_per_column(path)]), 1)
        scores = {"mel_distance": float(distance / frames), "mcd": float(distortion / frames)}
        self.rows.append({"recording": prediction.name, "frames": frames, **scores})

    def totals(self) -> dict[str, float]:
        """`mel_distance` (nepers; Euclidean, of 80 bands), `mcd` (dB), `phone_accuracy`: means over target frames."""
        return {
            "mel_distance": self.distance / self.frames,
            "mcd": self.distortion / self.frames,
            "phone_accuracy": float(np.trace(self.confusion)) / self.frames,
        }


def synthesis_scores(predictions: Iterable[Prediction], num_phones: int) -> SynthesisScores:
    """The scores of a split."""
    scores = SynthesisScores(num_phones)
    for prediction in predictions:
        scores.add(prediction)
    return scores


def _mean_of_columns(path: Path, values: np.ndarray) -> np.ndarray:
    """The mean over the pairs of each target frame: (target frames,)."""
    columns = path[1]
    return np.bincount(columns, values) / np.bincount(columns)
