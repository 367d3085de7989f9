"""Conversion of Wav2Vec2ForCTC checkpoints over EMG: same outputs, and nothing but an exact match is taken."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoFeatureExtractor, AutoTokenizer, Wav2Vec2Config, Wav2Vec2ForCTC
from typer.testing import CliRunner

from tinymyo_hf import SEMGTransformerForCTC
from tinymyo_hf.cli import app
from tinymyo_hf.semg_transformer.convert_semg_transformer_checkpoint import convert_semg_checkpoint
from tinymyo_hf.tinymyo.released_weights import ConversionError

PREFIX = "wav2vec2."
POSITIONS = f"{PREFIX}encoder.pos_conv_embed.conv."


@pytest.fixture
def reference(monkeypatch) -> Wav2Vec2ForCTC:
    """The library's own model with a first convolution over 32 channels, and causal attention."""
    monkeypatch.setattr(
        "transformers.models.wav2vec2.modeling_wav2vec2.create_bidirectional_mask",
        lambda config, inputs_embeds, attention_mask: torch.full((inputs_embeds.shape[1],) * 2, -1e30).triu(1),
    )
    config = Wav2Vec2Config(
        conv_dim=[128, 64, 64], conv_kernel=[11, 3, 3], conv_stride=[5, 2, 2], num_feat_extract_layers=3,
        hidden_size=32, num_hidden_layers=2, num_attention_heads=16, intermediate_size=96, vocab_size=99,
        pad_token_id=98, mask_time_prob=0.0, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(config).eval()
    encoder = model.wav2vec2.feature_extractor
    encoder.conv_layers[0].conv = nn.Conv1d(32, 128, 11, stride=5, bias=False)
    encoder.forward = nn.Sequential(*encoder.conv_layers).forward
    return model


def test_outputs_equal_those_of_the_source(reference, tmp_path):
    state, x = reference.state_dict(), torch.randn(2, 32, 341)
    with torch.no_grad():
        expected = reference(x).logits
    parametrized = {f"{POSITIONS}parametrizations.weight.original{i}": f"{POSITIONS}weight_{'gv'[i]}" for i in (0, 1)}
    assert parametrized.keys() <= state.keys()
    older = {parametrized.get(name, name): tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "new.safetensors")
    save_file({f"model.{name}": tensor for name, tensor in older.items()}, tmp_path / "old.safetensors")
    torch.save({"state_dict": {f"network.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "run.ckpt")
    for name in ("new.safetensors", "old.safetensors", "run.ckpt"):
        out = tmp_path / f"from {name}"
        result = CliRunner().invoke(app, ["convert", str(tmp_path / name), str(out)])
        assert result.exit_code == 0, result.output
        assert "16 heads with norms after the sublayers" in result.stdout
        model = SEMGTransformerForCTC.from_pretrained(out)
        with torch.no_grad():
            torch.testing.assert_close(model(x).logits, expected, atol=1e-5, rtol=0)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (32, 2, 96)
    assert (config.vocab_size, config.pad_token_id, config.do_stable_layer_norm) == (99, 98, False)
    extractor, tokenizer = AutoFeatureExtractor.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert (extractor.num_channels, extractor.bands, len(tokenizer)) == (32, [16, 16], 99)


def test_what_does_not_match_exactly_is_refused(reference, tmp_path):
    state = reference.state_dict()

    def refuse(message, change=None, **options):
        changed = {name: tensor for name, tensor in (state | (change or {})).items() if tensor is not None}
        save_file(changed, tmp_path / "a.safetensors")
        with pytest.raises(ConversionError, match=message):
            convert_semg_checkpoint(tmp_path / "a.safetensors", tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    layer = f"{PREFIX}encoder.layers.1."
    refuse("missing: lm_head.bias;", {"lm_head.bias": None})
    refuse("unexpected: semg_transformer.masked_spec_embed", {f"{PREFIX}masked_spec_embed": torch.ones(32)})
    refuse("unexpected: semg_transformer.criterion.weight", {"criterion.weight": torch.ones(3)})
    refuse("missing: semg_transformer.encoder.layers.1.attention.k_proj", {f"{layer}attention.k_proj.weight": None})
    refuse("missing: .*pos_conv_embed.conv.direction", {f"{POSITIONS}parametrizations.weight.original1": None})
    refuse("the weights are not those", {f"{POSITIONS}weight_g": torch.ones(1, 1, 128)})  # the same weight twice
    refuse(r"layers.1.final_layer_norm.bias \(31,\) instead of", {f"{layer}final_layer_norm.bias": torch.ones(31)})
    refuse(
        "conv_layers.0.conv.weight of 2 dim", {f"{PREFIX}feature_extractor.conv_layers.0.conv.weight": torch.ones(2, 3)}
    )
    kernel = torch.ones(128, 32, 7)  # with it, the strides would not be known
    refuse(r"\(128, 32, 7\) instead of", {f"{PREFIX}feature_extractor.conv_layers.0.conv.weight": kernel})
    refuse("NaN or infinite", {"lm_head.bias": torch.full((99,), float("nan"))})
    refuse("multiple of num_attention_heads", num_attention_heads=5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ConversionError, match="not an empty folder"):
        convert_semg_checkpoint(tmp_path / "a.safetensors", tmp_path / "full")


def test_options_of_the_other_family_are_refused(reference, tmp_path):
    def refused(*arguments):
        result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
        assert result.exit_code == 2, result.output
        return result.stderr

    source = tmp_path / "a.safetensors"
    save_file(reference.state_dict(), source)
    assert "an sEMG transformer checkpoint, which --target-length is not for" in refused(
        source, tmp_path / "out", "--target-length", 3
    )
    save_file({"blocks.0.norm1.weight": torch.ones(3)}, source)
    assert "a TinyMyo checkpoint, which --pre-layer-norm is not for" in refused(
        source, tmp_path / "out", "--pre-layer-norm"
    )
    assert "not those of a TinyMyo checkpoint" in refused(source, tmp_path / "out")
