"""Lexicons of the word decoder: the words that it can recognise, in the file format of flashlight.

A line is a word, a tab and its characters apart, with "|" for the space behind it: `the<TAB>t h e |`. The words are to
come from the text that a model is trained on, never from what it is tested on: a lexicon with the words of the test
text tells the decoder what was said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .prediction_output import replacing
from .speech_text import normalize_text

__all__ = ["LexiconError", "check_words", "lexicon_of", "read_lexicon", "write_lexicon"]

WORD_END = "|"


class LexiconError(ValueError):
    """A lexicon that cannot be used; the message names the file or the words, and the fix."""


def lexicon_of(texts: Iterable[str]) -> list[str]:
    """The words of texts, each once, sorted; the texts are normalised.

    Examples:
        >>> lexicon_of(["The old man.", "Old: the 2 of them"])
        ['man', 'of', 'old', 'the', 'them', 'two']
    """
    return sorted({word for text in texts for word in normalize_text(text).split()})


def write_lexicon(words: Sequence[str], path: str | Path) -> None:
    """Writes a lexicon file, complete or not at all.

    Raises:
        LexiconError: no words, or one that is empty or has a space or "|" in it.
    """
    path = Path(path).expanduser()
    check_words(words, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "w") as file:
        file.writelines(f"{word}\t{' '.join(word)} {WORD_END}\n" for word in words)


def check_words(words: Sequence[str], path: str | Path) -> None:
    """Raise `LexiconError` where `write_lexicon` would, before anything is written."""
    if not words:
        raise LexiconError(f"{path}: a lexicon without words; take them from the texts of the training split")
    if wrong := [word for word in words if not word or WORD_END in word or word.split() != [word]]:
        raise LexiconError(
            f"{path}: {wrong[0]!r} is not one word; split texts into words, as lexicon_of and `tinymyo build-lm "
            "--normalize` do"
        )


def read_lexicon(path: str | Path) -> list[str]:
    """The words of a lexicon file in its order. Of several spellings of a word, as flashlight allows, one is needed.

    Raises:
        LexiconError: no such file, no text, no words in it, or a word that is not spelled by its characters.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        make = f"make one with `tinymyo build-lm TEXT --out lm.arpa --lexicon {path.name}`"
        raise LexiconError(f"{path}: no such lexicon; {make}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise LexiconError(f"{path}: not a text file in UTF-8 ({error}); give a lexicon, a word per line") from error
    words = []
    for number, line in enumerate(lines, 1):
        word, *spelling = line.split() or [""]
        if spelling and "".join(spelling).removesuffix(WORD_END) != word:
            raise LexiconError(
                f"{path}, line {number}: {word!r} is spelled {' '.join(spelling)!r}, not by its characters; the models "
                "here recognise characters, so write `word<TAB>w o r d |`"
            )
        if word:
            words.append(word)
    if not words:
        raise LexiconError(f"{path}: a lexicon without words; it needs one per line")
    return words
