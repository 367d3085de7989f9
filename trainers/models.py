"""The model a run starts from: a fresh one, a pretrained encoder under a new head, frozen or with LoRA adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor

from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from tinymyo_hf.quiet import quiet
from trainers.arguments import ModelArguments
from trainers.errors import CheckpointError, RecipeError

HEAD = "classifier"


def build_classifier(arguments: ModelArguments, labels: Sequence[str], num_channels: int) -> nn.Module:
    """A classifier for windows of `num_channels` channels; its labels, in the order of their ids, are `labels`.

    From scratch (no `model_name_or_path`) it is the preset; else the encoder of that checkpoint under a new head.

    Raises:
        RecipeError: an unknown preset or configuration field, or fields that contradict each other.
        CheckpointError: the checkpoint is missing, unreadable, or its encoder has another shape.
    """
    head = {
        "num_channels": num_channels,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if arguments.model_name_or_path is None:
        model = TinyMyoForSequenceClassification(_preset_config(arguments, head))
    else:
        model = _load_encoder(arguments.model_name_or_path, arguments.model_config, head)
    if arguments.freeze_encoder:
        model.base_model.requires_grad_(False)
    return _add_adapters(model, arguments) if arguments.lora else model


def _preset_config(arguments: ModelArguments, head: dict[str, Any]) -> TinyMyoConfig:
    if arguments.preset not in TINYMYO_PRESETS:
        raise RecipeError(f"unknown preset {arguments.preset!r}; choose from {', '.join(TINYMYO_PRESETS)}")
    # The task decides the head: what a preset says about labels would contradict it.
    preset = {name: value for name, value in TINYMYO_PRESETS[arguments.preset].items() if name != "num_labels"}
    _check_model_config(arguments.model_config)
    try:
        return TinyMyoConfig(**{**preset, **arguments.model_config, **head})
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise RecipeError(f"model_config: {_last_line(error)}") from None


def _check_model_config(model_config: dict[str, Any]) -> None:
    known = TinyMyoConfig.__dataclass_fields__
    unknown = sorted(set(model_config) - set(known))
    if unknown:
        raise RecipeError(f"model_config: TinyMyoConfig has no field {unknown[0]!r}; correct its name or remove it")


def _load_encoder(source: str, model_config: dict[str, Any], head: dict[str, Any]) -> TinyMyoForSequenceClassification:
    _check_model_config(model_config)
    config = _load_config(source)
    for name, value in {**model_config, **head}.items():
        setattr(config, name, value)
    try:
        config.validate()
    except (StrictDataclassError, ValueError) as error:
        raise RecipeError(f"model_config: {_last_line(error)}") from None
    model = _load_weights(source, config, only=f"{TinyMyoForSequenceClassification.base_model_prefix}.")
    # A new head, even where the checkpoint has one that would fit.
    model.classifier = nn.Linear(model.classifier.in_features, model.classifier.out_features)
    model._init_weights(model.classifier)
    return model


def _load_weights(source: str, config: TinyMyoConfig, only: str = "") -> TinyMyoForSequenceClassification:
    """A classifier with the weights of a checkpoint; those whose names start with `only` must match to the last one."""
    try:
        with quiet():
            model, found = TinyMyoForSequenceClassification.from_pretrained(
                source, config=config, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except OSError as error:
        raise CheckpointError(
            f"{source}: {_last_line(error)} Weights are read from safetensors only; `tinymyo convert SOURCE OUT` turns "
            "a published checkpoint into such a folder"
        ) from None
    except SafetensorError as error:
        raise CheckpointError(
            f"{source}: its weights are not a whole safetensors file ({error}); copy the folder again"
        ) from None
    for names, problem in (
        (found["missing_keys"], "lacks"),
        (found["unexpected_keys"], "has, beyond the configured model,"),
        ([entry[0] for entry in found["mismatched_keys"]], "has another shape for"),
    ):
        wrong = sorted(name for name in names if name.startswith(only))
        if wrong:
            raise CheckpointError(
                f"{source} {problem} {len(wrong)} weights ({wrong[0]}, ...): its config.json and weights do not belong "
                "together, or model_config changes the shape of the encoder; remove those fields"
            )
    return model


def _load_config(source: str) -> TinyMyoConfig:
    if Path(source).is_absolute() and not Path(source).exists():
        raise CheckpointError(f"{source}: no such checkpoint; check the path")
    if Path(source).exists() and not (Path(source) / "config.json").is_file():
        raise CheckpointError(
            f"{source} is not a checkpoint folder (no config.json). A published .safetensors or .ckpt file is turned "
            "into one by `tinymyo convert SOURCE OUT`"
        )
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, StrictDataclassError) as error:
        reason = _last_line(error)
        raise CheckpointError(f"{source}: no usable configuration ({reason}); check the folder or Hub id") from None
    if not isinstance(config, TinyMyoConfig):
        raise CheckpointError(f"{source} is a {config.model_type} checkpoint; a tinymyo checkpoint is needed")
    return config


def load_classifier(source: str) -> tuple[TinyMyoForSequenceClassification, TinyMyoFeatureExtractor]:
    """A trained classifier and its preprocessing, from a folder or Hub id.

    Raises:
        CheckpointError: missing, unreadable, of another shape, or without a trained head.
    """
    config = _load_config(source)
    if TinyMyoForSequenceClassification.__name__ not in (config.architectures or []):
        raise CheckpointError(
            f"{source} holds {', '.join(config.architectures or ['no architecture'])}, not a classifier: "
            "fine-tune it first with `tinymyo train RECIPE --model_name_or_path ...`"
        )
    try:
        extractor = AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: no usable preprocessor_config.json ({_last_line(error)})") from None
    return _load_weights(source, config).eval(), extractor


def _last_line(error: Exception) -> str:
    """Strict configurations wrap the message that helps in two lines of framework."""
    return str(error).strip().splitlines()[-1].strip().removeprefix("ValueError: ").removeprefix("TypeError: ")


def _add_adapters(model: TinyMyoForSequenceClassification, arguments: ModelArguments) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules,
        modules_to_save=[HEAD],
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"lora_target_modules: {str(error).splitlines()[0]}") from None


def merged(model: nn.Module) -> TinyMyoForSequenceClassification:
    """The plain classifier: adapters, if any, are folded into the weights they adapt."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """`{"total", "trainable"}` numbers of parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"total": sum(n for n, _ in sizes), "trainable": sum(n for n, trains in sizes if trains)}
