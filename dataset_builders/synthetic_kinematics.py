"""The preset "kinematics": a hand that moves smoothly through random postures, and the angles of its fingers.

Five degrees of actuation as in Ninapro DB8. The hand goes from posture to posture along minimum-jerk paths and rests in
some of them. Agonists are driven by the angle they hold against the hand's elasticity and by the speed towards
them, antagonists the other way round, both stiffened a little; the drive precedes the movement by the
electromechanical delay, 50 to 100 ms.
"""

import numpy as np

from .content import Signal
from .synthetic_anatomy import FINGER_MUSCLES, Block
from .synthetic_signals import CONTROL_RATE, drives_of, simulate_emg, with_tone

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
    {"flexor_pollicis_longus": 0.2, "flexor_carpi_radialis": 0.12, "pronator_teres": 0.15},
    {"flexor_pollicis_longus": 0.5},
    {"fds_index": 0.45, "fdp_index": 0.35},
    {"fds_middle": 0.45, "fdp_middle": 0.35},
    {"fds_ring": 0.4, "fdp_ring": 0.35, "fds_little": 0.35, "fdp_little": 0.3},
)
ANTAGONISTS: tuple[dict[str, float], ...] = (
    {"abductor_pollicis_longus": 0.45, "extensor_pollicis_brevis": 0.2},
    {"extensor_pollicis_longus": 0.4, "extensor_pollicis_brevis": 0.25},
    {"ed_index": 0.45},
    {"ed_middle": 0.45},
    {"ed_ring": 0.4, "ed_little": 0.4, "extensor_carpi_ulnaris": 0.1},
)
MOVE = (0.5, 1.6)  # s from posture to posture
REST = (0.1, 1.0)  # s in a posture
DELAY = (0.05, 0.1)  # s from drive to movement
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
    flexing = 0.06 + 0.75 * ahead + np.maximum(speed, 0)
    extending = 0.06 + 0.35 * (1 - ahead) ** 2 + 0.1 * ahead + np.maximum(-speed, 0)
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
    posture = np.zeros(len(ANGLES))
    parts, done = [], 0
    while done < steps:
        following = posture.copy()
        moving = rng.uniform(size=len(ANGLES)) < rng.choice([0.3, 0.6, 1.0])  # single fingers, groups, the whole hand
        following[moving] = rng.beta(0.8, 0.8, moving.sum())
        move, rest = (round(rng.uniform(*span) * CONTROL_RATE) for span in (MOVE, REST))
        t = np.arange(move) / move
        jerk_free = t**3 * (10 - 15 * t + 6 * t**2)
        parts.append(posture[:, None] + (following - posture)[:, None] * jerk_free)
        parts.append(np.repeat(following[:, None], rest, axis=1))
        posture, done = following, done + move + rest
    return np.concatenate(parts, axis=1)[:, :steps]
