"""The loss that says when keys were pressed."""

import math

import pytest
import torch

from tinymyo_hf import SEMGTransformerConfig
from trainers.ctc_arguments import CTCArguments
from trainers.ctc_corpus import TextTarget, collate_text_windows
from trainers.ctc_trainer import alignment_loss
from trainers.errors import RecipeError

CONFIG = SEMGTransformerConfig(vocab_size=4, pad_token_id=3)
BLANK = 3


def loss_of(frame_ids, certainty=0.7, **changes):
    """Loss of logits that give `certainty` to one id per frame, for keys 1 and 0 pressed at samples 45 and 130."""
    rest = math.log((1 - certainty) / 3)
    logits = torch.full((1, len(frame_ids), 4), rest)
    logits[0, torch.arange(len(frame_ids)), torch.tensor(frame_ids)] = math.log(certainty)
    given = {
        "labels": torch.tensor([[1, 0, -100]]),
        "starts": torch.tensor([[45.0, 130.0, float("nan")]]),
        "places": torch.tensor([[0, len(frame_ids)]]),
    } | changes
    return float(alignment_loss(CONFIG, logits, given["labels"], given["starts"], given["places"]))


def test_keys_are_named_in_the_frames_after_their_press():
    # frames of 20 samples: pressed in frames 2 and 6, so shown in frames 4 to 6 and 8 to 10
    right = [BLANK] * 4 + [1, 1, 1] + [BLANK] + [0, 0, 0] + [BLANK] * 2
    assert loss_of(right) == pytest.approx(-13 * math.log(0.7) / 2, rel=1e-5)
    wrong = [*right]
    wrong[5] = 2
    assert loss_of(wrong) == pytest.approx((-12 * math.log(0.7) - math.log(0.1)) / 2, rel=1e-5)


def test_frames_outside_the_window_do_not_count():
    right = [BLANK] * 4 + [1, 1, 1] + [BLANK] + [0, 0, 0] + [BLANK] * 2
    places = torch.tensor([[5, 9]])
    assert loss_of(right, places=places) == pytest.approx(-4 * math.log(0.7) / 2, rel=1e-5)
    changed = [2, *right[1:10], 2, 2, 2]  # others than those of the window
    assert loss_of(changed, places=places) == pytest.approx(-4 * math.log(0.7) / 2, rel=1e-5)


def test_keys_beyond_the_recording_and_windows_without_keys():
    blanks = [BLANK] * 6
    late = {"labels": torch.tensor([[1]]), "starts": torch.tensor([[119.0]])}
    assert loss_of(blanks, **late) == pytest.approx(-6 * math.log(0.7), rel=1e-5)
    none = {"labels": torch.full((1, 0), -100), "starts": torch.zeros(1, 0)}
    assert loss_of(blanks, **none) == pytest.approx(-6 * math.log(0.7), rel=1e-5)


def test_batches_say_where_in_the_input_keys_were_pressed():
    def item(context, ids, starts):
        return {
            "input_values": torch.zeros(2, 100 + sum(context)),
            "context": context,
            "event_ids": torch.tensor(ids),
            "event_starts": torch.tensor(starts, dtype=torch.float64),
        }

    target = TextTarget(span=True, starts=True)
    items = [target(item((10, 5), [1, 2], [0.5, 60.0])), target(item((0, 5), [0], [99.0]))]
    batch = collate_text_windows(items)
    assert batch["labelled_span"].tolist() == [[10, 110], [0, 100]]
    assert batch["labels"].tolist() == [[1, 2], [0, -100]]
    assert batch["label_starts"][0].tolist() == [10.5, 70.0]
    assert batch["label_starts"][1, 0] == 99.0 and batch["label_starts"][1, 1].isnan()
    assert "label_starts" not in TextTarget(span=True)(item((0, 0), [0], [1.0]))


def test_a_negative_weight_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="alignment_weight=-1"):
        CTCArguments(output_dir=str(tmp_path), alignment_weight=-1.0)
