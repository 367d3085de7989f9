"""Transcription of audio with a recogniser made here, and its error rates."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    Wav2Vec2Processor,
)

from tinymyo_hf.signal import resample
from trainers.errors import CheckpointError, EvaluationError
from trainers.speech_asr import asr_word_errors, transcribe

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"EANTO'"]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    """The folder of a random recogniser at 8 kHz that writes some letters of any sound."""
    folder = tmp_path_factory.mktemp("asr")
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS), hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=[24, 24], conv_stride=[10, 8], conv_kernel=[10, 8], num_feat_extract_layers=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config)
    model.lm_head.weight.data *= 50
    model.lm_head.bias.data[:4] = -100  # letters only
    model.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=8000)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(folder / "vocab.json")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audios() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.sin(np.cumsum(rng.uniform(0, 1, n))).astype(np.float32) * 0.3 for n in (11025, 22050, 50)]


def greedy(model: Wav2Vec2ForCTC, audio: np.ndarray) -> str:
    """The most likely letters without repetitions, of audio at 8 kHz, normalised as the extractor says."""
    audio = torch.from_numpy((audio - audio.mean()) / np.sqrt(audio.var() + 1e-7))
    with torch.no_grad():
        ids = model(audio[None]).logits[0].argmax(-1).unique_consecutive().tolist()
    return "".join(LETTERS[i] for i in ids if i > 3).replace("|", " ").strip()


def test_transcription_is_that_of_the_resampled_audio(recognizer, audios):
    texts = transcribe(audios, recognizer)
    model = Wav2Vec2ForCTC.from_pretrained(recognizer).eval()
    expected = [greedy(model, resample(audio[None], 22_050, 8000)[0]) for audio in audios[:2]]
    assert [" ".join(text.split()) for text in texts[:2]] == [" ".join(text.split()) for text in expected]
    assert len(set(expected)) == 2 and all(len(text) > 5 for text in expected)
    assert isinstance(texts[2], str)  # shorter than a frame of the model
    assert transcribe(audios[:1], recognizer, sampling_rate=8000) != texts[:1]


def test_error_rates_are_of_normalised_texts(recognizer, audios):
    heard = transcribe(audios[:2], recognizer)
    scores = asr_word_errors(audios[:2], [f"{heard[0].title()}!", "Two words"], recognizer)
    words = len(scores["predictions"][0].split())
    assert scores["references"][0] == scores["predictions"][0] == heard[0].lower().replace("'", "").strip()
    assert scores["items"][0]["wer"] == 0 and scores["items"][1]["wer"] > 0
    assert scores["words"] == words + 2 and scores["references"][1] == "two words"
    assert scores["asr_model"] == str(recognizer)


def test_what_cannot_be_scored_is_named(recognizer, audios, tmp_path):
    Wav2Vec2Model.from_pretrained(recognizer).save_pretrained(tmp_path / "encoder")
    for part in (Wav2Vec2FeatureExtractor, Wav2Vec2CTCTokenizer):
        part.from_pretrained(recognizer).save_pretrained(tmp_path / "encoder")
    with pytest.raises(CheckpointError, match="saved as Wav2Vec2Model, not as a whole recogniser"):
        transcribe(audios[:1], tmp_path / "encoder")
    with pytest.raises(CheckpointError, match="absent: cannot be loaded as a recogniser of speech"):
        transcribe(audios[:1], tmp_path / "absent")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="other: cannot be loaded as a recogniser of speech") as raised:
        transcribe(audios[:1], tmp_path / "other")
    assert "Traceback" not in str(raised.value)
    for wrong in (np.zeros((2, 800)), np.zeros(0), np.full(800, np.nan)):
        with pytest.raises(EvaluationError, match="utterance 1: audio of shape"):
            transcribe([audios[0], wrong], recognizer)
    with pytest.raises(EvaluationError, match="2 utterances and 1 references"):
        asr_word_errors(audios[:2], ["a"], recognizer)
