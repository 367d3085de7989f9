"""The model that recognition or synthesis of speech starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tinymyo_hf import TinyMyoConfig
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoPreTrainedModel
from trainers.arguments import ModelArguments
from trainers.models import build_model, load_config
from trainers.speech_batches import SAMPLES_PER_FRAME

STEM = {"stem": "residual", "num_stem_blocks": SAMPLES_PER_FRAME.bit_length() - 1}


def build_speech_model(
    model_class: type[TinyMyoPreTrainedModel], arguments: ModelArguments, head: Mapping[str, Any]
) -> nn.Module:
    """A model with a new head: a preset from scratch, or the encoder of a checkpoint. A pretrained encoder has neither
    the stem nor relative positions: these are then new.

    Args:
        head: fields of `TinyMyoConfig` that the task decides, beside the stem.

    Raises:
        RecipeError, CheckpointError: as of `build_model`.
    """
    return build_model(model_class, arguments, {**STEM, **head}, new_encoder_parts=_new_parts(arguments))


def _new_parts(arguments: ModelArguments) -> tuple[str, ...]:
    """Parts of the encoder that a pretrained one lacks."""
    if arguments.model_name_or_path is None:
        return ()
    config = load_config(arguments.model_name_or_path, TinyMyoConfig)
    positions = arguments.model_config.get("position_embedding_type", config.position_embedding_type)
    layers = range(config.num_hidden_layers) if positions == "relative" else ()
    return ("stem", *(f"layers.{layer}.attention.relative_positions" for layer in layers))
