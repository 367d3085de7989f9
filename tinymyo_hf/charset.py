"""The characters of typing, and how keys and text become them. Needs nothing but Python.

The set is that of emg2qwerty (Sivakumar et al., NeurIPS 2024): letters, digits and punctuation of a US keyboard, and
four keys that have a symbol of their own here. The position of a character is its class id; the id after the last
one, 98, is the blank of CTC.
"""

import functools
import string
import unicodedata
from collections.abc import Sequence

BACKSPACE, ENTER, SPACE, SHIFT = "⌫", "⏎", " ", "⇧"
CHARACTERS = (*string.ascii_letters, *string.digits, *string.punctuation, BACKSPACE, ENTER, SPACE, SHIFT)
"""The character set; a position is the id of a class, 98 is left for the blank of CTC."""

KEY_NAMES = {BACKSPACE: "Key.backspace", ENTER: "Key.enter", SPACE: "Key.space", SHIFT: "Key.shift"}
"""What a keylogger (pynput) calls the keys that print no character; language models of emg2qwerty do too."""

SUBSTITUTES = {
    **{name: symbol for symbol, name in KEY_NAMES.items()},
    **{"\n": ENTER, "\r": ENTER, "\b": BACKSPACE},
    **dict(zip("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--", strict=True)),  # curly quotes and dashes
}


class CharsetError(ValueError):
    """Characters or ids that a character set does not have, or a checkpoint made for another set."""


@functools.lru_cache(4096)
def character_of(key: str, characters: Sequence[str] = CHARACTERS) -> str | None:
    """The character of a key as the keylogger names it ("a", "Key.space", "’"); None if the set has none for it.

    A letter with an accent becomes the letter without; a capital becomes small in a set without capitals.

    Args:
        key: one character, or the name of a key.
        characters: the set, a tuple.
    """
    character = SUBSTITUTES.get(key, key)
    if character not in characters and len(character) == 1:
        character = unicodedata.normalize("NFD", character)[:1]
    if character not in characters:
        character = character.lower()
    return character if character in characters else None


def apply_keystrokes(text: str) -> str:
    """What is on the screen after the keys of `text` were pressed, with "\\n" for enter.

    Backspace takes away what is to its left, a line break too; at the beginning it does nothing. Shift leaves no
    trace: the characters of emg2qwerty are already those that it made ("⇧T", not "⇧t").

    Examples:
        >>> apply_keystrokes("⌫⇧Teh⌫⌫he⏎")
        'The\\n'
    """
    screen: list[str] = []
    for character in text:
        if character == BACKSPACE:
            del screen[-1:]
        elif character != SHIFT:
            screen.append("\n" if character == ENTER else character)
    return "".join(screen)
