"""Pipelines of silent speech: text by every decoder, audio, neighbouring utterances, and what is refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_speech import RATE, save_recognition, save_synthesis, speech_extractor, utterance
from transformers import AutoFeatureExtractor, AutoProcessor, SpeechT5HifiGan, SpeechT5HifiGanConfig, pipeline

from tinymyo_hf import (
    EmgCharacterTokenizer,
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForCTC,
    TinyMyoForSequenceClassification,
    TinyMyoForSpeechSynthesis,
    TinyMyoProcessor,
    in_context,
)
from tinymyo_hf.audio import griffin_lim, log_mel_of_mfcc
from tinymyo_hf.decoding import BeamSearchDecoder, DecodingError, greedy_decode
from tinymyo_hf.decoding_alignment import align_ids
from tinymyo_hf.lexicon import write_lexicon
from tinymyo_hf.signal import SignalError
from tinymyo_hf.speech_text import SPEECH_CHARACTERS

TOKENIZER = EmgCharacterTokenizer(characters=SPEECH_CHARACTERS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_recognition(tmp_path_factory.mktemp("recognition"))


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return save_synthesis(tmp_path_factory.mktemp("synthesis"))


@pytest.fixture(scope="module")
def read(checkpoint):
    return pipeline("emg-to-text", model=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def speak(voice):
    return pipeline("emg-to-audio", model=str(voice), device="cpu")


def prepared(recording, context=(0, 0)):
    """As the builder of the corpus prepares an utterance: whole frames, without the first."""
    processed = speech_extractor().preprocess(recording, 1000, context=context)
    samples = recording.shape[1] - sum(context)
    frames = round(samples * RATE / 1000) // 8 - 1
    return torch.tensor(processed[None, :, 8 : 8 + 8 * frames])


@torch.no_grad()
def logits_of(checkpoint, *arguments):
    return TinyMyoForCTC.from_pretrained(checkpoint).eval()(prepared(*arguments)).logits[0].numpy()


def spelled(ids):
    return " ".join(TOKENIZER.decode(ids).split())


def test_text_is_that_of_the_prepared_utterance(read, checkpoint):
    logits = logits_of(checkpoint, utterance())
    result = read(utterance(), sampling_rate=1000)
    assert result["text"] == spelled(greedy_decode(logits[None], blank=37)[0])
    words = result["words"]
    assert len(words) > 1 and [word["word"] for word in words] == result["text"].split()
    best = logits.argmax(-1)
    first = next(f for f in range(len(best)) if best[f] not in (36, 37))
    last = next(f for f in reversed(range(len(best))) if best[f] not in (36, 37))
    assert words[0]["start"] == pytest.approx(8 * (first + 1) / RATE)
    assert words[-1]["end"] == pytest.approx(8 * (last + 2) / RATE)
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(words))


def test_several_utterances_in_one_batch(read):
    utterances = [utterance(length, seed) for seed, length in enumerate((700, 500, 611))]
    assert read(utterances, sampling_rate=1000, batch_size=2) == [read(x, sampling_rate=1000) for x in utterances]


def test_neighbours_settle_the_filters(read, checkpoint, tmp_path):
    session = [utterance(length, seed) + 100 * seed for seed, length in enumerate((400, 500, 600))]
    together = np.concatenate(session, axis=1)
    expected = spelled(greedy_decode(logits_of(checkpoint, together, (400, 600))[None], blank=37)[0])
    paths = [tmp_path / f"{i}_emg.npy" for i in range(3)]
    for path, emg in zip(paths, session, strict=True):
        np.save(path, emg.T)
    assert read(in_context(session), sampling_rate=1000)[1]["text"] == expected
    assert read(in_context(paths), sampling_rate=1000)[1]["text"] == expected
    alone = read({"raw": session[1], "sampling_rate": 1000})["text"]
    assert alone != expected
    assert read({"raw": session[1], "sampling_rate": 1000, "before": None})["text"] == alone
    np.savez(tmp_path / "fast.npz", emg=session[0].T, fs=2000)
    for neighbour, message in (
        (session[0][:7], "recording, the utterance before it: recording: 7 channels"),
        (session[0][0], "the utterance before it: .*2-dimensional"),
        (np.full((8, 400), np.nan), "the utterance before it: .*channel 0 has 400 missing"),
        (tmp_path / "fast.npz", "states a sampling rate of 2000 Hz, but sampling_rate=1000"),
        ({"raw": session[0], "sampling_rate": 2000}, "sampled at 1000 Hz, the utterance before it at 2000 Hz"),
    ):
        with pytest.raises(SignalError, match=message):
            read({"raw": session[1], "sampling_rate": 1000, "before": neighbour})
    short = {"raw": session[1], "sampling_rate": 1000, "before": session[0][:, :5] * 0}  # enough to settle filters
    assert read(short)["text"]


def test_sessions_in_context():
    first, second = utterance(400), utterance(500)
    for session in (np.stack([first, first]), iter([first, first])):
        found = in_context(session)
        assert [sorted(each) for each in found] == [["after", "raw"], ["before", "raw"]]
    stated = [{"raw": first, "sampling_rate": 1000}, {"raw": second, "sampling_rate": 1000}]
    found = in_context(stated)
    assert found[0]["raw"] is first and found[0]["sampling_rate"] == 1000 and found[0]["after"] is stated[1]
    assert in_context([]) == [] and stated[0].keys() == {"raw", "sampling_rate"}
    for one in ("1_emg.npy", Path("1_emg.npy"), first, stated[0]):
        with pytest.raises(SignalError, match="one utterance; give those of a session"):
            in_context(one)


def test_beam_search(read, checkpoint):
    expected = BeamSearchDecoder(TOKENIZER, beam_size=4).decode(logits_of(checkpoint, utterance())).ids
    assert read(utterance(), sampling_rate=1000, decoder="beam", beam_size=4)["text"] == spelled(expected)


def test_words_of_the_lexicon_beside_the_checkpoint(read, checkpoint, tmp_path):
    pytest.importorskip("flashlight.lib.text.decoder")
    from tinymyo_hf.decoding_words import WordBeamDecoder
    from tinymyo_hf.language_model import build_language_model

    with pytest.raises(DecodingError, match=r"there is no lexicon.txt in .*pass lexicon_path"):
        read(utterance(), sampling_rate=1000, decoder="words")
    read.save_pretrained(tmp_path)
    words = list("kl16aix")
    write_lexicon(words, tmp_path / "lexicon.txt")
    own = pipeline("emg-to-text", model=str(tmp_path), device="cpu")
    logits = logits_of(checkpoint, utterance())
    found = own(utterance(), sampling_rate=1000, decoder="words", beam_size=20)
    assert found["text"] == WordBeamDecoder(TOKENIZER, words, beam_size=20).decode(logits)
    assert set(found["text"].split()) <= set(words) and [w["word"] for w in found["words"]] == found["text"].split()

    build_language_model(["k l", "k l x", "x k l"], tmp_path / "lm.arpa", order=2)
    again = pipeline("emg-to-text", model=str(tmp_path), device="cpu")
    weighed = again(utterance(), sampling_rate=1000, decoder="words", lm_weight=50.0)["text"]
    assert weighed == WordBeamDecoder(TOKENIZER, words, tmp_path / "lm.arpa", lm_weight=50.0).decode(logits)
    assert weighed != found["text"]
    write_lexicon(["x"], tmp_path / "other.txt")
    options = {"decoder": "words", "lexicon_path": tmp_path / "other.txt"}
    assert set(again(utterance(), sampling_rate=1000, **options)["text"].split()) == {"x"}
    again.save_pretrained(tmp_path / "copy")
    copied = {path.name for path in (tmp_path / "copy").iterdir()}
    assert {"lexicon.txt", "lm.arpa", "vocab.json", "preprocessor_config.json", "config.json"} <= copied


def test_nothing_said(checkpoint):
    read = pipeline("emg-to-text", model=str(checkpoint), device="cpu")
    with torch.no_grad():
        read.model.lm_head.bias[37] = 1e4
    assert read(utterance(), sampling_rate=1000) == {"text": "", "words": []}


@pytest.mark.parametrize("seed", range(30))
def test_alignment_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    frames, ids = int(rng.integers(1, 6)), rng.integers(0, 2, rng.integers(0, 4)).tolist()
    logits = rng.normal(size=(frames, 3))
    paths = [
        path
        for path in itertools.product(range(3), repeat=frames)
        if [label for label, _ in itertools.groupby(path) if label != 2] == ids
    ]
    if not paths:
        assert align_ids(logits, ids, 2) is None
        return
    best = max(paths, key=lambda path: logits[range(frames), path].sum())
    runs, frame = [], 0
    for label, run in itertools.groupby(best):
        length = len(list(run))
        runs += [(frame, frame + length - 1)] * (label != 2)
        frame += length
    assert align_ids(logits, ids, 2) == runs


def test_alignment_of_a_long_text():
    ids = np.random.default_rng(0).integers(0, 5, 400)
    frames = np.stack([ids, np.full(400, 5)], axis=1).ravel()  # a blank behind each
    assert align_ids(np.eye(6)[frames], ids.tolist(), 5) == [(2 * i, 2 * i) for i in range(400)]


def test_what_is_refused(read, checkpoint):
    x = utterance()
    for recording, options, message in (
        (x, {}, "sampling rate is not known; pass sampling_rate.*1000 Hz"),
        (x, {"sampling_rate": 2000}, "sampled at 2000 Hz"),
        (x.T, {"sampling_rate": 1000}, "transpose"),
        (x[:, :20], {"sampling_rate": 1000}, "fewer than two frames of 8; use a longer recording"),
        (x, {"sampling_rate": 1000, "stride": 100}, "stride: recordings run whole"),
        (x, {"sampling_rate": 1000, "decoder": "best"}, "decoder='best': unknown; use one of greedy, beam, words"),
        (x, {"sampling_rate": 1000, "lexicon_path": "a"}, "'greedy' has no use for it; set decoder to words"),
        (x, {"sampling_rate": 1000, "beam_size": 3}, "set decoder to beam or words"),
        ({"raw": x, "sampling_rate": 1000, "behind": x}, {}, "keys raw and sampling_rate"),
    ):
        with pytest.raises(ValueError, match=message):
            read(recording, **options)
    parts = {"model": TinyMyoForCTC.from_pretrained(checkpoint), "tokenizer": TOKENIZER, "device": "cpu"}
    with pytest.raises(SignalError, match=r"patch_size=20, but the model has frames of 8 samples"):
        pipeline("emg-to-text", feature_extractor=TinyMyoFeatureExtractor(), **parts)


@torch.no_grad()
def test_audio_is_that_of_the_spectrum(speak, voice):
    output = TinyMyoForSpeechSynthesis.from_pretrained(voice).eval()(prepared(utterance()))
    result = speak(utterance(), sampling_rate=1000)
    spectrogram = output.spectrogram[0].numpy()
    np.testing.assert_allclose(result["spectrogram"], spectrogram, atol=1e-5)
    assert result["spectrogram"].shape == (59, 80) and result["sampling_rate"] == 22050
    assert result["audio"].dtype == np.float32 and result["audio"].shape == (59 * 256,)
    np.testing.assert_array_equal(result["audio"], griffin_lim(result["spectrogram"]))
    assert result["phonemes"] == [f"p{i}" for i in output.phoneme_logits[0].argmax(-1).tolist()]


def test_audio_of_several_utterances(speak):
    session = [utterance(length, seed) for seed, length in enumerate((400, 300, 350))]
    one_by_one = [speak(each, sampling_rate=1000) for each in in_context(session)]
    batch = speak(in_context(session), sampling_rate=1000, batch_size=3)
    for found, expected in zip(batch, one_by_one, strict=True):
        np.testing.assert_allclose(found["spectrogram"], expected["spectrogram"], atol=1e-5)
        assert found["phonemes"] == expected["phonemes"]
    assert not np.allclose(one_by_one[0]["spectrogram"], speak(session[0], sampling_rate=1000)["spectrogram"])


def test_cepstral_coefficients_become_a_spectrum(tmp_path):
    folder = save_synthesis(tmp_path, num_mel_bins=26, num_phonemes=5, id2label={0: "a"}, label2id={"a": 0})
    result = pipeline("emg-to-audio", model=str(folder), device="cpu")(utterance(300), sampling_rate=1000)
    with torch.no_grad():
        output = TinyMyoForSpeechSynthesis.from_pretrained(folder).eval()(prepared(utterance(300)))
    expected = log_mel_of_mfcc(output.spectrogram[0].numpy())
    np.testing.assert_allclose(result["spectrogram"], expected, atol=1e-5)
    assert result["spectrogram"].shape == (24, 80)
    assert set(result["phonemes"]) <= set("01234")  # numbers, as the names are not those of phonemes


def test_vocoder(voice, tmp_path):
    torch.manual_seed(0)
    config = SpeechT5HifiGanConfig(
        sampling_rate=22050, upsample_initial_channel=16, upsample_rates=[8, 8, 4], upsample_kernel_sizes=[16, 16, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], normalize_before=False,
    )  # fmt: skip
    vocoder = SpeechT5HifiGan(config).eval()
    vocoder.save_pretrained(tmp_path / "vocoder")
    speak = pipeline("emg-to-audio", model=str(voice), vocoder=str(tmp_path / "vocoder"), device="cpu")
    result = speak(utterance(300), sampling_rate=1000)
    with torch.no_grad():
        expected = vocoder(torch.tensor(result["spectrogram"])).numpy()
    np.testing.assert_allclose(result["audio"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="nowhere/vocoder: no such folder"):
        pipeline("emg-to-audio", model=str(voice), vocoder="/nowhere/vocoder", device="cpu")


def test_models_of_other_tasks_are_named(voice, checkpoint):
    with pytest.raises(SignalError, match='but emg-to-text needs .*use pipeline."emg-to-audio"'):
        pipeline("emg-to-text", model=str(voice), device="cpu", tokenizer=TOKENIZER)
    with pytest.raises(SignalError, match='but emg-to-audio needs .*use pipeline."emg-to-text"'):
        pipeline("emg-to-audio", model=str(checkpoint), device="cpu")


def test_processor_of_speech(checkpoint, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert isinstance(processor, TinyMyoProcessor)
    recordings = [utterance(700), utterance(500, 1)]
    batch = processor(recordings, text=["hi", "a 9 b"], sampling_rate=1000, return_tensors="pt")
    assert batch["labels"].tolist() == [[7, 8, -100, -100, -100], [0, 36, 35, 36, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [round(n * RATE / 1000) for n in (700, 500)]
    assert torch.isfinite(TinyMyoForCTC.from_pretrained(checkpoint)(**batch).loss)
    processor.save_pretrained(tmp_path)
    again = TinyMyoProcessor.from_pretrained(tmp_path)
    assert again.tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert again.feature_extractor.to_dict() == processor.feature_extractor.to_dict()


def test_heads_without_text_have_a_feature_extractor_as_processor(voice, checkpoint, tmp_path):
    config = TinyMyoConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    TinyMyoForSequenceClassification(config).save_pretrained(tmp_path)
    TinyMyoFeatureExtractor().save_pretrained(tmp_path)
    for folder in (voice, tmp_path):
        found = AutoProcessor.from_pretrained(folder)
        assert isinstance(found, TinyMyoFeatureExtractor)
        assert found.to_dict() == AutoFeatureExtractor.from_pretrained(folder).to_dict()
    for name in ("vocab.json", "tokenizer_config.json"):  # a head that cannot do without is not given half of it
        (checkpoint / name).rename(tmp_path / name)
    try:
        with pytest.raises(ValueError, match=r"no vocab.json"):
            AutoProcessor.from_pretrained(checkpoint)
    finally:
        for name in ("vocab.json", "tokenizer_config.json"):
            (tmp_path / name).rename(checkpoint / name)
