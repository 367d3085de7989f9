"""Writers of small files in the layouts of the Ninapro databases and of a DB5 of realistic length; their windows."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import scipy.io
from datasets import Dataset, DatasetDict

from dataset_builders.base import load_corpus, make_builder

REPETITIONS = {"db5": 6, "db6": 12, "db7": 6}
DB5_MOVEMENTS = {1: 12, 2: 17, 3: 23}
SMALL = {"window_length": 40, "stride": 20, "allow_missing": True}


def movement_track(
    movements: tuple[int, ...], repetitions: int, movement: int, rest: int, rest_carries: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """restimulus and rerepetition (time,): rest, and then every movement so many times, each followed by rest.

    Args:
        movement, rest: samples of each.
        rest_carries: the rest after a repetition carries its number, as most of it does in the files; else 0.
    """
    labels, numbers = [np.zeros(rest)], [np.zeros(rest)]
    for label in movements:
        for repetition in range(1, repetitions + 1):
            labels += [np.full(movement, label), np.zeros(rest)]
            numbers += [np.full(movement, repetition), np.full(rest, repetition if rest_carries else 0)]
    return np.concatenate(labels).astype(np.uint8), np.concatenate(numbers).astype(np.uint8)


def muscle_noise(labels: np.ndarray, channels: int, rng: np.random.Generator) -> np.ndarray:
    """EMG (time, channels), float32: noise, louder during movements, on channels that depend on the movement."""
    gains = 1 + 3 * np.random.default_rng(7).random((int(labels.max()) + 1, channels), np.float32)
    gains[0] = 1
    return rng.standard_normal((len(labels), channels), np.float32) * gains[labels]


def write_mat(path: Path, variables: dict[str, np.ndarray], version: str = "5 packed") -> Path:
    """A MATLAB file of version "5" or "5 packed" (each variable compressed, MATLAB's default) or "7.3"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, array in variables.items():
                file[name] = np.atleast_2d(array).T
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
        return path
    scipy.io.savemat(path, variables, do_compression=version == "5 packed", oned_as="column")
    return path


def movement_file(
    path: Path,
    channels: int,
    track: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
    version: str = "5 packed",
    **changes: np.ndarray | None,
) -> Path:
    """A recording of DB5, DB6 or DB7 with the variables of the real ones; `changes` replaces some, None removes."""
    labels, repetitions = track
    rng = np.random.default_rng(seed)
    emg = muscle_noise(labels, channels, rng)
    if channels == 16 and "_D" in path.name:
        emg[:, 8:10] = 0
    variables = {
        "emg": emg,
        "acc": rng.random((len(labels), 6), np.float32),
        "stimulus": np.roll(labels, -5).astype(np.int8),
        "restimulus": labels,
        "repetition": np.roll(repetitions, -5),
        "rerepetition": repetitions,
        "subject": np.array([[9]], np.uint8),
        "exercise": np.array([[9]], np.uint8),
    }
    variables = {name: array for name, array in (variables | changes).items() if array is not None}
    return write_mat(path, variables, version)


def write_small_db5(root: Path, subjects: tuple[int, ...] = (1, 2), **options: object) -> Path:
    """Two movements per exercise (the first and the last), six repetitions of 60 samples, 40 of rest."""
    for subject in subjects:
        for exercise, count in DB5_MOVEMENTS.items():
            track = movement_track((1, count), REPETITIONS["db5"], 60, 40)
            movement_file(root / f"s{subject}" / f"S{subject}_E{exercise}_A1.mat", 16, track, 10 * subject + exercise)
    return root


def write_small_db6(root: Path, subject: int = 1, days: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Path:
    """Two grasps per session, twelve repetitions of 60 samples, 40 of rest."""
    for day in days:
        for time in (1, 2):
            track = movement_track((1, 11), REPETITIONS["db6"], 60, 40)
            movement_file(root / f"S{subject}_D{day}_T{time}.mat", 16, track, 10 * day + time)
    return root


def write_small_db7(root: Path, subjects: tuple[int, ...] = (1, 22), first_of_e2: int = 18) -> Path:
    """Two movements per exercise, six repetitions of 60 samples, 40 of rest."""
    for subject in subjects:
        for exercise, movements in ((1, (1, 17)), (2, (first_of_e2, first_of_e2 + 22))):
            track = movement_track(movements, REPETITIONS["db7"], 60, 40)
            movement_file(root / f"Subject_{subject}" / f"S{subject}_E{exercise}_A1.mat", 12, track, subject)
    return root


def write_small_db8(root: Path, subjects: tuple[int, ...] = (1, 12), samples: int = 900) -> Path:
    """Noise, and angles that wander; five samples of each glove lack a value."""
    for subject in subjects:
        for session in (1, 2, 3):
            rng = np.random.default_rng(10 * subject + session)
            glove = 40 + np.cumsum(rng.standard_normal((samples, 18)), axis=0)
            glove[[3, 400, 401, 402, samples - 1], [0, 17, 17, 8, 5]] = np.nan
            variables = {
                "emg": rng.standard_normal((samples, 16), np.float32) * 1e-5,
                "glove": glove,
                "acc": rng.random((samples, 6), np.float32),
                "restimulus": np.zeros((samples, 1), np.uint8),
                "subject": np.array([[subject]], np.uint8),
            }
            write_mat(root / f"S{subject}_E1_A{session}.mat", variables)
    return root


def zipped(root: Path, archive: Path, folder: str) -> Path:
    """The files of `root` in an archive as macOS makes it, below `folder` ("" for none)."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(root.rglob("*.mat")):
            bundle.write(path, str(Path(folder) / path.name))
            bundle.writestr(str(Path("__MACOSX") / folder / f"._{path.name}"), b"\0\5\x16\7")
    return archive


def write_db5_tree(
    root: Path, subjects: int = 10, seconds: float = 5.0, rest_seconds: float = 3.0, repetitions: int = 6, seed: int = 0
) -> Path:
    """All of DB5 at its real length: 52 movements in three exercises, 16 channels at 200 Hz, about 7 hours.

    Args:
        subjects: how many.
        seconds, rest_seconds: of each repetition and of the rest after it.
    """
    rng = np.random.default_rng(seed)
    for subject in range(1, subjects + 1):
        for exercise, count in DB5_MOVEMENTS.items():
            track = movement_track(
                tuple(range(1, count + 1)), repetitions, round(200 * seconds), round(200 * rest_seconds)
            )
            emg = np.clip(8 * muscle_noise(track[0], 16, rng), -128, 127).astype(np.int8)
            variables = {"emg": emg, "restimulus": track[0], "rerepetition": track[1]}
            write_mat(root / f"s{subject}" / f"S{subject}_E{exercise}_A1.mat", variables, "5")
    return root


def load(number: int, root: Path | None, protocol: str = "paper", **options: object) -> DatasetDict:
    """A small database as a dataset."""
    return load_corpus(f"ninapro_db{number}", root, protocol=protocol, **SMALL | options)[0]


def table(root: Path, name: str = "S1_E1_A1", split: str = "train", number: int = 5, **options: object) -> pa.Table:
    """The windows that one recording gives to a split."""
    builder = make_builder(f"ninapro_db{number}", root, **SMALL | options)
    return builder.recording_table(next(r for r in builder.recordings if (r.name, r.split) == (name, split)))


def values(part: Dataset) -> np.ndarray:
    """Windows (n, channels, time)."""
    return np.array(part["input_values"], dtype=np.float32)
