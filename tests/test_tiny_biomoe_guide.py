"""The guide of Tiny-BioMoE says what the package does: commands, fields, recipes, code."""

import ast
import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from dataset_builders.uci_emg import UciEmgConfig
from tinymyo_hf import BiosignalImageProcessor, TinyBioMoEConfig, TinyBioMoEForSequenceClassification
from tinymyo_hf.cli import app
from tinymyo_hf.registration import PIPELINES
from trainers.arguments import ImageClassificationArguments
from trainers.image_models import DRAWING_FIELDS
from trainers.parsing import parse_recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "tiny-biomoe.md").read_text(encoding="utf-8")
JOINED = TEXT.replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^(tinymyo .*)$", JOINED, re.MULTILINE)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_exist_with_their_recipes_and_options(words):
    if words[1] == "train":
        model, data, arguments = parse_recipe(words[2], words[3:])
        assert isinstance(arguments, ImageClassificationArguments) and data.dataset == "uci_emg"
        assert model.freeze_encoder == words[2].endswith("_frozen")
        assert set(arguments.images) <= set(DRAWING_FIELDS)
    else:
        command = get_command(app).commands[words[1]]
        command = command.commands[words[2]] if words[1] == "export" else command
        known = {option for entry in command.params for option in entry.opts}
        known |= {f"--{field.name}" for field in dataclasses.fields(UciEmgConfig)} if words[1] == "evaluate" else set()
        assert {word for word in words if word.startswith("--")} <= known


def test_fields_of_the_drawing_are_those_of_the_text():
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", TEXT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert {"representations", "channels_as"} <= named <= set(DRAWING_FIELDS)


def test_figures_of_the_model():
    assert f"{TinyBioMoEForSequenceClassification(TinyBioMoEConfig()).tiny_biomoe.num_parameters():,}" in TEXT
    assert BiosignalImageProcessor(representations=["spectrogram_amplitude"]).least_samples == 40
    assert "(40 samples for the default spectrogram)" in TEXT


def test_pipelines_links_and_code_are_there():
    assert "emg-embedding" in TEXT and set(re.findall(r"emg-[a-z-]+", TEXT)) <= PIPELINES.keys()
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        ast.parse(block)
