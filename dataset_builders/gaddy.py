"""Gaddy and Klein's silent speech: one person, 8 electrodes on face and neck, sentences read aloud and silently.

Source: https://zenodo.org/records/4064409 (CC BY 4.0); Gaddy and Klein, EMNLP 2020. The phone alignments come from
https://github.com/dgaddy/silent_speech_alignments, the split from https://github.com/dgaddy/silent_speech.

Raw layout, as downloaded: `emg_data/{silent_parallel_data, voiced_parallel_data, nonparallel_data}/SESSION/`, for each
utterance i: `{i}_emg.npy` (time, 8), microvolts at 1000 Hz; `{i}_audio_clean.flac`, 16,000 Hz; `{i}_info.json` with
`book`, `sentence_index`, `text` and `chunks`. `text_alignments/SESSION/SESSION_{i}_audio.TextGrid` has the phones of
what was said aloud. Clips of silence (`sentence_index` -1) are left out; they serve the filters like any neighbour.

A row is an utterance. It is filtered together with the utterances before and after it, then cut out, resampled to
689.0625 Hz (8 samples per frame of 256 audio samples), divided by 20 and limited to +-50 by a tanh. As in the released
code, the first 8 samples are dropped, and EMG and audio end with the shorter of the two.

A sentence of the development or test set is in that split as it was read silently; read aloud it is in none. `targets`
(log-mel spectrum) and `phones` of a silent utterance are those of the same sentence read aloud (`parallel` names that
recording): they have a length of their own, and training aligns them.

Audio that is missing is an error, or with `allow_missing` leaves the utterance out; a missing alignment makes every
phone silence, which is counted; a text must be there but may be empty, and is then kept as it is.
"""

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np

from tinymyo_hf.audio import FRAME_RATE, NUM_MELS, log_mel
from tinymyo_hf.recordings import read_recording as read_file
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.signal_tinymyo import check_context

from .archives import find_root
from .base import Download, EmgBuilder, EmgBuilderConfig, Recording, Signal, logger
from .config import FROM_PROTOCOL
from .errors import ConfigError, LayoutError, RecordingError
from .gaddy_audio import PHONES, SILENCE, count_frames, read_flac, read_phones
from .gaddy_split import Location, official_split, read_split
from .protocols import natural_key

RAW_RATE = 1000.0
CHANNELS = 8
SAMPLES_PER_FRAME = 8
POWER_LINE = 60.0
FOLDERS = {"silent_parallel_data": "silent", "voiced_parallel_data": "voiced", "nonparallel_data": "nonparallel"}
"""How the utterances of each folder were spoken (the column `mode`)."""
_INFO = re.compile(r"(0|[1-9][0-9]{0,8})_info\.json")
ALIGNMENTS = "text_alignments"
ALIGNMENTS_URL = "https://github.com/dgaddy/silent_speech_alignments/raw/main/text_alignments.tar.gz"


@dataclass
class GaddyConfig(EmgBuilderConfig):
    """Whole utterances, filtered at 1000 Hz by a high-pass of 2 Hz and notches at the harmonics of 60 Hz.

    "paper": six notches, resampling with anti-aliasing. "reference", the released code: seven notches, resampling by
    linear interpolation. The splits are the same.

    Attributes:
        audio: add the columns `targets` and `phones`, for synthesis; recognition does without, and then neither audio
            files nor alignments are read and utterances keep the whole length of their EMG.
        split_file: in place of the official split, a JSON file in `data_dir`: {"dev": [[book, sentence_index], ...],
            "test": [...]}.
    """

    name: str = "gaddy"
    audio: bool = True
    split_file: str | None = None
    rows: str = "recordings"
    chunk_length: int | None = None
    sampling_rate: float | None = FRAME_RATE * SAMPLES_PER_FRAME
    target_hop: int = SAMPLES_PER_FRAME
    window_length: int = 1600
    stride: int = 1600
    patch_size: int = SAMPLES_PER_FRAME
    filter_rate: float | None = RAW_RATE
    resampling: str = FROM_PROTOCOL
    band_pass: tuple[float | None, float | None] | None = (2.0, None)
    band_pass_order: int = 3
    notch_frequencies: tuple[float, ...] | str = FROM_PROTOCOL
    gain: float = 1 / 20
    soft_limit: float | None = 50.0
    normalization: str = "none"

    PROTOCOL_FIELDS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {
            "resampling": "polyphase",
            "notch_frequencies": tuple(k * POWER_LINE for k in range(1, 7)),
        },
        "reference": {
            "resampling": "linear",
            "notch_frequencies": tuple(k * POWER_LINE for k in range(1, 8)),
        },
    }

    def _check_fields(self) -> None:
        super()._check_fields()
        if self.audio and self.sampling_rate != FRAME_RATE * self.target_hop:
            raise ConfigError(
                f"gaddy: sampling_rate={self.sampling_rate} and target_hop={self.target_hop} do not make the "
                f"{FRAME_RATE:g} frames per second of the audio; leave both as they are, or pass audio=False"
            )


@dataclass(frozen=True)
class Utterance(Recording):
    """An utterance: its place in its session, what its info.json says, and the same sentence read aloud."""

    mode: str = ""
    index: int = 0
    book: str = ""
    sentence_index: int = -1
    text: str = ""
    chunk_samples: int | None = None
    partner: "Utterance | None" = None

    @property
    def location(self) -> Location:
        """The sentence: book, and index in it."""
        return self.book, self.sentence_index

    def file(self, name: str, offset: int = 0) -> Path:
        """A file of this utterance ("emg.npy"), or of the one `offset` places after it in the session."""
        return Path(self.path).with_name(f"{self.index + offset}_{name}")


@dataclass(frozen=True)
class SpeechSignal(Signal):
    """An utterance with its neighbours: `before` and `after` (8, time); `frames` of it are used."""

    before: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((CHANNELS, 0)))
    after: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((CHANNELS, 0)))
    frames: int = 0


class Gaddy(EmgBuilder):
    """Gaddy and Klein's silent speech: 8 channels of one person, sentences as text, spectrum and phones."""

    BUILDER_CONFIG_CLASS = GaddyConfig
    PROTOCOLS = ("paper", "reference")
    HOMEPAGE = "https://zenodo.org/records/4064409"
    LICENSE = "cc-by-4.0"
    CITATION = "Gaddy D., Klein D. Digital Voicing of Silent Speech. EMNLP 2020. doi:10.18653/v1/2020.emnlp-main.445"
    LAYOUT = (
        f"the folder emg_data (with {', '.join(FOLDERS)}) and the folder {ALIGNMENTS} (from {ALIGNMENTS_URL}; not "
        "needed with audio=False), or their archives emg_data.tar.gz and text_alignments.tar.gz"
    )
    DOWNLOADS = (
        Download(
            f"{HOMEPAGE}/files/emg_data.tar.gz",
            "emg_data.tar.gz",
            md5="7f97d2182b896652999b1b2d0c69fd7b",
            size=3_919_507_637,
        ),
        Download(ALIGNMENTS_URL, f"{ALIGNMENTS}.tar.gz"),
    )

    def task(self) -> str:
        """What was said."""
        return "text"

    def num_channels(self) -> int:
        """The electrodes."""
        return CHANNELS

    def target_names(self) -> tuple[str, ...]:
        """The bands of the log-mel spectrum, if audio is asked for."""
        return tuple(f"mel {i}" for i in range(NUM_MELS)) if self.config.audio else ()

    def phone_names(self) -> tuple[str, ...]:
        """The 48 phones, if audio is asked for."""
        return PHONES if self.config.audio else ()

    def metadata_features(self) -> dict[str, datasets.Value]:
        """How and what was spoken; `parallel`: of a silent utterance, the recording of the sentence read aloud."""
        text = datasets.Value("string")
        return {"mode": text, "book": text, "sentence_index": datasets.Value("int64"), "parallel": text}

    def list_recordings(self, root: Path) -> list[Recording]:
        """Every utterance that is in a split, folder by folder, in natural order."""
        corpus = find_root(root, lambda folder: any((folder / name).is_dir() for name in FOLDERS), self.LAYOUT)
        absent = [name for name in FOLDERS if not (corpus / name).is_dir()]
        if absent and not self.config.allow_missing:
            raise LayoutError(
                f"{corpus}: no folder {', '.join(absent)}; complete the corpus, or pass allow_missing=True to work "
                "with what is there"
            )
        if self.config.audio:
            _ = self._alignments  # where they are missing, say so before anything is prepared
        split_of = self._held_out(root)
        self.left_out.clear()
        utterances = [u for name in FOLDERS for u in self._utterances(corpus / name, FOLDERS[name])]
        # as in the released code, the last of several recordings of a sentence is the one to learn from
        aloud = {u.location: u for u in utterances if u.mode != "silent"}
        listed = [u for utterance in utterances for u in self._assigned(utterance, aloud, split_of)]
        if self.left_out:
            counts = ", ".join(f"{count} {what}" for what, count in self.left_out.items())
            logger.info(f"{corpus}: left out {counts}")
        return listed

    def read_recording(self, recording: Utterance) -> SpeechSignal:
        """The utterance and its neighbours in the session, and what was said."""
        emg = _read_emg(recording.file("emg.npy"))
        notes: Counter = Counter()
        if recording.chunk_samples is not None and recording.chunk_samples != emg.shape[1]:
            notes["utterances whose info.json states another length than their EMG has"] += 1
        frames, targets, phones = self._emg_frames(emg, recording), None, None
        if self.config.audio and recording.mode == "silent":
            partner = recording.partner
            voiced_frames = self._emg_frames(_read_emg(partner.file("emg.npy")), partner)
            targets, phones = self._speech(partner, voiced_frames, Counter())  # the partner's notes are in its own row
            frames = _shorter(frames, count_frames(recording.file("audio_clean.flac")), notes)
        elif self.config.audio:
            targets, phones = self._speech(recording, frames, notes)
            frames = len(targets)
        if frames < 1:
            raise RecordingError(f"{recording.path}: too short for a frame of EMG and audio; leave it out")
        metadata = {
            "mode": recording.mode,
            "book": recording.book,
            "sentence_index": recording.sentence_index,
            "parallel": recording.partner.name if recording.partner else "",
        }
        return SpeechSignal(
            emg,
            RAW_RATE,
            targets=targets,
            phones=phones,
            aligned=recording.mode != "silent",
            text=recording.text,
            metadata=metadata,
            notes=dict(+notes),
            before=_read_neighbour(recording.file("emg.npy", -1)),
            after=_read_neighbour(recording.file("emg.npy", 1)),
            frames=frames,
        )

    def process(self, recording: Recording, signal: SpeechSignal) -> np.ndarray:
        """Filter with the neighbours, cut the utterance out, resample and scale; keep whole frames."""
        channels = slice(None) if self.selected_channels is None else self.selected_channels
        # here and not in `together`, whose errors name this utterance
        for side, offset in ((signal.before, -1), (signal.after, 1)):
            check_context(side[channels], str(recording.file("emg.npy", offset)), self.extractor.max_gap)
        together = np.concatenate([signal.before[channels], signal.samples, signal.after[channels]], axis=1)
        context = (signal.before.shape[1], signal.after.shape[1])
        processed = self.extractor.preprocess(together, signal.sampling_rate, recording.path, context)
        hop = self.config.target_hop
        return processed[:, hop : hop + hop * signal.frames]

    @functools.cached_property
    def _alignments(self) -> Path:
        """The folder text_alignments."""
        try:
            return find_root(
                self.root, lambda folder: folder.name == ALIGNMENTS and any(folder.glob("*/*.TextGrid")), self.LAYOUT
            )
        except LayoutError as error:
            raise LayoutError(
                f"{self.config.data_dir}: no folder {ALIGNMENTS} with the phones of what was said. It comes from "
                f"{ALIGNMENTS_URL}: put the archive or its folder beside emg_data, or pass audio=False"
            ) from error

    def _held_out(self, root: Path) -> dict[Location, str]:
        """The split of each sentence that is not in the train split."""
        name = self.config.split_file
        if name is None:
            return official_split()
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise ConfigError(f"gaddy: split_file={name!r} lies outside data_dir; copy the file into it")
        return read_split(path)

    def _utterances(self, folder: Path, mode: str) -> Iterator[Utterance]:
        """The utterances in the sessions of a folder; their split is not known yet."""
        sessions = [session for session in folder.glob("*") if session.is_dir()]
        for session in sorted(sessions, key=lambda session: natural_key(session.name)):
            names = {path.name for path in session.iterdir()}
            for index in sorted(int(match[1]) for match in map(_INFO.fullmatch, names) if match):
                info = read_info(session / f"{index}_info.json")
                if info["sentence_index"] < 0:
                    self.left_out["clips of silence (sentence_index -1)"] += 1
                    continue
                if f"{index}_emg.npy" not in names:
                    raise LayoutError(f"{session}: {index}_info.json is there, {index}_emg.npy is not: copy it again")
                yield Utterance(
                    path=str(session / f"{index}_emg.npy"),
                    name=f"{folder.name}/{session.name}/{index}",
                    subject="1",
                    session=session.name,
                    split="",
                    mode=mode,
                    index=index,
                    **info,
                )

    def _assigned(
        self, utterance: Utterance, aloud: dict[Location, Utterance], split_of: dict[Location, str]
    ) -> Iterator[Utterance]:
        """The utterance with its split and partner, or nothing if it is in no split."""
        silent = utterance.mode == "silent"
        split = split_of.get(utterance.location, "train")
        partner = aloud.get(utterance.location) if silent else None
        if split != "train" and not silent:
            self.left_out["utterances read aloud of sentences held out for validation or test"] += 1
            return
        if self.config.audio and silent and partner is None:
            if not self.config.allow_missing:
                raise LayoutError(
                    f"{utterance.path}: no recording of the same sentence ({utterance.book}, sentence "
                    f"{utterance.sentence_index}) read aloud; complete the corpus, or pass audio=False, or "
                    "allow_missing=True to leave such utterances out"
                )
            self.left_out["silent utterances without a recording of the same sentence read aloud"] += 1
            return
        recorded = [utterance, partner] if partner else [utterance]
        if (
            self.config.audio
            and self.config.allow_missing  # otherwise reading it names the file
            and not all(one.file("audio_clean.flac").is_file() for one in recorded)
        ):
            self.left_out["utterances without audio"] += 1
            return
        yield dataclasses.replace(utterance, split=split, partner=partner)

    def _emg_frames(self, emg: np.ndarray, utterance: Utterance) -> int:
        """Frames that an utterance has after processing: all whole ones but the first."""
        return round(emg.shape[1] * self.config.sampling_rate / RAW_RATE) // self.config.target_hop - 1

    def _speech(self, utterance: Utterance, frames: int, notes: Counter) -> tuple[np.ndarray, np.ndarray]:
        """Spectrum (frames, 80) and phones (frames,) of an utterance read aloud with `frames` frames of EMG."""
        targets = log_mel(read_flac(utterance.file("audio_clean.flac")))
        alignment = self._alignments / utterance.session / f"{utterance.session}_{utterance.index}_audio.TextGrid"
        if alignment.is_file():
            phones, uncovered = read_phones(alignment, len(targets))
            notes["frames that the phone alignment does not cover, taken for silence"] += uncovered
        else:
            phones = np.full(len(targets), SILENCE)
            notes["utterances without a phone alignment, taken for silence"] += 1
        frames = _shorter(frames, len(targets), notes)
        return targets[:frames], phones[:frames]


def read_info(path: Path) -> dict[str, object]:
    """What an info.json says of an utterance: `book`, `sentence_index`, `text`, `chunk_samples` (None if not stated).

    A clip of silence has only the first two of any use, and need not have the others.
    """
    try:
        info = json.loads(path.read_bytes())
    except OSError as error:
        raise LayoutError(f"{path}: cannot be read ({error.strerror}); download the corpus again") from error
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path}: not valid JSON ({error}); download the corpus again") from error
    index = info.get("sentence_index") if isinstance(info, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or not -1 <= index < 2**31:
        raise LayoutError(f"{path}: no sentence_index (a whole number, -1 for silence); download the corpus again")
    if index < 0:
        return {"sentence_index": index}
    for field in ("book", "text"):
        if not _is_text(info.get(field)):
            raise LayoutError(f"{path}: {field} is {info.get(field)!r}, not text; download the corpus again")
    chunks = info.get("chunks")
    match chunks:
        case None:
            samples = None
        case [*rows] if all(isinstance(row, list) and row and type(row[0]) is int for row in rows):
            samples = sum(row[0] for row in rows)
        case _:
            raise LayoutError(f"{path}: chunks is no list of [EMG samples, ...]; download the corpus again")
    return {"book": info["book"], "sentence_index": index, "text": info["text"], "chunk_samples": samples}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)  # half a character has no encoding


def _read_emg(path: Path) -> np.ndarray:
    """EMG of an utterance: (8, time)."""
    try:
        return read_file(path, num_channels=CHANNELS, layout="time_channels").signal
    except SignalError as error:
        raise RecordingError(str(error)) from error


def _read_neighbour(path: Path) -> np.ndarray:
    return _read_emg(path) if path.is_file() else np.empty((CHANNELS, 0))


def _shorter(emg_frames: int, audio_frames: int, notes: Counter) -> int:
    """Frames that EMG and audio both have; what is cut off is noted, but for the frame that the EMG lacks anyway."""
    notes["EMG frames after the end of the audio"] += max(0, emg_frames - audio_frames)
    notes["audio frames after the end of the EMG"] += max(0, audio_frames - emg_frames - 1)
    return max(0, min(emg_frames, audio_frames))
