"""Tiny-BioMoE in training: where gradients go, what stays as it is, and gates that are closed for good."""

import pytest
import torch
from small_biomoe import build, images

from tinymyo_hf import TinyBioMoEConfig, TinyBioMoEForSequenceClassification, TinyBioMoEModel
from tinymyo_hf.tiny_biomoe import modeling_tiny_biomoe
from tinymyo_hf.tiny_biomoe.modeling_tiny_biomoe import dead_gates


def loss_of(model, batch=4):
    return model(images(batch), labels=torch.arange(batch) % 2).loss


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What the model has warned of."""
    messages: list[str] = []
    monkeypatch.setattr(modeling_tiny_biomoe.logger, "warning_once", messages.append)
    return messages


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    model = build(TinyBioMoEForSequenceClassification).train()
    loss_of(model).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-10]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gradients_reach_every_parameter_of_a_new_model():
    torch.manual_seed(0)
    model = TinyBioMoEForSequenceClassification(build().config).train()
    loss_of(model).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_fine_tuning_lowers_the_loss():
    model = build(TinyBioMoEForSequenceClassification).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_frozen_backbone_stays_as_it_is(tmp_path):
    model = build(TinyBioMoEForSequenceClassification, freeze_backbone=True).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss_of(model).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert model.training and not model.tiny_biomoe.training
    model.tiny_biomoe.save_pretrained(tmp_path)
    loaded = TinyBioMoEForSequenceClassification.from_pretrained(tmp_path, freeze_backbone=True)
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == changed
    free = build(TinyBioMoEForSequenceClassification).train()
    loss_of(free)
    name = "tiny_biomoe.efficientvit.stem.layers.0.norm.running_mean"  # moves where the backbone is not frozen
    assert not torch.equal(free.state_dict()[name], before[name])


@pytest.mark.slow
def test_compiled_without_breaks():
    model = build(TinyBioMoEForSequenceClassification).train()
    expected = loss_of(model)
    again = build(TinyBioMoEForSequenceClassification).train()
    compiled = torch.compile(again, fullgraph=True, backend="aot_eager")
    loss = loss_of(compiled)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert again.classifier.weight.grad.abs().max() > 0


def test_gradient_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        model = build(TinyBioMoEForSequenceClassification).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss_of(model).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_gates_of_a_new_model_are_open():
    torch.manual_seed(0)
    model = TinyBioMoEModel(TinyBioMoEConfig()).eval()
    with torch.no_grad():
        gates = model(torch.rand(2, 3, 224, 224)).gates
    assert gates.shape == (2, 2, 96)
    assert dead_gates(gates) == 0.0
    inside = (gates > 0) & (gates < 1)  # where they have gradients
    assert inside.float().mean() > 0.9


def test_share_of_dead_gates():
    gates = torch.zeros(3, 2, 4)
    assert dead_gates(gates) == 1.0
    gates[0, 0, 0] = gates[2, 1, 3] = gates[1, 1, 3] = 0.2  # open for some input: not dead
    assert dead_gates(gates) == 6 / 8


def test_closed_gates_are_reported_in_training(warnings):
    model = build(TinyBioMoEForSequenceClassification)
    gate = model.tiny_biomoe.gate
    with torch.no_grad():
        gate.weight.zero_()
        gate.bias[:7], gate.bias[7:] = 0.5, -0.5
    loss_of(model)
    assert warnings == []  # in evaluation nothing can be done about it
    loss_of(model.train())
    assert len(warnings) == 1 and "56% of the gates of Tiny-BioMoE are closed for every image" in warnings[0]
    with torch.no_grad():
        gate.bias[7:9] = 0.5
    loss_of(model)
    assert len(warnings) == 1
