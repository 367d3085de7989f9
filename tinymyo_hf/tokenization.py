"""Tokenizer of the CTC models: one token is one character, and one more is the blank.

A real tokenizer of transformers, saved and loaded as any other (`vocab.json`, `tokenizer_config.json`); what it does to
text and ids is done by its `CharacterVocabulary`. The blank of CTC is its padding token, as in the library's Wav2Vec2
tokenizer, so that `pad_token_id` of a model's config names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizer

from .characters import BLANK, CharacterVocabulary, Unknown, check_charset
from .charset import CHARACTERS, CharsetError, apply_keystrokes

__all__ = ["CharsetError", "EmgCharacterTokenizer", "apply_keystrokes", "check_charset"]


class EmgCharacterTokenizer(PreTrainedTokenizer):
    """Characters to ids and back.

    Text is normalised first, as `CharacterVocabulary` says.

    Args:
        vocab_file: JSON object, characters and the blank to ids from 0 up. This is what `from_pretrained` passes.
        characters: the character set in the order of its ids, instead of a file; the blank comes after the last. With
            neither, the 98 characters of emg2qwerty and the blank, id 98.
        pad_token: name of the blank.
        unknown: what to do with characters outside the set: "drop" them (`unknown_characters` counts them), or "error".

    Attributes:
        vocabulary: the same without the library.

    Raises:
        CharsetError: a file that is not such a vocabulary, or a saved tokenizer that has lost it.

    Examples:
        >>> tokenizer = EmgCharacterTokenizer()
        >>> tokenizer("Hé\\n").input_ids, tokenizer.pad_token_id
        ([33, 4, 95], 98)
        >>> tokenizer.decode([33, 98, 4, 4, 98, 4], group_tokens=True)
        'Hee'
    """

    vocab_files_names = {"vocab_file": "vocab.json"}
    model_input_names = ["input_ids", "attention_mask"]
    apply_keystrokes = staticmethod(apply_keystrokes)

    def __init__(
        self,
        vocab_file: str | Path | None = None,
        characters: Sequence[str] | None = None,
        pad_token: str = BLANK,
        unknown: Unknown = "drop",
        **kwargs: Any,
    ):
        if vocab_file is None and "name_or_path" in kwargs:  # only from_pretrained passes it
            raise CharsetError(
                f"{kwargs['name_or_path']}: no vocab.json, so its characters are not known; save the tokenizer of the "
                "model there"
            )
        if vocab_file is not None:
            self.vocabulary = CharacterVocabulary.from_file(vocab_file, str(pad_token), unknown)
        else:
            characters = CHARACTERS if characters is None else tuple(characters)
            self.vocabulary = CharacterVocabulary.of(characters, str(pad_token), unknown)
        self.encoder = self.vocabulary.ids  # what the library saves
        # "<blank>" in a text is seven typed characters, never the blank
        kwargs |= {"split_special_tokens": True, "special_tokens_pattern": "none"}
        super().__init__(pad_token=pad_token, unknown=unknown, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Characters and the blank."""
        return len(self.vocabulary)

    @property
    def characters(self) -> tuple[str, ...]:
        """The character set in the order of its ids, without the blank."""
        return self.vocabulary.characters

    @property
    def unknown(self) -> Unknown:
        """What is done with characters outside the set."""
        return self.vocabulary.unknown

    def get_vocab(self) -> dict[str, int]:
        """Characters and the blank to ids."""
        return self.vocabulary.get_vocab()

    def normalize(self, text: str) -> str:
        """`text` in characters of the set.

        Raises:
            CharsetError: characters outside the set, where `unknown` is "error".
        """
        return self.vocabulary.normalize(text)

    def unknown_characters(self, text: str) -> Counter[str]:
        """How often each character of `text` that the set has no character for occurs: what `normalize` drops."""
        return self.vocabulary.unknown_characters(text)

    def text_of_keys(self, keys: Sequence[str]) -> str:
        """Text of keys as a keylogger names them ("a", "Key.space", "’"); keys outside the set are left out."""
        return self.vocabulary.text_of_keys(keys)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The tokens joined, without blanks; nothing is collapsed."""
        return "".join(token for token in tokens if token != self.pad_token)

    def prepare_for_tokenization(
        self, text: str, is_split_into_words: bool = False, **kwargs: Any
    ) -> tuple[str, dict[str, Any]]:
        """`normalize`; called by the library before it splits text into tokens."""
        return self.normalize(text), kwargs

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self.encoder:
            raise CharsetError(f"{token!r} is not a token of the character set; use normalize() or pass text")
        return self.encoder[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self.vocabulary.token(index)

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        group_tokens: bool = False,
        **kwargs: Any,
    ) -> str:
        """Text of ids, see `CharacterVocabulary.decode`."""
        return self.vocabulary.decode([token_ids] if isinstance(token_ids, int) else token_ids, group_tokens)
