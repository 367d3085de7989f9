"""The models for speech: losses, training, saving and loading."""

import copy
import itertools
import os
import subprocess
import sys

import pytest
import torch
from speech_models import (
    ENCODERS,
    FRAMES,
    HEADS,
    LENGTH,
    MODELS,
    SMALL,
    SPEECH,
    WITHOUT_DROPOUT,
    build,
    padded,
    run,
    targets,
    utterances,
)
from transformers import AutoModel, AutoModelForCTC

from tinymyo_hf import TinyMyoConfig, TinyMyoForCTC, TinyMyoForPreTraining, TinyMyoForSpeechSynthesis, TinyMyoModel

# --- loss of recognition ----------------------------------------------------------------------------------------------


def probability_of(text: list[int], probabilities: torch.Tensor, blank: int) -> torch.Tensor:
    """Sum over all paths (frames,) that spell `text`, of probabilities (frames, vocab)."""
    frames, vocab = probabilities.shape
    total = probabilities.new_zeros(())
    for path in itertools.product(range(vocab), repeat=frames):
        if [token for token, _ in itertools.groupby(path) if token != blank] == text:
            total = total + probabilities[range(frames), list(path)].prod()
    return total


def test_loss_is_that_of_all_paths():
    model = build(vocab_size=4, pad_token_id=1)
    signals = [utterances(1, 40), utterances(1, 25, seed=3)]  # 5 and 4 frames
    labels = torch.tensor([[0, 0, 3], [2, -100, -100]])
    errors = []
    for signal, text in zip(signals, ([0, 0, 3], [2]), strict=True):
        probabilities = model(signal).logits[0].softmax(-1)
        errors.append(-probability_of(text, probabilities, blank=1).log() / len(text))
    loss = model(**padded(signals, 48), labels=labels).loss
    torch.testing.assert_close(loss, torch.stack(errors).mean(), atol=1e-5, rtol=0)
    model.config.ctc_loss_reduction = "sum"
    loss = model(**padded(signals, 48), labels=labels).loss
    torch.testing.assert_close(loss, 3 * errors[0] + errors[1], atol=1e-5, rtol=0)


def test_empty_texts_and_texts_longer_than_their_recording():
    model, x = build(), utterances(1)
    empty = model(x, labels=torch.full((1, 3), -100)).loss
    torch.testing.assert_close(empty, -model(x).logits[0].log_softmax(-1)[:, 5].sum(), atol=1e-4, rtol=0)
    too_long = torch.zeros(1, FRAMES, dtype=torch.long)  # the same character throughout needs a blank between each
    loss = model(x, labels=too_long).loss
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())
    assert model(x, labels=too_long[:, : FRAMES // 2]).loss > 0
    assert build(ctc_zero_infinity=False)(x, labels=too_long).loss.isinf()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, dtype=torch.long), r"labels must be \(batch=2, longest text\), got \(2,\)"),
        (torch.zeros(3, 4, dtype=torch.long), r"labels must be \(batch=2"),
        (torch.tensor([[1, 6], [1, 2]]), "below vocab_size=6"),
        (torch.tensor([[1, 5], [1, 2]]), "not the blank 5; pad with -100"),
    ],
)
def test_labels_that_are_no_text_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        build()(utterances(), labels=labels)


# --- loss of synthesis ------------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_real_frames():
    model = build(TinyMyoForSpeechSynthesis, phoneme_loss_weight=0.3)
    signals = [utterances(1, 130), utterances(1, 75, seed=3)]  # 17 and 10 frames
    y = targets(model)
    y["labels"][1, 10:] = float("nan")
    y["phoneme_labels"][0, 4:] = -100
    distances, errors = [], []
    for signal, spectrum, phonemes in zip(signals, y["labels"], y["phoneme_labels"], strict=True):
        output = model(signal)
        for frame, target, phoneme, logits in zip(
            output.spectrogram[0], spectrum, phonemes, output.phoneme_logits[0], strict=False
        ):
            distances.append((frame - target).square().sum().sqrt())
            if phoneme >= 0:
                errors.append(logits.logsumexp(0) - logits[phoneme])
    assert (len(distances), len(errors)) == (27, 14)
    batch = padded(signals, 130)
    distance, error = torch.stack(distances).mean(), torch.stack(errors).mean()
    torch.testing.assert_close(model(**batch, **y).loss, distance + 0.3 * error, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(**batch, labels=y["labels"]).loss, distance, atol=1e-5, rtol=0)
    unknown = model(**batch, labels=y["labels"], phoneme_labels=torch.full((2, FRAMES), -100)).loss
    torch.testing.assert_close(unknown, distance, atol=1e-5, rtol=0)


def test_a_perfect_prediction_has_finite_gradients():
    model, x = build(TinyMyoForSpeechSynthesis), utterances()
    loss = model(x, labels=model(x).spectrogram.detach()).loss
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"labels": torch.zeros(2, FRAMES, 8)}, r"num_mel_bins\) = \(2, 17, 7\), got \(2, 17, 8\)"),
        ({"labels": torch.zeros(2, FRAMES - 1, 7)}, r"config.num_frames\(samples\) frames"),
        ({"phoneme_labels": torch.zeros(2, FRAMES)}, "pass labels, the spectra, too"),
        (
            {"labels": torch.zeros(2, FRAMES, 7), "phoneme_labels": torch.zeros(2, FRAMES + 1)},
            r"phoneme_labels must be \(batch, frames\) = \(2, 17\), got \(2, 18\)",
        ),
        (
            {"labels": torch.zeros(2, FRAMES, 7), "phoneme_labels": torch.full((2, FRAMES), 5)},
            "phoneme_labels must be below num_phonemes=5",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        build(TinyMyoForSpeechSynthesis)(utterances(), **labels)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", HEADS)
def test_gradient_checkpointing_gives_the_same_gradients(model_class):
    plain = build(model_class, **WITHOUT_DROPOUT).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        model(utterances(), **targets(model)).loss.backward()
    gradients = dict(checkpointed.named_parameters())
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("position", ["relative", "rope", "none"])
@pytest.mark.parametrize("drop_path_rate", [0.5, 0.999])
def test_every_encoder_trains_with_dropped_branches(norm_position, position, drop_path_rate):
    choices = {"norm_position": norm_position, "position_embedding_type": position, "drop_path_rate": drop_path_rate}
    model = build(**choices).train()
    batch = padded([utterances(1), utterances(1, 75, seed=3), utterances(1, 8)], LENGTH)
    model(**batch, labels=torch.tensor([[1, 2], [3, -100], [-100, -100]])).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_learns_what_is_said(encoder):
    model = build(num_hidden_layers=1, vocab_size=5, **ENCODERS[encoder]).train()
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.randperm(4, generator=generator)[:3] for _ in range(8)])
    x = torch.randn(8, 4, 144, generator=generator)
    for row, text in zip(x, labels, strict=True):
        for place, character in enumerate(text.tolist()):
            row[character, 48 * place + 8 : 48 * place + 40] *= 5
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        model(x, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    paths = model.eval()(x).logits.argmax(-1)
    said = [[token for token, _ in itertools.groupby(path) if token != 4] for path in paths.tolist()]
    assert sum(text == row for text, row in zip(said, labels.tolist(), strict=True)) >= 7


@pytest.mark.parametrize("model_class", HEADS)
def test_half_precision_is_close(model_class):
    model = build(model_class)
    batch = padded([utterances(1), utterances(1, 75, seed=3)], LENGTH)
    exact = run(model, **batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(model, **batch)
    assert (mixed - exact).abs().mean() < 0.05 * exact.abs().mean()
    for dtype in (torch.bfloat16, torch.float16):
        half = run(copy.deepcopy(model).to(dtype), **batch)  # the signal may stay float32
        assert half.dtype == dtype
        assert (half.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**batch, **targets(model)).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- saving and loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model_class", MODELS)
def test_save_and_load_give_the_same_outputs(model_class, encoder, tmp_path):
    model = build(model_class, **ENCODERS[encoder])
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(run(loaded, utterances()), run(model, utterances()))


def test_auto_classes_find_the_models(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert type(AutoModelForCTC.from_pretrained(tmp_path)) is TinyMyoForCTC
    assert type(AutoModelForCTC.from_config(model.config)) is TinyMyoForCTC
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is TinyMyoModel
    assert torch.equal(encoder(utterances())[0], model.tinymyo(utterances())[0])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model_class", HEADS)
def test_layers_of_a_pretrained_encoder_load_under_the_stem(encoder, model_class, tmp_path):
    torch.manual_seed(0)
    pretrained = TinyMyoForPreTraining(TinyMyoConfig(**SMALL))
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    pretrained.save_pretrained(tmp_path)
    fields = SPEECH | ENCODERS[encoder]
    model, info = model_class.from_pretrained(tmp_path, output_loading_info=True, **fields)
    ours = model.tinymyo.state_dict()
    shared = [name for name in pretrained.tinymyo.state_dict() if name.startswith("layers.")]
    shared += ["norm.weight", "norm.bias"] if encoder == "pre_norm" else []
    assert len(shared) == 24 + 2 * (encoder == "pre_norm")
    for name in shared:
        assert torch.equal(ours[name], pretrained.tinymyo.state_dict()[name]), name
    # What is new starts as a new model does, not as memory was allocated.
    new = {name for name in model.state_dict() if name.removeprefix("tinymyo.") not in shared}
    reported = info["missing_keys"]
    assert {name for name in new if "stem" not in name and "relative" not in name} <= reported <= new
    for name, buffer in model.named_buffers():
        if "running_var" in name:
            assert torch.equal(buffer, torch.ones(24)), name
        elif "running_mean" in name or "num_batches_tracked" in name:
            assert buffer.abs().max() == 0, name
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all() and 0 < parameter.abs().max() + name.endswith("bias") < 5, name
        if name in new and parameter.ndim > 1:
            assert 0.05 < parameter.std() < 1.0, f"{name} {parameter.std()}"
    assert not any("patch_embedding" in key or "norm" in key for key in info["unexpected_keys"])
    assert run(model.eval(), utterances()).isfinite().all()


def test_new_models_on_the_meta_device_are_filled_like_others(tmp_path):
    model = build()
    state = {name: value for name, value in model.state_dict().items() if "layers.1" not in name and "stem" not in name}
    model.save_pretrained(tmp_path, state_dict=dict(state))  # which it empties
    loaded = [TinyMyoForCTC.from_pretrained(tmp_path) for _ in range(2)]
    fresh = TinyMyoForCTC(model.config)
    for name, value in fresh.state_dict().items():
        if name in state:
            assert torch.equal(loaded[0].state_dict()[name], state[name]), name
        elif value.is_floating_point() and value.ndim > 1:
            spread = [m.state_dict()[name].std() for m in (*loaded, fresh)]
            assert 0.7 < spread[0] / spread[2] < 1.4 and 0.7 < spread[1] / spread[2] < 1.4, name
        else:
            assert torch.equal(loaded[0].state_dict()[name], value), name


@pytest.mark.slow
def test_saved_folder_works_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyMyoForCTC, "_auto_class", "AutoModelForCTC")
    monkeypatch.setattr(TinyMyoConfig, "_auto_class", "AutoConfig")
    model = build()
    model.save_pretrained(tmp_path / "saved")
    torch.save(utterances(), tmp_path / "x.pt")
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForCTC\n"
        "model = AutoModelForCTC.from_pretrained('saved', trust_remote_code=True)\n"
        "assert not [name for name in sys.modules if name.startswith('tinymyo_hf')]\n"
        "torch.save(model(torch.load('x.pt')).logits, 'y.pt')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "hf")
    result = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), model(utterances()).logits, atol=1e-6, rtol=0)
