"""Ninapro DB7: 20 people and 2 amputees, 12 Trigno electrodes at 2000 Hz, 40 movements and rest, 6 repetitions each.

Source: https://ninapro.hevs.ch/instructions/DB7.html, one archive per subject (`Subject_1.zip`); Krasoulis et al.,
Journal of NeuroEngineering and Rehabilitation 14:71, 2017. Licence: none stated on the page, which asks that
publications cite the paper.

Raw layout, as downloaded: `Subject_1/S1_E1_A1.mat` to `Subject_22/S22_E2_A1.mat` (the archives have the files without
the folder): `emg` (time, 12), `restimulus`, `rerepetition` (time, 1), and inertial and glove data that are not read.
Exercise 1 has movements 1 to 17, exercise 2 movements 18 to 40; files that number exercise 2 from 1 are understood.
The session of a recording is its exercise, "E1" or "E2".
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Download, Recording
from .ninapro import GRASPS, POSTURES, REST, SITE, MovementBuilder, PretrainingConfig, checked_movements


@dataclass
class NinaproDb7Config(PretrainingConfig):
    """As `PretrainingConfig`. Both protocols: repetitions 1 to 4 train, 5 validation, 6 test (released code; the paper
    names no split of its pretraining data).
    """

    name: str = "ninapro_db7"


class NinaproDb7(MovementBuilder):
    """Ninapro DB7: 12 channels, 40 movements and rest, 20 people and 2 amputees (21, 22); split by repetition."""

    BUILDER_CONFIG_CLASS = NinaproDb7Config
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = f"{SITE}/instructions/DB7.html"
    CITATION = (
        "Krasoulis A., Kyranou I., Erden M.S., Nazarpour K., Vijayakumar S. Improved prosthetic hand control with "
        "concurrent use of myoelectric and inertial measurements. Journal of NeuroEngineering and Rehabilitation "
        "14:71, 2017. doi:10.1186/s12984-017-0284-4"
    )
    LAYOUT = "files S1_E1_A1.mat to S22_E2_A1.mat, in folders (Subject_1 to Subject_22) or archives (Subject_1.zip ...)"
    DOWNLOADS = tuple(Download(f"{SITE}/files/DB7_Preproc/Subject_{i}.zip", f"Subject_{i}.zip") for i in range(1, 23))
    FILE_NAME = re.compile(r"S(?P<subject>\d+)_(?P<session>E\d)_A1\.mat", re.IGNORECASE)
    SUBJECTS = 22
    SESSIONS = ("E1", "E2")
    CHANNELS = 12
    RATE = 2000.0
    _SPLIT: ClassVar = {"train": (1, 2, 3, 4), "validation": (5,), "test": (6,)}
    REPETITIONS: ClassVar = {"paper": _SPLIT, "reference": _SPLIT}

    def class_names(self) -> tuple[str, ...]:
        """Rest and the movements of both exercises, 41 in all."""
        return (REST, *POSTURES, *GRASPS)

    def class_ids(self, movements: np.ndarray, recording: Recording) -> np.ndarray:
        """Numbered through the exercises."""
        first = len(POSTURES)
        if recording.session == "E1":
            known = range(1, first + 1)
        elif ((movements > 0) & (movements <= first)).any():
            known = range(1, len(GRASPS) + 1)
        else:
            known = range(first + 1, first + len(GRASPS) + 1)
        checked_movements(movements, known, recording.path)
        restarts = recording.session == "E2" and known[0] == 1
        return np.where(movements == 0, 0, movements + (first if restarts else 0))
