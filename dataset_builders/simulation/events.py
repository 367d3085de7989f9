"""The preset "events": discrete gestures of thumb and fingers at the wrist, as for a neuromotor interface.

Index and middle finger press against the thumb, hold for a while and release; the thumb clicks and swipes. A gesture
is a brief burst that begins some 60 ms before the event; a held press keeps a fraction of it. Now and then the wrist
moves without meaning anything.
"""

import numpy as np

from ..content import Events, Signal
from .anatomy import FINGER_MUSCLES, Block, habits
from .signals import CONTROL_RATE, WRISTBAND, add_burst, drives_of, in_steps, simulate_emg, with_tone

EVENTS: dict[str, dict[str, float]] = {
    "index_press": {"fds_index": 0.5, "fdp_index": 0.35, "flexor_pollicis_longus": 0.2, "ed_middle": 0.08},
    "index_release": {"ed_index": 0.4, "abductor_pollicis_longus": 0.1},
    "middle_press": {"fds_middle": 0.5, "fdp_middle": 0.35, "flexor_pollicis_longus": 0.2, "ed_index": 0.08},
    "middle_release": {"ed_middle": 0.4, "abductor_pollicis_longus": 0.1},
    "thumb_click": {"flexor_pollicis_longus": 0.55, "fds_index": 0.12, "extensor_carpi_radialis_brevis": 0.1},
    "thumb_down": {"flexor_pollicis_longus": 0.3, "flexor_carpi_radialis": 0.3, "pronator_teres": 0.25},
    "thumb_in": {"extensor_pollicis_longus": 0.35, "flexor_pollicis_longus": 0.3, "palmaris_longus": 0.2},
    "thumb_out": {"abductor_pollicis_longus": 0.5, "extensor_pollicis_brevis": 0.35},
    "thumb_up": {"extensor_pollicis_longus": 0.5, "extensor_carpi_radialis_longus": 0.2},
}
EVENT_NAMES = tuple(EVENTS)
ACTIONS = ("index_press", "middle_press", *EVENT_NAMES[4:])  # a release follows its press
IDLE: tuple[dict[str, float], ...] = (
    {"flexor_carpi_radialis": 0.2, "palmaris_longus": 0.2, "flexor_carpi_ulnaris": 0.2},
    {"extensor_carpi_radialis_longus": 0.2, "extensor_carpi_radialis_brevis": 0.2, "extensor_carpi_ulnaris": 0.2},
    {"pronator_teres": 0.25},
    {"extensor_carpi_ulnaris": 0.2, "flexor_carpi_ulnaris": 0.2},
)
HOLD = (0.15, 1.2)  # s from press to release
GAP = (0.35, 1.3)  # s between actions
LEAD = 0.06  # s from the onset of a burst to its event
HELD = 0.35  # share of a press that holding it takes
IDLE_EVERY = 5.0  # s
TURN = 15.0  # degrees by which people place the wristband differently


def simulate_events(block: Block) -> Signal:
    """One block of gestures in random order.

    Returns:
        samples int16 (channels, time) in steps of 10 uV; events named by `EVENT_NAMES`, whose ends are their starts.
    """
    person, day, now = block.person(), block.day(), block.now()
    forearm = block.wearer(person, day, block.num_channels, TURN)
    drives = dict(zip(EVENT_NAMES, habits(person, drives_of(list(EVENTS.values()), FINGER_MUSCLES)), strict=True))
    happenings = _schedule(block.duration, now)
    excitation = np.zeros((len(FINGER_MUSCLES), round(block.duration * CONTROL_RATE)))
    for name, time, hold in happenings:
        drive = drives[name] * now.lognormal(0, 0.2) * now.lognormal(0, 0.15, len(FINGER_MUSCLES))
        rise, fall = now.uniform(0.04, 0.07), now.uniform(0.06, 0.12)
        add_burst(excitation, drive, time - LEAD, rise, now.uniform(0.02, 0.06), fall)
        if hold:
            add_burst(excitation, HELD * drive, time, 0.06, hold - 0.06, 0.08)
    _move_idly(excitation, block.duration, now)
    samples = simulate_emg(forearm, with_tone(excitation, now), block.sampling_rate, now, WRISTBAND)
    starts = np.array([time for _, time, _ in happenings]) * block.sampling_rate
    return Signal(
        in_steps(samples),
        block.sampling_rate,
        events=Events(tuple(name for name, _, _ in happenings), starts, starts),
        step=1.0,
    )


def _schedule(duration: float, rng: np.random.Generator) -> list[tuple[str, float, float]]:
    """What happens when: (name, time, hold) in order of time, s; hold is 0 for all but presses."""
    happenings: list[tuple[str, float, float]] = []
    time = rng.uniform(*GAP)
    while True:
        for action in rng.permutation(ACTIONS).tolist():
            hold = rng.uniform(*HOLD) if action.endswith("_press") else 0.0
            if time + hold > duration - GAP[0]:
                return happenings
            happenings.append((action, time, hold))
            if hold:
                happenings.append((action.replace("press", "release"), time + hold, 0.0))
            time += hold + rng.uniform(*GAP)


def _move_idly(excitation: np.ndarray, duration: float, rng: np.random.Generator) -> None:
    """Wrist movements that belong to no event, in place."""
    drives = drives_of(IDLE, FINGER_MUSCLES)
    for onset in rng.uniform(0, duration, rng.poisson(duration / IDLE_EVERY)):
        drive = drives[rng.integers(len(drives))] * rng.uniform(0.3, 1)
        add_burst(excitation, drive, onset, rng.uniform(0.2, 0.5), rng.uniform(0, 1.5), rng.uniform(0.2, 0.5))
