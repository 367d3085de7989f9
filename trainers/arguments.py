"""What a recipe can say: dataclass fields, read from a YAML file and overridden on the command line.

    dataset: uci_emg
    dataset_config: {window_length: 200, stride: 100}
    learning_rate: 5.0e-4

`--learning_rate 1e-4` replaces a field; `--dataset_config.stride 50` replaces one entry of a mapping.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from trainers.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


def _mapping(name: str, value: dict | str | None) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise RecipeError(f"{name} must be a mapping in YAML or JSON, got {value!r} ({error})") from None
    if value is not None and not isinstance(value, dict):
        raise RecipeError(f"{name} must be a mapping, got {value!r}")
    return dict(value or {})


@dataclass
class ModelArguments:
    """Which model is trained, and how much of it."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Pretrained checkpoint (folder or Hub id); none trains from scratch."}
    )
    preset: str = field(default="tinymyo-base", metadata={"help": "Named configuration, when training from scratch."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of TinyMyoConfig that replace the preset's or the checkpoint's."}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head only."})
    lora: bool = field(default=False, metadata={"help": "Train low-rank adapters and the head; needs `peft`."})
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapters (alpha / r)."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["qkv", "proj", "fc1", "fc2"], metadata={"help": "Layers that get an adapter."}
    )

    def __post_init__(self) -> None:
        self.model_config = _mapping("model_config", self.model_config)
        if self.lora and self.freeze_encoder:
            raise RecipeError("lora and freeze_encoder exclude each other: LoRA already freezes the encoder's weights")


@dataclass
class DataArguments:
    """Which windows it is trained on."""

    dataset: str | None = field(
        default=None, metadata={"help": "A builder (uci_emg, synthetic, emg_folder) or a prepared folder."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder or archive with the raw files."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where prepared windows are kept."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that prepare the windows."})
    dataset_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the builder's configuration: window_length, stride, ..."}
    )

    def __post_init__(self) -> None:
        self.dataset_config = _mapping("dataset_config", self.dataset_config)
        if self.dataset is None:
            raise RecipeError(
                "the recipe names no dataset: add `dataset: uci_emg` (or another builder or a prepared folder), "
                "or pass --dataset"
            )


@dataclass
class FinetuneArguments(TrainingArguments):
    """How it is trained: `TrainingArguments` with the paper's defaults, and what the library does not have."""

    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "One training run per seed."})
    layer_decay: float = field(
        default=0.9, metadata={"help": "Learning-rate factor from one layer to the one below it; 1 for none."}
    )
    early_stopping_patience: int = field(
        default=7, metadata={"help": "Evaluations without improvement before training stops; 0 never stops."}
    )
    class_weights: Literal["none", "balanced"] = field(
        default="none", metadata={"help": "balanced weighs classes by their inverse frequency in the training split."}
    )
    augmentations: dict | str | None = field(
        default=None, metadata={"help": "Train-time transforms by name, in order (see trainers/augmentation.py)."}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "Evaluate and save a moving average of the weights with this decay."}
    )
    baselines: bool = field(default=True, metadata={"help": "Also report LDA and a random forest on the same split."})
    overwrite: bool = field(default=False, metadata={"help": "Replace another run in output_dir."})

    # The library's fields, with the defaults of the paper's fine-tuning recipe.
    per_device_train_batch_size: int = field(default=32)
    per_device_eval_batch_size: int = field(default=128)
    num_train_epochs: float = field(default=50)
    learning_rate: float = field(default=5e-4)
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps, or their share of all steps if < 1."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=lambda: {"min_lr": 1e-5})
    weight_decay: float = field(default=0.01)
    adam_beta2: float = field(default=0.98)
    label_smoothing_factor: float = field(default=0.1)
    eval_strategy: str = field(default="epoch")
    save_strategy: str = field(default="epoch")
    logging_strategy: str = field(default="epoch")
    save_total_limit: int | None = field(default=1)
    load_best_model_at_end: bool = field(default=True)
    metric_for_best_model: str | None = field(default="accuracy")
    report_to: None | str | list[str] = field(default="tensorboard")
    restore_callback_states_from_checkpoint: bool = field(default=True)
    remove_unused_columns: bool = field(default=False)

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise RecipeError("the recipe names no output_dir: add `output_dir: runs/NAME` or pass --output_dir")
        self.augmentations = _mapping("augmentations", self.augmentations)
        self.lr_scheduler_kwargs = _mapping("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        if not self.seeds:
            raise RecipeError("seeds is empty: name at least one, for instance `seeds: [0]`")
        if not torch.cuda.is_available():
            self.dataloader_pin_memory = False
            if self.bf16:
                self.use_cpu = True  # the library allows bf16 without a GPU only when the CPU was asked for
        super().__post_init__()


RecipeArguments = tuple[ModelArguments, DataArguments, FinetuneArguments]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> None:
        raise RecipeError(message)


def find_recipe(name: str | Path) -> Path:
    """The YAML file of a recipe: a path, or the name of one in `trainers/recipes`.

    Raises:
        RecipeError: there is no such file.
    """
    for candidate in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise RecipeError(f"there is no recipe {name}: give a YAML file, or one of {known}")


def read_recipe(name: str | Path) -> dict[str, Any]:
    """The fields of a recipe as written; `RecipeError` for YAML that cannot be read or is not a mapping."""
    path = find_recipe(name)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(recipe, dict):
        raise RecipeError(f"{path} must hold `field: value` lines, got {type(recipe).__name__}")
    return recipe


def parse_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RecipeArguments:
    """Recipe file (or its fields) and command-line overrides -> the three argument groups.

    Args:
        recipe: a path, the name of a recipe in `trainers/recipes`, or the fields themselves.
        overrides: `["--learning_rate", "1e-4", "--dataset_config.stride=50", ...]`.

    Raises:
        RecipeError: an unknown field, a value of the wrong type, or fields that contradict each other.
    """
    source = "the recipe" if isinstance(recipe, Mapping) else str(find_recipe(recipe))
    values = dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    arguments, overridden = _apply_overrides(values, overrides)

    groups = (ModelArguments, DataArguments, FinetuneArguments)
    known = [entry.name for group in groups for entry in fields(group) if entry.init]
    for name in [*arguments, *(token[2:] for token in overridden if token.startswith("--"))]:
        name = name.split("=")[0]
        if name.replace("-", "_") not in known and name.removeprefix("no_") not in known:
            close = difflib.get_close_matches(name, known, n=1)
            elsewhere = "a builder's fields go under dataset_config, a model's under model_config"
            hint = f"did you mean {close[0]}?" if close else elsewhere
            raise RecipeError(f"{source}: unknown field {name!r}; {hint}")

    parser = _Parser(groups, allow_abbrev=False)
    parser.set_defaults(**{name: value for name, value in arguments.items() if value is None or value == []})
    tokens = [token for name, value in arguments.items() for token in _as_tokens(name, value)]
    try:
        return parser.parse_args_into_dataclasses([*tokens, *overridden], look_for_args_file=False)
    except ValueError as error:
        raise RecipeError(f"{source}: {error}") from None


def _as_tokens(name: str, value: Any) -> list[str]:
    """A YAML value as the command line would give it, so that both are checked by the same parser."""
    if value is None or value == []:
        return []
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"]


def _apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Merge `--mapping.key value` into the recipe's mappings; return them and the overrides that are left."""
    values = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    left: list[str] = []
    tokens = list(overrides)
    while tokens:
        token = tokens.pop(0)
        name, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or "." not in name:
            left.append(token)
            continue
        if not equals:
            if not tokens:
                raise RecipeError(f"{token} needs a value")
            text = tokens.pop(0)
        *path, last = name.split(".")
        target = values
        for step in path:
            if not isinstance(target.get(step), dict):
                target[step] = {}
            target = target[step]
        target[last] = _scalar(text)
    return values, left


def parse_fields(tokens: Sequence[str]) -> dict[str, Any]:
    """`["--window_length", "1000", "--protocol=reference"]` -> field -> value, with the types of YAML.

    Raises:
        RecipeError: something else than `--field value` pairs.
    """
    fields: dict[str, Any] = {}
    tokens = list(tokens)
    while tokens:
        token = tokens.pop(0)
        name, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or not name:
            raise RecipeError(f"cannot use {token!r}: write `--field value`")
        if not equals:
            if not tokens or tokens[0].startswith("--"):
                raise RecipeError(f"{token} needs a value; a switch takes true or false: {token} true")
            text = tokens.pop(0)
        fields[name.replace("-", "_")] = _scalar(text)
    return fields


def _scalar(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML reads 1e-4, without a dot, as text
    except ValueError:
        return value
