"""Train-time augmentation of windows: small frozen dataclasses, composed in a list, applied to a whole batch at once.

Every transform takes `x` (batch, channels, time) float and a `torch.Generator` on the same device, and returns a new
tensor of the same shape. Inputs are expected to be normalised (standard deviation near 1), so amplitudes are relative.
A recipe names them under `augmentations`, in the order of application:

    augmentations:
      amplitude_scale: {window: 0.2, channel: 0.1}
      gaussian_noise: {std: 0.05}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from trainers.errors import RecipeError

Transform = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _uniform(shape: Sequence[int], x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(*shape, device=x.device, dtype=x.dtype, generator=generator)


def _integers(high: int, shape: Sequence[int], x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(high, tuple(shape), device=x.device, generator=generator)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise RecipeError(f"augmentation {name} must be in [{low}, {high}], got {value}")


def _check_kind(name: str, value: Any, default: bool | int | float) -> None:
    """YAML reads `1e-1` as text: say so rather than fail later."""
    kind = type(default)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        wanted = {bool: "true or false", int: "a whole number", float: "a number such as 0.1"}[kind]
        raise RecipeError(f"augmentation {name}={value!r}: give {wanted}")


def _ring_size(name: str, rings: int, channels: int) -> int:
    """Channels of each of several equal rings."""
    if channels % rings:
        raise RecipeError(f"augmentation {name}={rings} does not divide the {channels} channels; correct it")
    return channels // rings


@dataclass(frozen=True)
class AmplitudeScale:
    """Multiply by exp(uniform(-s, s)): one factor per window (`window`) times one per channel (`channel`)."""

    window: float = 0.2
    channel: float = 0.1

    def __post_init__(self) -> None:
        _check_range("amplitude_scale.window", self.window, 0.0, 3.0)
        _check_range("amplitude_scale.channel", self.channel, 0.0, 3.0)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        log_gain = self.window * (2 * _uniform((x.shape[0], 1, 1), x, generator) - 1)
        log_gain = log_gain + self.channel * (2 * _uniform((*x.shape[:2], 1), x, generator) - 1)
        return x * log_gain.exp()


@dataclass(frozen=True)
class GaussianNoise:
    """Add white noise; its standard deviation is drawn per window from uniform(0, std)."""

    std: float = 0.05

    def __post_init__(self) -> None:
        _check_range("gaussian_noise.std", self.std, 0.0, 10.0)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(x.shape, device=x.device, dtype=x.dtype, generator=generator)
        return x + self.std * _uniform((x.shape[0], 1, 1), x, generator) * noise


@dataclass(frozen=True)
class ChannelDropout:
    """Set each channel of each window to zero with `probability`, as if the electrode had come off."""

    probability: float = 0.1

    def __post_init__(self) -> None:
        _check_range("channel_dropout.probability", self.probability, 0.0, 0.9)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x * (_uniform((*x.shape[:2], 1), x, generator) >= self.probability)


@dataclass(frozen=True)
class ElectrodeRotation:
    """Turn rings of electrodes: with `probability`, roll the channels of a ring by -max_shift..max_shift (not 0).

    `rings`: bands worn at once (two wrists: 2), each turned by itself; the channels are those of one ring after those
    of another.
    """

    max_shift: int = 1
    probability: float = 0.5
    rings: int = 1

    def __post_init__(self) -> None:
        _check_range("electrode_rotation.max_shift", self.max_shift, 1, 64)
        _check_range("electrode_rotation.probability", self.probability, 0.0, 1.0)
        _check_range("electrode_rotation.rings", self.rings, 1, 16)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch, channels, time = x.shape
        size = _ring_size("electrode_rotation.rings", self.rings, channels)
        if self.max_shift >= size:
            raise RecipeError(f"augmentation electrode_rotation.max_shift={self.max_shift}: a ring has {size} channels")
        shift = 1 + _integers(self.max_shift, (batch, self.rings), x, generator)
        shift = shift * (2 * _integers(2, (batch, self.rings), x, generator) - 1)
        shift = shift * (_uniform((batch, self.rings), x, generator) < self.probability)
        position = (torch.arange(size, device=x.device) - shift[:, :, None]) % size  # (batch, rings, size)
        source = position + size * torch.arange(self.rings, device=x.device)[:, None]
        return x.gather(1, source.reshape(batch, channels, 1).expand(batch, channels, time))


@dataclass(frozen=True)
class AlignmentJitter:
    """Shift rings of electrodes against each other in time, each by up to `max_samples` either way: clocks of separate
    bands differ, and so do the delays of their radios. What a shift uncovers repeats the first or last sample.
    """

    max_samples: int = 120
    rings: int = 2

    def __post_init__(self) -> None:
        _check_range("alignment_jitter.max_samples", self.max_samples, 1, 1_000_000)
        _check_range("alignment_jitter.rings", self.rings, 2, 16)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch, channels, time = x.shape
        size = _ring_size("alignment_jitter.rings", self.rings, channels)
        shift = _integers(2 * self.max_samples + 1, (batch, self.rings), x, generator) - self.max_samples
        shift = shift.repeat_interleave(size, dim=1)[:, :, None]
        return x.gather(2, (torch.arange(time, device=x.device) - shift).clamp(0, time - 1))


@dataclass(frozen=True)
class TimeShift:
    """Roll a window in time by up to `max_samples` either way, all its channels together or each by itself
    (`per_channel`). The seam is one discontinuity, no zero padding.

    Rolling each channel by itself breaks the phase between electrodes: what is left to learn from is how strong and
    how fast each of them is.
    """

    max_samples: int = 20
    per_channel: bool = False

    def __post_init__(self) -> None:
        _check_range("time_shift.max_samples", self.max_samples, 1, 1_000_000)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch, channels, time = x.shape
        rows = (batch, channels if self.per_channel else 1)
        shift = _integers(2 * self.max_samples + 1, rows, x, generator) - self.max_samples
        source = (torch.arange(time, device=x.device) - shift[:, :, None]) % time  # (batch, rows, time)
        return x.gather(2, source.expand(batch, channels, time))


@dataclass(frozen=True)
class Polarity:
    """Turn each channel of each window upside down with `probability`: which way the electrodes of a pair were wired
    says nothing about the movement."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_range("polarity.probability", self.probability, 0.0, 1.0)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.where(_uniform((*x.shape[:2], 1), x, generator) < self.probability, -x, x)


@dataclass(frozen=True)
class TimeReversal:
    """Play each window backwards with `probability`; for classes that are held, not for movements with a direction."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_range("time_reversal.probability", self.probability, 0.0, 1.0)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.where(_uniform((x.shape[0], 1, 1), x, generator) < self.probability, x.flip(2), x)


@dataclass(frozen=True)
class TimeMask:
    """Set `spans` stretches of each window to zero in all channels; each is 0..max_samples long."""

    max_samples: int = 20
    spans: int = 1

    def __post_init__(self) -> None:
        _check_range("time_mask.max_samples", self.max_samples, 1, 1_000_000)
        _check_range("time_mask.spans", self.spans, 1, 100)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch, _, time = x.shape
        length = _integers(min(self.max_samples, time) + 1, (batch, self.spans, 1), x, generator)
        start = (_uniform((batch, self.spans, 1), x, generator) * (time - length + 1)).long()
        position = torch.arange(time, device=x.device)
        masked = ((position >= start) & (position < start + length)).any(dim=1)  # (batch, time)
        return x.masked_fill(masked[:, None, :], 0.0)


@dataclass(frozen=True)
class ChannelMask:
    """Set neighbouring channels of each window to zero, 0..max_channels of them: a strap that lost contact somewhere.

    Channels are taken as a ring, so the last is a neighbour of the first.
    """

    max_channels: int = 2

    def __post_init__(self) -> None:
        _check_range("channel_mask.max_channels", self.max_channels, 1, 64)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch, channels, _ = x.shape
        # at least one channel is left
        count = _integers(min(self.max_channels, channels - 1) + 1, (batch, 1), x, generator)
        start = _integers(channels, (batch, 1), x, generator)
        masked = (torch.arange(channels, device=x.device) - start) % channels < count  # (batch, channels)
        return x.masked_fill(masked[:, :, None], 0.0)


TRANSFORMS: dict[str, type] = {
    "amplitude_scale": AmplitudeScale,
    "gaussian_noise": GaussianNoise,
    "channel_dropout": ChannelDropout,
    "electrode_rotation": ElectrodeRotation,
    "time_shift": TimeShift,
    "polarity": Polarity,
    "time_reversal": TimeReversal,
    "time_mask": TimeMask,
    "channel_mask": ChannelMask,
    "alignment_jitter": AlignmentJitter,
}

# What these do to a window in time would have to be done to its targets or events too.
AUGMENTATIONS_IN_TIME = ("time_shift", "time_reversal")


@dataclass(frozen=True)
class Augmentation:
    """Transforms applied one after the other to (batch, channels, time)."""

    transforms: tuple[Transform, ...]

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for transform in self.transforms:
            x = transform(x, generator)
        return x


def make_augmentation(named: Mapping[str, Mapping[str, Any] | None] | None) -> Augmentation | None:
    """`{"gaussian_noise": {"std": 0.1}, ...}` -> an `Augmentation` in that order; None for none.

    Raises:
        RecipeError: an unknown transform or parameter, or a value outside its range.
    """
    if not named:
        return None
    transforms = []
    for name, parameters in named.items():
        if name not in TRANSFORMS:
            raise RecipeError(f"unknown augmentation {name!r}; choose from {', '.join(TRANSFORMS)}")
        if not isinstance(parameters, Mapping | None):
            raise RecipeError(f"augmentation {name}={parameters!r}: give its parameters by name, or nothing")
        known = [field.name for field in fields(TRANSFORMS[name])]
        unknown = sorted(set(parameters or {}) - set(known))
        if unknown:
            raise RecipeError(f"augmentation {name} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
        for parameter, value in (parameters or {}).items():
            _check_kind(f"{name}.{parameter}", value, getattr(TRANSFORMS[name], parameter))
        transforms.append(TRANSFORMS[name](**(parameters or {})))
    return Augmentation(tuple(transforms))
