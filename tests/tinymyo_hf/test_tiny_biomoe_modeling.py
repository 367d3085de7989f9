"""Tiny-BioMoE: its size, what it computes in every mode and format, and what it refuses."""

import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from small_biomoe import EMBEDDING, MODELS, build, images
from torch.export import Dim
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from typer.testing import CliRunner

from tinymyo_hf import (
    TINY_BIOMOE_PRESETS,
    TinyBioMoEConfig,
    TinyBioMoEForSequenceClassification,
    TinyBioMoEModel,
    count_macs,
)
from tinymyo_hf.cli import app


def embed(model, pixel_values):
    with torch.no_grad():
        return model(pixel_values).pooler_output


def logits(model, pixel_values, **inputs):
    with torch.no_grad():
        return model(pixel_values, **inputs).logits


# --- the published size -----------------------------------------------------------------------------------------------


def test_parameters_and_operations_are_the_published_ones():
    with torch.device("meta"):
        model = TinyBioMoEModel(TinyBioMoEConfig(**TINY_BIOMOE_PRESETS["tiny-biomoe"]))
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parameters == {
        "image_norm": 301_056, "spectformer": 2_897_856, "efficientvit": 4_128_478, "expert_norm": 192, "gate": 9_312,
        "output_norm": 384,
    }  # fmt: skip
    assert model.num_parameters() == 7_337_278
    macs = count_macs(model, (1, 3, 224, 224))
    assert f"{2 * macs['total'] / 1e9:.2f}" == "3.08"
    convolutions = 112**2 * 32 * (3 * 49 + 2 * 32 * 9)
    assert macs["spectformer.stem"] == convolutions
    # Each of the first two blocks: two linear layers and a depthwise convolution; spectra are not counted.
    assert macs["spectformer.blocks.0"] == 56**2 * 512 * (2 * 64 + 9)
    assert macs["gate"] == 2 * 96**2


def test_info():
    result = CliRunner().invoke(app, ["info", "tiny-biomoe"])
    assert result.exit_code == 0, result.output
    assert "parameters  7,337,278 (29.3 MB in float32)" in result.stdout
    assert "MACs        1.54 G for one input" in result.stdout
    assert "1 image of 3 x 224 x 224 (waveform of " in result.stdout
    refused = CliRunner().invoke(app, ["info", "tiny-biomoe", "--samples", "200"])
    assert refused.exit_code == 2 and "takes images" in refused.stderr


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_outputs_and_how_they_are_joined():
    model, x = build(), images(2)
    with torch.no_grad():
        output = model(x, output_hidden_states=True)
        normed = torch.nn.functional.layer_norm(x, (3, 96, 96), model.image_norm.weight, model.image_norm.bias)
        embeddings = torch.stack([model.spectformer(normed)[0], model.efficientvit(normed)])  # (expert, batch, size)
        gates = (torch.nn.functional.elu(embeddings) @ model.gate.weight.T + model.gate.bias).clamp(0, 1)
        expected = model.output_norm(torch.cat(tuple(model.expert_norm(embeddings) * gates), dim=1))
    torch.testing.assert_close(output.pooler_output, expected)
    torch.testing.assert_close(output.gates, gates.transpose(0, 1))
    torch.testing.assert_close(output.expert_embeddings, embeddings.transpose(0, 1))
    assert output.pooler_output.shape == (2, EMBEDDING) and output.last_hidden_state.shape == (2, 9, 16)
    torch.testing.assert_close(output.hidden_states[-1].flatten(1, 2), output.last_hidden_state)
    assert isinstance(model(x, return_dict=False), tuple)


def test_attention_functions_agree():
    model, x = build(), images(2)
    outputs = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs[implementation] = embed(model, x)
    torch.testing.assert_close(outputs["eager"], outputs["sdpa"], atol=1e-5, rtol=0)
    model.set_attn_implementation("eager")
    attentions = model(x, output_attentions=True).attentions
    assert [tuple(a.shape) for a in attentions] == [(2, 2, 36, 36), (2, 4, 9, 9), (2, 4, 1, 10)]
    torch.testing.assert_close(attentions[-1].sum(-1), torch.ones(2, 4, 1))


def test_an_image_is_embedded_alone():
    model, x = build(), images(3)
    together = embed(model, x)
    for i in range(3):
        torch.testing.assert_close(embed(model, x[i : i + 1]), together[i : i + 1], atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_weights_loaded_after_eval_take_effect():
    model, other, x = build(seed=0), build(seed=1), images(1)
    before = embed(model, x)  # in evaluation mode
    state = {n: 3 * torch.randn_like(t) for n, t in other.state_dict().items() if "attention.bias" in n}
    assert len(state) == 3
    model.load_state_dict(state, strict=False)
    assert (embed(model, x) - before).abs().max() > 1e-3
    model.load_state_dict(other.state_dict())
    assert torch.equal(embed(model, x), embed(other, x))


def test_several_images_of_a_window():
    x = images(2, 3)
    model = build(TinyBioMoEForSequenceClassification, num_labels=4)
    mean = embed(model.tiny_biomoe, x.flatten(0, 1)).unflatten(0, (2, 3)).mean(1)
    expected = torch.nn.functional.elu(mean) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits(model, x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(model, x[:, 0]), logits(model, x[:, :1]))

    joined = build(TinyBioMoEForSequenceClassification, num_labels=4, image_fusion="concat", num_images=3)
    embeddings = torch.cat([embed(joined.tiny_biomoe, x[:, i]) for i in range(3)], dim=1)
    expected = torch.nn.functional.elu(embeddings) @ joined.classifier.weight.T + joined.classifier.bias
    torch.testing.assert_close(logits(joined, x), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"3 images of each window .* there are 2: load .*num_images=2"):
        joined(x[:, :2])
    for wrong in (embeddings, embeddings.unflatten(1, (3, -1))[..., 1:]):
        with pytest.raises(ValueError, match=rf"image_embeddings must be \(batch, images, {EMBEDDING}\), got"):
            joined(image_embeddings=wrong)


# --- formats and number types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
def test_round_trip(model_class, tmp_path):
    model, x = build(model_class, num_labels=4), images(2)
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(again(x)[-1], model(x)[-1], atol=1e-6, rtol=0)
    assert not again.training
    assert type(AutoConfig.from_pretrained(tmp_path)) is TinyBioMoEConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is TinyBioMoEModel
    for auto_class in (AutoModelForSequenceClassification, AutoModelForImageClassification):
        assert type(auto_class.from_pretrained(tmp_path)) is TinyBioMoEForSequenceClassification


@pytest.mark.slow
def test_saved_folder_works_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyBioMoEForSequenceClassification, "_auto_class", "AutoModelForSequenceClassification")
    monkeypatch.setattr(TinyBioMoEConfig, "_auto_class", "AutoConfig")
    model, x = build(TinyBioMoEForSequenceClassification), images(2)
    model.save_pretrained(tmp_path / "saved")
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForSequenceClassification\n"
        "model = AutoModelForSequenceClassification.from_pretrained('saved', trust_remote_code=True)\n"
        "assert not [name for name in sys.modules if name.startswith('tinymyo_hf')]\n"
        "torch.save(model(torch.load('x.pt')).logits, 'y.pt')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "hf")
    result = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), logits(model, x), atol=1e-6, rtol=0)


def test_half_precision_is_close():
    model, x = build(), images(2)
    expected = embed(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(embed(model, x).float(), expected, atol=0.1, rtol=0)
    half = embed(model.to(torch.bfloat16), x.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0)


def test_spectra_are_computed_in_float32_whatever_surrounds_them():
    mixer = build().spectformer.blocks[0].mixer.bfloat16()
    x = torch.randn(2, 24, 24, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    reference = build().spectformer.blocks[0].mixer
    reference.load_state_dict({name: tensor.float() for name, tensor in mixer.state_dict().items()})
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(x), reference(x.float()).bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODELS)
def test_exported_program_takes_other_batches(model_class):
    model = build(model_class)
    batch = {0: Dim.DYNAMIC}
    program = torch.export.export(model, (), {"pixel_values": images(2)}, dynamic_shapes={"pixel_values": batch})
    x = images(3)
    torch.testing.assert_close(program.module()(pixel_values=x)[-1], model(x)[-1], atol=1e-5, rtol=0)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_bad_images():
    model = build()
    with pytest.raises(ValueError, match=r"must be \(batch, 3, 96, 96\), got \(2, 3, 224, 224\): .*resize"):
        model(torch.rand(2, 3, 224, 224))
    with pytest.raises(ValueError, match=r"must be \(batch, 3, 96, 96\), got \(2, 1, 96, 96\)"):
        model(torch.rand(2, 1, 96, 96))
    with pytest.raises(ValueError, match=r"got \(3, 96, 96\)"):
        model(torch.rand(3, 96, 96))
    with pytest.raises(ValueError, match=r"got torch.uint8: divide integers of 0 to 255 by 255"):
        model(torch.zeros(2, 3, 96, 96, dtype=torch.uint8))
    classifier = build(TinyBioMoEForSequenceClassification)
    with pytest.raises(ValueError, match=r"or \(batch, images, 3, height, width\), got \(3, 96, 96\)"):
        classifier(torch.rand(3, 96, 96))
    with pytest.raises(ValueError, match=r"must be \(batch, 3, 96, 96\), got \(4, 3, 64, 96\)"):
        classifier(torch.rand(2, 2, 3, 64, 96))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 200}, "image_size must be a multiple of 32, got 200"),
        ({"image_size": 320}, "grid of 20 x 20 tokens, which efficientvit_window_size .7. does not divide"),
        ({"num_images": 0}, "num_images must be at least 1"),
        ({"spectformer_hidden_sizes": (64, 128, 320)}, "must have 4 entries, one for each stage, got 3, 4 and 4"),
        ({"spectformer_hidden_sizes": (64, 128, 320, 64)}, "is 64, that of efficientvit_hidden_sizes 96"),
        ({"spectformer_num_heads": (None, None, 7, 16)}, "width 320 cannot have 7 attention heads"),
        ({"spectformer_num_heads": (None, None, 10, None)}, "class attention has as many"),
        ({"spectformer_mlp_ratios": (8, 8, 4, 0)}, "must be at least 1"),
        ({"efficientvit_num_heads": (3, 3)}, "one entry for each stage, got 3 and 2"),
        ({"efficientvit_num_heads": (3, 5, 4)}, "width 288 cannot have 5 heads"),
        ({"efficientvit_hidden_sizes": (12, 288, 96)}, "multiple of 8, got 12"),
        ({"efficientvit_query_kernels": (7, 5, 3)}, r"odd and as many as heads \(4\), got \[7, 5, 3\]"),
        ({"efficientvit_query_kernels": (7, 5, 4, 3)}, r"odd and"),
        ({"image_fusion": "max"}, "image_fusion"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        TinyBioMoEConfig(**fields)
