"""A surface-EMG simulator: muscles in a forearm, motor units in muscles, action potentials at skin electrodes.

What is modelled, in the order the signal arises (lengths in mm, times in s, rates in Hz, voltages in V):

1. Excitation. Each muscle gets a drive between 0 and 1 over time.
2. Motor units. A muscle has `UNITS_PER_MUSCLE` units with exponentially spread recruitment thresholds and sizes (the
   size principle; Fuglevand et al., J. Neurophysiol. 70:2470, 1993). A recruited unit fires at 8 to 35 Hz, growing with
   the drive, with irregular intervals.
3. Volume conductor. An action potential reaches an electrode with an amplitude that falls with the distance to the unit
   through muscle and fat, and the further, the slower its waveform: the second derivative of a Gaussian, with
   spectral peaks between about 50 and 150 Hz.
4. Fatigue. While a recording goes on, conduction slows (waveforms lengthen) and amplitudes grow.
5. Electrodes and amplifier: a ring of electrodes turned by some angle, unequal contact, power-line hum, baseline
   wander, motion artefacts, noise, anti-aliasing, sampling, 8-bit steps of 10 uV.

A `Person` (a `Forearm`, or a `Face` in `anatomy`) holds what differs from person to person; a session is
another placement of the electrodes on the same person. Everything follows from the random generators passed in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft
from scipy import signal as scipy_signal

# angle (degrees; 0 palm side, 90 thumb side, 180 back of the hand) and depth below the fascia (mm) of each muscle in a
# cross-section of the right forearm a third of the way from elbow to wrist
MUSCLES: dict[str, tuple[float, float]] = {
    "pronator_teres": (40, 7),
    "flexor_carpi_radialis": (20, 5),
    "palmaris_longus": (-5, 4),
    "flexor_digitorum_superficialis_radial": (10, 11),
    "flexor_digitorum_superficialis_ulnar": (-22, 11),
    "flexor_carpi_ulnaris": (-55, 5),
    "flexor_digitorum_profundus": (-75, 13),
    "flexor_pollicis_longus": (55, 15),
    "brachioradialis": (78, 5),
    "extensor_carpi_radialis_longus": (105, 5),
    "extensor_carpi_radialis_brevis": (130, 6),
    "abductor_pollicis_longus": (142, 14),
    "extensor_digitorum_radial": (158, 5),
    "extensor_digitorum_ulnar": (176, 5),
    "extensor_digiti_minimi": (195, 5),
    "extensor_carpi_ulnaris": (224, 5),
}
UNITS_PER_MUSCLE = 24
MUSCLE_RADIUS = 4.0  # mm: spread of the units of a muscle
CONTROL_RATE = 100  # Hz: excitation and firing
INNER_RATE = 1000  # Hz: action potentials, before sampling, unless the apparatus is faster
MAX_THRESHOLD = 0.6  # drive at which the last unit of a muscle is recruited
THRESHOLD_RANGE = 30.0  # largest over smallest recruitment threshold
SIZE_RANGE = 20.0  # largest over smallest action potential of a muscle
FIRING_RATE = (8.0, 35.0)  # Hz, at recruitment and at most
POTENTIAL = 1.5e-3  # V: largest action potential of a muscle at REFERENCE_DISTANCE
REFERENCE_DISTANCE = 10.0  # mm
DISTANCE_POWER = 2.3  # amplitudes fall with distance to this power, as for a bipolar electrode
WAVEFORM_WIDTHS = (1.6e-3, 2.2e-3, 3.0e-3, 4.2e-3)  # s, by distance: standard deviation of the Gaussian
WIDTH_DISTANCES = (9.0, 14.0, 20.0)  # mm: borders between the waveforms
STEP = 1e-5  # V: one step of the converter, which has 8 bits
TONE = 0.015  # drive of every muscle at rest


@dataclass(frozen=True)
class Apparatus:
    """What the potentials are recorded with.

    Attributes:
        rate: Hz at which action potentials are drawn; sampling rates divide it.
        widths: s, by distance of the unit: standard deviation of the Gaussian. Electrode pairs that lie closer together
            see shorter waveforms: of 0.9 ms, the spectrum peaks at 250 Hz and reaches beyond 450 Hz.
        high_pass: Hz, edge of the amplifier's second-order high-pass; None for one that passes the baseline.
        looseness: chance per `CONTROL_RATE` step that the strongest change of drive shakes an electrode.
    """

    rate: int = INNER_RATE
    widths: tuple[float, float, float, float] = WAVEFORM_WIDTHS
    high_pass: float | None = None
    looseness: float = 0.15


ARMBAND = Apparatus()
WRISTBAND = Apparatus(rate=2000, widths=(0.9e-3, 1.3e-3, 1.8e-3, 2.6e-3), high_pass=20.0, looseness=0.02)


@dataclass(frozen=True)
class Person:
    """What recordings of one person have in common, whichever muscles they are of.

    Attributes:
        gain: of all electrodes. contact: of each electrode, (electrodes,).
        slowness: stretches the action potentials; 1 is a conduction velocity of about 4 m/s.
        fatigue: relative growth of amplitude and waveform length over 120 s.
        strength: of each muscle's drive, (muscles,): habits differ.
        hum, wander, noise: V, amplitude of hum and standard deviation of the others.
    """

    gain: float
    contact: np.ndarray
    slowness: float
    fatigue: float
    strength: np.ndarray
    hum: float
    wander: float
    noise: float

    def distances(self) -> np.ndarray:
        """From each electrode to each motor unit, mm, (electrodes, muscles * units)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Forearm(Person):
    """One person's forearm with a ring of electrodes on it.

    Attributes:
        radius: of the forearm, mm. fat: thickness of skin and fat over the muscles, mm.
        rotation: angle of electrode 0 against the palm side, degrees.
        unit_angle, unit_depth: of each motor unit, degrees and mm, (muscles * units,).
    """

    radius: float
    fat: float
    rotation: float
    unit_angle: np.ndarray
    unit_depth: np.ndarray

    def distances(self) -> np.ndarray:
        """From each electrode to each motor unit, mm, (electrodes, muscles * units)."""
        electrodes = len(self.contact)
        at = np.radians(self.rotation + 360 / electrodes * np.arange(electrodes))[:, None]
        depth = self.radius - self.fat - self.unit_depth
        angle = np.radians(self.unit_angle)
        return np.hypot(
            self.radius * np.cos(at) - depth * np.cos(angle), self.radius * np.sin(at) - depth * np.sin(angle)
        )


def draw_forearm(
    rng: np.random.Generator,
    electrodes: int = 8,
    turn: float = 45.0,
    muscles: Mapping[str, tuple[float, float]] = MUSCLES,
) -> Forearm:
    """A person at random, wearing a ring of `electrodes` turned by up to `turn` degrees either way.

    Args:
        muscles: angle and depth of each, as in `MUSCLES`.
    """
    angles, depths = np.array(list(muscles.values()), dtype=float).T
    angles = angles + rng.normal(0, 5, len(angles))
    depths = depths * rng.lognormal(0, 0.15, len(depths))
    radius = rng.uniform(36, 46)
    shape = (len(angles), UNITS_PER_MUSCLE)
    spread = np.degrees(MUSCLE_RADIUS / radius)
    return Forearm(
        radius=radius,
        fat=rng.uniform(2, 5),
        rotation=rng.uniform(-turn, turn),
        gain=rng.lognormal(0, 0.3),
        contact=rng.lognormal(0, 0.12, electrodes),
        slowness=rng.uniform(0.88, 1.15),
        fatigue=rng.uniform(0.05, 0.3),
        strength=rng.lognormal(0, 0.3, len(angles)),
        unit_angle=(angles[:, None] + rng.normal(0, spread, shape)).ravel(),
        unit_depth=np.maximum(1.5, depths[:, None] + rng.normal(0, MUSCLE_RADIUS / 2, shape)).ravel(),
        hum=rng.uniform(5e-6, 4e-5),
        wander=rng.uniform(1e-5, 6e-5),
        noise=rng.uniform(4e-6, 9e-6),
    )


def next_session(forearm: Forearm, rng: np.random.Generator) -> Forearm:
    """The same person on another day: the ring sits a little differently, contact and mains differ."""
    rotation = forearm.rotation + rng.normal(0, 5)
    return replace(another_day(forearm, rng), rotation=rotation)


def another_day(person: Person, rng: np.random.Generator) -> Person:
    """The same person and placement with other contact and mains."""
    return replace(
        person,
        gain=person.gain * rng.lognormal(0, 0.1),
        contact=person.contact * rng.lognormal(0, 0.1, len(person.contact)),
        hum=rng.uniform(5e-6, 4e-5),
        noise=rng.uniform(4e-6, 9e-6),
    )


def simulate_emg(
    person: Person,
    excitation: np.ndarray,
    sampling_rate: int,
    rng: np.random.Generator,
    apparatus: Apparatus = ARMBAND,
) -> np.ndarray:
    """EMG of a recording.

    Args:
        person: who, and how the electrodes sit.
        excitation: drive of each muscle, 0 to 1, (muscles, time at `CONTROL_RATE`).
        sampling_rate: Hz, a divisor of the rate of the apparatus.
        apparatus: what it is recorded with.

    Returns:
        (electrodes, time) float32, V, in steps of 10 uV within 8 bits.
    """
    rate = apparatus.rate
    if rate % sampling_rate:
        raise ValueError(f"sampling_rate={sampling_rate}: must divide {rate}")
    samples = excitation.shape[1] * rate // CONTROL_RATE
    units, times = _firings(np.clip(excitation * person.strength[:, None], 0, 1), rng)
    emg = _at_electrodes(person, units, times, samples, apparatus)
    emg += _disturbances(person, excitation, samples, rng, apparatus)
    filters = scipy_signal.butter(8, 0.45 * sampling_rate, fs=rate, output="sos")
    if apparatus.high_pass is not None:
        high_pass = scipy_signal.butter(2, apparatus.high_pass, "highpass", fs=rate, output="sos")
        filters = np.concatenate([high_pass, filters])
    emg = scipy_signal.sosfilt(filters, emg * person.gain * person.contact[:, None], axis=1)
    steps = np.clip(np.round(emg[:, :: rate // sampling_rate] / STEP), -128, 127)
    return (steps * STEP).astype(np.float32)


def in_steps(emg: np.ndarray) -> np.ndarray:
    """EMG in V as int16 steps of the converter."""
    return np.rint(emg / STEP).astype(np.int16)


def drives_of(patterns: Sequence[Mapping[str, float]], muscles: Mapping[str, object]) -> np.ndarray:
    """Patterns {muscle: drive} as an array (patterns, muscles), 0 for muscles that a pattern does not name."""
    return np.array([[pattern.get(muscle, 0.0) for muscle in muscles] for pattern in patterns])


def add_burst(excitation: np.ndarray, drive: np.ndarray, onset: float, rise: float, hold: float, fall: float) -> None:
    """Add a smooth rise, plateau and fall (s) that begins at `onset` (s), in place; beyond the ends it is cut off.

    Args:
        excitation: (muscles, time at `CONTROL_RATE`).
        drive: of each muscle during the plateau, (muscles,).
    """
    length = rise + hold + fall
    first, last = (int(np.ceil(t * CONTROL_RATE)) for t in (onset, onset + length))
    steps = np.arange(max(0, first), min(last, excitation.shape[1]))
    after = steps / CONTROL_RATE - onset
    level = np.clip(np.minimum(after / rise, (length - after) / fall), 0, 1)
    excitation[:, steps] += drive[:, None] * (1 - np.cos(np.pi * level)) / 2


def with_tone(excitation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Excitation (muscles, time at `CONTROL_RATE`) with the slow unsteadiness of a held force, and tone at rest."""
    knots = np.arange(0, excitation.shape[1] + 50, 50)
    steady = np.stack(
        [np.interp(np.arange(excitation.shape[1]), knots, rng.normal(1, 0.12, len(knots))) for _ in excitation]
    )
    return np.clip(excitation * steady + TONE, 0, 1)


def _firings(excitation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which unit fires when: unit indices and times in s, both (firings,).

    A unit's phase grows by its rate; it fires whenever the phase passes a whole number.
    """
    rank = np.arange(1, UNITS_PER_MUSCLE + 1, dtype=np.float32)[:, None] / UNITS_PER_MUSCLE
    threshold = MAX_THRESHOLD * THRESHOLD_RANGE ** (rank - 1)
    units, times = [], []
    for muscle, drive in enumerate(excitation.astype(np.float32)):
        moments = np.flatnonzero(drive > threshold[0])
        above = drive[moments] - threshold
        steps = np.where(above > 0, np.minimum(FIRING_RATE[0] + 40 * above, FIRING_RATE[1]) / CONTROL_RATE, 0)
        # a spread of 0.5 per control step makes intervals of 3 to 12 steps vary by 15 to 30 %, as observed in voluntary
        # contractions
        steps *= np.exp(0.5 * rng.standard_normal(steps.shape, np.float32) - 0.125)
        phase = np.cumsum(steps, axis=1, dtype=np.float64) + rng.uniform(0, 1, (len(steps), 1))
        before = phase - steps
        fired, at = np.nonzero(np.floor(phase) > np.floor(before))
        fraction = (np.floor(phase[fired, at]) - before[fired, at]) / steps[fired, at]
        units.append(fired + muscle * UNITS_PER_MUSCLE)
        times.append((moments[at] + np.clip(fraction, 0, 1)) / CONTROL_RATE)
    return np.concatenate(units), np.concatenate(times)


def _at_electrodes(
    person: Person, units: np.ndarray, times: np.ndarray, samples: int, apparatus: Apparatus
) -> np.ndarray:
    """Sum of all action potentials at each electrode, V, (electrodes, samples at the rate of the apparatus)."""
    gain, waveform = _volume_conductor(person)
    columns = np.minimum(np.round(times * apparatus.rate).astype(np.int64), samples - 1)
    tired = np.minimum(times / 120, 1.5) * person.fatigue
    longest = _action_potential(2 * max(apparatus.widths), apparatus.rate)
    length = fft.next_fast_len(samples + len(longest), real=True)
    spectrum = np.zeros((len(gain), length // 2 + 1), np.complex64)
    for index, width in enumerate(apparatus.widths):
        # a waveform stretched by fatigue, as a mixture of the fresh one and one stretched by half
        for part, stretch in ((1 - 2 * tired, 1.0), (2 * tired, 1.5)):
            weights = np.where(waveform == index, gain, 0.0)[:, units] * (1 + tired) * part
            trains = np.stack([np.bincount(columns, row, minlength=samples) for row in weights]).astype(np.float32)
            potential = _action_potential(width * person.slowness * stretch, apparatus.rate)
            response = np.zeros(length, np.float32)
            response[: len(potential)] = potential
            response = np.roll(response, -(len(potential) // 2))
            spectrum += fft.rfft(trains, length) * fft.rfft(response)
    return fft.irfft(spectrum, length)[:, :samples]


def _volume_conductor(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude (V) and index of the waveform of each unit at each electrode, both (electrodes, units)."""
    distance = person.distances()
    rank = np.arange(1, UNITS_PER_MUSCLE + 1) / UNITS_PER_MUSCLE
    size = np.tile(SIZE_RANGE ** (rank - 1), distance.shape[1] // UNITS_PER_MUSCLE)
    return POTENTIAL * size * (REFERENCE_DISTANCE / distance) ** DISTANCE_POWER, np.digitize(distance, WIDTH_DISTANCES)


def _action_potential(width: float, rate: int = INNER_RATE) -> np.ndarray:
    """Second derivative of a Gaussian of standard deviation `width` (s), peak 1, at `rate`."""
    half = int(np.ceil(5 * width * rate))
    t = np.arange(-half, half + 1) / rate / width
    return (1 - t**2) * np.exp(-(t**2) / 2)


def _disturbances(
    person: Person, excitation: np.ndarray, samples: int, rng: np.random.Generator, apparatus: Apparatus
) -> np.ndarray:
    """Hum, baseline wander, motion artefacts and noise, V, (electrodes, samples at the rate of the apparatus)."""
    electrodes, rate = len(person.contact), apparatus.rate
    t = np.arange(samples) / rate
    mains = 2 * np.pi * (50 + rng.normal(0, 0.03)) * t
    hum = np.sin(mains + rng.uniform(0, 6.3)) + 0.3 * np.sin(3 * mains + rng.uniform(0, 6.3))
    x = rng.normal(0, person.noise, (electrodes, samples))
    x += person.hum * rng.uniform(0.3, 1, (electrodes, 1)) * hum
    knots = np.linspace(0, samples - 1, max(4, samples // rate))
    x += np.stack([np.interp(np.arange(samples), knots, rng.normal(0, person.wander, len(knots))) for _ in x])
    # artefacts: at some of the moments when the drive changes, and now and then without a cause
    change = np.abs(np.diff(excitation, axis=1)).sum(axis=0)
    chance = apparatus.looseness * change / max(change.max(), 1e-9)
    moving = np.flatnonzero(rng.uniform(size=len(change)) < chance) / CONTROL_RATE
    for onset in np.concatenate([moving, rng.uniform(0, t[-1], rng.poisson(t[-1] / 20))]):
        start = int(onset * rate)
        after = t[: min(rate // 2, samples - start)]
        bump = np.exp(-after / rng.uniform(0.03, 0.12)) * np.sin(2 * np.pi * rng.uniform(3, 25) * after)
        ring = np.abs((np.arange(electrodes) - rng.integers(electrodes) + electrodes / 2) % electrodes - electrodes / 2)
        x[:, start : start + len(after)] += rng.uniform(5e-5, 4e-4) * np.exp(-ring)[:, None] * bump
    return x
