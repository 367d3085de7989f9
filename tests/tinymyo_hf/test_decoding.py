"""CTC decoding: greedy and beam against brute force, live against whole, the language model by hand, bad input."""

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymyo_hf.decoding import (
    BeamSearchDecoder,
    DecodingError,
    GreedyStream,
    LanguageModelError,
    greedy_decode,
)
from tinymyo_hf.tokenization import EmgCharacterTokenizer

ABC = EmgCharacterTokenizer(characters="abc")
KEYS = EmgCharacterTokenizer(characters="ab ⌫")
WEIGHT, BONUS = 2.0, 1.5

# log10 probabilities, and log10 back-off weights of the contexts
UNIGRAMS = {"<unk>": -2.0, "<s>": -99.0, "</s>": -0.6, "a": -0.5, "b": -0.9}
BIGRAMS = {("<s>", "a"): -0.2, ("a", "b"): -0.4, ("b", "</s>"): -0.3}
BACKOFF = {"<s>": -0.3, "a": -0.2, "b": -0.1}


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def collapse(alignment, blank):
    return tuple(label for label, _ in itertools.groupby(alignment) if label != blank)


def brute_force(logits, blank, extra=lambda labels: 0.0):
    """The score of every label sequence: log of the sum over all alignments, plus `extra`."""
    frames, scores = log_softmax(logits), {}
    for alignment in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        labels = collapse(alignment, blank)
        probability = sum(frames[t, label] for t, label in enumerate(alignment))
        scores[labels] = np.logaddexp(scores.get(labels, -np.inf), probability)
    return {labels: score + extra(labels) for labels, score in scores.items()}


def typing(text, tokenizer=KEYS):
    """Logits under which `text` is certain: a frame for each key, and one of blank behind it."""
    labels = [label for i in tokenizer(text).input_ids for label in (i, tokenizer.pad_token_id)]
    return np.where(np.arange(len(tokenizer)) == np.array(labels).reshape(-1, 1), 0.0, -np.inf)


def write_arpa(path, *ngrams, backoff=None):
    """A language model of the n-grams of each order, {words: log10 probability}."""
    backoff = BACKOFF if backoff is None else backoff
    lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(ngrams, 1))]
    for n, grams in enumerate(ngrams, 1):
        lines += ["", f"\\{n}-grams:"]
        for gram, score in grams.items():
            words = gram if isinstance(gram, str) else " ".join(gram)
            weight = [f"{backoff[words]}"] if words in backoff else []
            lines.append("\t".join([f"{score}", words, *weight]))
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))
    return path


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    pytest.importorskip("kenlm", reason="needs the extra ctc")
    return write_arpa(tmp_path_factory.mktemp("lm") / "lm.arpa", UNIGRAMS, BIGRAMS)


def test_greedy_by_hand():
    paths = [[3, 0, 0, 3, 0, 1], [1, 1, 2, 3, 3, 3], [3, 3, 3, 3, 3, 3]]
    logits = np.eye(4)[paths] + 0.1
    expected = [[0, 0, 1], [1, 2], []]
    assert greedy_decode(logits, blank=3) == expected
    assert greedy_decode(torch.tensor(logits, dtype=torch.bfloat16, requires_grad=True), blank=3) == expected
    assert greedy_decode(logits, lengths=[3, 2, 0], blank=3) == [[0], [1], []]
    assert greedy_decode(torch.tensor(logits), torch.tensor([5, 3, 6]), blank=3) == [[0, 0], [1, 2], []]
    assert greedy_decode(np.zeros((2, 0, 99))) == [[], []]


def test_padding_of_a_batch_may_hold_anything():
    logits = np.eye(4)[[[0, 1, 2]]]
    logits[0, 2] = np.nan
    assert greedy_decode(logits, [2], blank=3) == [[0, 1]]
    with pytest.raises(DecodingError, match="sequence 0, frame 2"):
        greedy_decode(logits, blank=3)


PIECES = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def pieces(logits, sizes):
    edges = np.cumsum([0, *sizes])
    return [*(logits[a:b] for a, b in itertools.pairwise(edges)), logits[edges[-1] :]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), PIECES, st.sampled_from([None, 1, 8]))
def test_live_decoding_equals_whole(seed, sizes, delay):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (40, 4))
    stream = GreedyStream(blank=3)
    assert [i for piece in pieces(logits, sizes) for i in stream.push(piece)] == greedy_decode(logits[None], blank=3)[0]
    decoder = BeamSearchDecoder(ABC, beam_size=6, max_labels_per_step=3, max_delay=delay)
    stream, before = decoder.stream(), []
    for piece in pieces(logits, sizes):
        now = stream.push(piece)
        assert now.stable_ids == before + list(now.added)
        assert now.text == now.stable + "".join("abc"[i] for i in now.tail)
        before = now.stable_ids
    last, whole = stream.finish(), decoder.decode(logits)
    assert last.ids[: len(before)] == before
    assert (last.ids, last.text, last.score) == (whole.ids, whole.text, whole.score)
    assert last.tail == () and last.stable == last.text


def test_reset_of_a_greedy_stream():
    stream = GreedyStream(blank=3)
    assert stream.push(np.eye(4)[[0]]) == [0]
    assert stream.push(np.eye(4)[[0]]) == []
    stream.reset()
    assert stream.push(np.eye(4)[[0]]) == [0]


@pytest.mark.parametrize("seed", range(25))
def test_beam_search_equals_brute_force(seed):
    logits = np.random.default_rng(seed).normal(0, 1, (5, 4))
    scores = brute_force(logits, blank=3)
    best = max(scores, key=scores.get)
    found = BeamSearchDecoder(ABC, beam_size=1000, max_labels_per_step=4).decode(logits)
    assert tuple(found.ids) == best
    assert found.score == pytest.approx(scores[best], abs=1e-12)


def test_sums_over_alignments_where_the_best_alignment_misleads():
    # P(blank) = 0.6, P(a) = 0.4 in both frames: the best alignment is empty (0.36), but "a" has 0.4 * 1.6 = 0.64
    logits = np.log([[0.4, 0.0, 0.0, 0.6]] * 2, where=[[True, False, False, True]] * 2, out=np.full((2, 4), -np.inf))
    assert greedy_decode(logits[None], blank=3) == [[]]
    found = BeamSearchDecoder(ABC).decode(torch.tensor(logits))
    assert (found.text, found.score) == ("a", pytest.approx(np.log(0.64)))


def test_fewer_labels_per_step_narrow_the_search():
    logits = np.log([[0.5, 0.3, 0.1, 0.1]] * 3)
    wide, narrow = (BeamSearchDecoder(ABC, **options).decode(logits) for options in ({}, {"max_labels_per_step": 1}))
    assert narrow.ids == [0] and narrow.score == pytest.approx(3 * np.log(0.5))  # the one alignment "aaa"
    assert wide.score > narrow.score


def doubtful(keys):
    """Logits of a first key that is a or b, then of keys that are certain; a frame of blank behind each."""
    first = np.log([0.55, 0.45, 1e-9, 1e-9])
    certain = [np.where(np.arange(4) == label, 0.0, -20.0) for label in [3, *[2, 3] * keys]]
    return np.array([first, *certain])


def test_what_is_doubtful_is_settled_after_the_delay():
    logits = doubtful(keys=60)
    forever, settled = (BeamSearchDecoder(ABC, beam_size=2, max_delay=delay).stream() for delay in (None, 10))
    for frame in logits:
        late, early = forever.push(frame[None]), settled.push(frame[None])
        assert late.text == early.text and len(early.tail) <= 6
    assert (late.stable, late.text) == ("", "a" + "c" * 60)
    assert early.stable.startswith("a" + "c" * 50)
    # nothing older than what is not settled is kept, for any of the hypotheses
    assert max(_ancestors(prefix) for prefix in settled._beam.prefixes) <= 7
    assert settled.finish().text == forever.finish().text == late.text


def _ancestors(prefix):
    count = 0
    while prefix.parent is not None:
        prefix, count = prefix.parent, count + 1
    return count


def test_a_delay_settles_on_the_best_so_far():
    first, blank = np.log([0.55, 0.45, 1e-9, 1e-9]), np.log([1e-9, 1e-9, 1e-9, 1.0])
    after = np.log([[1e-9, 1e-9, 1.0, 1e-9]])
    for delay in (2, None):
        stream = BeamSearchDecoder(ABC, max_delay=delay).stream()
        assert stream.push(np.array([first, blank])).stable == ""
        now = stream.push(blank[None])
        assert (now.stable, now.text) == ("a" if delay else "", "a")
        stream.push(after)
        assert stream.finish().text == "ac"


@pytest.mark.parametrize(
    ("typed", "keys", "words"),
    [
        ("", 0, []),
        ("ab", 2, [-0.2, -0.4, -0.3]),
        ("aab", 3, [-0.2, -0.2 - 0.5, -0.4, -0.3]),
        ("ba", 2, [-0.3 - 0.9, -0.1 - 0.5, -0.2 - 0.6]),
        ("ba⌫⌫ab", 2, [-0.2, -0.4, -0.3]),  # as if typed without the slip
        ("aa⌫b", 2, [-0.2, -0.4, -0.3]),  # b follows the first a
        ("⌫⌫ab", 2, [-0.2, -0.4, -0.3]),  # nothing to take back
        ("a⌫⌫", 0, []),
        ("a b", 3, [-0.2, -0.2 - 0.6, -0.3 - 0.9, -0.3]),  # the space ends a word, b begins another
        ("a ⌫b", 2, [-0.2, -0.4, -0.3]),  # the word goes on
        (" a", 2, [-2.0, -0.2, -0.2 - 0.6]),  # no word to end: an unknown word
        ("ab ", 3, [-0.2, -0.4, -0.3]),  # nothing is cut off by the end
    ],
)
def test_language_model_by_hand(arpa, typed, keys, words):
    decoder = BeamSearchDecoder(KEYS, lm_path=arpa, lm_weight=WEIGHT, insertion_bonus=BONUS)
    logits = np.concatenate([np.where(np.arange(5) == 4, 0.0, -np.inf)[None], typing(typed)])
    found = decoder.decode(logits)
    assert found.text == typed
    assert found.score == pytest.approx(WEIGHT * sum(words) + BONUS * keys, abs=1e-5)


def lm_score(labels, ended=True):
    """Weighted score of keys, from the tables above: the keys that are left, each after the one before it."""
    stack = []
    for label in labels:
        if label == 3:
            del stack[-1:]
        else:
            stack.append("ab "[label])
    total, before = 0.0, "<s>"
    for key in [*stack, *(["</s>"] if ended else [])]:
        known = key in UNIGRAMS
        if key == "</s>" and before == "<s>":
            break
        if not known and before == "<s>":
            total += UNIGRAMS["<unk>"]
        else:
            word = key if known else "</s>"
            bigram = BACKOFF[before] + UNIGRAMS[word]
            total += BIGRAMS.get((before, word), bigram)
        before = key if known else "<s>"
    return WEIGHT * total + BONUS * len(stack)


def plain_beam_search(logits, blank, beam_size, labels_per_step, extra):
    """Prefixes in a dictionary, `extra` computed anew for each: the best of all that survive."""
    beam = {(): (0.0, -np.inf)}  # log probabilities of ending in blank and in a label, without `extra`
    for frame in log_softmax(logits):
        found = {}

        def add(prefix, blank=-np.inf, label=-np.inf, found=found):
            before = found.get(prefix, (-np.inf, -np.inf))
            found[prefix] = (np.logaddexp(before[0], blank), np.logaddexp(before[1], label))

        for prefix, (ends_blank, ends_label) in beam.items():
            for label in np.argsort(-frame)[:labels_per_step].tolist():
                both = np.logaddexp(ends_blank, ends_label)
                if label == blank:
                    add(prefix, blank=both + frame[label])
                elif prefix[-1:] == (label,):
                    add(prefix, label=ends_label + frame[label])
                    add((*prefix, label), label=ends_blank + frame[label])
                else:
                    add((*prefix, label), label=both + frame[label])
        scores = {prefix: np.logaddexp(*ends) + extra(prefix, False) for prefix, ends in found.items()}
        beam = {prefix: found[prefix] for prefix in sorted(scores, key=scores.get)[-beam_size:]}
    scores = {prefix: np.logaddexp(*ends) + extra(prefix, True) for prefix, ends in beam.items()}
    return max(scores.items(), key=lambda item: item[1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_model", [False, True])
def test_narrow_beam_equals_a_plain_implementation(arpa, seed, with_model):
    logits = np.random.default_rng(seed).normal(0, 1, (25, 5))
    best, score = plain_beam_search(logits, 4, 7, 3, lm_score if with_model else lambda prefix, ended: 0.0)
    options = {"lm_path": arpa, "lm_weight": WEIGHT, "insertion_bonus": BONUS} if with_model else {}
    found = BeamSearchDecoder(KEYS, beam_size=7, max_labels_per_step=3, **options).decode(logits)
    assert tuple(found.ids) == best
    assert found.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_beam_search_with_language_model_equals_brute_force(arpa, seed):
    logits = np.random.default_rng(seed).normal(0, 1.5, (5, 5))
    scores = brute_force(logits, 4, lm_score)
    best = max(scores, key=scores.get)
    options = {"lm_weight": WEIGHT, "insertion_bonus": BONUS, "beam_size": 5000, "max_labels_per_step": 5}
    decoder = BeamSearchDecoder(KEYS, lm_path=arpa, **options)
    found = decoder.decode(logits)
    assert tuple(found.ids) == best
    assert found.score == pytest.approx(scores[best], abs=1e-5)
    stream = decoder.stream()
    for frame in logits:
        stream.push(frame[None])
    assert (stream.finish().ids, stream.finish().score) == (found.ids, found.score)


def test_language_model_overrules_what_is_doubtful(arpa):
    blank = [0.01, 0.01, 0.01, 0.01, 0.96]
    frames = np.log([[0.4, 0.5, 0.03, 0.03, 0.04], blank, [0.5, 0.4, 0.03, 0.03, 0.04], blank])
    assert BeamSearchDecoder(KEYS).decode(frames).text == "ba"
    assert BeamSearchDecoder(KEYS, lm_path=arpa).decode(frames).text == "ab"


def test_forgotten_scores_are_looked_up_again(arpa, monkeypatch):
    logits = np.random.default_rng(3).normal(0, 1.5, (60, 5))
    expected = BeamSearchDecoder(KEYS, lm_path=arpa).decode(logits)
    monkeypatch.setattr("tinymyo_hf.decoding_lm.CACHED_STATES", 0)
    assert BeamSearchDecoder(KEYS, lm_path=arpa).decode(logits).score == expected.score


def test_keys_with_names_can_be_words_of_the_model(arpa, tmp_path):
    path = write_arpa(tmp_path / "spaces.arpa", UNIGRAMS | {"Key.space": -0.7}, BIGRAMS | {("a", "Key.space"): -0.1})
    found = BeamSearchDecoder(KEYS, lm_path=path, lm_weight=WEIGHT, insertion_bonus=BONUS).decode(typing("a b"))
    # the space is a character like others: a, space after a, b after a space (without back-off weight), the end
    assert found.score == pytest.approx(WEIGHT * (-0.2 - 0.1 - 0.9 - 0.3) + BONUS * 3, abs=1e-5)


def test_order_one_and_orders_beyond_kenlm_are_named(arpa, tmp_path):
    path = write_arpa(tmp_path / "one.arpa", UNIGRAMS, backoff={})
    with pytest.raises(LanguageModelError, match=r"one\.arpa: a model of order 1"):
        BeamSearchDecoder(KEYS, lm_path=path)
    grams = [{" ".join(["a"] * n): -0.5} for n in range(2, 8)]
    weights = BACKOFF | {" ".join(["a"] * n): -0.1 for n in range(2, 7)}
    path = write_arpa(tmp_path / "seven.arpa", UNIGRAMS, *grams, backoff=weights)
    with pytest.raises(LanguageModelError, match=r"seven\.arpa: a model of a higher order than this kenlm"):
        BeamSearchDecoder(KEYS, lm_path=path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\\data\\\nngram 1=3\n", bytes(range(256)) * 4])
def test_what_is_no_language_model(arpa, tmp_path, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    with pytest.raises(LanguageModelError, match=r"file\.bin: not a language model"):
        BeamSearchDecoder(KEYS, lm_path=path)


def test_language_model_that_is_missing_or_of_other_letters(arpa, tmp_path):
    with pytest.raises(LanguageModelError, match=r"nowhere\.arpa: no such language model"):
        BeamSearchDecoder(KEYS, lm_path=tmp_path / "nowhere.arpa")
    with pytest.raises(LanguageModelError, match=r"lm\.arpa.*does not know 1 of the letters \(c\)"):
        BeamSearchDecoder(ABC, lm_path=arpa)


def test_kenlm_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(LanguageModelError, match=r"pip install 'tinymyo-hf\[ctc\]'"):
        BeamSearchDecoder(KEYS, lm_path="lm.arpa")
    assert BeamSearchDecoder(KEYS).decode(typing("ab")).text == "ab"


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (np.zeros((3, 4)), {}, r"\(batch, frames, vocabulary\)"),
        (np.zeros((1, 3, 4)), {"blank": 4}, "the blank is id 4"),
        (np.zeros((2, 3, 4)), {"blank": 3, "lengths": [3]}, "2 numbers from 0 to 3"),
        (np.zeros((2, 3, 4)), {"blank": 3, "lengths": [3, 4]}, "2 numbers from 0 to 3"),
    ],
)
def test_greedy_refuses(logits, options, message):
    with pytest.raises(DecodingError, match=message):
        greedy_decode(logits, **options)


@pytest.mark.parametrize("faulty", [np.nan, np.inf])
def test_beam_search_refuses(faulty):
    decoder = BeamSearchDecoder(ABC)
    logits = np.zeros((3, 4))
    logits[1, 2] = faulty
    with pytest.raises(DecodingError, match="frame 1 are not numbers"):
        decoder.decode(logits)
    with pytest.raises(DecodingError, match=r"pass \(frames, 4\)"):
        decoder.decode(np.zeros((3, 5)))
    with pytest.raises(DecodingError, match="beam_size is 0"):
        BeamSearchDecoder(ABC, beam_size=0)
    with pytest.raises(DecodingError, match="max_labels_per_step is 0"):
        BeamSearchDecoder(ABC, max_labels_per_step=0)
    with pytest.raises(DecodingError, match="max_delay is 0"):
        BeamSearchDecoder(ABC, max_delay=0)
    with pytest.raises(DecodingError, match=r"pass \(frames, vocabulary\)"):
        GreedyStream().push(np.zeros((1, 3, 99)))
    stream = decoder.stream()
    stream.finish()
    with pytest.raises(DecodingError, match="finished"):
        stream.push(np.zeros((1, 4)))
