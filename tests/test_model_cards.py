"""The published cards are loadable Hub folders with honest metadata."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC, AutoModelForPreTraining, AutoTokenizer

from dataset_builders.gaddy_audio import PHONES
from tinymyo_hf import SEMG_TRANSFORMER_PRESETS, TINYMYO_PRESETS, SEMGTransformerConfig, TinyMyoConfig
from tinymyo_hf.model_info import model_info
from tinymyo_hf.speech_text import SPEECH_CHARACTERS
from tinymyo_hf.tokenization import check_charset

CARDS = sorted((Path(__file__).parents[1] / "model_cards").iterdir())
SPEECH_CARDS = [folder for folder in CARDS if folder.name.startswith("tinymyo-gaddy-")]
TYPING_CARDS = [folder for folder in CARDS if folder.name.startswith("semg-transformer-")]


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_card_folder_loads(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.license
    assert card.data.library_name == "transformers"
    config = AutoConfig.from_pretrained(folder)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    if config.model_type == "tinymyo":
        assert extractor.window_length % config.frame_stride == 0
    elif config.model_type == "tiny_biomoe":
        assert extractor.image_size == config.image_size
    else:
        assert extractor.num_channels == config.num_channels
    if any(name.endswith("ForCTC") for name in config.architectures):
        check_charset(AutoTokenizer.from_pretrained(folder), config)
    assert not list(folder.glob("*.safetensors")), "weights are published apart from the code"


def test_base_card_states_the_size_of_its_model():
    folder = Path(__file__).parents[1] / "model_cards" / "tinymyo-base"
    model = AutoModelForPreTraining.from_config(AutoConfig.from_pretrained(folder))
    text = (folder / "README.md").read_text()
    assert f"{model.num_parameters():,}" in text
    assert f"{model.tinymyo.num_parameters():,}" in text
    assert "CC BY-ND 4.0" in text


@pytest.mark.parametrize("folder", TYPING_CARDS, ids=lambda folder: folder.name)
def test_typing_cards_are_of_the_named_sizes_and_say_that_there_are_no_weights(folder):
    text = (folder / "README.md").read_text()
    preset = SEMGTransformerConfig(**SEMG_TRANSFORMER_PRESETS[folder.name])
    assert AutoConfig.from_pretrained(folder).to_diff_dict() == preset.to_diff_dict()
    info = model_info(folder.name)
    assert f"{info.model.num_parameters():,} parameters" in text
    assert f"{info.macs()['total'] / 1e9:.3g} G multiply-accumulate" in text
    assert "no weights" in text and "not measured by this project" in text


@pytest.mark.parametrize("folder", SPEECH_CARDS, ids=lambda folder: folder.name)
def test_speech_cards_are_of_the_presets_and_say_that_there_are_no_weights(folder):
    text = " ".join((folder / "README.md").read_text().split())
    config, preset = AutoConfig.from_pretrained(folder), TinyMyoConfig(**TINYMYO_PRESETS[folder.name])
    names = {"id2label", "label2id"}
    assert {k: v for k, v in config.to_diff_dict().items() if k not in names} == preset.to_diff_dict()
    info = model_info(folder.name)
    assert AutoFeatureExtractor.from_pretrained(folder).to_dict() == info.extractor.to_dict()
    assert f"{info.model.num_parameters():,} parameters" in text
    assert f"{info.macs()['total'] / 1e9:.3g} G multiply-accumulate" in text
    assert "no weights" in text and "not measured by this project" in text


def test_card_of_tiny_biomoe_is_of_the_preset_and_says_that_there_are_no_weights(monkeypatch):
    folder = Path(__file__).parents[1] / "model_cards" / "tiny-biomoe"
    monkeypatch.chdir(folder.parent)
    card = ModelCard.load(folder / "README.md")
    info = model_info(folder.name)
    assert AutoConfig.from_pretrained(folder).to_diff_dict() == info.model.config.to_diff_dict()
    assert AutoFeatureExtractor.from_pretrained(folder).to_dict() == info.extractor.to_dict()
    assert f"{info.model.num_parameters():,} parameters" in card.text
    assert f"{info.macs()['total'] / 1e9:.3g} G multiply-accumulate" in card.text
    assert card.data.license == "mit" and "no weights" in card.text and "arXiv 2507.21875" in card.text
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1], names)
    assert names["embeddings"].shape[1:] == (2, 192)


def test_speech_cards_name_what_their_outputs_are():
    recognition, synthesis = SPEECH_CARDS
    assert AutoTokenizer.from_pretrained(recognition).characters == SPEECH_CHARACTERS
    assert tuple(AutoConfig.from_pretrained(synthesis).id2label.values()) == PHONES


@pytest.mark.parametrize("folder", SPEECH_CARDS, ids=lambda folder: folder.name)
def test_code_of_speech_cards_runs(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1], names)
    if "logits" in names:
        assert names["logits"].shape == torch.Size([1, 259, 38]) and isinstance(names["text"], str)
    else:
        assert names["spectrogram"].shape == torch.Size([259, 80]) and names["audio"].shape == (259 * 256,)


def test_code_of_a_typing_card_runs(monkeypatch):
    folder = next(folder for folder in TYPING_CARDS if folder.name == "semg-transformer-tiny")
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1], names)
    assert isinstance(names["model"], AutoModelForCTC._model_mapping[SEMGTransformerConfig])
    assert names["logits"].shape == torch.Size([1, 498, 99]) and isinstance(names["text"], str)
