"""The CTC head of the sEMG transformers: parity with the library's Wav2Vec2, the loss, the labelled span, training."""

import copy
import itertools

import pytest
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tinymyo_hf import SEMGTransformerConfig, SEMGTransformerForCTC
from tinymyo_hf.semg_transformer.modeling_semg_transformer import frame_span

WITHOUT_DROPOUT = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"), 0.0
)
SMALL = {
    "conv_dim": [12, 8, 8],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 11,
    "pad_token_id": 10,
    **WITHOUT_DROPOUT,
}


def build(**changes) -> SEMGTransformerForCTC:
    """A model whose zero biases and unit norms are perturbed, so that they hide nothing."""
    torch.manual_seed(0)
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**SMALL | {"num_channels": 6} | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.2 if parameter.ndim == 1 else 0.1) * torch.randn_like(parameter))
    return model


def recordings(batch: int = 2, samples: int = 441, seed: int = 1, channels: int = 6) -> torch.Tensor:
    return 3 * torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(seed))


def texts(*rows: list[int]) -> torch.Tensor:
    longest = max(1, *map(len, rows))
    return torch.tensor([row + [-100] * (longest - len(row)) for row in rows])


def loss_of(logits: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """Negative log likelihood of one text, by torch; logits (frames, vocabulary), the last one the blank."""
    return nn.functional.ctc_loss(
        logits.log_softmax(-1), torch.tensor(labels), (len(logits),), (len(labels),), blank=10, reduction="sum"
    )


# --- parity with Wav2Vec2 ---------------------------------------------------------------------------------------------


@pytest.fixture
def causal_wav2vec2(monkeypatch):
    """Makes the library's Wav2Vec2ForCTC with a first convolution over several channels, and causal attention."""
    masks = "transformers.models.wav2vec2.modeling_wav2vec2.create_bidirectional_mask"
    monkeypatch.setattr(
        masks,
        lambda config, inputs_embeds, attention_mask: torch.full((inputs_embeds.shape[1],) * 2, -1e30).triu(1),
    )

    def build_reference(stable: bool) -> Wav2Vec2ForCTC:
        fields = SMALL | {"conv_kernel": [11, 3, 3], "conv_stride": [5, 2, 2], "num_feat_extract_layers": 3}
        config = Wav2Vec2Config(
            **fields, do_stable_layer_norm=stable, intermediate_size=128, layerdrop=0.0, mask_time_prob=0.0,
            attn_implementation="eager", ctc_loss_reduction="mean", ctc_zero_infinity=True,
        )  # fmt: skip
        torch.manual_seed(0)
        model = Wav2Vec2ForCTC(config).eval()
        encoder = model.wav2vec2.feature_extractor
        encoder.conv_layers[0].conv = nn.Conv1d(6, 12, 11, stride=5, bias=False)
        encoder.forward = nn.Sequential(*encoder.conv_layers).forward
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return build_reference


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_outputs_and_loss_equal_those_of_wav2vec2(stable, implementation, causal_wav2vec2):
    reference, model = causal_wav2vec2(stable), build(do_stable_layer_norm=stable)
    model.set_attn_implementation(implementation)
    renamed = {"parametrizations.weight.original0": "magnitude", "parametrizations.weight.original1": "direction"}
    state = {}
    for name, tensor in reference.state_dict().items():
        for theirs, mine in renamed.items():
            name = name.replace(theirs, mine)
        state[name.replace("wav2vec2.", "semg_transformer.")] = tensor
    found = model.load_state_dict(state, strict=False)
    assert found.missing_keys == [
        f"semg_transformer.feature_extractor.conv_layers.0.layer_norm.running_{name}" for name in ("mean", "var")
    ]
    assert not found.unexpected_keys
    x, labels = recordings(), texts([1, 2, 2, 3], [4, 5])
    mask = torch.ones(2, x.shape[-1], dtype=torch.long)
    with torch.no_grad():
        expected = reference(x, attention_mask=mask, labels=labels, output_hidden_states=True)
        result = model(x, labels=labels, output_hidden_states=True)
        torch.testing.assert_close(result.logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(result.loss, expected.loss, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(result.hidden_states[1], expected.hidden_states[1], atol=1e-5, rtol=0)
        # Each part by itself, with the same weights.
        mine, theirs = model.semg_transformer, reference.wav2vec2
        features = theirs.feature_extractor(x)
        torch.testing.assert_close(mine.feature_extractor(x), features, atol=1e-5, rtol=0)
        projected = theirs.feature_projection(features.transpose(1, 2))[0]
        torch.testing.assert_close(mine.feature_projection(features.transpose(1, 2)), projected, atol=1e-5, rtol=0)
        encoded = theirs.encoder(projected).last_hidden_state
        torch.testing.assert_close(mine.encoder(projected), encoded, atol=1e-5, rtol=0)


# --- loss -------------------------------------------------------------------------------------------------------------


def test_loss_is_the_likelihood_of_every_alignment():
    model, x = build(vocab_size=3, pad_token_id=1), recordings(1, 121)
    output = model(x, labels=texts([2, 2]))
    probabilities = output.logits[0].softmax(-1)
    assert len(probabilities) == 5
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        if [token for token, _ in itertools.groupby(path) if token != 1] == [2, 2]:
            total += torch.stack([probabilities[frame, token] for frame, token in enumerate(path)]).prod()
    torch.testing.assert_close(output.loss, -torch.log(total) / 2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_batches_reduce_over_texts(reduction):
    model, rows = build(ctc_loss_reduction=reduction), [[1, 2, 3], [4], []]
    x, mask = recordings(3), torch.ones(3, 441, dtype=torch.long)
    mask[1, 301:] = 0
    output = model(x, attention_mask=mask, labels=texts(*rows))
    assert output.logits.shape == (3, 21, 11)
    losses = [loss_of(logits[:n], row) for logits, n, row in zip(output.logits, (21, 14, 21), rows, strict=True)]
    expected = sum(losses)
    if reduction == "mean":  # a text without a character counts as one of length 1
        expected = sum(loss / max(len(row), 1) for loss, row in zip(losses, rows, strict=True)) / 3
    torch.testing.assert_close(output.loss, expected)
    # Without any text: the likelihood of nothing but blanks.
    nothing = -output.logits[2].log_softmax(-1)[:, 10].sum()
    torch.testing.assert_close(losses[2], nothing)


def test_windows_with_context_are_scored_within_their_labels():
    model, x = build(), recordings(2, 10_000)
    span = torch.tensor([[1800, 9800], [0, 8200]])  # the second window is the first of its recording
    output = model(x, labels=texts([1, 2, 3], [4, 4]), labelled_span=span)
    first, second = output.logits
    assert first.shape == (498, 11)
    expected = (loss_of(first[90:488], [1, 2, 3]) / 3 + loss_of(second[:408], [4, 4]) / 2) / 2
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=1e-5)
    assert frame_span(model.config, torch.tensor([498, 498]), span).tolist() == [[90, 488], [0, 408]]
    # Frames before and behind the labels have no gradient.
    logits = output.logits.detach().requires_grad_()
    model.lm_head.register_forward_hook(lambda *_: logits)
    model(x, labels=texts([1, 2, 3], [4, 4]), labelled_span=span).loss.backward()
    scored = logits.grad.abs().sum(-1) > 0
    assert scored[0].nonzero().flatten().tolist() == list(range(90, 488))
    assert scored[1].nonzero().flatten().tolist() == list(range(408))


def test_span_of_all_samples_is_all_frames_and_recordings_end_it():
    model, x = build(), recordings()
    whole = model(x, labels=texts([1], [2])).loss
    all_of_it = torch.tensor([[0, 441], [0, 441]])
    torch.testing.assert_close(model(x, labels=texts([1], [2]), labelled_span=all_of_it).loss, whole)
    frames = torch.tensor([21, 3])
    # A span that reaches beyond the recording, one that starts within a frame, one too short for a frame.
    assert frame_span(model.config, frames, torch.tensor([[0, 900], [20, 900]])).tolist() == [[0, 21], [1, 3]]
    assert frame_span(model.config, frames, torch.tensor([[1, 61], [21, 62]])).tolist() == [[1, 2], [2, 2]]
    assert frame_span(model.config, frames, torch.tensor([[400, 441], [100, 900]])).tolist() == [[20, 21], [5, 5]]


def test_texts_that_cannot_fit_contribute_nothing():
    x, labels = recordings(2, 121), texts([1, 2, 3, 4, 5, 6], [7])  # 5 frames
    model = build()
    output = model(x, labels=labels)
    torch.testing.assert_close(output.loss, loss_of(output.logits[1], [7]) / 2)
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert build(ctc_zero_infinity=False)(x, labels=labels).loss.isinf()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (texts([1, 11], [2]), "below vocab_size=11"),
        (texts([1, 10], [2]), "not the blank 10"),
        (texts([1]), r"labels must be \(batch=2"),
        (torch.tensor([1, 2]), r"labels must be \(batch=2"),
    ],
)
def test_labels_that_are_no_texts_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        build()(recordings(), labels=labels)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stable", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(stable):
    plain = build(do_stable_layer_norm=stable).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        model(recordings(), labels=texts([1, 2], [3])).loss.backward()
    gradients = dict(checkpointed.named_parameters())
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{name} gets no gradient"
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"attention_window": 70}])
def test_training_and_evaluation_attend_alike(changes):
    model, x = build(**changes), recordings(1, 20 * 150 + 41)  # more frames than a block of training has
    losses, gradients = [], []
    for training in (False, True):
        model.train(training).zero_grad()
        loss = model(x, labels=texts([1, 2, 3])).loss
        loss.backward()
        losses.append(loss)
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)


def test_every_dropout_is_applied_in_training_only():
    x = recordings()
    for field in WITHOUT_DROPOUT:
        model = build(**{field: 0.5})
        assert torch.equal(model(x).logits, model(x).logits)
        model.train()
        assert not torch.allclose(model(x).logits, model(x).logits, atol=1e-3), field
    model = build().train()
    assert torch.equal(model(x).logits, model(x).logits)


def test_learns_the_text_of_a_batch():
    model, x, rows = build().train(), recordings(), [[1, 2, 2, 3], [4, 5]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        model(x, labels=texts(*rows)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    best = model.eval()(x).logits.argmax(-1).tolist()
    assert [[token for token, _ in itertools.groupby(row) if token != 10] for row in best] == rows
