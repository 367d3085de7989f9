"""The loss of speech synthesis: frames of spectrum and phone, which silent speech has only after an alignment.

Of speech read aloud, EMG and sound were recorded together: each predicted frame has a target. Of silent speech the
targets are those of the same sentence read aloud, at another pace: dynamic time warping finds which predicted frame
belongs to which target. A pair costs the Euclidean distance of the spectra plus a weight times the cross-entropy of the
phone; an utterance, the sum over its pairs; a batch, the sum over its utterances divided by the number of its target
frames.

Source: "TinyMyo", downstream 3; Gaddy and Klein, "An Improved Model for Voicing Silent Speech", section 3.1, and their
released code (transduction_model.py), which gives the weight 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from trainers.dtw import Path, dtw_paths, one_per_column

Alignment = Literal["path", "frames"]
"""What is summed of silent speech: "path", every pair on the alignment; "frames", the first predicted frame of each
target frame, as the released code has it."""


@dataclass(frozen=True)
class SpeechFrames:
    """Predicted frames of an utterance and its targets.

    Attributes:
        spectrum: predicted, (frames, bins).
        phone_logits: predicted, (frames, phones).
        targets: (target frames, bins).
        phones: (target frames,) ids.
        silent: whether targets belong to the sentence but not to the frames; if not, there are as many of both.
    """

    spectrum: torch.Tensor
    phone_logits: torch.Tensor
    targets: torch.Tensor
    phones: torch.Tensor
    silent: bool

    def pairs(self, frames: torch.Tensor, target_frames: torch.Tensor) -> SpeechFrames:
        """Predicted frames side by side with target frames, as if they had been recorded together; both (pairs,)."""
        return SpeechFrames(
            self.spectrum[frames],
            self.phone_logits[frames],
            self.targets[target_frames],
            self.phones[target_frames],
            silent=False,
        )


@dataclass(frozen=True)
class SynthesisLoss:
    """How predictions are compared with targets.

    Attributes:
        phone_weight: of the cross-entropy, in nats.
        scale: by which distances are divided, in the unit of the targets.
        alignment: of silent speech.
    """

    phone_weight: float = 0.5
    scale: float = 1.0
    alignment: Alignment = "path"

    def __call__(self, utterances: Sequence[SpeechFrames]) -> torch.Tensor:
        """Sum over the pairs of all utterances divided by the number of their target frames: a scalar."""
        return self.total(utterances) / sum(len(utterance.targets) for utterance in utterances)

    def total(self, utterances: Sequence[SpeechFrames]) -> torch.Tensor:
        """Sum over the pairs of all utterances: a scalar."""
        return torch.stack([self._total(utterance) for utterance in self.aligned(utterances)]).sum()

    def aligned(self, utterances: Sequence[SpeechFrames]) -> list[SpeechFrames]:
        """The same utterances, those of silent speech as pairs on their alignment, through which no gradient flows."""
        silent = [utterance for utterance in utterances if utterance.silent]
        costs = [self.costs(utterance) for utterance in silent]
        if not all(cost.isfinite().all() for cost in costs):
            # nothing to align; a pair at fault makes the sum no number either, which is what whoever trains is told
            pairs = iter([[part[:1] for part in (~cost.isfinite()).nonzero(as_tuple=True)] for cost in costs])
        else:
            paths = dtw_paths([cost.cpu().numpy() for cost in costs])
            pairs = iter([[torch.from_numpy(part) for part in self._choose(path)] for path in paths])
        return [
            utterance.pairs(*(part.to(utterance.spectrum.device) for part in next(pairs)))
            if utterance.silent
            else utterance
            for utterance in utterances
        ]

    @torch.no_grad()
    def costs(self, utterance: SpeechFrames) -> torch.Tensor:
        """What each pair of a predicted frame and a target frame costs: float32 (frames, target frames)."""
        distances = torch.cdist(utterance.spectrum.float(), utterance.targets.float())
        log_probabilities = nn.functional.log_softmax(utterance.phone_logits.float(), dim=-1)
        return distances / self.scale - self.phone_weight * log_probabilities[:, utterance.phones]

    def _choose(self, path: Path) -> Path:
        if self.alignment == "path":
            return path
        rows = one_per_column(path)
        return rows, np.arange(len(rows))

    def _total(self, pairs: SpeechFrames) -> torch.Tensor:
        distances = torch.linalg.vector_norm(pairs.spectrum.float() - pairs.targets.float(), dim=-1)
        errors = nn.functional.cross_entropy(pairs.phone_logits.float(), pairs.phones, reduction="sum")
        return distances.sum() / self.scale + self.phone_weight * errors
