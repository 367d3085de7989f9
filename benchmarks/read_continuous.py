"""Windows per second cut on the fly from stored recordings, in random order and as a stream.

python -m benchmarks.read_continuous [--channels 32] [--minutes 5] [--window 8000] [--batches 30]

Sessions at 2 kHz as of emg2qwerty, windows with context 1800 + 200 and jitter, batches of 8. The copy of the same bytes
with numpy, measured in the same run, is the bound.
"""

import argparse
import tempfile
from itertools import islice

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter
from torch.utils.data import DataLoader

from benchmarks.timing import alternate
from dataset_builders.chunks import chunk_columns, chunk_features
from dataset_builders.config import EmgBuilderConfig
from dataset_builders.content import Recording, Signal
from dataset_builders.continuous_view import ContinuousDataset, Cutting, IterableContinuousDataset, collate_continuous

RATE = 2000
BATCH = 8


def write_sessions(path: str, channels: int, minutes: float, sessions: int = 3) -> datasets.Dataset:
    """Recordings of noise, as the builders store them."""
    config = EmgBuilderConfig(rows="recordings", chunk_length=8000, sampling_rate=RATE)
    features = chunk_features(channels, config, "unlabelled")
    rng = np.random.default_rng(0)
    with ArrowWriter(features=features, path=path) as writer:
        for session in range(sessions):
            samples = rng.standard_normal((channels, round(minutes * 60 * RATE)), np.float32)
            name = f"session{session}"
            recording = Recording("", name, "1", name, "train")
            columns = chunk_columns(samples, Signal(samples, RATE), recording, config, features, name)
            writer.write_table(pa.table(columns).select(list(features)).cast(features.arrow_schema))
        writer.finalize()
    return datasets.Dataset.from_file(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--window", type=int, default=8000)
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = write_sessions(f"{folder}/sessions.arrow", options.channels, options.minutes)
        cutting = Cutting(options.window, context=(1800, 200), jitter=True)
        view = ContinuousDataset(data, cutting)
        loader = DataLoader(view, BATCH, shuffle=True, collate_fn=collate_continuous)
        stream = IterableContinuousDataset(data.to_iterable_dataset(), cutting)
        source = np.random.default_rng(0).standard_normal((BATCH, options.channels, options.window + 2000), np.float32)
        count = min(options.batches, len(view) // BATCH)
        seconds = alternate(
            {
                "random": lambda: sum(len(batch["start"]) for batch in islice(loader, count)),
                "stream": lambda: sum(1 for _ in islice(stream, count * BATCH)),
                "copy": lambda: [source.copy() for _ in range(count)],
            },
            repeats=5,
            warmup=1,
        )
    windows = {name: count * BATCH / value for name, value in seconds.items()}
    print(
        f"{options.channels} channels x {options.window} samples with context: {windows['random']:.0f} windows/s in "
        f"random order and collated, {windows['stream']:.0f} windows/s streamed; numpy copies {windows['copy']:.0f}/s"
    )


if __name__ == "__main__":
    main()
