"""Training of the TinyMyo models at the edges: tiny batches, padded targets, gradient accumulation."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tinymyo_hf import (
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
)


def build(model_class, **fields):
    torch.manual_seed(0)
    small = {"hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 24, "num_channels": 2, "num_labels": 3}
    return model_class(TinyMyoConfig(**small | {"regression_hidden_size": 8} | fields))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_batch_of_which_every_sample_is_dropped_still_trains(implementation):
    model = build(TinyMyoForSequenceClassification, drop_path_rate=0.999).train()
    model.set_attn_implementation(implementation)
    model(torch.randn(1, 2, 60), labels=torch.tensor([1])).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_padded_targets_of_a_regression_count_nothing():
    model = build(TinyMyoForRegression).eval()
    x, y = torch.randn(1, 2, 40), torch.randn(1, 40, 3)
    model(x, labels=y).loss.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    mask = (torch.arange(80) < 40).long()[None]
    padding = torch.full((1, 40, 3), float("nan"))
    padded = model(torch.cat([x, x], dim=2), attention_mask=mask, labels=torch.cat([y, padding], dim=1))
    padded.loss.backward()
    torch.testing.assert_close(padded.loss, model(x, labels=y).loss, atol=1e-5, rtol=0)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_class", [TinyMyoForSequenceClassification, TinyMyoForRegression])
def test_accumulated_gradients_are_those_of_the_whole_batch(model_class, tmp_path):
    gradients = []

    class Recorder(Trainer):
        def _clip_grad_norm(self, model):
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]).clone())
            return super()._clip_grad_norm(model)

    torch.manual_seed(1)
    shape = (60, 3) if model_class is TinyMyoForRegression else ()
    y = torch.randn(4, *shape) if shape else torch.tensor([0, 1, 2, 0])
    data = [{"input_values": x, "labels": label} for x, label in zip(torch.randn(4, 2, 60), y, strict=True)]
    for steps in (1, 4):
        without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0}
        arguments = TrainingArguments(
            tmp_path / str(steps), per_device_train_batch_size=4 // steps, gradient_accumulation_steps=steps,
            max_steps=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Recorder(build(model_class, **without), arguments, train_dataset=data).train()
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_the_trainer_needs_no_collator_of_its_own(tmp_path):
    data = [{"input_values": torch.randn(2, 60), "labels": i % 3} for i in range(4)]
    arguments = TrainingArguments(tmp_path, max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = Trainer(
        build(TinyMyoForSequenceClassification), arguments, train_dataset=data, eval_dataset=data,
        processing_class=TinyMyoFeatureExtractor(),
    )  # fmt: skip
    trainer.train()
    assert trainer.predict(data).predictions.shape == (4, 3)
    assert (tmp_path / "checkpoint-1" / "preprocessor_config.json").is_file()


def test_a_mask_ratio_that_divides_the_tokens_is_exact():
    model = build(TinyMyoForPreTraining, mask_ratio=0.84)
    assert model(torch.randn(1, 3, 500)).bool_masked_pos.sum() == 63  # of 75
