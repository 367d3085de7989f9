"""Packing, padding, and batches by samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import RecipeError
from trainers.speech_batches import SizeAwareBatches, pack, pad, scoring_batches, unpack

LENGTHS = st.lists(st.integers(1, 60).map(lambda frames: 8 * frames), min_size=1, max_size=12)


def utterances_of(lengths):
    values = torch.arange(3 * sum(lengths), dtype=torch.float32).reshape(sum(lengths), 3).T + 1  # no zero
    return list(values.split(lengths, dim=1))


def every_eighth(samples):
    """What a model does to time: (P, channels, time) -> (P, frames, channels)."""
    return samples[:, :, ::8].transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 25).map(lambda frames: 8 * frames))
def test_the_frames_of_packed_utterances_are_those_of_each_alone(lengths, piece_length):
    utterances = utterances_of(lengths)
    pieces, mask = pack(utterances, piece_length)
    assert pieces.shape == (-(-sum(lengths) // piece_length), 3, piece_length)
    assert int(mask.sum()) == sum(lengths) and (pieces.abs().sum(1)[mask == 0] == 0).all()
    found = unpack(every_eighth(pieces), [length // 8 for length in lengths])
    masked = unpack(every_eighth(pieces), [length // 8 for length in lengths], mask)
    for utterance, frames, again in zip(utterances, found, masked, strict=True):
        assert torch.equal(frames, utterance[:, ::8].T)
        assert torch.equal(frames, again)


@settings(max_examples=30, deadline=None)
@given(LENGTHS)
def test_the_frames_of_padded_utterances_are_those_of_each_alone(lengths):
    utterances = utterances_of(lengths)
    padded, mask = pad(utterances)
    assert padded.shape == (len(lengths), 3, max(lengths)) and mask.sum(1).tolist() == lengths
    for utterance, frames in zip(
        utterances, unpack(every_eighth(padded), [n // 8 for n in lengths], mask), strict=True
    ):
        assert torch.equal(frames, utterance[:, ::8].T)


def test_pieces_are_the_utterances_end_to_end():
    first, second = torch.full((1, 16), 1.0), torch.full((1, 24), 2.0)
    pieces, mask = pack([first, second], 32)
    assert pieces[0, 0].tolist() == [1.0] * 16 + [2.0] * 16
    assert pieces[1, 0].tolist() == [2.0] * 8 + [0.0] * 24
    assert mask[1].tolist() == [1] * 8 + [0] * 24


@pytest.mark.parametrize("wrong", [[], [torch.zeros(8, 0)], [torch.zeros(8, 16), torch.zeros(8, 12)]])
def test_utterances_must_be_whole_frames(wrong):
    with pytest.raises(ValueError, match="multiple of 8"):
        pack(wrong)
    with pytest.raises(ValueError, match="multiple of 8"):
        pad(wrong)


def test_frames_that_are_not_there_are_not_made_up():
    with pytest.raises(ValueError, match="cannot be those"):
        unpack(torch.zeros(1, 5, 2), [3, 3])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(8, 400), min_size=1, max_size=80),
    st.integers(800, 3000),
    st.integers(0, 3),
    st.integers(0, 5),
)
def test_batches_have_everything_once_and_never_too_much(lengths, max_samples, seed, epoch):
    sampler = SizeAwareBatches(lengths, max_samples, seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(sum(batches, [])) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert max(sum(lengths[i] for i in batch) for batch in batches) <= max_samples


def test_epochs_differ_and_repeat():
    lengths = np.random.default_rng(0).integers(100, 1000, 200).tolist()
    sampler = SizeAwareBatches(lengths, 5000, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second and len(first) == len(second)
    again = SizeAwareBatches(lengths, 5000, seed=3)
    again.set_epoch(1)
    assert list(again) == second
    assert list(SizeAwareBatches(lengths, 5000, seed=4)) != first


def test_processes_share_the_batches_evenly():
    lengths = np.random.default_rng(0).integers(100, 1000, 100).tolist()
    parts = [SizeAwareBatches(lengths, 4000, 0, rank, 3) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(100))
    assert all(batch for part in parts for batch in part)


def test_batches_are_filled():
    """At most as many batches as the bound promises: here a tenth more than were needed to fill each."""
    lengths = np.random.default_rng(0).integers(1000, 10_000, 2000)
    assert len(SizeAwareBatches(lengths, 128_000)) <= 1.1 * lengths.sum() / 128_000


def test_what_is_too_long_is_named():
    with pytest.raises(RecipeError, match="max_samples=100.*longest utterance has 60 samples.*120"):
        SizeAwareBatches([8, 60], 100)
    with pytest.raises(RecipeError, match="1 utterances are too few for 2 processes"):
        SizeAwareBatches([8], 100, world_size=2)
    with pytest.raises(RecipeError, match="5 utterances are too few for 3 processes"):
        SizeAwareBatches([80] * 5, 160, world_size=3)  # 4 batches at least, 6 for 3 processes


def test_few_long_utterances_are_scored_at_a_time():
    lengths = [800] * 10 + [8 * 2000] * 4 + [8 * 4000] + [800] * 3
    places = scoring_batches(lengths, 8)
    assert [list(batch) for batch in places[:2]] == [[*range(8)], [8, 9]]
    assert [len(batch) for batch in places] == [8, 2, 2, 2, 1, 3]
    assert [i for batch in places for i in batch] == list(range(len(lengths)))
    assert scoring_batches([], 8) == []
