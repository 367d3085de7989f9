"""Text of speech: what is said for what is written, and that the result is always in the character set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymyo_hf.speech_text import SPEECH_CHARACTERS, normalize_text, number_words
from tinymyo_hf.tokenization import EmgCharacterTokenizer

SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
NUMBERS = dict(zip(SMALL.split(), [*range(20), *range(20, 100, 10)], strict=True))
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def number_of(words):
    """The number that the words say, read from left to right."""
    total = group = 0
    for word in words.split():
        if word in SCALES:
            total, group = total + group * SCALES[word], 0
        elif word == "hundred":
            group *= 100
        elif word != "and":
            group += NUMBERS[word]
    return total + group


def test_the_characters_have_the_ids_of_the_released_models():
    tokenizer = EmgCharacterTokenizer(characters=SPEECH_CHARACTERS)
    assert tokenizer("az09 ").input_ids == [0, 25, 26, 35, 36]
    assert tokenizer.pad_token_id == 37 and len(tokenizer) == 38


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("No one would have believed, in the last years", "no one would have believed in the last years"),
        ("“Don’t!” he cried—_loudly_ . . .", "dont he cried loudly"),
        ("well-known: mid\u2011air 3:45", "well known mid air three forty five"),
        ("wait...what…now and/or then", "wait what now and or then"),
        ("Café Übermaß, naïve Œuvre, Ångström, Łódź", "cafe ubermass naive oeuvre angstrom lodz"),
        ("  tabs\tand\u00a0hard\u2028spaces\n", "tabs and hard spaces"),
        ("Привет 你好", ""),
        ("", ""),
        ("£20, £1 or £ 1,500; $2.50", "twenty pounds one pound or one thousand five hundred pounds two point five zero "
         "dollars"),
        ("the £ and the $", "the pounds and the dollars"),
        ("5% of A & B", "five percent of a and b"),
        ("1894, 1900, 1905, 2001", "eighteen ninety four nineteen hundred nineteen oh five two thousand and one"),
        ("1,894 men and 12,345,678", "one thousand eight hundred and ninety four men and twelve million three hundred "
         "and forty five thousand six hundred and seventy eight"),
        ("0 007 3.14", "zero zero zero seven three point one four"),
        ("12345678901234567890", "one two three four five six seven eight nine zero one two three four five six seven "
         "eight nine zero"),
        ("1st 2nd 3rd 5th 8th 9th 12th 20th 21st 40th 100th 113TH", "first second third fifth eighth ninth twelfth "
         "twentieth twenty first fortieth one hundredth one hundred and thirteenth"),
        ("b2b 4x4 m²", "b two b four x four m two"),
        ("CHAPTER I.", "chapter one"),
        ("Chapter XIV: the Return, Book II, part iv", "chapter fourteen the return book two part iv"),
        ("the chapter I read; part VIC, Book IIII", "the chapter i read part vic book iiii"),
    ],
)  # fmt: skip
def test_by_hand(written, said):
    assert normalize_text(written) == said


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(st.sampled_from("aI £$09.,:-&%stnrdh²½'C")))
def test_the_result_is_in_the_set_and_stays(text):
    once = normalize_text(text)
    assert set(once) <= set(SPEECH_CHARACTERS)
    assert once == once.strip() and "  " not in once
    assert not set(once) & set("0123456789")
    assert normalize_text(once) == once


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**15 - 1) | st.integers(0, 12000))
def test_number_words_say_the_number(number):
    words = number_words(number)
    assert number_of(words) == number
    assert words.split().count("and") == sum(
        1
        for power, group in enumerate(f"{number:015,d}".split(",")[::-1])
        if int(group) % 100 and (int(group) > 100 or (power == 0 and number > 999))
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 399))
def test_every_chapter_has_its_number(number):
    tens, hundreds = ("", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC"), ("", "C", "CC", "CCC")
    ones = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
    numeral = hundreds[number // 100] + tens[number // 10 % 10] + ones[number % 10]
    assert normalize_text(f"Chapter {numeral}") == f"chapter {number_words(number)}"
