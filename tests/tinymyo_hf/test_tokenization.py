"""The tokenizer of typing: ids, normalisation, keys, screens, saving, other character sets."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from tinymyo_hf import SEMGTransformerConfig
from tinymyo_hf.tokenization import CharsetError, EmgCharacterTokenizer, apply_keystrokes, check_charset

SPEECH = "abcdefghijklmnopqrstuvwxyz0123456789 "


@pytest.fixture(scope="module")
def tokenizer():
    return EmgCharacterTokenizer()


def test_ids(tokenizer):
    assert (len(tokenizer), tokenizer.vocab_size, tokenizer.pad_token_id) == (99, 99, 98)
    places = {"a": 0, "z": 25, "A": 26, "Z": 51, "0": 52, "9": 61, "!": 62, "~": 93, "⌫": 94, "⏎": 95, " ": 96, "⇧": 97}
    assert {key: tokenizer(key).input_ids for key in places} == {key: [i] for key, i in places.items()}
    assert "".join(tokenizer.characters) == tokenizer.decode(range(98))
    assert tokenizer("".join(tokenizer.characters)).input_ids == list(range(98))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("\n\r\b\x08", [95, 95, 94, 94]),
        ("\u2019\u201d\u2014", [68, 63, 74]),
        ("\u2018\u201c\u2013", [68, 63, 74]),
        ("éÄe\u0301", [4, 26, 4]),
        ("a\u0301\u0323", [0]),
        ("tab\t猫", [19, 0, 1]),
        ("<blank>", [79, 1, 11, 0, 13, 10, 81]),
        ("  a  ", [96, 96, 0, 96, 96]),
        ("", []),
    ],
)
def test_normalisation(tokenizer, text, ids):
    assert tokenizer(text).input_ids == tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == tokenizer.normalize(text)


def test_unknown_characters_are_counted_or_an_error(tokenizer):
    assert tokenizer.unknown_characters("猫a猫\té") == {"猫": 2, "\t": 1}
    assert tokenizer.normalize("猫a猫\té") == "ae"
    strict = EmgCharacterTokenizer(unknown="error")
    assert strict("aé\n").input_ids == [0, 4, 95]
    with pytest.raises(CharsetError, match=r"'猫' \(2 times\), '\\t' \(1 times\)"):
        strict("猫a猫\té")
    with pytest.raises(CharsetError, match="unknown is 'keep'; use one of drop, error"):
        EmgCharacterTokenizer(unknown="keep")


def test_batches_are_padded_with_the_blank(tokenizer):
    batch = tokenizer(["abc", "a"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[0, 1, 2], [0, 98, 98]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert tokenizer.batch_decode(batch["input_ids"]) == ["abc", "a"]


def test_decoding_of_targets_and_of_frames(tokenizer):
    assert tokenizer.decode([7, 4, 11, 11, 14, -100, -100]) == "hello"
    frames = torch.tensor([98, 7, 7, 4, 98, 11, 98, 11, 14, 98])
    assert tokenizer.decode(frames, group_tokens=True) == "hello"
    assert tokenizer.decode(frames) == "hhello"
    assert tokenizer.decode(torch.stack([frames, frames]), group_tokens=True) == ["hello", "hello"]
    assert tokenizer.decode(95) == "⏎"
    with pytest.raises(CharsetError, match="id 99 is outside the character set of 99"):
        tokenizer.decode([99])
    with pytest.raises(CharsetError, match="'猫' is not a token"):
        tokenizer.convert_tokens_to_ids(["猫"])


def test_keys_as_the_keylogger_names_them(tokenizer):
    keys = ["Key.shift", "T", "h", "Key.backspace", "Key.space", "’", "Key.enter", "Key.ctrl", "Key.shift_l", ""]
    assert tokenizer.text_of_keys(keys) == "⇧Th⌫ '⏎"


@pytest.mark.parametrize(
    ("text", "screen"),
    [
        ("abc", "abc"),
        ("abd⌫c", "abc"),
        ("⌫⌫a", "a"),
        ("⇧T⌫⇧Teh⌫⌫he⏎", "The\n"),
        ("a⏎⌫b", "ab"),
        ("a⇧⌫b", "b"),
        ("", ""),
    ],
)
def test_screen(text, screen):
    assert apply_keystrokes(text) == screen
    assert EmgCharacterTokenizer.apply_keystrokes(text) == screen


@pytest.mark.parametrize("arguments", [{}, {"characters": SPEECH}, {"characters": "ba", "pad_token": "<ctc>"}])
def test_saved_and_loaded(tmp_path, arguments):
    saved = EmgCharacterTokenizer(unknown="error", **arguments)
    saved.save_pretrained(tmp_path)
    SEMGTransformerConfig(vocab_size=len(saved), pad_token_id=saved.pad_token_id).save_pretrained(tmp_path)
    for loader in (EmgCharacterTokenizer, AutoTokenizer):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, EmgCharacterTokenizer)
        assert (loaded.characters, loaded.pad_token_id, loaded.unknown, len(loaded)) == (
            saved.characters,
            saved.pad_token_id,
            "error",
            len(saved),
        )
        assert loaded("ab").input_ids == saved("ab").input_ids
        assert loaded.decode([1, len(saved) - 1, 0]) == saved.decode([1, 0])


def test_another_character_set_is_small_and_has_no_keys():
    tokenizer = EmgCharacterTokenizer(characters=SPEECH)
    assert (len(tokenizer), tokenizer.pad_token_id) == (38, 37)
    assert tokenizer("Hé 9!\n").input_ids == [7, 4, 36, 35]


def test_vocabulary_with_the_blank_first(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"<blank>": 0, "b": 1, "a": 2}))
    tokenizer = EmgCharacterTokenizer(path)
    assert (tokenizer.pad_token_id, tokenizer.characters, tokenizer("ab").input_ids) == (0, ("b", "a"), [2, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a vocabulary in JSON"),
        ("[]", "not a JSON object"),
        ('{"a": 0}', "no blank '<blank>'"),
        ('{"a": 0, "<blank>": 2}', "the ids must be 0 to 1, each once"),
        ('{"a": 0, "<blank>": "1"}', "the ids must be 0 to 1, each once"),
        ('{"ab": 0, "<blank>": 1}', "'ab' is not one character"),
    ],
)
def test_faulty_vocabularies(tmp_path, content, message):
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(CharsetError, match=message) as caught:
        EmgCharacterTokenizer(tmp_path / "vocab.json")
    assert "vocab.json" in str(caught.value)


def test_faulty_characters_and_a_lost_vocabulary(tmp_path, tokenizer):
    with pytest.raises(CharsetError, match="there twice"):
        EmgCharacterTokenizer(characters="aba")
    with pytest.raises(CharsetError, match="'ab' is not one character"):
        EmgCharacterTokenizer(characters=["ab"])
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(CharsetError, match=r"no vocab\.json"):
        EmgCharacterTokenizer.from_pretrained(tmp_path)


def test_checkpoint_of_another_character_set(tokenizer):
    config = SEMGTransformerConfig()
    check_charset(tokenizer, config, list(tokenizer.characters))
    with pytest.raises(CharsetError, match="99 outputs .*, the tokenizer 38 ids"):
        check_charset(EmgCharacterTokenizer(characters=SPEECH), config)
    with pytest.raises(CharsetError, match="blank of the model is id 0 .* tokenizer 98"):
        check_charset(tokenizer, SimpleNamespace(vocab_size=99, pad_token_id=0))
    swapped = ["b", "a", *tokenizer.characters[2:]]
    with pytest.raises(CharsetError, match=r"98 characters, the tokenizer 98, of which 2 differ \(first 'b' and 'a'\)"):
        check_charset(tokenizer, config, swapped)
    with pytest.raises(CharsetError, match="97 characters, the tokenizer 98, of which 1 differ"):
        check_charset(tokenizer, config, tokenizer.characters[:-1])


def test_the_character_set_loads_no_framework():
    code = (
        "import sys; sys.argv = ['tinymyo']; import tinymyo_hf.charset, tinymyo_hf.decoding\n"
        "print([m for m in ('torch', 'transformers', 'kenlm') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
