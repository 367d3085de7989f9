"""The Tiny-BioMoE a run starts from, and how its images are drawn: fresh, or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import AutoFeatureExtractor
from transformers.utils import FEATURE_EXTRACTOR_NAME, cached_file

from tinymyo_hf import TinyMyoPreprocessing
from tinymyo_hf.tiny_biomoe.configuration_tiny_biomoe import TINY_BIOMOE_PRESETS, TinyBioMoEConfig
from tinymyo_hf.tiny_biomoe.image_processing_tiny_biomoe import BiosignalImageProcessor
from tinymyo_hf.tiny_biomoe.modeling_tiny_biomoe import TinyBioMoEForSequenceClassification, fuse_images
from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import BiosignalImagePreprocessing
from trainers.arguments import ModelArguments, check_model_config
from trainers.errors import CheckpointError, RecipeError
from trainers.models import check_decided, choose_trainable, last_line, load_config, load_weights

DRAWING_FIELDS = tuple(
    field.name
    for field in fields(BiosignalImagePreprocessing)
    if field.name not in {of_signals.name for of_signals in fields(TinyMyoPreprocessing)}
)
"""Of the preprocessing, what says how windows become images; the rest is of the corpus."""
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # inverse, of the regularisation of a head, from strong to weak
ABSENT = -20.0  # logit of a class that is not among the windows


def build_image_model(arguments: ModelArguments, decided: Mapping[str, Any]) -> nn.Module:
    """A classifier with a new head, on a fresh backbone or on that of a checkpoint.

    Args:
        decided: fields of the configuration that the data and the task decide: image_size, num_images, id2label, ...

    Raises:
        RecipeError: an unknown preset or configuration field, or fields that contradict each other.
        CheckpointError: the checkpoint is missing, unreadable, or its backbone has another shape.
    """
    config = _config(arguments, {**decided, "freeze_backbone": arguments.freeze_encoder})
    model = TinyBioMoEForSequenceClassification(config)
    source = arguments.model_name_or_path
    if source is not None:
        loaded, _ = load_weights(source, type(model), config, only=f"{model.base_model_prefix}.")
        model.base_model.load_state_dict(loaded.base_model.state_dict())  # a new head, even where an old one would fit
    return choose_trainable(model, arguments)


def _config(arguments: ModelArguments, decided: Mapping[str, Any]) -> TinyBioMoEConfig:
    source, preset = arguments.model_name_or_path, TINY_BIOMOE_PRESETS.get(arguments.preset)
    check_model_config(arguments.model_config, TinyBioMoEConfig)
    check_decided(arguments.model_config, decided)
    if source is None and preset is None:
        raise RecipeError(
            f"preset {arguments.preset!r} is no Tiny-BioMoE, which this task trains; choose from "
            f"{', '.join(TINY_BIOMOE_PRESETS)}"
        )
    start = preset if source is None else load_config(source, TinyBioMoEConfig).to_dict()
    try:
        return TinyBioMoEConfig(**{**start, **arguments.model_config, **decided})
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise RecipeError(f"model_config: {last_line(error)}") from None


def drawing_of(arguments: ModelArguments, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """How a recipe's windows are drawn: as those of its checkpoint, where that says so, but for the fields `chosen`.

    Raises:
        RecipeError: a field that does not exist.
        CheckpointError: its `preprocessor_config.json` cannot be read.
    """
    unknown = sorted(chosen.keys() - set(DRAWING_FIELDS))
    if unknown:
        raise RecipeError(f"images: there is no field {unknown[0]!r}; use some of {', '.join(DRAWING_FIELDS)}")
    saved = {} if arguments.model_name_or_path is None else _saved_preprocessing(arguments.model_name_or_path)
    return {name: value for name, value in saved.items() if name in DRAWING_FIELDS} | dict(chosen)


def _saved_preprocessing(source: str) -> dict[str, Any]:
    """Fields of a checkpoint's preprocessing; none where it has none."""
    with suppress(OSError):  # of a checkpoint that is not there, which is told where its configuration is loaded
        if cached_file(source, FEATURE_EXTRACTOR_NAME, _raise_exceptions_for_missing_entries=False) is not None:
            try:
                return AutoFeatureExtractor.from_pretrained(source).to_dict()
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{source}: no usable {FEATURE_EXTRACTOR_NAME} ({last_line(error)})") from None
    return {}


def image_processor(preprocessing: TinyMyoPreprocessing, drawing: Mapping[str, Any]) -> BiosignalImageProcessor:
    """What makes images of the windows of a corpus.

    Args:
        preprocessing: that made the windows.
        drawing: values of `DRAWING_FIELDS`.

    Raises:
        RecipeError: values that cannot be, or windows too short, or sampled too slowly, for a representation.
    """
    signals = {field.name: getattr(preprocessing, field.name) for field in fields(TinyMyoPreprocessing)}
    signals["patch_size"] = 1  # images know no patches
    try:
        return BiosignalImageProcessor(**signals, **drawing)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"images: {last_line(error)}") from None


def fit_head(
    model: TinyBioMoEForSequenceClassification,
    train: tuple[torch.Tensor, np.ndarray],
    validation: tuple[torch.Tensor, np.ndarray],
) -> None:
    """Make the head a logistic regression on what it sees, regularised as is best for the validation windows.

    Embeddings differ little from window to window, and between features in how much: gradient descent takes long, a
    regression on standardised features seconds. Its scaling goes into the weights.

    Args:
        train, validation: embeddings (windows, images, size) and class ids (windows,); of at least two classes.
    """
    (x, labels), (x_validation, labels_validation) = (
        (nn.functional.elu(fuse_images(embeddings, model.config)).numpy(), ids)
        for embeddings, ids in (train, validation)
    )
    scaler = StandardScaler().fit(x)
    losses, fits = [], []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=500).fit(scaler.transform(x), labels)
        weight, bias = fitted.coef_ / scaler.scale_, fitted.intercept_
        bias = bias - weight @ scaler.mean_
        if len(fitted.classes_) == 2:  # of which there is one row
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        of_all = np.zeros((model.num_labels, weight.shape[1])), np.full(model.num_labels, ABSENT)
        of_all[0][fitted.classes_], of_all[1][fitted.classes_] = weight, bias
        logits = torch.from_numpy(x_validation @ of_all[0].T + of_all[1])
        losses.append(log_loss(labels_validation, logits.softmax(-1).numpy(), labels=np.arange(model.num_labels)))
        fits.append(of_all)
    best = fits[int(np.argmin(losses))]
    with torch.no_grad():
        for parameter, values in zip((model.classifier.weight, model.classifier.bias), best, strict=True):
            parameter.copy_(torch.from_numpy(values))
