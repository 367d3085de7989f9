"""Ninapro DB8: 10 people and 2 amputees, 16 Trigno electrodes, finger angles of a data glove on the other hand.

Source: https://ninapro.hevs.ch/instructions/DB8.html, one file per session; Krasoulis et al., Frontiers in Neuroscience
13:891, 2019. Licence: none stated on the page, which asks that publications cite the paper.

Raw layout, as downloaded: `S1_E1_A1.mat` to `S12_E1_A3.mat`: `emg` (time, 16) and `glove` (time, 18), degrees, both at
2000 Hz (the EMG was sampled at 1111 Hz and upsampled by the corpus's authors). Sessions A1 and A2 have 10 repetitions
of nine movements made with both hands at once, A3 has 2. Samples of which the glove lacks a value are dropped.

Targets: 5 degrees of actuation (DoA) of a prosthetic hand, degrees, weighted sums of the glove's 18 degrees of freedom
(Krasoulis et al. 2019, supplement, equation S2), one frame per sample, or the mean of `target_hop` samples.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .base import Download, EmgBuilderConfig, Recording, Signal
from .config import FROM_PROTOCOL
from .errors import RecordingError
from .ninapro import SITE, NinaproBuilder, RawFile, checked_columns, read_variables

GLOVE_SENSORS = 18
ACTUATION_WEIGHTS = {
    "thumb rotation": {0: 0.639, 1: 0.383, 3: -0.639, 16: -0.19},
    "thumb flexion": {2: 1.0},
    "index flexion": {4: 0.4, 5: 0.6},
    "middle flexion": {6: 0.4, 7: 0.6},
    "ring and little flexion": {9: 0.1667, 10: 0.3333, 12: 0.1667, 13: 0.3333},
}
"""Weight of each glove sensor, counting from 0, in each degree of actuation."""


@dataclass
class NinaproDb8Config(EmgBuilderConfig):
    """Windows of 200 samples without overlap; for the other published setting, window_length=1000 and stride=1000.

    "paper": no filter (the corpus is distributed filtered), sessions A1 and A2 train, A3 validation; the paper's
    figures are those on A3, and there is no further test split.
    "reference", the released code: band-pass 20 to 90 Hz and notch as if a sample lasted 1/1111 s; A1 train, A2
    validation, A3 test.
    """

    name: str = "ninapro_db8"
    sampling_rate: float | str | None = FROM_PROTOCOL
    stride: int = 200
    band_pass: tuple[float, float] | str | None = FROM_PROTOCOL
    notch_frequencies: tuple[float, ...] | str = FROM_PROTOCOL

    PROTOCOL_FIELDS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"sampling_rate": 2000.0, "band_pass": None, "notch_frequencies": ()},
        "reference": {"sampling_rate": 1111.0, "band_pass": (20.0, 90.0), "notch_frequencies": (50.0,)},
    }


class NinaproDb8(NinaproBuilder):
    """Ninapro DB8: 16 channels, regression of 5 degrees of actuation of the hand; split by session."""

    BUILDER_CONFIG_CLASS = NinaproDb8Config
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = f"{SITE}/instructions/DB8.html"
    CITATION = (
        "Krasoulis A., Vijayakumar S., Nazarpour K. Effect of user practice on prosthetic finger control with an "
        "intuitive myoelectric decoder. Frontiers in Neuroscience 13:891, 2019. doi:10.3389/fnins.2019.00891"
    )
    LAYOUT = "files S1_E1_A1.mat to S12_E1_A3.mat"
    DOWNLOADS = tuple(
        Download(f"{SITE}/files/DB8/S{i}_E1_A{session}.mat", f"S{i}_E1_A{session}.mat")
        for i in range(1, 13)
        for session in (1, 2, 3)
    )
    FILE_NAME = re.compile(r"S(?P<subject>\d+)_E1_(?P<session>A\d)\.mat", re.IGNORECASE)
    SUBJECTS = 12
    SESSIONS = ("A1", "A2", "A3")
    CHANNELS = 16
    RATE = 2000.0
    SPLIT_OF_SESSION: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {"A1": "train", "A2": "train", "A3": "validation"},
        "reference": {"A1": "train", "A2": "validation", "A3": "test"},
    }

    def task(self) -> str:
        """Angles, no classes."""
        return "regression"

    def target_names(self) -> tuple[str, ...]:
        """The degrees of actuation."""
        return tuple(ACTUATION_WEIGHTS)

    def file_rate(self) -> float:
        """2000 Hz, or what the released code takes it for."""
        return self.config.fields_of_protocol()["sampling_rate"]

    def shares(self, file: RawFile) -> dict[str, tuple[int, ...] | None]:
        """The split of the session."""
        return {self.SPLIT_OF_SESSION[self.config.protocol][file.session]: None}

    def read_recording(self, recording: Recording) -> Signal:
        """The samples with a complete glove reading, and the degrees of actuation at each."""
        variables, notes = read_variables(Path(recording.path), ("emg", "glove"))
        emg = checked_columns(variables["emg"], self.CHANNELS, f"{recording.path}, variable 'emg'")
        glove = checked_columns(variables["glove"], GLOVE_SENSORS, f"{recording.path}, variable 'glove'")
        complete = np.isfinite(glove).all(axis=1)
        if not complete.any():
            raise RecordingError(f"{recording.path}, variable 'glove': no sample is complete; leave the recording out")
        notes["samples without a complete glove reading"] = int(len(complete) - complete.sum())
        emg, targets = emg[complete], actuation(glove[complete])
        hop = self.config.target_hop
        if hop > 1:
            frames = len(targets) // hop
            targets = targets[: frames * hop].reshape(frames, hop, -1).mean(axis=1)
        with np.errstate(over="ignore"):  # an infinite target is refused by name later
            targets = targets.astype(np.float32)
        return Signal(emg.T, self.file_rate(), targets=targets, notes=dict(+notes))


def actuation(glove: np.ndarray) -> np.ndarray:
    """Degrees of actuation (time, 5) of glove readings (time, 18), in their unit."""
    weights = np.zeros((GLOVE_SENSORS, len(ACTUATION_WEIGHTS)))
    for column, of_sensor in enumerate(ACTUATION_WEIGHTS.values()):
        for sensor, weight in of_sensor.items():
            weights[sensor, column] = weight
    return glove.astype(np.float64) @ weights
