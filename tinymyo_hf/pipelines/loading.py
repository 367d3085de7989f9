"""From a checkpoint on disk or on the Hub to its pipeline, after a check that it is whole."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, Pipeline, PreTrainedModel, pipeline

from tinymyo_hf.characters import CharsetError
from tinymyo_hf.pipelines.checkpoints import SavedModel
from tinymyo_hf.predictions import PredictionError
from tinymyo_hf.quiet import quiet
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks import task_of

# What the library raises of a checkpoint that it cannot load.
_LOADING = (OSError, ValueError, RuntimeError, StrictDataclassError, SafetensorError)


def checkpoint_task(checkpoint: str) -> str:
    """The pipeline for a checkpoint's head.

    Raises:
        PredictionError: no such checkpoint, none of this package, or one without a head.
    """
    if not Path(checkpoint).exists() and Path(checkpoint).is_absolute():
        raise PredictionError(f"{checkpoint}: no such checkpoint; check the path")
    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise _not_loaded(checkpoint, error) from error
    task = task_of(config.architectures or [])
    if task is None:
        found = ", ".join(config.architectures or []) or "no known architecture"
        raise PredictionError(
            f"{checkpoint} predicts nothing, it holds {found}: fine-tune it first with `tinymyo train RECIPE "
            f"--model_name_or_path {checkpoint}`"
        )
    return task


def load_pipeline(checkpoint: str, task: str, batch_size: int | None = None) -> Pipeline:
    """The pipeline `task` with a checkpoint's model and preprocessing, after a check that they are whole.

    Raises:
        PredictionError: files that are missing, damaged, or do not belong together.
    """
    model = load_model(checkpoint)
    try:
        with quiet():
            extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(checkpoint) if task == "emg-to-text" else None
            return pipeline(task, model=model, feature_extractor=extractor, tokenizer=tokenizer, batch_size=batch_size)
    except (PredictionError, SignalError, CharsetError):
        raise
    except _LOADING as error:
        raise _not_loaded(checkpoint, error) from error


def load_model(checkpoint: str) -> PreTrainedModel:
    """The model of a checkpoint, as what it was saved, after a check that its weights are whole.

    Raises:
        PredictionError: files that are missing, damaged, or do not belong together.
    """
    try:
        with quiet():
            model, found = SavedModel.from_pretrained(
                checkpoint, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except _LOADING as error:
        raise _not_loaded(checkpoint, error) from error
    _refuse_random_weights(checkpoint, found)
    return model


def _not_loaded(checkpoint: str, error: Exception) -> PredictionError:
    return PredictionError(f"{checkpoint} cannot be loaded as a model of EMG: {' '.join(str(error).split())}")


def _refuse_random_weights(checkpoint: str, found: dict[str, Any]) -> None:
    """Where weights are missing or do not fit, the library goes on with random ones."""
    if found["missing_keys"]:
        missing = ", ".join(sorted(found["missing_keys"])[:3])
        raise PredictionError(f"{checkpoint} is not whole: it lacks {missing}; copy it again, or train it again")
    if found["mismatched_keys"]:
        name, stored, configured = min(found["mismatched_keys"])
        raise PredictionError(
            f"{checkpoint}: {name} has the shape {tuple(stored)}, but config.json asks for {tuple(configured)}; these "
            "files do not belong together"
        )
