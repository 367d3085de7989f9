"""Word n-gram language models from text, in the ARPA format that KenLM and others read.

Interpolated modified Kneser-Ney (Chen & Goodman 1998) as KenLM's `lmplz` estimates it: adjusted counts below the
highest order, three discounts per order from the counts of counts, the unigrams interpolated with a uniform
distribution over the words, `</s>` and `<unk>`. It differs in three ways: an order whose counts of counts are too few
for discounts takes 0.5, 1 and 1.5 (`lmplz` refuses unless --discount_fallback is given); nothing is pruned; and the
counts are held in memory, about 400 bytes per word of text at order 4.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .decoding_lm import LanguageModelError
from .prediction_output import replacing

__all__ = ["BuiltModel", "LanguageModelError", "build_language_model"]

MAX_ORDER = 6  # of KenLM as it is commonly built
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_SPECIAL = ("<unk>", "<s>", "</s>")
_UNKNOWN, _BEGIN, _END = range(3)
_NEVER = -99.0  # log10 probability of <s>, which is no next word


@dataclass(frozen=True)
class BuiltModel:
    """What a model was made of, and how large it is.

    Attributes:
        sentences, words: of the text, empty sentences left out.
        ngrams: how many n-grams it has of each order, from 1; the specials are among the first.
    """

    sentences: int
    words: int
    ngrams: tuple[int, ...]

    @property
    def order(self) -> int:
        """The length of its longest n-grams."""
        return len(self.ngrams)


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order, in the order of their words' ids.

    Attributes:
        prefixes, suffixes: positions, among the n-grams that are one shorter, of what is left without the last word
            and without the first.
        words: the last words.
        counts: adjusted counts.
    """

    prefixes: np.ndarray
    suffixes: np.ndarray
    words: np.ndarray
    counts: np.ndarray


def build_language_model(sentences: Iterable[str], out: str | Path, order: int = 4) -> BuiltModel:
    """Estimates a model and writes it, complete or not at all; the same text gives the same file.

    Args:
        sentences: one text each, words apart by white space, taken as they are (`normalize_text` is up to the caller);
            empty ones are left out.
        out: ARPA file to write.
        order: length of the longest n-grams, 2 to 6; less if no sentence is so long.

    Raises:
        LanguageModelError: an order outside the range, no words, or words that stand for something else in a model.
    """
    if not 2 <= order <= MAX_ORDER:
        raise LanguageModelError(f"order is {order}; give 2 to {MAX_ORDER}, which KenLM reads")
    out = Path(out).expanduser()
    tokens, positions, vocabulary = _tokens(sentences)
    if len(vocabulary) == len(_SPECIAL):
        raise LanguageModelError(f"{out}: the text has no words to estimate a language model from")
    if wrong := {*_SPECIAL, "<UNK>"}.intersection(vocabulary[len(_SPECIAL) :]):
        raise LanguageModelError(
            f"the text has the word {min(wrong)!r}, which stands for something else in a language model; take it out"
        )
    if wrong := [word for word in vocabulary if "\0" in word]:
        raise LanguageModelError(f"the text has the word {wrong[0]!r} with a null character; take that out")
    orders = _count(tokens, positions, len(vocabulary), min(order, int(positions.max()) + 1))
    probabilities, weights = _estimate(orders)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out, "w") as file:
        file.writelines(_arpa(orders, probabilities, weights, vocabulary))
    sentences_read = int((positions == 0).sum())
    return BuiltModel(sentences_read, len(tokens) - 2 * sentences_read, tuple(len(grams.words) for grams in orders))


def _tokens(sentences: Iterable[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Ids of all words with <s> and </s> around each sentence, their positions within it, and the words by id."""
    ids = {special: i for i, special in enumerate(_SPECIAL)}
    known = dict[str, int]()
    tokens, positions = array("i"), array("i")
    for sentence in sentences:
        words = sentence.split()
        if words:
            tokens.append(_BEGIN)
            tokens.extend([known.setdefault(word, len(known) + len(ids)) for word in words])
            tokens.append(_END)
            positions.extend(range(len(words) + 2))
    ordered = sorted(known)
    renumbered = np.arange(len(known) + len(ids))
    renumbered[[known[word] for word in ordered]] = np.arange(len(ids), len(known) + len(ids))
    return renumbered[np.asarray(tokens, dtype=np.int64)], np.asarray(positions), [*_SPECIAL, *ordered]


def _count(tokens: np.ndarray, positions: np.ndarray, vocabulary: int, order: int) -> list[_Order]:
    """The n-grams of each order up to `order`; at every place of the text one of each order ends that fits in."""
    words = np.arange(vocabulary)
    none = np.zeros(vocabulary, np.int64)
    found = [(none, none, words, np.bincount(tokens, minlength=vocabulary), words == _BEGIN)]
    shorter = tokens  # the n-gram, one shorter, that ends at each place
    for n in range(2, order + 1):
        ends = np.flatnonzero(positions >= n - 1)
        keys = shorter[ends - 1] * vocabulary + tokens[ends]
        unique, first, inverse, raw = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        first = ends[first]
        found.append((unique // vocabulary, shorter[first], unique % vocabulary, raw, positions[first] == n - 1))
        shorter = np.zeros(len(tokens), np.int64)
        shorter[ends] = inverse
    orders = []
    for n, (prefixes, suffixes, last, raw, at_start) in enumerate(found, 1):
        counts = raw
        if n < order:  # before how many words it was seen, but for what nothing can come before
            counts = np.where(at_start, raw, np.bincount(found[n][1], minlength=len(last)))
        orders.append(_Order(prefixes, suffixes, last, counts.copy()))
    orders[0].counts[_BEGIN] = 0  # never a next word
    return orders


def _estimate(orders: list[_Order]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each order the probabilities of the n-grams and the weights that they give to shorter ones as contexts."""
    uniform = np.full(1, 1 / (len(orders[0].words) - 1))  # all but <s>
    probabilities, weights = [uniform], []
    for grams in orders:
        contexts = len(probabilities[-1])
        discounts = _discounts(grams.counts)[np.minimum(grams.counts, 3)]
        totals = np.bincount(grams.prefixes, weights=grams.counts, minlength=contexts)
        totals[totals == 0] = np.inf  # no context
        given = np.bincount(grams.prefixes, weights=discounts, minlength=contexts) / totals
        kept = (grams.counts - discounts) / totals[grams.prefixes]
        probabilities.append(kept + given[grams.prefixes] * probabilities[-1][grams.suffixes])
        weights.append(np.where(np.isinf(totals), 1.0, given))
    return probabilities[1:], [*weights[1:], np.ones(0)]


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken off counts of 0, 1, 2 and more, for n-grams not seen."""
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[:5].astype(float)
    if seen[1:].all():
        ratio = seen[1] / (seen[1] + 2 * seen[2])
        taken = [k - (k + 1) * ratio * seen[k + 1] / seen[k] for k in (1, 2, 3)]
        if all(0 < amount <= k for k, amount in enumerate(taken, 1)):
            return np.array([0.0, *taken])
    return np.array([0.0, *FALLBACK_DISCOUNTS])


def _arpa(
    orders: list[_Order], probabilities: list[np.ndarray], weights: list[np.ndarray], vocabulary: list[str]
) -> Iterator[str]:
    """The pieces of the file."""
    yield "\\data\\\n"
    yield from (f"ngram {n}={len(grams.words)}\n" for n, grams in enumerate(orders, 1))
    texts = [""]
    for n, grams in enumerate(orders, 1):
        yield f"\n\\{n}-grams:\n"
        last = [vocabulary[word] for word in grams.words.tolist()]
        before = [texts[prefix] for prefix in grams.prefixes.tolist()]
        texts = [f"{prefix} {word}" for prefix, word in zip(before, last, strict=True)] if n > 1 else last
        scores = np.minimum(np.log10(probabilities[n - 1]), 0.0)
        if n == 1:
            scores[_BEGIN] = _NEVER
        if n == len(orders):
            yield from (f"{score:.7f}\t{text}\n" for score, text in zip(scores.tolist(), texts, strict=True))
        else:
            backoffs = np.log10(weights[n - 1]).tolist()
            rows = zip(scores.tolist(), texts, backoffs, strict=True)
            yield from (f"{score:.7f}\t{text}\t{backoff:.7f}\n" for score, text, backoff in rows)
    yield "\n\\end\\\n"
