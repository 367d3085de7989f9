"""Layer-wise learning rates, what decays, the schedule's minimum, averaged weights and the loss."""

import numpy as np
import pytest
import torch
from accelerate.data_loader import DataLoaderShard
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments, get_scheduler

from dataset_builders.torch_view import WindowDataset, collate_windows
from tinymyo_hf import TinyMyoForPreTraining, TinyMyoForSequenceClassification
from trainers.errors import DivergenceError, RecipeError
from trainers.optim import (
    LayerwiseTrainer,
    WeightAverage,
    balanced_class_weights,
    classification_loss,
    layer_index,
    layer_wise_parameter_groups,
)


def test_every_parameter_is_in_one_group_with_the_rate_of_its_depth(tiny_config):
    model = TinyMyoForSequenceClassification(tiny_config)
    groups = layer_wise_parameter_groups(model, 1e-3, 0.01, layer_decay=0.5)
    place = {id(p): group for group in groups for p in group["params"]}
    assert len(place) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    rates = {name: place[id(p)]["lr"] for name, p in model.named_parameters()}
    assert rates["classifier.weight"] == rates["tinymyo.norm.weight"] == 1e-3
    assert rates["tinymyo.layers.1.mlp.fc1.weight"] == pytest.approx(5e-4)
    assert rates["tinymyo.layers.0.attention.qkv.bias"] == pytest.approx(2.5e-4)
    assert rates["tinymyo.patch_embedding.weight"] == pytest.approx(1.25e-4)
    assert groups[0]["lr"] == 1e-3  # the one that is logged


def test_the_encoder_may_learn_more_slowly_than_the_head(tiny_config):
    model = TinyMyoForSequenceClassification(tiny_config)
    groups = layer_wise_parameter_groups(model, 1e-3, 0.01, layer_decay=0.5, encoder_lr_factor=0.1)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    rates = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert rates["classifier.weight"] == rates["classifier.bias"] == 1e-3
    assert rates["tinymyo.layers.1.mlp.fc1.weight"] == pytest.approx(5e-5)
    assert rates["tinymyo.patch_embedding.weight"] == pytest.approx(1.25e-5)
    with pytest.raises(RecipeError, match="encoder_lr_factor must be in"):
        layer_wise_parameter_groups(model, 1e-3, 0.01, encoder_lr_factor=0.0)


def test_biases_norms_and_the_mask_token_do_not_decay(tiny_config):
    model = TinyMyoForPreTraining(tiny_config)
    groups = layer_wise_parameter_groups(model, 1e-3, 0.01, 0.9)
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        free = name.endswith("bias") or "norm" in name or name == "mask_token"
        assert decays[id(p)] == (0.0 if free else 0.01), name


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("tinymyo.patch_embedding.weight", 0),
        ("tinymyo.stem.norm.weight", 0),
        ("mask_token", 0),
        ("base_model.model.tinymyo.layers.3.attention.qkv.lora_A.default.weight", 4),
        ("tinymyo.norm.bias", 9),
        ("regressor.conv1.weight", 9),
        ("semg_transformer.feature_extractor.conv_layers.2.conv.weight", 0),
        ("semg_transformer.feature_extractor.conv_layers.0.layer_norm.bias", 0),
        ("semg_transformer.feature_projection.projection.weight", 0),
        ("semg_transformer.encoder.pos_conv_embed.conv.direction", 0),
        ("semg_transformer.encoder.layers.0.layer_norm.weight", 1),
        ("lm_head.weight", 9),
    ],
)
def test_depth_of_a_parameter(name, depth):
    assert layer_index(name, num_layers=8) == depth


def test_frozen_parameters_are_left_out(tiny_config):
    model = TinyMyoForSequenceClassification(tiny_config)
    model.base_model.requires_grad_(False)
    groups = layer_wise_parameter_groups(model, 1e-3, 0.01, 0.9)
    assert sum(p.numel() for group in groups for p in group["params"]) == model.classifier.weight.numel() + 3
    model.requires_grad_(False)
    with pytest.raises(RecipeError, match="no trainable parameter"):
        layer_wise_parameter_groups(model, 1e-3, 0.01, 0.9)
    with pytest.raises(RecipeError, match="layer_decay must be in"):
        layer_wise_parameter_groups(TinyMyoForSequenceClassification(tiny_config), 1e-3, 0.01, 1.5)


def test_the_librarys_schedule_ends_every_layer_at_the_same_fraction(tiny_config):
    model = TinyMyoForSequenceClassification(tiny_config)
    optimizer = torch.optim.AdamW(layer_wise_parameter_groups(model, 1e-3, 0.01, 0.5), lr=1e-3)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = get_scheduler("cosine_with_min_lr", optimizer, 10, 100, {"min_lr": 2e-5})
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    assert rates[0] == [0.0] * len(peaks) and rates[10] == pytest.approx(peaks)
    assert schedule.get_last_lr() == pytest.approx([0.02 * peak for peak in peaks])
    assert np.diff([rate[0] for rate in rates[10:]]).max() <= 0


def test_weight_average(tiny_config, tmp_path):
    model = TinyMyoForSequenceClassification(tiny_config)
    average = WeightAverage(model, decay=0.5)
    start = model.classifier.bias.detach().clone()
    for step in (1, 2):
        with torch.no_grad():
            model.classifier.bias.add_(1.0)
        average.update(model, step)
    # decays (1 + 1) / (10 + 1) and (1 + 2) / (10 + 2): a warm-up towards 0.5
    expected = start + (1 - 2 / 11) * (3 / 12) + 2 * (1 - 3 / 12)
    with average.applied(model):
        assert torch.allclose(model.classifier.bias, expected)
    assert torch.equal(model.classifier.bias, start + 1 + 1)
    average.save(tmp_path)
    other = WeightAverage(model, decay=0.5)
    other.load(tmp_path)
    assert all(torch.equal(other.values[name], value) for name, value in average.values.items())
    with pytest.raises(RecipeError, match="ema_decay"):
        WeightAverage(model, 1.0)


def test_loss_with_weights_smoothing_and_accumulation():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 1])
    weights = balanced_class_weights(labels, 3)
    assert torch.allclose(weights, torch.tensor([0.75, 1.5, 0.0])) and weights[labels].mean() == pytest.approx(1.0)
    loss = classification_loss(0.1)({"logits": logits}, labels)
    assert torch.allclose(loss, cross_entropy(logits, labels, label_smoothing=0.1))
    halves = classification_loss(0.1, weights)
    parts = [halves({"logits": logits[i : i + 3]}, labels[i : i + 3], num_items_in_batch=6) for i in (0, 3)]
    assert torch.allclose(sum(parts), halves({"logits": logits}, labels))


@pytest.fixture
def make_trainer(tiny_corpus, tiny_config, tmp_path):
    """A function that makes a trainer of the tiny classifier, two updates of two micro-batches of 8 windows."""

    def make(windows=None, seed=0, **options):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=2,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            seed=seed,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        torch.manual_seed(0)
        return LayerwiseTrainer(
            model=TinyMyoForSequenceClassification(tiny_config),
            args=arguments,
            train_dataset=windows or WindowDataset(tiny_corpus[0]["train"]),
            data_collator=collate_windows,
            **options,
        )

    return make


def test_a_loss_that_is_not_finite_stops_before_it_changes_a_weight(make_trainer, tiny_corpus):
    view = WindowDataset(tiny_corpus[0]["train"])
    items = [view[i] for i in range(32)]
    for item in items:
        item["input_values"][0, 3] = float("nan")
    trainer = make_trainer(items)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    with pytest.raises(DivergenceError, match=r"step 1 .*the loss is nan.* 8 of 8 windows are not finite"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_augmentations_differ_by_micro_batch_step_and_seed(make_trainer):
    def draws_of(seed):
        draws = []

        def record(windows, generator):
            draws.append(torch.rand(1, generator=generator).item())
            return windows

        make_trainer(seed=seed, augmentation=record).train()
        return draws

    first = draws_of(0)
    assert len(first) == 4 and draws_of(0) == first
    assert len({*first, *draws_of(1)}) == 8


def test_windows_know_the_epoch_also_where_the_library_tells_the_sampler_only(make_trainer, tiny_corpus, monkeypatch):
    # in several processes, accelerate's loader tells the sampler that shuffles in the place of the dataset
    monkeypatch.setattr(DataLoaderShard, "set_epoch", lambda loader, epoch: None)
    told = []

    class Windows(WindowDataset):
        def set_epoch(self, epoch):
            told.append(epoch)

    trainer = make_trainer(Windows(tiny_corpus[0]["train"].select(range(16))))  # an update is an epoch
    trainer.train()
    assert told == [0, 1]
