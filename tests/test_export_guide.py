"""The guides of exports say what the package does: commands, options, recipes, code."""

import ast
import dataclasses
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from typer.main import get_command

from dataset_builders.base import make_builder
from tinymyo_hf import cli_export
from tinymyo_hf.cli import app
from tinymyo_hf.tasks import TASK_OF_HEAD
from trainers.parsing import parse_recipe

ROOT = Path(__file__).parents[1]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("export*.md")}
COMMANDS = [
    shlex.split(line, comments=True) for text in TEXTS.values() for line in re.findall(r"^(tinymyo .*)$", text, re.M)
]


def command_of(words):
    command = get_command(app).commands[words[1]]
    return command.commands[words[2]] if hasattr(command, "commands") else command


def options_of(command):
    options = (option for entry in command.params for option in (*entry.opts, *entry.secondary_opts))
    return {option for option in options if option.startswith("--")}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_exist_with_their_recipes_and_options(words):
    given = {word for word in words if word.startswith("--")}
    if words[1] == "train":
        parse_recipe(words[2], words[3:])
    else:
        of_corpus = dataclasses.fields(make_builder(words[2], str(ROOT)).config) if words[1] == "prepare" else ()
        assert given <= options_of(command_of(words)) | {f"--{field.name}" for field in of_corpus}


@pytest.mark.parametrize(
    ("name", "targets", "most_wanted"),
    [
        ("export.md", ("onnx", "executorch"), {"--agreement", "--int8-method", "--sweep"}),
        ("export-executorch.md", ("executorch",), {"--agreement", "--longest"}),
        ("export-gap9.md", ("gap9",), {"--agreement", "--calibration", "--rv32", "--channels", "--window"}),
    ],
)
def test_options_named_in_the_text_exist(name, targets, most_wanted):
    known = set().union(*(options_of(command_of(["tinymyo", "export", target])) for target in targets))
    named = set(re.findall(r"`(--[a-z0-9-]+)", TEXTS[name]))
    assert most_wanted <= named <= known, named - known


def test_values_named_in_the_text_are_those_there_are():
    for option, values in (("--int8-method", cli_export.Method), ("--calibrate-method", cli_export.Ranges)):
        rows = "\n".join(line for line in TEXTS["export.md"].splitlines() if line.startswith(f"| `{option}"))
        assert all(value in rows for value in values), option


@pytest.mark.parametrize("name", TEXTS)
def test_code_is_python(name):
    for block in re.findall(r"```python\n(.*?)```", TEXTS[name], re.S):
        ast.parse(textwrap.dedent(block))


def test_pipelines_named_in_the_text_are_all_there_are():
    assert set(re.findall(r"\bemg-[a-z-]+", TEXTS["export.md"])) == set(TASK_OF_HEAD.values())


def test_c_in_the_text_is_that_of_the_exports():
    """But for what is generated, which differs between networks."""
    runtime = [path.read_text(encoding="utf-8") for path in (ROOT / "export" / "gap9" / "runtime").glob("*.c")]
    generated, *others = re.findall(r"```c\n(.*?)```", TEXTS["export-gap9.md"], re.S)
    assert "static const linear_step_t layers_0_mlp_fc1 = {" in generated
    assert others and all(any(block in text for text in runtime) for block in others)
    fields = set(re.findall(r"^ +\.(\w+) =", generated, re.M))
    structure = (ROOT / "export" / "gap9" / "runtime" / "steps.h").read_text(encoding="utf-8")
    assert {"input", "rows", "l1"} <= fields and all(re.search(rf"\b{name}\b", structure) for name in fields)
