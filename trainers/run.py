"""Train as a recipe says, whatever its task: what `tinymyo train` does.

    torchrun --nproc_per_node 2 -m trainers.run RECIPE --field value ...

runs it in several processes.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.parsing import parse_recipe

# Modules that are no fine-tuning of one corpus, by task; each has a function `run` like that of `trainers.finetune`.
MODULES = {
    "pretraining": "trainers.pretrain",
    "personalization": "trainers.personalize",
    "ctc_personalization": "trainers.personalize_ctc",
    "distillation": "trainers.distill",
}


def run_recipe(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), command: str | None = None
) -> dict[str, Any]:
    """Read a recipe and run it.

    Args:
        recipe, overrides: as for `parse_recipe`.
        command: the command line that reproduces the run, for the model card.

    Returns:
        The content of `results.json`, of which `summary` is a text for people; empty in all processes but the main one.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described.
    """
    model, data, arguments = parse_recipe(recipe, overrides)
    module = importlib.import_module(MODULES.get(arguments.TASK, "trainers.finetune"))
    return module.run(model, data, arguments, command=command)


def main() -> None:
    """The command line of this module: a recipe and its overrides."""
    recipe, *overrides = sys.argv[1:]
    results = run_recipe(recipe, overrides, command=shlex.join(["tinymyo", "train", recipe, *overrides]))
    if results:
        print(f"\n{results['summary']}")


if __name__ == "__main__":
    main()
