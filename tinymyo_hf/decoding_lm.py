"""Character language models (KenLM) as the beam search uses them, with backspace.

As in the emg2qwerty release (Sivakumar et al., NeurIPS 2024): the model was trained on words, one per line, their
characters apart ("t h e"). A key that the model does not know, such as space or shift, ends a word: it is scored as the
end of a line, and the next character begins another. Keys without a printed character are looked up under their
keylogger names, so a model with the token "Key.space" knows spaces. Backspace undoes the key before it: the score that
this key was given, and what the next character follows.

Scores are log10, as KenLM gives them; the published weight of 2.0 is meant for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .charset import BACKSPACE, KEY_NAMES

WORD_END, UNKNOWN = "</s>", "<unk>"
CACHED_STATES = 4096  # rows of 8 bytes per character: a few MB


class LanguageModelError(ValueError):
    """A language model that cannot be used; the message names the file and the fix."""


class Context:
    """What was typed so far, as the language model sees it: a stack, from which backspace takes the last key.

    Attributes:
        parent: the stack without its last key; None for the empty one.
        state: of the model, after the last key.
        score: log10 score of the last key.
    """

    __slots__ = ("parent", "score", "state")

    def __init__(self, parent: Context | None, state: Any, score: float):
        self.parent = parent
        self.state = state
        self.score = score


class CharacterLanguageModel:
    """An n-gram model over the characters of a tokenizer.

    Args:
        path: file in the ARPA format or KenLM's own.
        tokens: the tokens in the order of their ids.
        blank: id of the blank, which is no key.

    Attributes:
        order: longest n-gram.
        backspace: id of the key that undoes; None in a set without it.

    Raises:
        LanguageModelError: kenlm is not installed; the file is missing, no language model, of an order that kenlm does
            not read (1, or more than it was built for); or it does not know all letters of the character set.
    """

    def __init__(self, path: str | Path, tokens: Sequence[str], blank: int):
        self._model = _load(Path(path).expanduser())
        self.order: int = self._model.order
        self._names = [KEY_NAMES.get(token, token) for token in tokens]
        self._known = [i != blank and name in self._model for i, name in enumerate(self._names)]
        self.backspace = tokens.index(BACKSPACE) if BACKSPACE in tokens else None
        if missing := [t for i, t in enumerate(tokens) if i != blank and t.isalpha() and not self._known[i]]:
            raise LanguageModelError(
                f"{path}: the language model does not know {len(missing)} of the letters ({' '.join(missing[:10])}"
                f"{' ...' if len(missing) > 10 else ''}); train it on characters apart (`t h e`), capitals kept"
            )
        self._word_start = _state()
        self._model.BeginSentenceWrite(self._word_start)
        self._unknown_score = self._model.score(UNKNOWN, bos=False, eos=False)
        self._forget()

    def start(self) -> Context:
        """Nothing typed."""
        return Context(None, self._word_start, 0.0)

    def extend(self, context: Context, label: int) -> Context:
        """What was typed after one more key; after backspace, what was typed before the last."""
        if label == self.backspace:
            return context.parent or context
        score, state = self._successor(context.state, label)
        return Context(context, state, score)

    def scores(self, contexts: Sequence[Context], labels: np.ndarray) -> np.ndarray:
        """log10 scores of keys after contexts; the column of backspace has no meaning.

        Args:
            contexts: (hypotheses,).
            labels: (keys,) ids.

        Returns:
            (hypotheses, keys).
        """
        if len(self._rows) + len(contexts) > CACHED_STATES:
            self._forget()
        rows = np.array([self._row(context.state) for context in contexts])
        block = self._table[rows[:, None], labels]
        if np.isnan(block).any():
            for i, j in np.argwhere(np.isnan(block)):
                if np.isnan(self._table[rows[i], labels[j]]):  # not filled in by another hypothesis meanwhile
                    score, _ = self._successor(contexts[i].state, int(labels[j]))
                    self._table[rows[i], labels[j]] = score
            block = self._table[rows[:, None], labels]
        return block

    def end(self, context: Context) -> float:
        """log10 score of ending here: that of the end of a word, 0 where none has begun."""
        if context.state == self._word_start:
            return 0.0
        return self._model.BaseScore(context.state, WORD_END, _state())

    def _successor(self, state: Any, label: int) -> tuple[float, Any]:
        """Score of a key, and the state after it."""
        if self._known[label]:
            after = _state()
            return self._model.BaseScore(state, self._names[label], after), after
        if state != self._word_start:
            return self._model.BaseScore(state, WORD_END, _state()), self._word_start
        return self._unknown_score, self._word_start

    def _row(self, state: Any) -> int:
        row = self._rows.get(state)
        if row is None:
            row = self._rows[state] = len(self._rows)
            if row == len(self._table):
                self._table = np.concatenate([self._table, np.full_like(self._table, np.nan)])
        return row

    def _forget(self) -> None:
        """Empties the cache of scores, (states, tokens), NaN where not asked for yet."""
        self._rows: dict[Any, int] = {}
        self._table = np.full((64, len(self._names)), np.nan)


def _kenlm() -> Any:
    try:
        import kenlm
    except ImportError as error:
        raise LanguageModelError(
            "language models need the package kenlm (and a C++ compiler to build it): pip install 'tinymyo-hf[ctc]'"
        ) from error
    return kenlm


def _state() -> Any:
    return _kenlm().State()


def _load(path: Path) -> Any:
    kenlm = _kenlm()
    if not path.is_file():
        raise LanguageModelError(f"{path}: no such language model; give an ARPA file or one of KenLM's build_binary")
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(path), config)
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise unreadable(path, str(error)) from error


def unreadable(path: Path, reason: str) -> LanguageModelError:
    """The error for a file that KenLM does not read, from the reason that it gives."""
    if "at least a bigram" in reason:
        return LanguageModelError(f"{path}: a model of order 1, which kenlm does not read; train one of order 2 to 6")
    if "KENLM_MAX_ORDER" in reason or "max_order" in reason:
        return LanguageModelError(
            f"{path}: a model of a higher order than this kenlm was built for; train one of order 2 to 6, or install "
            "kenlm with MAX_ORDER set in the environment"
        )
    return LanguageModelError(
        f"{path}: not a language model in the ARPA format or that of KenLM ({reason}); make or copy it again"
    )
