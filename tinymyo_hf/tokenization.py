"""Tokenizer of the CTC models: one token is one character, and one more is the blank.

A real tokenizer of transformers, saved and loaded as any other (`vocab.json`, `tokenizer_config.json`). The blank of
CTC is its padding token, as in the library's Wav2Vec2 tokenizer, so that `pad_token_id` of a model's config names it.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from transformers import PreTrainedTokenizer

from .charset import CHARACTERS, CharsetError, apply_keystrokes, character_of

__all__ = ["CharsetError", "EmgCharacterTokenizer", "apply_keystrokes", "check_charset"]

Unknown = Literal["drop", "error"]
_LABEL_PADDING = -100  # of the library's losses


class EmgCharacterTokenizer(PreTrainedTokenizer):
    """Characters to ids and back.

    Text is normalised first: line feed and carriage return are the enter key, "\\b" is backspace, curly quotes and
    dashes are the ASCII ones, letters lose their accents. "⌫", "⏎" and "⇧" stand for backspace, enter and shift, in
    text that is encoded and in text that is decoded.

    Args:
        vocab_file: JSON object, characters and the blank to ids from 0 up. This is what `from_pretrained` passes.
        characters: the character set in the order of its ids, instead of a file; the blank comes after the last. With
            neither, the 98 characters of emg2qwerty and the blank, id 98.
        pad_token: name of the blank.
        unknown: what to do with characters outside the set: "drop" them (`unknown_characters` counts them), or "error".

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
        pad_token: str = "<blank>",
        unknown: Unknown = "drop",
        **kwargs: Any,
    ):
        if unknown not in get_args(Unknown):
            raise CharsetError(f"unknown is {unknown!r}; use one of {', '.join(get_args(Unknown))}")
        if vocab_file is None and "name_or_path" in kwargs:  # only from_pretrained passes it
            raise CharsetError(
                f"{kwargs['name_or_path']}: no vocab.json, so its characters are not known; save the tokenizer of the "
                "model there"
            )
        if vocab_file is not None:
            self.encoder = _read_vocabulary(Path(vocab_file), str(pad_token))
        else:
            characters = CHARACTERS if characters is None else tuple(characters)
            self.encoder = {token: i for i, token in enumerate((*characters, str(pad_token)))}
            if len(self.encoder) != len(characters) + 1:
                raise CharsetError("characters: one of them is there twice; name each once")
        _check_vocabulary(self.encoder, str(pad_token), str(vocab_file or "characters"))
        self.decoder = {i: token for token, i in sorted(self.encoder.items(), key=lambda item: item[1])}
        self._characters = tuple(token for token in self.decoder.values() if token != str(pad_token))
        self.unknown = unknown
        # "<blank>" in a text is seven typed characters, never the blank
        kwargs |= {"split_special_tokens": True, "special_tokens_pattern": "none"}
        super().__init__(pad_token=pad_token, unknown=unknown, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Characters and the blank."""
        return len(self.encoder)

    @property
    def characters(self) -> tuple[str, ...]:
        """The character set in the order of its ids, without the blank."""
        return self._characters

    def get_vocab(self) -> dict[str, int]:
        """Characters and the blank to ids."""
        return dict(self.encoder)

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

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The tokens joined, without blanks; nothing is collapsed."""
        return "".join(token for token in tokens if token != self.pad_token)

    def _characters_of(self, text: str) -> list[tuple[str, str | None]]:
        """Every character of `text` and what it becomes; accents that stand alone are no characters."""
        composed = unicodedata.normalize("NFC", text)
        found = [(c, character_of(c, self.characters)) for c in composed]
        return [(c, known) for c, known in found if known is not None or not unicodedata.combining(c)]

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
        if index not in self.decoder:
            raise CharsetError(f"id {index} is outside the character set of {len(self)} ids")
        return self.decoder[index]

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        group_tokens: bool = False,
        **kwargs: Any,
    ) -> str:
        """Text of ids; blanks and the -100 that pads labels are left out.

        Args:
            group_tokens: take ids that follow each other without a blank in between as one character: for the best id
                of every frame. Targets and decoded ids are not to be grouped.
        """
        ids = [token_ids] if isinstance(token_ids, int) else [i for i in token_ids if i != _LABEL_PADDING]
        if group_tokens:
            ids = [i for i, _ in itertools.groupby(ids)]
        return self.convert_tokens_to_string(self.convert_ids_to_tokens(ids))


class _CtcConfig(Protocol):
    """What `check_charset` reads of a model's config."""

    vocab_size: int
    pad_token_id: int


def check_charset(
    tokenizer: EmgCharacterTokenizer, config: _CtcConfig, characters: Sequence[str] | None = None
) -> None:
    """Nothing, if the ids of `tokenizer` are those of the model's outputs.

    Args:
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


def _read_vocabulary(path: Path, pad_token: str) -> dict[str, int]:
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CharsetError(f"{path}: not a vocabulary in JSON ({error}); save the tokenizer again") from error
    if not isinstance(vocabulary, dict):
        raise CharsetError(f"{path}: not a JSON object of tokens and their ids; save the tokenizer again")
    return vocabulary


def _check_vocabulary(vocabulary: dict[str, int], pad_token: str, where: str) -> None:
    ids = list(vocabulary.values())
    if pad_token not in vocabulary:
        raise CharsetError(f"{where}: no blank {pad_token!r}; add it with an id of its own, or name it with pad_token")
    if any(isinstance(i, bool) or not isinstance(i, int) for i in ids) or sorted(ids) != list(range(len(ids))):
        raise CharsetError(f"{where}: the ids must be 0 to {len(ids) - 1}, each once")
    if long := [token for token in vocabulary if len(token) != 1 and token != pad_token]:
        raise CharsetError(f"{where}: {long[0]!r} is not one character; the tokens of this tokenizer are")
