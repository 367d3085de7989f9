"""Transforms of batches: what they change, what they keep, and that a seed fixes them."""

import pytest
import torch

from trainers.augmentation import (
    TRANSFORMS,
    AlignmentJitter,
    AmplitudeScale,
    ChannelDropout,
    ChannelMask,
    ElectrodeRotation,
    GaussianNoise,
    Polarity,
    TimeMask,
    TimeReversal,
    TimeShift,
    make_augmentation,
)
from trainers.errors import RecipeError


@pytest.fixture
def x():
    return torch.randn(64, 4, 50, generator=torch.Generator().manual_seed(1)) + 10


def apply(transform, x, seed=0):
    return transform(x, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_seed_fixes_the_outcome_and_the_input_is_kept(name, x):
    before = x.clone()
    transform = TRANSFORMS[name]()
    first = apply(transform, x)
    assert first.shape == x.shape and first.dtype == x.dtype
    assert torch.equal(first, apply(transform, x)) and not torch.equal(first, apply(transform, x, seed=1))
    assert torch.equal(x, before) and not torch.equal(first, x)


def test_amplitude_scale_is_one_factor_per_channel(x):
    ratio = apply(AmplitudeScale(window=0.2, channel=0.1), x) / x
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-4)
    assert ratio.log().abs().max() <= 0.3 + 1e-5
    same = apply(AmplitudeScale(window=0.2, channel=0.0), x) / x
    assert torch.allclose(same, same[:, :1, :1].expand_as(same), rtol=1e-4)


def test_noise_is_bounded_by_its_deviation(x):
    noise = apply(GaussianNoise(0.5), x) - x
    per_window = noise.flatten(1).std(dim=1)
    assert per_window.max() < 0.6 and per_window.min() < 0.1


def test_channel_dropout_takes_whole_channels(x):
    dropped = apply(ChannelDropout(0.5), x) == 0
    assert torch.equal(dropped.any(dim=-1), dropped.all(dim=-1))
    assert 0.4 < dropped.float().mean() < 0.6


def test_electrode_rotation_rolls_by_whole_channels(x):
    y = apply(ElectrodeRotation(max_shift=1, probability=0.5), x)
    shifts = []
    for before, after in zip(x, y, strict=True):
        found = [s for s in (-1, 0, 1) if torch.equal(after, before.roll(s, dims=0))]
        assert len(found) == 1
        shifts += found
    assert set(shifts) == {-1, 0, 1} and 20 < shifts.count(0) < 44
    assert torch.equal(apply(ElectrodeRotation(1, probability=0.0), x), x)


def test_time_shift_rolls_all_channels_alike(x):
    y = apply(TimeShift(5), x)
    for before, after in zip(x, y, strict=True):
        assert any(torch.equal(after, before.roll(s, dims=1)) for s in range(-5, 6))


def test_time_shift_rolls_each_channel_by_itself(x):
    y = apply(TimeShift(25, per_channel=True), x)
    assert torch.equal(y.sort(dim=2).values, x.sort(dim=2).values)
    alike = [any(torch.equal(a, b.roll(s, dims=1)) for s in range(50)) for b, a in zip(x, y, strict=True)]
    assert sum(alike) < 5


def test_polarity_and_time_reversal(x):
    turned = apply(Polarity(0.5), x) / x
    assert torch.equal(turned, turned[..., :1].expand_as(turned)) and set(turned.unique().tolist()) == {-1.0, 1.0}
    assert 0.4 < (turned < 0).float().mean() < 0.6
    y = apply(TimeReversal(0.5), x)
    backwards = [torch.equal(after, before.flip(1)) for before, after in zip(x, y, strict=True)]
    assert 20 < sum(backwards) < 44
    assert all(back or torch.equal(a, b) for back, a, b in zip(backwards, y, x, strict=True))


def test_time_mask_hides_a_span_in_all_channels(x):
    hidden = apply(TimeMask(10), x) == 0
    assert torch.equal(hidden.any(dim=1), hidden.all(dim=1))
    spans = hidden[:, 0].int()
    assert spans.sum(dim=1).max() <= 10
    assert (spans.diff(dim=1).abs().sum(dim=1) <= 2).all()  # one stretch each


def test_recipe_fields(x):
    augmentation = make_augmentation({"gaussian_noise": {"std": 0.1}, "channel_dropout": None})
    assert augmentation.transforms == (GaussianNoise(0.1), ChannelDropout())
    assert apply(augmentation, x).shape == x.shape
    assert make_augmentation({}) is None
    with pytest.raises(RecipeError, match="unknown augmentation 'noise'; choose from amplitude_scale"):
        make_augmentation({"noise": {}})
    with pytest.raises(RecipeError, match="gaussian_noise has no parameter 'sigma'; it has std"):
        make_augmentation({"gaussian_noise": {"sigma": 1}})
    with pytest.raises(RecipeError, match="probability must be in"):
        make_augmentation({"channel_dropout": {"probability": 2}})


def test_two_rings_turn_by_themselves():
    x = torch.arange(8.0)[None, :, None].expand(400, 8, 3).clone()
    turned = apply(ElectrodeRotation(max_shift=1, probability=2 / 3, rings=2), x)[:, :, 0]
    left, right = turned[:, :4], turned[:, 4:] - 4
    rolls = [torch.arange(4.0).roll(shift) for shift in (-1, 0, 1)]
    drawn = [
        [next(i for i, roll in enumerate(rolls) if torch.equal(row, roll)) for row in ring] for ring in (left, right)
    ]
    counts = torch.bincount(torch.tensor(drawn[0]) * 3 + torch.tensor(drawn[1]), minlength=9)
    assert counts.min() > 400 / 9 / 2  # all nine pairs, about equally often
    with pytest.raises(RecipeError, match="rings=3 does not divide the 8 channels"):
        apply(ElectrodeRotation(rings=3), x)


def test_alignment_jitter_shifts_rings_as_a_whole():
    ramp = torch.arange(100.0)
    x = ramp.expand(300, 4, 100).clone()
    shifted = apply(AlignmentJitter(max_samples=7, rings=2), x)
    assert torch.equal(shifted[:, 0], shifted[:, 1]) and torch.equal(shifted[:, 2], shifted[:, 3])
    for ring in (shifted[:, 0], shifted[:, 2]):
        shift = 50 - ring[:, 50]
        assert shift.min() == -7 and shift.max() == 7
        for row, by in zip(ring, shift, strict=True):
            assert torch.equal(row, (ramp - by).clamp(0, 99))
    assert not torch.equal(shifted[:, 0], shifted[:, 2])


def test_channel_mask_takes_neighbours_and_leaves_some(x):
    masked = (apply(ChannelMask(3), x) == 0).all(dim=2)
    assert set(masked.sum(1).tolist()) == {0, 1, 2, 3}
    for row in masked:
        changes = (row != row.roll(1)).sum()
        assert changes in (0, 2)  # one stretch on the ring
    assert not (apply(ChannelMask(64), x) == 0).all(dim=2).all(dim=1).any()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"gaussian_noise": {"std": "1e-1"}}, "gaussian_noise.std='1e-1': give a number"),
        ({"gaussian_noise": {"std": True}}, "give a number"),
        ({"time_shift": {"max_samples": 2.5}}, "time_shift.max_samples=2.5: give a whole number"),
        ({"time_shift": {"per_channel": 1}}, "give true or false"),
        ({"time_mask": {"max_samples": None}}, "give a whole number"),
        ({"gaussian_noise": 0.1}, "gaussian_noise=0.1: give its parameters by name"),
        ({"gaussian_noise": {"std": float("nan")}}, "must be in"),
    ],
)
def test_values_of_another_kind_are_refused(named, words):
    with pytest.raises(RecipeError, match=words):
        make_augmentation(named)


def test_a_ring_cannot_be_turned_all_the_way(x):
    with pytest.raises(RecipeError, match="max_shift=4: a ring has 4 channels"):
        apply(ElectrodeRotation(max_shift=4), x)
    assert make_augmentation({"gaussian_noise": {"std": 1}}).transforms == (GaussianNoise(1),)
