"""The sEMG transformers: sizes, what a frame sees, norms, padding, saving, kernels and types."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCTC,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from tinymyo_hf import (
    SEMG_TRANSFORMER_PRESETS,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
    SEMGTransformerModel,
)

NORMS = ["window", "frozen", "running"]
MODELS = [SEMGTransformerModel, SEMGTransformerForCTC]

# "Scaling and Distilling Transformer Models for sEMG", Table 11: parameters by width, of 2, 4, 6, 8 and 10 layers.
PUBLISHED_PARAMETERS = {
    128: (631523, 1028067, 1424611, 1821155, 2217699),
    256: (2229091, 3808611, 5388131, 6967651, 8547171),
    512: (8569955, 14874723, 21179491, 27484259, 33789027),
    1024: (33834595, 59027043, 84219491, 109411939, 134604387),
}


def small_config(**changes) -> SEMGTransformerConfig:
    fields = {
        "num_channels": 6,
        "conv_dim": [12, 8, 8],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "vocab_size": 11,
        "pad_token_id": 10,
    }
    return SEMGTransformerConfig(**fields | changes)


def build(model_class=SEMGTransformerForCTC, seed: int = 0, **changes):
    """A model whose zero biases, unit norms and stored statistics are perturbed, so that they hide nothing."""
    torch.manual_seed(seed)
    model = model_class(small_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                0.2 * torch.randn_like(parameter) if parameter.ndim == 1 else 0.1 * torch.randn_like(parameter)
            )
    model.base_model.set_input_statistics(torch.randn(12), 0.5 + torch.rand(12))
    return model


def recordings(batch: int = 2, samples: int = 241, seed: int = 1, channels: int = 6) -> torch.Tensor:
    return 3 * torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(seed))


def run(model, input_values, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model(input_values, **kwargs)[0]


def padded(parts: list[torch.Tensor], value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Recordings (1, channels, time) as one batch and its mask."""
    longest = max(part.shape[-1] for part in parts)
    batch = torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[-1]), value=value) for part in parts])
    return batch, torch.stack([(torch.arange(longest) < part.shape[-1]).long() for part in parts])


# --- sizes and configuration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_size", PUBLISHED_PARAMETERS)
def test_parameter_counts_are_the_published_ones(hidden_size):
    for layers, expected in zip((2, 4, 6, 8, 10), PUBLISHED_PARAMETERS[hidden_size], strict=True):
        preset = SEMG_TRANSFORMER_PRESETS[f"semg-transformer-{hidden_size}x{layers}"]
        for pre_norm in (False, True):
            with torch.device("meta"):
                model = SEMGTransformerForCTC(SEMGTransformerConfig(**preset, do_stable_layer_norm=pre_norm))
            assert model.num_parameters() == expected, (hidden_size, layers, pre_norm)


def test_named_sizes_are_those_of_the_paper():
    sizes = {
        name.removeprefix("semg-transformer-"): (fields["hidden_size"], fields["num_hidden_layers"])
        for name, fields in SEMG_TRANSFORMER_PRESETS.items()
    }
    assert (sizes["tiny"], sizes["small"], sizes["large"]) == ((128, 10), (256, 6), (1024, 8))
    assert len(sizes) == 23
    config = SEMGTransformerConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (128, 10, 512)
    dropouts = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout")
    assert {getattr(config, name) for name in dropouts} == {0.2}


def test_config_round_trip(tmp_path):
    config = small_config(input_norm="running", running_norm_frames=400, attention_window=7)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is SEMGTransformerConfig
    assert again.to_diff_dict() == config.to_diff_dict()
    assert (again.input_norm, again.running_norm_frames, again.attention_window) == ("running", 400, 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 100}, "multiple of num_attention_heads"),
        ({"num_conv_pos_embedding_groups": 24, "num_attention_heads": 4}, "multiple of num_conv_pos_embedding_groups"),
        ({"conv_dim": [8, 8]}, "one entry per convolution, got 2, 3 and 3"),
        ({"conv_stride": [5, 0, 2]}, "conv_stride must be at least 1"),
        ({"attention_window": 0}, "attention_window must be at least 1 or None"),
        ({"running_norm_frames": -1}, "running_norm_frames must not be negative"),
        ({"pad_token_id": 99}, "blank of CTC, must be one of the 99"),
        ({"hidden_dropout": 1.0}, "hidden_dropout must be in"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
    ],
)
def test_contradicting_configurations_are_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        SEMGTransformerConfig(**fields)


@pytest.mark.parametrize("fields", [{"hidden_size": "128"}, {"input_norm": "batch"}, {"ctc_loss_reduction": "none"}])
def test_config_types_are_checked(fields):
    with pytest.raises(StrictDataclassFieldValidationError):
        SEMGTransformerConfig(**fields)


def test_initial_weights_are_spread_as_those_of_wav2vec2():
    fields = {"conv_dim": [128, 64, 64], "conv_kernel": [11, 3, 3], "conv_stride": [5, 2, 2], "hidden_size": 256}
    fields["num_attention_heads"] = 16
    torch.manual_seed(0)
    mine = SEMGTransformerModel(SEMGTransformerConfig(**fields, num_hidden_layers=1, num_channels=1))
    theirs = Wav2Vec2Model(
        Wav2Vec2Config(**fields, num_hidden_layers=1, num_feat_extract_layers=3, intermediate_size=1024)
    )
    spread = {name: (p.std().item(), p.mean().item()) for name, p in theirs.named_parameters() if p.numel() > 1}
    compared = 0
    for name, parameter in mine.named_parameters():
        if name.endswith(("conv.magnitude", "conv.direction")):
            continue
        std, mean = spread[name]
        assert parameter.std().item() == pytest.approx(std, rel=0.2, abs=1e-6), name
        assert parameter.mean().item() == pytest.approx(mean, abs=0.1), name
        compared += 1
    assert compared > 20
    # The library means the same spread, which its parametrization undoes: that of a bare convolution is near.
    kernel = {"mine": mine.encoder.pos_conv_embed.conv.weight, "theirs": theirs.encoder.pos_conv_embed.conv.weight}
    assert kernel["mine"].std().item() == pytest.approx(kernel["theirs"].std().item(), rel=0.2)


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "frames"), [(10_000, 498), (8_000, 398), (41, 1), (60, 1), (61, 2), (40, 0)])
def test_frames_of_a_recording(samples, frames):
    config = small_config()
    assert (config.receptive_field, config.hop_length) == (41, 20)
    assert config.num_frames(samples) == frames
    if frames:
        assert run(build(), recordings(1, samples)).shape == (1, frames, 11)
        assert run(build(SEMGTransformerModel), recordings(1, samples)).shape == (1, frames, 32)


def reach(model, frame: int, samples: int = 801) -> tuple[int, int]:
    """The first and the last sample that the output of a frame depends on."""
    x = recordings(1, samples).double().requires_grad_()
    model.double()(x)[0][0, frame].sin().sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()
    return seen.min().item(), seen.max().item()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_what_a_frame_sees(implementation):
    def of(frame=20, **changes):
        model = build(**{"input_norm": "frozen", "positional_conv_causal": True} | changes)
        model.set_attn_implementation(implementation)
        return reach(model, frame)

    last = 20 * 20 + 40
    assert of() == (0, last)
    assert of(do_stable_layer_norm=True) == (0, last)
    assert of(input_norm="running", running_norm_frames=10) == (0, last)
    # Two layers look 3 frames back each, and the positional convolution 15.
    assert of(attention_window=4, frame=25) == (20 * (25 - 6 - 15), 20 * 25 + 40)
    assert of(attention_window=1, frame=25) == (20 * (25 - 15), 20 * 25 + 40)
    # The centred one sees 8 frames back and 7 ahead.
    assert of(positional_conv_causal=False) == (0, last + 20 * 7)
    assert of(positional_conv_causal=False, attention_window=4) == (20 * (20 - 6 - 8), last + 20 * 7)
    assert of(input_norm="window") == (0, 800)


@given(frame=st.integers(0, 9), norm=st.sampled_from(["frozen", "running"]), window=st.sampled_from([None, 3]))
@settings(max_examples=15, deadline=None)
def test_the_future_changes_nothing_before_it(frame, norm, window):
    model = build(input_norm=norm, positional_conv_causal=True, attention_window=window)
    x = recordings()
    changed = x.clone()
    changed[..., 20 * frame + 41 :] = 100 * torch.randn(changed[..., 20 * frame + 41 :].shape)
    before, after = run(model, x), run(model, changed)
    torch.testing.assert_close(after[:, : frame + 1], before[:, : frame + 1], atol=1e-6, rtol=0)
    assert not torch.allclose(after[:, frame + 1 :], before[:, frame + 1 :], atol=1e-3)


# --- norms of the input -----------------------------------------------------------------------------------------------


def first_convolution(model, x):
    return model.base_model.feature_extractor.conv_layers[0].conv(x)


def normalized(model, x, mask=None):
    """Output of the input norm, without its scale and shift."""
    norm = model.base_model.input_norm
    states = norm(first_convolution(model, x), mask)
    return (states - norm.bias[:, None]) / norm.weight[:, None]


@torch.no_grad()
def test_window_norm_is_instance_norm_over_time():
    model, x = build(), recordings()
    states = first_convolution(model, x)
    expected = torch.nn.functional.instance_norm(states, eps=1e-5)
    torch.testing.assert_close(normalized(model, x), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("prior_frames", [0, 25])
def test_running_norm_is_a_weighted_average_of_prior_and_past(prior_frames):
    model, x = build(input_norm="running", running_norm_frames=prior_frames), recordings(1, 120)
    norm = model.base_model.input_norm
    states = first_convolution(model, x)[0].tolist()
    result = normalized(model, x)[0]
    for channel in (0, 7):
        total, square = 0.0, 0.0
        prior_mean, prior_variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
        for frame, value in enumerate(states[channel]):
            total, square = total + value, square + value * value
            weight = prior_frames + frame + 1
            mean = (prior_frames * prior_mean + total) / weight
            second = (prior_frames * (prior_variance + prior_mean * prior_mean) + square) / weight
            expected = (value - mean) / (max(second - mean * mean, 0.0) + 1e-5) ** 0.5
            assert result[channel, frame].item() == pytest.approx(expected, abs=2e-4), (channel, frame)


@torch.no_grad()
def test_running_norm_stays_exact_over_a_long_recording_with_an_offset():
    model = build(input_norm="running")
    x = recordings(1, 200_000) + 300.0
    states = first_convolution(model, x).double()
    last = (states[..., -1] - states.mean(-1)) / (states.var(-1, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(normalized(model, x)[..., -1].double(), last, atol=1e-3, rtol=0)


def test_statistics_of_the_window_itself_make_frozen_and_window_norm_equal():
    window, frozen = build(input_norm="window"), build(input_norm="frozen")
    x = recordings(1)
    mean, variance = frozen.base_model.input_statistics(x)
    assert mean.shape == variance.shape == (12,)
    frozen.base_model.set_input_statistics(mean, variance)
    torch.testing.assert_close(run(frozen, x), run(window, x), atol=1e-5, rtol=0)
    # A batch has the statistics of all its real frames together.
    parts = [recordings(1, 300, seed=2), recordings(1, 99, seed=3)]
    batch, mask = padded(parts, value=77.0)
    frames = torch.cat([first_convolution(window, part) for part in parts], dim=2)[0].double()
    mean, variance = window.base_model.input_statistics(batch, mask)
    torch.testing.assert_close(mean, frames.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(variance, frames.var(1, correction=0), atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match="no frame"):
        window.base_model.input_statistics(batch, torch.zeros_like(mask))
    exact, _ = window.double().base_model.input_statistics(batch, mask)  # of float32 samples, as `forward` takes them
    torch.testing.assert_close(exact, frames.mean(1), atol=1e-5, rtol=0)


def test_stored_statistics_are_saved_and_loaded(tmp_path):
    model = build(input_norm="frozen")
    model.save_pretrained(tmp_path)
    loaded = SEMGTransformerForCTC.from_pretrained(tmp_path)
    norm = loaded.base_model.input_norm
    assert (
        torch.equal(norm.running_mean, model.base_model.input_norm.running_mean) and norm.running_mean.abs().min() > 0
    )
    assert torch.equal(norm.running_var, model.base_model.input_norm.running_var)
    assert torch.equal(run(loaded, recordings()), run(model, recordings()))
    # They are in the checkpoint whatever the norm, so that it can be changed when loading.
    running = SEMGTransformerForCTC.from_pretrained(tmp_path, input_norm="running", running_norm_frames=9)
    assert not torch.allclose(run(running, recordings()), run(model, recordings()), atol=1e-2)
    assert torch.equal(running.base_model.input_norm.running_mean, norm.running_mean)


@pytest.mark.parametrize(
    ("mean", "variance", "message"),
    [
        (torch.zeros(3), torch.ones(12), "mean must be"),
        (torch.zeros(12), torch.full((12,), float("nan")), "variance must be .* finite"),
        (torch.zeros(12), -torch.ones(12), "variance must not be negative"),
    ],
)
def test_impossible_statistics_are_refused(mean, variance, message):
    with pytest.raises(ValueError, match=message):
        build(SEMGTransformerModel).set_input_statistics(mean, variance)


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("changes", [{}, {"attention_window": 3}, {"do_stable_layer_norm": True}])
def test_padded_batch_equals_each_recording_alone(norm, implementation, changes):
    model = build(input_norm=norm, **changes)
    model.set_attn_implementation(implementation)
    parts = [recordings(1, samples, seed=samples) for samples in (300, 41, 199, 207)]
    batch, mask = padded(parts, value=50.0)
    together = run(model, batch, attention_mask=mask)
    for row, part in zip(together, parts, strict=True):
        alone = run(model, part)[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=0)
    unmasked = run(model, batch)
    assert not torch.allclose(unmasked[2, :8], run(model, parts[2])[0], atol=1e-2)


@given(
    lengths=st.lists(st.integers(41, 260), min_size=1, max_size=4),
    norm=st.sampled_from(NORMS),
    causal=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=25, deadline=None)
def test_padding_never_reaches_a_real_frame(lengths, norm, causal, seed):
    model = build(input_norm=norm, positional_conv_causal=causal)
    parts = [recordings(1, length, seed=seed + i) for i, length in enumerate(lengths)]
    batch, mask = padded(parts, value=-9.0)
    for row, part in zip(run(model, batch, attention_mask=mask), parts, strict=True):
        frames = model.config.num_frames(part.shape[-1])
        torch.testing.assert_close(row[:frames], run(model, part)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_recording_without_a_frame_does_not_spoil_its_batch(norm):
    model = build(input_norm=norm)
    batch, mask = padded([recordings(1), recordings(1, 30), recordings(1, 5)])
    labels = torch.tensor([[1, 2], [3, -100], [-100, -100]])
    output = model(batch, attention_mask=mask, labels=labels)
    assert output.logits.isfinite().all() and output.loss.isfinite()
    torch.testing.assert_close(output.logits[:1], model(batch[:1]).logits, atol=1e-5, rtol=0)
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("x", "kwargs", "message"),
    [
        (recordings()[0], {}, r"\(batch, 6 channels, time\)"),
        (recordings(channels=5), {}, r"\(batch, 6 channels, time\), got \(2, 5, 241\)"),
        (recordings(samples=40), {}, "40 samples are fewer than one frame sees"),
        (recordings(), {"attention_mask": torch.ones(2, 12)}, "attention_mask must be"),
    ],
)
def test_wrong_shapes_name_the_fix(x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(SEMGTransformerModel)(x, **kwargs)


# --- saving and loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
def test_save_and_load_give_the_same_outputs(model_class, tmp_path):
    model = build(model_class)
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])
    assert torch.equal(run(model, recordings()), run(loaded, recordings()))


def test_encoder_and_head_load_into_each_other(tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "ctc")
    encoder = SEMGTransformerModel.from_pretrained(tmp_path / "ctc")
    assert torch.equal(run(encoder, recordings()), run(model.semg_transformer, recordings()))
    encoder.save_pretrained(tmp_path / "encoder")
    head, info = SEMGTransformerForCTC.from_pretrained(
        tmp_path / "encoder", vocab_size=5, pad_token_id=4, output_loading_info=True
    )
    assert info["missing_keys"] == {"lm_head.weight", "lm_head.bias"}
    assert torch.equal(run(head.semg_transformer, recordings()), run(encoder, recordings()))
    # What is not in the checkpoint is initialised, not left as it was allocated.
    assert 0 < head.lm_head.weight.std() < 0.1 and not head.lm_head.bias.any()
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        SEMGTransformerForCTC.from_pretrained(tmp_path / "ctc", vocab_size=5, pad_token_id=4)


def test_parts_that_a_checkpoint_lacks_are_initialised(tmp_path):
    model = build()
    state = {k: v for k, v in model.state_dict().items() if "pos_conv" not in k and "running" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, info = SEMGTransformerForCTC.from_pretrained(tmp_path, output_loading_info=True)
    assert all("pos_conv" in key or "running" in key for key in info["missing_keys"]) and info["missing_keys"]
    norm, conv = loaded.base_model.input_norm, loaded.base_model.encoder.pos_conv_embed.conv
    assert (norm.running_mean == 0).all() and (norm.running_var == 1).all()
    assert conv.weight.isfinite().all() and conv.weight.std().item() == pytest.approx(2 / (16 * 32) ** 0.5, rel=0.1)


def test_auto_classes_find_the_family(tmp_path):
    build().save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is SEMGTransformerModel
    assert type(AutoModelForCTC.from_pretrained(tmp_path)) is SEMGTransformerForCTC
    assert type(AutoModelForCTC.from_config(small_config())) is SEMGTransformerForCTC
    SEMGTransformerFeatureExtractor(num_channels=6, bands=(3, 3)).save_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(list(recordings()), sampling_rate=2000, return_tensors="pt")
    assert run(AutoModelForCTC.from_pretrained(tmp_path), **inputs).shape == (2, 11, 11)


@pytest.mark.slow
def test_saved_folder_works_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(SEMGTransformerForCTC, "_auto_class", "AutoModelForCTC")
    monkeypatch.setattr(SEMGTransformerConfig, "_auto_class", "AutoConfig")
    monkeypatch.setattr(SEMGTransformerFeatureExtractor, "_auto_class", "AutoFeatureExtractor")
    model = build()
    extractor = SEMGTransformerFeatureExtractor(num_channels=6, bands=(3, 3), rotation=(1, 0))
    model.save_pretrained(tmp_path / "saved")
    extractor.save_pretrained(tmp_path / "saved")
    torch.save(recordings(), tmp_path / "x.pt")
    script = (
        "import sys, torch\n"
        "from transformers import AutoFeatureExtractor, AutoModelForCTC\n"
        "model = AutoModelForCTC.from_pretrained('saved', trust_remote_code=True)\n"
        "extractor = AutoFeatureExtractor.from_pretrained('saved', trust_remote_code=True)\n"
        "assert not [name for name in sys.modules if name.startswith('tinymyo_hf')]\n"
        "batch = extractor(list(torch.load('x.pt')), sampling_rate=2000, return_tensors='pt')\n"
        "torch.save(model(**batch).logits, 'y.pt')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "hf")
    result = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    batch = extractor(list(recordings()), sampling_rate=2000, return_tensors="pt")
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), model(**batch).logits, atol=1e-6, rtol=0)


# --- outputs, kernels, types ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
def test_hidden_states_attentions_and_tuples(model_class):
    model = build(model_class, attention_window=4)
    model.set_attn_implementation("eager")
    output = model(recordings(), output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in output.hidden_states] == [(2, 11, 32)] * 3
    assert [tuple(a.shape) for a in output.attentions] == [(2, 4, 11, 11)] * 2
    weights = output.attentions[0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 11))
    allowed = torch.ones(11, 11).tril() * torch.ones(11, 11).triu(-3)
    assert torch.equal(weights.gt(0).float(), allowed.expand_as(weights))
    assert isinstance(model(recordings(), return_dict=False), tuple)


@pytest.mark.parametrize("changes", [{}, {"attention_window": 3}])
def test_eager_equals_sdpa(changes):
    model, outputs = build(**changes), []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs.append(run(model, recordings()))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_is_close(norm):
    model, x = build(input_norm=norm), recordings()
    exact = run(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = run(model, x)
    assert (autocast.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    for dtype in (torch.bfloat16, torch.float16):
        half = run(copy.deepcopy(model).to(dtype), x)  # raw samples may stay float32
        assert half.dtype == dtype
        assert (half.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(
    ("norm", "masked"),
    [
        ("window", False),
        *(
            pytest.param(n, m, marks=pytest.mark.slow)
            for n in NORMS
            for m in (False, True)
            if (n, m) != ("window", False)
        ),
    ],
)
def test_compiles_as_one_graph(norm, masked):
    model, x = build(input_norm=norm, attention_window=5 if masked else None), recordings()
    kwargs = {"attention_mask": (torch.arange(241) < torch.tensor([[241], [150]])).long()} if masked else {}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled, x, **kwargs)[:, :6], run(model, x, **kwargs)[:, :6], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_generated_code_and_flex_attention_equal_eager_code():
    model, x = build(hidden_size=64), recordings()  # flex wants heads of at least 16
    expected = run(model, x)
    torch.testing.assert_close(run(torch.compile(model, fullgraph=True), x), expected, atol=1e-5, rtol=0)
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(run(model, x), expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("norm", NORMS)
def test_training_step_and_compiled_forward_on_cuda(norm):
    model = build(input_norm=norm).cuda().train()
    batch, mask = padded([recordings(1), recordings(1, 150)])
    inputs = {"input_values": batch.cuda(), "attention_mask": mask.cuda()}
    with torch.autocast("cuda", torch.bfloat16):
        model(**inputs, labels=torch.tensor([[1, 2], [3, -100]], device="cuda")).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    expected = run(copy.deepcopy(model).cpu(), batch, attention_mask=mask)
    for variant in (model, torch.compile(model, fullgraph=True)):
        torch.testing.assert_close(run(variant, **inputs)[:, :6].cpu(), expected[:, :6], atol=1e-3, rtol=1e-3)
