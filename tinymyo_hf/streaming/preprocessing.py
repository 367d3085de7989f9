"""A feature extractor's preprocessing on a running signal: filters, gain, limit and running normalisation.

It gives sample for sample what `preprocess` of the same extractor with `filter_mode="causal"` gives for the whole
recording, however the signal is cut into chunks.
"""

import numpy as np
from scipy import signal as scipy_signal

from tinymyo_hf.signal import design_filter, soft_limit
from tinymyo_hf.streaming.chunks import StreamError
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor


class StreamingPreprocessor:
    """Raw samples to those that windows are cut from; normalisation by window is left to who cuts them.

    Args:
        extractor: whose settings are applied. Filters run forwards only, also if it says "zero_phase".

    Attributes:
        notes: what differs from what the model was trained with, a sentence each.

    Raises:
        StreamError: settings that need the future of the signal.
    """

    def __init__(self, extractor: TinyMyoFeatureExtractor):
        if extractor.recording_rate != extractor.sampling_rate:
            raise StreamError(
                f"filter_rate={extractor.recording_rate:g} Hz differs from sampling_rate={extractor.sampling_rate:g} "
                "Hz: this model resamples whole recordings, which looks ahead; use one that takes them at its own rate"
            )
        self._extractor = extractor
        self._sections = design_filter(
            float(extractor.sampling_rate),
            None if extractor.band_pass is None else tuple(extractor.band_pass),
            extractor.band_pass_order,
            tuple(extractor.notch_frequencies),
            extractor.notch_quality,
        )
        # what is left of a constant: 0 for every band-pass and high-pass
        self._gain_at_zero = float(np.prod(self._sections[:, :3].sum(axis=1) / self._sections[:, 3:].sum(axis=1)))
        self._statistics = None
        if extractor.normalization_scope == "recording" and extractor.normalization != "none":
            self._statistics = _RunningMoments() if extractor.normalization == "zscore" else _RunningRange()
        self.notes = self._differences()
        self.reset(forget=True)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """(channels, time) in the unit of the training recordings -> float32 of the same shape."""
        x = samples.astype(np.float64)
        if len(self._sections) and x.shape[1]:
            if self._state is None:  # the steady state of the first sample
                self._offset = x[:, :1]
                self._state = np.zeros((len(self._sections), len(x), 2))
            x, self._state = scipy_signal.sosfilt(self._sections, x - self._offset, axis=1, zi=self._state)
            x += self._offset * self._gain_at_zero
        x *= self._extractor.gain
        if self._extractor.soft_limit is not None:
            x = soft_limit(x, self._extractor.soft_limit)
        if self._statistics is not None and x.shape[1]:
            x = self._statistics.push(x)
        return x.astype(np.float32)

    def reset(self, forget: bool) -> None:
        """After a break the filters start anew; with `forget` (another recording) the statistics do, too."""
        self._state = self._offset = None
        if forget and self._statistics is not None:
            self._statistics = type(self._statistics)()

    def _differences(self) -> list[str]:
        notes = []
        if len(self._sections) and self._extractor.filter_mode == "zero_phase":
            notes.append("the filters run forwards only; the model was trained with filters that run both ways")
        if self._statistics is not None:
            trained = "" if self._extractor.filter_mode == "causal" else "; in training they covered the recording"
            notes.append(f"normalisation has the statistics of the signal so far{trained}")
        return notes


class _RunningMoments:
    """z-score by the mean and the standard deviation of the samples so far."""

    def __init__(self) -> None:
        self._count = 0
        self._offset: np.ndarray | None = None
        self._sum = self._squares = self._largest = 0.0

    def push(self, x: np.ndarray) -> np.ndarray:
        if self._offset is None:
            self._offset = x[:, :1].copy()
        x = x - self._offset
        count = self._count + np.arange(1, x.shape[1] + 1)
        total = self._sum + np.cumsum(x, axis=1)
        squares = self._squares + np.cumsum(x * x, axis=1)
        largest = np.maximum(self._largest, np.maximum.accumulate(x * x, axis=1))
        self._count, self._sum, self._squares = int(count[-1]), total[:, -1:], squares[:, -1:]
        self._largest = largest[:, -1:]
        mean = total / count
        spread = squares - total * mean
        spread[spread < 1e-12 * largest] = 0.0  # the rounding of a constant, as in `normalize`
        deviation = np.sqrt(spread / np.maximum(count - 1, 1))
        return (x - mean) / np.where(deviation > 0, deviation, 1.0)


class _RunningRange:
    """To [-1, 1] by the least and the largest of the samples so far."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf

    def push(self, x: np.ndarray) -> np.ndarray:
        low = np.minimum(self._low, np.minimum.accumulate(x, axis=1))
        high = np.maximum(self._high, np.maximum.accumulate(x, axis=1))
        self._low, self._high = low[:, -1:], high[:, -1:]
        return 2 * ((x - low) / (high - low + 1e-8) - 0.5)
