"""The dataset card (README.md) of a Hub-ready folder: what `load_dataset` needs, and what a reader needs."""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData

from .base import EmgBuilder
from .protocols import SPLITS, listed, natural_key
from .shards import shard_notes

SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LONG_LIST = 24
TASK_TAGS = {"classification": "gesture-recognition", "regression": "kinematics", "text": "silent-speech"}


@dataclass
class SplitCounts:
    """What a split holds: rows, seconds and recordings, rows per class and subject, and what was left out."""

    info: datasets.SplitInfo
    seconds: float = 0.0
    recordings: set[str] = field(default_factory=set)
    classes: Counter = field(default_factory=Counter)
    subjects: Counter = field(default_factory=Counter)
    notes: Counter = field(default_factory=Counter)


def write_card(builder: EmgBuilder, folder: Path, files: Sequence[str]) -> None:
    """Write `folder`/README.md for the parquet shards `files` (relative paths) of `folder`.

    The front matter carries the features and the number of rows per split, which `load_dataset` checks.
    """
    counts: dict[str, SplitCounts] = {}
    for split in SPLITS:
        shards = [folder / file for file in files if Path(file).name.startswith(f"{split}-")]
        if shards:
            counts[split] = _count(builder, split, shards)
    info = builder.info.copy()
    info.splits = datasets.SplitDict()
    for split in counts.values():
        info.splits.add(split.info)
    info.dataset_size = sum(split.num_bytes for split in info.splits.values())
    info.download_size = sum((folder / file).stat().st_size for file in files)
    total = sum(split.num_examples for split in info.splits.values())
    tags = ["emg", "surface-emg", "biosignals", TASK_TAGS.get(builder.task()), "tinymyo"]
    data = DatasetCardData(
        license=builder.LICENSE or None,
        pretty_name=builder.name,
        tags=[tag for tag in tags if tag],
        size_categories=[next((name for limit, name in SIZE_CATEGORIES if total < limit), "n>1M")],
        target_names=list(builder.target_names()) or None,
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    patterns = [{"split": split, "path": f"data/{split}-*"} for split in counts]
    MetadataConfigs({"default": {"data_files": patterns}}).to_dataset_card_data(data)
    (folder / "README.md").write_text(f"---\n{data}\n---\n\n{_body(builder, counts)}", encoding="utf-8")


def _count(builder: EmgBuilder, split: str, shards: list[Path]) -> SplitCounts:
    """Go through the shards of a split; of the samples only their number is read."""
    rows = sum(pq.read_metadata(shard).num_rows for shard in shards)
    groups = (pq.read_metadata(shard) for shard in shards)
    size = sum(part.row_group(i).total_byte_size for part in groups for i in range(part.num_row_groups))
    counts = SplitCounts(datasets.SplitInfo(name=split, num_bytes=size, num_examples=rows))
    wanted = [n for n in ("subject", "recording", "label", "events", "recording_length") if n in builder.info.features]
    for shard in shards:
        table = pq.read_table(shard, columns=wanted)
        counts.subjects.update(_counted(table["subject"]))
        counts.recordings.update(pc.unique(table["recording"]).to_pylist())
        for names in _class_columns(table):
            counts.classes.update(_counted(names))
        if "recording_length" in wanted:
            lengths = dict(zip(table["recording"].to_pylist(), table["recording_length"].to_pylist(), strict=True))
            counts.seconds += sum(lengths.values()) / builder.extractor.sampling_rate
        counts.notes += shard_notes(shard)
    if "recording_length" not in wanted:
        counts.seconds = rows * builder.config.window_length / builder.extractor.sampling_rate
    return counts


def _class_columns(table: pa.Table) -> Iterator[pa.ChunkedArray]:
    if "label" in table.column_names:
        yield table["label"]
    if "events" in table.column_names:
        yield pc.struct_field(pc.list_flatten(table["events"]), "name")


def _counted(column: pa.ChunkedArray) -> dict:
    return {cell["values"]: cell["counts"] for cell in pc.value_counts(column).to_pylist()}


def _body(builder: EmgBuilder, counts: dict[str, SplitCounts]) -> str:
    title, _, description = _docstring(inspect.getmodule(type(builder))).partition("\n\n")
    view = "WindowDataset" if builder.config.rows == "windows" else "ContinuousDataset"
    subjects = sorted(set().union(*(split.subjects for split in counts.values())), key=natural_key)
    sections = [
        f"# {builder.name}",
        title,
        _overview(builder),
        _split_table(builder, counts),
        *_left_out(builder, counts),
        "## Use",
        '```python\nfrom datasets import load_dataset\n\ntrain = load_dataset("PATH_OR_REPOSITORY", split="train", '
        "streaming=True)\n```",
        f"or, with the preprocessing and fast tensors, `dataset_builders.load_corpus(FOLDER)` and `{view}`.",
        "## Columns",
        _columns(builder),
        *_class_table(builder, counts),
        "## Subjects",
        _table(("subject", *counts), [(name, *(s.subjects[name] for s in counts.values())) for name in subjects]),
        "## Preprocessing",
        _preprocessing(builder),
        *(["## Corpus and protocols", description] if description else []),
        _docstring(type(builder.config)).partition("Attributes:")[0].rstrip(),
        "## Source",
        _source(builder),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _docstring(thing: object) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def _source(builder: EmgBuilder) -> str:
    unstated = "none is stated; the source says how to cite it"
    licence = unstated if builder.LICENSE in ("", "other") else builder.LICENSE
    lines = [builder.HOMEPAGE, f"Licence: {licence}", builder.CITATION]
    return "\n".join(f"- {line}" for line in lines if line)


def _split_table(builder: EmgBuilder, counts: dict[str, SplitCounts]) -> str:
    hours = "hours of windows" if builder.config.rows == "windows" else "hours"  # windows may overlap
    rows = [
        (name, s.info.num_examples, f"{s.seconds / 3600:.2f}", len(s.recordings), len(s.subjects))
        for name, s in counts.items()
    ]
    return _table(("split", "rows", hours, "recordings", "subjects"), rows)


def _overview(builder: EmgBuilder) -> str:
    config, extractor = builder.config, builder.extractor
    if config.rows == "windows":
        seconds = config.window_length / extractor.sampling_rate
        shape = (
            f"Windows of surface EMG, {builder.channel_count} channels x {config.window_length} samples at "
            f"{extractor.sampling_rate:.10g} Hz ({seconds:g} s), stride {config.stride}"
        )
    else:
        pieces = f"in rows of at most {config.chunk_length} samples" if config.chunk_length else "one per row"
        rate = f"{extractor.sampling_rate:.10g} Hz"
        shape = f"Recordings of surface EMG, {builder.channel_count} channels at {rate}, {pieces}"
    return (
        f"{shape}, made by tinymyo-hf (`tinymyo prepare {builder.name}`), protocol `{config.protocol}`, version "
        f"{config.version}. All options are in `preparation.json`."
    )


def _left_out(builder: EmgBuilder, counts: dict[str, SplitCounts]) -> list[str]:
    """What the reader would otherwise take to be there."""
    lines = [f"- {what}: {count}" for what, count in sorted(sum((s.notes for s in counts.values()), Counter()).items())]
    lines += [f"- {what}: {count}" for what, count in sorted(builder.left_out.items())]
    if builder.absent_subjects:
        lines.append(f"- subjects of the protocol without a recording: {listed(builder.absent_subjects)}")
    for name in ("subjects", "sessions", "channels"):
        if getattr(builder.config, name) is not None:
            lines.append(f"- only these {name} were asked for: {listed(getattr(builder.config, name))}")
    return ["## Left out, changed or worth knowing", "\n".join(lines)] if lines else []


def _columns(builder: EmgBuilder) -> str:
    config, names = builder.config, builder.info.features
    scale = "; times `scale` for the unit of the recording" if "scale" in names else ""
    hop = f", a frame per {config.target_hop} samples" if config.target_hop > 1 else ""
    known = {
        "input_values": f"{config.sample_type} (channels, samples){scale}",
        "label": ", ".join(f"{i} {name}" for i, name in enumerate(builder.class_names())),
        "targets": f"float32 (frames, outputs){hop}: {_listed(builder.target_names())}",
        "events": "name, and start and end in samples of the recording, of what starts in the row",
        "text": "what was said in the recording",
        "phones": f"id of the phone in each frame{hop}: {_listed(builder.phone_names())}",
        "subject": "who",
        "session": "which session, as the corpus names it",
        "recording": "which recording",
        "repetition": "which segment of its gesture in the recording, from 1",
        "start": "first sample of the row in the recording",
        "recording_length": "samples of the whole recording",
    }
    own = {name: feature.dtype for name, feature in builder.metadata_features().items()}
    return "\n".join(f"- `{name}`: {text}" for name, text in (known | own).items() if name in names)


def _listed(names: Sequence[str]) -> str:
    """All names, or of many the first and the last."""
    return ", ".join(names) if len(names) <= LONG_LIST else f"{names[0]}, ..., {names[-1]} ({len(names)} in all)"


def _class_table(builder: EmgBuilder, counts: dict[str, SplitCounts]) -> list[str]:
    classes = set().union(*(split.classes for split in counts.values()))
    if not classes:
        return []
    if builder.class_names():
        names = dict(enumerate(builder.class_names()))
    else:
        names = {key: key for key in sorted(classes, key=natural_key)}
    if len(names) > LONG_LIST:  # of a keyboard, the keys that were used
        names = {key: name for key, name in names.items() if key in classes}
    rows = [
        (name if name.strip() else repr(name), *(split.classes[key] for split in counts.values()))
        for key, name in names.items()
    ]
    return ["## Classes" if builder.task() == "classification" else "## Events", _table(("class", *counts), rows)]


def _preprocessing(builder: EmgBuilder) -> str:
    extractor = builder.extractor
    steps = []
    if extractor.band_pass is not None:
        low, high = extractor.band_pass
        edges = (f"from {low:g} Hz" if low is not None else "", f"up to {high:g} Hz" if high is not None else "")
        steps.append(f"pass band {' '.join(filter(None, edges))} (Butterworth, order {extractor.band_pass_order})")
    if extractor.notch_frequencies:
        notches = ", ".join(f"{frequency:g}" for frequency in extractor.notch_frequencies)
        steps.append(f"notches at {notches} Hz (Q {extractor.notch_quality:g})")
    if steps:
        steps[-1] += f", {extractor.filter_mode.replace('_', '-')}"
    if extractor.filter_rate is not None:
        steps.append(f"all at {extractor.filter_rate:g} Hz, then resampled to {extractor.sampling_rate:.10g} Hz")
    if extractor.gain != 1:
        steps.append(f"times {extractor.gain:g}")
    if extractor.soft_limit is not None:
        steps.append(f"softly limited to {extractor.soft_limit:g}")
    if extractor.normalization != "none":
        later = builder.config.rows == "recordings" and extractor.normalization_scope == "window"
        when = ", when it is cut: the rows here are not normalised" if later else ""
        steps.append(f"{extractor.normalization} of each channel over the {extractor.normalization_scope}{when}")
    rules = {
        "segment": "No window spans a change of label.",
        "repetition": "No window spans a change of repetition; its label is that of its first sample.",
        "first_sample": "A window has the label and the repetition of its first sample, whatever follows within it.",
        "center_sample": "A window has the label and the repetition of its middle sample, whatever else is in it.",
    }
    done = "; ".join(steps) or "none: samples as recorded"
    rule = f" {rules[builder.config.window_labels]}" if builder.task() == "classification" else ""
    return (
        f"{done[0].upper()}{done[1:]}.{rule} The exact settings are in `preprocessor_config.json`, which "
        "`TinyMyoFeatureExtractor.from_pretrained` reads."
    )


def _table(header: Sequence, rows: Sequence[Sequence]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
