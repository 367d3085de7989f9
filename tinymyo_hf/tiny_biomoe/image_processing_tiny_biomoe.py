"""Image processor of Tiny-BioMoE: windows of biosignals to `pixel_values`."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import TensorType

from .preprocessing_tiny_biomoe import LIBRARY_FIELDS, BiosignalImageError, BiosignalImages


class BiosignalImageProcessor(ImageProcessingMixin, BiosignalImages):
    """Draws windows of biosignals as images for the Tiny-BioMoE models.

    It takes windows as a feature extractor of signals (`TinyMyoFeatureExtractor`) makes them: filtered, normalised, cut.

    Args:
        args, fields: those of `BiosignalImages`.

    Raises:
        BiosignalImageError: (a ValueError) at construction for fields that cannot be so, later for windows that cannot
            be drawn; the message names the field or the sample, and the fix.

    Examples:
        >>> import numpy as np
        >>> processor = BiosignalImageProcessor(["waveform", "scalogram"])
        >>> window = np.random.default_rng(0).normal(size=(8, 200))
        >>> processor(window, sampling_rate=200, return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 16, 3, 224, 224])
    """

    model_input_names = ["pixel_values"]
    valid_kwargs = (
        BiosignalImages  # the library reads the names of the fields from it, `from_pretrained` may replace them
    )

    def __init__(self, *args: Any, **fields: Any):
        of_library = {name: fields.pop(name) for name in LIBRARY_FIELDS & fields.keys()}
        of_library.pop("image_processor_type", None)  # `to_dict` adds it
        self.check_names(fields)
        BiosignalImages.__init__(self, *args, **fields)
        super().__init__(**of_library)

    def __call__(
        self,
        windows: ArrayLike | list[ArrayLike],
        sampling_rate: float | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Draw one window or several.

        Args:
            windows: (channels, time), or a batch or list of them, all of one shape; preprocessed.
            sampling_rate: Hz of the windows; leaving it out assumes `self.sampling_rate`, with a warning.
            return_tensors: "pt", "np", or None for an array of NumPy.

        Returns:
            `pixel_values` float32 (batch, images, 3, image_size, image_size) in [0, 1]: see `BiosignalImages.images`.
        """
        try:
            x = np.asarray(windows)
        except (TypeError, ValueError) as error:
            raise BiosignalImageError(f"windows: not all of one shape ({error}); pad or cut them") from error
        images = self.images(x[None] if x.ndim == 2 else x, sampling_rate)
        return BatchFeature({"pixel_values": images}, tensor_type=return_tensors)


__all__ = ["BiosignalImageProcessor"]
