"""The vocabulary of the CTC models: one id is one character, and one more is the blank. Needs nothing but Python.

`EmgCharacterTokenizer` is this for transformers; decoders and pipelines take either.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self, get_args

from .charset import CHARACTERS, CharsetError, character_of

__all__ = ["CharacterSet", "CharacterVocabulary", "CharsetError", "check_charset"]

BLANK = "<blank>"
_LABEL_PADDING = -100  # of the losses of transformers

Unknown = Literal["drop", "error"]


class CharacterSet(Protocol):
    """What decoders need to know of a `CharacterVocabulary` or an `EmgCharacterTokenizer`."""

    @property
    def characters(self) -> tuple[str, ...]:
        """In the order of their ids, without the blank."""

    @property
    def pad_token_id(self) -> int:
        """The id of the blank."""

    def get_vocab(self) -> dict[str, int]:
        """Characters and the blank to ids."""

    def decode(self, token_ids: list[int]) -> str:
        """Text of ids, of which nothing is collapsed."""

    def __len__(self) -> int:
        """Characters and the blank."""


class CharacterVocabulary:
    """Characters to ids and back.

    Text is normalised first: line feed and carriage return are the enter key, "\\b" is backspace, curly quotes and
    dashes are the ASCII ones, letters lose their accents. "⌫", "⏎" and "⇧" stand for backspace, enter and shift, in
    text that is encoded and in text that is decoded.

    Args:
        ids: characters and the blank to ids from 0 up, each once.
        pad_token: name of the blank.
        unknown: what to do with characters outside the set: "drop" them (`unknown_characters` counts them), or "error".
        source: of the ids, for messages.

    Attributes:
        ids: as given, as a dictionary.
        tokens: characters and the blank in the order of their ids.
        characters: the same without the blank.
        pad_token, pad_token_id: the blank.

    Raises:
        CharsetError: ids or characters that are no such vocabulary.

    Examples:
        >>> vocabulary = CharacterVocabulary.of()
        >>> vocabulary.encode("Hé\\n"), vocabulary.pad_token_id
        ([33, 4, 95], 98)
        >>> vocabulary.decode([33, 98, 4, 4, 98, 4], group_tokens=True)
        'Hee'
    """

    def __init__(
        self, ids: Mapping[str, int], pad_token: str = BLANK, unknown: Unknown = "drop", source: str = "vocabulary"
    ):
        if unknown not in get_args(Unknown):
            raise CharsetError(f"unknown is {unknown!r}; use one of {', '.join(get_args(Unknown))}")
        _check(ids, pad_token, source)
        self.ids = dict(ids)
        self.unknown = unknown
        self.pad_token, self.pad_token_id = pad_token, self.ids[pad_token]
        self.tokens = tuple(sorted(self.ids, key=self.ids.__getitem__))
        self.characters = tuple(token for token in self.tokens if token != pad_token)

    @classmethod
    def of(cls, characters: Sequence[str] = CHARACTERS, pad_token: str = BLANK, unknown: Unknown = "drop") -> Self:
        """The vocabulary of these characters in the order of their ids, and of the blank behind the last.

        Without characters the 98 of emg2qwerty, and the blank, id 98.
        """
        ids = {token: i for i, token in enumerate((*characters, pad_token))}
        if len(ids) != len(characters) + 1:
            raise CharsetError("characters: one of them is there twice; name each once")
        return cls(ids, pad_token, unknown, "characters")

    @classmethod
    def from_dict(cls, ids: Mapping[str, int], pad_token: str = BLANK, unknown: Unknown = "drop") -> Self:
        """The vocabulary of what `vocab.json` holds."""
        return cls(ids, pad_token, unknown)

    @classmethod
    def from_file(cls, path: str | Path, pad_token: str = BLANK, unknown: Unknown = "drop") -> Self:
        """The vocabulary of `vocab.json`, a JSON object of characters and the blank to ids.

        Raises:
            CharsetError: a file that is not there, or no such vocabulary.
        """
        try:
            ids = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise CharsetError(f"{path}: not a vocabulary in JSON ({error}); save the tokenizer again") from error
        if not isinstance(ids, dict):
            raise CharsetError(f"{path}: not a JSON object of tokens and their ids; save the tokenizer again")
        return cls(ids, pad_token, unknown, str(path))

    def __len__(self) -> int:
        """Characters and the blank."""
        return len(self.ids)

    def get_vocab(self) -> dict[str, int]:
        """Characters and the blank to ids."""
        return dict(self.ids)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, normalised.

        Raises:
            CharsetError: characters outside the set, where `unknown` is "error".
        """
        return [self.ids[character] for character in self.normalize(text)]

    def decode(self, token_ids: Iterable[int], group_tokens: bool = False) -> str:
        """Text of ids; blanks and the -100 that pads labels are left out.

        Args:
            group_tokens: take ids that follow each other without a blank in between as one character: for the best id
                of every frame. Targets and decoded ids are not to be grouped.

        Raises:
            CharsetError: an id outside the set.
        """
        ids = [i for i in token_ids if i != _LABEL_PADDING]
        if group_tokens:
            ids = [i for i, _ in itertools.groupby(ids)]
        return "".join(token for i in ids if (token := self.token(i)) != self.pad_token)

    def token(self, token_id: int) -> str:
        """The character of an id, or the name of the blank.

        Raises:
            CharsetError: an id outside the set.
        """
        if not 0 <= token_id < len(self.tokens):
            raise CharsetError(f"id {token_id} is outside the character set of {len(self)} ids")
        return self.tokens[token_id]

    def normalize(self, text: str) -> str:
        """`text` in characters of the set.

        Raises:
            CharsetError: characters outside the set, where `unknown` is "error".
        """
        if self.unknown == "error" and (missing := self.unknown_characters(text)):
            listed = ", ".join(f"{character!r} ({count} times)" for character, count in missing.most_common(10))
            raise CharsetError(
                f"the text has characters outside the set: {listed}; take them out, or load the tokenizer with "
                'unknown="drop"'
            )
        return "".join(character for _, character in self._characters_of(text) if character is not None)

    def unknown_characters(self, text: str) -> Counter[str]:
        """How often each character of `text` that the set has no character for occurs: what `normalize` drops."""
        return Counter(original for original, character in self._characters_of(text) if character is None)

    def text_of_keys(self, keys: Sequence[str]) -> str:
        """Text of keys as a keylogger names them ("a", "Key.space", "’"); keys outside the set are left out."""
        return "".join(c for key in keys if (c := character_of(key, self.characters)) is not None)

    def _characters_of(self, text: str) -> list[tuple[str, str | None]]:
        """Every character of `text` and what it becomes; accents that stand alone are no characters."""
        composed = unicodedata.normalize("NFC", text)
        found = [(c, character_of(c, self.characters)) for c in composed]
        return [(c, known) for c, known in found if known is not None or not unicodedata.combining(c)]


class _CtcConfig(Protocol):
    """What `check_charset` reads of a model's config."""

    vocab_size: int
    pad_token_id: int


def check_charset(tokenizer: CharacterSet, config: _CtcConfig, characters: Sequence[str] | None = None) -> None:
    """Nothing, if the ids of `tokenizer` are those of the model's outputs.

    Args:
        tokenizer: or a vocabulary.
        config: of a CTC model.
        characters: names of the classes of a corpus in the order of their ids, where the model meets a corpus.

    Raises:
        CharsetError: another number of ids, another blank, or another set of characters.
    """
    if len(tokenizer) != config.vocab_size:
        raise CharsetError(
            f"the model has {config.vocab_size} outputs (vocab_size), the tokenizer {len(tokenizer)} ids: they were "
            "made for different character sets; load both from the same checkpoint"
        )
    if tokenizer.pad_token_id != config.pad_token_id:
        raise CharsetError(
            f"the blank of the model is id {config.pad_token_id} (pad_token_id), that of the tokenizer "
            f"{tokenizer.pad_token_id}; load both from the same checkpoint"
        )
    if characters is not None and tuple(characters) != tokenizer.characters:
        differing = [pair for pair in itertools.zip_longest(characters, tokenizer.characters) if pair[0] != pair[1]]
        ours, theirs = differing[0]
        raise CharsetError(
            f"the corpus has {len(characters)} characters, the tokenizer {len(tokenizer.characters)}, of which "
            f"{len(differing)} differ (first {ours!r} and {theirs!r}): train a model for this corpus, or use the "
            "corpus that the model was trained on"
        )


def _check(ids: Mapping[str, int], pad_token: str, source: str) -> None:
    values = list(ids.values())
    if pad_token not in ids:
        raise CharsetError(f"{source}: no blank {pad_token!r}; add it with an id of its own, or name it with pad_token")
    if any(isinstance(i, bool) or not isinstance(i, int) for i in values) or sorted(values) != list(range(len(values))):
        raise CharsetError(f"{source}: the ids must be 0 to {len(values) - 1}, each once")
    if long := [token for token in ids if len(token) != 1 and token != pad_token]:
        raise CharsetError(f"{source}: {long[0]!r} is not one character; the tokens of this tokenizer are")
