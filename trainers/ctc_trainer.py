"""The `Trainer` of CTC models: windows of like length together, and the best label of each frame, not logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from dataset_builders.continuous_view import IGNORED_LABEL
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC, frame_span
from tinymyo_hf.semg_transformer.streaming import session_logits
from trainers.ctc_models import plain_model
from trainers.optim import LayerwiseTrainer

# Frames that name a key in `alignment_loss`, counted from the one that begins as it is pressed: they end 30 to 60 ms
# after, when most of the muscles' activity, which comes before the press, has been seen.
PRESSED_FRAMES = (2, 3, 4)


class CTCTrainer(LayerwiseTrainer):
    """`LayerwiseTrainer` for `TextWindows`."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # The library would read every window to learn how long it is.
        windows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LikeLengths(batch_size, windows.lengths, self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def label_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """As of `LayerwiseTrainer`, and `alignment_weight` times `alignment_loss` where windows say when keys were
        pressed."""
        starts = inputs.get("label_starts")
        if starts is None:
            return super().label_loss(model, inputs, num_items_in_batch)
        inputs = {name: value for name, value in inputs.items() if name != "label_starts"}
        loss, outputs = super().label_loss(model, inputs, num_items_in_batch)
        plain = plain_model(self.accelerator.unwrap_model(self.model))
        places = frame_places(plain, inputs, outputs["logits"].device)
        aligned = alignment_loss(plain.config, outputs["logits"], inputs["labels"], starts, places)
        return loss + self.args.alignment_weight * aligned, outputs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """As the library's, with the label of each frame (batch, frames) in place of logits: a corpus of logits, 99 for
        every 10 ms, would not fit into memory."""
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if logits is not None:
            logits = best_labels(plain_model(self.accelerator.unwrap_model(self.model)), logits, inputs)
        return loss, logits, labels


class LikeLengths(LengthGroupedSampler):
    """The library's sampler of windows of like length, in an order that depends on the seed and the epoch alone: the
    same in all processes, and in a run that goes on after an interruption."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """The `Trainer` calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        place = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        self.generator = torch.Generator().manual_seed(place)
        return super().__iter__()


def best_labels(model: SEMGTransformerForCTC, logits: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(batch, frames, vocab) logits of a batch -> (batch, frames) ids, the blank outside the recording, and outside
    `labelled_span` where the batch has it."""
    config = model.config
    places = frame_places(model, inputs, logits.device)
    index = torch.arange(logits.shape[1], device=logits.device)
    inside = (index >= places[:, :1]) & (index < places[:, 1:])
    return (
        logits.argmax(-1).int().masked_fill(~inside, config.pad_token_id)
    )  # half the memory of the library's integers


def frame_places(
    model: SEMGTransformerForCTC, inputs: Mapping[str, torch.Tensor], device: torch.device
) -> torch.Tensor:
    """The first frame and the one after the last (batch, 2) that a batch's labels are about."""
    samples = inputs["attention_mask"].sum(1).to(device)
    span = inputs.get("labelled_span")
    frames = model.semg_transformer.feature_extractor.frame_lengths(samples)
    return frame_span(model.config, frames, None if span is None else span.to(device))


def alignment_loss(
    config: SEMGTransformerConfig,
    logits: torch.Tensor,
    labels: torch.Tensor,
    starts: torch.Tensor,
    places: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy, frame by frame, against the key in the frames just after it was pressed and the blank elsewhere;
    in nats per character, as CTC's mean.

    Args:
        logits: (batch, frames, vocab).
        labels: (batch, longest) ids, padded with negative values.
        starts: (batch, longest), the sample at which each key was pressed.
        places: (batch, 2), the first frame that counts and the one after the last.
    """
    batch, frames, _ = logits.shape
    rows, columns = (labels >= 0).nonzero(as_tuple=True)
    pressed = starts[rows, columns].div(config.hop_length, rounding_mode="floor").long()
    targets = torch.full((batch, frames), config.pad_token_id, device=logits.device)
    for delay in PRESSED_FRAMES:
        shown = pressed + delay
        inside = (shown >= 0) & (shown < frames)
        targets[rows[inside], shown[inside]] = labels[rows, columns][inside]
    index = torch.arange(frames, device=logits.device)
    targets[(index < places[:, :1]) | (index >= places[:, 1:])] = IGNORED_LABEL
    error = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return error / max(len(rows), 1)


def collapse(frame_ids: np.ndarray, blank: int) -> list[int]:
    """(frames,) best ids -> ids of the text: runs of an id count once, blanks and padding (negative) not at all."""
    starts = np.r_[True, frame_ids[1:] != frame_ids[:-1]]
    return frame_ids[starts & (frame_ids != blank) & (frame_ids >= 0)].tolist()


def session_labels(model: SEMGTransformerForCTC, signal: torch.Tensor, chunk: int) -> np.ndarray:
    """The best id of each frame (frames,) of a whole session (channels, time), which is read `chunk` samples at a
    time."""
    return session_logits(model, signal[None], chunk)[0].argmax(-1).cpu().numpy()
