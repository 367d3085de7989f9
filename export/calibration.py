"""Windows that a model is calibrated and verified on: of a prepared dataset, or of an .npy or .npz file.

    windows = read_windows("uci_emg_200", preprocessing, model.config, limit=512)
    windows = noise_windows(preprocessing, model.config)     # where there are none, to verify only

Both return `CalibrationWindows(values, labels, source)`.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError
from export.extras import need
from export.image_graph import is_of_images, usual_channels

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedConfig

LEAST_WINDOWS = 32
"""Fewer say too little about the ranges of a network's values, or about how often two networks agree."""
_NOISE_FRAMES = 100

# What decides the values of a window; the other fields say how recordings are cut and checked.
_SIGNAL_FIELDS = (
    "sampling_rate",
    "filter_rate",
    "resampling",
    "band_pass",
    "band_pass_order",
    "notch_frequencies",
    "notch_quality",
    "filter_mode",
    "gain",
    "soft_limit",
    "normalization",
    "normalization_scope",
)
_ARRAYS = "`input_values` (windows, channels, time), and where there are some `labels` and `sampling_rate`"


class CalibrationError(ExportError):
    """Windows that do not suit the model; the message names the file or field and the fix."""


@dataclass(frozen=True)
class CalibrationWindows:
    """Windows as a model takes them.

    Attributes:
        values: float32 (windows, channels, time), preprocessed; for models of images what `export.image_windows` draws
            of them.
        labels: class ids int64 (windows,) in the order of the model's labels; targets float32 (windows, frames,
            outputs) in their own unit; None where there are none.
        source: where they are from, for reports.
    """

    values: np.ndarray
    labels: np.ndarray | None
    source: str

    def __len__(self) -> int:
        return len(self.values)


def read_windows(
    source: str | os.PathLike,
    preprocessing: Any,
    config: PreTrainedConfig,
    split: str = "train",
    limit: int | None = None,
) -> CalibrationWindows:
    """Windows for a model, the same ones in every call.

    Args:
        source: a folder made by `tinymyo prepare`; an .npy file of preprocessed windows (windows, channels, time); or
            an .npz file of `input_values` (such windows), and where there are some `labels` (class ids (windows,), or
            targets (windows, frames, outputs)) and `sampling_rate` in Hz. Stored recordings are cut into windows of the
            `window_length` that they were prepared with; those that are shorter are left out.
        preprocessing: of the model: its feature extractor, or the torch-free core of one.
        config: of the model.
        split: of the folder.
        limit: at most so many windows, spread over all there are.

    Raises:
        CalibrationError: a file that cannot be read, another rate, other preprocessing or other channels than the
            model's, windows that are no whole number of patches, NaN or infinite samples, nothing but one value,
            fewer than 32 windows, or labels that are none of the model's.
        ImportError: the packages that read datasets are missing; the message names the extra.
    """
    path = Path(source).expanduser()
    if limit is not None and limit < LEAST_WINDOWS:
        raise CalibrationError(f"limit={limit}: at least {LEAST_WINDOWS} windows are needed")
    if not path.exists():
        raise CalibrationError(
            f"{source}: not there; give a folder made by `tinymyo prepare`, or an .npy or .npz file of windows"
        )
    read = _read_folder if path.is_dir() else {".npy": _read_npy, ".npz": _read_npz}.get(path.suffix.lower())
    if read is None:
        raise CalibrationError(
            f"{path}: neither a folder made by `tinymyo prepare` nor an .npy or .npz file of windows"
        )
    values, labels = read(path, preprocessing, config, split, limit)
    _check_values(values, preprocessing, config, str(path))
    if labels is not None:
        labels = _checked_labels(labels, values, config, str(path))
    return CalibrationWindows(values, labels, f"{path.name}, split {split}" if path.is_dir() else path.name)


def noise_windows(
    preprocessing: Any, config: PreTrainedConfig, count: int = LEAST_WINDOWS, samples: int | None = None
) -> CalibrationWindows:
    """Normally distributed noise for a model, always the same.

    It verifies that a graph computes what the model does; it tells nothing of the ranges of real signals.

    Args:
        samples: of a window; by default a window of the preprocessing, or of models of frames as many as make 100.
    """
    if samples is None:
        samples = _usual_samples(preprocessing, config)
    channels = usual_channels(config, preprocessing) if is_of_images(config) else config.num_channels
    values = np.random.default_rng(0).standard_normal((count, channels, samples), dtype=np.float32)
    return CalibrationWindows(values, None, "noise")


def windows_or_noise(
    source: str | os.PathLike | None,
    preprocessing: Any,
    config: PreTrainedConfig,
    split: str = "train",
    limit: int | None = None,
    samples: int | None = None,
) -> CalibrationWindows:
    """As `read_windows`, but `noise_windows` (of so many samples) without a source."""
    if source is None:
        return noise_windows(preprocessing, config, samples=samples)
    return read_windows(source, preprocessing, config, split, limit)


def _usual_samples(preprocessing: Any, config: PreTrainedConfig) -> int:
    if config.model_type == "semg_transformer":
        return config.receptive_field + _NOISE_FRAMES * config.hop_length
    if is_of_images(config) or config.stem == "patches":
        return preprocessing.window_length
    return config.stem_kernel_size + _NOISE_FRAMES * config.frame_stride


def spread(count: int, limit: int | None) -> np.ndarray:
    """Indices of at most `limit` of `count` things, spread over all."""
    if limit is None or count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).round().astype(int)


def _read_npy(
    path: Path, preprocessing: Any, config: PreTrainedConfig, split: str, limit: int | None
) -> tuple[np.ndarray, None]:
    return _windows_of(_load(path), path, limit), None


def _read_npz(
    path: Path, preprocessing: Any, config: PreTrainedConfig, split: str, limit: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    with _load(path) as file:
        if "input_values" not in file:
            raise CalibrationError(f"{path}: it holds {', '.join(file.files) or 'nothing'}; it needs {_ARRAYS}")
        arrays = {
            name: _member(file, name, path) for name in ("input_values", "labels", "sampling_rate") if name in file
        }
    if "sampling_rate" in arrays:
        _check_rate(arrays["sampling_rate"], preprocessing, path)
    windows = _windows_of(arrays["input_values"], path, limit)
    labels = arrays.get("labels")
    if labels is None or not _scores(config):
        return windows, None
    count = len(arrays["input_values"])
    if labels.ndim == 0 or len(labels) != count:
        raise CalibrationError(f"{path}: labels of shape {labels.shape} for {count} windows; give one entry for each")
    return windows, labels[spread(count, limit)]


def _load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path}: cannot be read as a NumPy file ({error}); save it again") from error


def _member(file: Any, name: str, path: Path) -> np.ndarray:
    try:
        return file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise CalibrationError(f"{path}: its {name} cannot be read ({error}); save the file again") from error


def _check_rate(rate: np.ndarray, preprocessing: Any, path: Path) -> None:
    given = float(rate) if rate.ndim == 0 and rate.dtype.kind in "fiu" else rate
    if not isinstance(given, float):
        raise CalibrationError(f"{path}: sampling_rate={given!r} is not one number of Hz")
    if not math.isclose(given, preprocessing.sampling_rate, rel_tol=1e-6):
        raise CalibrationError(
            f"{path}: sampled at {given:g} Hz, but the model takes windows at {preprocessing.sampling_rate:g} Hz: make "
            "them with the checkpoint's preprocessor_config.json"
        )


def _windows_of(array: np.ndarray, path: Path, limit: int | None) -> np.ndarray:
    """float32, chosen before they are read from disk."""
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise CalibrationError(
            f"{path}: an array of shape {array.shape} and type {array.dtype}; give numbers (windows, channels, time)"
        )
    with np.errstate(over="ignore"):  # an overflow is told as what it leads to
        return np.asarray(array[spread(len(array), limit)], np.float32)


def _read_folder(
    path: Path, preprocessing: Any, config: PreTrainedConfig, split: str, limit: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    need("datasets", "pyarrow", extra="data")
    from dataset_builders.errors import DataError
    from tinymyo_hf.semg_transformer.preprocessing_semg_transformer import SEMGInputError

    try:
        return _read_split(path, preprocessing, config, split, limit)
    except (DataError, SEMGInputError) as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise CalibrationError(f"{where}{error}") from error


def _read_split(
    path: Path, preprocessing: Any, config: PreTrainedConfig, split: str, limit: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    from dataset_builders.prepared import load_prepared

    splits, found = load_prepared(str(path))
    if not len(splits.get(split, ())):
        raise CalibrationError(f"{path}: it has no windows in a split {split!r}, only in {', '.join(splits) or 'none'}")
    _check_preprocessing(found, preprocessing, config, path)
    data = splits[split]
    if "recording_length" in data.features:
        return _cut(data, found, preprocessing, path, limit), None
    data = data.select(spread(len(data), limit))
    column = {"labels": "label", "targets": "targets"}.get(_scores(config))
    columns = [column] if column in data.features else []
    values, labels = _arrays(data, columns)
    if columns == ["label"]:
        labels = _in_order_of_model(labels, data.features["label"].names, config, path)
    return values, labels


def _check_preprocessing(found: Any, preprocessing: Any, config: PreTrainedConfig, path: Path) -> None:
    if config.model_type == "semg_transformer":
        from tinymyo_hf.semg_transformer.preprocessing_semg_transformer import UNTOUCHED

        wanted = UNTOUCHED | {"sampling_rate": preprocessing.sampling_rate}
    else:
        wanted = {name: getattr(preprocessing, name) for name in _SIGNAL_FIELDS}
    for name, value in wanted.items():
        if getattr(found, name) != value:
            raise CalibrationError(
                f"{path}: prepared with {name}={getattr(found, name)}, but the model was trained with {name}={value}: "
                "prepare the dataset with the checkpoint's preprocessor_config.json"
            )


def _arrays(data: datasets.Dataset, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    from dataset_builders.torch_view import WindowDataset, collate_windows

    view = WindowDataset(data, columns=columns)
    batch = collate_windows(view.__getitems__(range(len(view))))
    return batch["input_values"].numpy(), batch["labels"].numpy() if columns else None


def _cut(data: datasets.Dataset, found: Any, preprocessing: Any, path: Path, limit: int | None) -> np.ndarray:
    """Windows of stored recordings."""
    from dataset_builders.continuous_view import ContinuousDataset, Cutting

    length = found.window_length
    long_enough = np.flatnonzero(np.asarray(data.with_format("numpy")["recording_length"]) >= length)
    if not len(long_enough):
        raise CalibrationError(
            f"{path}: no recording has {length} samples, a window; prepare it with another window_length"
        )
    view = ContinuousDataset(data.select(long_enough), Cutting(length), extractor=found)
    windows = (view[int(i)]["input_values"].numpy() for i in spread(len(view), limit))
    if hasattr(preprocessing, "rotation"):  # bands that are turned for this model; the corpus has them as recorded
        windows = (preprocessing.preprocess(window, preprocessing.sampling_rate) for window in windows)
    return np.stack(list(windows))


def _in_order_of_model(labels: np.ndarray, names: Sequence[str], config: PreTrainedConfig, path: Path) -> np.ndarray:
    """Class ids of the model for those of a dataset, by name."""
    ids = {label: int(index) for index, label in config.id2label.items()}
    if set(ids) == {f"LABEL_{i}" for i in range(len(names))}:  # the model's classes were never named
        return labels
    if unknown := [name for name in names if name not in ids]:
        raise CalibrationError(
            f"{path}: its label {unknown[0]!r} is none of the model's, {', '.join(ids)}: give both the same names, or "
            "take a dataset that the model was trained for"
        )
    return np.array([ids[name] for name in names])[labels]


def _scores(config: PreTrainedConfig) -> str | None:
    """What a model is scored with: class ids ("labels"), "targets", or nothing."""
    known = {"ForSequenceClassification": "labels", "ForRegression": "targets"}
    return next((what for suffix, what in known.items() if _head(config).endswith(suffix)), None)


def _head(config: PreTrainedConfig) -> str:
    return (config.architectures or [""])[0]


def _channels(config: PreTrainedConfig) -> int | None:
    """That a model takes; None for any number."""
    if config.model_type == "semg_transformer":
        return config.num_channels
    if is_of_images(config):
        return None
    any_number = config.channel_fusion == "mean" or _head(config).endswith(("Model", "ForPreTraining"))
    return None if config.stem == "patches" and any_number else config.num_channels


def _check_values(values: np.ndarray, preprocessing: Any, config: PreTrainedConfig, source: str) -> None:
    count, channels, samples = values.shape
    expected = _channels(config) or getattr(preprocessing, "feature_size", None)
    if expected is not None and channels != expected:
        hint = "transpose them" if samples == expected else "select the channels that it was trained on"
        raise CalibrationError(
            f"{source}: windows of {channels} channels, but the model takes {expected}; they must be (windows, "
            f"channels, time): {hint}"
        )
    if not is_of_images(config):  # those tell when they are drawn
        _check_length(samples, config, source)
    if count < LEAST_WINDOWS:
        raise CalibrationError(f"{source}: {count} windows; give at least {LEAST_WINDOWS}")
    finite = np.isfinite(values)
    if not finite.all():
        window, channel, sample = np.argwhere(~finite)[0]
        raise CalibrationError(
            f"{source}: window {window} has {values[window, channel, sample]} at sample {sample} of channel {channel}; "
            "interpolate such samples, or leave the window out"
        )
    if values.min() == values.max():
        raise CalibrationError(f"{source}: every sample is {values.flat[0]:g}; give windows of real signals")


def _check_length(samples: int, config: PreTrainedConfig, source: str) -> None:
    if config.model_type == "tinymyo" and config.stem == "patches":
        if samples % config.patch_size:
            raise CalibrationError(
                f"{source}: windows of {samples} samples are no multiple of the model's patch_size "
                f"{config.patch_size}: pad or cut them"
            )
        return
    try:
        frames = config.num_frames(samples)
    except ValueError:
        frames = 0
    if not frames:
        raise CalibrationError(f"{source}: windows of {samples} samples are shorter than a frame of the model sees")


def _checked_labels(labels: np.ndarray, values: np.ndarray, config: PreTrainedConfig, source: str) -> np.ndarray:
    outputs = len(config.id2label)
    if _scores(config) == "targets":
        frames = config.target_length or values.shape[-1]
        if labels.shape != (len(values), frames, outputs) or labels.dtype.kind not in "fiu":
            raise CalibrationError(
                f"{source}: targets of shape {labels.shape}, but the model predicts (windows, frames, outputs) = "
                f"{(len(values), frames, outputs)}"
            )
        if not np.isfinite(labels).all():
            raise CalibrationError(f"{source}: targets that are NaN or infinite; leave these windows out")
        return labels.astype(np.float32)
    if labels.shape != (len(values),) or labels.dtype.kind not in "iu":
        raise CalibrationError(
            f"{source}: labels of shape {labels.shape} and type {labels.dtype}; give one whole number for each window"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= outputs))
    if len(wrong):
        raise CalibrationError(
            f"{source}: window {wrong[0]} has the label {labels[wrong[0]]}, but the model has {outputs}, 0 to "
            f"{outputs - 1}"
        )
    return labels.astype(np.int64)
