"""The simulated corpus in the layout of `gaddy`: what it holds is what the files say, and the builder reads it."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from dataset_builders.base import ConfigError, load_corpus, make_builder
from dataset_builders.errors import PreparationError
from dataset_builders.simulation import gaddy_corpus
from dataset_builders.simulation.gaddy_corpus import draw_sentences, write_gaddy_corpus
from dataset_builders.simulation.text import LEXICON
from dataset_builders.textgrid import read_textgrid
from tinymyo_hf.cli import app

PARALLEL, NONPARALLEL = 6, 4
SILENT, VOICED, OTHERS = (f"{name}_data" for name in ("silent_parallel", "voiced_parallel", "nonparallel"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "corpus"
    write_gaddy_corpus(folder, PARALLEL, NONPARALLEL)
    return folder


@pytest.fixture(scope="module")
def rows(corpus) -> dict[str, dict]:
    """Prepared utterances by name."""
    builder = make_builder("gaddy", corpus, split_file="split.json")
    return {r.name: builder.recording_table(r).to_pylist()[0] for r in builder.recordings}


def spoken_words(text):
    """The words of a printed sentence."""
    return re.sub("[^a-z]+", " ", text.lower()).split()


def utterances(corpus, folder):
    """Path without suffix, and info.json, of each sentence of a folder."""
    for path in sorted((corpus / "emg_data" / folder).glob("*/*_info.json")):
        info = json.loads(path.read_text())
        if info["sentence_index"] >= 0:
            yield str(path).removesuffix("_info.json"), info


def phone_frames(rows, phones):
    """Spectra (frames, 80) of what was said aloud while one of `phones` was said."""
    names = make_builder("gaddy", str(Path(__file__).parent)).phone_names()
    ids = [names.index(phone) for phone in phones]
    aloud = [row for row in rows.values() if row["mode"] != "silent"]
    return np.concatenate([np.array(row["targets"])[np.isin(row["phones"], ids)] for row in aloud])


def digest(folder):
    """Of every file in a folder, by name; FLAC files by their samples, their headers tell the writing library."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            soundfile.read(path)[0].tobytes() if path.suffix == ".flac" else path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_builder_reads_it(corpus, tmp_path):
    data, _ = load_corpus("gaddy", corpus, cache_dir=tmp_path / "cache", split_file="split.json")
    split = json.loads((corpus / "split.json").read_text())
    for name, part in (("dev", "validation"), ("test", "test")):
        assert len(split[name]) == 1 and set(data[part]["mode"]) == {"silent"}
        assert [[row["book"], row["sentence_index"]] for row in data[part]] == split[name]
    modes = data["train"]["mode"]
    assert [modes.count(mode) for mode in ("silent", "voiced", "nonparallel")] == [PARALLEL - 2, PARALLEL - 2, 4]
    held_out = {row["text"] for part in ("validation", "test") for row in data[part]}
    assert not held_out & set(data["train"]["text"])
    builder = make_builder("gaddy", corpus, split_file="split.json")
    _ = builder.recordings
    assert builder.left_out["clips of silence (sentence_index -1)"] == 3


def test_files_of_an_utterance(corpus):
    for folder in (SILENT, VOICED, OTHERS):
        found = list(utterances(corpus, folder))
        assert len(found) == (NONPARALLEL if folder == OTHERS else PARALLEL)
        for stem, info in found:
            emg = np.load(f"{stem}_emg.npy")
            assert emg.shape[1] == 8 and emg.dtype.kind == "f" and 1000 < len(emg) < 10_000
            for name in ("audio", "audio_clean"):
                audio, rate = soundfile.read(f"{stem}_{name}.flac")
                assert rate == 16_000 and len(audio) == 16 * len(emg)
                assert (np.abs(audio).max() > 0.02) == (folder != SILENT)
            assert info["chunks"] == [[len(emg), len(audio), 0]]
            assert soundfile.info(f"{stem}_audio.flac").format == "FLAC"


def test_alignments_are_of_the_text(corpus):
    for folder in (VOICED, OTHERS):
        for stem, info in utterances(corpus, folder):
            session, index = Path(stem).parent.name, Path(stem).name
            grid = read_textgrid(corpus / "text_alignments" / session / f"{session}_{index}_audio.TextGrid")
            words = [label for _, _, label in grid["words"] if label]
            assert words == spoken_words(info["text"])
            phones = [label for _, _, label in grid["phones"] if label not in ("", "sp")]
            assert [phone.lower().rstrip("1") for phone in phones] == [p for word in words for p in LEXICON[word]]
            for rows in grid.values():
                assert [row.start for row in rows[1:]] == [row.end for row in rows[:-1]] and rows[0].start == 0
                assert rows[-1].end == len(np.load(f"{stem}_emg.npy")) / 1000


def test_texts_are_printed_as_in_books():
    sentences = draw_sentences(200, 100, np.random.default_rng(0))
    texts = [sentence.text for sentence in sentences]
    assert len(set(texts)) == 200 and all(spoken_words(s.text) == s.words for s in sentences)
    assert all(any(character.isupper() for character in text) for text in texts)
    for mark in (".", "!", "?", ",", "—", "“", '"', ";", ":"):
        assert 1 <= sum(mark in text for text in texts) < 200


def test_the_same_words_in_silence(corpus):
    silent = {(i["book"], i["sentence_index"]): (stem, i["text"]) for stem, i in utterances(corpus, SILENT)}
    voiced = {(i["book"], i["sentence_index"]): (stem, i["text"]) for stem, i in utterances(corpus, VOICED)}
    others = {(i["book"], i["sentence_index"]) for _, i in utterances(corpus, OTHERS)}
    assert silent.keys() == voiced.keys() and not others & silent.keys()
    ratios = []
    for sentence, (stem, text) in silent.items():
        assert text == voiced[sentence][1]
        ratios.append(len(np.load(f"{stem}_emg.npy")) / len(np.load(f"{voiced[sentence][0]}_emg.npy")))
    assert np.mean(ratios) > 1 and np.std(ratios) > 0.03


def test_the_larynx_rests_in_silence(rows):
    def throat(mode):
        signals = [np.array(row["input_values"]) for row in rows.values() if row["mode"] == mode]
        power = (np.concatenate(signals, axis=1) ** 2).mean(axis=1)
        return power[3] / power.sum()

    assert throat("silent") < 0.5 * throat("voiced")


def test_sound_tells_phones_apart(rows):
    vowels = phone_frames(rows, ["aa", "ae", "iy", "ow", "uw", "eh", "ah"]).mean(axis=0)
    hisses = phone_frames(rows, ["s", "z", "sh", "ch"]).mean(axis=0)
    silence = phone_frames(rows, ["sil"]).mean(axis=0)
    # bands of 100 to 600 Hz, and of 5 to 8 kHz
    assert vowels[3:15].mean() > silence[3:15].mean() + 2
    assert hisses[68:].mean() > silence[68:].mean() + 2
    assert vowels[3:15].mean() - vowels[68:].mean() > hisses[3:15].mean() - hisses[68:].mean() + 1
    front, back = (phone_frames(rows, phones).mean(axis=0) for phones in (["iy", "ey"], ["ow", "uw", "w"]))
    # 2 to 3 kHz against 700 to 1000 Hz: where the second resonance of the one lies, and of the other
    assert front[44:54].mean() - front[18:26].mean() > back[44:54].mean() - back[18:26].mean() + 1


def test_a_clip_of_silence_begins_each_session(corpus):
    for session in (corpus / "emg_data").glob("*/*"):
        assert json.loads((session / "0_info.json").read_text())["sentence_index"] == -1
        clip, speech = np.load(session / "0_emg.npy"), np.load(session / "1_emg.npy")
        assert np.median(np.diff(clip, axis=0).std(axis=0)) < np.median(np.diff(speech, axis=0).std(axis=0))
        spectrum = np.abs(np.fft.rfft(clip - clip.mean(axis=0), axis=0)).mean(axis=1)
        mains = round(60 * len(clip) / 1000)
        assert spectrum[mains] > 3 * np.median(spectrum[mains - 20 : mains + 20])
        # the electrodes stay where they are, and so do their offsets
        np.testing.assert_allclose(clip.mean(axis=0), speech.mean(axis=0), atol=60)


def test_everything_follows_from_the_seed(corpus, tmp_path):
    write_gaddy_corpus(tmp_path / "again", PARALLEL, NONPARALLEL)
    write_gaddy_corpus(tmp_path / "other", PARALLEL, NONPARALLEL, seed=1)
    expected = digest(corpus)
    assert digest(tmp_path / "again") == expected
    same = [name for name, value in digest(tmp_path / "other").items() if expected.get(name) == value]
    assert all(name == "split.json" or name.endswith("/0_info.json") for name in same)


def test_without_sentences_that_are_only_read_aloud(tmp_path):
    write_gaddy_corpus(tmp_path / "out", 3, 0)
    recordings = make_builder("gaddy", tmp_path / "out", split_file="split.json").recordings
    assert sorted((r.mode, r.split) for r in recordings) == [
        ("silent", "test"),
        ("silent", "train"),
        ("silent", "validation"),
        ("voiced", "train"),
    ]


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(PreparationError, match="full is there and not an empty folder: choose another"):
        write_gaddy_corpus(tmp_path / "full")
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(PreparationError, match=r"out\.partial is left .*remove it"):
        write_gaddy_corpus(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine.txt", "out.partial"]
    with pytest.raises(PreparationError, match=r"cannot write to .*mine\.txt"):
        write_gaddy_corpus(tmp_path / "full" / "mine.txt" / "out")


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        assert any(tmp_path.rglob("*_emg.npy"))
        raise KeyboardInterrupt

    monkeypatch.setattr(gaddy_corpus, "sound_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_gaddy_corpus(tmp_path / "deep" / "out", 3, 0)
    assert not any((tmp_path / "deep").iterdir())


@pytest.mark.parametrize("numbers", [{"parallel": 2}, {"nonparallel": -1}, {"parallel": 1e3}, {"seed": -1}])
def test_impossible_numbers(tmp_path, numbers):
    with pytest.raises(ConfigError, match=next(iter(numbers))):
        write_gaddy_corpus(tmp_path / "out", **numbers)
    assert not any(tmp_path.iterdir())


def test_command(tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder may be there
    arguments = ["simulate", "gaddy", str(out), "--parallel", "3", "--nonparallel", "1", "--seed", "5"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "3 silent utterances (1 for development, 1 for the test)" in result.stdout
    assert f"tinymyo prepare gaddy --data-dir {out} --split_file split.json" in result.stdout
    assert len(list(out.rglob("*_emg.npy"))) == 3 + 3 + 1 + 3
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and again.stderr.startswith("tinymyo: ") and "not an empty folder" in again.stderr
