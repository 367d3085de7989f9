"""The word decoder against all alignments of short logits, with and without language model; lexicons; bad input."""

import functools
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymyo_hf.characters import CharacterVocabulary
from tinymyo_hf.decoding import DecodingError
from tinymyo_hf.decoding_lm import LanguageModelError
from tinymyo_hf.decoding_words import LexiconError, WordBeamDecoder, lexicon_of
from tinymyo_hf.language_model import build_language_model
from tinymyo_hf.lexicon import read_lexicon, write_lexicon
from tinymyo_hf.speech_text import SPEECH_CHARACTERS
from tinymyo_hf.tokenization import EmgCharacterTokenizer

pytest.importorskip("flashlight.lib.text", reason="needs the extra ctc")
kenlm = pytest.importorskip("kenlm", reason="needs the extra ctc")

AB = EmgCharacterTokenizer(characters="ab ")
SPEECH = EmgCharacterTokenizer(characters=SPEECH_CHARACTERS)
LEXICON = ["a", "aa", "ab", "b", "ba", "bab"]
TEXTS = ["a b", "ab ba", "a a bab", "b a b", "aa", "ab a"]


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    build_language_model(TEXTS, path, order=3)
    return path


@pytest.fixture(scope="module")
def exact(arpa):
    """A decoder that drops nothing, with the language model."""
    return WordBeamDecoder(AB, LEXICON, arpa, beam_size=10_000, lm_weight=1.5, word_score=-0.3, beam_threshold=1e4)


@functools.cache
def alignments(frames):
    """{text: (alignments, frames)} of all that four labels in so many frames can spell, by the rules of CTC."""
    found = {}
    for path in itertools.product(range(4), repeat=frames):
        spelled = "".join(AB.characters[label] for label, _ in itertools.groupby(path) if label != 3)
        found.setdefault(" ".join(spelled.split()), []).append(path)
    return {text: np.array(paths) for text, paths in found.items()}


def best_of_all(logits, language_model=None, lm_weight=0.0, word_score=0.0):
    """The best text and its score, from all texts of words of the lexicon."""
    frames = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    scores = {
        text: frames[np.arange(len(frames)), paths].sum(axis=1).max()
        + lm_weight * (language_model.score(text) if language_model else 0)
        + word_score * len(text.split())
        for text, paths in alignments(len(frames)).items()
        if set(text.split()) <= set(LEXICON)
    }
    text = max(scores, key=scores.get)
    return text, scores[text], sorted(scores.values())[-2]


def spelled(text, sharpness=8.0, noise=0.0, seed=0):
    """Logits of speech that spell `text`, two frames and a blank for each character."""
    ids = [label for i in SPEECH(text).input_ids for label in (i, i, SPEECH.pad_token_id)]
    return np.eye(38)[ids] * sharpness + noise * np.random.default_rng(seed).normal(size=(len(ids), 38))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 6), sharpness=st.sampled_from([0.5, 2.0, 5.0]))
def test_the_best_of_all_is_found(exact, arpa, seed, frames, sharpness):
    logits = np.random.default_rng(seed).normal(size=(frames, 4)) * sharpness
    text, score, second = best_of_all(logits, load(str(arpa)), 1.5, -0.3)
    found = exact.hypothesis(logits)
    assert found.score == pytest.approx(score, abs=1e-4)
    assert found.text == text or score - second < 1e-4


@functools.cache
def load(path):
    return kenlm.Model(path)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 6), word_score=st.sampled_from([-1.0, 0.0, 2.0]))
def test_the_best_of_all_is_found_without_language_model(seed, frames, word_score):
    logits = np.random.default_rng(seed).normal(size=(frames, 4)) * 2
    decoder = WordBeamDecoder(AB, LEXICON, beam_size=10_000, word_score=word_score, beam_threshold=1e4)
    text, score, second = best_of_all(logits, word_score=word_score)
    found = decoder.hypothesis(logits)
    assert found.score == pytest.approx(score, abs=1e-4)
    assert found.text == text or score - second < 1e-4


@pytest.mark.parametrize("names", [SPEECH, CharacterVocabulary.of(SPEECH_CHARACTERS)])
def test_words_as_they_are_spelled(names):
    decoder = WordBeamDecoder(names, ["hello", "the", "cat", "hell", "o", "cattle"])
    for said in ("hello the cat", "hell o", "the the", "o o"):
        assert decoder.decode(spelled(said)) == said
    assert decoder.decode(spelled("  the   cat ")) == "the cat"
    assert decoder.decode(spelled("helo thw cad")) == "hello the cat"
    assert decoder.decode(spelled(" ")) == decoder.decode(np.zeros((0, 38))) == ""
    assert decoder.unknown_words == 0 and decoder.words == sorted(decoder.words)


def test_the_language_model_decides_between_words_that_sound_alike(tmp_path):
    build_language_model(["the sea is blue", "i see the sea", "you see it"], tmp_path / "lm.arpa", 3)
    lexicon = ["the", "sea", "see", "is", "blue", "i", "you", "it"]
    logits = spelled("i sez thz sez is")
    logits[:, [SPEECH.get_vocab()[c] for c in "ae"]] += 3
    assert WordBeamDecoder(SPEECH, lexicon, tmp_path / "lm.arpa").decode(logits) == "i see the sea is"


def test_logits_of_any_kind(exact):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = exact.hypothesis(logits)
    shifted = exact.hypothesis(logits + torch.arange(5.0)[:, None])
    assert shifted.text == expected.text and shifted.score == pytest.approx(expected.score, abs=1e-4)
    assert exact.decode(logits.requires_grad_()) == exact.decode(logits.detach().numpy()) == expected.text
    certain = np.where(np.eye(4)[[0, 3, 2, 1]] > 0, 0, -np.inf)
    assert exact.hypothesis(certain).text == "a b" and math.isfinite(exact.hypothesis(certain).score)
    with np.errstate(all="raise"):
        assert isinstance(exact.decode(logits.detach().to(torch.bfloat16)), str)


def test_a_beam_of_one_gives_finished_words():
    decoder = WordBeamDecoder(SPEECH, ["the", "cat"], beam_size=1)
    assert decoder.decode(spelled("the cat")) == "the cat"
    assert decoder.decode(spelled("the ca")) == "the"


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((3, 5)), r"shape \(3, 5\); pass \(frames, 4\)"),
        (np.zeros((1, 3, 4)), r"shape \(1, 3, 4\)"),
        (np.array([[0.0] * 4, [0, np.nan, 0, 0]]), "logits of frame 1 are not numbers"),
        (np.full((2, 4), -np.inf), "logits of frame 0 are not numbers"),
    ],
)
def test_logits_that_are_refused(exact, logits, message):
    with pytest.raises(DecodingError, match=message):
        exact.decode(logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"beam_threshold": 0.0}, "beam_threshold is 0.0"),
        ({"lm_weight": math.nan}, "lm_weight is nan"),
        ({"word_score": math.inf}, "word_score is inf"),
        ({"tokenizer": EmgCharacterTokenizer(characters="ab")}, "no space"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(DecodingError, match=message):
        WordBeamDecoder(**({"tokenizer": AB, "lexicon": LEXICON} | options))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "lexicon is empty"),
        (["a", "xa", "b b"], "2 words .* does not have, or none: 'b b', 'xa'; normalise"),
        (["a", ""], "1 words"),
    ],
)
def test_lexicons_that_are_refused(words, message):
    with pytest.raises(LexiconError, match=message):
        WordBeamDecoder(AB, words)


def test_language_models_that_are_refused(tmp_path, arpa):
    damaged, foreign = tmp_path / "damaged.arpa", tmp_path / "foreign.arpa"
    damaged.write_bytes(arpa.read_bytes()[:200])
    build_language_model([text.upper() for text in TEXTS], foreign)
    lines = ["\\data\\", "ngram 1=3", "", "\\1-grams:", "-1\t<unk>", "-1\t<s>", "-1\t</s>", "", "\\end\\", ""]
    (tmp_path / "short.arpa").write_text("\n".join(lines))
    for path, message in {
        tmp_path / "none.arpa": "no such language model",
        tmp_path: "no such language model",
        damaged: "not a language model",
        foreign: "knows none of the 6 words of the lexicon .such as 'a'.*small letters",
        tmp_path / "short.arpa": "order 1",
    }.items():
        with pytest.raises(LanguageModelError, match=message) as raised:
            WordBeamDecoder(AB, LEXICON, path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_words_that_the_language_model_does_not_know_are_counted(arpa):
    assert WordBeamDecoder(AB, LEXICON, arpa).unknown_words == 0
    assert WordBeamDecoder(AB, [*LEXICON, "bbb", "abba"], arpa).unknown_words == 2


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    with pytest.raises(DecodingError, match=r"flashlight-text: pip install 'tinymyo-hf\[ctc\]'"):
        WordBeamDecoder(AB, LEXICON)


def test_lexicon_files(tmp_path):
    words = lexicon_of(["The old man's 2 boats.", "", "the OLD sea"])
    assert words == ["boats", "mans", "old", "sea", "the", "two"]
    path = tmp_path / "some" / "lexicon.txt"
    write_lexicon(words, path)
    assert path.read_text().splitlines()[-1] == "two\tt w o |" and read_lexicon(path) == words
    assert len(list(path.parent.iterdir())) == 1
    assert WordBeamDecoder(SPEECH, path).words == WordBeamDecoder(SPEECH, str(path)).words == words
    path.write_text("the\n\nold o l d\nold\to l d |\n")
    assert WordBeamDecoder(SPEECH, path).words == ["old", "the"]
    path.write_text("gr\u00fcn\n", encoding="utf-8")
    with pytest.raises(
        LexiconError, match="lexicon.txt: 1 words of the lexicon have characters .*'gr\u00fcn'.*build-lm --norm"
    ):
        WordBeamDecoder(SPEECH, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such lexicon; make one with `tinymyo build-lm TEXT --out lm.arpa --lexicon lexicon.txt`"),
        (b"\n \n", "without words"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        (b"the\tt h e |\ncat\tk ae t |\n", "line 2: 'cat' is spelled 'k ae t |', not by its characters"),
    ],
)
def test_lexicon_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "lexicon.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LexiconError, match=message) as raised:
        read_lexicon(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("words", [[], ["two words"], [""], ["a|b"]])
def test_words_that_no_lexicon_holds(tmp_path, words):
    with pytest.raises(LexiconError, match="lexicon.txt: "):
        write_lexicon(words, tmp_path / "lexicon.txt")
    assert not list(tmp_path.iterdir())
