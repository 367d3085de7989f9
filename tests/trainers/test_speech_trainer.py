"""The learning rate of silent speech: warm-up, then halved on plateaus."""

import numpy as np
import pytest
import torch

from trainers.errors import RecipeError
from trainers.parsing import parse_recipe
from trainers.speech_arguments import RecognitionArguments, SynthesisArguments
from trainers.speech_trainer import PlateauRate


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 2])
def test_plateaus_are_those_of_torch(mode, patience):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores = 10 + np.cumsum(rng.normal(0, 0.3, 40)) * (rng.random(40) < 0.7)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.5, patience, eps=0.0)
        ours = PlateauRate(0, patience, 0.5, greater_is_better=mode == "max")
        for step, score in enumerate(scores):
            ours.evaluated(float(score), step)
            reference.step(float(score))
            assert ours(step + 1) == optimizer.param_groups[0]["lr"]


def test_warm_up_is_linear_and_its_evaluations_are_not_counted():
    rate = PlateauRate(10, 1, 0.5, greater_is_better=False)
    assert [rate(step) for step in (0, 5, 10, 20)] == [0.0, 0.5, 1.0, 1.0]
    for step in (2, 4, 6, 8):
        assert not rate.evaluated(50.0, step)
    assert not rate.evaluated(50.0, 10)  # the first that counts
    assert rate.evaluated(50.0, 12) and rate(12) == 0.5
    assert not rate.evaluated(40.0, 14) and rate.best == 40.0


@pytest.mark.parametrize("greater_is_better", [True, False])
def test_a_score_that_is_no_number_is_never_the_best(greater_is_better):
    rate = PlateauRate(0, 0, 0.5, greater_is_better)
    assert rate.evaluated(float("nan"), 1) and rate.best is None
    assert not rate.evaluated(3.0, 2) and rate.best == 3.0
    assert rate.evaluated(float("nan"), 3) and rate.best == 3.0


def test_its_state_goes_along_with_the_scheduler(tmp_path):
    """As the library stores it, and reads it without running code from the file."""

    def make():
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.AdamW([{"params": [p]} for p in parameters], lr=1.0)
        rate = PlateauRate(4, 0, 0.5, greater_is_better=False)
        return rate, torch.optim.lr_scheduler.LambdaLR(optimizer, [rate] * 2)

    rate, scheduler = make()
    rate.evaluated(1.0, 5), rate.evaluated(2.0, 6), rate.evaluated(0.5, 7)
    torch.save(scheduler.state_dict(), tmp_path / "scheduler.pt")
    again, other = make()
    other.load_state_dict(torch.load(tmp_path / "scheduler.pt", weights_only=True))
    assert (again.scale, again.best, again(9)) == (0.5, 0.5, 0.5)


def test_published_settings_are_the_defaults():
    recognition, synthesis = (
        arguments(output_dir="x", use_cpu=True) for arguments in (RecognitionArguments, SynthesisArguments)
    )
    names = ("learning_rate", "weight_decay", "warmup_steps", "num_train_epochs", "plateau_patience", "max_samples")
    assert [getattr(recognition, name) for name in names] == [5e-4, 0.0, 1000, 200, 10, 128_000]
    assert [getattr(synthesis, name) for name in names] == [1e-3, 1e-7, 500, 80, 5, 256_000]
    assert recognition.plateau_factor == 0.5 and recognition.piece_length == 1600 and recognition.packing == "pieces"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"per_device_train_batch_size": 4}, "set max_samples instead"),
        ({"piece_length": 1601}, "multiple of 8"),
        ({"max_shift": 8}, "less than a frame"),
        ({"lr_scheduler_type": "cosine"}, "set it to -1"),
        ({"lr_drop_epochs": [3.0]}, "set it to -1"),
        ({"plateau_patience": -2}, "-1 or more"),
        ({"plateau_factor": 0.0}, "the factor in"),
        ({"label_smoothing_factor": 0.1}, "no use for it"),
        ({"phone_weight": -1.0}, "must not be negative"),
        ({"test_beam_size": 0}, "test_beam_size=0: must be a whole number"),
    ],
)
def test_fields_that_cannot_work_are_refused(fields, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"task": "speech_recognition", "dataset": "gaddy", "output_dir": "x", "use_cpu": True} | fields)


def test_other_schedules_need_no_plateau():
    fields = {"plateau_patience": -1, "lr_scheduler_type": "cosine"}
    recipe = {"task": "speech_recognition", "dataset": "gaddy", "output_dir": "x", "use_cpu": True} | fields
    assert parse_recipe(recipe)[2].lr_scheduler_type == "cosine"
