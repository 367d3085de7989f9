"""From a running signal to gestures: the TinyMyo models on the last window, every hop.

What all recognizers share is described by `Recognizer`; `tinymyo_hf.streaming.text` has the one for typing.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from tinymyo_hf.event_detection import DEBOUNCE, RELEASE, ROUNDING, THRESHOLD, FrameGrid, sigmoid
from tinymyo_hf.streaming.chunks import Event, StreamError
from tinymyo_hf.streaming.filters import MajorityFilter, Smoother
from tinymyo_hf.streaming.preprocessing import StreamingPreprocessor
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor

WINDOWS_AT_ONCE = 32


class Recognizer(Protocol):
    """Turns successive samples into events.

    Attributes:
        num_channels: that it takes; None for any number.
        sampling_rate: Hz.
        delay: s from a sample to when what depends on it can be known, at most, without any computing.
        notes: in what its results differ from those for a whole recording, a sentence each.
    """

    num_channels: int | None
    sampling_rate: float
    delay: float
    notes: list[str]

    def push(self, samples: np.ndarray) -> list[Event]:
        """Raw samples float32 (channels, time), finite -> events that are known now, in order of time."""

    def finish(self) -> list[Event]:
        """Events that are known once no more samples come; then `reset` is called before any others."""

    def reset(self, position: int, forget: bool) -> None:
        """Begin anew after an interruption.

        Args:
            position: of the next sample on the session's axis, from which times of events are counted.
            forget: whether it may be another recording, of which nothing is known; else parts of one are missing.
        """


class SlidingWindows:
    """The last `window_length` samples, each time `hop` more have come.

    Args:
        window_length, hop: samples.
        shorter: whether the first windows come before they are full.
    """

    def __init__(self, window_length: int, hop: int, shorter: bool = False):
        self.window_length, self.hop, self._shorter = window_length, hop, shorter
        self.reset()

    def push(self, samples: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(channels, time) -> the windows that end in these samples, each with the count of samples up to its end."""
        self._kept = samples if self._kept is None else np.concatenate([self._kept, samples], axis=1)
        self._count += samples.shape[1]
        windows = []
        while self._next <= self._count:
            last = self._kept.shape[1] - (self._count - self._next)
            windows.append((self._next, self._kept[:, max(last - self.window_length, 0) : last]))
            self._next += self.hop
        needed = self.window_length - (self._next - self._count)  # of what is there, by the next window
        self._kept = self._kept[:, max(self._kept.shape[1] - max(needed, 0), 0) :]
        return windows

    def reset(self) -> None:
        """Forget all samples."""
        self._kept: np.ndarray | None = None
        self._count, self._next = 0, self.hop if self._shorter else self.window_length


class GestureRecognizer:
    """Gestures of a classifier of windows, TinyMyo or Tiny-BioMoE, smoothed over windows.

    Events: {"type": "gesture", "time": s, the end of the window with which it is known, "label": None for none,
    "score": probability in that window, None without a label}, whenever another class holds.

    Args:
        model: a `TinyMyoForSequenceClassification` or `TinyBioMoEForSequenceClassification` in evaluation mode.
        extractor: of the same checkpoint.
        hop: samples between windows; by default the extractor's `stride`.
        smoother: which class holds; by default 3 of 5 windows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        extractor: TinyMyoFeatureExtractor,
        hop: int | None = None,
        smoother: Smoother | None = None,
    ):
        hop = extractor.stride if hop is None else hop
        if hop < 1:
            raise StreamError(f"hop={hop}: must be at least one sample")
        self._model, self._extractor = model, extractor
        self._smoother = MajorityFilter() if smoother is None else smoother
        self._preprocess = StreamingPreprocessor(extractor)
        self._windows = SlidingWindows(extractor.window_length, hop)
        self.num_channels = model_channels(model, extractor)
        self.sampling_rate = float(extractor.sampling_rate)
        votes = self._smoother.votes if isinstance(self._smoother, MajorityFilter) else 1
        self.delay = votes * hop / self.sampling_rate
        self.notes = self._preprocess.notes
        self._held: int | None = None
        self._start = 0

    def push(self, samples: np.ndarray) -> list[Event]:
        """See `Recognizer`."""
        windows = self._windows.push(self._preprocess.push(samples))
        events: list[Event] = []
        for i in range(0, len(windows), WINDOWS_AT_ONCE):
            part = windows[i : i + WINDOWS_AT_ONCE]
            values = self._extractor.normalize_windows(np.stack([window for _, window in part]))
            if self._model.main_input_name == "pixel_values":
                values = self._extractor.images(values)
            logits = predict(self._model, values)
            for (end, _), probabilities in zip(part, logits.softmax(-1).numpy(), strict=True):
                held = self._smoother.push(probabilities)
                if held != self._held:
                    self._held = held
                    events.append(self._event(end, held, probabilities))
        return events

    def _event(self, end: int, held: int | None, probabilities: np.ndarray) -> Event:
        known = held is not None
        return {
            "type": "gesture",
            "time": (self._start + end) / self.sampling_rate,
            "label": self._model.config.id2label[held] if known else None,
            "score": float(probabilities[held]) if known else None,
        }

    def finish(self) -> list[Event]:
        """Nothing is held back."""
        return []

    def reset(self, position: int, forget: bool) -> None:
        """See `Recognizer`; the class that holds goes on to, unless `forget`."""
        self._start = position
        self._windows.reset()
        self._preprocess.reset(forget)
        self._smoother.reset(forget)
        if forget:
            self._held = None


class EventRecognizer:
    """Discrete gestures of a TinyMyo frame classifier: an event where a probability rises to the threshold.

    A frame is taken from the first window that it is in, where it is the newest, and not averaged over windows, which
    would take `window_length` of waiting.

    Events: {"type": "event", "time": s, "gesture", "score": probability in the frame that rose}.

    Args:
        model: a `TinyMyoForFrameClassification` with the convolution stem, in evaluation mode.
        extractor: of the same checkpoint.
        hop: samples between windows, a multiple of the frames'; by default 50 ms in whole frames.
        threshold, debounce: as for `tinymyo_hf.event_detection.detect_events`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        extractor: TinyMyoFeatureExtractor,
        hop: int | None = None,
        threshold: float = THRESHOLD,
        debounce: float = DEBOUNCE,
    ):
        self._model, self._extractor = model, extractor
        self.num_channels = model_channels(model, extractor)
        self.sampling_rate = float(extractor.sampling_rate)
        self._grid = FrameGrid.of(model.config, self.sampling_rate)
        if hop is None:
            hop = max(1, round(0.05 * self.sampling_rate / self._grid.stride)) * self._grid.stride
        if hop < 1 or hop % self._grid.stride:
            raise StreamError(f"hop={hop}: must be a multiple of {self._grid.stride} samples, one frame of the model")
        if extractor.window_length % self._grid.stride or hop > extractor.window_length - self._grid.kernel_size:
            raise StreamError(
                f"hop={hop}, window_length={extractor.window_length}: windows must be whole frames of "
                f"{self._grid.stride} samples, and longer than the hop by {self._grid.kernel_size} samples"
            )
        names = [model.config.id2label[i] for i in range(len(model.config.id2label))]
        self._names = names
        self._detector = EventDetector(names, threshold, debounce)
        self._preprocess = StreamingPreprocessor(extractor)
        self._windows = SlidingWindows(extractor.window_length, hop, shorter=True)
        self.delay = (hop + self._grid.kernel_size - 1) / self.sampling_rate
        self.notes = [*self._preprocess.notes]
        if not model.config.is_causal:
            self.notes.append("the network looks both ways; the newest frame of a window lacks what follows it")
        self._start = self._frames = 0

    def push(self, samples: np.ndarray) -> list[Event]:
        """See `Recognizer`."""
        events: list[Event] = []
        for end, window in self._windows.push(self._preprocess.push(samples)):
            new = self._grid.count(end) - self._frames
            if new <= 0:  # the first samples do not fill the kernel
                continue
            logits = predict(self._model, self._extractor.normalize_windows(window[None]))[0, -new:]
            first = self._frames * self._grid.stride + self._start
            times = first / self.sampling_rate + self._grid.times(new)
            self._frames += new
            for time, label, score in self._detector.push(sigmoid(logits.numpy()), times):
                events.append({"type": "event", "time": time, "gesture": self._names[label], "score": score})
        return events

    def finish(self) -> list[Event]:
        """Nothing is held back but samples after the last hop, of less than that."""
        return []

    def reset(self, position: int, forget: bool) -> None:
        """See `Recognizer`."""
        self._start, self._frames = position, 0
        self._windows.reset()
        self._preprocess.reset(forget)
        self._detector.reset()


class EventDetector:
    """`tinymyo_hf.event_detection.detect_events`, frame by frame, but for the score, whose peak is not known yet."""

    def __init__(self, names: Sequence[str], threshold: float = THRESHOLD, debounce: float = DEBOUNCE):
        if not 0 < threshold < 1:
            raise StreamError(f"threshold={threshold}: must be a probability between 0 and 1; {THRESHOLD} is usual")
        if not debounce >= 0:
            raise StreamError(f"debounce={debounce}: must be at least 0 seconds")
        self._is_release = [name.endswith(RELEASE) for name in names]
        self._threshold, self._debounce = threshold, debounce
        self._kept: tuple[float, int] | None = None
        self.reset()

    def push(self, probabilities: np.ndarray, times: np.ndarray) -> list[tuple[float, int, float]]:
        """(frames, labels) in [0, 1] and (frames,) in s, which go on after those before -> (time, label, score)."""
        if not np.isfinite(probabilities).all():
            raise StreamError(f"probabilities at {times[0]:g} s are not finite; check the signal and the weights")
        above = probabilities >= self._threshold
        rises = above & ~np.concatenate([self._above[None, :], above[:-1]])
        self._above = above[-1]
        events = []
        for frame, label in zip(*map(np.ndarray.tolist, np.nonzero(rises)), strict=True):
            time = float(times[frame])
            if not self._bounces(time, label):
                self._kept = (time, label)
                events.append((time, label, float(probabilities[frame, label])))
        return events

    def _bounces(self, time: float, label: int) -> bool:
        if self._kept is None or time - self._kept[0] >= self._debounce - ROUNDING:
            return False
        last = self._kept[1]
        return label == last or not (self._is_release[label] or self._is_release[last])

    def reset(self) -> None:
        """After a break every probability counts as having been below the threshold."""
        self._above = np.zeros(len(self._is_release), bool)


def predict(model: PreTrainedModel, windows: np.ndarray) -> torch.Tensor:
    """Logits float32, on the CPU, of float32 windows (windows, channels, time), or of their images."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        values = torch.from_numpy(np.ascontiguousarray(windows)).to(parameter.device, parameter.dtype)
        return model(**{model.main_input_name: values}).logits.float().cpu()


def model_channels(model: PreTrainedModel, extractor: TinyMyoFeatureExtractor) -> int | None:
    """The channels that a model takes; None for any number."""
    if extractor.feature_size is not None or model.main_input_name == "pixel_values":
        return extractor.feature_size
    config = model.config
    return config.num_channels if config.channel_fusion == "concat" or config.stem == "convolution" else None
