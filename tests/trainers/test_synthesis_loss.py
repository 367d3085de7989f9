"""The loss of speech synthesis, against sums written out pair by pair."""

import itertools

import numpy as np
import pytest
import torch

from trainers.dtw import dtw_path
from trainers.synthesis_loss import SpeechFrames, SynthesisLoss

BINS, PHONES = 5, 4


def make(frames, targets, silent, seed=0):
    rng = np.random.default_rng([seed, frames, targets])
    return SpeechFrames(
        torch.from_numpy(rng.normal(size=(frames, BINS))),
        torch.from_numpy(rng.normal(size=(frames, PHONES))),
        torch.from_numpy(rng.normal(size=(targets, BINS))),
        torch.from_numpy(rng.integers(PHONES, size=targets)),
        silent,
    )


def pair_cost(utterance, i, j, weight, scale):
    logits = utterance.phone_logits[i].numpy()
    log_probability = logits[utterance.phones[j]] - np.log(np.exp(logits).sum())
    distance = np.sqrt(np.sum((utterance.spectrum[i].numpy() - utterance.targets[j].numpy()) ** 2))
    return distance / scale - weight * log_probability


def cost_matrix(utterance, weight, scale):
    shape = len(utterance.spectrum), len(utterance.targets)
    cells = itertools.product(*map(range, shape))
    return np.array([pair_cost(utterance, i, j, weight, scale) for i, j in cells]).reshape(shape)


def test_speech_read_aloud_is_compared_frame_by_frame():
    utterances = [make(4, 4, False), make(7, 7, False)]
    loss = SynthesisLoss(phone_weight=0.3, scale=2.0)(utterances)
    pairs = [pair_cost(u, i, i, 0.3, 2.0) for u in utterances for i in range(len(u.targets))]
    assert loss.item() == pytest.approx(sum(pairs) / 11, rel=1e-6)


def test_silent_speech_is_compared_along_the_cheapest_path():
    utterance = make(6, 4, True)
    costs = cost_matrix(utterance, 0.5, 1.0)
    sums = np.full((7, 5), np.inf)
    sums[0, 0] = 0
    for i, j in np.ndindex(costs.shape):
        sums[i + 1, j + 1] = costs[i, j] + min(sums[i, j], sums[i, j + 1], sums[i + 1, j])
    assert SynthesisLoss()([utterance]).item() == pytest.approx(sums[-1, -1] / 4, rel=1e-6)


def test_the_phone_decides_too_where_silent_speech_belongs():
    spectrum, targets = torch.zeros(3, BINS), torch.zeros(3, BINS)
    logits = torch.full((3, PHONES), -20.0)
    logits[torch.arange(3), torch.tensor([0, 0, 1])] = 20.0
    utterance = SpeechFrames(spectrum, logits, targets, torch.tensor([0, 1, 1]), silent=True)
    assert SynthesisLoss()([utterance]).item() == pytest.approx(0.0, abs=1e-6)  # spectra alone leave it open
    assert SynthesisLoss()([SpeechFrames(spectrum, logits, targets, utterance.phones, False)]).item() > 1


def test_frames_takes_one_predicted_frame_per_target_frame():
    utterance = make(9, 4, True)
    costs = cost_matrix(utterance, 0.5, 1.0)
    rows, columns = dtw_path(costs)
    first = [rows[list(columns).index(j)] for j in range(4)]
    expected = sum(costs[i, j] for j, i in enumerate(first)) / 4
    assert SynthesisLoss(alignment="frames")([utterance]).item() == pytest.approx(expected, rel=1e-6)
    assert SynthesisLoss(alignment="path")([utterance]).item() > expected


def test_a_batch_counts_target_frames_not_utterances():
    utterances = [make(6, 4, True), make(5, 5, False), make(3, 8, True)]
    loss = SynthesisLoss()
    expected = sum(loss([u]).item() * len(u.targets) for u in utterances) / 17
    assert loss(utterances).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alignment", ["path", "frames"])
@pytest.mark.parametrize("silent", [True, False])
def test_gradients_are_those_of_finite_differences(alignment, silent):
    utterance = make(5, 5, silent)
    loss = SynthesisLoss(phone_weight=0.5, scale=1.5, alignment=alignment)

    def of(spectrum, logits):
        return loss.total([SpeechFrames(spectrum, logits, utterance.targets, utterance.phones, silent)])

    inputs = [value.clone().requires_grad_() for value in (utterance.spectrum, utterance.phone_logits)]
    gradients = torch.autograd.grad(of(*inputs), inputs)
    step = 1e-2  # of float32 sums; small enough to stay on the path
    for which, gradient in enumerate(gradients):
        for place in [(0, 0), (2, 3), (4, 1)]:
            values = []
            for sign in (1, -1):
                moved = [utterance.spectrum.clone(), utterance.phone_logits.clone()]
                moved[which][place] += sign * step
                values.append(of(*moved).item())
            assert gradient[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-3)


def test_every_predicted_frame_of_a_path_learns_and_not_of_frames():
    utterance = make(12, 3, True)
    for alignment, learning in (("path", 12), ("frames", 3)):
        spectrum = utterance.spectrum.clone().requires_grad_()
        frames = SpeechFrames(spectrum, utterance.phone_logits, utterance.targets, utterance.phones, True)
        SynthesisLoss(alignment=alignment)([frames]).backward()
        assert int((spectrum.grad.abs().sum(1) > 0).sum()) == learning


def test_predictions_that_are_exact_have_no_loss_and_a_gradient():
    spectrum = torch.ones(3, BINS, requires_grad=True)
    logits = torch.zeros(3, PHONES)
    loss = SynthesisLoss(phone_weight=0.0)(
        [SpeechFrames(spectrum, logits, torch.ones(3, BINS), torch.zeros(3).long(), False)]
    )
    loss.backward()
    assert loss.item() == 0 and spectrum.grad.isfinite().all()


def test_predictions_that_are_no_numbers_make_a_loss_that_is_none():
    utterance = make(4, 6, True)
    broken = SpeechFrames(
        utterance.spectrum * float("nan"), utterance.phone_logits, utterance.targets, utterance.phones, True
    )
    assert SynthesisLoss()([make(3, 3, True), broken]).isnan()


def test_a_frame_at_the_end_that_is_no_number_makes_a_loss_that_is_none():
    utterance = make(9, 4, True)
    utterance.spectrum[8] = float("inf")
    assert not SynthesisLoss()([make(3, 3, True), utterance]).isfinite()
