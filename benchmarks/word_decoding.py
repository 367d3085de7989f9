"""Real-time factor of decoding speech: seconds of decoding per second of signal, greedy and by beams over words.

python -m benchmarks.word_decoding [--words 10000] [--utterances 10] [--repeats 3]

The texts are drawn from a made-up language of so many words in which a word has a few likely followers; lexicon and
4-gram model come from other texts of it than those decoded. The logits are spikes of a frame or two for each character
and blanks in between, at 86.13 frames per second and 13 characters per second, noisy enough that greedy decoding is
wrong in almost a third of the characters.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.timing import alternate
from tinymyo_hf.decoding import greedy_decode
from tinymyo_hf.decoding_words import WordBeamDecoder
from tinymyo_hf.language_model import build_language_model
from tinymyo_hf.speech_text import SPEECH_CHARACTERS
from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.word_metrics import word_errors

FRAME_RATE = 22050 / 256  # Hz
CHARACTER_RATE = 13.0  # per second
SENTENCES = 20_000  # of the text of the language model
BEAMS = (150, 1500)  # published: validation, test


class Language:
    """Words of one to four syllables, frequent ones short, each with 20 likely followers."""

    def __init__(self, words: int, rng: np.random.Generator):
        syllables = [first + vowel + last for first in "bdfgklmnprst" for vowel in "aeiou" for last in ("", "n", "r")]
        found: dict[str, None] = {}
        while len(found) < words:
            length = min(1 + len(found) // 150, int(rng.integers(2, 5)))
            found["".join(rng.choice(syllables, length))] = None
        self.words = list(found)
        self.followers = rng.integers(0, words, (words, 20))
        frequency = 1 / np.arange(1, words + 1)
        self.cumulative = np.cumsum(frequency / frequency.sum())

    def sentence(self, rng: np.random.Generator) -> str:
        chosen = [self._any(rng)]
        for _ in range(int(rng.integers(5, 15))):
            likely = rng.random() < 0.7
            chosen.append(int(self.followers[chosen[-1], rng.integers(20)]) if likely else self._any(rng))
        return " ".join(self.words[i] for i in chosen)

    def _any(self, rng: np.random.Generator) -> int:
        return min(int(np.searchsorted(self.cumulative, rng.random())), len(self.words) - 1)


def logits_of(text: str, tokenizer: EmgCharacterTokenizer, rng: np.random.Generator) -> np.ndarray:
    """(frames, vocabulary)"""
    frames = round(len(text) / CHARACTER_RATE * FRAME_RATE)
    logits = rng.normal(0, 1.2, (frames, len(tokenizer)))
    logits[:, tokenizer.pad_token_id] += 7
    centres = (np.arange(len(text)) + 0.5 + rng.uniform(-0.3, 0.3, len(text))) * frames / len(text)
    for centre, label in zip(centres.astype(int), tokenizer(text).input_ids, strict=True):
        confused = int(rng.integers(len(tokenizer) - 1))
        spike = slice(centre, centre + int(rng.integers(1, 3)))
        logits[spike, label] += rng.normal(10, 2.5)
        logits[spike, confused] += rng.normal(7, 2.5)
    return logits


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--utterances", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    language = Language(options.words, rng)
    tokenizer = EmgCharacterTokenizer(characters=SPEECH_CHARACTERS)
    said = [language.sentence(rng) for _ in range(options.utterances)]
    logits = [logits_of(text, tokenizer, rng) for text in said]
    seconds_of_signal = sum(map(len, logits)) / FRAME_RATE

    def greedy(frames: np.ndarray) -> str:
        return tokenizer.decode(greedy_decode(frames[None], blank=tokenizer.pad_token_id)[0])

    decoders = {"greedy": greedy}
    with TemporaryDirectory() as folder:
        arpa = Path(folder) / "lm.arpa"
        built = build_language_model((language.sentence(rng) for _ in range(SENTENCES)), arpa)
        start = time.perf_counter()
        for name, path in {"no LM": None, "4-gram": arpa}.items():
            for beam in BEAMS:
                decoder = WordBeamDecoder(tokenizer, language.words, path, beam_size=beam)
                decoders[f"beam {beam}, {name}"] = decoder.decode
        loading = time.perf_counter() - start
    texts = {name: [decode(frames) for frames in logits] for name, decode in decoders.items()}
    calls = {name: partial(_decode_all, decode, logits) for name, decode in decoders.items()}
    seconds = alternate(calls, options.repeats, warmup=0)
    print(
        f"{len(said)} utterances, {seconds_of_signal:.1f} s; lexicon of {len(language.words)} words; 4-gram of "
        f"{built.words} words, {sum(built.ngrams)} n-grams; {len(BEAMS) * 2} decoders made in {loading:.1f} s"
    )
    factors = {name: duration / seconds_of_signal for name, duration in seconds.items()}
    for name, factor in factors.items():
        errors = word_errors(said, texts[name])
        print(f"{name:18s} real-time factor {factor:9.2g}   WER {errors['wer']:5.1f} %   CER {errors['cer']:5.1f} %")
    print("real-time factor: " + ", ".join(f"{name} {factor:.2g}" for name, factor in factors.items()))


def _decode_all(decode: Callable[[np.ndarray], str], logits: list[np.ndarray]) -> None:
    for frames in logits:
        decode(frames)


if __name__ == "__main__":
    main()
