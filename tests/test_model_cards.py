"""The published cards are loadable Hub folders with honest metadata."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForPreTraining

import tinymyo_hf  # noqa: F401  (registers the family)

CARDS = sorted((Path(__file__).parents[1] / "model_cards").iterdir())


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_card_folder_loads(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.license
    assert card.data.library_name == "transformers"
    config = AutoConfig.from_pretrained(folder)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert extractor.window_length % config.patch_size == 0
    assert not list(folder.glob("*.safetensors")), "weights are published apart from the code"


def test_base_card_states_the_size_of_its_model():
    folder = Path(__file__).parents[1] / "model_cards" / "tinymyo-base"
    model = AutoModelForPreTraining.from_config(AutoConfig.from_pretrained(folder))
    text = (folder / "README.md").read_text()
    assert f"{model.num_parameters():,}" in text
    assert f"{model.tinymyo.num_parameters():,}" in text
    assert "CC BY-ND 4.0" in text
