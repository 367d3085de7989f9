"""The model a run starts from: a fresh one, a pretrained encoder under a new head, frozen or with LoRA adapters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig, PreTrainedModel, SequenceFeatureExtractor

from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForPreTraining
from tinymyo_hf.quiet import quiet
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoPreTrainedModel
from trainers.arguments import ModelArguments, check_model_config
from trainers.errors import CheckpointError, RecipeError

# Fields that decide the shape of the encoder's weights.
ENCODER_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")


def build_model(
    model_class: type[TinyMyoPreTrainedModel],
    arguments: ModelArguments,
    head: Mapping[str, Any],
    new_encoder_parts: Sequence[str] = (),
) -> nn.Module:
    """A model with a new head. From scratch (no `model_name_or_path`) it is the preset; else it has the encoder of that
    checkpoint, whatever head that has. Pretraining goes on with the whole of a pretraining checkpoint.

    Args:
        model_class: e.g. `TinyMyoForSequenceClassification`.
        head: fields of `TinyMyoConfig` that the task decides: num_channels, id2label, target_length, ...
        new_encoder_parts: parts of the encoder that a checkpoint may lack, e.g. "stem".

    Raises:
        RecipeError: an unknown preset or configuration field, or fields that contradict each other.
        CheckpointError: the checkpoint is missing, unreadable, or its encoder has another shape.
    """
    check_decided(arguments.model_config, head)
    if arguments.model_name_or_path is None:
        return choose_trainable(model_class(_preset_config(arguments, head)), arguments)
    model, fresh = _with_encoder_of(arguments.model_name_or_path, model_class, arguments, head, new_encoder_parts)
    return choose_trainable(model, arguments, fresh)


def choose_trainable(model: PreTrainedModel, arguments: ModelArguments, fresh: Sequence[str] = ()) -> nn.Module:
    """The model with its encoder frozen, or with adapters, as the arguments say; `fresh` parts of the encoder, which
    have learned nothing yet, are trained whole."""
    if arguments.freeze_encoder:
        model.base_model.requires_grad_(False)
        for part in fresh:
            model.base_model.get_submodule(part).requires_grad_(True)
    return _add_adapters(model, arguments, fresh) if arguments.lora else model


def check_patches(config: TinyMyoConfig, extractor: TinyMyoFeatureExtractor) -> None:
    """Raise `RecipeError` unless windows are whole patches; the extractor takes over the model's patch size."""
    if extractor.window_length % config.patch_size:
        raise RecipeError(
            f"windows of {extractor.window_length} samples are no multiple of the model's patch_size "
            f"{config.patch_size}: change dataset_config.window_length or model_config.patch_size"
        )
    extractor.patch_size = config.patch_size


def _preset_config(arguments: ModelArguments, head: Mapping[str, Any]) -> TinyMyoConfig:
    if arguments.preset not in TINYMYO_PRESETS:
        raise RecipeError(f"unknown preset {arguments.preset!r}; choose from {', '.join(TINYMYO_PRESETS)}")
    # The task decides the head: what a preset says about labels would contradict it.
    preset = {name: value for name, value in TINYMYO_PRESETS[arguments.preset].items() if name != "num_labels"}
    try:
        config = TinyMyoConfig(**{**preset, **arguments.model_config, **head})
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise RecipeError(f"model_config: {last_line(error)}") from None
    _check_stem(f"preset {arguments.preset}", config, head)
    return config


def check_decided(model_config: Mapping[str, Any], head: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for fields that the recipe sets to something else than the data and the task say."""
    for name, value in model_config.items():
        if name in head and value != head[name]:
            raise RecipeError(f"model_config: {name} is {head[name]} by the data and the task, not {value}; remove it")


def _check_stem(source: str, config: TinyMyoConfig, head: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for an encoder of frames under a head that works on patches."""
    if config.stem != "patches" and "stem" not in head:
        raise RecipeError(
            f"{source} has an encoder with stem={config.stem}, which is for `task: events`; this task works on "
            "patches: choose another preset or checkpoint"
        )


def _with_encoder_of(
    source: str,
    model_class: type[TinyMyoPreTrainedModel],
    arguments: ModelArguments,
    head: Mapping[str, Any],
    new_encoder_parts: Sequence[str],
) -> tuple[TinyMyoPreTrainedModel, list[str]]:
    """The model, and those of `new_encoder_parts` that are not from the checkpoint."""
    config = load_config(source, TinyMyoConfig)
    check_model_config(arguments.model_config, TinyMyoConfig)
    differing = [
        f"{name} ({getattr(config, name)} there, {value} in model_config)"
        for name, value in arguments.model_config.items()
        if name in ENCODER_FIELDS and value != getattr(config, name)
    ]
    if differing:
        raise CheckpointError(
            f"{source} has an encoder of another shape: {', '.join(differing)}; remove these fields, or train from "
            "scratch"
        )
    for name, value in {**arguments.model_config, **head}.items():
        setattr(config, name, value)
    try:
        config.validate()
    except (StrictDataclassError, ValueError) as error:
        raise RecipeError(f"model_config: {last_line(error)}") from None
    _check_stem(source, config, head)
    prefix = model_class.base_model_prefix
    parts = {f"{prefix}.{part}.": part for part in new_encoder_parts}
    loaded, new = load_weights(source, model_class, config, only=f"{prefix}.", may_lack=tuple(parts))
    if model_class is TinyMyoForPreTraining:  # goes on from what was learned, mask token and decoder included
        return loaded.train(), []
    # A new head, even where the checkpoint has one that would fit.
    model = model_class(config)
    model.base_model.load_state_dict(loaded.base_model.state_dict())
    return model, [part for start, part in parts.items() if any(name.startswith(start) for name in new)]


def load_weights(
    source: str,
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    only: str = "",
    may_lack: tuple[str, ...] = (),
) -> tuple[PreTrainedModel, list[str]]:
    """A model with the weights of a checkpoint, and the names of those of the model that it does not have. Names that
    start with `only` must match to the last one, except those that start with one of `may_lack`."""
    try:
        with quiet():
            model, found = model_class.from_pretrained(
                source, config=config, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except OSError as error:
        raise CheckpointError(
            f"{source}: {last_line(error)} Weights are read from safetensors only; `tinymyo convert SOURCE OUT` turns "
            "a published checkpoint into such a folder"
        ) from None
    except SafetensorError as error:
        raise CheckpointError(
            f"{source}: its weights are not a whole safetensors file ({error}); copy the folder again"
        ) from None
    mismatched = [entry[0] for entry in found["mismatched_keys"]]
    for names, problem in (
        (found["missing_keys"], "lacks"),
        (found["unexpected_keys"], "has, beyond the configured model,"),
        (mismatched, "has another shape for"),
    ):
        wrong = sorted(name for name in names if name.startswith(only) and not name.startswith(may_lack))
        if wrong:
            raise CheckpointError(
                f"{source} {problem} {len(wrong)} weights ({wrong[0]}, ...): its config.json and weights do not belong "
                "together, or model_config changes the shape of the encoder; remove those fields"
            )
    return model, [*found["missing_keys"], *mismatched]


def load_config(source: str, *families: type[PreTrainedConfig]) -> PreTrainedConfig:
    """The configuration of a checkpoint; `CheckpointError` if there is none, or it is of none of the families."""
    path = Path(source)
    is_path = source.startswith((".", "/", "~")) or source.count("/") != 1 or path.parent.is_dir()  # else user/name
    if is_path and not path.exists():
        raise CheckpointError(
            f"{source}: no such checkpoint; check the path, or train it first (`tinymyo train pretrain_synthetic` "
            "makes an encoder, `tinymyo train synthetic_typing` a typing model) and name it by --model_name_or_path"
        )
    if path.exists() and not (path / "config.json").is_file():
        raise CheckpointError(
            f"{source} is not a checkpoint folder (no config.json). A published .safetensors or .ckpt file is turned "
            "into one by `tinymyo convert SOURCE OUT`"
        )
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, StrictDataclassError) as error:
        reason = last_line(error)
        raise CheckpointError(f"{source}: no usable configuration ({reason}); check the folder or Hub id") from None
    if not isinstance(config, families):
        needed = " or ".join(family.model_type for family in families)
        raise CheckpointError(f"{source} is a {config.model_type} checkpoint; a {needed} checkpoint is needed")
    return config


def for_use(extractor: TinyMyoFeatureExtractor) -> TinyMyoFeatureExtractor:
    """What is saved beside a model: recordings at another rate are refused until a user asks for resampling, also where
    the corpus it was trained on had to be resampled."""
    return extractor.replace(on_rate_mismatch="error")


def load_trained(source: str, model_class: type[PreTrainedModel]) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """A trained model and its preprocessing, from a folder or Hub id.

    Raises:
        CheckpointError: missing, unreadable, of another shape, or with another head than that of `model_class`.
    """
    config = load_config(source, model_class.config_class)
    if model_class.__name__ not in (config.architectures or []):
        raise CheckpointError(
            f"{source} holds {', '.join(config.architectures or ['no architecture'])}, not {model_class.__name__}: "
            "fine-tune it first with `tinymyo train RECIPE --model_name_or_path ...`"
        )
    try:
        extractor = AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: no usable preprocessor_config.json ({last_line(error)})") from None
    return load_weights(source, model_class, config)[0].eval(), extractor


def last_line(error: Exception) -> str:
    """Strict configurations wrap the message that helps in two lines of framework."""
    return str(error).strip().splitlines()[-1].strip().removeprefix("ValueError: ").removeprefix("TypeError: ")


def _add_adapters(model: PreTrainedModel, arguments: ModelArguments, fresh: Sequence[str]) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    heads = [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]
    config = LoraConfig(
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules,
        modules_to_save=[*fresh, *heads],
    )
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of names that peft still uses
            return get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"lora_target_modules: {str(error).splitlines()[0]}") from None


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model: adapters, if any, are folded into the weights they adapt."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """`{"total", "trainable"}` numbers of parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"total": sum(n for n, _ in sizes), "trainable": sum(n for n, trains in sizes if trains)}
