"""Ninapro DB5: 10 people, two Myo armbands (16 channels, 200 Hz), 52 movements and rest, 6 repetitions each.

Source: https://ninapro.hevs.ch/instructions/DB5.html, one archive per subject (`s1.zip`); Pizzolato et al., PLoS ONE
12(10):e0186132, 2017. Licence: none stated on the page, which asks that publications cite the paper.

Raw layout, as downloaded: `s1/S1_E1_A1.mat` to `s10/S10_E3_A1.mat`, one file per exercise: `emg` (time, 16),
`restimulus`, `rerepetition` (time, 1). Movements are numbered from 1 in each exercise, of which there are 12, 17 and
23; the file's name says which it is (the variable `exercise` does not agree with it). Class 0 is rest; exercise 2
starts at class 13, exercise 3 at class 30. The session of a recording is its exercise, "E1" to "E3".
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Download, EmgBuilderConfig, Recording
from .config import FROM_PROTOCOL
from .ninapro import FINGERS, GRASPS, POSTURES, REST, SITE, MovementBuilder, checked_movements

MOVEMENTS = {"E1": (0, len(FINGERS)), "E2": (12, len(POSTURES)), "E3": (29, len(GRASPS))}
"""First class less one, and number of movements, of each exercise."""


@dataclass
class NinaproDb5Config(EmgBuilderConfig):
    """200-sample windows with stride 50; the other published setting is 1000 samples.

    "paper": repetitions 1, 3, 4, 6 train, 2 validation, 5 test. Windows have the label of their first sample and keep
    the transitions between rest and movement, but stay within a repetition: no sample is in two splits.
    "reference", the released code: repetitions 1, 2, 5 train, 4, 6 validation, 3 test. Windows lie on a grid over the
    recording, with label and repetition of their first sample, so that those at the border of two repetitions have
    samples in both; the last is zero-padded. (The code goes on to the end of the grid, which adds up to
    window_length / stride - 1 windows per file that are padding for the most part, and stores augmented copies of the
    training windows; here augmentation belongs to training.)
    """

    name: str = "ninapro_db5"
    stride: int = 50
    window_labels: str = FROM_PROTOCOL
    pad_end: bool | str = FROM_PROTOCOL

    PROTOCOL_FIELDS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"window_labels": "repetition", "pad_end": False},
        "reference": {"window_labels": "first_sample", "pad_end": True},
    }


class NinaproDb5(MovementBuilder):
    """Ninapro DB5: two Myo armbands, 16 channels, 52 movements and rest; split by repetition."""

    BUILDER_CONFIG_CLASS = NinaproDb5Config
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = f"{SITE}/instructions/DB5.html"
    CITATION = (
        "Pizzolato S., Tagliapietra L., Cognolato M., Reggiani M., Müller H., Atzori M. Comparison of six "
        "electromyography acquisition setups on hand movement classification tasks. PLoS ONE 12(10):e0186132, 2017. "
        "doi:10.1371/journal.pone.0186132"
    )
    LAYOUT = "files S1_E1_A1.mat to S10_E3_A1.mat, in folders (s1 to s10) or in the archives s1.zip to s10.zip"
    DOWNLOADS = tuple(Download(f"{SITE}/files/DB5_Preproc/s{i}.zip", f"s{i}.zip") for i in range(1, 11))
    FILE_NAME = re.compile(r"S(?P<subject>\d+)_(?P<session>E\d)_A1\.mat", re.IGNORECASE)
    SUBJECTS = 10
    SESSIONS = tuple(MOVEMENTS)
    CHANNELS = 16
    RATE = 200.0
    REPETITIONS: ClassVar = {
        "paper": {"train": (1, 3, 4, 6), "validation": (2,), "test": (5,)},
        "reference": {"train": (1, 2, 5), "validation": (4, 6), "test": (3,)},
    }

    def class_names(self) -> tuple[str, ...]:
        """Rest and the movements of the three exercises, 53 in all."""
        return (REST, *FINGERS, *POSTURES, *GRASPS)

    def class_ids(self, movements: np.ndarray, recording: Recording) -> np.ndarray:
        """Numbered through the exercises."""
        offset, count = MOVEMENTS[recording.session]
        checked_movements(movements, range(1, count + 1), recording.path)
        return np.where(movements == 0, 0, movements + offset)
