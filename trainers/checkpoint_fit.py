"""Whether a trained model suits a corpus: preprocessed as its training windows were, the same channels and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dataset_builders.base import EmgBuilderConfig
from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoPreTrainedModel
from trainers.errors import CheckpointError

if TYPE_CHECKING:
    from trainers.tasks import Task

# The fields of the preprocessing that a builder takes; what only says how to cut or check may differ from training.
SHARED_FIELDS = sorted(
    {field.name for field in dataclasses.fields(EmgBuilderConfig)} & set(TinyMyoFeatureExtractor().to_dict())
)
FREE_FIELDS = {"stride", "max_gap", "allow_constant_channels"}


def fixed_options(config: TinyMyoConfig, extractor: TinyMyoFeatureExtractor) -> dict[str, Any]:
    """Options of the builder that the checkpoint leaves no choice about."""
    fields = {name: getattr(extractor, name) for name in SHARED_FIELDS}
    if config.target_length and extractor.window_length % config.target_length == 0:
        fields["target_hop"] = extractor.window_length // config.target_length
    return fields


def check_preprocessing(
    checkpoint: str, trained: TinyMyoFeatureExtractor, dataset: str, found: TinyMyoFeatureExtractor
) -> None:
    """Raise `CheckpointError`, naming the field, for windows made otherwise than the checkpoint's training windows."""
    for name in SHARED_FIELDS:
        if name not in FREE_FIELDS and getattr(trained, name) != getattr(found, name):
            raise CheckpointError(
                f"{checkpoint} was trained with {name}={getattr(trained, name)}, but the windows of {dataset} have "
                f"{name}={getattr(found, name)}: prepare the dataset with the checkpoint's preprocessor_config.json"
            )


def check_fit(checkpoint: str, config: TinyMyoConfig, task: Task) -> None:
    """Raise `CheckpointError` for windows of another number of channels, or targets of another number of frames."""
    if config.channel_fusion == "concat" and task.num_channels != config.num_channels:
        raise CheckpointError(
            f"{checkpoint} takes {config.num_channels} channels, {task.corpus} has {task.num_channels}"
        )
    frames = getattr(task, "num_frames", None)
    if frames is not None and frames != (config.target_length or task.extractor.window_length):
        raise CheckpointError(
            f"{checkpoint} predicts {config.target_length} frames per window, the targets of {task.corpus} have "
            f"{frames}: prepare it with another target_hop"
        )


def match_labels(checkpoint: str, id2label: Mapping[int, str], names: Sequence[str]) -> list[int]:
    """The model's output for each label of the dataset, by name; `CheckpointError` if the labels are not the same."""
    ids = {label: int(index) for index, label in id2label.items()}
    if set(ids) != set(names):
        raise CheckpointError(
            f"{checkpoint} was trained on the labels {', '.join(ids)}, the dataset has {', '.join(names)}: "
            "give both the same names, or fine-tune the checkpoint on this dataset"
        )
    return [ids[name] for name in names]


@torch.no_grad()
def reorder_outputs(model: TinyMyoPreTrainedModel, order: Sequence[int]) -> None:
    """Let output i of the model be what output `order[i]` was, names included."""
    last = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv1d))][-1]
    last.weight.copy_(last.weight[list(order)])
    last.bias.copy_(last.bias[list(order)])
    names = [model.config.id2label[i] for i in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
