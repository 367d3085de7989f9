"""Windows as the images that a model of images takes, drawn when they are asked for: all at once take gigabytes.

windows = drawn(read_windows("uci_emg_200", extractor, config), extractor, image_shape(model))
windows.values[:4]                                             # float32 (4, images, 3, height, width)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from export.calibration import LEAST_WINDOWS, CalibrationError, CalibrationWindows, spread


class DrawnWindows:
    """What looks like an array of images, and is drawn piece by piece.

    Args:
        windows: float32 (windows, channels, time), preprocessed.
        extractor: with `images`, see `BiosignalImagePreprocessing`.
        single: each image is an input by itself, (3, height, width), and not all those of a window together.

    Attributes:
        shape: (windows, images, 3, height, width), or (windows * images, 3, height, width).
    """

    def __init__(self, windows: np.ndarray, extractor: Any, single: bool):
        self._windows, self._extractor, self._single = windows, extractor, single
        images, *size = extractor.images(windows[:1]).shape[1:]
        self._images = images if single else 1  # inputs that a window makes
        self.shape = (len(windows) * images, *size) if single else (len(windows), images, *size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> np.ndarray:
        """Float32 (inputs, ...)."""
        windows, images = np.divmod(np.arange(len(self))[index], self._images)
        if not self._single:
            return self._extractor.images(self._windows[windows])
        some, places = np.unique(windows, return_inverse=True)
        return self._extractor.images(self._windows[some])[places, images]


def drawn(
    windows: CalibrationWindows, extractor: Any, shape: tuple[int | None, ...], limit: int | None = None
) -> CalibrationWindows:
    """Windows of signals as what a model of images takes.

    Args:
        windows: as `export.calibration.read_windows` reads them.
        extractor: of the model.
        shape: of an input of the model, see `export.image_graph.image_shape`.
        limit: at most so many images, but of as many windows as it takes at least; None for all.

    Raises:
        CalibrationError: the images are not those that the model takes.
    """
    values, labels, single = windows.values, windows.labels, len(shape) == 3
    per_window = extractor.images(values[:1]).shape[1]
    chosen = spread(len(values), None if limit is None else max(limit // per_window, LEAST_WINDOWS))
    images = DrawnWindows(values[chosen], extractor, single)
    if any(wanted not in (None, found) for found, wanted in zip(images.shape[1:], shape, strict=True)):
        found, wanted = (" x ".join(str(size or "any") for size in sizes) for sizes in (images.shape[1:], shape))
        raise CalibrationError(
            f"{windows.source}: a window becomes images of {found}, but the model takes {wanted}; use the channels and "
            "preprocessor_config.json it was trained with"
        )
    return replace(windows, values=images, labels=None if labels is None or single else labels[chosen])
