"""Scoring models of silent speech on a corpus of files: text and audio, and that the pipelines give the same."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from transformers import pipeline
from typer.testing import CliRunner

from dataset_builders.simulation.gaddy_corpus import SPLIT_FILE, write_gaddy_corpus
from tinymyo_hf.cli import app
from tinymyo_hf.lexicon import write_lexicon

sys.path.append(str(Path(__file__).parents[1] / "tinymyo_hf"))
from tiny_speech import save_recognition, save_synthesis  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaddy")
    write_gaddy_corpus(folder, parallel=3, nonparallel=1, seed=0)
    return folder


def evaluate(checkpoint, corpus, output, *fields):
    command = ["evaluate", checkpoint, "--dataset", "gaddy", "--data-dir", corpus, "--split_file", SPLIT_FILE]
    result = CliRunner().invoke(app, [str(part) for part in (*command, "--output", output, "--no-baselines", *fields)])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout, json.loads((output / "results.json").read_text())


def with_neighbours(corpus, name):
    """The files of an utterance and of those before and after it in its session."""
    folder, index = (corpus / "emg_data" / name).parent, int(Path(name).name)
    files = {"raw": index, "before": index - 1, "after": index + 1}
    paths = {side: folder / f"{i}_emg.npy" for side, i in files.items()}
    return {**{side: path for side, path in paths.items() if path.is_file()}, "sampling_rate": 1000}


def test_text(corpus, tmp_path):
    checkpoint = save_recognition(tmp_path / "model")
    write_lexicon(["k", "l"], checkpoint / "lexicon.txt")
    shown, results = evaluate(checkpoint, corpus, tmp_path / "evaluation", "--audio", "false")
    assert "1 utterances." in shown and "WER" in shown
    scores = results["runs"][0]["test"]
    (example,) = scores["examples"]
    read = pipeline("emg-to-text", model=str(checkpoint), device="cpu")
    assert read(with_neighbours(corpus, example["recording"]))["text"] == example["greedy"]
    assert scores["wer"] >= 100.0
    pytest.importorskip("flashlight.lib.text.decoder")
    words = {"decoder": "words", "beam_size": 1500}  # the lexicon beside the checkpoint, and the beam of the test split
    assert read(with_neighbours(corpus, example["recording"]), **words)["text"] == example["beam"]
    assert set(example["beam"].split()) <= {"k", "l"}
    write_lexicon(["x"], tmp_path / "other.txt")
    options = ("--audio", "false", "--lexicon_path", tmp_path / "other.txt", "--test_beam_size", 5)
    _, results = evaluate(checkpoint, corpus, tmp_path / "other", *options)
    assert set(results["runs"][0]["test"]["examples"][0]["beam"].split()) == {"x"}
    report = (tmp_path / "other/report.md").read_text()
    assert "The beam search knows the words of `other.txt` and the 4-gram language model" in report
    assert results["lexicon_path"] == str(tmp_path / "other.txt") and "lm_path" not in results
    assert "language model of the training texts\nalone" in (tmp_path / "evaluation/report.md").read_text()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("test_beam_size", 0, "test_beam_size=0: must be a whole number"),
        ("beam_size", 1.5, "beam_size=1.5: must be a whole number"),
        ("lm_weight", "much", "lm_weight='much': must be a number"),
        ("lm_path", 5, "lm_path=5: must be the path of a file"),
    ],
)
def test_options_of_the_word_decoder(corpus, tmp_path, field, value, message):
    checkpoint = save_recognition(tmp_path / "model")
    command = ["evaluate", checkpoint, "--dataset", "gaddy", "--data-dir", corpus, "--split_file", SPLIT_FILE]
    command += ["--audio", "false", "--no-baselines", "--output", tmp_path / "out", f"--{field}", value]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "out").exists()


def test_audio(corpus, tmp_path):
    checkpoint = save_synthesis(tmp_path / "model")
    shown, results = evaluate(checkpoint, corpus, tmp_path / "evaluation")
    assert "1 utterances." in shown and results["test"]["mel_distance"]["count"] == 1
    (utterance,) = results["runs"][0]["test"]["per_utterance"]
    speak = pipeline("emg-to-audio", model=str(checkpoint), device="cpu")
    audio = speak(with_neighbours(corpus, utterance["recording"]))["audio"]
    rate, written = wavfile.read(tmp_path / "evaluation/example_1_predicted.wav")
    assert rate == 22050 and len(written) == len(audio)
    np.testing.assert_allclose(written / 32767, audio / max(1, np.abs(audio).max()), atol=2e-3)


def test_vocoder_of_an_evaluation_is_looked_for(corpus, tmp_path):
    checkpoint = save_synthesis(tmp_path / "model")
    command = ["evaluate", checkpoint, "--dataset", "gaddy", "--data-dir", corpus, "--split_file", SPLIT_FILE]
    command += ["--no-baselines", "--output", tmp_path / "out", "--vocoder"]
    for vocoder, message in (("/nowhere/vocoder", "/nowhere/vocoder: no such folder"), ("5", "5: cannot be loaded")):
        result = CliRunner().invoke(app, [str(part) for part in (*command, vocoder)])
        assert result.exit_code == 2 and message in result.stderr
