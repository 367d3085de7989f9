"""Windows per second that a prepared dataset delivers as shuffled, collated batches of tensors.

python -m benchmarks.read_windows [--windows 20000] [--channels 16] [--samples 200] [--batch-size 32] [--repeats 5]

`WindowDataset` against the usual `with_format("torch")`, alternating within the run. Required: 50,000 windows/s.
"""

import argparse
import tempfile

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.arrow_writer import ArrowWriter
from torch.utils.data import DataLoader, Sampler

from benchmarks.timing import alternate
from dataset_builders.torch_view import WindowDataset, collate_windows
from dataset_builders.windows import nested_array, window_features

WINDOWS_PER_RECORDING = 500
NAIVE_SHARE = 50  # the usual path reads only every 50th batch: it is that much slower


def write_dataset(path: str, windows: int, channels: int, samples: int) -> datasets.Dataset:
    """A dataset as the builders write it: one table per recording, random windows."""
    features = window_features(channels, samples, ("rest", "fist"))
    rng = np.random.default_rng(0)
    with ArrowWriter(features=features, path=path) as writer:
        for first in range(0, windows, WINDOWS_PER_RECORDING):
            count = min(WINDOWS_PER_RECORDING, windows - first)
            columns = {
                "input_values": nested_array(rng.standard_normal((count, channels, samples), np.float32)),
                "label": pa.array(np.arange(count) % 2),
                "subject": [str(first)] * count,
                "session": ["1"] * count,
                "repetition": pa.array(np.ones(count, np.int32)),
                "recording": [str(first)] * count,
                "start": pa.array(np.arange(count)),
            }
            writer.write_table(pa.table(columns, schema=features.arrow_schema))
        writer.finalize()
    return datasets.Dataset.from_file(path)


class FirstBatches(Sampler):
    """The first `count` indices of one random order."""

    def __init__(self, total: int, count: int):
        self.indices = np.random.default_rng(1).permutation(total)[:count].tolist()

    def __iter__(self):
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = write_dataset(f"{folder}/windows.arrow", options.windows, options.channels, options.samples)
        few = max(options.batch_size, options.windows // NAIVE_SHARE)
        naive_view = data.select_columns(["input_values", "label"]).with_format("torch")
        fast = DataLoader(
            WindowDataset(data),
            batch_size=options.batch_size,
            sampler=FirstBatches(len(data), len(data)),
            collate_fn=collate_windows,
        )
        naive = DataLoader(naive_view, batch_size=options.batch_size, sampler=FirstBatches(len(data), few))

        def read(loader: DataLoader) -> int:
            return sum(len(batch["input_values"]) for batch in loader)

        seconds = alternate({"fast": lambda: read(fast), "naive": lambda: read(naive)}, options.repeats, warmup=1)
    fast_rate, naive_rate = options.windows / seconds["fast"], few / seconds["naive"]
    print(
        f"reading windows {options.channels}x{options.samples}, batch {options.batch_size}: WindowDataset "
        f'{fast_rate:,.0f}/s, with_format("torch") {naive_rate:,.0f}/s: {fast_rate / naive_rate:.0f} times faster'
    )


if __name__ == "__main__":
    main()
