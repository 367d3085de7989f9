"""The dataset card (README.md) of a Hub-ready folder: what `load_dataset` needs, and what a reader needs."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData

from .base import EmgBuilder
from .protocols import SPLITS

SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(builder: EmgBuilder, folder: Path, files: Sequence[str]) -> None:
    """Write `folder`/README.md for the parquet shards `files` (relative paths) of `folder`.

    The front matter carries the features and the number of windows per split, which `load_dataset` checks.
    """
    rows, splits = [], datasets.SplitDict()
    for split in SPLITS:
        shards = [folder / file for file in files if Path(file).name.startswith(f"{split}-")]
        if shards:
            info, row = _summarize(split, shards)
            splits.add(info)
            rows.append(row)
    info = builder.info.copy()
    info.splits = splits
    info.dataset_size = sum(split.num_bytes for split in splits.values())
    info.download_size = sum((folder / file).stat().st_size for file in files)
    total = sum(split.num_examples for split in splits.values())
    data = DatasetCardData(
        license=builder.LICENSE or None,
        pretty_name=builder.name,
        tags=["emg", "surface-emg", "biosignals", "gesture-recognition", "tinymyo"],
        size_categories=[next((name for limit, name in SIZE_CATEGORIES if total < limit), "n>1M")],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    patterns = [{"split": split, "path": f"data/{split}-*"} for split in splits]
    MetadataConfigs({"default": {"data_files": patterns}}).to_dataset_card_data(data)
    (folder / "README.md").write_text(f"---\n{data}\n---\n\n{_body(builder, rows)}", encoding="utf-8")


def _summarize(split: str, shards: list[Path]) -> tuple[datasets.SplitInfo, str]:
    """Sizes of a split for the front matter, and its line of the table."""
    columns = pa.concat_tables(pq.read_table(shard, columns=["subject", "recording"]) for shard in shards)
    metadata = [pq.read_metadata(shard) for shard in shards]
    size = sum(part.row_group(i).total_byte_size for part in metadata for i in range(part.num_row_groups))
    subjects = sorted(pc.unique(columns["subject"]).to_pylist())
    recordings = len(pc.unique(columns["recording"]))
    row = f"| {split} | {len(columns)} | {recordings} | {len(subjects)} | {', '.join(subjects)} |"
    return datasets.SplitInfo(name=split, num_bytes=size, num_examples=len(columns)), row


def _body(builder: EmgBuilder, rows: list[str]) -> str:
    config, extractor = builder.config, builder.extractor
    seconds = config.window_length / extractor.sampling_rate
    band = "none" if extractor.band_pass is None else "{:g} to {:g} Hz".format(*extractor.band_pass)
    notches = ", ".join(f"{f:g} Hz" for f in extractor.notch_frequencies) or "none"
    names = builder.info.features["label"].names
    lines = [
        f"# {builder.name}",
        "",
        (builder.__doc__ or "").strip().split("\n")[0],
        "",
        f"Windows of surface EMG, {builder.num_channels()} channels x {config.window_length} samples at "
        f"{extractor.sampling_rate:g} Hz ({seconds:g} s), stride {config.stride}, made by tinymyo-hf "
        f"(`tinymyo prepare {builder.name}`), protocol `{config.protocol}`, version {config.version}.",
        "",
        "| split | windows | recordings | subjects | which |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Use",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'train = load_dataset("PATH_OR_REPOSITORY", split="train", streaming=True)',
        "```",
        "",
        "or, with the preprocessing and fast tensors, `dataset_builders.load_corpus(FOLDER)` and `WindowDataset`.",
        "",
        "## Columns",
        "",
        "- `input_values`: float32 (channels, samples)",
        f"- `label`: {', '.join(f'{i} {name}' for i, name in enumerate(names))}",
        "- `subject`, `session`, `recording`: where the window comes from",
        "- `repetition`: which segment of its gesture in the recording, from 1",
        "- `start`: first sample of the window in the recording",
        "",
        "## Preprocessing",
        "",
        f"Band-pass {band} (Butterworth, order {extractor.band_pass_order}), notch {notches} (Q "
        f"{extractor.notch_quality:g}), {extractor.filter_mode}; normalisation {extractor.normalization} over the "
        f"{extractor.normalization_scope}. No window spans a change of label. The exact settings are in "
        "`preprocessor_config.json`, which `TinyMyoFeatureExtractor.from_pretrained` reads.",
        "",
        "## Source",
        "",
        *[text for text in (builder.HOMEPAGE, f"Licence: {builder.LICENSE or 'not stated'}", builder.CITATION) if text],
    ]
    return "\n".join(lines) + "\n"
