"""The models for speech: parity, positions, padding, outputs, compilation."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file
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

from tinymyo_hf import (
    TINYMYO_PRESETS,
    TinyMyoConfig,
    TinyMyoForSequenceClassification,
    TinyMyoForSpeechSynthesis,
    TinyMyoModel,
)
from tinymyo_hf.tinymyo.convert_tinymyo_checkpoint import load_reference_model

REFERENCE_OUTPUTS = Path(__file__).parents[1] / "fixtures"


# --- sizes, configuration, parity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "changes", "expected"),
    [
        ("tinymyo-gaddy-synthesis", {}, 4_564_352),
        ("tinymyo-gaddy-synthesis", {"num_mel_bins": 26}, 4_553_930),
        ("tinymyo-gaddy-recognition", {}, 4_546_982),
    ],
)
def test_published_sizes(preset, changes, expected):
    config = TinyMyoConfig(**TINYMYO_PRESETS[preset] | changes)
    with torch.device("meta"):
        model = {c.__name__: c for c in HEADS}[config.architectures[0]](config)
        assert run(model, torch.empty(1, 8, 1600)).shape[1] == 200
    assert model.num_parameters() == expected
    assert config.pad_token_id == 37 and config.frame_stride == 8
    assert [config.num_frames(samples) for samples in (1, 8, 9, 1600)] == [1, 1, 2, 200]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_outputs_equal_the_released_implementation(implementation):
    model = load_reference_model(REFERENCE_OUTPUTS / "speech_small.state.safetensors")
    model.set_attn_implementation(implementation)
    expected = load_file(REFERENCE_OUTPUTS / "speech_small.io.safetensors")
    x = expected["input"].transpose(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(model.tinymyo.stem(x), expected["stem"], atol=1e-5, rtol=0)
        # A sample has the same outputs beside others, which in the released implementation it has not.
        output = model(torch.cat([torch.randn(2, 8, 256), x]))
    torch.testing.assert_close(output.spectrogram[2:], expected["out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.phoneme_logits[2:], expected["aux"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"is_causal": True}, "residual stem sees the future"),
        ({"stem": "patches"}, "no distance in time"),
        ({"stem": "convolution", "is_causal": True}, "is_causal=False"),
        ({"pad_token_id": 6}, "pad_token_id=6 must be one of the vocab_size=6 ids"),
        ({"num_stem_blocks": 0}, "num_stem_blocks must be at least 1"),
        ({"phoneme_loss_weight": -1}, "phoneme_loss_weight must be at least 0"),
    ],
)
def test_contradictory_config_is_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        TinyMyoConfig(**SMALL | SPEECH | fields)


def test_heads_and_stems_that_do_not_fit_are_refused():
    for head in HEADS:
        with pytest.raises(ValueError, match=f'{head.__name__} works on frames, but config.stem is "patches"'):
            head(TinyMyoConfig(**SMALL))
    with pytest.raises(ValueError, match='config.stem is "residual": use a model of frames'):
        build(TinyMyoForSequenceClassification)
    with pytest.raises(ValueError, match="no samples"):
        TinyMyoConfig(**SMALL | SPEECH).num_frames(0)


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [False, True])
def test_attention_is_that_of_the_definition(implementation, training):
    reach, tokens, heads, size = 5, 9, 3, 8
    model = build(TinyMyoModel, max_relative_positions=reach, **WITHOUT_DROPOUT).double().train(training)
    model.set_attn_implementation(implementation)
    attention = model.layers[0].attention
    states = torch.randn(2, tokens, 24, dtype=torch.float64)
    qkv = attention.qkv(states).unflatten(-1, (3, heads, size))
    relative = attention.relative_positions.weight
    expected = torch.zeros(2, tokens, heads, size, dtype=torch.float64)
    for sample, head, query in itertools.product(range(2), range(heads), range(tokens)):
        q = qkv[sample, query, 0, head]
        near = [key for key in range(tokens) if abs(key - query) < reach]
        scores = []
        for key in near:
            scores.append(q @ qkv[sample, key, 1, head] / size**0.5 + q @ relative[head, key - query + reach - 1])
        weights = torch.stack(scores).softmax(0)
        expected[sample, query, head] = weights @ qkv[sample, near, 2, head]
    torch.testing.assert_close(attention(states)[0], attention.proj(expected.flatten(2)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [False, True])
def test_frames_100_and_more_away_are_not_attended_to(implementation, training):
    model = build(TinyMyoModel, num_hidden_layers=1, **WITHOUT_DROPOUT).train(training)
    model.set_attn_implementation(implementation)
    frames = torch.randn(1, 1, 250, 24)
    changed = frames.clone()
    changed[:, :, 120] += 10.0
    difference = (model(inputs_embeds=changed)[0] - model(inputs_embeds=frames)[0]).abs().amax(-1)[0]
    assert difference[:21].max() == difference[220:].max() == 0  # |120 - frame| >= 100
    assert difference[21:220].min() > 1e-6


@pytest.mark.parametrize("frames", [5, 30])  # fewer than the reach, and more
def test_every_position_in_reach_learns(frames):
    model = build(TinyMyoModel, max_relative_positions=8, num_hidden_layers=1).train()
    model(utterances(3, 8 * frames))[0].square().sum().backward()
    gradient = model.layers[0].attention.relative_positions.weight.grad.abs().amin((0, 2))
    reached = torch.arange(-7, 8).abs() < frames
    assert torch.equal(gradient > 0, reached)


def test_scores_of_frames_with_nothing_to_attend_to_stay_finite():
    positions = build(max_relative_positions=3).tinymyo.layers[0].attention.relative_positions.half()
    positions.weight.data.fill_(-10.0)
    nothing = torch.full((1, 1, 9, 9), torch.finfo(torch.float16).min, dtype=torch.float16)
    assert positions(torch.ones(1, 3, 9, 8, dtype=torch.float16), nothing).isfinite().all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_order_of_frames_matters(encoder):
    models = [build(TinyMyoModel, **ENCODERS[encoder] | change) for change in ({}, {"position_embedding_type": "none"})]
    frames = torch.randn(1, 1, 6, 24)
    turned = frames.flip(2)
    with_positions, without = (m(inputs_embeds=turned)[0].flip(1) - m(inputs_embeds=frames)[0] for m in models)
    assert without.abs().max() < 1e-5 < 1e-2 < with_positions.abs().max()


def test_kernels_that_take_no_scores_are_refused():
    model = build()
    model.set_attn_implementation("flex_attention")
    mask_of_its_own = object()
    with pytest.raises(ValueError, match='flex_attention takes no scores.*\n?.*attn_implementation="sdpa"'):
        model.tinymyo.layers[0](torch.randn(1, 5, 24), attention_mask=mask_of_its_own)


# --- batches and padding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("reach", [100, 3])  # with the small one, no frame of the padding sees a real one
def test_padded_utterance_equals_the_unpadded_one(encoder, model_class, implementation, reach):
    model = build(model_class, max_relative_positions=reach, **ENCODERS[encoder])
    model.set_attn_implementation(implementation)
    signals = [utterances(1, length, seed=length) for length in (203, 200, 97, 9, 8, 1)]
    with torch.no_grad():
        together = run(model, **padded(signals, 210))
        for row, signal in zip(together, signals, strict=True):
            alone = run(model, signal)[0]
            assert len(alone) == model.config.num_frames(signal.shape[2])
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=0)
    assert together.isfinite().all()


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_batch_and_kernels_change_nothing(model_class, encoder):
    model, x = build(model_class, **ENCODERS[encoder]), utterances(3)
    outputs = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs += [run(model, x), torch.cat([run(model, row[None]) for row in x])]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_class", HEADS)
def test_loss_and_gradients_of_a_padded_batch_in_training(model_class):
    """What is behind the utterances counts nothing: neither in the loss nor in the statistics of the batch."""
    original = build(model_class, **WITHOUT_DROPOUT).train()
    signals = [utterances(1, 130), utterances(1, 75, seed=3)]
    of_frames = targets(original)
    results = []
    for length in (130, 300):
        model = copy.deepcopy(original)
        labels = dict(of_frames)
        if model_class is TinyMyoForSpeechSynthesis:
            behind = model.config.num_frames(length) - FRAMES
            labels["labels"] = torch.nn.functional.pad(of_frames["labels"], (0, 0, 0, behind), value=float("nan"))
            labels["phoneme_labels"] = torch.nn.functional.pad(of_frames["phoneme_labels"], (0, behind), value=3)
        loss = model(**padded(signals, length), **labels).loss
        loss.backward()
        results.append((loss, {n: p.grad for n, p in model.named_parameters()}, dict(model.named_buffers())))
    (loss, gradients, statistics), (other_loss, other_gradients, other_statistics) = results
    torch.testing.assert_close(loss, other_loss, atol=1e-6, rtol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], atol=1e-5, rtol=1e-4)
    for name, value in statistics.items():
        torch.testing.assert_close(value, other_statistics[name], atol=1e-6, rtol=0)


def test_statistics_are_those_of_the_real_frames():
    model = build(TinyMyoModel).train()
    block = model.stem.blocks[0]
    before = copy.deepcopy(block.norm1)
    signals = [utterances(1, 130), utterances(1, 75, seed=3)]
    with torch.no_grad():
        model(**padded(signals, 160))
        frames = torch.cat([block.conv1(signal)[0] for signal in signals], dim=1)  # (channels, 65 + 38)
    assert frames.shape[1] == 103
    for name, value in (("running_mean", frames.mean(1)), ("running_var", frames.var(1))):
        moved = 0.9 * getattr(before, name) + 0.1 * value
        torch.testing.assert_close(getattr(block.norm1, name), moved, atol=1e-5, rtol=0)
    assert block.norm1.num_batches_tracked == 1


def test_a_frozen_stem_keeps_its_statistics():
    stem = build(TinyMyoModel).stem.train().requires_grad_(False)
    before = copy.deepcopy(stem.state_dict())
    batch = padded([utterances(1, 130), utterances(1, 75, seed=3)], 160)
    in_training = stem(**batch)
    for name, value in stem.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(in_training, stem.eval()(**batch))


def test_masked_channel_counts_as_silent():
    model, x = build(), utterances()
    silent = x.clone()
    silent[:, 2] = 0
    x[:, 2] = float("nan")
    assert torch.equal(model(x, channel_mask=torch.tensor([[1, 1, 0, 1]] * 2)).logits, model(silent).logits)


def test_frames_begin_at_their_samples():
    """Frame f is of samples from 8 f on: a change reaches the frames around it only, so far as convolutions see."""
    stem = build(TinyMyoModel).stem
    x = utterances(1, 400)
    changed = x.clone()
    changed[..., 200] += 1.0
    moved = (stem(changed) - stem(x)).abs().amax(-1)[0].nonzero().flatten()
    assert moved.min() >= 25 - 3 and moved.max() <= 25 + 3
    assert 25 in moved


@pytest.mark.parametrize(
    ("x", "kwargs", "message"),
    [
        (utterances()[0], {}, r"\(batch, channels, time\)"),
        (utterances()[:, :3], {}, "joins 4 channels .* has 3"),
        (utterances(), {"attention_mask": torch.ones(2, 5)}, "attention_mask must be"),
        (utterances(), {"attention_mask": (torch.arange(LENGTH) > 9).expand(2, -1)}, "pad recordings on the right"),
        (utterances(), {"channel_mask": torch.ones(2, 5)}, "channel_mask must be"),
    ],
)
@pytest.mark.parametrize("model_class", MODELS)
def test_wrong_shapes_name_the_fix(model_class, x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(model_class)(x, **kwargs)


# --- outputs and compilation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
def test_hidden_states_attentions_and_tuples(model_class):
    model = build(model_class, max_relative_positions=3)
    model.set_attn_implementation("eager")
    output = model(utterances(), output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in output.hidden_states] == [(2, FRAMES, 24)] * 3
    assert [tuple(a.shape) for a in output.attentions] == [(2, 3, FRAMES, FRAMES)] * 2
    near = torch.ones(FRAMES, FRAMES).tril(2).triu(-2)
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, FRAMES))
        assert torch.equal(weights.gt(0).float(), near.expand_as(weights))
    assert isinstance(model(utterances(), return_dict=False), tuple)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_compiles_as_one_graph(masked):
    model, x = build(), utterances()
    kwargs = {"attention_mask": (torch.arange(LENGTH) < torch.tensor([[LENGTH], [75]])).long()} if masked else {}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, **kwargs).logits, model(x, **kwargs).logits, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", HEADS)
def test_exported_graph_takes_other_lengths(model_class):
    model = build(model_class, max_relative_positions=10)
    dynamic = {"input_values": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(model, (), {"input_values": utterances()}, dynamic_shapes=dynamic).module()
    for x in (utterances(), utterances(3, 333), utterances(1, 40)):
        torch.testing.assert_close(run(program, input_values=x), run(model, x), atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model_class", HEADS)
def test_training_step_and_compiled_forward_on_cuda(model_class):
    model = build(model_class, hidden_size=48, **WITHOUT_DROPOUT).cuda().train()
    batch = padded([utterances(1), utterances(1, 75, seed=3)], LENGTH)
    inputs = {name: tensor.cuda() for name, tensor in batch.items()}
    with torch.autocast("cuda", torch.bfloat16):
        model(**inputs, **{name: tensor.cuda() for name, tensor in targets(model).items()}).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    expected = run(copy.deepcopy(model).cpu(), **batch)[:, :10]
    for variant in (model, torch.compile(model, fullgraph=True)):
        torch.testing.assert_close(run(variant, **inputs)[:, :10].cpu(), expected, atol=1e-3, rtol=1e-3)
