"""The preset "typing": sentences typed with ten fingers, a wristband on each wrist.

A key belongs to a finger; its row and column decide how far the finger bends, lifts or reaches aside. Capitals are
typed with the other hand's shift, slips are corrected with backspace, a sentence ends with enter.
"""

from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np

from ..content import Events, Signal
from ..emg2qwerty import BACKSPACE, ENTER, SHIFT, SPACE
from .anatomy import FINGER_MUSCLES, Block
from .signals import CONTROL_RATE, WRISTBAND, add_burst, drives_of, in_steps, simulate_emg, with_tone
from .text import PARTS, random_sentence

LEFT, RIGHT = 0, 1
FINGERS = ("thumb", "index", "middle", "ring", "little")
COLUMNS: tuple[tuple[int, str, int, str], ...] = (
    # hand, finger, columns towards the middle of the keyboard (negative: outwards), keys from the top row down
    (LEFT, "little", 0, "1qaz"),
    (LEFT, "ring", 0, "2wsx"),
    (LEFT, "middle", 0, "3edc"),
    (LEFT, "index", 0, "4rfv"),
    (LEFT, "index", 1, "5tgb"),
    (RIGHT, "index", 1, "6yhn"),
    (RIGHT, "index", 0, "7ujm"),
    (RIGHT, "middle", 0, "8ik,"),
    (RIGHT, "ring", 0, "9ol."),
    (RIGHT, "little", 0, "0p;/"),
    (RIGHT, "little", -1, "-['" + SHIFT),
    (RIGHT, "little", -2, BACKSPACE + "]" + ENTER),
)
SHIFTED = {"!": "1", "?": "/", ":": ";"}
FLEX = (0.15, 0.3, 0.4, 0.5)  # of the flexors, by row from the top
LIFT = (0.45, 0.25, 0.08, 0.05)  # of the extensor before the stroke
TURN = 10.0  # degrees by which people place the wristbands differently
INTERVAL = (0.14, 0.26)  # s between keys, from person to person
HOLD = (0.06, 0.11)  # s for which a key is down
SLIPS = 0.02  # of the letters
PAUSE = (0.5, 1.2)  # s between sentences


@dataclass(frozen=True)
class Key:
    """Where a key lies: hand, finger (index in `FINGERS`), row (digits 0, home row 2), reach (columns inwards)."""

    hand: int
    finger: int
    row: int
    reach: int


def _keyboard() -> dict[str, Key]:
    keys = {SPACE: Key(RIGHT, 0, 3, 0)}
    for hand, finger, reach, column in COLUMNS:
        keys |= {key: Key(hand, FINGERS.index(finger), row, reach) for row, key in enumerate(column)}
    return keys


KEYS = _keyboard()
LEFT_SHIFT = Key(LEFT, FINGERS.index("little"), 3, -1)


@dataclass(frozen=True)
class Stroke:
    """A key pressed from `start` to `end`, s; `name` is the character it makes."""

    name: str
    key: Key
    start: float
    end: float


def simulate_typing(block: Block) -> Signal:
    """One block of typing.

    Returns:
        samples int16 (channels, time) in steps of 10 uV, those of the left wrist first; both bands count their
        electrodes from the palm side towards the thumb. Events are keys from press to release, named by the character
        they make, as in emg2qwerty.
    """
    person, day, now = block.person(), block.day(), block.now()
    wearers = [block.wearer(person, day, block.num_channels // 2, TURN) for _ in (LEFT, RIGHT)]
    style = person.lognormal(0, 0.15, (2, len(FINGERS), len(FINGER_MUSCLES)))
    strokes = _type(block.duration, person.uniform(*INTERVAL), now)
    excitation = np.zeros((2, len(FINGER_MUSCLES), round(block.duration * CONTROL_RATE)))
    for stroke in strokes:
        key = stroke.key
        effort = now.lognormal(0, 0.15) * now.lognormal(0, 0.1, len(FINGER_MUSCLES)) * style[key.hand, key.finger]
        lift, press, back = STROKES[key] * effort
        hand = excitation[key.hand]
        add_burst(hand, lift, stroke.start - 0.13, 0.05, 0.01, 0.05)
        add_burst(hand, press, stroke.start - 0.06, 0.05, max(0.0, stroke.end - stroke.start - 0.05), 0.06)
        add_burst(hand, back, stroke.end - 0.02, 0.04, 0.0, 0.06)
    emg = [
        simulate_emg(wearer, with_tone(drive, now), block.sampling_rate, now, WRISTBAND)
        for wearer, drive in zip(wearers, excitation, strict=True)
    ]
    starts, ends = (np.array([getattr(stroke, edge) for stroke in strokes]) for edge in ("start", "end"))
    return Signal(
        in_steps(np.concatenate(emg)),
        block.sampling_rate,
        events=Events(
            tuple(stroke.name for stroke in strokes), starts * block.sampling_rate, ends * block.sampling_rate
        ),
        step=1.0,
    )


def _strokes_of(key: Key) -> np.ndarray:
    """Drive of the lift before, the press and the lift after a stroke, (3, muscles)."""
    lift: dict[str, float] = {}
    press: dict[str, float] = {}
    back: dict[str, float] = {}
    name = FINGERS[key.finger]
    if name == "thumb":
        press |= {"flexor_pollicis_longus": 0.35, "abductor_pollicis_longus": 0.2}
        back |= {"extensor_pollicis_longus": 0.2}
    else:
        lift[f"ed_{name}"] = LIFT[key.row]
        press |= {f"fds_{name}": FLEX[key.row], f"fdp_{name}": 0.6 * FLEX[key.row]}
        back[f"ed_{name}"] = 0.2
        for neighbour in FINGERS[max(1, key.finger - 1) : key.finger + 2]:  # fingers do not move alone
            press.setdefault(f"fds_{neighbour}", 0.12 * FLEX[key.row])
            lift.setdefault(f"ed_{neighbour}", 0.3 * LIFT[key.row])
    if key.row == 0:
        lift |= {"extensor_carpi_radialis_brevis": 0.3}
    if key.reach > 0:
        lift |= {"extensor_carpi_radialis_longus": 0.25, "abductor_pollicis_longus": 0.15}
        press |= {"flexor_carpi_radialis": 0.2}
    if key.reach < 0:
        lift |= {"extensor_carpi_ulnaris": 0.15 - 0.15 * key.reach}
        press |= {"flexor_carpi_ulnaris": 0.1 - 0.1 * key.reach}
    return drives_of([lift, press, back], FINGER_MUSCLES)


STROKES = {key: _strokes_of(key) for key in (*KEYS.values(), LEFT_SHIFT)}


def _type(duration: float, interval: float, rng: np.random.Generator) -> list[Stroke]:
    """Sentence after sentence: the strokes that fit into `duration`, in order of their starts."""
    strokes, time = [], rng.uniform(*PAUSE)
    while True:
        typed, time = _timed(_keystrokes(_written(rng) + ENTER, rng), time, interval, rng)
        fitting = [stroke for stroke in typed if stroke.end < duration - 0.1]
        strokes += fitting
        if len(fitting) < len(typed):
            return strokes
        time += rng.uniform(*PAUSE)


def _written(rng: np.random.Generator) -> str:
    """A sentence with capital, punctuation and, now and then, a number."""
    words = random_sentence(rng)
    end = "?" if words[0] == "who" else rng.choice([".", ".", ".", "!"])
    if rng.uniform() < 0.2:
        words.insert(0, f"{rng.choice(PARTS['adverb'])},")
    if rng.uniform() < 0.15:
        words.append(str(rng.integers(1, 3000)))
    text = " ".join(words)
    return text[0].upper() + text[1:] + end


def _keystrokes(text: str, rng: np.random.Generator) -> list[tuple[str, Key]]:
    """What is typed and with which key, shifts before what they shift, slips and their corrections included."""
    typed = []
    for character in text:
        if character in ascii_lowercase and rng.uniform() < SLIPS:
            slip = ascii_lowercase[rng.integers(len(ascii_lowercase))]
            typed += [(slip, KEYS[slip]), (BACKSPACE, KEYS[BACKSPACE])]
        base = SHIFTED.get(character, character.lower())
        if base != character:
            typed.append((SHIFT, LEFT_SHIFT if KEYS[base].hand == RIGHT else KEYS[SHIFT]))
        typed.append((character, KEYS[base]))
    return typed


def _timed(
    typed: list[tuple[str, Key]], time: float, interval: float, rng: np.random.Generator
) -> tuple[list[Stroke], float]:
    """Strokes in order of their starts, the first at `time`, and the time after the last."""
    strokes = []
    for (name, key), (_, following) in zip(typed, [*typed[1:], typed[-1]], strict=True):
        strokes.append(Stroke(name, key, time, time + rng.uniform(*HOLD)))
        same_finger = (key.hand, key.finger) == (following.hand, following.finger)
        factor = 1.25 if same_finger else 1.0 if key.hand == following.hand else 0.85
        time += interval * factor * rng.lognormal(0, 0.2)
    for index, stroke in enumerate(strokes):
        if stroke.name == SHIFT:  # held until after the key it shifts
            strokes[index] = replace(stroke, end=strokes[index + 1].end + 0.02)
    return strokes, time
