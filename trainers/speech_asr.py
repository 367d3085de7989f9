"""How well synthesised speech is understood: transcribed by a recogniser of speech, and scored against what was said.

The papers on silent speech score audio this way, each with another recogniser, and their figures compare only under the
same one. TinyMyo (downstream 3) took SpeechBrain's `asr-wav2vec2-librispeech`, which is not a checkpoint of
transformers; the nearest that is one is what it was fine-tuned from, `facebook/wav2vec2-large-960h-lv60-self`. Gaddy
and Klein took DeepSpeech 0.7, later ones Whisper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutomaticSpeechRecognitionPipeline, pipeline

from tinymyo_hf.audio import AUDIO_RATE
from tinymyo_hf.quiet import quiet
from tinymyo_hf.signal import resample
from tinymyo_hf.speech_text import normalize_text
from trainers.errors import CheckpointError, EvaluationError
from trainers.word_metrics import word_errors

# Recognisers cannot take what is shorter than one of their frames; what follows the audio up to here is silence.
_SHORTEST_SECONDS = 0.1


def transcribe(
    audios: Sequence[np.ndarray],
    asr_model: str | Path,
    sampling_rate: float = AUDIO_RATE,
    device: str | torch.device = "cpu",
) -> list[str]:
    """What a recogniser of speech hears, as it writes it.

    Args:
        audios: utterances (samples,) in [-1, 1], one after the other, so that none depends on its neighbours.
        asr_model: folder or Hub id of any model of the pipeline "automatic-speech-recognition" (CTC, Whisper, ...);
            only a Hub id is ever downloaded.
        sampling_rate: Hz of `audios`; they are resampled to the rate of the model.
        device: of the model.

    Raises:
        CheckpointError: no such model, or one that does not recognise speech.
        EvaluationError: an utterance that is not (samples,) of finite numbers; the message gives its position.
    """
    for i, audio in enumerate(audios):
        if np.ndim(audio) != 1 or not len(audio) or not np.isfinite(audio).all():
            raise EvaluationError(f"utterance {i}: audio of shape {np.shape(audio)}; give finite samples (samples,)")
    recognizer = _load(asr_model, device)
    rate = recognizer.feature_extractor.sampling_rate
    texts = []
    for audio in audios:
        heard = resample(np.asarray(audio, dtype=np.float32)[None], sampling_rate, rate)[0]
        heard = np.pad(heard, (0, max(0, round(_SHORTEST_SECONDS * rate) - len(heard))))
        texts.append(recognizer({"raw": heard, "sampling_rate": rate})["text"])
    return texts


def asr_word_errors(
    audios: Sequence[np.ndarray],
    references: Sequence[str],
    asr_model: str | Path,
    sampling_rate: float = AUDIO_RATE,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Error rates of a recogniser on `audios`, of which `references` were said.

    Both texts are compared in the form of `tinymyo_hf.speech_text.normalize_text`.

    Returns:
        What `trainers.word_metrics.word_errors` returns, and `asr_model`, `references` and `predictions`, one text of
        each per utterance in that form.

    Raises:
        CheckpointError, EvaluationError: as `transcribe` and `word_errors`.
    """
    if len(audios) != len(references):
        raise EvaluationError(f"{len(audios)} utterances and {len(references)} references; give one text for each")
    said = [normalize_text(text) for text in references]
    heard = [normalize_text(text) for text in transcribe(audios, asr_model, sampling_rate, device)]
    return word_errors(said, heard) | {"asr_model": str(asr_model), "references": said, "predictions": heard}


def _load(source: str | Path, device: str | torch.device) -> AutomaticSpeechRecognitionPipeline:
    try:
        with quiet():
            recognizer = pipeline("automatic-speech-recognition", model=str(source), device=device, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).partition("See the original errors")[0].split())  # the library's tracebacks follow
        raise CheckpointError(
            f"{source}: cannot be loaded as a recogniser of speech ({reason}); give the folder or Hub id of a model of "
            "the pipeline 'automatic-speech-recognition', with its feature extractor and tokenizer"
        ) from error
    # Of an encoder without a head the library makes one at random, whose words would be scored like any.
    trained, loaded = recognizer.model.config.architectures or [], type(recognizer.model).__name__
    if loaded not in trained or recognizer.tokenizer is None or recognizer.feature_extractor is None:
        raise CheckpointError(
            f"{source}: saved as {', '.join(trained) or 'no architecture'}, not as a whole recogniser of speech "
            f"({loaded} with feature extractor and tokenizer); give one that was trained to write what is said"
        )
    return recognizer
