"""The sEMG transformer a run starts from: a preset from scratch, or a checkpoint that spells the same characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.utils import cached_file

from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.tokenization import EmgCharacterTokenizer, check_charset
from trainers.arguments import ModelArguments, check_model_config
from trainers.errors import CheckpointError, RecipeError
from trainers.models import check_decided, choose_trainable, last_line, load_config, load_weights

# Fields that decide the shape of the weights.
SHAPE_FIELDS = (
    "conv_dim", "conv_kernel", "conv_stride", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "do_stable_layer_norm",
)  # fmt: skip
HEAD = "lm_head."


def semg_config(arguments: ModelArguments, decided: Mapping[str, Any] | None = None) -> SEMGTransformerConfig:
    """The configuration of a recipe's model: that of the preset or the checkpoint, and `model_config`.

    Args:
        decided: fields that the data and the task decide: num_channels, vocab_size, ...; those of a checkpoint must be
            equal.

    Raises:
        RecipeError: a preset of another family, an unknown field, or fields that contradict each other.
        CheckpointError: the checkpoint is missing, unreadable, of another family or of another shape.
    """
    decided = decided or {}
    check_model_config(arguments.model_config, SEMGTransformerConfig)
    check_decided(arguments.model_config, decided)
    if arguments.model_name_or_path is not None:
        return _checkpoint_config(arguments.model_name_or_path, arguments.model_config, decided)
    if arguments.preset not in SEMG_TRANSFORMER_PRESETS:
        raise RecipeError(
            f"preset {arguments.preset!r} is no sEMG transformer, which this task trains; choose from "
            f"{', '.join(SEMG_TRANSFORMER_PRESETS)}"
        )
    try:
        return SEMGTransformerConfig(
            **{**SEMG_TRANSFORMER_PRESETS[arguments.preset], **arguments.model_config, **decided}
        )
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise RecipeError(f"model_config: {last_line(error)}") from None


def _checkpoint_config(source: str, fields: Mapping[str, Any], decided: Mapping[str, Any]) -> SEMGTransformerConfig:
    config = load_config(source, SEMGTransformerConfig)
    differing = [
        f"{name} ({getattr(config, name)} there, {value} in model_config)"
        for name, value in fields.items()
        if name in SHAPE_FIELDS and value != getattr(config, name)
    ]
    if differing:
        raise CheckpointError(
            f"{source} has another shape: {', '.join(differing)}; remove these fields, or train from scratch"
        )
    for name, value in decided.items():
        if getattr(config, name) != value:
            raise CheckpointError(
                f"{source} was made with {name}={getattr(config, name)}, the data have {name}={value}: choose data "
                "with the same electrodes and characters, or train from scratch"
            )
    for name, value in fields.items():
        setattr(config, name, value)
    try:
        config.validate()
    except (StrictDataclassError, ValueError) as error:
        raise RecipeError(f"model_config: {last_line(error)}") from None
    return config


def build_ctc_model(
    arguments: ModelArguments, decided: Mapping[str, Any], tokenizer: EmgCharacterTokenizer
) -> nn.Module:
    """A model to train: fresh, or all of a checkpoint, the head included where it has one.

    Args:
        decided: as for `semg_config`.
        tokenizer: of the data.

    Raises:
        RecipeError, CheckpointError: as `semg_config`, or the checkpoint spells other characters.
    """
    config = semg_config(arguments, decided)
    if arguments.model_name_or_path is None:
        return choose_trainable(SEMGTransformerForCTC(config), arguments)
    if SEMGTransformerForCTC.__name__ in (config.architectures or []):
        check_characters(arguments.model_name_or_path, config, tokenizer.characters)
    model, _ = load_weights(arguments.model_name_or_path, SEMGTransformerForCTC, config, may_lack=(HEAD,))
    return choose_trainable(model.train(), arguments)


def check_characters(source: str, config: SEMGTransformerConfig, characters: Sequence[str]) -> None:
    """Raise `CheckpointError` unless the ids of a checkpoint's head are those of these characters. Of a checkpoint
    without a tokenizer they are taken to be those of emg2qwerty."""
    stored = cached_file(source, "vocab.json", _raise_exceptions_for_missing_entries=False)
    try:
        check_charset(EmgCharacterTokenizer(stored), config, characters)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None


def plain_model(model: nn.Module) -> SEMGTransformerForCTC:
    """The model itself, without the wrapper of its adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def needs_statistics(config: SEMGTransformerConfig) -> bool:
    """Whether the input is normalised with stored statistics."""
    return config.input_norm == "frozen" or (config.input_norm == "running" and config.running_norm_frames > 0)


def has_statistics(checkpoint: str | None) -> bool:
    """Whether a checkpoint brings statistics for its input norm; one that was trained with those of each window does
    not."""
    return checkpoint is not None and needs_statistics(load_config(checkpoint, SEMGTransformerConfig))


@torch.no_grad()
def store_statistics(model: SEMGTransformerForCTC, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """Store the mean and variance of the first convolution over batches of windows (`input_values`,
    `attention_mask`), each batch with the weight of its samples."""
    base = model.semg_transformer
    count = mean = square = 0.0
    for batch in batches:
        weight = float(batch["attention_mask"].sum())
        means, variances = base.input_statistics(
            batch["input_values"].to(model.device), batch["attention_mask"].to(model.device)
        )
        count, mean, square = count + weight, mean + weight * means, square + weight * (variances + means**2)
    mean = mean / count
    base.set_input_statistics(mean, (square / count - mean**2).clamp(min=0.0))
