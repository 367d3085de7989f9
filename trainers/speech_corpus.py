"""What training on silent speech needs of a corpus: stored recordings that are whole utterances, with their text.

Columns: `text`; `mode` ("silent", "voiced", "nonparallel": whether it was mouthed or read aloud; a corpus without it
was read aloud), `targets` and `phones` for synthesis, `recording`, `subject`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from dataset_builders.continuous_view import ContinuousDataset, Cutting
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.errors import RecipeError
from trainers.speech_batches import SAMPLES_PER_FRAME

SILENT = "silent"
VOICED = "voiced"
_COLUMNS = ("recording", "subject", "mode", "text", "parallel", "start", "recording_length")


@dataclass(frozen=True)
class Utterance:
    """What is known of an utterance without reading its signal.

    Attributes:
        index: in its split.
        name, subject: the recording, the person.
        mode: "silent", "voiced" or "nonparallel".
        text: as the corpus has it.
        parallel: of a silent utterance, the recording of the sentence read aloud; "" if there is none.
        samples: its length, whole frames of 8 samples only.
    """

    index: int
    name: str
    subject: str
    mode: str
    text: str
    parallel: str
    samples: int

    @property
    def silent(self) -> bool:
        """Whether it was mouthed without a sound."""
        return self.mode == SILENT

    @property
    def frames(self) -> int:
        """Of the model."""
        return self.samples // SAMPLES_PER_FRAME


def list_utterances(split: datasets.Dataset) -> list[Utterance]:
    """The utterances of a split in the order of `ContinuousDataset`; no signal is read."""
    rows = split.select_columns([name for name in _COLUMNS if name in split.features]).with_format(None)
    found = []
    for row in rows:
        if row["start"]:
            continue  # a later part of the same recording
        found.append(
            Utterance(
                index=len(found),
                name=row["recording"],
                subject=row.get("subject") or "",
                mode=row.get("mode") or VOICED,
                text=row.get("text") or "",
                parallel=row.get("parallel") or "",
                samples=row["recording_length"] // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME,
            )
        )
    return found


def check_speech(
    corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, name: str, task: str, synthesis: bool = False
) -> None:
    """Raise `RecipeError` for a corpus whose rows are no recordings or are to be normalised window by window, or which
    lacks a column that a task needs."""
    if any("recording_length" not in rows.features for rows in corpus.values()):
        raise RecipeError(
            f"dataset {name} stores windows, {task} takes whole utterances: add `rows: recordings` to dataset_config, "
            "or prepare it so"
        )
    if extractor.normalization != "none" and extractor.normalization_scope == "window":
        raise RecipeError(
            f"dataset {name} is normalised window by window, but {task} takes whole utterances: set "
            'normalization_scope to "recording", or normalization to "none", in dataset_config'
        )
    needed = ("text", "targets", "phones") if synthesis else ("text",)
    for split, rows in corpus.items():
        missing = [column for column in needed if column not in rows.features]
        if missing:
            hint = "prepare it with audio: true" if synthesis else "give each recording its text (metadata.csv)"
            raise RecipeError(f"dataset {name}, {split} split: no column {', '.join(missing)}; {hint}")


class Utterances(torch.utils.data.Dataset):
    """Utterances of a split as items: `input_values` float32 (channels, time), a multiple of 8 samples; `utterance`;
    `targets` (frames, bins) and `phones` (frames,) where the corpus has them.

    Args:
        split: rows are recordings.
        chosen: the utterances to have, e.g. those of `list_utterances` that have a text.
        transform: applied to each item.
        max_shift: drop the first 0 to so many samples, at random by utterance and epoch, and put zeros at the end, so
            that lengths and targets stay as they are. Source: the released code, which shifts batches.
        seed: of the shifts.

    Attributes:
        utterances: those chosen, in order.
        lengths: samples of each.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        chosen: Sequence[Utterance],
        transform: Callable[[dict], dict] | None = None,
        max_shift: int = 0,
        seed: int = 0,
    ):
        self.view = ContinuousDataset(split, Cutting())
        self.utterances = list(chosen)
        self.lengths = [utterance.samples for utterance in chosen]
        self.transform = transform
        self.max_shift = max_shift
        self.seed = seed

    def __len__(self) -> int:
        return len(self.utterances)

    def set_epoch(self, epoch: int) -> None:
        """Shift otherwise in every epoch; the `Trainer` calls this."""
        self.view.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict:
        utterance = self.utterances[index]
        found = self.view[utterance.index]
        signal = found["input_values"][:, : utterance.samples]
        item = {"input_values": self._shifted(signal, utterance.name), "utterance": utterance}
        item |= {name: found[name] for name in ("targets", "phones") if name in found}
        return item if self.transform is None else self.transform(item)

    def _shifted(self, signal: torch.Tensor, name: str) -> torch.Tensor:
        if not self.max_shift:
            return signal
        rng = np.random.default_rng([self.seed, self.view.epoch, zlib.crc32(name.encode())])
        shift = int(rng.integers(self.max_shift + 1))
        return torch.nn.functional.pad(signal[:, shift:], (0, shift))


def of_modes(utterances: Sequence[Utterance], silent: str, voiced: str) -> list[Utterance]:
    """Those to learn from, as the options `silent` and `voiced` of `SpeechArguments` say."""
    return [u for u in utterances if (silent if u.silent else voiced) == "use"]
