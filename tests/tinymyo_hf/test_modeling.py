"""Behaviour of the TinyMyo models through the public API, after the common model tests of transformers."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)

from tinymyo_hf import (
    TINYMYO_PRESETS,
    TinyMyoConfig,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoModel,
)
from tinymyo_hf.tinymyo import cpu_training_tinymyo
from tinymyo_hf.tinymyo.cpu_training_tinymyo import dropout, dropout_attention_forward
from tinymyo_hf.tinymyo.modeling_tinymyo import apply_rotary_pos_emb, eager_attention_forward

HEADS = [TinyMyoForPreTraining, TinyMyoForSequenceClassification, TinyMyoForRegression]
MODELS = [TinyMyoModel, *HEADS]
LENGTH = 100


def small_config(**changes) -> TinyMyoConfig:
    fields = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 48,
        "num_channels": 4,
        "num_labels": 5,
        "regression_hidden_size": 16,
        "target_length": 40,
    }
    return TinyMyoConfig(**fields | changes)


def build(model_class, seed: int = 0, **changes):
    """A model whose zero biases and unit norms are perturbed, so that they hide nothing."""
    torch.manual_seed(seed)
    model = model_class(small_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def windows(batch: int = 3, channels: int = 4, length: int = LENGTH, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(seed))


def run(model, input_values, **kwargs):
    """The model's main output; masks of the pretraining model are fixed by a seeded generator."""
    if isinstance(model, TinyMyoForPreTraining) and "bool_masked_pos" not in kwargs:
        kwargs["generator"] = torch.Generator().manual_seed(0)
    output = model(input_values, **kwargs)
    for name in ("logits", "reconstruction", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    raise AssertionError(f"no main output in {output.keys()}")


def targets(model) -> dict:
    if isinstance(model, TinyMyoForSequenceClassification):
        return {"labels": torch.tensor([0, 3, 4])}
    if isinstance(model, TinyMyoForRegression):
        return {"labels": windows(3, 40, 5, seed=2)}
    return {}


# --- sizes and configuration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_class", "preset", "expected"),
    [
        (TinyMyoModel, "tinymyo-base", 3_563_328),
        (TinyMyoForPreTraining, "tinymyo-base", 3_567_380),
        (TinyMyoForSequenceClassification, "tinymyo-ninapro-db5", 3_726_197),
        (TinyMyoForSequenceClassification, "tinymyo-uci-emg", 3_572_550),
        (TinyMyoForRegression, "tinymyo-ninapro-db8", 4_352_325),
    ],
)
def test_parameter_counts_of_the_presets(model_class, preset, expected):
    with torch.device("meta"):
        model = model_class(TinyMyoConfig(**TINYMYO_PRESETS[preset]))
    assert model.num_parameters() == expected


def test_config_round_trip(tmp_path):
    config = small_config(position_embedding_type="none", channel_fusion="mean")
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 100}, "multiple of num_attention_heads"),
        ({"hidden_size": 9}, "pairs"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
    ],
)
def test_contradictory_config_is_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        TinyMyoConfig(**fields)


def test_only_the_paper_s_rotary_type_is_accepted():
    with pytest.raises(ValueError, match="rope_type"):
        TinyMyoConfig(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4})


@pytest.mark.parametrize("fields", [{"hidden_size": "192"}, {"position_embedding_type": "sine"}])
def test_config_types_are_checked(fields):
    with pytest.raises(StrictDataclassFieldValidationError):
        TinyMyoConfig(**fields)


def test_initialisation_follows_the_released_recipe():
    torch.manual_seed(0)
    model = TinyMyoForPreTraining(TinyMyoConfig(num_hidden_layers=4))
    for depth, layer in enumerate(model.tinymyo.layers, start=1):
        xavier = (2 / (192 + 768)) ** 0.5
        assert layer.mlp.fc1.weight.std().item() == pytest.approx(xavier, rel=0.02)
        assert layer.mlp.fc2.weight.std().item() == pytest.approx(xavier / (2 * depth) ** 0.5, rel=0.02)
        assert layer.mlp.fc1.bias.abs().max() == 0
    assert 0.15 < model.tinymyo.patch_embedding.bias.abs().max() <= 20**-0.5
    assert 0.015 < model.mask_token.abs().max() <= 0.02
    assert not any("mask_token" in name for name, _ in TinyMyoForRegression(small_config()).named_parameters())


# --- saving and loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("position", ["rope", "none"])
def test_save_and_load_give_the_same_outputs(model_class, position, tmp_path):
    model = build(model_class, position_embedding_type=position)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any(p.is_meta for p in [*loaded.parameters(), *loaded.buffers()])
    assert torch.equal(run(model, windows()), run(loaded, windows()))


def test_encoder_of_a_pretrained_model_loads_into_every_head(tmp_path):
    pretrained = build(TinyMyoForPreTraining)
    pretrained.save_pretrained(tmp_path)
    for model_class in (TinyMyoForSequenceClassification, TinyMyoForRegression):
        model, info = model_class.from_pretrained(tmp_path, num_labels=7, output_loading_info=True)
        assert all(not key.startswith("tinymyo.") for key in info["missing_keys"])
        for name, value in pretrained.tinymyo.state_dict().items():
            assert torch.equal(value, model.tinymyo.state_dict()[name]), name
        # What is not in the checkpoint is initialised, not left as it was allocated.
        assert all(torch.isfinite(p).all() and p.abs().max() < 10 for p in model.parameters())
    encoder = TinyMyoModel.from_pretrained(tmp_path)
    assert torch.equal(encoder(windows())[0], pretrained.tinymyo(windows())[0])


def test_auto_classes_find_the_family(tmp_path):
    build(TinyMyoForSequenceClassification).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is TinyMyoModel
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path)) is TinyMyoForPreTraining
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is TinyMyoForSequenceClassification


def test_checkpoint_of_another_shape_is_an_error(tmp_path):
    build(TinyMyoForSequenceClassification).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        TinyMyoForSequenceClassification.from_pretrained(tmp_path, num_labels=9)


# --- forward ----------------------------------------------------------------------------------------------------------


def test_output_shapes():
    assert run(build(TinyMyoModel), windows()).shape == (3, 20, 24)
    assert run(build(TinyMyoForPreTraining), windows()).shape == (3, 20, 20)
    assert run(build(TinyMyoForSequenceClassification), windows()).shape == (3, 5)
    assert run(build(TinyMyoForRegression), windows()).shape == (3, 40, 5)
    assert run(build(TinyMyoForRegression, target_length=None), windows()).shape == (3, LENGTH, 5)
    # The encoder takes any number of channels and patches, and so does a head that averages the channels.
    assert run(build(TinyMyoModel), windows(2, 7, 240)).shape == (2, 84, 24)
    assert run(build(TinyMyoForSequenceClassification, channel_fusion="mean"), windows(2, 7, 240)).shape == (2, 5)


@pytest.mark.parametrize("model_class", MODELS)
def test_batch_of_windows_equals_each_window_alone(model_class):
    model, x = build(model_class), windows()
    kwargs = [{}] * 3
    together: dict = {}
    if model_class is TinyMyoForPreTraining:
        mask = windows(3, 1, 20, seed=5)[:, 0] > 0
        together, kwargs = {"bool_masked_pos": mask}, [{"bool_masked_pos": row[None]} for row in mask]
    alone = torch.cat([run(model, window[None], **k) for window, k in zip(x, kwargs, strict=True)])
    torch.testing.assert_close(run(model, x, **together), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("masked", [False, True])
def test_eager_equals_sdpa(model_class, masked):
    model, x = build(model_class), windows()
    mask = torch.ones(3, LENGTH, dtype=torch.long)
    mask[1, 60:] = 0
    kwargs = {"attention_mask": mask} if masked else {}
    outputs = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs[implementation] = run(model, x, **kwargs)
    real = slice(None) if not masked or outputs["eager"].shape[1] in (5, 40) else slice(0, 3)
    torch.testing.assert_close(outputs["eager"][:, real], outputs["sdpa"][:, real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_class", MODELS)
def test_hidden_states_and_attentions(model_class):
    model = build(model_class)
    model.set_attn_implementation("eager")
    output = model(windows(), output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in output.hidden_states] == [(3, 20, 24)] * 3
    assert [tuple(a.shape) for a in output.attentions] == [(3, 3, 20, 20)] * 2
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(3, 3, 20))
    assert isinstance(model(windows(), return_dict=False), tuple)


def test_inputs_embeds_replace_input_values():
    model, x = build(TinyMyoModel), windows()
    embeds = model.get_input_embeddings()(x.unflatten(-1, (-1, 20)))
    assert torch.equal(model(inputs_embeds=embeds)[0], model(x)[0])
    with pytest.raises(ValueError, match="exactly one"):
        model(x, inputs_embeds=embeds)


# --- positions --------------------------------------------------------------------------------------------------------


def test_rotary_pairs_are_interleaved_and_scores_depend_on_the_distance_only():
    angles = torch.tensor([[[0.0, 0.0], [0.3, 0.7]]])  # (batch, tokens, head_size / 2)
    states = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 2, 4)
    rotated = apply_rotary_pos_emb(states, angles.cos(), angles.sin())
    assert torch.equal(rotated[0, 0, 0], states[0, 0, 0])
    as_complex = torch.view_as_complex(states[0, 0, 1].reshape(2, 2)) * torch.polar(torch.ones(2), angles[0, 1])
    torch.testing.assert_close(rotated[0, 0, 1], torch.view_as_real(as_complex).flatten())


def test_rope_tells_tokens_apart_and_none_does_not():
    x = windows()
    swapped = x.clone()
    swapped[:, :, :20], swapped[:, :, 20:40] = x[:, :, 20:40], x[:, :, :20]
    order = [1, 0, 2, 3, 4]
    for position, same in (("none", True), ("rope", False)):
        model = build(TinyMyoModel, position_embedding_type=position)
        before = model(x)[0].unflatten(1, (4, 5))[:, :, order]
        after = model(swapped)[0].unflatten(1, (4, 5))
        assert torch.allclose(before, after, atol=1e-5) is same


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("position", ["rope", "none"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padded_window_equals_the_unpadded_one(model_class, position, implementation):
    model = build(model_class, position_embedding_type=position)
    model.set_attn_implementation(implementation)
    long, short = windows(1), windows(1, length=60, seed=3)
    padded = torch.full((1, 4, LENGTH), float("nan"))
    padded[..., :60] = short
    batch = torch.cat([long, padded])
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, 60:] = 0
    masked_long, masked_short = windows(1, 1, 20, seed=5)[:, 0] > 0, windows(1, 1, 12, seed=6)[:, 0] > 0
    extra = [{}, {}, {}]
    if model_class is TinyMyoForPreTraining:
        in_batch = torch.zeros(4, 5, dtype=torch.bool)
        in_batch[:, :3] = masked_short.view(4, 3)
        both = torch.cat([masked_long, in_batch.view(1, 20)])
        extra = [{"bool_masked_pos": m} for m in (both, masked_long, masked_short)]
    together = run(model, batch, attention_mask=mask, **extra[0])
    alone = run(model, long, **extra[1]), run(model, short, **extra[2])
    if together.shape[1] == 20:  # tokens: (channels, patches); compare the real ones
        together_short = together[1:].unflatten(1, (4, 5))[:, :, :3].flatten(1, 2)
    else:
        together_short = together[1:]
    torch.testing.assert_close(together[:1], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together_short, alone[1], atol=1e-5, rtol=0)


def test_padded_regression_without_target_length_stays_aligned_with_the_samples():
    model, short = build(TinyMyoForRegression, target_length=None), windows(1, length=60)
    padded = torch.nn.functional.pad(short, (0, 40))
    mask = (torch.arange(LENGTH) < 60).long()[None]
    together = run(model, padded, attention_mask=mask)
    torch.testing.assert_close(together[:, :60], run(model, short), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("position", ["rope", "none"])
def test_padded_channels_change_nothing(model_class, position):
    model = build(model_class, position_embedding_type=position, channel_fusion="mean")
    x = windows()
    padded = torch.cat([x, torch.full((3, 2, LENGTH), 7.0)], dim=1)
    channel_mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 3)
    extra = [{}, {}]
    if model_class is TinyMyoForPreTraining:
        mask = windows(3, 1, 20, seed=5)[:, 0] > 0
        extra = [{"bool_masked_pos": mask}, {"bool_masked_pos": torch.nn.functional.pad(mask, (0, 10))}]
    together = run(model, padded, channel_mask=channel_mask, **extra[1])
    alone = run(model, x, **extra[0])
    if together.shape[1] == 30:
        together = together[:, :20]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_concatenating_head_zeroes_masked_channels_and_names_a_wrong_channel_count():
    model, x = build(TinyMyoForSequenceClassification), windows()
    channel_mask = torch.tensor([[1, 1, 0, 1]] * 3)
    noisy = x.clone()
    noisy[:, 2] = 100.0
    torch.testing.assert_close(
        run(model, x, channel_mask=channel_mask), run(model, noisy, channel_mask=channel_mask), atol=1e-5, rtol=0
    )
    with pytest.raises(ValueError, match=r"concatenates 4 channels .* has 6"):
        model(windows(channels=6))


@pytest.mark.parametrize(
    ("x", "kwargs", "message"),
    [
        (windows()[0], {}, r"\(batch, channels, time\)"),
        (windows(length=90), {}, "not a multiple of patch_size"),
        (windows(), {"attention_mask": torch.ones(3, 5)}, "attention_mask must be"),
        (windows(), {"channel_mask": torch.ones(3, 5)}, "channel_mask has 5 channels"),
    ],
)
def test_wrong_shapes_name_the_fix(x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(TinyMyoModel)(x, **kwargs)


# --- pretraining ------------------------------------------------------------------------------------------------------


def test_drawn_mask_is_exact_seedable_and_spares_padding():
    model = build(TinyMyoForPreTraining)
    mask = torch.ones(3, LENGTH, dtype=torch.long)
    mask[2, 60:] = 0
    outputs = [
        model(windows(), attention_mask=mask, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    masked = outputs[0].bool_masked_pos
    assert masked.sum(dim=1).tolist() == [10, 10, 6]
    assert not masked[2].view(4, 5)[:, 3:].any()
    assert torch.equal(masked, outputs[1].bool_masked_pos)
    assert not torch.equal(masked, outputs[2].bool_masked_pos)


def test_pretraining_losses_are_those_of_the_recipe():
    model, x = build(TinyMyoForPreTraining), windows()
    output = model(x, generator=torch.Generator().manual_seed(0))
    patches = x.unflatten(-1, (-1, 20)).flatten(1, 2)
    masked = output.bool_masked_pos
    smooth_l1 = torch.nn.functional.smooth_l1_loss
    torch.testing.assert_close(output.masked_loss, smooth_l1(output.reconstruction[masked], patches[masked]))
    torch.testing.assert_close(output.visible_loss, smooth_l1(output.reconstruction[~masked], patches[~masked]))
    torch.testing.assert_close(output.loss, output.masked_loss + 0.1 * output.visible_loss)
    # A masked token's samples must not leak into any prediction.
    changed = patches.clone()
    changed[masked] = 9.0
    changed = changed.unflatten(1, (4, 5)).flatten(2)
    assert torch.equal(model(changed, bool_masked_pos=masked).reconstruction, output.reconstruction)


def test_the_second_target_is_the_log_rms_of_each_patch():
    plain, model = build(TinyMyoForPreTraining), build(TinyMyoForPreTraining, power_loss_weight=2.0)
    assert plain.power_decoder is None and plain(windows()).log_rms is None
    x = windows()
    x[0, 0] = 0.0  # a silent channel has a finite target
    output = model(x, generator=torch.Generator().manual_seed(0))
    patches = x.unflatten(-1, (-1, 20)).flatten(1, 2)
    target = (patches.square().mean(-1) + 1e-3).sqrt().log()
    smooth_l1 = torch.nn.functional.smooth_l1_loss
    for tokens, loss in ((output.bool_masked_pos, output.masked_loss), (~output.bool_masked_pos, output.visible_loss)):
        waveform = smooth_l1(output.reconstruction[tokens], patches[tokens])
        torch.testing.assert_close(loss, waveform + 2 * smooth_l1(output.log_rms[tokens], target[tokens]))
    output.loss.backward()
    assert model.power_decoder.weight.grad.abs().sum() > 0


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", HEADS)
def test_gradient_checkpointing_gives_the_same_gradients(model_class):
    plain = build(model_class, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.0).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        generator = {} if model_class is not TinyMyoForPreTraining else {"generator": torch.Generator().manual_seed(0)}
        model(windows(), **targets(model), **generator).loss.backward()
    gradients = dict(checkpointed.named_parameters())
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("model_class", HEADS)
def test_overfits_one_batch(model_class):
    model = build(model_class).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x, y = windows(), targets(model)
    if model_class is TinyMyoForPreTraining:
        y = {"bool_masked_pos": torch.arange(20).expand(3, -1) % 2 == 0}
    losses = []
    for _ in range(150):
        loss = model(x, **y).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    assert model(x, **y).loss.item() < 0.75 * losses[0]
    if model_class is TinyMyoForSequenceClassification:
        assert torch.equal(run(model, x).argmax(-1), y["labels"])


def test_dropout_has_the_distribution_of_dropout_and_follows_the_seed():
    x = torch.ones(1000, 1001)
    torch.manual_seed(0)
    first = dropout(x, 0.1, training=True)
    torch.manual_seed(0)
    assert torch.equal(first, dropout(x, 0.1, training=True))
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert (first == 0).float().mean().item() == pytest.approx(0.1, abs=0.001)
    for lag in (1, 2, 3, 4):  # masks are cut from 64-bit words: neighbours must be independent
        both = ((first[:, lag:] == 0) & (first[:, :-lag] == 0)).float().mean().item()
        assert both == pytest.approx(0.01, abs=0.0005)
    assert dropout(x, 0.1, training=False) is x


def attention_module(is_causal: bool = False) -> torch.nn.Module:
    module = torch.nn.Module()
    module.is_causal = is_causal
    return module


@pytest.mark.parametrize("kind", ["full", "masked", "causal", "long causal"])
def test_attention_with_dropout_equals_eager_attention(kind, monkeypatch):
    # p = 1e-9 rounds to no dropout at all: outputs and gradients are those of eager attention.
    x = [torch.randn(7, 3, 150, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = (torch.rand(7, 1, 1, 150) > 0.3).expand(-1, 1, 150, -1) if kind == "masked" else None
    is_causal = kind.endswith("causal")
    if kind == "long causal":  # is cut between its queries: here after 64 and 128
        monkeypatch.setattr(cpu_training_tinymyo, "CHUNK_ELEMENTS", 1000)
    outputs, gradients = [], []
    # The library gives sdpa a bool mask, or none where the kernel is causal, and eager attention an additive one.
    allowed = torch.ones(7, 1, 150, 150, dtype=torch.bool).tril() if is_causal else mask
    additive = None if allowed is None else torch.zeros(allowed.shape, dtype=x[0].dtype).masked_fill(~allowed, -1e30)
    for function, its_mask in ((dropout_attention_forward, mask), (eager_attention_forward, additive)):
        output, _ = function(attention_module(is_causal), *x, its_mask, scaling=0.3, dropout=1e-9)
        outputs.append(output)
        gradients.append(torch.autograd.grad((output * torch.linspace(0, 1, 8)).sin().sum(), x))
    # Eager attention takes its softmax in float32.
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_with_dropout_has_exact_gradients_and_the_right_mean(is_causal):
    module = attention_module(is_causal)
    x = [torch.randn(2, 1, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attend(*states):
        torch.manual_seed(3)
        return dropout_attention_forward(module, *states, None, scaling=0.5, dropout=0.25)[0]

    assert torch.autograd.gradcheck(attend, x)
    many = [t.detach().expand(4000, -1, -1, -1, -1).flatten(0, 1) for t in x]
    dropped = dropout_attention_forward(module, *many, None, scaling=0.5, dropout=0.25)[0]
    future = torch.full((6, 6), -1e30, dtype=torch.float64).triu(1) if is_causal else None
    plain = eager_attention_forward(module, *x, future, scaling=0.5)[0]
    torch.testing.assert_close(dropped.unflatten(0, (4000, 2)).mean(0), plain, atol=0.06, rtol=0)


def test_drop_path_drops_whole_branches_and_keeps_the_mean():
    model = build(TinyMyoModel, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.5)
    layer, states = model.layers[0], torch.randn(1, 20, 24)
    full = layer(states)
    assert torch.equal(full, layer(states.expand(3, -1, -1))[:1])
    layer.train()
    outputs = layer(states.expand(4000, -1, -1))
    # Attention and feed-forward branches drop independently: four kinds of samples, a quarter of them untouched.
    assert len(outputs[:, 0, 0].detach().round(decimals=4).unique()) == 4
    assert (outputs == states).all(-1).all(-1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    model.set_attn_implementation("eager")
    assert (layer(states.expand(4000, -1, -1)) == states).all(-1).all(-1).float().mean().item() == pytest.approx(
        0.25, abs=0.03
    )


@pytest.mark.parametrize("model_class", HEADS)
def test_half_precision_is_close(model_class):
    model, x = build(model_class), windows()
    exact = run(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = run(model, x)
    torch.testing.assert_close(autocast.float(), exact, atol=0.15, rtol=0.1)
    for dtype in (torch.bfloat16, torch.float16):
        half = run(copy.deepcopy(model).to(dtype), x.to(dtype))
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), exact, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("masked", [False, True])
def test_compiles_as_one_graph(masked):
    model, x = build(TinyMyoForSequenceClassification), windows()
    kwargs = {"attention_mask": (torch.arange(LENGTH) < 60).long().expand(3, -1)} if masked else {}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(run(compiled, x, **kwargs), run(model, x, **kwargs), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_flex_attention_equals_sdpa():
    model, x = build(TinyMyoForSequenceClassification, hidden_size=48), windows()  # flex wants heads of at least 16
    mask = (torch.arange(LENGTH) < 60).long().expand(3, -1)
    with torch.no_grad():
        expected = run(model, x), run(model, x, attention_mask=mask)
        model.set_attn_implementation("flex_attention")
        torch.testing.assert_close((run(model, x), run(model, x, attention_mask=mask)), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_generated_code_equals_eager_code():
    model, x = build(TinyMyoForSequenceClassification), windows()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(run(compiled, x), run(model, x), atol=1e-5, rtol=0)
    model.train()
    compiled(x, labels=torch.tensor([0, 3, 4])).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_regression_refuses_targets_of_another_length():
    with pytest.raises(ValueError, match="config.target_length"):
        build(TinyMyoForRegression)(windows(), labels=torch.zeros(3, 41, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model_class", HEADS)
def test_bf16_training_step_and_compiled_forward_on_cuda(model_class):
    model = build(model_class).cuda().train()
    x, y = windows().cuda(), {name: value.cuda() for name, value in targets(model).items()}
    with torch.autocast("cuda", torch.bfloat16):
        model(x, **y).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    model.eval()
    mask = {"bool_masked_pos": torch.arange(20, device="cuda").expand(3, -1) % 2 == 0}
    kwargs = mask if model_class is TinyMyoForPreTraining else {}
    with torch.no_grad():
        compiled = run(torch.compile(model, fullgraph=True), x, **kwargs)
        torch.testing.assert_close(compiled, run(model, x, **kwargs), atol=1e-3, rtol=1e-3)
