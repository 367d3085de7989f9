"""Sentences for typing and speech: a small vocabulary with its pronunciation, and a grammar that combines it.

The phones are the 39 of the ARPAbet that broad transcriptions of American English use, and "sil".
"""

import numpy as np

LEXICON_TEXT = """
a ah|an ae n|the dh ah|this dh ih s|that dh ae t|every eh v r iy|my m ay|your y ao r|our aw er|one w ah n
old ow l d|young y ah ng|small s m ao l|big b ih g|long l ao ng
green g r iy n|blue b l uw|yellow y eh l ow|brown b r aw n|white w ay t|warm w ao r m|cold k ow l d|quiet k w ay ah t
happy hh ae p iy|strange s t r ey n jh|heavy hh eh v iy|broken b r ow k ah n|early er l iy|good g uh d
lazy l ey z iy|next n eh k s t|extra eh k s t r ah|queen k w iy n|box b aa k s|puzzle p ah z ah l|taxi t ae k s iy
jacket jh ae k ah t|fox f aa k s
boy b oy|girl g er l|child ch ay l d|teacher t iy ch er|doctor d aa k t er|farmer f aa r m er|sailor s ey l er
judge jh ah jh|king k ih ng|mouse m aw s|horse hh ao r s|fish f ih sh|bird b er d|sheep sh iy p|goat g ow t
house hh aw s|boat b ow t|book b uh k|cup k ah p|chair ch eh r|table t ey b ah l|window w ih n d ow
bridge b r ih jh|road r ow d|river r ih v er|garden g aa r d ah n|village v ih l ah jh|mountain m aw n t ah n
beach b iy ch|forest f ao r ah s t|kitchen k ih ch ah n|school s k uw l|church ch er ch|market m aa r k ah t
ship sh ih p|voice v oy s|song s ao ng|letter l eh t er|picture p ih k ch er|coin k oy n|treasure t r eh zh er
measure m eh zh er|path p ae th|weather w eh dh er|morning m ao r n ih ng|evening iy v n ih ng|winter w ih n t er
summer s ah m er|zoo z uw|music m y uw z ih k
sees s iy z|finds f ay n d z|makes m ey k s|takes t ey k s|loves l ah v z|watches w aa ch ah z|opens ow p ah n z
follows f aa l ow z|carries k eh r iy z|paints p ey n t s|buys b ay z|hears hh ih r z|leaves l iy v z
washes w aa sh ah z|pulls p uh l z
pushes p uh sh ah z|shows sh ow z|joins jh oy n z|changes ch ey n jh ah z|enjoys eh n jh oy z
near n ih r|behind b ih hh ay n d|under ah n d er|over ow v er|with w ih dh|before b ih f ao r|beyond b iy aa n d
in ih n|by b ay|from f r ah m|through th r uw
he hh iy|she sh iy|who hh uw|nobody n ow b aa d iy|somebody s ah m b aa d iy
slowly s l ow l iy|quickly k w ih k l iy|often ao f ah n|never n eh v er|today t ah d ey|again ah g eh n|there dh eh r
now n aw|soon s uw n|always ao l w ey z|alone ah l ow n|outside aw t s ay d
"""
LEXICON: dict[str, tuple[str, ...]] = {
    word: tuple(phones)
    for entry in LEXICON_TEXT.replace("\n", "|").split("|")
    if entry
    for word, *phones in [entry.split(" ")]
}
PARTS_TEXT = """
article: a the the this that every my your our one
adjective: old young small big long green blue yellow brown white warm cold quiet happy strange heavy broken early good
adjective: lazy next extra
noun: boy girl child teacher doctor farmer sailor judge king mouse horse fish bird sheep goat fox house boat book cup
noun: chair table window bridge road ship voice song letter picture coin treasure measure
noun: queen box puzzle taxi jacket
place: river garden village mountain beach forest kitchen school church market path zoo
place: morning evening winter summer weather music
verb: sees finds makes takes loves watches opens follows carries paints buys hears leaves washes pulls pushes shows
verb: joins changes enjoys
preposition: near behind under over with before beyond in by from through
pronoun: he she nobody somebody who
adverb: slowly quickly often never today again there now soon always alone outside
"""
PARTS: dict[str, list[str]] = {}
for part, _, members in (line.partition(": ") for line in PARTS_TEXT.strip().splitlines()):
    PARTS.setdefault(part, []).extend(members.split())
FORMS: tuple[tuple[str, ...], ...] = (
    ("article", "adjective", "noun", "verb", "article", "noun"),
    ("pronoun", "verb", "article", "adjective", "noun"),
    ("article", "noun", "verb", "article", "noun", "preposition", "article", "place"),
    ("pronoun", "adverb", "verb", "article", "noun"),
    ("article", "noun", "verb", "adverb"),
    ("article", "noun", "verb", "article", "adjective", "noun", "adverb"),
    ("pronoun", "verb", "article", "noun", "preposition", "article", "place"),
)


def random_sentence(rng: np.random.Generator) -> list[str]:
    """The words of a sentence, in lower case; "a" is "an" before a vowel."""
    form = FORMS[rng.integers(len(FORMS))]
    words = [PARTS[part][rng.integers(len(PARTS[part]))] for part in form]
    return [
        "an" if word == "a" and following[:1] in "aeiou" else word
        for word, following in zip(words, [*words[1:], "-"], strict=True)
    ]
