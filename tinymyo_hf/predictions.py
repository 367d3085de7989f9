"""Predictions for one recording on the command line, by the pipeline that suits the checkpoint or export."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymyo_hf.prediction_output import FORMATS, format_of

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
        from tinymyo_hf.audio import write_wav

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
        checkpoint: folder or Hub id of a trained model, or folder of an ONNX export, which needs neither torch nor
            transformers.
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
    task, load = _opened(checkpoint)
    suffixes = FORMATS[task].suffixes
    if output is not None and Path(output).suffix.lower() not in suffixes:
        allowed = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise PredictionError(f"{output}: {FORMATS[task].unit} are written as {allowed}; change the name")
    neighbours = {name: str(path) for name, path in (("before", before), ("after", after)) if path is not None}
    given = {name: value for name, value in settings.items() if value is not None}
    _check_settings(checkpoint, task, wav, (*given, *neighbours))
    predict = load(batch_size)
    recording = {"raw": str(file), **neighbours} if neighbours else str(file)
    return Prediction(task, predict(recording, **given))


def _opened(checkpoint: str) -> tuple[str, Callable[[int | None], Callable[..., dict[str, Any]]]]:
    """The task of a checkpoint or an export, and what makes its pipeline for a batch size."""
    from tinymyo_hf.onnx import is_export

    if is_export(checkpoint):
        from tinymyo_hf.onnx import OnnxModel, pipeline

        model = OnnxModel(checkpoint)
        if model.task not in FORMATS:
            raise PredictionError(
                f"{checkpoint} predicts nothing, it is for {model.task}: fine-tune its checkpoint first, and export "
                "it then"
            )
        return model.task, lambda batch_size: pipeline(model=model, batch_size=batch_size)
    import tinymyo_hf

    try:
        from tinymyo_hf.pipelines.loading import checkpoint_task, load_pipeline
    except ModuleNotFoundError as error:
        raise PredictionError(
            f"{checkpoint}: no ONNX export, a folder with model.onnx, and checkpoints need {error.name}, which is not "
            "installed; make one with `tinymyo export onnx` where it is"
        ) from error
    tinymyo_hf.register()  # with the library: importing the package from the command line leaves it out
    task = checkpoint_task(checkpoint)
    return task, lambda batch_size: load_pipeline(checkpoint, task, batch_size)


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
