"""Predictions for one recording on the command line, by the pipeline that suits the checkpoint."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, Pipeline, pipeline

from tinymyo_hf.audio import write_wav
from tinymyo_hf.pipelines import SavedModel, task_of
from tinymyo_hf.prediction_output import FORMATS, format_of
from tinymyo_hf.quiet import quiet
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tokenization import CharsetError

_TEXT = ("emg-to-text",)
_AUDIO = ("emg-to-audio",)
# Settings that only some pipelines take: what the models do that they are for, and their pipelines.
_SETTINGS = {
    "decoder": ("write text", _TEXT),
    "lm_path": ("write text", _TEXT),
    "lexicon_path": ("write text", _TEXT),
    "wav": ("speak", _AUDIO),
    "vocoder": ("speak", _AUDIO),
    "before": ("are of speech", _TEXT + _AUDIO),
    "after": ("are of speech", _TEXT + _AUDIO),
}


class PredictionError(ValueError):
    """A prediction that cannot be made or written; the message names the file and the fix."""


@dataclass(frozen=True)
class Prediction:
    """What a pipeline made of a recording.

    Attributes:
        task: the pipeline: "emg-classification", "emg-regression", "emg-events", "emg-to-text" or "emg-to-audio".
        result: what it returned.
    """

    task: str
    result: dict[str, Any]

    def table(self, rows: int = 20) -> str:
        """The prediction as text: its first rows, or a summary."""
        return format_of(self.task, self.result).table(self.result, rows)

    def write(self, path: str | Path) -> str:
        """Write all of it as the suffix says, whole or not at all; returns what was written ("39 windows")."""
        return format_of(self.task, self.result).write(self.result, Path(path))

    def write_wav(self, path: str | Path) -> str:
        """Write the audio of "emg-to-audio"; returns what was written ("3.42 s of audio")."""
        audio, rate = self.result["audio"], self.result["sampling_rate"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what is told here
            clipped = write_wav(path, audio, rate)
        return f"{len(audio) / rate:.2f} s of audio" + (f", {clipped:,} samples clipped" if clipped else "")


def predict_file(
    checkpoint: str,
    file: str | Path,
    output: str | Path | None = None,
    batch_size: int | None = None,
    wav: str | Path | None = None,
    before: str | Path | None = None,
    after: str | Path | None = None,
    **settings: Any,
) -> Prediction:
    """Predict a recording with the pipeline for the checkpoint's head, after checking that `output` can be written.

    Args:
        checkpoint: folder or Hub id of a trained model.
        file: the recording.
        output: where the prediction will be written; checked before the work, not after it.
        batch_size: windows at once; the pipeline's own by default.
        wav: where the audio will be written, for models that speak.
        before, after: of an utterance of speech, the files of its neighbours, which are filtered together with it.
        settings: arguments of the pipeline's call; those that are None are left out.

    Raises:
        PredictionError: no usable checkpoint, `output` or `wav` of another kind, or settings that the model has no use
            for.
        SignalError: the recording cannot be read, or does not suit the model.
    """
    task = checkpoint_task(checkpoint)
    suffixes = FORMATS[task].suffixes
    if output is not None and Path(output).suffix.lower() not in suffixes:
        allowed = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise PredictionError(f"{output}: {FORMATS[task].unit} are written as {allowed}; change the name")
    neighbours = {name: str(path) for name, path in (("before", before), ("after", after)) if path is not None}
    given = {name: value for name, value in settings.items() if value is not None}
    _check_settings(checkpoint, task, wav, (*given, *neighbours))
    predict = load_pipeline(checkpoint, task, batch_size)
    recording = {"raw": str(file), **neighbours} if neighbours else str(file)
    return Prediction(task, predict(recording, **given))


def _check_settings(checkpoint: str, task: str, wav: str | Path | None, given: tuple[str, ...]) -> None:
    """Raise `PredictionError` for settings that models of this kind have no use for, and for audio without a place."""
    for name in (*given, *(["wav"] if wav is not None else [])):
        purpose, tasks = _SETTINGS.get(name, ("", (task,)))
        if task not in tasks:
            raise PredictionError(
                f"{name}: for models that {purpose}, but {checkpoint} is one for {task}; leave it out"
            )
    if task in _AUDIO and wav is None:
        raise PredictionError(f"{checkpoint} speaks: say where its audio is to go, with --wav FILE.wav")
    if wav is not None and Path(wav).suffix.lower() != ".wav":
        raise PredictionError(f"{wav}: audio is written as .wav; change the name")


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
    try:
        with quiet():
            model, found = SavedModel.from_pretrained(
                checkpoint, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
            _refuse_random_weights(checkpoint, found)
            extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(checkpoint) if task == "emg-to-text" else None
            return pipeline(task, model=model, feature_extractor=extractor, tokenizer=tokenizer, batch_size=batch_size)
    except (PredictionError, SignalError, CharsetError):
        raise
    except (OSError, ValueError, RuntimeError, StrictDataclassError, SafetensorError) as error:
        raise _not_loaded(checkpoint, error) from error


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
