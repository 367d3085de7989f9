"""From a checkpoint to the recognizer that suits its head."""

from pathlib import Path
from typing import Any

from transformers import Pipeline

from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.event_detection import THRESHOLD
from tinymyo_hf.pipelines.loading import checkpoint_task, load_pipeline
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.streaming.chunks import StreamError
from tinymyo_hf.streaming.filters import HysteresisFilter, MajorityFilter, Smoother
from tinymyo_hf.streaming.recognizers import EventRecognizer, GestureRecognizer, Recognizer
from tinymyo_hf.streaming.text import TextRecognizer

OPTIONS = {
    "emg-classification": ("hop_ms", "smoothing", "votes", "vote_windows", "enter", "leave"),
    "emg-events": ("hop_ms", "threshold"),
    "emg-to-text": ("hop_ms", "mode", "decoder", "lm"),
}
"""What can be chosen for a model of each task."""

OPTIONS_OF_SMOOTHING = {"majority": ("votes", "vote_windows"), "hysteresis": ("enter", "leave")}


def load_recognizer(checkpoint: str, **options: Any) -> tuple[Recognizer, str]:
    """A recognizer with a checkpoint's model and preprocessing, and the task of the model.

    Args:
        checkpoint: folder or Hub id of a classifier, a frame classifier or a CTC model.
        options: those of `OPTIONS` for the task; left out or None, each has its default.
            hop_ms: ms between windows; default: the extractor's stride (classifiers), 50 (events), 200 (typing).
            smoothing: "majority" (default) or "hysteresis".
            votes, vote_windows: for a class to hold, so many of so many windows; 3 of 5.
            enter, leave: probabilities from and until which a class holds; 0.7 and 0.4.
            threshold: probability at which an event is found; 0.35.
            mode: "exact" or "windowed", see `TextRecognizer`.
            decoder: "greedy" (default) or "beam"; lm: path of a KenLM model for the latter.

    Raises:
        PredictionError: no such checkpoint, or one that is not whole.
        StreamError: a model that cannot run live, or options that are not for it.
    """
    given = {name: value for name, value in options.items() if value is not None}
    task = checkpoint_task(checkpoint)
    if task not in OPTIONS:
        raise StreamError(f"{checkpoint} is a model for {task}, which needs whole recordings: use `tinymyo predict`")
    others = [name for name in given if name not in OPTIONS[task]]
    if others:
        raise StreamError(f"{', '.join(others)}: not for a model of {task}, which has {', '.join(OPTIONS[task])}")
    loaded = load_pipeline(checkpoint, task)
    hop_ms = given.pop("hop_ms", None)
    hop = None if hop_ms is None else round(hop_ms / 1000 * loaded.feature_extractor.sampling_rate)
    return _BUILDERS[task](loaded, hop, **given), task


def _gestures(loaded: Pipeline, hop: int | None, smoothing: str = "majority", **settings: Any) -> Recognizer:
    if smoothing not in OPTIONS_OF_SMOOTHING:
        raise StreamError(f"smoothing={smoothing!r}: unknown; use one of {', '.join(OPTIONS_OF_SMOOTHING)}")
    others = [name for name in settings if name not in OPTIONS_OF_SMOOTHING[smoothing]]
    if others:
        raise StreamError(f"{', '.join(others)}: not for smoothing by {smoothing}")
    return GestureRecognizer(loaded.model, loaded.feature_extractor, hop, _smoother(smoothing, **settings))


def _smoother(
    smoothing: str, votes: int = 3, vote_windows: int = 5, enter: float = 0.7, leave: float = 0.4
) -> Smoother:
    return MajorityFilter(votes, vote_windows) if smoothing == "majority" else HysteresisFilter(enter, leave)


def _events(loaded: Pipeline, hop: int | None, threshold: float = THRESHOLD) -> Recognizer:
    return EventRecognizer(loaded.model, loaded.feature_extractor, hop, threshold)


def _text(
    loaded: Pipeline, hop: int | None, mode: str | None = None, decoder: str = "greedy", lm: str | Path | None = None
) -> Recognizer:
    if not isinstance(loaded.model, SEMGTransformerForCTC):
        raise StreamError(
            f"{loaded.model.config.name_or_path} is a model of speech, which needs whole utterances: use "
            "`tinymyo predict`"
        )
    make_decoder = timed_decoder(loaded.tokenizer, decoder, lm)
    return TextRecognizer(loaded.model, loaded.feature_extractor, loaded.tokenizer, make_decoder, mode, hop)


_BUILDERS = {"emg-classification": _gestures, "emg-events": _events, "emg-to-text": _text}
