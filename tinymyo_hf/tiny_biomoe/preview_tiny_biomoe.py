"""A picture of what a Tiny-BioMoE sees, for people to look at."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tinymyo_hf.tinymyo.signal_tinymyo import SignalError

from .preprocessing_tiny_biomoe import BiosignalImagePreprocessing


def preview(
    windows: ArrayLike | Mapping[str, ArrayLike], preprocessing: BiosignalImagePreprocessing, path: str | Path
) -> None:
    """Write a sheet of all the images of a window, or of several side by side, as PNG.

    Args:
        windows: a window (channels, time), preprocessed; or several of one shape by their names.
        preprocessing: draws them; a `BiosignalImageProcessor` is one.
        path: of the picture; a file that is there is replaced.

    Raises:
        SignalError: windows that cannot be drawn, or not a name ending in .png.
        ImportError: matplotlib is not installed.

    Examples:
        >>> preview({"rest": rest, "fist": fist}, processor, "rest-and-fist.png")       # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix != ".png":
        raise SignalError(f"{path}: the picture is a PNG; let its name end in .png")
    named = windows if isinstance(windows, Mapping) else {"": windows}
    try:
        stacked = np.stack([np.asarray(window) for window in named.values()])
    except ValueError as error:
        raise SignalError(f"windows: {error}; give windows (channels, time) of one shape") from error
    images = preprocessing.images(stacked)
    columns = len(preprocessing.representations)
    images = images.reshape(len(named), -1, columns, *images.shape[2:])
    figure = _sheet(images, list(named), preprocessing)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format="png", dpi=100)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sheet(images: np.ndarray, names: list[str], preprocessing: BiosignalImagePreprocessing):
    """A figure with the images (windows, rows, representations, 3, height, width)."""
    try:
        from matplotlib.figure import Figure  # without pyplot: it would choose a display
    except ImportError as error:
        raise ImportError("a preview needs matplotlib: pip install 'tinymyo-hf[train]'") from error
    windows, rows, columns = images.shape[:3]
    figure = Figure(figsize=(1.2 * windows * columns + 0.5, 1.2 * rows + 0.7), layout="constrained")
    for of_window, part, name in zip(images, np.atleast_1d(figure.subfigures(1, windows)), names, strict=True):
        part.suptitle(name)
        axes = part.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
        for axis, image in zip(axes.flat, of_window.reshape(-1, *of_window.shape[2:]), strict=True):
            axis.imshow(np.moveaxis(image, 0, -1), vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        for axis, representation in zip(axes[0], preprocessing.representations, strict=True):
            axis.set_title(representation.replace("_", "\n"), fontsize=8)
        for row, axis in enumerate(axes[:, 0]):
            axis.set_ylabel(f"channel {row}" if preprocessing.channels_as == "images" else "all channels", fontsize=8)
    return figure


__all__ = ["preview"]
