"""Two public Myo armband corpora as one `emg_folder` whose electrodes stand like those of UCI EMG.

    python -m benchmarks.myo_sessions myo_cote_allard myo_readings OUT

writes a recording per session to OUT (`CORPUS-PERSON-SESSION.npy`, int16, eight channels and the class of each sample)
and OUT/metadata.csv. What the recipes `pretrain_myo` and `myo_gestures` learn from.

A recording is a whole session, although both corpora have a file for each gesture: a z-score over it then keeps how
strong each electrode is in one gesture compared with the others, which is what tells gestures apart. The electrodes of
both corpora run the other way round the arm than those of UCI EMG, from another start. Left arms are kept as they are.

Splits: the evaluation sessions Test0 and Test1 of Cote-Allard et al. validate and test, all their other people train;
of myo-readings the last six people in natural order validate.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

GESTURES = (
    "rest", "fist", "flexion", "extension", "radial deviation", "ulnar deviation", "open", "pronation", "supination"
)  # fmt: skip
COTE_ALLARD = (0, 4, 2, 5, 3, 1, 6)  # their classes as positions in GESTURES
READINGS = (0, 2, 3, 4, 5, 7, 8, 1)
# The channel that stands where UCI EMG has its channel 0, 1, ...: the one of the 16 rotations and reflections under
# which a linear discriminant fitted on this corpus recognises the gestures of UCI subjects 1-24 best (log variances).
COTE_ALLARD_CHANNELS = (5, 4, 3, 2, 1, 0, 7, 6)
READINGS_CHANNELS = (6, 5, 4, 3, 2, 1, 0, 7)
COPIES = {"PreTraining-Female7", "PreTraining-Female8", "PreTraining-Female9"}  # sessions of Evaluation-Female0
FAULTY = {"64917-1/2.txt", "69069-1/3.txt"}  # two samples run together; another gesture's labels
HELD_OUT_READINGS = 6
SPLITS = {"training0": "train", "Test0": "validation", "Test1": "test"}

Session = tuple[str, str, str, np.ndarray]  # subject, session, split, (samples, 9)


def cote_allard_sessions(root: Path) -> list[Session]:
    """One array per person and session: the 28 files of seven gestures, one after the other."""
    sessions = []
    for folder in sorted(root.rglob("*Dataset/*/*")):
        part, person, session = folder.parts[-3:]
        subject = f"{part.removesuffix('Dataset')}-{person}"
        if session not in SPLITS or subject in COPIES:
            continue
        pieces = []
        for number in range(28):
            file = folder / f"classe_{number}.dat"
            if file.exists():  # a few sessions lack one
                samples = np.fromfile(file, "<i2").reshape(-1, 8)[:, COTE_ALLARD_CHANNELS]
                pieces.append(np.column_stack([samples, np.full(len(samples), COTE_ALLARD[number % 7])]))
        sessions.append((f"cote-allard-{subject}", session, SPLITS[session], np.concatenate(pieces)))
    return sessions


def readings_sessions(root: Path) -> list[Session]:
    """One array per person and session: the files of eight gestures, each alternating with rest."""
    folders = sorted(root.rglob("_readings_*/*-*"), key=lambda folder: [int(n) for n in folder.name.split("-")])
    people = list(dict.fromkeys(folder.name.split("-")[0] for folder in folders))
    held_out = set(people[-HELD_OUT_READINGS:])
    sessions = []
    for folder in folders:
        person, session = folder.name.split("-")
        pieces = []
        for number in range(8):
            file = folder / f"{number}.txt"
            if file.exists() and f"{folder.name}/{file.name}" not in FAULTY:
                table = np.loadtxt(file, delimiter=",", dtype=np.int16)
                pieces.append(np.column_stack([table[:, READINGS_CHANNELS], np.array(READINGS)[table[:, 8]]]))
        split = "validation" if person in held_out else "train"
        sessions.append((f"readings-{person}", session, split, np.concatenate(pieces)))
    return sessions


def write_sessions(sessions: list[Session], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label_column", "subject", "session", "split", "sampling_rate"])
        for subject, session, split, samples in sessions:
            name = f"{subject}-{session}.npy"
            np.save(out / name, samples.astype(np.int16))
            table.writerow([name, 8, subject, session, split, 200])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cote_allard", type=Path, help="folder with EvaluationDataset and PreTrainingDataset")
    parser.add_argument("readings", type=Path, help="folder with _readings_left_hand and _readings_right_hand")
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    sessions = cote_allard_sessions(options.cote_allard) + readings_sessions(options.readings)
    if not sessions:
        parser.error("no sessions found: give the folders as they were unpacked")
    write_sessions(sessions, options.out)
    for split in SPLITS.values():
        chosen = [session for session in sessions if session[2] == split]
        hours = sum(len(samples) for *_, samples in chosen) / 200 / 3600
        print(f"{split}: {len(chosen)} sessions of {len({s[0] for s in chosen})} people, {hours:.1f} h")
    print(f"classes: {list(GESTURES)}")


if __name__ == "__main__":
    main()
