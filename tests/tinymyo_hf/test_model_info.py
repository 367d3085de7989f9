"""`tinymyo info`: what it says of presets and checkpoints, and what it refuses."""

import re

import pytest
from typer.testing import CliRunner

from tinymyo_hf import TINYMYO_PRESETS, TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from tinymyo_hf.cli import app


def info(*arguments, code=0):
    result = CliRunner().invoke(app, ["info", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


@pytest.mark.parametrize("preset", TINYMYO_PRESETS)
def test_parts_of_every_preset_add_up(preset):
    text = info(preset)
    total = int(re.search(r"parameters +([\d,]+) \(", text)[1].replace(",", ""))
    parts = [line.split() for line in text.split("\n\n")[1].splitlines()[1:]]
    of_parts = sum(int(part[1].replace(",", "")) for part in parts)
    assert total - of_parts == (192 if preset == "tinymyo-base" else 0)  # the mask token belongs to no part


def test_model_of_discrete_gestures():
    text = info("tinymyo-neuromotor")
    assert text.startswith("tinymyo-neuromotor: TinyMyoForFrameClassification\n")
    assert "16 channels x 16000 samples (8 s at 2000 Hz)\n" in text
    assert "labels      9: index_press, index_release" in text
    assert "parameters  3,626,121 (14.5 MB in float32)" in text
    assert "MACs        13.61 G for one input" in text
    assert re.search(r"^tinymyo.stem +65,088 +103.1 M$", text, re.MULTILINE)


def test_sizes_for_typing():
    text = info("semg-transformer-tiny")
    assert text.startswith("semg-transformer-tiny: SEMGTransformerForCTC\n")
    assert "32 channels x 10000 samples (5 s at 2000 Hz), raw\n" in text
    assert "labels      98 characters, and the blank of CTC\n" in text
    assert "parameters  2,217,699 (8.9 MB in float32)" in text
    convolutions = 1998 * 128 * 32 * 11 + 998 * 64 * 128 * 3 + 498 * 64 * 64 * 3
    positions = 498 * 128 * 128 // 16 * 128
    of_layers = 10 * (498 * 12 * 128**2 + 2 * 498**2 * 128)
    total = convolutions + 498 * 64 * 128 + positions + of_layers + 498 * 99 * 128
    assert f"MACs        {total / 1e9:.4g} G for one input" in text
    assert re.search(r"^semg_transformer.feature_extractor +82,176 ", text, re.MULTILINE)
    assert "x 800 samples (0.4 s" in info("semg-transformer-128x2", "--samples", 800)
    assert "fewer than one frame sees" in info("semg-transformer-128x2", "--samples", 8, code=2)


def test_checkpoint_with_and_without_its_preprocessing(tiny_config, tmp_path):
    TinyMyoForSequenceClassification(tiny_config).save_pretrained(tmp_path)
    text = info(tmp_path)
    assert "input       4 channels\n" in text
    assert "labels      3: rest, fist, open" in text
    assert "give --samples" in text
    TinyMyoFeatureExtractor(window_length=100, patch_size=10).save_pretrained(tmp_path)
    text = info(tmp_path)
    assert "4 channels x 100 samples (0.5 s at 200 Hz), 20-90 Hz, zscore per recording" in text
    # 40 tokens of width 24, feed-forward 48, 2 layers: products of the weights, then those of attention.
    of_layers = 2 * (40 * (4 * 24 * 24 + 2 * 24 * 48) + 2 * 40 * 40 * 24)
    assert f"MACs        {(of_layers + 40 * 10 * 24 + 4 * 24 * 3) / 1e3:.4g} k" in text
    assert "x 200 samples (1 s at" in info(tmp_path, "--samples", 200)


def test_refusals(tiny_config, tmp_path):
    assert "presets tinymyo-base, " in info("tinymyo-bse", code=2)
    assert "no usable configuration" in info(tmp_path, code=2)
    tiny_config.architectures = ["BertModel"]
    tiny_config.save_pretrained(tmp_path)
    assert "holds BertModel (tinymyo), which is no model of tinymyo_hf" in info(tmp_path, code=2)
    assert "is not a multiple of patch_size" in info("tinymyo-base", "--samples", 990, code=2)
