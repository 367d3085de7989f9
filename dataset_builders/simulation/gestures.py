"""The preset "gestures": hand gestures held one after the other at varying effort, with unlabelled ramps between."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..content import UNLABELLED
from ..errors import ConfigError
from .signals import CONTROL_RATE, MUSCLES, draw_forearm, drives_of, next_session, simulate_emg, with_tone

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
    drives = drives_of([GESTURES[name] for name in CLASS_NAMES], MUSCLES)
    parts, labels = [], []
    for gesture in gestures:
        pause, up, down = (round(rng.uniform(*span) * CONTROL_RATE) for span in (PAUSE, RAMP, RAMP))
        held = round(hold * CONTROL_RATE)
        rise, fall = ((1 - np.cos(np.pi * np.arange(n) / n)) / 2 for n in (up, down))
        # effort drifts while a gesture is held, and each repetition is done a little differently
        drift = 1 + rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, held)
        level = np.concatenate([np.zeros(pause), rise * drift[0], drift, fall[::-1] * drift[-1]])
        drive = drives[gesture] * rng.uniform(*EFFORT) * rng.lognormal(0, 0.2, len(MUSCLES))
        parts.append(drive[:, None] * level)
        labels.append(np.repeat([UNLABELLED, gesture, UNLABELLED], [pause + up, held, down]))
    return with_tone(np.concatenate(parts, axis=1), rng), np.concatenate(labels)
