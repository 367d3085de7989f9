"""Simulated surface EMG of hand gestures: no files needed, the same everywhere, generated in seconds.

People differ in anatomy, electrode placement, strength, habits and noise (`synthetic_signals`). Each session holds
every gesture a few times in random order, at varying effort; ramps between gestures are unlabelled, as transitions are
in recorded corpora.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .base import UNLABELLED, ConfigError, EmgBuilder, EmgBuilderConfig, Recording, Signal
from .protocols import even_subject_split, repetition_split
from .synthetic_signals import CONTROL_RATE, INNER_RATE, MUSCLES, draw_forearm, next_session, simulate_emg

# drive of each muscle, as a share of its maximum, in a firm but comfortable gesture
GESTURES: dict[str, dict[str, float]] = {
    "rest": {},
    "fist": {
        "flexor_digitorum_superficialis_radial": 0.55,
        "flexor_digitorum_superficialis_ulnar": 0.55,
        "flexor_digitorum_profundus": 0.5,
        "flexor_pollicis_longus": 0.4,
        "extensor_carpi_radialis_brevis": 0.25,
        "extensor_carpi_ulnaris": 0.15,
    },
    "wrist flexion": {
        "flexor_carpi_radialis": 0.5,
        "palmaris_longus": 0.45,
        "flexor_carpi_ulnaris": 0.5,
        "flexor_digitorum_superficialis_ulnar": 0.2,
    },
    "wrist extension": {
        "extensor_carpi_radialis_longus": 0.5,
        "extensor_carpi_radialis_brevis": 0.5,
        "extensor_carpi_ulnaris": 0.45,
        "extensor_digitorum_radial": 0.2,
    },
    "radial deviation": {
        "extensor_carpi_radialis_longus": 0.5,
        "flexor_carpi_radialis": 0.4,
        "abductor_pollicis_longus": 0.4,
        "extensor_carpi_radialis_brevis": 0.2,
    },
    "ulnar deviation": {
        "flexor_carpi_ulnaris": 0.45,
        "extensor_carpi_ulnaris": 0.5,
        "extensor_digiti_minimi": 0.1,
    },
    "pinch": {
        "flexor_pollicis_longus": 0.5,
        "flexor_digitorum_superficialis_radial": 0.4,
        "pronator_teres": 0.15,
        "abductor_pollicis_longus": 0.25,
        "extensor_carpi_radialis_brevis": 0.15,
    },
    "open hand": {
        "extensor_digitorum_radial": 0.5,
        "extensor_digitorum_ulnar": 0.5,
        "extensor_digiti_minimi": 0.4,
        "abductor_pollicis_longus": 0.35,
        "extensor_carpi_ulnaris": 0.15,
    },
}
CLASS_NAMES = tuple(GESTURES)
PAUSE = (0.8, 1.4)  # s between gestures
RAMP = (0.25, 0.5)  # s to reach a gesture and to leave it
EFFORT = (0.3, 1.0)  # of the drive in the table; differs from repetition to repetition
TONE = 0.015  # drive of every muscle at rest


@dataclass
class SyntheticConfig(EmgBuilderConfig):
    """What is simulated; see `EmgBuilderConfig` for the preprocessing.

    Attributes:
        protocol: "unseen_subjects": the last subjects are held out, 20 % for validation and 20 % for test;
            "within_subject": of every subject, the last repetition of each gesture in a session is for test and the
            one before it for validation.
        num_subjects, num_sessions, num_repetitions: sessions per subject, repetitions of each gesture per session.
        hold: seconds for which a gesture is held.
        num_channels: electrodes of the ring.
        seed: another seed, other people.
    """

    name: str = "synthetic"
    protocol: str = "unseen_subjects"
    num_subjects: int = 20
    num_sessions: int = 2
    num_repetitions: int = 3
    hold: float = 3.0
    num_channels: int = 8
    seed: int = 0


class Synthetic(EmgBuilder):
    """Simulated surface EMG: 8 gestures, a ring of 8 electrodes, 200 Hz, 20 subjects."""

    BUILDER_CONFIG_CLASS = SyntheticConfig
    PROTOCOLS = ("unseen_subjects", "within_subject")
    LICENSE = "apache-2.0"

    def class_names(self) -> tuple[str, ...]:
        """The simulated gestures."""
        return CLASS_NAMES

    def num_channels(self) -> int:
        """Electrodes of the ring."""
        return self.config.num_channels

    def list_recordings(self, root: Path | None) -> list[Recording]:
        """Every session of every subject."""
        config = self.config
        for field in ("num_subjects", "num_sessions", "num_repetitions", "num_channels"):
            if not isinstance(getattr(config, field), int) or getattr(config, field) < 1:
                raise ConfigError(f"synthetic: {field}={getattr(config, field)!r} must be a whole number of at least 1")
        if INNER_RATE % config.sampling_rate or config.sampling_rate != int(config.sampling_rate):
            raise ConfigError(f"synthetic: sampling_rate={config.sampling_rate} must be a divisor of {INNER_RATE} Hz")
        subjects = [f"{number:02d}" for number in range(1, config.num_subjects + 1)]
        places: list[tuple[str, str, tuple[int, ...] | None]] = []
        if config.protocol == "unseen_subjects":
            split_of = even_subject_split(subjects, (0.2, 0.2))
            places = [(subject, split_of[subject], None) for subject in subjects]
        else:
            last = config.num_repetitions
            groups = {"train": range(1, last - 1), "validation": [last - 1], "test": [last]}
            kept = repetition_split(groups)
            places = [(subject, split, repetitions) for split, repetitions in kept.items() for subject in subjects]
        return [
            Recording("", f"subject{subject}_session{session}", subject, str(session), split, repetitions)
            for subject, split, repetitions in places
            for session in range(1, config.num_sessions + 1)
        ]

    def read_recording(self, recording: Recording) -> Signal:
        """Simulate one session; depends on nothing but the seed, the subject and the session."""
        config = self.config
        subject, session = int(recording.subject), int(recording.session)
        order = np.tile(np.arange(len(CLASS_NAMES)), config.num_repetitions)
        np.random.default_rng([config.seed, subject, session, 1]).shuffle(order)
        samples, labels = simulate_gestures(
            order, subject, session, config.seed, int(config.sampling_rate), config.hold, config.num_channels
        )
        return Signal(samples, config.sampling_rate, labels)


def simulate_gestures(
    gestures: Sequence[int],
    subject: int,
    session: int = 1,
    seed: int = 0,
    sampling_rate: int = 200,
    hold: float = 3.0,
    num_channels: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """A recording of gestures held one after the other.

    Args:
        gestures: class ids (positions in `CLASS_NAMES`) in order.
        subject, session, seed: who, and which placement of the electrodes.
        sampling_rate: Hz, a divisor of 1000.
        hold: seconds each gesture is held.
        num_channels: electrodes.

    Returns:
        Samples float32 (channels, time) in V, and the class of each sample int64 (time,), `UNLABELLED` in pauses and
        ramps.
    """
    forearm = draw_forearm(np.random.default_rng([seed, subject]), num_channels)
    rng = np.random.default_rng([seed, subject, session])
    forearm = next_session(forearm, rng)
    excitation, labels = _schedule(gestures, hold, rng)
    emg = simulate_emg(forearm, excitation, sampling_rate, rng)
    return emg, labels[np.arange(emg.shape[1]) * CONTROL_RATE // sampling_rate]


def simulate_recording(
    path: str | os.PathLike,
    gestures: Sequence[str] = CLASS_NAMES,
    subject: int = 1000,
    seed: int = 0,
    sampling_rate: int = 200,
) -> Path:
    """Write a raw recording to a file, to try a trained model on.

    Args:
        path: a .csv file gets columns time_s, emg1 to emg8 (V) and label (the gesture's name, empty in between); a .npy
            file gets the array (channels, time) alone.
        gestures: names out of `CLASS_NAMES`, in order.
        subject: by default someone who is in no split of the corpus.
        seed, sampling_rate: as for `simulate_gestures`.
    """
    path = Path(path)
    unknown = [name for name in gestures if name not in CLASS_NAMES]
    if unknown:
        raise ConfigError(f"gesture {unknown[0]!r} is unknown; use {', '.join(CLASS_NAMES)}")
    if path.suffix not in (".csv", ".npy"):
        raise ConfigError(f"{path}: a recording is written as .csv or .npy")
    ids = [CLASS_NAMES.index(name) for name in gestures]
    samples, labels = simulate_gestures(ids, subject, seed=seed, sampling_rate=sampling_rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, samples)
        return path
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_s", *(f"emg{i + 1}" for i in range(len(samples))), "label"])
        for index, (row, label) in enumerate(zip(samples.T, labels, strict=True)):
            values = [f"{index / sampling_rate:.4f}", *(f"{value:.5f}" for value in row)]
            writer.writerow([*values, CLASS_NAMES[label] if label != UNLABELLED else ""])
    return path


def _schedule(gestures: Sequence[int], hold: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Drive of each muscle (muscles, time) and label (time,) at `CONTROL_RATE`."""
    muscles = list(MUSCLES)
    drives = np.array([[GESTURES[name].get(muscle, 0.0) for muscle in muscles] for name in CLASS_NAMES])
    parts, labels = [], []
    for gesture in gestures:
        pause, up, down = (round(rng.uniform(*span) * CONTROL_RATE) for span in (PAUSE, RAMP, RAMP))
        held = round(hold * CONTROL_RATE)
        rise, fall = ((1 - np.cos(np.pi * np.arange(n) / n)) / 2 for n in (up, down))
        # effort drifts while a gesture is held, and each repetition is done a little differently
        drift = 1 + rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, held)
        level = np.concatenate([np.zeros(pause), rise * drift[0], drift, fall[::-1] * drift[-1]])
        drive = drives[gesture] * rng.uniform(*EFFORT) * rng.lognormal(0, 0.2, len(muscles))
        parts.append(drive[:, None] * level)
        labels.append(np.repeat([UNLABELLED, gesture, UNLABELLED], [pause + up, held, down]))
    excitation = np.concatenate(parts, axis=1)
    # tone at rest, and the slow unsteadiness of a held force
    knots = np.arange(0, excitation.shape[1] + 50, 50)
    steady = np.stack(
        [np.interp(np.arange(excitation.shape[1]), knots, rng.normal(1, 0.12, len(knots))) for _ in muscles]
    )
    return np.clip(excitation * steady + TONE, 0, 1), np.concatenate(labels)
