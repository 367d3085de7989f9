"""`tinymyo predict`, `info` and `stream` with models of silent speech, and `--decoder`, `--lm` with those of typing."""

import csv
import json

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from tiny_speech import save_recognition, save_synthesis, utterance
from transformers import pipeline
from typer.testing import CliRunner

from tinymyo_hf import (
    EmgCharacterTokenizer,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForSequenceClassification,
)
from tinymyo_hf.cli import app
from tinymyo_hf.lexicon import write_lexicon


def tinymyo(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    return save_recognition(tmp_path_factory.mktemp("recognition"))


@pytest.fixture(scope="module")
def speaks(tmp_path_factory):
    return save_synthesis(tmp_path_factory.mktemp("synthesis"))


@pytest.fixture
def session(tmp_path):
    """Three utterances of one recording: `0_emg.npy` to `2_emg.npy`, (time, channels)."""
    for i, length in enumerate((400, 500, 300)):
        np.save(tmp_path / f"{i}_emg.npy", (utterance(length, i) + 100 * i).T)
    return tmp_path


def test_audio_is_written(speaks, session):
    command = ("predict", speaks, session / "1_emg.npy", "--sampling-rate", 1000)
    out = tinymyo(*command, "--wav", session / "new/1.wav", "--output", session / "1.json")
    expected = pipeline("emg-to-audio", model=str(speaks), device="cpu")(session / "1_emg.npy", sampling_rate=1000)
    rate, audio = wavfile.read(session / "new/1.wav")
    assert rate == 22050
    np.testing.assert_allclose(audio / 32767, expected["audio"].clip(-1, 1), atol=1e-4)
    seconds, clipped = len(audio) / rate, (np.abs(expected["audio"]) > 1).sum()
    assert f"{seconds:.2f} s of audio at 22,050 Hz" in out
    assert f"{seconds:.2f} s of audio, {clipped:,} samples clipped written to" in " ".join(out.split())
    assert f"phonemes: {expected['phonemes'][0]}" in out and "42 frames written to" in out
    document = json.loads((session / "1.json").read_text())
    assert set(document) == {"sampling_rate", "spectrogram", "phonemes"}
    np.testing.assert_allclose(document["spectrogram"], expected["spectrogram"])
    tinymyo(*command, "--wav", session / "1.wav", "--output", session / "1.csv")
    with open(session / "1.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phoneme"] for row in rows] == expected["phonemes"]
    assert float(rows[10]["time"]) == pytest.approx(10 * 256 / 22050)
    assert float(rows[3]["mel 79"]) == pytest.approx(float(expected["spectrogram"][3, 79]))


def test_neighbours_are_filtered_with_the_utterance(speaks, session):
    read = pipeline("emg-to-audio", model=str(speaks), device="cpu")
    files = {name: session / f"{i}_emg.npy" for name, i in (("before", 0), ("raw", 1), ("after", 2))}
    expected = read({**files, "sampling_rate": 1000})["spectrogram"]
    command = ("predict", speaks, files["raw"], "--sampling-rate", 1000, "--wav", session / "a.wav")
    tinymyo(*command, "--before", files["before"], "--after", files["after"], "--output", session / "a.json")
    found = np.array(json.loads((session / "a.json").read_text())["spectrogram"])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not np.allclose(found, read(files["raw"], sampling_rate=1000)["spectrogram"])


def test_text_is_printed_and_written(writes, session):
    command = ("predict", writes, session / "1_emg.npy", "--sampling-rate", 1000)
    expected = pipeline("emg-to-text", model=str(writes), device="cpu")(session / "1_emg.npy", sampling_rate=1000)
    out = tinymyo(*command, "--output", session / "1.json")
    assert out.startswith(expected["text"]) and f"{len(expected['words'])} words written to" in out
    assert json.loads((session / "1.json").read_text()) == expected
    tinymyo(*command, "--output", session / "1.csv")
    with open(session / "1.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == expected["text"].split()
    assert float(rows[0]["start"]) == expected["words"][0]["start"]


def test_decoders_of_speech(writes, session):
    pytest.importorskip("flashlight.lib.text.decoder")
    command = ("predict", writes, session / "1_emg.npy", "--sampling-rate", 1000)
    read = pipeline("emg-to-text", model=str(writes), device="cpu")
    beam = read(session / "1_emg.npy", sampling_rate=1000, decoder="beam")["text"]
    assert tinymyo(*command, "--decoder", "beam").startswith(beam)
    assert "there is no lexicon.txt" in tinymyo(*command, "--decoder", "words", code=2)
    write_lexicon(["k", "l"], session / "words.txt")
    out = tinymyo(*command, "--decoder", "words", "--lexicon", session / "words.txt")
    words = read(session / "1_emg.npy", sampling_rate=1000, decoder="words", lexicon_path=session / "words.txt")
    assert words["text"] and set(words["text"].split()) <= {"k", "l"} and out.split("\n")[0] == words["text"]
    missing = tinymyo(
        *command, "--decoder", "words", "--lexicon", session / "words.txt", "--lm", session / "no.arpa", code=2
    )
    assert "no.arpa: no such language model" in missing


def test_what_does_not_suit_is_told(writes, speaks, session):
    file = session / "1_emg.npy"
    given = ("--sampling-rate", 1000)
    assert "say where its audio is to go, with --wav FILE.wav" in tinymyo("predict", speaks, file, *given, code=2)
    for model, options, message in (
        (speaks, ("--wav", "a.mp3"), "a.mp3: audio is written as .wav"),
        (speaks, ("--wav", "a.wav", "--decoder", "beam"), "decoder: for models that write text, but"),
        (speaks, ("--wav", "a.wav", "--vocoder", "/nowhere"), "/nowhere: no such folder"),
        (speaks, ("--wav", "a.wav", "--output", "a.npy"), "frames are written as .csv or .json"),
        (speaks, ("--wav", "a.wav", "--stride", 5), "recordings run whole"),
        (writes, ("--wav", "a.wav"), "wav: for models that speak, but"),
        (writes, ("--lm", "a.arpa"), "lm_path: the decoder 'greedy' has no use for it; set decoder to beam or words"),
    ):
        assert message in tinymyo("predict", model, file, *given, *options, code=2)
    assert not list(session.glob("*.wav"))


def test_settings_of_text_and_speech_are_refused_elsewhere(session, tmp_path):
    config = TinyMyoConfig(
        num_channels=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    TinyMyoForSequenceClassification(config).save_pretrained(tmp_path / "model")
    TinyMyoFeatureExtractor(feature_size=8).save_pretrained(tmp_path / "model")
    for option, message in (
        ("--decoder", "decoder: for models that write text, but"),
        ("--before", "before: for models that are of speech, but"),
    ):
        error = tinymyo("predict", tmp_path / "model", session / "0_emg.npy", option, session / "1_emg.npy", code=2)
        assert message in error and "is one for emg-classification; leave it out" in error


def test_decoders_of_typing(tmp_path):
    torch.manual_seed(0)
    config = SEMGTransformerConfig(
        num_channels=4, conv_dim=[8, 8, 8], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = SEMGTransformerForCTC(config)
    torch.nn.init.normal_(model.lm_head.weight, std=2)
    folder, recording = tmp_path / "model", tmp_path / "x.npy"
    model.save_pretrained(folder)
    SEMGTransformerFeatureExtractor(num_channels=4, bands=(2, 2)).save_pretrained(folder)
    EmgCharacterTokenizer().save_pretrained(folder)
    np.save(recording, np.random.default_rng(0).normal(size=(4, 2000)).astype(np.float32))
    command = ("predict", folder, recording, "--sampling-rate", 2000, "--output", tmp_path / "x.json")
    read = pipeline("emg-to-text", model=str(folder), device="cpu")
    tinymyo(*command, "--decoder", "beam")
    assert json.loads((tmp_path / "x.json").read_text()) == read(recording, sampling_rate=2000, decoder="beam")
    pytest.importorskip("kenlm")
    assert "no.arpa" in tinymyo(*command, "--decoder", "beam", "--lm", tmp_path / "no.arpa", code=2)
    assert "are for models of speech" in tinymyo(*command, "--decoder", "words", code=2)
    assert "are for models of speech" in tinymyo(*command, "--lexicon", "a", code=2)
    assert "one by one, whole" in tinymyo(*command, "--batch-size", 2, code=2)
    assert "keys raw and sampling_rate" in tinymyo(*command, "--before", recording, code=2)


def test_info_of_speech_models(writes, speaks):
    out = tinymyo("info", "tinymyo-gaddy-recognition")
    assert "8 channels x 1600 samples (2.322 s at 689.062 Hz), above 2 Hz" in out
    assert "37 characters, and the blank of CTC" in out and "4,546,982" in out
    out = tinymyo("info", "tinymyo-gaddy-synthesis")
    assert "80 values of a spectrum and 48 phonemes for each frame" in out and "4,564,352" in out
    assert "TinyMyoForCTC" in tinymyo("info", writes) and "TinyMyoForSpeechSynthesis" in tinymyo("info", speaks)


def test_speech_is_not_streamed(writes, speaks, session):
    for model, message in (
        (writes, "a model of speech, which needs whole utterances"),
        (speaks, "emg-to-audio, which needs whole"),
    ):
        source = ("--source", "file", "--input", session / "0_emg.npy", "--sampling-rate", 1000)
        assert message in tinymyo("stream", model, *source, code=2)
