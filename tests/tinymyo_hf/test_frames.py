"""The model of discrete gestures: parity, causality, padding, loss, loading, saving, compilation."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioFrameClassification

from tinymyo_hf import (
    TINYMYO_PRESETS,
    TinyMyoConfig,
    TinyMyoForFrameClassification,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoModel,
)
from tinymyo_hf.tinymyo import cpu_training_tinymyo

REFERENCE_OUTPUTS = Path(__file__).parents[1] / "fixtures"
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 48, "num_channels": 4}
FRAMES = {"stem": "convolution", "is_causal": True, "num_labels": 5}
LENGTH, NUM_FRAMES = 500, 48


def build(model_class=TinyMyoForFrameClassification, seed: int = 0, **changes):
    """A model whose zero biases and unit norms are perturbed, so that they hide nothing."""
    torch.manual_seed(seed)
    frames = FRAMES if model_class in (TinyMyoForFrameClassification, TinyMyoModel) else {}
    model = model_class(TinyMyoConfig(**SMALL | frames | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def recordings(batch: int = 2, length: int = LENGTH, seed: int = 1) -> torch.Tensor:
    return 30 * torch.randn(batch, 4, length, generator=torch.Generator().manual_seed(seed))


def labels_of(batch: int = 2, frames: int = NUM_FRAMES) -> torch.Tensor:
    return torch.rand(batch, frames, 5, generator=torch.Generator().manual_seed(2))


def reference_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The released implementation's weights under our names."""
    names = {
        "blocks": "tinymyo.layers", "attn": "attention", "norm": "tinymyo.norm", "projection": "frame_classifier",
        "conv_layer": "tinymyo.stem.convolution", "post_conv_layer_norm": "tinymyo.stem.norm",
    }  # fmt: skip
    return {".".join(names.get(part, part) for part in key.split(".")): value for key, value in state.items()}


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_logits_equal_the_released_implementation(implementation):
    config = TinyMyoConfig(hidden_size=24, num_hidden_layers=2, intermediate_size=96,
                           **TINYMYO_PRESETS["tinymyo-neuromotor"])  # fmt: skip
    model = TinyMyoForFrameClassification(config).eval()
    model.load_state_dict(reference_names(load_file(REFERENCE_OUTPUTS / "gni_small.state.safetensors")))
    model.set_attn_implementation(implementation)
    expected = load_file(REFERENCE_OUTPUTS / "gni_small.io.safetensors")  # (batch, gestures, frames)
    with torch.no_grad():
        logits = model(expected["input"]).logits
    torch.testing.assert_close(logits, expected["out"].transpose(1, 2), atol=1e-5, rtol=0)


def test_published_size_and_gestures():
    config = TinyMyoConfig(**TINYMYO_PRESETS["tinymyo-neuromotor"])
    with torch.device("meta"):
        model = TinyMyoForFrameClassification(config)
    assert model.num_parameters() == 3_626_121
    assert config.num_frames(16_000) == 1598
    assert [config.id2label[i] for i in (0, 3, 8)] == ["index_press", "middle_release", "thumb_up"]
    assert config.label2id["thumb_click"] == 4
    assert config.num_labels == 9


# --- causality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_the_future_never_changes_the_past(implementation, training, dtype, monkeypatch):
    # Attention with dropout works a long recording off in pieces: here after 64 and 128 of 150 frames.
    monkeypatch.setattr(cpu_training_tinymyo, "CHUNK_ELEMENTS", 1000)
    model = build().to(dtype).train(training)
    model.set_attn_implementation(implementation)
    x = recordings(length=1520)
    logits = {}
    for change in (None, 640, 1000):
        changed = x.clone()
        if change is not None:
            changed[..., change:] = 1e4
        torch.manual_seed(5)  # the same dropout in each run
        with torch.no_grad():
            logits[change] = model(changed.to(dtype)).logits
    for change in (640, 1000):
        untouched = (change - 21) // 10 + 1  # frames that see no changed sample
        assert torch.equal(logits[None][:, :untouched], logits[change][:, :untouched])
        assert not torch.isclose(logits[None][:, untouched + 2 :], logits[change][:, untouched + 2 :]).all()


def test_no_gradient_reaches_the_future():
    model, x = build().train(), recordings(1).requires_grad_()
    model(x).logits[0, 20].sum().backward()
    seen = 20 * 10 + 21
    assert x.grad[..., seen:].abs().max() == 0
    assert (x.grad[..., :seen].abs().sum(1) > 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_without_causality_the_future_matters(training):
    x = recordings()
    changed = x.clone()
    changed[..., 400:] = 0
    for model, kwargs in ((build(is_causal=False), {}), (build(), {"is_causal": False})):
        logits = []
        for signal in (x, changed):
            torch.manual_seed(0)
            logits.append(model.train(training)(signal, **kwargs).logits[:, :10])
        assert not torch.isclose(*logits).any()


def test_order_of_frames_matters_with_rotary_positions():
    model = build(num_hidden_layers=1)
    x = recordings(1)
    x[..., :240] = 0.0  # equal frames ahead: without positions every one of them gives the same weights
    logits = model(x).logits[0]
    assert not torch.isclose(
        logits[30], build(num_hidden_layers=1, position_embedding_type="none")(x).logits[0, 30]
    ).all()


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_padded_recording_equals_the_unpadded_one(implementation, is_causal):
    model = build(is_causal=is_causal)
    model.set_attn_implementation(implementation)
    long, short = recordings(1), recordings(1, length=317, seed=3)
    padded = torch.full((1, 4, LENGTH), float("nan"))
    padded[..., :317] = short
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, 317:] = 0
    y = labels_of()
    together = model(torch.cat([long, padded]), attention_mask=mask, labels=y)
    alone = model(long, labels=y[:1]), model(short, labels=y[1:, :30])
    torch.testing.assert_close(together.logits[:1], alone[0].logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.logits[1:, :30], alone[1].logits, atol=1e-5, rtol=0)
    mean = (48 * alone[0].loss + 30 * alone[1].loss) / 78
    torch.testing.assert_close(together.loss, mean, atol=1e-6, rtol=0)


def test_padding_ahead_of_the_recording_is_refused():
    mask = torch.ones(2, LENGTH)
    mask[1, :100] = 0
    with pytest.raises(ValueError, match="padded on the right"):
        build()(recordings(), attention_mask=mask)


def test_masked_channel_counts_as_silent():
    model, x = build(), recordings()
    silent = x.clone()
    silent[:, 2] = 0
    x[:, 2] = float("nan")
    channel_mask = torch.tensor([[1, 1, 0, 1]] * 2)
    assert torch.equal(model(x, channel_mask=channel_mask).logits, model(silent).logits)


# --- loss -------------------------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_what_the_mask_leaves_in():
    model, x, y = build(), recordings(), labels_of()
    logits = model(x).logits
    error = -(y * torch.log(logits.sigmoid()) + (1 - y) * torch.log(1 - logits.sigmoid()))
    torch.testing.assert_close(model(x, labels=y).loss, error.mean())
    keep = torch.rand(y.shape) < 0.4
    torch.testing.assert_close(model(x, labels=y, loss_mask=keep).loss, error[keep].mean())
    weights = torch.rand(y.shape) * 0.01
    torch.testing.assert_close(model(x, labels=y, loss_mask=weights).loss, (weights * error).sum() / weights.sum())
    unknown = torch.where(keep, y, float("nan"))
    assert model(x, labels=unknown, loss_mask=keep).loss == model(x, labels=y, loss_mask=keep).loss
    nothing = model(x, labels=y, loss_mask=torch.zeros_like(y)).loss
    nothing.backward()
    assert nothing == 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("x", "kwargs", "message"),
    [
        (recordings()[0], {}, r"\(batch, channels, time\)"),
        (recordings(length=20), {}, "20 samples are fewer than one frame sees"),
        (recordings()[:, :3], {}, "joins 4 channels .* has 3"),
        (recordings(), {"attention_mask": torch.ones(2, 5)}, "attention_mask must be"),
        (recordings(), {"channel_mask": torch.ones(2, 5)}, "channel_mask must be"),
        (recordings(), {"labels": labels_of(frames=47)}, r"labels must be .*\(2, 48, 5\)"),
        (recordings(), {"labels": labels_of(), "loss_mask": torch.ones(2, 48)}, "loss_mask must be"),
    ],
)
def test_wrong_shapes_name_the_fix(x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build()(x, **kwargs)


# --- training ---------------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_gives_the_same_gradients():
    plain = build(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.0).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        model(recordings(), labels=labels_of()).loss.backward()
    gradients = dict(checkpointed.named_parameters())
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-6, rtol=1e-5)


def test_learns_when_an_event_happens():
    model = build(num_labels=1).train()
    x = torch.randn(8, 4, 200, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(8, 18, 1)
    for i in range(8):
        x[i, i % 4, 60 + 10 * i : 90 + 10 * i] *= 40
        y[i, 7 + i : 9 + i] = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(x, labels=y).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    probability = model.eval()(x).logits.sigmoid()
    assert probability[y == 1].mean() > 0.8
    assert probability[y == 0].mean() < 0.1


def test_half_precision_is_close():
    model, x = build(), recordings()
    exact = model(x).logits
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).logits.float(), exact, atol=0.15, rtol=0.1)
        model.train()(x, labels=labels_of()).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- saving and loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["rope", "none"])
def test_save_and_load_through_the_auto_classes(position, tmp_path):
    model = build(position_embedding_type=position)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForAudioFrameClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is TinyMyoForFrameClassification
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded(recordings()).logits, model(recordings()).logits)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is TinyMyoModel
    assert torch.equal(encoder(recordings())[0], model.tinymyo(recordings())[0])


@pytest.mark.parametrize(
    ("head", "of_the_head"),
    [
        (TinyMyoModel, set()),
        (TinyMyoForPreTraining, {"mask_token", "decoder.weight", "decoder.bias"}),
        (TinyMyoForSequenceClassification, {"classifier.weight", "classifier.bias"}),
        (TinyMyoForRegression, {"regressor.conv1.weight"}),
    ],
)
def test_encoder_of_any_pretrained_model_loads_under_a_new_stem(head, of_the_head, tmp_path):
    pretrained = build(head, stem="patches", is_causal=False, num_labels=5, channel_fusion="mean")
    pretrained.save_pretrained(tmp_path)
    model, info = TinyMyoForFrameClassification.from_pretrained(
        tmp_path, stem="convolution", is_causal=True, output_loading_info=True
    )
    encoder = {k: v for k, v in getattr(pretrained, "tinymyo", pretrained).state_dict().items() if "patch" not in k}
    assert all(torch.equal(value, model.tinymyo.state_dict()[name]) for name, value in encoder.items())
    new = {"convolution.weight", "convolution.bias", "norm.weight", "norm.bias"}
    assert info["missing_keys"] == {"frame_classifier.weight", "frame_classifier.bias"} | {
        f"tinymyo.stem.{name}" for name in new
    }
    # What the other head has besides is told; its patch embedding is not worth a word.
    assert of_the_head <= info["unexpected_keys"]
    assert not any("patch_embedding" in key or "layers" in key for key in info["unexpected_keys"])
    assert all(p.isfinite().all() and p.abs().max() < 10 for p in model.parameters())


def test_damaged_encoder_is_not_ignored(tmp_path):
    model = build()
    state = model.state_dict()
    state["tinymyo.layers.2.norm1.weight"] = state.pop("tinymyo.layers.1.norm1.weight")
    model.save_pretrained(tmp_path, state_dict=state)
    _, info = TinyMyoForFrameClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {"tinymyo.layers.1.norm1.weight"}
    assert info["unexpected_keys"] == {"tinymyo.layers.2.norm1.weight"}


def test_heads_and_stems_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='stem="convolution", is_causal=True'):
        TinyMyoForFrameClassification(TinyMyoConfig(**SMALL))
    for head in (TinyMyoForPreTraining, TinyMyoForSequenceClassification, TinyMyoForRegression):
        with pytest.raises(ValueError, match=f"{head.__name__} works on patches"):
            build(head, **FRAMES)
    with pytest.raises(StrictDataclassClassValidationError, match="no single order in time"):
        TinyMyoConfig(is_causal=True)


def test_saved_folder_works_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyMyoForFrameClassification, "_auto_class", "AutoModelForAudioFrameClassification")
    monkeypatch.setattr(TinyMyoConfig, "_auto_class", "AutoConfig")
    model = build()
    model.save_pretrained(tmp_path / "saved")
    torch.save(recordings(), tmp_path / "x.pt")
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForAudioFrameClassification\n"
        "model = AutoModelForAudioFrameClassification.from_pretrained('saved', trust_remote_code=True)\n"
        "assert not [name for name in sys.modules if name.startswith('tinymyo_hf')]\n"
        "torch.save(model(torch.load('x.pt')).logits, 'y.pt')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "hf")
    result = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), model(recordings()).logits, atol=1e-6, rtol=0)


# --- compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiles_as_one_graph(masked):
    model, x = build(), recordings()
    kwargs = {"attention_mask": (torch.arange(LENGTH) < 317).long().expand(2, -1)} if masked else {}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, **kwargs).logits, model(x, **kwargs).logits, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_exported_graph_takes_other_lengths_and_stays_causal():
    model = build()
    dynamic = {"input_values": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(model, (), {"input_values": recordings()}, dynamic_shapes=dynamic).module()
    for x in (recordings(), recordings(3, 777)):
        torch.testing.assert_close(program(input_values=x).logits, model(x).logits, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bf16_training_step_and_causality_on_cuda():
    model, x = build(hidden_size=48).cuda().train(), recordings().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        model(x, labels=labels_of().cuda()).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    changed = x.clone()
    changed[..., 320:] = 0
    with torch.no_grad():
        assert torch.equal(model(x).logits[:, :30], model(changed).logits[:, :30])
        compiled = torch.compile(model, fullgraph=True)(x).logits
        torch.testing.assert_close(compiled, model(x).logits, atol=1e-3, rtol=1e-3)
