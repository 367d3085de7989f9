"""What the training of events needs of a corpus: recordings with events of known gestures inside them."""

from __future__ import annotations

import datasets
import numpy as np

from dataset_builders.continuous_view import Cutting
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.event_detection import FrameGrid
from trainers.errors import RecipeError
from trainers.event_targets import PULSE

WINDOWS_OF_A_FRAME = 4
"""Inference averages over so many windows: their stride is a quarter of their length (8 s and 2 s in the paper)."""

_ROWS = 256  # whose events are read at a time


def inference_stride(window_length: int, grid: FrameGrid) -> int:
    """Samples between the windows of inference, whole frames.

    Raises:
        RecipeError: windows that are too short to overlap.
    """
    stride = window_length // WINDOWS_OF_A_FRAME // grid.stride * grid.stride
    if not stride or stride > window_length - grid.kernel_size + grid.stride:
        least = WINDOWS_OF_A_FRAME * grid.stride
        raise RecipeError(
            f"window_length={window_length}: events need windows of at least {least} samples, and seconds are usual; "
            "change dataset_config.window_length"
        )
    return stride


def check_corpus(corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, name: str) -> None:
    """Raise `RecipeError` unless rows are recordings with events of known gestures inside them."""
    check_rows(corpus, name, "events")
    if extractor.normalization != "none" and extractor.normalization_scope == "window":
        raise RecipeError(
            f"dataset {name} is normalised window by window, but gestures are detected across windows: set "
            'normalization_scope to "recording", or normalization to "none", in dataset_config'
        )
    check_events(corpus, name, FrameGrid().kernel_size)


def check_rows(corpus: datasets.DatasetDict, name: str, task: str) -> None:
    """Raise `RecipeError` unless rows are recordings with events that have one of several names."""
    features = next(iter(corpus.values())).features
    if "events" not in features:
        raise RecipeError(
            f"dataset {name} has no events: train it with another task than {task}, or prepare it with events"
        )
    if "recording_length" not in features:
        raise RecipeError(f"dataset {name} stores windows: add `rows: recordings` to dataset_config, or prepare it so")
    if not isinstance(features["events"].feature["name"], datasets.ClassLabel):
        raise RecipeError(
            f"dataset {name}: the names of its events are free text; prepare it with the names of its gestures or keys"
        )


def check_events(corpus: datasets.DatasetDict, name: str, shortest: int) -> None:
    """Raise `RecipeError` for an event outside its recording or of no known name, and for recordings of fewer than
    `shortest` samples, which make no frame."""
    for split_name, split in corpus.items():
        _check_split(split, f"dataset {name}, {split_name} split", shortest)


def _check_split(split: datasets.Dataset, where: str, shortest: int) -> None:
    known = len(split.features["events"].feature["name"].names)
    columns = split.select_columns(["events", "recording", "recording_length"]).with_format("arrow")
    for table in columns.iter(batch_size=_ROWS):
        events = table["events"].combine_chunks()
        rows = np.repeat(np.arange(len(table)), events.value_lengths().to_numpy())
        starts, names = (events.flatten().field(key).to_numpy(zero_copy_only=False) for key in ("start", "name"))
        inside = (starts >= 0) & (starts < table["recording_length"].to_numpy()[rows])
        known_names = (names >= 0) & (names < known)
        for right, what in ((inside, "lies outside it"), (known_names, f"is of none of its {known} names")):
            if not right.all():
                event = int(np.flatnonzero(~right)[0])
                raise RecipeError(
                    f"{where}, recording {table['recording'][int(rows[event])].as_py()}: the event at sample "
                    f"{starts[event]:g} {what}; correct it, or leave the recording out"
                )
        short = np.flatnonzero(table["recording_length"].to_numpy() < shortest)
        if short.size:
            raise RecipeError(
                f"{where}, recording {table['recording'][int(short[0])].as_py()} has fewer than "
                f"{shortest} samples, which make one frame; leave it out"
            )


def recording_lengths(split: datasets.Dataset) -> np.ndarray:
    """(recordings,) samples of each."""
    first = np.asarray(split.with_format("numpy")["start"]) == 0
    return np.asarray(split.with_format("numpy")["recording_length"])[first]


def window_subjects(split: datasets.Dataset, cutting: Cutting) -> list[str]:
    """(windows,) the subject of each."""
    firsts = [name for name, start in zip(split["subject"], split["start"], strict=True) if start == 0]
    counts = [cutting.count(length) for length in recording_lengths(split).tolist()]
    return [name for name, count in zip(firsts, counts, strict=True) for _ in range(count)]


def pulse_rates(split: datasets.Dataset, sampling_rate: float) -> np.ndarray:
    """(gestures,) share of the recorded time that lies in a pulse of each gesture."""
    events = np.zeros(len(split.features["events"].feature["name"].names))
    for table in split.select_columns("events").with_format("arrow").iter(batch_size=_ROWS):
        names = table["events"].combine_chunks().flatten().field("name").to_numpy(zero_copy_only=False)
        events += np.bincount(names, minlength=len(events))
    return events * (PULSE[1] - PULSE[0]) * sampling_rate / recording_lengths(split).sum()
