"""Ninapro DB6: 10 people, 14 Trigno electrodes at 2000 Hz, 7 grasps 12 times in each of 10 sessions over 5 days.

Source: https://ninapro.hevs.ch/instructions/DB6.html, two archives per subject (`DB6_s1_a.zip`, `DB6_s1_b.zip`);
Palermo et al., ICORR 2017. Licence: none stated on the page, which asks that publications cite the paper.

Raw layout, as downloaded: `S1_D1_T1.mat` to `S10_D5_T2.mat` (subject, day, morning or afternoon): `emg` (time, 16), of
which columns 8 and 9, counting from 0, are empty and dropped; `restimulus` (0 for rest, and the grasps 1, 3, 4, 6, 9,
10, 11) and `rerepetition` (time, 1). The session of a recording is "D1_T1" to "D5_T2".
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Download, Recording
from .errors import RecordingError
from .ninapro import REST, SITE, MovementBuilder, PretrainingConfig, checked_columns

GRASP_NUMBERS = (1, 3, 4, 6, 9, 10, 11)
COLUMNS, EMPTY_COLUMNS = 16, (8, 9)


@dataclass
class NinaproDb6Config(PretrainingConfig):
    """As `PretrainingConfig`. Both protocols: repetitions 1 to 8 of each grasp and session train, 9 and 10 validation,
    11 and 12 test (released code; the paper names no split of its pretraining data).
    """

    name: str = "ninapro_db6"


class NinaproDb6(MovementBuilder):
    """Ninapro DB6: 14 channels, 7 grasps and rest, 10 sessions per person; split by repetition."""

    BUILDER_CONFIG_CLASS = NinaproDb6Config
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = f"{SITE}/instructions/DB6.html"
    CITATION = (
        "Palermo F., Cognolato M., Gijsberts A., Müller H., Caputo B., Atzori M. Repeatability of grasp recognition "
        "for robotic hand prosthesis control based on sEMG data. International Conference on Rehabilitation Robotics "
        "(ICORR), 2017. doi:10.1109/ICORR.2017.8009405"
    )
    LAYOUT = "files S1_D1_T1.mat to S10_D5_T2.mat, or the archives DB6_s1_a.zip to DB6_s10_b.zip"
    DOWNLOADS = tuple(
        Download(f"{SITE}/files/DB6_Preproc/DB6_s{i}_{part}.zip", f"DB6_s{i}_{part}.zip")
        for i in range(1, 11)
        for part in "ab"
    )
    FILE_NAME = re.compile(r"S(?P<subject>\d+)_(?P<session>D\d_T\d)\.mat", re.IGNORECASE)
    SUBJECTS = 10
    SESSIONS = tuple(f"D{day}_T{time}" for day in range(1, 6) for time in (1, 2))
    CHANNELS = COLUMNS - len(EMPTY_COLUMNS)
    RATE = 2000.0
    _SPLIT: ClassVar = {"train": tuple(range(1, 9)), "validation": (9, 10), "test": (11, 12)}
    REPETITIONS: ClassVar = {"paper": _SPLIT, "reference": _SPLIT}

    def class_names(self) -> tuple[str, ...]:
        """Rest and the grasps, by their numbers in the files."""
        return (REST, *(f"grasp {number}" for number in GRASP_NUMBERS))

    def class_ids(self, movements: np.ndarray, recording: Recording) -> np.ndarray:
        """Numbered without gaps."""
        numbers = np.array([0, *GRASP_NUMBERS])
        ids = np.searchsorted(numbers, movements).clip(max=len(GRASP_NUMBERS))
        wrong = np.flatnonzero(numbers[ids] != movements)
        if wrong.size:
            raise RecordingError(
                f"{recording.path}, variable 'restimulus', sample {wrong[0]}: grasp {movements[wrong[0]]}, but the "
                f"grasps are {', '.join(map(str, GRASP_NUMBERS))}; is the file of another database?"
            )
        return ids

    def electrodes(self, emg: np.ndarray, where: str) -> np.ndarray:
        """Without the empty columns."""
        if emg.shape[1] == self.CHANNELS:
            return emg
        emg = checked_columns(emg, COLUMNS, f"{where}, variable 'emg'")
        if emg[:, EMPTY_COLUMNS].any():
            raise RecordingError(
                f"{where}, variable 'emg': columns 8 and 9 hold values where this database has none, so the 14 "
                "electrodes cannot be told; download the file again or leave it out"
            )
        return np.delete(emg, EMPTY_COLUMNS, axis=1)
