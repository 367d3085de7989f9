"""The guide of typing says what the package does: sizes, published figures, recipes, options."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml
from typer.main import get_command

from dataset_builders.synthetic import SyntheticConfig
from tinymyo_hf import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig, SEMGTransformerForCTC
from tinymyo_hf.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "emg2qwerty.md").read_text()
COMMANDS = [line.split("#")[0].split() for line in re.findall(r"^(?:.*\| )?(tinymyo .*)$", TEXT, re.MULTILINE)]


def test_table_of_sizes_is_that_of_the_models_and_of_the_paper():
    published = yaml.safe_load((ROOT / "trainers" / "published.yaml").read_text())
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| \d+ x .*$", TEXT, re.MULTILINE)]
    assert len(rows) == 20
    for size, presets, parameters, *rates in rows:
        name = size.replace(" x ", "x")
        full, *short = presets.replace("`", "").split(", ")
        assert full == f"semg-transformer-{name}"
        for other in short:
            assert SEMG_TRANSFORMER_PRESETS[f"semg-transformer{other}"] == SEMG_TRANSFORMER_PRESETS[full]
        with torch.device("meta"):
            model = SEMGTransformerForCTC(SEMGTransformerConfig(**SEMG_TRANSFORMER_PRESETS[full]))
        assert int(parameters.replace(",", "")) == model.num_parameters()
        for table, rate in zip(("typing_sizes", "typing_distilled"), rates, strict=True):
            mean, spread = published[table]["rows"][name]["published"]["cer"]
            assert rate == f"{mean:.2f} ± {spread:.2f}"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_exist_with_their_recipes_and_options(words):
    command = get_command(app).commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    options = [word for word in words if word.startswith("--")]
    if words[1] == "train":
        assert (ROOT / "trainers" / "recipes" / f"{words[2]}.yaml").is_file()
        text = "".join(path.read_text() for path in (ROOT / "trainers").glob("*arguments.py")) + "bf16: "
        assert all(re.search(rf"\b{option[2:]}: ", text) for option in options)
    else:
        simulated = (
            {f"--{field.name}" for field in dataclasses.fields(SyntheticConfig)} if "synthetic" in words else set()
        )
        assert set(options) <= known | simulated, set(options) - known


def test_code_is_python():
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        ast.parse(block)
