"""Vocoders: from the log-mel spectrum of speech to audio.

`load_vocoder` gives Griffin-Lim, which needs neither weights nor torch, or a HiFi-GAN (`tinymyo_hf.hifigan`), which
needs those of a trained generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .audio import griffin_lim

if TYPE_CHECKING:
    import torch


class VocoderError(ValueError):
    """A vocoder that cannot be loaded, or is for another spectrum; the message names it and the fix."""


class Vocoder(Protocol):
    """Audio of spectra.

    Attributes:
        name: for reports.
        num_parameters: of its network, 0 if it has none.
    """

    name: str
    num_parameters: int

    def __call__(self, log_mel: np.ndarray) -> np.ndarray:
        """log-mel spectrum (frames, 80) as `tinymyo_hf.audio.log_mel` makes it -> float32 (frames * 256,) at 22,050 Hz.

        Raises:
            SignalError: another shape, or values that no audio has.
        """
        ...


@dataclass(frozen=True)
class GriffinLim:
    """`tinymyo_hf.audio.griffin_lim` with its default number of iterations."""

    name: str = "Griffin-Lim"
    num_parameters: int = 0

    def __call__(self, log_mel: np.ndarray) -> np.ndarray:
        return griffin_lim(log_mel)


def load_vocoder(source: str | Path | None = None, device: str | torch.device = "cpu") -> Vocoder:
    """The vocoder of a folder or Hub id; Griffin-Lim where none is named.

    Args:
        source: folder or Hub id of a `SpeechT5HifiGan` for 80 bands, 256 samples a frame and 22,050 Hz, as
            `convert_hifigan` writes it. Only a Hub id is ever downloaded.
        device: of the network.

    Raises:
        VocoderError: no such folder or repository, another kind of model, weights missing, or another spectrum; or
            torch is not installed.
    """
    if source is None:
        return GriffinLim()
    try:
        from .hifigan import load_hifigan
    except ImportError as error:
        raise VocoderError(
            f"{source}: a HiFi-GAN runs in torch and transformers, which are not installed ({error}); install them, or "
            "name no vocoder for Griffin-Lim"
        ) from error
    return load_hifigan(source, device)
