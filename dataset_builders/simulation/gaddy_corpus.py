"""A simulated corpus in the layout of Gaddy and Klein's silent speech, for the builder `gaddy`.

One person reads sentences with eight electrodes on face and throat. The sentences of one book are read twice on the
same day, aloud and in silence, each time at another pace; those of a second book aloud only. Each day the electrodes
are placed anew. The files are those of Zenodo record 4064409 and of the alignments published with it, as
`dataset_builders.gaddy` describes them; `SPLIT_FILE` holds out sentences of the first book:

    write_gaddy_corpus("corpus")
    data, extractor = load_corpus("gaddy", "corpus", split_file="split.json")

Signals, sound and text are simulated: nothing in them comes from the recorded corpus.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymyo_hf.signal import resample

from ..errors import ConfigError, PreparationError, disk_errors
from .anatomy import FACE_MUSCLES
from .signals import CONTROL_RATE, TONE, simulate_emg
from .sound import SOUND_RATE, sound_of
from .speech import FACE_APPARATUS, PHONE_NAMES, SILENCE, Speaker, Spoken, draw_speaker, say
from .text import LEXICON, PARTS, random_sentence

SPLIT_FILE = "split.json"
PARALLEL_BOOK, OTHER_BOOK = "books/The_Quiet_Village.txt", "books/Beyond_the_Mountain.txt"
SESSION_SENTENCES = 50
HELD_OUT = 2 / 15  # of the parallel sentences, for development and again for the test: 67 of 500
EMG_RATE = 1000  # Hz
MICROVOLTS = 1e6
PACE_SPREAD = 0.1
SILENCE_SECONDS = 2.0
ROOM = 3e-4  # standard deviation of the noise that a microphone picks up, of full scale
MAINS = 60.0  # Hz; the simulator's own hum is of 50 Hz
VOWELS = frozenset(["aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"])
MAX_SENTENCES = 10_000
_PEOPLE, _DAYS, _TEXTS, _SPLITS = range(4)  # what a random generator is for


@dataclass(frozen=True)
class WrittenCorpus:
    """What has been written: utterances of each folder, those held out, and all the EMG in minutes."""

    folder: Path
    silent: int
    voiced: int
    nonparallel: int
    dev: int
    test: int
    minutes: float


class Sentence(NamedTuple):
    """A sentence of a book: its index there, the words as spoken, and as written."""

    book: str
    index: int
    words: list[str]
    text: str


@dataclass(frozen=True)
class Session:
    """The sentences that are read one after another with the electrodes in the same place.

    Attributes:
        folder: of the layout. name: of the session. number: of the reading, for its random generator.
    """

    folder: str
    name: str
    number: int
    silent: bool
    speaker: Speaker
    sentences: list[Sentence]


def write_gaddy_corpus(out: str | Path, parallel: int = 500, nonparallel: int = 1200, seed: int = 0) -> WrittenCorpus:
    """Write a corpus; nothing is left in `out` unless it is whole.

    Args:
        out: folder to make, absent or empty.
        parallel: sentences that are read aloud and in silence, at least 3; 2 in 15 are for development, 2 in 15 for the
            test.
        nonparallel: sentences that are only read aloud, 0 or more.
        seed: the same seed makes the same corpus; another one another person and other sentences.

    Raises:
        ConfigError: impossible numbers, or no package soundfile.
        PreparationError: `out` or `out`.partial holds something, or cannot be written.
    """
    for name, value, least in (("parallel", parallel, 3), ("nonparallel", nonparallel, 0), ("seed", seed, 0)):
        if type(value) is not int or not least <= value or (name != "seed" and value > MAX_SENTENCES):
            raise ConfigError(
                f"{name}={value!r} must be a whole number, {least} or more (sentences: {MAX_SENTENCES:,})"
            )
    try:
        import soundfile  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: the package is there, its C library is not
        raise ConfigError(f"writing audio needs the package soundfile ({error}): pip install soundfile") from error
    out = Path(out)
    partial = out.with_name(f"{out.name}.partial")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PreparationError(f"{out} is there and not an empty folder: choose another one, or remove it")
    if partial.exists():
        raise PreparationError(f"{partial} is left from a run that was stopped: remove it")
    with disk_errors(partial):
        try:
            partial.mkdir(parents=True)
            written = _write(partial, out, parallel, nonparallel, seed)
            if out.exists():
                out.rmdir()
            partial.rename(out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return written


def _write(root: Path, out: Path, parallel: int, nonparallel: int, seed: int) -> WrittenCorpus:
    """All files of the corpus, under `root`."""
    sentences = draw_sentences(parallel + nonparallel, parallel, np.random.default_rng([seed, _TEXTS]))
    (root / "emg_data" / "nonparallel_data").mkdir(parents=True)  # expected also where it is empty
    sessions = _sessions(sentences[:parallel], sentences[parallel:], seed)
    samples = sum(_write_session(root, session, seed) for session in sessions)
    count = max(1, round(HELD_OUT * parallel))
    drawn = np.random.default_rng([seed, _SPLITS]).permutation(parallel)[: 2 * count]
    held_out = {
        name: [[PARALLEL_BOOK, int(index)] for index in np.sort(part)]
        for name, part in (("dev", drawn[:count]), ("test", drawn[count:]))
    }
    (root / SPLIT_FILE).write_text(json.dumps(held_out) + "\n", encoding="utf-8")
    return WrittenCorpus(out, parallel, parallel, nonparallel, count, count, samples / EMG_RATE / 60)


def draw_sentences(count: int, parallel: int, rng: np.random.Generator) -> list[Sentence]:
    """Sentences that differ from one another; the first `parallel` are those of the first book."""
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        found[tuple(random_sentence(rng))] = None
    return [
        Sentence(PARALLEL_BOOK, number, list(words), _written(list(words), rng))
        if number < parallel
        else Sentence(OTHER_BOOK, number - parallel, list(words), _written(list(words), rng))
        for number, words in enumerate(found)
    ]


def _written(words: list[str], rng: np.random.Generator) -> str:
    """The words as a book prints them: capitals, commas and dashes before adverbs and prepositions, quotation marks."""
    text = words[0].capitalize()
    for position, word in enumerate(words[1:], 1):
        pause = word in PARTS["preposition"] or (word in PARTS["adverb"] and position == len(words) - 1)
        gap = str(rng.choice([" ", ", ", "—", ": ", "; "], p=[0.4, 0.3, 0.15, 0.05, 0.1])) if pause else " "
        text += gap + word
    text += str(rng.choice([".", "!", "?", ";", "..."], p=[0.6, 0.15, 0.15, 0.05, 0.05]))
    left, right = (("", ""), ("“", "”"), ('"', '"'), ("(", ")"))[rng.choice(4, p=[0.7, 0.15, 0.1, 0.05])]
    return left + text + right


def _sessions(parallel: list[Sentence], others: list[Sentence], seed: int) -> Iterator[Session]:
    """Who reads what when: on each day one placement of the electrodes, and one order of the sentences."""
    person = draw_speaker(np.random.default_rng([seed, _PEOPLE]))
    number = 0
    for part, sentences in enumerate((parallel, others)):
        for day in range(math.ceil(len(sentences) / SESSION_SENTENCES)):
            now = np.random.default_rng([seed, _DAYS, number])
            speaker = person.on_another_day(now)
            speaker = replace(speaker, face=replace(speaker.face, hum=0.0))
            read = sentences[day * SESSION_SENTENCES : (day + 1) * SESSION_SENTENCES]
            name = f"{part + 1}-{day + 1}"
            if part == 0:
                yield Session("silent_parallel_data", f"{name}_silent", number, True, speaker, read)
                yield Session("voiced_parallel_data", name, number + 1, False, speaker, read)
            else:
                yield Session("nonparallel_data", name, number, False, speaker, read)
            number += 2


def _write_session(root: Path, session: Session, seed: int) -> int:
    """The files of a session, which begins with a clip of silence; how many samples of EMG they have."""
    rng = np.random.default_rng([seed, _DAYS, session.number, 1])
    folder = root / "emg_data" / session.folder / session.name
    folder.mkdir(parents=True)
    offset = rng.normal(0, 3000, (8, 1))  # of the electrodes against the amplifier, uV
    hum = rng.uniform(3, 15, (8, 1))
    emg = _at_rest(session.speaker, rng)
    total = _write_utterance(folder, 0, emg + offset, hum, None, "", {"book": "", "sentence_index": -1}, rng)
    for index, sentence in enumerate(session.sentences, 1):
        pace = rng.lognormal(0, PACE_SPREAD)
        spoken = say(sentence.words, session.speaker, session.silent, FACE_APPARATUS.rate, rng, pace)
        emg = resample(spoken.samples * MICROVOLTS, FACE_APPARATUS.rate, EMG_RATE)
        sound = None if session.silent else sound_of(spoken, 115.0, rng)
        where = {"book": sentence.book, "sentence_index": sentence.index}
        total += _write_utterance(folder, index, emg + offset, hum, sound, sentence.text, where, rng)
        if not session.silent:
            alignment = root / "text_alignments" / session.name / f"{session.name}_{index}_audio.TextGrid"
            alignment.parent.mkdir(parents=True, exist_ok=True)
            alignment.write_text(_textgrid(spoken, sentence.words), encoding="utf-8")
    return total


def _at_rest(speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """EMG of a person who says nothing: (8, time), uV at 1000 Hz."""
    excitation = np.full((len(FACE_MUSCLES), round(SILENCE_SECONDS * CONTROL_RATE)), TONE)
    emg = simulate_emg(speaker.face, excitation, FACE_APPARATUS.rate, rng, FACE_APPARATUS)
    return resample(emg * MICROVOLTS, FACE_APPARATUS.rate, EMG_RATE)


def _write_utterance(
    folder: Path,
    index: int,
    emg: np.ndarray,
    hum: np.ndarray,
    sound: np.ndarray | None,
    text: str,
    where: dict[str, object],
    rng: np.random.Generator,
) -> int:
    """The four files of an utterance; how many samples of EMG it has.

    Args:
        emg: (8, time), uV. hum: of each channel, (8, 1), uV.
        sound: at 16,000 Hz; None where nothing was said aloud.
    """
    import soundfile

    times = np.arange(emg.shape[1]) / EMG_RATE
    start = rng.uniform(0, 2 * np.pi)
    emg = emg + hum * (np.sin(2 * np.pi * MAINS * times + start) + 0.3 * np.sin(6 * np.pi * MAINS * times + start))
    np.save(folder / f"{index}_emg.npy", emg.T.astype(np.float32))
    if sound is None:
        sound = np.zeros(emg.shape[1] * SOUND_RATE // EMG_RATE)
    clean = sound + 0.2 * rng.normal(0, ROOM, len(sound))
    buzz = ROOM * np.sin(2 * np.pi * MAINS * np.arange(len(sound)) / SOUND_RATE)
    noisy = sound + rng.normal(0, ROOM, len(sound)) + buzz
    for name, signal in (("audio_clean", clean), ("audio", noisy)):
        soundfile.write(folder / f"{index}_{name}.flac", np.clip(signal, -1, 1), SOUND_RATE, subtype="PCM_16")
    info = where | {"text": text, "chunks": [[emg.shape[1], len(sound), 0]]}
    (folder / f"{index}_info.json").write_text(json.dumps(info), encoding="utf-8")
    return emg.shape[1]


def _textgrid(spoken: Spoken, words: list[str]) -> str:
    """When each word and phone was said, in Praat's long text format, as a forced aligner writes it."""
    # a phone begins where the progress of the one before falls back
    starts = np.concatenate([[0], np.flatnonzero(np.diff(spoken.progress) < 0) + 1])
    edges = [int(step) / CONTROL_RATE for step in (*starts, len(spoken.track))]
    spoken_words = iter([(word, k == 0) for word in words for k in range(len(LEXICON[word]))])
    phones: list[tuple[float, float, str]] = []
    spans: list[tuple[float, float, str]] = []
    for start, end, phone in zip(edges[:-1], edges[1:], spoken.track[starts], strict=True):
        if phone == SILENCE:
            between_words = start > 0 and end < edges[-1]
            phones.append((start, end, "sp" if between_words else ""))
            spans.append((start, end, ""))
            continue
        name = PHONE_NAMES[phone]
        phones.append((start, end, name.upper() + ("1" if name in VOWELS else "")))
        word, is_first_phone = next(spoken_words)
        if is_first_phone:
            spans.append((start, end, word))
        else:
            spans[-1] = (spans[-1][0], end, word)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0.0", f"xmax = {edges[-1]}"]
    lines += ["tiers? <exists>", "size = 2", "item []:"]
    for number, (name, rows) in enumerate((("words", spans), ("phones", phones)), 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0.0", f"        xmax = {edges[-1]}", f"        intervals: size = {len(rows)}"]
        for position, (start, end, label) in enumerate(rows, 1):
            lines += [f"        intervals [{position}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{label}"']
    return "\n".join(lines) + "\n"
