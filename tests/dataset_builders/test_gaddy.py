"""Gaddy and Klein's silent speech: signals, spectra, phones, splits, and damaged files."""

import json
import math
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fuzzing import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from dataset_builders.base import (
    ConfigError,
    DataError,
    LayoutError,
    RecordingError,
    SplitError,
    load_corpus,
    make_builder,
    table_notes,
)
from dataset_builders.textgrid import parse_textgrid

BOOK, OTHER = "books/War_of_the_Worlds.txt", "books/Other.txt"
SILENT, VOICED, NONPARALLEL = "silent_parallel_data", "voiced_parallel_data", "nonparallel_data"
# folder, session, then per utterance: book, sentence (2 is held out for validation, 73 for the test), EMG samples,
# seconds of audio. Utterances of sentence -1 are clips of silence.
SESSIONS = [
    (SILENT, "5-4_silent", [(None, -1, 900, 0.9), (BOOK, 100, 1500, 1.5), (BOOK, 73, 1400, 1.3), (BOOK, 2, 1300, 1.3)]),
    (VOICED, "5-4", [(None, -1, 800, 0.8), (BOOK, 100, 1200, 1.2), (BOOK, 73, 1250, 1.25), (BOOK, 2, 1000, 1.0)]),
    (NONPARALLEL, "5-19", [(OTHER, 73, 1100, 0.7), (BOOK, 101, 1000, 1.4), (BOOK, 102, 1700, 1.7)]),
]
PHONES = [(0.0, 0.21, ""), (0.21, 0.33, "AH0"), (0.33, 0.47, "sp"), (0.47, 0.6, "ZH"), (0.6, 0.8, "ER1")]
RATIO = 0.6890625


def write_utterance(folder: Path, index: int, book: str | None, sentence: int, samples: int, seconds: float) -> None:
    """The files of one utterance: EMG in microvolts with drift and hum, speech-like audio, info.json."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(f"{folder.name}/{index}".encode()))
    t = np.arange(samples)[:, None] / 1000
    emg = 300 * rng.normal(size=(samples, 8)) + 4000 + 500 * t + 200 * np.sin(2 * np.pi * 60 * t)
    np.save(folder / f"{index}_emg.npy", emg)
    rate = 22050 if sentence == 101 else 16000
    s = np.arange(int(seconds * rate)) / rate
    audio = 0.4 * np.sin(2 * np.pi * (200 + 800 * s) * s) + 0.05 * rng.normal(size=len(s))
    for name in ("audio", "audio_clean"):
        soundfile.write(folder / f"{index}_{name}.flac", audio, rate)
    chunks = [[600, 9600, 200], [samples - 600, len(s) - 9600, 200]]
    info = {"book": book, "sentence_index": sentence, "text": f'Sentence {sentence}: "No—never!"', "chunks": chunks}
    (folder / f"{index}_info.json").write_text(json.dumps(info))


def textgrid(phones: list[tuple[float, float, str]]) -> str:
    """An alignment as the Montreal Forced Aligner writes it."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"xmin = 0.0\nxmax = {phones[-1][1]}"]
    lines += ["tiers? <exists>", "size = 2", "item []:"]
    for i, (name, rows) in enumerate((("words", [(0.0, phones[-1][1], 'say ""12""')]), ("phones", phones)), 1):
        lines += [f"    item [{i}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += [f"        xmin = 0.0\n        xmax = {rows[-1][1]}", f"        intervals: size = {len(rows)}"]
        for j, (start, end, label) in enumerate(rows, 1):
            lines += [f"        intervals [{j}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{label}"']
    return "\n".join(lines) + "\n"


def write_corpus(root: Path) -> Path:
    """A corpus of `SESSIONS` in the layout of Zenodo 4064409, with alignments for what was said aloud."""
    for folder, session, utterances in SESSIONS:
        for index, (book, sentence, samples, seconds) in enumerate(utterances):
            write_utterance(root / "emg_data" / folder / session, index, book, sentence, samples, seconds)
            if folder != SILENT and sentence >= 0:
                path = root / "text_alignments" / session / f"{session}_{index}_audio.TextGrid"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(textgrid([*PHONES, (0.8, seconds, "sil")] if seconds > 0.8 else PHONES[:-1]))
    (root / "emg_data" / "closed_vocab" / "silent" / "5-19").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("gaddy"))


@pytest.fixture
def own(tmp_path) -> Path:
    """A corpus to damage."""
    return write_corpus(tmp_path / "own")


def tables(builder):
    """Rows and notes by recording."""
    found = {recording.name: builder.recording_table(recording) for recording in builder.recordings}
    return {name: (table.to_pylist()[0], table_notes(table.schema)) for name, table in found.items()}


def released_emg(root: Path, folder: str, session: str, index: int, harmonics: int) -> np.ndarray:
    """The signal of an utterance as the released code describes it, at 1000 Hz: (8, time)."""
    parts = []
    for i in (index - 1, index, index + 1):
        path = root / "emg_data" / folder / session / f"{i}_emg.npy"
        parts.append(np.load(path).T if path.exists() else np.empty((8, 0)))
    x = np.concatenate(parts, axis=1)
    for k in range(1, harmonics + 1):
        x = scipy_signal.filtfilt(*scipy_signal.iirnotch(60 * k, 30, 1000), x)
    x = scipy_signal.filtfilt(*scipy_signal.butter(3, 2, "highpass", fs=1000), x)
    return x[:, parts[0].shape[1] : x.shape[1] - parts[2].shape[1]]


def mel_spectrum(audio: np.ndarray) -> np.ndarray:
    """Log-mel spectrum of audio at 22,050 Hz by torch, with the triangles written out from Slaney's definition."""

    def hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    top = 15 + 27 * math.log(8) / math.log(6.4)
    edges = np.array([hertz(top * i / 81) for i in range(82)])
    bins = np.arange(513)[None] * 22050 / 1024
    low, mid, high = (edges[i : i + 80, None] for i in range(3))
    filters = np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid))) * 2 / (high - low)
    x = torch.nn.functional.pad(torch.tensor(audio)[None, None], (384, 384), mode="reflect")[0]
    window = torch.hann_window(1024, dtype=torch.float64)
    spectrum = torch.stft(x, 1024, 256, window=window, center=False, return_complex=True)[0].abs()
    return np.log(np.maximum(filters @ spectrum.numpy(), 1e-5)).T


def test_columns_and_splits(corpus):
    data, extractor = load_corpus("gaddy", corpus)
    rows = {split: {row["recording"]: row for row in part} for split, part in data.items()}
    assert {split: sorted(part) for split, part in rows.items()} == {
        "train": [f"{NONPARALLEL}/5-19/{i}" for i in range(3)] + [f"{SILENT}/5-4_silent/1", f"{VOICED}/5-4/1"],
        "validation": [f"{SILENT}/5-4_silent/3"],
        "test": [f"{SILENT}/5-4_silent/2"],
    }
    row = rows["test"][f"{SILENT}/5-4_silent/2"]
    assert row["text"] == 'Sentence 73: "No—never!"' and row["subject"] == "1" and row["session"] == "5-4_silent"
    assert (row["mode"], row["book"], row["sentence_index"]) == ("silent", BOOK, 73)
    assert row["parallel"] == f"{VOICED}/5-4/2" and row["start"] == 0
    assert rows["train"][f"{VOICED}/5-4/1"]["parallel"] == ""
    assert [rows["train"][f"{NONPARALLEL}/5-19/0"][field] for field in ("mode", "book")] == ["nonparallel", OTHER]
    names = data["train"].features["phones"].feature.names
    assert len(names) == 48 and names[2] == "ah" and names[-1] == "sil"
    assert (extractor.sampling_rate, extractor.filter_rate, extractor.gain) == (689.0625, 1000, 0.05)
    assert (extractor.band_pass, extractor.soft_limit, extractor.normalization) == ([2, None], 50, "none")


@pytest.mark.parametrize("protocol", ["paper", "reference"])
def test_no_held_out_sentence_is_trained_on(corpus, protocol):
    builder = make_builder("gaddy", corpus, protocol=protocol)
    sentences = {split: set() for split in ("train", "validation", "test")}
    for recording in builder.recordings:
        sentences[recording.split].add((recording.book, recording.sentence_index))
        assert recording.split == "train" or recording.mode == "silent"
    assert sentences["validation"] == {(BOOK, 2)} and sentences["test"] == {(BOOK, 73)}
    assert not sentences["train"] & (sentences["validation"] | sentences["test"])
    assert sum(builder.left_out.values()) == 4 and sum("silence" in what for what in builder.left_out) == 1


@pytest.mark.parametrize(("protocol", "harmonics"), [("paper", 6), ("reference", 7)])
def test_signal_is_that_of_the_released_code(corpus, protocol, harmonics):
    builder = make_builder("gaddy", corpus, protocol=protocol)
    assert builder.extractor.notch_frequencies == [60.0 * k for k in range(1, harmonics + 1)]
    rows = tables(builder)
    # those with neighbours on both sides: at the ends of a session the filters start differently
    for name in (f"{SILENT}/5-4_silent/1", f"{SILENT}/5-4_silent/2", f"{VOICED}/5-4/1", f"{NONPARALLEL}/5-19/1"):
        (row, _), (folder, session, index) = rows[name], name.split("/")
        x = released_emg(corpus, folder, session, int(index), harmonics)
        values = np.array(row["input_values"])
        if protocol == "reference":
            times = np.arange(0, (x.shape[1] - 1) / 1000, 1 / 689.0625)
            x = np.stack([np.interp(times, np.arange(x.shape[1]) / 1000, channel) for channel in x])
        else:
            x = scipy_signal.resample_poly(x, 441, 640, axis=1)
        expected = 50 * np.tanh(x[:, 8 : 8 + values.shape[1]] / 20 / 50)
        assert values.shape[1] % 8 == 0 and values.shape[1] == row["recording_length"]
        length = min(expected.shape[1], values.shape[1])
        assert length > values.shape[1] - 2
        difference = np.abs(values[:, :length] - expected[:, :length])[:, 20:-20]  # resamplers differ at the ends
        assert difference.max() < 0.1
        assert np.abs(values).max() > 20


def test_spectrum_and_phones(corpus):
    rows = tables(make_builder("gaddy", corpus))
    row, notes = rows[f"{NONPARALLEL}/5-19/1"]  # 1.4 s of audio at 22,050 Hz, 1 s of EMG
    audio, rate = soundfile.read(corpus / "emg_data" / NONPARALLEL / "5-19" / "1_audio_clean.flac")
    spectrum = mel_spectrum(audio)
    frames = round(1000 * RATIO) // 8 - 1
    assert rate == 22050 and np.array(row["input_values"]).shape == (8, 8 * frames)
    assert notes == {"audio frames after the end of the EMG": len(audio) // 256 - frames - 1}
    np.testing.assert_allclose(row["targets"], spectrum[:frames], atol=1e-3)
    names = make_builder("gaddy", corpus).phone_names()
    borders = [(int(start * 22050 / 256), label) for start, _, label in [*PHONES, (0.8, 1.4, "")]]
    spoken = {"": "sil", "sp": "sil", "AH0": "ah", "ZH": "zh", "ER1": "er"}
    expected = [spoken[next(label for border, label in reversed(borders) if border <= i)] for i in range(frames)]
    assert [names[phone] for phone in row["phones"]] == expected and {"ah", "zh", "er", "sil"} == set(expected)

    row, notes = rows[f"{NONPARALLEL}/5-19/0"]  # 0.7 s of audio, 1.1 s of EMG, alignment up to 0.6 s
    frames = int(0.7 * 22050) // 256
    assert np.array(row["input_values"]).shape == (8, 8 * frames) and len(row["targets"]) == frames
    assert notes["EMG frames after the end of the audio"] == round(1100 * RATIO) // 8 - 1 - frames
    assert notes["frames that the phone alignment does not cover, taken for silence"] == frames - int(0.6 * 22050 / 256)
    assert set(row["phones"][int(0.6 * 22050 / 256) :]) == {names.index("sil")}
    audio, rate = soundfile.read(corpus / "emg_data" / NONPARALLEL / "5-19" / "0_audio_clean.flac")
    louder = np.array(row["targets"])[:, :60]  # up to 5 kHz, where resamplers agree
    again = mel_spectrum(scipy_signal.resample_poly(audio, 441, 320))[: len(louder), :60]
    assert rate == 16000 and np.abs(louder - again)[2:-2].max() < 0.05


def test_silent_utterances_come_with_the_spectrum_of_the_same_sentence_read_aloud(corpus):
    rows = tables(make_builder("gaddy", corpus))
    silent, notes = rows[f"{SILENT}/5-4_silent/1"]
    voiced, _ = rows[silent["parallel"]]
    assert len(silent["input_values"][0]) == 8 * (int(1.5 * 22050) // 256 - 1)  # its own length: 1.5 s
    assert not notes  # the EMG always lacks its first frame
    assert silent["targets"] == voiced["targets"] and silent["phones"] == voiced["phones"]
    held_out, notes = rows[f"{SILENT}/5-4_silent/2"]
    assert len(held_out["targets"]) == round(1250 * RATIO) // 8 - 1 != len(held_out["input_values"][0]) // 8
    assert len(held_out["input_values"][0]) == 8 * (round(1.3 * 22050) // 256)  # 1.4 s of EMG
    assert list(notes) == ["EMG frames after the end of the audio"]


def test_recognition_reads_neither_audio_nor_alignments(own):
    expected = tables(make_builder("gaddy", own))
    for path in [*own.rglob("*.flac"), *own.rglob("*.TextGrid")]:
        path.unlink()
    with pytest.raises(LayoutError, match=r"no folder text_alignments.*silent_speech_alignments.*audio=False"):
        tables(make_builder("gaddy", own))
    rows = tables(make_builder("gaddy", own, audio=False))
    assert sorted(rows) == sorted(expected)
    for name, (row, notes) in rows.items():
        assert not {"targets", "phones"} & row.keys() and not notes and row["text"]
        with_audio = np.array(expected[name][0]["input_values"])
        np.testing.assert_array_equal(np.array(row["input_values"])[:, : with_audio.shape[1]], with_audio)


def test_archives_as_downloaded(corpus, tmp_path):
    for name in ("emg_data", "text_alignments"):
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz", compresslevel=1) as bundle:
            bundle.add(corpus / name, name)
    cached = make_builder("gaddy", tmp_path, tmp_path / "cache", sessions=["5-4"])
    assert tables(cached) == tables(make_builder("gaddy", corpus, sessions=["5-4"]))
    alone = make_builder("gaddy", tmp_path / "emg_data.tar.gz", tmp_path / "cache", audio=False)
    assert len(alone.recordings) == 7


def test_what_is_unpacked_beside_its_archive_is_not_extracted_again(own):
    with tarfile.open(own / "emg_data.tar.gz", "w:gz", compresslevel=1) as bundle:
        bundle.add(own / "emg_data", "emg_data")
    builder = make_builder("gaddy", own, own.parent / "cache", audio=False)
    assert all(str(own / "emg_data") in recording.path for recording in builder.recordings)
    assert not (own.parent / "cache" / "extracted_emg").exists()


def test_selected_channels_are_those_of_the_whole(corpus):
    whole, _ = tables(make_builder("gaddy", corpus, audio=False))[f"{VOICED}/5-4/1"]
    part, _ = tables(make_builder("gaddy", corpus, audio=False, channels=[5, 0]))[f"{VOICED}/5-4/1"]
    assert part["input_values"] == [whole["input_values"][5], whole["input_values"][0]]


def test_a_split_of_ones_own(own):
    (own / "mine.json").write_text(json.dumps({"dev": [[BOOK, 100]], "test": [[OTHER, 73], [BOOK, 2]]}))
    builder = make_builder("gaddy", own, split_file="mine.json")
    assert {r.name: r.split for r in builder.recordings if r.split != "train"} == {
        f"{SILENT}/5-4_silent/1": "validation",
        f"{SILENT}/5-4_silent/3": "test",
    }
    for content, error, words in (
        ({"dev": [[BOOK, 1]], "test": [[BOOK, 1]]}, SplitError, "sentence 1 is in both dev and test"),
        ({"dev": [[BOOK, "1"]], "test": []}, LayoutError, "entry 0 of 'dev'"),
        ({"dev": []}, LayoutError, "it must be"),
    ):
        (own / "mine.json").write_text(json.dumps(content))
        with pytest.raises(error, match=rf"mine.json.*{words}"):
            make_builder("gaddy", own, split_file="mine.json").recordings  # noqa: B018
    with pytest.raises(ConfigError, match="outside data_dir"):
        make_builder("gaddy", own, split_file="../mine.json").recordings  # noqa: B018


def test_options_that_contradict_the_audio(corpus):
    with pytest.raises(ConfigError, match=r"target_hop=10.*86\.1328 frames"):
        make_builder("gaddy", corpus, target_hop=10, window_length=1600, stride=1600)
    with pytest.raises(ConfigError, match='rows="recordings"'):
        make_builder("gaddy", corpus, rows="windows")
    with pytest.raises(ConfigError, match=r"needs data_dir.*emg_data.*text_alignments.*zenodo.org/records/4064409"):
        make_builder("gaddy").recordings  # noqa: B018


def info(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def state_samples(path, samples):
    """Let the header of a FLAC file promise another length than it has."""
    content = bytearray(path.read_bytes())
    content[22:26] = samples.to_bytes(4, "big")
    path.write_bytes(content)


UTTERANCE = f"{VOICED}/5-4/1"


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("1_emg.npy", lambda p: p.write_bytes(p.read_bytes()[:-800]), ["1_emg.npy"]),
        ("1_emg.npy", lambda p: np.save(p, np.array([{}, None])), ["1_emg.npy"]),
        ("1_emg.npy", lambda p: np.save(p, np.ones((900, 7))), ["1_emg.npy", "7 channels", "8 are expected"]),
        ("1_emg.npy", lambda p: np.save(p, np.full((900, 8), np.nan)), ["1_emg.npy", "channel 0", "missing"]),
        ("1_emg.npy", lambda p: np.save(p, np.random.default_rng(0).normal(size=(14, 8))), ["too short"]),
        ("2_emg.npy", lambda p: p.write_bytes(b""), ["2_emg.npy", "empty"]),  # a neighbour
        ("2_emg.npy", lambda p: np.save(p, np.full((900, 8), np.nan)), ["2_emg.npy: channel 0", "missing"]),
        ("1_emg.npy", lambda p: p.unlink(), ["1_info.json is there, 1_emg.npy is not"]),
        ("1_audio_clean.flac", lambda p: p.unlink(), ["1_audio_clean.flac", "no such file", "allow_missing"]),
        ("1_audio_clean.flac", lambda p: p.write_bytes(p.read_bytes()[:9000]), ["1_audio_clean.flac", "truncated"]),
        ("1_audio_clean.flac", lambda p: state_samples(p, 20000), ["1_audio_clean.flac", "truncated"]),
        ("1_audio_clean.flac", lambda p: p.write_text("no audio"), ["1_audio_clean.flac", "damaged"]),
        ("1_audio_clean.flac", lambda p: soundfile.write(p, np.zeros(9000), 8000), ["FLAC at 8000 Hz", "16000"]),
        ("1_audio_clean.flac", lambda p: soundfile.write(p, np.zeros(900), 16000), ["900 samples are too short"]),
        ("1_info.json", lambda p: p.write_text("{"), ["1_info.json", "not valid JSON"]),
        ("1_info.json", lambda p: p.write_text("[]"), ["1_info.json", "no sentence_index"]),
        ("1_info.json", lambda p: info(p, sentence_index=1.5), ["1_info.json", "no sentence_index"]),
        ("1_info.json", lambda p: info(p, text=None), ["1_info.json", "text is None"]),
        ("1_info.json", lambda p: info(p, text="\ud800"), ["1_info.json", "text is"]),
        ("1_info.json", lambda p: info(p, chunks=[["a"]]), ["1_info.json", "chunks"]),
        ("1_info.json", lambda p: info(p, sentence_index=999), [f"{SILENT}/5-4_silent/1_emg.npy", "sentence 100"]),
    ],
)
def test_damaged_files(own, file, damage, words):
    damage(own / "emg_data" / VOICED / "5-4" / file)
    with pytest.raises(DataError) as caught:
        tables(make_builder("gaddy", own))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (textgrid(PHONES)[:-20], "not a whole TextGrid.*interval 5 of tier 'phones'"),
        (textgrid(PHONES).replace("AH0", "QQ1"), "interval 2 of tier 'phones' is 'QQ1'"),
        (textgrid(PHONES).replace('"phones"', '"phonemes"'), "no tier 'phones'.*words, phonemes"),
        (textgrid(PHONES).replace("xmin = 0.21", "xmin = 0.11"), "interval 2 of tier 'phones' runs from 0.11"),
        (textgrid(PHONES).replace("size = 5", "size = 1e99"), "'1e99' is no size"),
        ("words", "ends before the file type"),
    ],
)
def test_damaged_alignments(own, content, words):
    (own / "text_alignments" / "5-4" / "5-4_1_audio.TextGrid").write_text(content)
    with pytest.raises(RecordingError, match=rf"5-4_1_audio.TextGrid.*{words}"):
        tables(make_builder("gaddy", own, sessions=["5-4"]))


def test_what_is_missing_is_counted(own):
    info(own / "emg_data" / VOICED / "5-4" / "1_info.json", chunks=[[5, 1, 1]])
    (own / "text_alignments" / "5-4" / "5-4_1_audio.TextGrid").unlink()
    row, notes = tables(make_builder("gaddy", own))[UTTERANCE]
    assert set(row["phones"]) == {47}
    assert notes["utterances without a phone alignment, taken for silence"] == 1
    assert notes["utterances whose info.json states another length than their EMG has"] == 1
    (own / "emg_data" / NONPARALLEL).rename(own / "elsewhere")
    with pytest.raises(LayoutError, match="no folder nonparallel_data.*allow_missing=True"):
        make_builder("gaddy", own).recordings  # noqa: B018
    info(own / "emg_data" / VOICED / "5-4" / "1_info.json", sentence_index=999)
    builder = make_builder("gaddy", own, allow_missing=True)
    assert f"{SILENT}/5-4_silent/1" not in {recording.name for recording in builder.recordings}
    assert builder.left_out["silent utterances without a recording of the same sentence read aloud"] == 1


def test_audio_of_a_silent_utterance_is_needed_for_its_length(own):
    path = own / "emg_data" / SILENT / "5-4_silent" / "1_audio_clean.flac"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(RecordingError, match=r"5-4_silent/1_audio_clean\.flac: truncated or damaged"):
        tables(make_builder("gaddy", own))
    path.unlink()
    with pytest.raises(RecordingError, match=r"5-4_silent/1_audio_clean\.flac: no such file"):
        tables(make_builder("gaddy", own))
    assert f"{SILENT}/5-4_silent/1" in tables(make_builder("gaddy", own, audio=False))


def test_utterances_without_audio_can_be_left_out(own):
    whole = {recording.name for recording in make_builder("gaddy", own).recordings}
    (own / "emg_data" / VOICED / "5-4" / "1_audio_clean.flac").unlink()
    builder = make_builder("gaddy", own, allow_missing=True)
    # the sentence read in silence has no spectrum to learn from either
    assert whole - tables(builder).keys() == {UTTERANCE, f"{SILENT}/5-4_silent/1"}
    assert builder.left_out["utterances without audio"] == 2


def test_an_empty_text_is_kept(own):
    info(own / "emg_data" / VOICED / "5-4" / "1_info.json", text="")
    assert tables(make_builder("gaddy", own, audio=False))[UTTERANCE][0]["text"] == ""


def test_short_textgrids_are_read_alike():
    values = ["0", "0.8", "<exists>", "2", '"IntervalTier"', '"phones"', "0", "0.8", "2", "0", "0.5", '"AH0"']
    values += ["0.5", ".8", '"a ""b"""', '"TextTier"', '"marks"', "0", "0.8", "1", "0.3", '"x"']
    short = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + "\n".join(values)
    assert parse_textgrid(short) == {"phones": [(0, 0.5, "AH0"), (0.5, 0.8, 'a "b"')]}
    assert parse_textgrid(textgrid(PHONES))["phones"] == PHONES


FILES = {
    "emg.npy": f"emg_data/{VOICED}/5-4/1_emg.npy",
    "audio": f"emg_data/{VOICED}/5-4/1_audio_clean.flac",
    "silent audio": f"emg_data/{SILENT}/5-4_silent/1_audio_clean.flac",
    "info.json": f"emg_data/{VOICED}/5-4/1_info.json",
    "alignment": "text_alignments/5-4/5-4_1_audio.TextGrid",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Two utterances, to damage over and over."""
    root = tmp_path_factory.mktemp("fuzz")
    for folder, session in ((SILENT, "5-4_silent"), (VOICED, "5-4")):
        write_utterance(root / "emg_data" / folder / session, 1, BOOK, 100, 700, 0.7)
    alignment = root / FILES["alignment"]
    alignment.parent.mkdir(parents=True)
    alignment.write_text(textgrid(PHONES))
    return root


@pytest.mark.parametrize("file", FILES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_our_errors_escape(small, file, data):
    path = small / FILES[file]
    valid = path.read_bytes()
    try:
        path.write_bytes(data.draw(damaged(valid)))
        builder = make_builder("gaddy", small, allow_missing=True)
        for recording in builder.recordings:
            builder.recording_table(recording)
    except DataError as error:
        assert str(error)
    finally:
        path.write_bytes(valid)
