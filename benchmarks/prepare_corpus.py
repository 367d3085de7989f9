"""Speed and memory of preparing a corpus, against the script one would write oneself.

python -m benchmarks.prepare_corpus [--data-dir DB5] [--subjects 4] [--processes 2] [--window 200] [--stride 50]

Without --data-dir it writes files in the layout of Ninapro DB5, of real length (10 subjects are about 7 hours). The
script in comparison reads a file, filters channel by channel with `filtfilt`, appends window after window to lists, and
saves arrays, compressed (as the prepared folder is) or not. Required: 3 times its speed with 2 processes.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import psutil
import scipy.io
import scipy.signal

from dataset_builders.base import load_corpus
from dataset_builders.hub import prepare

RATE = 200


def write_tree(root: Path, subjects: int) -> None:
    """Noise in the layout of DB5: 52 movements, six repetitions of 5 s, 3 s of rest."""
    rng = np.random.default_rng(0)
    for subject in range(1, subjects + 1):
        for exercise, movements in ((1, 12), (2, 17), (3, 23)):
            labels = np.concatenate(
                [np.repeat([m, 0], [5 * RATE, 3 * RATE]) for m in np.repeat(range(1, movements + 1), 6)]
            )
            numbers = np.repeat(np.tile(range(1, 7), movements), 8 * RATE)
            emg = rng.integers(-128, 128, (len(labels), 16)).astype(np.int8)
            path = root / f"s{subject}" / f"S{subject}_E{exercise}_A1.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = {
                "restimulus": labels[:, None].astype(np.uint8),
                "rerepetition": numbers[:, None].astype(np.uint8),
            }
            scipy.io.savemat(path, {"emg": emg, **columns})


def straightforward(root: Path, window: int, stride: int) -> dict[str, dict[str, np.ndarray]]:
    """The script in comparison, up to where it saves: windows and labels of each split."""
    band = scipy.signal.butter(4, (20, 90), "bandpass", fs=RATE)
    notch = scipy.signal.iirnotch(50, 30, fs=RATE)
    splits: dict[str, tuple[list, list]] = {name: ([], []) for name in ("train", "validation", "test")}
    split_of = {1: "train", 3: "train", 4: "train", 6: "train", 2: "validation", 5: "test"}
    for path in sorted(root.rglob("*.mat")):
        content = scipy.io.loadmat(path)
        emg, labels, repetitions = content["emg"], content["restimulus"][:, 0], content["rerepetition"][:, 0]
        filtered = np.zeros(emg.shape)
        for channel in range(emg.shape[1]):
            signal = scipy.signal.filtfilt(*band, emg[:, channel].astype(float))
            signal = scipy.signal.filtfilt(*notch, signal)
            filtered[:, channel] = (signal - signal.mean()) / signal.std(ddof=1)
        for start in range(0, len(filtered) - window + 1, stride):
            stop = start + window
            if repetitions[start] == repetitions[stop - 1] and (labels[start:stop] == labels[start]).all():
                windows, classes = splits[split_of[int(repetitions[start])]]
                windows.append(filtered[start:stop].T.astype(np.float32))
                classes.append(int(labels[start]))
    return {
        name: {"windows": np.array(windows), "labels": np.array(classes)} for name, (windows, classes) in splits.items()
    }


def save(splits: dict[str, dict[str, np.ndarray]], output: Path, compressed: bool) -> None:
    """The end of the script: a file for each split."""
    output.mkdir()
    for name, arrays in splits.items():
        (np.savez_compressed if compressed else np.savez)(output / f"{name}.npz", **arrays)


class PeakMemory(threading.Thread):
    """Largest memory of this process and its children together while it runs, in bytes (proportional set size)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.done.wait(0.05):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def __enter__(self) -> "PeakMemory":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.join()


def hours(root: Path) -> float:
    """Length of all recordings."""
    shapes = [scipy.io.whosmat(path) for path in root.rglob("*.mat")]
    return sum(shape[0] for variables in shapes for name, shape, _ in variables if name == "emg") / RATE / 3600


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--stride", type=int, default=50)
    options = parser.parse_args(arguments)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        root = options.data_dir
        if root is None:
            root = work / "raw"
            write_tree(root, options.subjects)
        total = hours(root)
        config = {"window_length": options.window, "stride": options.stride, "allow_missing": True}
        start = time.perf_counter()
        with PeakMemory() as memory:
            prepared = prepare("ninapro_db5", root, work / "prepared", options.processes, **config)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        with PeakMemory() as script_memory:
            splits = straightforward(root, options.window, options.stride)
        script = time.perf_counter() - start
        saving = {}
        for compressed in (False, True):
            start = time.perf_counter()
            save(splits, work / f"script_{compressed}", compressed)
            saving[compressed] = script + time.perf_counter() - start
        count = sum(len(arrays["labels"]) for arrays in splits.values())
        del splits
        start = time.perf_counter()
        first = next(iter(load_corpus("ninapro_db5", root, streaming=True, **config)[0]["train"]))
        raw_start = time.perf_counter() - start
        start = time.perf_counter()
        next(iter(load_corpus(prepared, streaming=True)[0]["train"]))
        prepared_start = time.perf_counter() - start
    assert np.shape(first["input_values"]) == (16, options.window)
    print(
        f"{total:.2f} recording-hours of DB5, {options.processes} processes, compressed: {ours:.1f} s = "
        f"{total / ours * 60:.1f} hours a minute, peak {memory.peak / 2**30:.2f} GiB"
    )
    for compressed, seconds in saving.items():
        print(
            f"script, {count} windows, {'compressed' if compressed else 'not compressed'}: {seconds:.1f} s = "
            f"{total / seconds * 60:.1f} hours a minute, peak {script_memory.peak / 2**30:.2f} GiB: "
            f"{seconds / ours:.1f} times as long"
        )
    print(f"streaming starts after {raw_start:.2f} s from raw files, {prepared_start:.2f} s from the prepared folder")


if __name__ == "__main__":
    main()
