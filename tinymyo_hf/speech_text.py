"""Text of speech as recognition is trained and scored on it: lower case words, numbers spelled out, no punctuation.

The convention is that of the silent speech corpus (Gaddy & Klein 2020) as the TinyMyo paper (downstream 3) uses it.
Needs nothing but Python.
"""

import re
import string
import unicodedata

__all__ = ["SPEECH_CHARACTERS", "normalize_text", "number_words"]

SPEECH_CHARACTERS = (*string.ascii_lowercase, *string.digits, " ")
"""The character set; a position is the id of a class (0 to 36), 37 is left for the blank of CTC."""

# Letters that Unicode does not take apart, and signs that part words or are spoken.
_SUBSTITUTES = {
    **{"ß": "ss", "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ø": "O", "ø": "o", "Ł": "L", "ł": "l", "ı": "i"},
    **{"Đ": "D", "đ": "d", "Ð": "D", "ð": "d", "Þ": "Th", "þ": "th"},
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212-:/\u2044", " "),  # dashes, colons, slashes
    "&": " and ",
    "%": " percent ",
}
_CURRENCIES = {"£": ("pound", "pounds"), "$": ("dollar", "dollars")}
_NUMBER = re.compile(
    r"(?P<currency>[£$])?\s?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.(?P<decimals>\d+))?(?P<ordinal>st|nd|rd|th)?\b",
    re.ASCII | re.IGNORECASE,
)
_DIGITS = re.compile(r"\d+", re.ASCII)  # those within words: "b2b"
# "I" is also a word, and a numeral only where nothing goes on behind it: "Chapter I", but not "the chapter I read".
_HEADING = re.compile(r"\b((?:chapter|book|part|volume)\s+)(?-i:([IVXLC]{2,}|[VXLC]|I(?=\W*$|[.,;])))(?!\w)", re.I)
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_ROMAN_FORM = re.compile(r"C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")

_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_ONES = _SMALL.split()
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ("", " thousand", " million", " billion", " trillion")
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth"}
_ORDINALS |= {"nine": "ninth", "twelve": "twelfth"}


def normalize_text(text: str) -> str:
    """`text` in `SPEECH_CHARACTERS`, words apart by one space each, none at the ends; again the same if repeated.

    Letters lose their accents (those of other scripts are left out); dashes, colons and slashes part words, other
    punctuation vanishes ("don't" is "dont"); numbers are spelled out, ordinals, amounts ("£20" is "twenty pounds") and
    years from 1100 to 1999 as they are said; so are the Roman numbers of chapters.

    Examples:
        >>> normalize_text("Chapter XIV: The £20 he'd saved since 1894")
        'chapter fourteen the twenty pounds hed saved since eighteen ninety four'
    """
    text = "".join(_SUBSTITUTES.get(character, character) for character in " ".join(text.split()))
    text = unicodedata.normalize("NFKD", text).replace("\u2044", " ")  # of fractions
    text = "".join(character for character in text if character.isascii() or character in _CURRENCIES)
    text = re.sub(r"\.{2,}", " ", text)
    text = _HEADING.sub(lambda found: found[1] + _roman_words(found[2]), text)
    text = _DIGITS.sub(lambda found: f" {_said(found[0])} ", _NUMBER.sub(_amount, text))
    for sign, (_, plural) in _CURRENCIES.items():
        text = text.replace(sign, f" {plural} ")
    text = "".join(c for c in text.lower() if c in SPEECH_CHARACTERS or c.isspace())
    return " ".join(text.split())


def number_words(number: int) -> str:
    """A number from 0 to 10^15 - 1 in words, without hyphens.

    Examples:
        >>> number_words(2134)
        'two thousand one hundred and thirty four'
    """
    if number == 0:
        return _ONES[0]
    parts = []
    for power in reversed(range(len(_SCALES))):
        group = number // 1000**power % 1000
        if group:
            joined = "and " if parts and power == 0 and group < 100 else ""
            parts.append(joined + _below_thousand(group) + _SCALES[power])
    return " ".join(parts)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if hundreds and rest:
        words.append("and")
    if rest >= 20:
        words.append(_TENS[rest // 10 - 2])
        rest %= 10
    if rest:
        words.append(_ONES[rest])
    return " ".join(words)


def _said(digits: str) -> str:
    """Digits as they are read: years in pairs, codes and what is too long digit by digit."""
    if len(digits) > 15 or (digits[0] == "0" and len(digits) > 1):
        return " ".join(_ONES[int(digit)] for digit in digits)
    if len(digits) == 4 and "1100" <= digits < "2000":
        century, year = int(digits[:2]), int(digits[2:])
        if year == 0:
            return f"{number_words(century)} hundred"
        return f"{number_words(century)} {'oh ' if year < 10 else ''}{number_words(year)}"
    return number_words(int(digits))


def _amount(found: re.Match[str]) -> str:
    """A number with what belongs to it: currency, decimals, the ending of an ordinal."""
    currency, whole, decimals = found["currency"], found["whole"].replace(",", ""), found["decimals"]
    is_amount = currency or "," in found["whole"] or found["ordinal"]
    words = number_words(int(whole)) if is_amount and len(whole) <= 15 else _said(whole)
    if decimals:
        words += " point " + " ".join(_ONES[int(digit)] for digit in decimals)
    if found["ordinal"]:
        words = _ordinal(words)
    if currency:
        words += " " + _CURRENCIES[currency][words != "one"]
    return f" {words} "


def _ordinal(words: str) -> str:
    *before, last = words.split()
    if last not in _ORDINALS:
        last = last[:-1] + "ie" if last.endswith("y") else last
    return " ".join([*before, _ORDINALS.get(last, last.removesuffix("t") + "th")])


def _roman_words(numeral: str) -> str:
    """The words of a Roman number below 400; what is none stays as it is."""
    if not _ROMAN_FORM.fullmatch(numeral):
        return numeral
    values = [_ROMAN[letter] for letter in numeral]
    following = [*values[1:], 0]
    return number_words(sum(-v if v < after else v for v, after in zip(values, following, strict=True)))
