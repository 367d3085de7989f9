"""Accuracy of a linear model on UCI EMG, within subjects: do labels and signals line up?

python -m benchmarks.uci_within_subject FOLDER [--window 200] [--stride 100] [--normalization zscore]

For each person, linear discriminant analysis of the root mean square (RMS) of each channel is fitted to the windows of
series 1 and scored on those of series 2; and the same with the logarithm of the RMS. FOLDER holds the raw files.
"""

import argparse

import datasets
import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from dataset_builders.base import load_corpus
from dataset_builders.torch_view import WindowDataset


def rms_by_subject(data: datasets.Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """RMS (windows, channels) and labels (windows,) of each subject of a split."""
    windows, labels = WindowDataset(data).arrays()
    rms = np.sqrt(np.square(windows, dtype=np.float64).mean(axis=2))
    subjects = np.array(data["subject"])
    return {subject: (rms[subjects == subject], labels[subjects == subject]) for subject in np.unique(subjects)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--stride", type=int, default=100)
    parser.add_argument("--normalization", default="zscore", help='"none" for filtered volts')
    options = parser.parse_args(arguments)
    data, _ = load_corpus(
        "uci_emg",
        options.folder,
        protocol="within_subject",
        window_length=options.window,
        stride=options.stride,
        normalization=options.normalization,
    )
    train, test = (rms_by_subject(data[split]) for split in ("train", "test"))
    accuracies = []
    for subject, (rms, labels) in train.items():
        other_rms, other_labels = test[subject]
        accuracies.append(
            [
                LinearDiscriminantAnalysis().fit(scale(rms), labels).score(scale(other_rms), other_labels)
                for scale in (np.asarray, np.log)
            ]
        )
        plain, logarithmic = accuracies[-1]
        counts = f"{len(labels)} windows of series 1, {len(other_labels)} of series 2"
        print(f"subject {subject}: {counts}: RMS {plain:.1%}, log RMS {logarithmic:.1%}")
    (plain, logarithmic), spread = np.mean(accuracies, axis=0), np.std(accuracies, axis=0, ddof=1)
    print(
        f"{len(accuracies)} subjects, windows of {options.window} samples, stride {options.stride}, normalization "
        f"{options.normalization}: mean accuracy RMS {plain:.1%} (standard deviation {spread[0]:.1%}), log RMS "
        f"{logarithmic:.1%} ({spread[1]:.1%})"
    )


if __name__ == "__main__":
    main()
