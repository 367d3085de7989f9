"""The guide of silent speech says what the package does: commands, options, recipes, code."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from typer.main import get_command

import tinymyo_hf
from dataset_builders.gaddy import GaddyConfig
from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig
from tinymyo_hf.cli import app
from trainers.finetune import TASKS
from trainers.parsing import parse_recipe
from trainers.speech_arguments import RecognitionArguments, SynthesisArguments

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "silent-speech.md").read_text()
COMMANDS = [line.split("#")[0].split() for line in re.findall(r"^(tinymyo .*)$", TEXT, re.MULTILINE)]
ARGUMENTS = {"recognition": RecognitionArguments, "synthesis": SynthesisArguments}


def names_of(dataclass):
    return {field.name for field in dataclasses.fields(dataclass)}


def task_of(words):
    return next(task for task in ARGUMENTS if task in words[2])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_exist_with_their_recipes_and_options(words):
    command = get_command(app).commands[words[1]]
    known = {option.lstrip("-") for parameter in command.params for option in parameter.opts}
    options = {word.lstrip("-") for word in words if word.startswith("--")} - known
    if words[1] == "train":
        _, data, training = parse_recipe(words[2], words[3:])
        assert type(training) is ARGUMENTS[task_of(words)] and data.dataset == "gaddy"
    elif words[1] == "evaluate":
        assert options <= names_of(GaddyConfig) | set(TASKS[f"speech_{task_of(words)}"].scoring)
    else:
        assert not options


def test_options_named_in_the_text_exist():
    named = set(re.findall(r"`--([a-z_.]+)", TEXT)) | set(re.findall(r"--(model_config[a-z_.]+)", TEXT))
    fields = names_of(RecognitionArguments) | names_of(SynthesisArguments) | {"normalizers", "output", "resample"}
    fields |= {f"dataset_config.{name}" for name in names_of(GaddyConfig)}
    fields |= {f"model_config.{name}" for name in names_of(TinyMyoConfig)}
    assert "target_features" in named and named <= fields, named - fields


def test_parameters_and_code():
    for preset in (name for name in TINYMYO_PRESETS if name.startswith("tinymyo-gaddy-")):
        config = TinyMyoConfig(**TINYMYO_PRESETS[preset])
        model = getattr(tinymyo_hf, config.architectures[0])(config)
        assert f"{model.num_parameters():,}" in TEXT
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(node.module, fromlist=["*"])
                assert all(hasattr(module, alias.name) for alias in node.names)
    assert inspect.signature(tinymyo_hf.in_context).parameters
