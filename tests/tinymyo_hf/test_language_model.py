"""Estimated language models against the formulas computed another way, as kenlm reads them, and what is refused."""

import collections
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tinymyo_hf.cli import app
from tinymyo_hf.language_model import LanguageModelError, build_language_model
from tinymyo_hf.lexicon import read_lexicon

WORDS = ["a", "b", "c", "dd", "é"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join), min_size=1, max_size=25).filter(any)


class Slow:
    """Interpolated modified Kneser-Ney, recursively from sets of n-grams, following Chen & Goodman (1998)."""

    def __init__(self, texts, order):
        sentences = [["<s>", *text.split(), "</s>"] for text in texts if text.split()]
        self.raw = collections.Counter(
            tuple(words[i : i + n])
            for words in sentences
            for n in range(1, order + 1)
            for i in range(len(words) - n + 1)
        )
        self.order = max(len(gram) for gram in self.raw)
        left = collections.defaultdict(set)
        for gram in self.raw:
            left[gram[1:]].add(gram[0])
        self.counts = {
            gram: raw if len(gram) == self.order or gram[0] == "<s>" else len(left[gram])
            for gram, raw in self.raw.items()
            if gram != ("<s>",)
        }
        self.vocabulary = sorted({gram[0] for gram in self.raw} - {"<s>"}) + ["<unk>"]
        self.following = collections.defaultdict(list)
        for gram in self.counts:
            self.following[gram[:-1]].append(gram)
        self.discounts = [self._discounts(n) for n in range(1, self.order + 1)]

    def _discounts(self, n):
        seen = collections.Counter(count for gram, count in self.counts.items() if len(gram) == n)
        if all(seen[k] for k in (1, 2, 3, 4)):
            y = seen[1] / (seen[1] + 2 * seen[2])
            values = [k - (k + 1) * y * seen[k + 1] / seen[k] for k in (1, 2, 3)]
            if all(0 < value <= k for k, value in enumerate(values, 1)):
                return values
        return [0.5, 1, 1.5]

    def probability(self, word, context):
        context = tuple(context)[-self.order + 1 :] if self.order > 1 else ()
        while context and context not in self.following:
            context = context[1:]
        return self._interpolated(word, context)

    def _interpolated(self, word, context):
        taken = lambda gram: self.discounts[len(gram) - 1][min(self.counts[gram], 3) - 1]  # noqa: E731
        grams = self.following[context]
        total = sum(self.counts[gram] for gram in grams)
        given = sum(taken(gram) for gram in grams) / total
        gram = (*context, word)
        kept = (self.counts[gram] - taken(gram)) / total if gram in self.counts else 0
        below = self._interpolated(word, context[1:]) if context else 1 / len(self.vocabulary)
        return kept + given * below

    def score(self, text):
        words = ["<s>", *(word if word in self.vocabulary else "<unk>" for word in text.split()), "</s>"]
        return sum(math.log10(self.probability(words[i], words[:i])) for i in range(1, len(words)))


def load(path):
    kenlm = pytest.importorskip("kenlm", reason="needs the extra ctc")
    config = kenlm.Config()
    config.show_progress = False
    return kenlm.Model(str(path), config)


def next_probabilities(model, context, words):
    """Of each word after the words of `context`, which begins a sentence."""
    import kenlm

    state = kenlm.State()
    model.BeginSentenceWrite(state)
    for word in context:
        after = kenlm.State()
        model.BaseScore(state, word, after)
        state = after
    return [10 ** model.BaseScore(state, word, kenlm.State()) for word in words]


def ngrams_of(path):
    """{n-gram: (log10 probability, log10 back-off)} as the file states them."""
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines() if "\t" in line]
    return {tuple(row[1].split(" ")): (float(row[0]), float(row[2]) if len(row) > 2 else None) for row in rows}


def test_a_tiny_model_by_hand(tmp_path):
    built = build_language_model(["a b", "", "a c"], tmp_path / "lm.arpa", order=2)
    assert (built.sentences, built.words, built.ngrams, built.order) == (2, 4, (6, 5), 2)
    grams = ngrams_of(tmp_path / "lm.arpa")
    # words seen before a, b, c: 1 each, before </s>: 2; discounts 0.5 of 1 and 1 of 2, so of 5 there are 2.5 to give
    unigram = {"<unk>": 0.5 / 5, "a": (0.5 + 0.5) / 5, "</s>": (1 + 0.5) / 5}
    for word, probability in unigram.items():
        assert 10 ** grams[word,][0] == pytest.approx(probability, rel=1e-6)
    assert grams["<s>",][0] == -99 and grams["<s>",][1] == pytest.approx(math.log10(1 / 2))
    assert 10 ** grams["<s>", "a"][0] == pytest.approx((2 - 1) / 2 + 1 / 2 * 0.2)
    assert 10 ** grams["a",][1] == pytest.approx((0.5 + 0.5) / 2)
    assert 10 ** grams["a", "b"][0] == pytest.approx((1 - 0.5) / 2 + 0.5 * 0.2)
    assert 10 ** grams["b", "</s>"][0] == pytest.approx((1 - 0.5) / 1 + 0.5 * 0.3)
    assert grams["</s>",][1] == 0 and len(grams) == 11


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.integers(2, 4), st.lists(st.sampled_from([*WORDS, "new"]), max_size=6))
def test_scores_are_those_of_the_formulas(tmp_path_factory, texts, order, sentence):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    build_language_model(texts, path, order)
    model, slow = load(path), Slow(texts, order)
    assert model.order == slow.order
    for text in (" ".join(sentence), texts[0]):
        assert model.score(text) == pytest.approx(slow.score(text), abs=1e-4)
    for context in ([], sentence, texts[-1].split()):
        assert sum(next_probabilities(model, context, slow.vocabulary)) == pytest.approx(1, abs=1e-5)


def test_discounts_come_from_the_text_where_it_is_long_enough(tmp_path):
    texts = [" ".join(words) for words in itertools.product("abcd", "ab", "abc") if words != ("a", "a", "a")]
    texts += texts[:9] + texts[:4] + texts[:2] + ["d d d d", "zebra b"]
    slow = Slow(texts, 3)
    assert any(discounts != [0.5, 1, 1.5] for discounts in slow.discounts)
    build_language_model(texts, tmp_path / "lm.arpa", 3)
    model = load(tmp_path / "lm.arpa")
    for text in ("a b c", "zebra d d", "c c c c c", "unheard"):
        assert model.score(text) == pytest.approx(slow.score(text), abs=1e-4)


def test_the_same_text_gives_the_same_file_whole_or_in_pieces(tmp_path):
    texts = ["the cat  sat", "on the mat", "the end"]
    build_language_model(texts, tmp_path / "one" / "lm.arpa")
    build_language_model(iter(texts), tmp_path / "two.arpa")
    assert (tmp_path / "one" / "lm.arpa").read_bytes() == (tmp_path / "two.arpa").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two.arpa"]


def test_short_sentences_lower_the_order(tmp_path):
    assert build_language_model(["one", "two"], tmp_path / "lm.arpa", order=5).order == 3
    assert load(tmp_path / "lm.arpa").order == 3


@pytest.mark.parametrize(
    ("texts", "order", "message"),
    [
        (["", "  "], 4, "no words"),
        (["a <s> b"], 4, "'<s>', which stands for something else"),
        (["a <UNK> b"], 4, "'<UNK>', which stands for something else"),
        (["a\0b"], 4, "null character"),
        (["a b"], 1, "order is 1; give 2 to 6"),
        (["a b"], 7, "order is 7"),
    ],
)
def test_what_is_refused_leaves_no_file(tmp_path, texts, order, message):
    with pytest.raises(LanguageModelError, match=message):
        build_language_model(texts, tmp_path / "lm.arpa", order)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_model(tmp_path):
    def broken():
        yield "a b"
        raise OSError("the disk is gone")

    build_language_model(["a"], tmp_path / "lm.arpa")
    before = (tmp_path / "lm.arpa").read_bytes()
    with pytest.raises(OSError, match="the disk is gone"):
        build_language_model(broken(), tmp_path / "lm.arpa")
    assert (tmp_path / "lm.arpa").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def build_lm(*arguments):
    return CliRunner().invoke(app, ["build-lm", *map(str, arguments)])


def test_the_command_writes_model_and_lexicon(tmp_path):
    (tmp_path / "text.txt").write_text("\ufeffThe 2 caf\u00e9s.\n\nThe end\n", encoding="utf-8")
    out, lexicon = tmp_path / "lm.arpa", tmp_path / "words" / "lexicon.txt"
    result = build_lm(tmp_path / "text.txt", "--out", out, "--order", 2, "--lexicon", lexicon, "--normalize")
    assert result.exit_code == 0, result.output
    assert f"{out}: a model of order 2 (7, 6 n-grams) from 5 words in 2 sentences" in result.output
    assert lexicon.read_text("utf-8") == "cafes\tc a f e s |\nend\te n d |\nthe\tt h e |\ntwo\tt w o |\n"
    build_language_model(["the two cafes", "the end"], tmp_path / "same.arpa", 2)
    assert out.read_bytes() == (tmp_path / "same.arpa").read_bytes()


def test_the_command_takes_text_as_it_is(tmp_path):
    (tmp_path / "text.txt").write_text("The 2\nthe\n", encoding="utf-8")
    lexicon = tmp_path / "lexicon.txt"
    assert build_lm(tmp_path / "text.txt", "--out", tmp_path / "lm.arpa", "--lexicon", lexicon).exit_code == 0
    assert read_lexicon(lexicon) == ["2", "The", "the"]


def test_the_command_writes_both_files_or_none(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "lm.arpa"
    text.write_text("the | end\n", encoding="utf-8")
    for model, lexicon, message in (
        (out, tmp_path / "words.txt", "words.txt: '|' is not one word"),
        (out, tmp_path / ".." / tmp_path.name / "lm.arpa", "overwrites the file of --out"),
        (out, text, "--lexicon"),
        (text, None, "overwrites the text"),
        (out, tmp_path, "is a folder"),
        (tmp_path, None, "is a folder"),
    ):
        result = build_lm(text, "--out", model, *(() if lexicon is None else ("--lexicon", lexicon)))
        assert result.exit_code == 2 and message in result.stderr
        assert list(tmp_path.iterdir()) == [text] and text.read_text() == "the | end\n"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"\xff\xfe", "not a text file in UTF-8"), (b"\n", "no words")]
)
def test_the_command_names_what_is_wrong_with_the_text(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    result = build_lm(path, "--out", tmp_path / "lm.arpa")
    assert result.exit_code == 2 and result.stderr.startswith("tinymyo: ") and result.stderr.count("\n") == 1
    assert message in result.stderr and not list(tmp_path.glob("*lm*"))
