"""Images of windows of 8 channels x 200 samples, by representation, with one and two threads.

python -m benchmarks.biosignal_images [--windows 32] [--repeats 5] [--preview docs/tiny-biomoe-images.png]
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from benchmarks.timing import alternate
from dataset_builders.synthetic import CLASS_NAMES, simulate_gestures
from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import REPRESENTATIONS, BiosignalImagePreprocessing
from tinymyo_hf.tiny_biomoe.preview_tiny_biomoe import preview

SHAPE = (8, 200)
AT_ONCE = 4
"""Windows that one call draws, as in a pipeline: the images of more fall out of the cache before a model sees them."""


def draw(preprocessing: BiosignalImagePreprocessing, windows: np.ndarray, threads: int) -> None:
    """Draw all windows, a few at a time, by so many threads of Python: NumPy lets them run together."""
    parts = np.split(windows, range(AT_ONCE, len(windows), AT_ONCE))
    if threads == 1:
        for part in parts:
            preprocessing.images(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(preprocessing.images, parts):
            pass


def preview_gestures(path: str) -> None:
    """Draw a second of rest and one of a fist of a simulated person with four electrodes around the forearm."""
    preprocessing = BiosignalImagePreprocessing(representations=REPRESENTATIONS)
    samples, labels = simulate_gestures(range(len(CLASS_NAMES)), subject=1, num_channels=4)
    processed = preprocessing.preprocess(samples, sampling_rate=200)
    windows = {}
    for name in ("rest", "fist"):
        middle = int(np.median(np.flatnonzero(labels == CLASS_NAMES.index(name))))
        windows[name] = processed[:, middle - 100 : middle + 100]
    preview(windows, preprocessing, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--preview", help="also draw simulated gestures in this PNG")
    options = parser.parse_args(arguments)
    if options.preview:
        preview_gestures(options.preview)
    windows = np.random.default_rng(0).normal(size=(options.windows, *SHAPE)).astype(np.float32)
    images = windows.shape[0] * windows.shape[1]
    print(f"numpy {np.__version__}, {options.windows} windows of {SHAPE}, an image of 3 x 224 x 224 per channel")
    for representation in REPRESENTATIONS:
        preprocessing = BiosignalImagePreprocessing(representations=[representation])
        seconds = alternate(
            {f"{threads} thread": partial(draw, preprocessing, windows, threads) for threads in (1, 2)},
            options.repeats,
        )
        one, two = (images / second for second in seconds.values())
        print(f"{representation:22s} {one:7.0f} images/s by one thread {two:7.0f} by two", flush=True)


if __name__ == "__main__":
    main()
