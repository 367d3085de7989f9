"""Sessions of emg2qwerty: hdf5 files with a table of two wristbands and the time of every sample."""

from pathlib import Path

import numpy as np

from tinymyo_hf.recording_columns import Recording, RecordingError, at_boundary

SERIES = "emg2qwerty/timeseries"
BANDS = ("emg_left", "emg_right")
ROWS_AT_ONCE = 1 << 17


def read_session(path: Path) -> Recording | None:
    """The channels of the left band, then those of the right one, with the times; None if the file is no session.

    Needs little more memory than the result. The rate is one over the median step of the times, in whole Hz.

    Raises:
        RecordingError: the file is damaged, or the table is not as in the corpus.
    """
    found = at_boundary(path, _read)
    if found is None:
        return None
    signal, times = found
    steps = np.diff(times)
    step = np.median(steps) if len(steps) else 0.0
    if not (np.isfinite(times).all() and step > 0):
        raise RecordingError(f"{path}, dataset {SERIES}: its times do not increase; download the file again")
    names = tuple(f"{band}_{i}" for band in BANDS for i in range(len(signal) // len(BANDS)))
    return Recording(signal, float(round(1 / step)), None, names, times=times)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """(channels, time) float32 and (time,)."""
    import h5py

    with h5py.File(path, "r") as file:
        series = file.get(SERIES)
        if not isinstance(series, h5py.Dataset) or not {*BANDS, "time"} <= set(series.dtype.names or ()):
            return None
        widths = {series.dtype[band].shape for band in BANDS}
        if series.ndim != 1 or not len(series) or len(widths) > 1 or len(width := widths.pop()) != 1:
            raise ValueError(f"{SERIES} is empty, or its bands differ")
        signal = np.empty((len(BANDS) * width[0], len(series)), np.float32)
        times = np.empty(len(series))
        for first in range(0, len(series), ROWS_AT_ONCE):
            rows = series[first : first + ROWS_AT_ONCE]
            place = slice(first, first + len(rows))
            times[place] = rows["time"]
            for i, band in enumerate(BANDS):
                signal[i * width[0] : (i + 1) * width[0], place] = rows[band].T
    return signal, times
