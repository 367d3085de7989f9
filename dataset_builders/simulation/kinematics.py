"""The preset "kinematics": a hand that moves smoothly through random postures, and the angles of its fingers.

Five degrees of actuation, and single-finger movements and grips, as in Ninapro DB8. The hand moves along minimum-jerk
paths, holds, and mostly comes back before the next movement. Agonists are driven by the angle they hold against the
hand's elasticity and by the speed of bending, antagonists by the speed of stretching and, to stiffen the joint, by a
share of the angle. The drive precedes the movement by the electromechanical delay, 50 to 100 ms.
"""

import numpy as np

from ..content import Signal
from .anatomy import FINGER_MUSCLES, Block
from .signals import CONTROL_RATE, drives_of, simulate_emg, with_tone

# degrees, at rest on the table and at most
ANGLES: dict[str, tuple[float, float]] = {
    "thumb_rotation": (-10.0, 50.0),
    "thumb_flexion": (0.0, 60.0),
    "index_flexion": (0.0, 90.0),
    "middle_flexion": (0.0, 90.0),
    "ring_little_flexion": (0.0, 90.0),
}
TARGET_NAMES = tuple(ANGLES)
AGONISTS: tuple[dict[str, float], ...] = (
    {"abductor_pollicis_longus": 0.45, "flexor_carpi_radialis": 0.15},
    {"flexor_pollicis_longus": 0.5},
    {"fds_index": 0.45, "fdp_index": 0.35},
    {"fds_middle": 0.45, "fdp_middle": 0.35},
    {"fds_ring": 0.4, "fdp_ring": 0.35, "fds_little": 0.35, "fdp_little": 0.3},
)
ANTAGONISTS: tuple[dict[str, float], ...] = (
    {"extensor_pollicis_longus": 0.35, "extensor_carpi_radialis_longus": 0.1},
    {"extensor_pollicis_longus": 0.3, "extensor_pollicis_brevis": 0.25},
    {"ed_index": 0.45},
    {"ed_middle": 0.45},
    {"ed_ring": 0.4, "ed_little": 0.4, "extensor_carpi_ulnaris": 0.1},
)
# how far each angle goes, as a share of its range
MOVEMENTS: dict[str, tuple[float, ...]] = {
    "thumb rotation": (1, 0, 0, 0, 0),
    "thumb flexion": (0, 1, 0, 0, 0),
    "index flexion": (0, 0, 1, 0, 0),
    "middle flexion": (0, 0, 0, 1, 0),
    "ring and little flexion": (0, 0, 0, 0, 1),
    "pointing": (0.5, 0.8, 0, 1, 1),
    "cylindrical grip": (0.9, 0.4, 0.7, 0.7, 0.7),
    "lateral grip": (0.1, 0.8, 0.9, 0.9, 0.9),
    "tripod grip": (0.9, 0.6, 0.7, 0.7, 0.1),
}
EXTENT = (0.5, 1.0)  # of a movement, and of each angle in it
RETURN = 0.8  # chance to come back before the next movement
MOVE = (0.5, 1.5)  # s from posture to posture
REST = (0.2, 1.2)  # s in a posture
DELAY = (0.05, 0.1)  # s from drive to movement
STIFFNESS = 0.2  # drive of an antagonist at the largest angle, as a share of its most
FAST = 3.0  # range per second at which speed drives a muscle fully
TURN = 20.0  # degrees by which people place the armband differently


def simulate_kinematics(block: Block) -> Signal:
    """One block of movement.

    Returns:
        samples float32 (channels, time), V; targets float32 (frames, 5), degrees, the `TARGET_NAMES` at the first
        sample of each frame; repetitions: the number of the block.
    """
    person, day, now = block.person(), block.day(), block.now()
    forearm = block.wearer(person, day, block.num_channels, TURN)
    delay = person.uniform(*DELAY)
    agonists, antagonists = (
        drives_of(patterns, FINGER_MUSCLES) * person.lognormal(0, 0.15, (len(ANGLES), 1))
        for patterns in (AGONISTS, ANTAGONISTS)
    )
    steps = round(block.duration * CONTROL_RATE)
    path = _postures(steps + round(2 * max(DELAY) * CONTROL_RATE), now)  # (DoA, time), shares of the range
    times = np.arange(steps) / CONTROL_RATE
    ahead = np.stack([np.interp(times + delay, np.arange(path.shape[1]) / CONTROL_RATE, row) for row in path])
    speed = np.gradient(ahead, 1 / CONTROL_RATE, axis=1) / FAST
    effort = 1 + 0.15 * np.sin(2 * np.pi * (times / now.uniform(20, 60) + now.uniform()))
    flexing = 0.9 * ahead + np.maximum(speed, 0)
    extending = STIFFNESS * ahead + np.maximum(-speed, 0)
    excitation = effort * (agonists.T @ flexing + antagonists.T @ extending)
    samples = simulate_emg(forearm, with_tone(excitation, now), block.sampling_rate, now)
    low, high = np.array(list(ANGLES.values())).T
    frames = block.frame_times(samples.shape[1])
    shares = np.stack([np.interp(frames, np.arange(path.shape[1]) / CONTROL_RATE, row) for row in path], axis=1)
    return Signal(
        samples,
        block.sampling_rate,
        repetitions=np.full(samples.shape[1], block.block),
        targets=(low + (high - low) * shares).astype(np.float32),
    )


def _postures(steps: int, rng: np.random.Generator) -> np.ndarray:
    """A path through random postures, 0 to 1, (DoA, steps at `CONTROL_RATE`)."""
    posture, home = np.zeros(len(ANGLES)), rng.uniform(0.0, 0.15, len(ANGLES))
    movements = np.array(list(MOVEMENTS.values()))
    parts, done, away = [], 0, False
    while done < steps:
        away = not (away and rng.uniform() < RETURN)
        following = home
        if away:
            extent = rng.uniform(*EXTENT) * rng.uniform(*EXTENT, len(ANGLES)) ** 0.5
            following = np.maximum(home, movements[rng.integers(len(movements))] * extent)
        move, rest = (round(rng.uniform(*span) * CONTROL_RATE) for span in (MOVE, REST))
        t = np.arange(move) / move
        smooth = t**3 * (10 - 15 * t + 6 * t**2)
        parts.append(posture[:, None] + (following - posture)[:, None] * smooth)
        parts.append(np.repeat(following[:, None], rest, axis=1))
        posture, done = following, done + move + rest
    return np.concatenate(parts, axis=1)[:, :steps]
