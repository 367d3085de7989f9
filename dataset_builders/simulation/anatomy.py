"""Bodies of the synthetic corpus beyond the eight-gesture forearm: finger by finger, and a face; and who sits where.

Positions are those of an anatomy atlas to within a few millimetres; they are the simulator's own, not measured.
"""

from dataclasses import dataclass, replace

import numpy as np

from .signals import (
    MUSCLE_RADIUS,
    UNITS_PER_MUSCLE,
    Forearm,
    Person,
    another_day,
    draw_forearm,
    next_session,
)

# angle (degrees) and depth (mm) as in `signals.MUSCLES`, with a compartment for each finger
FINGER_MUSCLES: dict[str, tuple[float, float]] = {
    "pronator_teres": (45, 7),
    "flexor_carpi_radialis": (26, 5),
    "palmaris_longus": (2, 4),
    "flexor_carpi_ulnaris": (-58, 5),
    "fds_index": (16, 9),
    "fds_middle": (-4, 8),
    "fds_ring": (-22, 9),
    "fds_little": (-38, 9),
    "fdp_index": (-48, 13),
    "fdp_middle": (-62, 13),
    "fdp_ring": (-76, 13),
    "fdp_little": (-90, 12),
    "flexor_pollicis_longus": (58, 13),
    "extensor_carpi_radialis_longus": (103, 5),
    "extensor_carpi_radialis_brevis": (122, 6),
    "abductor_pollicis_longus": (138, 11),
    "extensor_pollicis_brevis": (150, 10),
    "extensor_pollicis_longus": (188, 12),
    "ed_index": (150, 5),
    "ed_middle": (164, 5),
    "ed_ring": (180, 5),
    "ed_little": (198, 5),
    "extensor_carpi_ulnaris": (224, 5),
}

# mm, mouth at the origin: to the side, up (below the chin: backwards and down), depth; each muscle is a pair
FACE_MUSCLES: dict[str, tuple[float, float, float]] = {
    "orbicularis_oris_superior": (8, 9, 5),
    "orbicularis_oris_inferior": (8, -9, 5),
    "zygomaticus": (34, 22, 7),
    "levator_labii": (18, 24, 6),
    "depressor_anguli_oris": (26, -22, 6),
    "depressor_labii": (14, -24, 6),
    "mentalis": (5, -34, 6),
    "masseter": (62, -8, 10),
    "digastric": (12, -62, 8),
    "genioglossus": (3, -56, 20),
    "mylohyoid": (16, -72, 12),
    "styloglossus": (30, -74, 18),
    "cricothyroid": (8, -108, 8),
}
# spread as in eight-channel recordings of silent speech: cheek above the mouth, corner of the chin, below the
# chin, throat beside the larynx, jaw, cheek below the mouth, cheek beside the nose, back of the cheek
FACE_ELECTRODES: tuple[tuple[float, float], ...] = (
    (28, 14),
    (22, -30),
    (6, -62),
    (22, -102),
    (-48, -26),
    (-24, -14),
    (-20, 26),
    (-66, 4),
)


@dataclass(frozen=True)
class Face(Person):
    """One person's face and throat, unfolded into a plane.

    Attributes:
        size: of this head against the average.
        electrodes: (electrodes, 2), mm. units: to the side, up and depth of each motor unit, (muscles * units, 3), mm.
    """

    size: float
    electrodes: np.ndarray
    units: np.ndarray

    def distances(self) -> np.ndarray:
        """From each electrode to each motor unit, mm, (electrodes, muscles * units)."""
        across = self.electrodes[:, None] - self.units[None, :, :2]
        return self.size * np.sqrt((across**2).sum(axis=-1) + self.units[:, 2] ** 2)


def draw_face(rng: np.random.Generator) -> Face:
    """A person at random, with the electrodes of `FACE_ELECTRODES` a few millimetres off."""
    centres = np.array(list(FACE_MUSCLES.values()), dtype=float)
    centres += rng.normal(0, (2.5, 2.5, 1.0), centres.shape)
    units = np.repeat(centres, UNITS_PER_MUSCLE, axis=0)
    units[1::2, 0] *= -1  # the muscle of the other side
    units += rng.normal(0, (MUSCLE_RADIUS, MUSCLE_RADIUS, MUSCLE_RADIUS / 2), units.shape)
    units[:, 2] = np.maximum(3.0, units[:, 2])
    places = np.array(FACE_ELECTRODES, dtype=float)
    return Face(
        gain=rng.lognormal(0, 0.25),
        contact=rng.lognormal(0, 0.12, len(places)),
        slowness=rng.uniform(0.88, 1.15),
        fatigue=rng.uniform(0.02, 0.1),
        strength=rng.lognormal(0, 0.25, len(centres)),
        hum=rng.uniform(5e-6, 2e-5),
        wander=rng.uniform(1e-5, 4e-5),
        noise=rng.uniform(3e-6, 6e-6),
        size=rng.uniform(0.92, 1.08),
        electrodes=places + rng.normal(0, 4, places.shape),
        units=units,
    )


def next_face_session(face: Face, rng: np.random.Generator) -> Face:
    """The same person on another day: electrodes glued a little elsewhere, contact and mains differ."""
    electrodes = face.electrodes + rng.normal(0, 2.5, face.electrodes.shape)
    return replace(another_day(face, rng), electrodes=electrodes)


@dataclass(frozen=True)
class Block:
    """Which stretch of recording is simulated; everything in it follows from these values.

    Attributes:
        subject, session, block: counted from 1.
        seed: of the corpus.
        sampling_rate: Hz. duration: s. num_channels: of the recording. target_hop: samples per frame of targets.
    """

    subject: int
    session: int
    block: int
    seed: int
    sampling_rate: int
    duration: float
    num_channels: int
    target_hop: int = 1

    def person(self) -> np.random.Generator:
        """The generator of everything that is the same in all recordings of the subject."""
        return np.random.default_rng([self.seed, self.subject])

    def day(self) -> np.random.Generator:
        """The generator of everything that is the same in all blocks of the session."""
        return np.random.default_rng([self.seed, self.subject, self.session])

    def now(self) -> np.random.Generator:
        """The generator of what happens in this block."""
        return np.random.default_rng([self.seed, self.subject, self.session, self.block])

    def wearer(self, person: np.random.Generator, day: np.random.Generator, electrodes: int, turn: float) -> Forearm:
        """The subject's forearm, finger by finger, on that day."""
        return next_session(draw_forearm(person, electrodes, turn, FINGER_MUSCLES), day)

    def frame_times(self, samples: int) -> np.ndarray:
        """Time of the first sample of each frame of targets, s, (samples // target_hop,)."""
        return np.arange(samples // self.target_hop) * self.target_hop / self.sampling_rate


def habits(rng: np.random.Generator, patterns: np.ndarray) -> np.ndarray:
    """Drive patterns (patterns, muscles) as one person does them: other shares, and some muscles that need not help."""
    personal = patterns * rng.lognormal(0, 0.2, patterns.shape)
    return personal + patterns.max(axis=1, keepdims=True) * rng.uniform(0, 0.1, patterns.shape)
