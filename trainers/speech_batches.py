"""Batches of utterances of any length: put together by their samples, and packed into pieces of one length.

    pieces, mask = pack(utterances)                         # (8, n_i) each -> (P, 8, 1600)
    frames = model(pieces, mask).logits                     # (P, 200, D)
    of_each = unpack(frames, [n // 8 for n in lengths])     # (n_i / 8, D) each

Source: TinyMyo, downstream 3, and the released code it builds on (https://github.com/dgaddy/silent_speech): the
utterances of a batch are put end to end and cut into pieces of 1600 samples, so that nothing but the last piece is
padded. A piece can begin in the middle of a word and hold two utterances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from trainers.errors import RecipeError

PIECE_LENGTH = 1600
SAMPLES_PER_FRAME = 8
_MOST_SCORES = 8_000_000  # pairs of frames whose attention is computed at once: about 0.4 GB with three heads


def pack(utterances: Sequence[torch.Tensor], piece_length: int = PIECE_LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Put utterances end to end and cut them into pieces.

    Args:
        utterances: (channels, time) each, every time a multiple of 8 samples.
        piece_length: a multiple of 8.

    Returns:
        Pieces (P, channels, piece_length), zeros after the last utterance, and their attention mask (P, piece_length),
        int64, 1 where a sample is one.

    Raises:
        ValueError: no utterance, or a length that is no multiple of 8.
    """
    _check_lengths(utterances)
    if piece_length < SAMPLES_PER_FRAME or piece_length % SAMPLES_PER_FRAME:
        raise ValueError(f"piece_length={piece_length}: must be a multiple of {SAMPLES_PER_FRAME} samples")
    together = torch.cat(list(utterances), dim=1)
    channels, time = together.shape
    count = math.ceil(time / piece_length)
    together = torch.nn.functional.pad(together, (0, count * piece_length - time))
    mask = (torch.arange(count * piece_length) < time).long()
    pieces = together.reshape(channels, count, piece_length).transpose(0, 1).contiguous()
    return pieces, mask.reshape(count, piece_length)


def pad(utterances: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Utterances as they are, padded with zeros to the longest: as `pack`, (utterances, channels, longest) and their
    attention mask (utterances, longest)."""
    _check_lengths(utterances)
    lengths = torch.tensor([utterance.shape[1] for utterance in utterances])
    padded = utterances[0].new_zeros(len(utterances), len(utterances[0]), int(lengths.max()))
    for row, utterance in zip(padded, utterances, strict=True):
        row[:, : utterance.shape[1]] = utterance
    return padded, (torch.arange(padded.shape[2]) < lengths[:, None]).long()


def scoring_batches(lengths: Sequence[int], batch_size: int) -> list[range]:
    """Utterances to score at a time, one after the other as they come: at most `batch_size`, and fewer of long ones, as
    attention takes memory by the square of the longest.

    Args:
        lengths: samples of each utterance.
    """
    batches, start, longest = [], 0, 0
    for index, length in enumerate(lengths):
        longest = max(longest, length // SAMPLES_PER_FRAME)
        count = index - start
        if count == batch_size or (count and (count + 1) * longest**2 > _MOST_SCORES):
            batches.append(range(start, index))
            start, longest = index, length // SAMPLES_PER_FRAME
    return [*batches, range(start, len(lengths))] if lengths else []


def _check_lengths(utterances: Sequence[torch.Tensor]) -> None:
    lengths = [utterance.shape[1] for utterance in utterances]
    wrong = [length for length in lengths if length % SAMPLES_PER_FRAME or not length]
    if not lengths or wrong:
        raise ValueError(
            f"utterances of {wrong or lengths} samples: a batch needs at least one, each of a multiple of "
            f"{SAMPLES_PER_FRAME} samples; cut off the rest"
        )


def unpack(
    frames: torch.Tensor, lengths: Sequence[int], attention_mask: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """The frames of each utterance, from those of a packed or padded batch.

    Args:
        frames: (P, F, ...), as a model gives them for `pack` or `pad`: one per 8 samples.
        lengths: frames of each utterance.
        attention_mask: (P, time) of the batch; needed for `pad`, while without it the utterances lie end to end.

    Returns:
        (n_i, ...) of each utterance, in order.

    Raises:
        ValueError: there are fewer frames than the lengths say.
    """
    flat = frames.flatten(0, 1)
    if attention_mask is not None:
        flat = flat[attention_mask[:, ::SAMPLES_PER_FRAME].flatten().bool()]
    lengths = [int(length) for length in lengths]
    if sum(lengths) > len(flat):
        raise ValueError(f"{len(flat)} frames cannot be those of utterances of {lengths} frames")
    return list(flat[: sum(lengths)].split(lengths))


class SizeAwareBatches(Sampler[list[int]]):
    """Batches of utterances of at most `max_samples` samples together.

    Every epoch has all utterances, shuffled anew, in the same number of batches, as the library's `Trainer` counts its
    steps. Each utterance goes, in random order, to the batch that has the fewest samples so far, so batches are about
    equally large; how many there are is chosen such that none can become too large in any order.

    The order depends on the seed and the epoch alone: it is the same in all processes, of which each takes its share,
    and in a run that goes on after an interruption.

    Args:
        lengths: samples of each utterance.
        max_samples: at least twice the longest.
        rank, world_size: of the process.

    Raises:
        RecipeError: an utterance is too long, or there are too few utterances for the processes.
    """

    def __init__(self, lengths: Sequence[int], max_samples: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        longest = int(self.lengths.max(initial=0))
        if 2 * longest > max_samples:
            raise RecipeError(
                f"max_samples={max_samples}: the longest utterance has {longest} samples, a batch must have room for "
                f"two; raise max_samples to {2 * longest} or more, or leave that utterance out"
            )
        # The emptiest of n batches has at most (total - length) / n samples when an utterance is added to it.
        count = math.ceil((int(self.lengths.sum()) - longest) / (max_samples - longest))
        self.count = math.ceil(max(count, 1) / world_size) * world_size
        if len(self.lengths) < self.count:  # every process needs something in each of its batches
            raise RecipeError(f"{len(self.lengths)} utterances are too few for {world_size} processes; use fewer")
        self.seed, self.rank, self.world_size, self.epoch = seed, rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Shuffle differently in every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of this process."""
        return self.count // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()[self.rank :: self.world_size]

    def batches(self) -> list[list[int]]:
        """All batches of the epoch, of all processes."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))
        batches: list[list[int]] = [[] for _ in range(self.count)]
        filled = np.zeros(self.count, np.int64)
        for index in order.tolist():
            emptiest = int(filled.argmin())
            batches[emptiest].append(index)
            filled[emptiest] += self.lengths[index]
        return batches
