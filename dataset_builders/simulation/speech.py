"""The preset "speech": sentences spoken aloud or mouthed in silence, with eight electrodes on face and throat.

Words become phones, phones become articulator movements that flow into one another, these drive the muscles some 60 ms
before the sound. In silence the larynx rests and the mouth moves slower and more. The frames of "sound" are simulated
too: resonances and noise bands in a log-mel spectrum, not the analysis of any audio. Of a silent sentence they are what
it would have sounded like at that pace.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..content import Signal
from .anatomy import FACE_ELECTRODES, FACE_MUSCLES, Block, Face, draw_face, next_face_session
from .signals import CONTROL_RATE, Apparatus, drives_of, in_steps, simulate_emg, with_tone
from .text import LEXICON, random_sentence

FACE_APPARATUS = Apparatus(rate=1600, widths=(1.0e-3, 1.5e-3, 2.1e-3, 3.0e-3), high_pass=2.0, looseness=0.01)
NUM_CHANNELS = len(FACE_ELECTRODES)
MELS = 80
MEL_NAMES = tuple(f"mel {band}" for band in range(MELS))
_TOP = 2595 * np.log10(1 + 8000 / 700)
MEL_CENTRES = 700 * (10 ** (np.linspace(0, _TOP, MELS + 2)[1:-1] / 2595) - 1)  # Hz

ARTICULATORS: dict[str, dict[str, float]] = {
    "close": {
        "orbicularis_oris_superior": 0.4,
        "orbicularis_oris_inferior": 0.35,
        "mentalis": 0.35,
        "masseter": 0.12,
        "depressor_anguli_oris": 0.1,
    },
    "round": {"orbicularis_oris_superior": 0.35, "orbicularis_oris_inferior": 0.4, "depressor_anguli_oris": 0.1},
    "spread": {"zygomaticus": 0.4, "levator_labii": 0.2},
    "teeth": {"levator_labii": 0.2, "mentalis": 0.3, "depressor_labii": 0.25},
    "jaw": {"digastric": 0.5, "depressor_labii": 0.25, "mylohyoid": 0.1},
    "tip": {"masseter": 0.2, "mylohyoid": 0.35},
    "front": {"genioglossus": 0.5, "mylohyoid": 0.15},
    "back": {"styloglossus": 0.5},
    "voice": {"cricothyroid": 0.35},
}
# for each phone: mean duration (ms); how far each articulator goes (0 to 9 tenths, in the order of ARTICULATORS, voice
# being 0 or 9); the resonances of vowels and sonorants (Hz); level (0 to 9) and centre (Hz) of its noise.
# The resonances of the ten plain vowels are the averages of Peterson and Barney (1952) for men; all else is the
# simulator's own, chosen to be plausible.
PHONE_TEXT = """
sil 150 000000000    0    0    0 0    0
aa  130 000090029  730 1090 2440 0    0
ae  140 002080309  660 1720 2410 0    0
ah   90 000050019  640 1190 2390 0    0
ao  130 050060049  570  840 2410 0    0
aw  160 030070039  640 1000 2400 0    0
ay  160 002070309  650 1700 2500 0    0
b    70 900010009  200  800 2200 1  800
ch  110 030010400    0    0    0 8 3500
d    60 000010709  200 1700 2600 2 4000
dh   60 001010509  280 1400 2600 2 5500
eh  110 002050409  530 1840 2480 0    0
er  130 030030439  490 1350 1690 0    0
ey  140 004030609  450 2100 2600 0    0
f   100 010109000    0    0    0 4 6500
g    75 000020089  200 1900 2400 2 2000
hh   70 000030000  500 1500 2500 2 1500
ih   90 003020609  390 1990 2550 0    0
iy  120 006010809  270 2290 3010 0    0
jh   90 030010409  220 1800 2500 6 3400
k    85 000020080    0    0    0 5 2200
l    70 000020649  360 1100 2700 0    0
m    75 800000009  250 1000 2200 0    0
n    70 000010609  250 1500 2500 0    0
ng   80 000020079  250 2000 2600 0    0
ow  150 070040059  490  910 2400 0    0
oy  160 050040449  500 1300 2400 0    0
p    90 900010000    0    0    0 3 1200
r    75 040020349  420 1300 1600 0    0
s   105 003010700    0    0    0 9 6800
sh  110 040010500    0    0    0 9 3800
t    75 000010700    0    0    0 6 4800
th   90 001010500    0    0    0 3 6000
uh   90 050030049  440 1020 2240 0    0
uw  120 080010069  300  870 2240 0    0
v    65 010109009  240 1200 2400 2 6000
w    65 090010059  290  700 2200 0    0
y    60 005010709  280 2200 2900 0    0
z    85 003010709  240 1600 2500 6 6500
zh   85 040010509  240 1700 2400 6 3700
"""
_ROWS = [line.split() for line in PHONE_TEXT.strip().splitlines()]
PHONE_NAMES = tuple(row[0] for row in _ROWS)
SILENCE = PHONE_NAMES.index("sil")
DURATIONS = np.array([float(row[1]) for row in _ROWS]) / 1000  # s
POSITIONS = np.array([[int(digit) for digit in row[2]] for row in _ROWS]) / 9  # (phones, articulators)
RESONANCES = np.array([[float(value) for value in row[3:6]] for row in _ROWS])  # Hz
NOISE = np.array([[float(value) for value in row[6:8]] for row in _ROWS])  # level, Hz
STOPS = [PHONE_NAMES.index(name) for name in ("b", "d", "g", "p", "t", "k", "ch", "jh")]
SETTLING = 0.11  # s over which an articulator goes from one phone to the next
LEAD = 0.06  # s from drive to sound
BREAK = 0.15  # chance of a short silence between words
EDGE = (0.25, 0.5)  # s of silence around a sentence
FLOOR = np.log(1e-5)  # of the log-mel frames
SILENT_PACE, SILENT_EFFORT = 1.15, 1.15


@dataclass(frozen=True)
class Speaker:
    """One person with electrodes on.

    Attributes:
        drives: of each muscle by each articulator, (articulators, muscles).
        tract: resonances against the average. pace: durations against the average.
    """

    face: Face
    drives: np.ndarray
    tract: float
    pace: float

    def on_another_day(self, day: np.random.Generator) -> "Speaker":
        """The same person with the electrodes placed anew."""
        return replace(self, face=next_face_session(self.face, day))


class Spoken(NamedTuple):
    """A sentence: samples (8, time) in V; phone ids `track`, `progress` of each phone (0 to 1), both (steps,), and
    `log_mel` (steps, 80), at `CONTROL_RATE`."""

    samples: np.ndarray
    track: np.ndarray
    progress: np.ndarray
    log_mel: np.ndarray


def draw_speaker(person: np.random.Generator) -> Speaker:
    """A person at random."""
    face = draw_face(person)
    drives = drives_of(list(ARTICULATORS.values()), FACE_MUSCLES)
    drives = drives * person.lognormal(0, 0.15, drives.shape)
    return Speaker(face, drives, tract=person.uniform(0.87, 1.15), pace=person.uniform(0.85, 1.15))


def say(
    words: list[str], speaker: Speaker, silent: bool, sampling_rate: int, rng: np.random.Generator, pace: float = 1.0
) -> Spoken:
    """One sentence with at least one word, between two short silences.

    Args:
        words: out of `LEXICON`.
        silent: mouthed, not spoken; `log_mel` is then what it would have sounded like.
        sampling_rate: Hz, a divisor of the rate of `FACE_APPARATUS`.
        pace: durations against how this person speaks otherwise.
    """
    track, progress = _pronounce(words, pace * speaker.pace * (SILENT_PACE if silent else 1.0), rng)
    excitation = with_tone(speaker.drives.T @ _articulate(track, silent, rng), rng)
    samples = simulate_emg(speaker.face, excitation, sampling_rate, rng, FACE_APPARATUS)
    return Spoken(samples, track, progress, _log_mel(track, progress, speaker.tract, rng))


def simulate_speech(block: Block, modes: tuple[str, ...]) -> Iterator[Signal]:
    """The sentences of one block, until `block.duration` is full; at least one.

    Args:
        modes: out of "voiced" and "silent"; every sentence is in one of them at random.

    Yields:
        samples int16 (channels, time) in steps of 10 uV; text in lower case; phones (frames,), ids in `PHONE_NAMES`;
        targets (frames, 80), natural logarithm of mel energies between 1e-5 and about 1; metadata "mode".
    """
    now = block.now()
    speaker = draw_speaker(block.person()).on_another_day(block.day())
    left, number = block.duration, 1
    while left > 0:
        mode = str(now.choice(modes))
        words = random_sentence(now)
        samples, track, _, log_mel = say(words, speaker, mode == "silent", block.sampling_rate, now)
        at = (block.frame_times(samples.shape[1]) * CONTROL_RATE + 1e-6).astype(np.int64)
        yield Signal(
            in_steps(samples),
            block.sampling_rate,
            targets=log_mel[at],
            text=" ".join(words),
            phones=track[at],
            metadata={"mode": mode},
            name=f"{number:03d}",
            step=1.0,
        )
        left -= samples.shape[1] / block.sampling_rate
        number += 1


def _pronounce(words: list[str], pace: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Phone id at each step of `CONTROL_RATE`, and how much of that phone is over (0 to 1), both (time,)."""
    phones, lengths = [SILENCE], [rng.uniform(*EDGE)]
    for word in words:
        if len(phones) > 1 and rng.uniform() < BREAK:
            phones.append(SILENCE)
            lengths.append(rng.uniform(0.04, 0.12))
        spoken = [PHONE_NAMES.index(name) for name in LEXICON[word]]
        phones += spoken
        lengths += (pace * DURATIONS[spoken] * rng.lognormal(0, 0.15, len(spoken))).tolist()
    phones.append(SILENCE)
    lengths.append(rng.uniform(*EDGE))
    steps = np.maximum(3, np.round(np.array(lengths) * CONTROL_RATE)).astype(int)
    progress = np.concatenate([(np.arange(count) + 0.5) / count for count in steps])
    return np.repeat(phones, steps), progress


def _articulate(track: np.ndarray, silent: bool, rng: np.random.Generator) -> np.ndarray:
    """Drive of each articulator, (articulators, time), ahead of the sound."""
    position = POSITIONS[track].T * rng.lognormal(0, 0.1, (len(ARTICULATORS), 1))
    smooth = _smooth(position, round(SETTLING * CONTROL_RATE))
    speed = np.maximum(np.gradient(smooth, 1 / CONTROL_RATE, axis=1), 0)
    drive = 0.8 * smooth + 0.03 * speed
    if silent:
        drive *= SILENT_EFFORT
        drive[list(ARTICULATORS).index("voice")] = 0.0
    lead = round(LEAD * CONTROL_RATE)
    return np.pad(drive[:, lead:], ((0, 0), (0, lead)), mode="edge")


def _log_mel(track: np.ndarray, progress: np.ndarray, tract: float, rng: np.random.Generator) -> np.ndarray:
    """Frames at `CONTROL_RATE` float32 (time, 80) of a vocal tract with resonances higher by `tract`."""
    closed = np.where(np.isin(track, STOPS) & (progress < 0.6), 0.02, 1.0)
    voiced = RESONANCES[track, 0] > 0
    loudness = _smooth(voiced * closed, 5)[:, None]
    energies = np.zeros((len(track), MELS))
    for level, width, resonance in zip((1.0, 0.35, 0.1), (90, 130, 180), RESONANCES.T * tract, strict=True):
        # resonances glide from phone to phone, also through sounds that have none
        path = _smooth(np.interp(np.arange(len(track)), np.flatnonzero(voiced), resonance[track][voiced]), 9)
        energies += loudness * level / (1 + ((MEL_CENTRES - path[:, None]) / width) ** 2)
    level, hertz = NOISE[track].T
    level = _smooth(0.1 * (level / 9) ** 2 * closed, 5)
    energies += level[:, None] * np.exp(-(((MEL_CENTRES - hertz[:, None]) / 1500) ** 2) / 2)
    decline = np.linspace(0.3, -0.5, len(track))[:, None]
    frames = np.log(np.maximum(energies, 0) + 3e-5) + decline + rng.normal(0, 0.25, energies.shape)
    return np.maximum(frames, FLOOR).astype(np.float32)


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The moving average (..., time) under a Hann window of `width` steps, edges continued."""
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(width // 2, width // 2)], mode="edge")
    return np.apply_along_axis(np.convolve, -1, padded, window / window.sum(), mode="valid")
