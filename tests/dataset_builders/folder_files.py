"""Recordings in every format that `emg_folder` reads, written with labels and targets beside the signal."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io

FORMATS = (
    *("a.csv", "a.tsv", "a.txt", "a.parquet", "a.npy", "a.npz", "a.mat", "v73.mat", "a.h5", "compound.hdf5"),
    *("a.dat", "a.bin"),
)
RAW = {"raw_type": "float32", "raw_channels": 7}
"""Options for the last two: four channels, a label, two targets."""


def write_recording(path: Path, emg: np.ndarray, state: np.ndarray, targets: np.ndarray) -> tuple[str, str]:
    """Write emg (4, time), state (time,) and targets (2, time) as `path`'s name says.

    Returns:
        What metadata.csv has to say in label_column and in target_columns.
    """
    angle, force = targets
    separate = {"emg": emg, "state": state, "angle": angle, "force": force}
    if path.suffix in (".csv", ".tsv", ".txt", ".parquet"):
        frame = pd.DataFrame({f"ch{i}": row for i, row in enumerate(emg)} | dict(list(separate.items())[1:]))
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep={".csv": ",", ".tsv": "\t", ".txt": " "}[path.suffix])
        return "state", "angle;force"
    together = np.vstack([emg, state, targets]).T
    if path.suffix == ".npy":
        np.save(path, together)
        return "4", "5;6"
    if path.suffix in (".dat", ".bin"):
        together.astype("<f4").tofile(path)
        return "4", "5;-1"
    if path.name == "compound.hdf5":
        table = np.zeros(emg.shape[1], [("emg", "f8", (4,)), ("state", "i4"), ("angles", "f4", (2,))])
        table["emg"], table["state"], table["angles"] = emg.T, state, targets.T
        with h5py.File(path, "w") as file:
            file["recording/timeseries"] = table
        return "recording/timeseries/state", "recording/timeseries/angles"
    if path.name == "v73.mat":  # MATLAB's: axes reversed, a block in front that names it
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, values in separate.items():
                file[name] = np.atleast_2d(values)
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file")
    elif path.suffix == ".mat":
        scipy.io.savemat(path, separate | {"emg": emg.T}, do_compression=True)
    elif path.suffix == ".npz":
        np.savez(path, **separate)
    else:
        with h5py.File(path, "w") as file:
            for name, values in separate.items():
                file[name] = values
    return "state", "angle;force"
