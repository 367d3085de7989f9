"""What was said: audio at 22,050 Hz, and the phone of each frame of 256 samples of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinymyo_hf.audio import AUDIO_RATE, FFT_LENGTH, FRAME_RATE, HOP_LENGTH
from tinymyo_hf.signal import resample

from .errors import ConfigError, RecordingError
from .textgrid import read_textgrid

if TYPE_CHECKING:
    import soundfile

RAW_AUDIO_RATES = (16_000, AUDIO_RATE)

# ARPAbet without stress, with the reduced vowels, flaps and syllabic consonants of the reference's inventory.
# fmt: off
PHONES = (
    "aa", "ae", "ah", "ao", "aw", "ax", "axr", "ay", "b", "ch", "d", "dh", "dx", "eh", "el", "em", "en", "er", "ey",
    "f", "g", "hh", "hv", "ih", "iy", "jh", "k", "l", "m", "n", "nx", "ng", "ow", "oy", "p", "r", "s", "sh", "t",
    "th", "uh", "uw", "v", "w", "y", "z", "zh", "sil",
)
# fmt: on
SILENCE = PHONES.index("sil")
_SILENT_LABELS = ("", "sp", "spn", "sil")
_SAMPLES_AT_ONCE = 1 << 16


def read_flac(path: Path) -> np.ndarray:
    """The first channel of an audio file at 22,050 Hz: float64 (samples,), in [-1, 1].

    Raises:
        RecordingError: there is no such file, it is damaged, or its rate is neither 16,000 nor 22,050 Hz.
    """
    with _open_flac(path) as file:
        parts = []  # piece by piece: a damaged header may promise any length
        while len(part := file.read(_SAMPLES_AT_ONCE, always_2d=True)):
            parts.append(part[:, 0])
        rate = file.samplerate
    audio = np.concatenate(parts) if parts else np.empty(0)
    if len(audio) < FFT_LENGTH:
        raise RecordingError(f"{path}: {len(audio)} samples are too short for a spectrum of {FFT_LENGTH}; leave it out")
    return resample(audio[None], rate, AUDIO_RATE)[0].clip(-1, 1)


def count_frames(path: Path) -> int:
    """How many frames an audio file makes, from its header alone."""
    with _open_flac(path) as file:
        return round(file.frames * AUDIO_RATE / file.samplerate) // HOP_LENGTH


def read_phones(path: Path, frames: int) -> tuple[np.ndarray, int]:
    """The phone of each frame, from the tier "phones" of a TextGrid.

    Stress is dropped ("AH0" is "ah"); "", "sp" and "spn" are silence, and so are frames that no interval covers.

    Returns:
        Positions in `PHONES`, int64 (frames,), and how many frames no interval covers.

    Raises:
        RecordingError: the file is missing or damaged, or names another phone.
    """
    tiers = read_textgrid(path)
    if "phones" not in tiers:
        raise RecordingError(f"{path}: no tier 'phones' (there are: {', '.join(tiers) or 'none'}); download it again")
    ids = np.full(frames, -1, dtype=np.int64)
    for i, (start, end, label) in enumerate(tiers["phones"], 1):
        phone = label.lower()
        phone = "sil" if phone in _SILENT_LABELS else phone[:-1] if phone[-1] in "0123456789" else phone
        if phone not in PHONES:
            raise RecordingError(
                f"{path}: interval {i} of tier 'phones' is {label!r}, which is none of the {len(PHONES)} phones; "
                "correct it, or download the file again"
            )
        first, last = (min(int(seconds * FRAME_RATE), frames) for seconds in (start, end))
        ids[first:last] = PHONES.index(phone)
    uncovered = ids < 0
    ids[uncovered] = SILENCE
    return ids, int(uncovered.sum())


@contextlib.contextmanager
def _open_flac(path: Path) -> Iterator["soundfile.SoundFile"]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, its C library is not
        fix = "pip install soundfile, or pass audio=False"
        raise ConfigError(f"reading audio needs the package soundfile ({error}): {fix}") from error
    if not path.is_file():
        raise RecordingError(
            f"{path}: no such file; complete the corpus, or pass audio=False, or allow_missing=True to leave such "
            "utterances out"
        )
    try:
        with soundfile.SoundFile(path) as file:
            if file.format != "FLAC" or file.samplerate not in RAW_AUDIO_RATES:
                raise RecordingError(
                    f"{path}: {file.format} at {file.samplerate} Hz, where FLAC at "
                    f"{' or '.join(map(str, RAW_AUDIO_RATES))} Hz is expected; download it again"
                )
            yield file
    except (soundfile.SoundFileError, OSError) as error:
        raise RecordingError(f"{path}: truncated or damaged ({error}); download it again") from error
