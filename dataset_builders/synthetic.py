"""Simulated surface EMG: no files needed, the same everywhere, generated as it is asked for.

People differ in anatomy, electrode placement, strength, habits and noise (`simulation.signals`, `simulation.anatomy`);
a session is another placement of the electrodes. What the people do is the preset: held gestures, finger movements,
discrete gestures, typing or speech (`simulation.gestures` and its siblings).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from .base import ConfigError, EmgBuilder, EmgBuilderConfig, Recording, Signal
from .config import FROM_PROTOCOL
from .emg2qwerty import CHARACTERS
from .protocols import even_subject_split, repetition_split
from .simulation import events, kinematics, speech, typing
from .simulation.anatomy import Block
from .simulation.gestures import CLASS_NAMES, GESTURES, simulate_gestures, simulate_recording
from .simulation.signals import ARMBAND, WRISTBAND, Apparatus

__all__ = [
    "CLASS_NAMES",
    "GESTURES",
    "PRESETS",
    "Synthetic",
    "SyntheticConfig",
    "simulate_gestures",
    "simulate_recording",
]


@dataclass(frozen=True)
class Preset:
    """What people do, and what comes with the recordings.

    Attributes:
        task: as in `EmgBuilder.task`.
        fields: values of the options that are left to the preset.
        apparatus: what it is recorded with.
        bands: the channels are divided evenly among so many.
        class_names, target_names, phone_names, metadata: as in `EmgBuilder`.
    """

    task: str
    fields: dict[str, object]
    apparatus: Apparatus = ARMBAND
    bands: int = 1
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    phone_names: tuple[str, ...] = ()
    metadata: dict[str, datasets.Value] = dataclasses.field(default_factory=dict)


_WINDOWS = {
    "sampling_rate": 200.0,
    "num_subjects": 20,
    "num_sessions": 2,
    "num_repetitions": 3,
    "num_channels": 8,
    "rows": "windows",
    "chunk_length": 10_000,
    "sample_type": "float32",
    "window_length": 200,
    "stride": 100,
    "target_hop": 1,
    "band_pass": (20.0, 90.0),
    "notch_frequencies": (50.0,),
    "normalization": "zscore",
}
# long recordings are stored as the converter gave them: whoever cuts windows out of them decides on filters
_RECORDINGS = _WINDOWS | {
    "sampling_rate": 2000.0,
    "num_subjects": 10,
    "num_sessions": 1,
    "num_channels": 16,
    "rows": "recordings",
    "chunk_length": 16_000,
    "sample_type": "int16",
    "window_length": 16_000,
    "stride": 4_000,
    "band_pass": None,
    "notch_frequencies": (),
    "normalization": "none",
}
PRESETS: dict[str, Preset] = {
    "gestures": Preset("classification", _WINDOWS, class_names=CLASS_NAMES),
    "kinematics": Preset("regression", _WINDOWS | {"num_subjects": 10}, target_names=kinematics.TARGET_NAMES),
    "events": Preset("events", _RECORDINGS, WRISTBAND, class_names=events.EVENT_NAMES),
    "typing": Preset(
        "events",
        _RECORDINGS | {"num_channels": 32, "chunk_length": 8_000, "window_length": 8_000, "stride": 8_000},
        WRISTBAND,
        bands=2,
        class_names=CHARACTERS,
    ),
    "speech": Preset(
        "text",
        _RECORDINGS
        | {
            "sampling_rate": 800.0,
            "num_channels": speech.NUM_CHANNELS,
            "chunk_length": None,
            "window_length": 1_600,
            "stride": 1_600,
            "target_hop": 8,
        },
        speech.FACE_APPARATUS,
        target_names=speech.MEL_NAMES,
        phone_names=speech.PHONE_NAMES,
        metadata={"mode": datasets.Value("string")},
    ),
}
SPEECH_MODES = {"voiced": ("voiced",), "silent": ("silent",), "both": ("voiced", "silent")}


@dataclass
class SyntheticConfig(EmgBuilderConfig):
    """What is simulated; see `EmgBuilderConfig` for the preprocessing.

    Attributes:
        preset: "gestures": eight held gestures, an armband; "kinematics": five joint angles, the same armband;
            "events": nine discrete gestures, a wristband; "typing": keys, two wristbands; "speech": sentences, eight
            electrodes on the face. It gives the defaults (`PRESETS`) of the fields that are "protocol" below.
        protocol: "unseen_subjects": the last subjects are held out, 20 % for validation and 20 % for test;
            "within_subject": of every session, the last repetition (of each gesture; of the other presets: the last
            block) is for test and the one before it for validation; "unseen_sessions": of every subject, the last
            session is for test and the one before it for validation.
        num_subjects, num_sessions, num_repetitions: sessions per subject, repetitions of each gesture or blocks per
            session.
        hold: seconds for which a gesture is held ("gestures").
        duration: seconds of a block (all other presets).
        speech_mode: "voiced", "silent" or "both", mixed at random ("speech").
        num_channels: electrodes of the ring, of both rings of "typing"; always 8 in "speech".
        seed: another seed, other people.
    """

    name: str = "synthetic"
    preset: str = "gestures"
    protocol: str = "unseen_subjects"
    num_subjects: int | str = FROM_PROTOCOL
    num_sessions: int | str = FROM_PROTOCOL
    num_repetitions: int | str = FROM_PROTOCOL
    hold: float = 3.0
    duration: float = 60.0
    speech_mode: str = "both"
    num_channels: int | str = FROM_PROTOCOL
    seed: int = 0
    sampling_rate: float | str | None = FROM_PROTOCOL
    rows: str = FROM_PROTOCOL
    chunk_length: int | str | None = FROM_PROTOCOL
    sample_type: str = FROM_PROTOCOL
    window_length: int | str = FROM_PROTOCOL
    stride: int | str = FROM_PROTOCOL
    target_hop: int | str = FROM_PROTOCOL
    band_pass: tuple[float, float] | str | None = FROM_PROTOCOL
    notch_frequencies: tuple[float, ...] | str = FROM_PROTOCOL
    normalization: str = FROM_PROTOCOL

    def __post_init__(self) -> None:
        for field, known in (("preset", PRESETS), ("speech_mode", SPEECH_MODES)):
            if getattr(self, field) not in known:
                raise ConfigError(
                    f"synthetic: {field}={getattr(self, field)!r} is unknown; use one of {', '.join(known)}"
                )
        super().__post_init__()

    def fields_of_protocol(self) -> dict[str, object]:
        """Values for the fields that are left to the preset."""
        return PRESETS[self.preset].fields


class Synthetic(EmgBuilder):
    """Simulated surface EMG of people who make gestures, move their fingers, type or speak."""

    BUILDER_CONFIG_CLASS = SyntheticConfig
    PROTOCOLS = ("unseen_subjects", "within_subject", "unseen_sessions")
    LICENSE = "apache-2.0"

    @property
    def preset(self) -> Preset:
        """What is simulated."""
        return PRESETS[self.config.preset]

    def task(self) -> str:
        """Depends on the preset."""
        return self.preset.task

    def class_names(self) -> tuple[str, ...]:
        """The gestures, or the characters of "typing"."""
        return self.preset.class_names

    def target_names(self) -> tuple[str, ...]:
        """Joint angles ("kinematics", degrees) or mel bands ("speech")."""
        return self.preset.target_names

    def phone_names(self) -> tuple[str, ...]:
        """The phones of "speech"."""
        return self.preset.phone_names

    def metadata_features(self) -> dict[str, datasets.Value]:
        """`mode` in "speech": "voiced" or "silent"."""
        return self.preset.metadata

    def num_channels(self) -> int:
        """Electrodes."""
        return self.config.num_channels

    def list_recordings(self, root: Path | None) -> list[Recording]:
        """Every session of every subject, block by block but for gestures."""
        self._check()
        config = self.config
        subjects = [f"{number:02d}" for number in range(1, config.num_subjects + 1)]
        numbers = range(1, config.num_sessions + 1)
        places: list[tuple[str, str, Iterable[int], tuple[int, ...] | None]] = []  # subject, split, sessions, blocks
        if config.protocol == "unseen_subjects":
            split_of = even_subject_split(subjects, (0.2, 0.2))
            places = [(subject, split_of[subject], numbers, None) for subject in subjects]
        elif config.protocol == "unseen_sessions":
            parts = {"train": numbers[:-2], "validation": numbers[-2:-1], "test": numbers[-1:]}
            places = [(subject, split, kept, None) for split, kept in parts.items() for subject in subjects]
        else:
            last = config.num_repetitions
            groups = {"train": range(1, last - 1), "validation": [last - 1], "test": [last]}
            kept = repetition_split(groups)
            places = [
                (subject, split, numbers, repetitions) for split, repetitions in kept.items() for subject in subjects
            ]
        sessions = [
            Recording("", f"subject{subject}_session{session}", subject, str(session), split, repetitions)
            for subject, split, of_split, repetitions in places
            for session in of_split
        ]
        return sessions if config.preset == "gestures" else [block for r in sessions for block in self._blocks(r)]

    def _blocks(self, session: Recording) -> list[Recording]:
        """The blocks of a session as recordings of their own; `repetitions` holds the number of the block."""
        numbers = session.repetitions or range(1, self.config.num_repetitions + 1)
        return [
            dataclasses.replace(session, name=f"{session.name}_block{number}", repetitions=(number,))
            for number in numbers
        ]

    def _check(self) -> None:
        config = self.config
        for field in ("num_subjects", "num_sessions", "num_repetitions", "num_channels"):
            if not isinstance(getattr(config, field), int) or getattr(config, field) < 1:
                raise ConfigError(f"synthetic: {field}={getattr(config, field)!r} must be a whole number of at least 1")
        for protocol, field in (("within_subject", "num_repetitions"), ("unseen_sessions", "num_sessions")):
            if config.protocol == protocol and getattr(config, field) < 3:
                raise ConfigError(
                    f"synthetic: {field}={getattr(config, field)}: the protocol {protocol} needs at least 3, one for "
                    "each split"
                )
        rate, asked = self.preset.apparatus.rate, config.sampling_rate
        if not isinstance(asked, (int, float)) or asked < 1 or asked != int(asked) or rate % asked:
            raise ConfigError(f"synthetic: sampling_rate={asked!r} must be a divisor of {rate} Hz")
        if config.num_channels % self.preset.bands:
            raise ConfigError(
                f"synthetic: num_channels={config.num_channels} must be a multiple of {self.preset.bands}, the number "
                f"of bands in {config.preset!r}"
            )
        if config.preset == "speech" and config.num_channels != speech.NUM_CHANNELS:
            raise ConfigError(
                f"synthetic: num_channels={config.num_channels}: speech has {speech.NUM_CHANNELS} "
                "electrodes; choose among them with `channels`"
            )
        if not isinstance(config.duration, (int, float)) or not 5 <= config.duration <= 3600:
            raise ConfigError(f"synthetic: duration={config.duration!r} must be 5 to 3600 s")

    def read_takes(self, recording: Recording) -> Iterator[Signal]:
        """Simulate one session or block; depends on nothing but the seed, the subject, the session and the block."""
        config = self.config
        if config.preset == "gestures":
            yield self._gestures(recording)
            return
        block = Block(
            int(recording.subject),
            int(recording.session),
            recording.repetitions[0],
            config.seed,
            int(config.sampling_rate),
            float(config.duration),
            config.num_channels,
            config.target_hop,
        )
        if config.preset == "speech":
            yield from speech.simulate_speech(block, SPEECH_MODES[config.speech_mode])
        else:
            yield _SIMULATED[config.preset](block)

    def _gestures(self, recording: Recording) -> Signal:
        config = self.config
        subject, session = int(recording.subject), int(recording.session)
        order = np.tile(np.arange(len(CLASS_NAMES)), config.num_repetitions)
        np.random.default_rng([config.seed, subject, session, 1]).shuffle(order)
        samples, labels = simulate_gestures(
            order, subject, session, config.seed, int(config.sampling_rate), config.hold, config.num_channels
        )
        return Signal(samples, config.sampling_rate, labels)


_SIMULATED: dict[str, Callable[[Block], Signal]] = {
    "kinematics": kinematics.simulate_kinematics,
    "events": events.simulate_events,
    "typing": typing.simulate_typing,
}
