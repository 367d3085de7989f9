"""Conversion of the released Tiny-BioMoE: same outputs, and nothing but a whole checkpoint is taken."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModel
from typer.testing import CliRunner

from tinymyo_hf import TinyBioMoEModel
from tinymyo_hf.cli import app
from tinymyo_hf.tiny_biomoe.convert_tiny_biomoe_checkpoint import convert_tiny_biomoe_checkpoint
from tinymyo_hf.tinymyo.released_weights import ConversionError

INDEX = "enc2.blocks3.3.mixer.m.attn.attention_bias_idxs"


@pytest.fixture(scope="module")
def released(shared_dir) -> dict[str, torch.Tensor]:
    """The state dict of the released code with random weights."""
    return load_file(shared_dir / "fixtures" / "biomoe_rand.state.safetensors")


def convert(source, out):
    result = CliRunner().invoke(app, ["convert", str(source), str(out)])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def test_outputs_equal_those_of_the_released_code(shared_dir, released, tmp_path):
    fixtures = shared_dir / "fixtures"
    assert {k: list(t.shape) for k, t in released.items()} == json.loads((fixtures / "biomoe_keys.json").read_text())
    heads = {"head.1.weight": torch.ones(5, 192), "enc2.head.l.weight": torch.ones(5, 96)}
    state = {f"module.{name}": tensor for name, tensor in (released | heads).items()}
    torch.save({"model_state_dict": state}, tmp_path / "Tiny-BioMoE.pth")
    text = convert(tmp_path / "Tiny-BioMoE.pth", tmp_path / "out")
    assert "left out, as weights of heads: enc2.head.l.weight, head.1.weight\n" in text
    assert "TinyBioMoEModel with 7,337,278 parameters written to" in text

    expected = load_file(fixtures / "biomoe_rand.io.safetensors")
    model = TinyBioMoEModel.from_pretrained(tmp_path / "out", attn_implementation="eager")
    torch.manual_seed(7)
    with torch.no_grad():
        output = model(torch.rand(2, 3, 224, 224))
    for name, found in {
        "output": output.pooler_output,
        "tokens": output.last_hidden_state,
        "z1": output.expert_embeddings[:, 0],
        "z2": output.expert_embeddings[:, 1],
    }.items():
        torch.testing.assert_close(found, expected[name], atol=2e-5, rtol=0, msg=name)
    embeddings = torch.stack((expected["z1"], expected["z2"]), dim=1)
    gates = torch.nn.functional.elu(embeddings) @ released["fcn.1.weight"].T + released["fcn.1.bias"]
    torch.testing.assert_close(output.gates, gates.clamp(0, 1), atol=2e-5, rtol=0)


def test_folder_is_ready_for_use(released, tmp_path):
    save_file(released, tmp_path / "bare.safetensors")
    assert "left out" not in convert(tmp_path / "bare.safetensors", tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(model.gate.bias, released["fcn.1.bias"])
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").image_size == model.config.image_size
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit" and "Stefanos Gkikas" in card.text and "bare.safetensors" in card.text


def test_what_is_not_the_whole_model_is_refused(released, tmp_path):
    source = tmp_path / "a.safetensors"

    def refuse(message, state):
        save_file(state, source)
        with pytest.raises(ConversionError, match=message):
            convert_tiny_biomoe_checkpoint(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def without(*prefixes):
        return {name: tensor for name, tensor in released.items() if not name.startswith(prefixes)}

    refuse(r"expert enc2 \(EfficientViT\) is missing; check", without("enc2."))
    refuse(r"expert enc1 \(SpectFormer\) is missing; fcn \(gate\) is missing; check", without("enc1.", "fcn."))
    refuse("510 tensors of Tiny-BioMoE; missing: enc1.block4.0.attn.kv.bias; check", without("enc1.block4.0.attn.kv.b"))
    refuse(f"missing: {INDEX}; check", without(INDEX))
    refuse("; unexpected: enc3.norm.weight; check", released | {"enc3.norm.weight": torch.ones(3)})
    refuse(
        r"ln_out.bias \(96,\) instead of \(192,\); check",
        released | {"ln_out.bias": torch.ones(96)},
    )
    refuse(f"indexed otherwise than by distance; in: {INDEX}; check", released | {INDEX: released[INDEX].flip(0)})
    refuse("NaN or infinite weights; in: ln_e.bias", released | {"ln_e.bias": torch.full((96,), torch.nan)})


def test_pickled_objects_are_not_loaded(tmp_path):
    torch.save({"model_state_dict": {"enc1.patch_embed1.proj.bias": print}}, tmp_path / "a.pth")
    with pytest.raises(ConversionError, match="not loaded for safety"):
        convert_tiny_biomoe_checkpoint(tmp_path / "a.pth", tmp_path / "out")


def test_occupied_folder_and_options_of_other_families(released, tmp_path):
    save_file(released, tmp_path / "a.safetensors")
    with pytest.raises(ConversionError, match="exists already"):
        convert_tiny_biomoe_checkpoint(tmp_path / "a.safetensors", tmp_path)
    source, out = str(tmp_path / "a.safetensors"), str(tmp_path / "out")
    result = CliRunner().invoke(app, ["convert", source, out, "--pre-layer-norm"])
    assert result.exit_code == 2 and "a Tiny-BioMoE checkpoint, which --pre-layer-norm is not for" in result.stderr
