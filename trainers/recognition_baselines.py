"""Recognising speech without a network: what a user would have instead.

"One sentence for all": the training sentence with the fewest word errors against the others; what a language model
knows without any EMG.

"LDA, frame by frame": linear discriminant analysis of features of the EMG in and around every two frames (23 ms), into
characters and silence. Nobody says when a character was spoken: at first each text is spread evenly over its utterance,
then the classifier is fitted again a few times, on the alignment that it finds most probable itself (as the first
acoustic models of speech recognisers are made). Its log probabilities are averaged over some frames and read as those
of CTC are, silence as the blank; over how many, and how much more probable silence is taken to be, is chosen on
training utterances. The word decoder is that of the network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.recognition_decoding import Recognised, greedy_text, recognise
from trainers.speech_corpus import Utterances
from trainers.synthesis_baselines import frame_features, with_context
from trainers.text_metrics import character_errors
from trainers.word_metrics import word_errors

SENTENCE, LDA = "One sentence for all", "LDA, frame by frame"
CANDIDATES = 200
"""Training sentences that are tried, and those that each is tried on; drawn at random."""
UTTERANCES = 2000
"""That LDA is fitted on, drawn at random."""
MAX_FRAMES = 60_000
JOINED = 2
"""Frames of the model that make one of the classifier."""
AROUND = 5
ROUNDS = 4
SILENT_SHARE = 0.08
"""Of an utterance, before and after the text, in the first alignment."""
TUNING_UTTERANCES = 60
SMOOTHING = (1, 3, 5, 7)
BONUSES = np.linspace(-3.0, 5.0, 9)
LEAST_LOG_ODDS = -30.0


def run_recognition_baselines(
    train: Utterances,
    test: Utterances,
    tokenizer: EmgCharacterTokenizer,
    decoder: Any | None,
    score: Callable[[Iterator[Recognised]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Fit both on the training utterances and score them on those of `test`: name -> scores, with `fit_seconds`."""
    started = time.perf_counter()
    sentence = central_sentence([u.text for u in train.utterances])
    seconds = time.perf_counter() - started
    constant = (Recognised(utterance, sentence, None, (0.0, 0.0)) for utterance in test.utterances)
    results = {SENTENCE: score(constant) | {"sentence": sentence, "fit_seconds": round(seconds, 3)}}
    started = time.perf_counter()
    reader = fit_reader(train, tokenizer)
    if reader is not None:
        seconds = time.perf_counter() - started
        results[LDA] = score(_read(test, reader, tokenizer, decoder)) | {
            "smoothing": reader.smoothing,
            "silence_bonus": reader.bonus,
            "fit_seconds": round(seconds, 3),
        }
    return results


def central_sentence(texts: Sequence[str]) -> str:
    """The sentence that says most of the others: that with the fewest word errors, of up to `CANDIDATES`."""
    order = np.random.default_rng(0).permutation(len(texts))[:CANDIDATES]
    chosen = [texts[i] for i in np.sort(order)]
    candidates = sorted(set(chosen))
    errors = [word_errors(chosen, [candidate] * len(chosen))["wer"] for candidate in candidates]
    return candidates[int(np.argmin(errors))]


@dataclass(frozen=True)
class Reader:
    """A fitted classifier and how its probabilities are read.

    Attributes:
        vocabulary: ids, the blank (silence) last.
    """

    lda: LinearDiscriminantAnalysis
    vocabulary: int
    smoothing: int = 1
    bonus: float = 0.0

    def log_odds(self, rows: np.ndarray) -> np.ndarray:
        """Rows of features (n, features) -> (n, vocabulary) log probabilities; low for what was never seen."""
        found = np.full((len(rows), self.vocabulary), LEAST_LOG_ODDS)
        found[:, self.lda.classes_] = np.maximum(self.lda.predict_log_proba(rows), LEAST_LOG_ODDS)
        return found

    def logits(self, log_odds: np.ndarray) -> np.ndarray:
        """What is read: smoothed, silence more probable."""
        smooth = uniform_filter1d(log_odds, self.smoothing, axis=0, mode="nearest")
        smooth[:, -1] += self.bonus
        return smooth


def utterance_rows(emg: np.ndarray) -> np.ndarray:
    """EMG (channels, 8 * frames) -> (frames / 2, features) with their neighbours; each feature relative to its mean
    over the utterance, as electrodes and days differ."""
    features = frame_features(emg)
    count = max(len(features) // JOINED, 1)
    joined = np.stack([part.mean(axis=0) for part in np.array_split(features, count)])
    return with_context(joined - joined.mean(axis=0), AROUND)


def fit_reader(train: Utterances, tokenizer: EmgCharacterTokenizer) -> Reader | None:
    """The classifier, fitted on its own alignments; None if no utterance has as many frames as characters, or only one
    character was ever said."""
    blank = tokenizer.pad_token_id
    chosen = np.random.default_rng(0).permutation(len(train))[:UTTERANCES]
    texts = [[blank, *tokenizer(train.utterances[i].text).input_ids, blank] for i in chosen]
    fitting = [n for n, i in enumerate(chosen) if train.utterances[i].frames // JOINED >= len(texts[n])]
    if not fitting:
        return None
    rows = [utterance_rows(train[int(chosen[n])]["input_values"].numpy()) for n in fitting]
    texts = [texts[n] for n in fitting]
    alignments = [_evenly(text, len(of)) for text, of in zip(texts, rows, strict=True)]
    for round_number in range(ROUNDS):
        lda = _fit(rows, alignments)
        if lda is None:
            return None
        if round_number < ROUNDS - 1:
            reader, prior = Reader(lda, blank + 1), np.full(blank + 1, 0.0)
            prior[lda.classes_] = np.log(lda.priors_)
            alignments = [align(reader.log_odds(of) - prior, text) for text, of in zip(texts, rows, strict=True)]
    return _tuned(Reader(lda, blank + 1), rows[:TUNING_UTTERANCES], texts[:TUNING_UTTERANCES], tokenizer)


def _evenly(text: Sequence[int], frames: int) -> np.ndarray:
    """The first alignment (frames,): silence at both ends, the characters between them equally long, one frame at
    least."""
    margin = min(max(int(SILENT_SHARE * frames), 1), (frames - len(text) + 2) // 2)
    inner = np.array_split(np.arange(frames - 2 * margin), len(text) - 2)
    characters = np.concatenate([np.full(len(part), i) for i, part in zip(text[1:-1], inner, strict=True)])
    return np.concatenate([np.full(margin, text[0]), characters, np.full(margin, text[-1])]).astype(int)


def align(scores: np.ndarray, text: Sequence[int]) -> np.ndarray:
    """The most probable alignment: every character of `text` in its order, each for at least one frame.

    Args:
        scores: (frames, vocabulary) of each label in each frame; at least as many frames as characters.

    Returns:
        Labels (frames,).
    """
    of_states = scores[:, list(text)]
    best = np.full(len(text), -np.inf)
    best[0] = of_states[0, 0]
    advanced = np.zeros(of_states.shape, bool)
    for frame in range(1, len(of_states)):
        from_before = np.concatenate([[-np.inf], best[:-1]])
        advanced[frame] = from_before > best
        best = np.maximum(best, from_before) + of_states[frame]
    states = np.empty(len(of_states), int)
    state = len(text) - 1
    for frame in range(len(of_states) - 1, -1, -1):
        states[frame] = state
        state -= int(advanced[frame, state])
    return np.asarray(text)[states]


def _fit(rows: Sequence[np.ndarray], alignments: Sequence[np.ndarray]) -> LinearDiscriminantAnalysis | None:
    labels = np.concatenate(alignments)
    chosen = np.random.default_rng(0).permutation(len(labels))[:MAX_FRAMES]
    if len(np.unique(labels[chosen])) < 2:
        return None
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3).fit(np.concatenate(rows)[chosen], labels[chosen])


def _tuned(
    reader: Reader, rows: Sequence[np.ndarray], texts: Sequence[Sequence[int]], tokenizer: EmgCharacterTokenizer
) -> Reader:
    """The reader with the smoothing and the bonus that make the fewest errors in characters."""
    odds = [reader.log_odds(of) for of in rows]
    said = [tokenizer.decode(list(text[1:-1])) for text in texts]

    def errors(candidate: Reader) -> int:
        read = (greedy_text(candidate.logits(of).argmax(-1), tokenizer) for of in odds)
        return sum(character_errors(text, target).total for text, target in zip(read, said, strict=True))

    candidates = [
        Reader(reader.lda, reader.vocabulary, smoothing, bonus)
        for smoothing, bonus in product(SMOOTHING, BONUSES.tolist())
    ]
    return min(candidates, key=errors)


def _read(
    test: Iterable[dict], reader: Reader, tokenizer: EmgCharacterTokenizer, decoder: Any | None
) -> Iterator[Recognised]:
    for utterance, item in zip(test.utterances, test, strict=True):
        started = time.perf_counter()
        logits = reader.logits(reader.log_odds(utterance_rows(item["input_values"].numpy())))
        yield recognise(utterance, logits, tokenizer, decoder, time.perf_counter() - started)
