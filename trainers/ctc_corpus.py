"""What training with CTC needs of a corpus: stored recordings with keystrokes, each named by one character.

A window is labelled with the characters whose keys were pressed in it, whatever context the model sees around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch

from dataset_builders.continuous_view import ContinuousDataset, Cutting, collate_continuous
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.modeling_semg_transformer import frame_span
from tinymyo_hf.tokenization import CharsetError, EmgCharacterTokenizer
from trainers.errors import RecipeError
from trainers.event_corpus import check_rows, recording_lengths
from trainers.subsets import WindowShare

_ROWS = 256  # whose events are read at a time


def read_tokenizer(corpus: datasets.DatasetDict, name: str) -> EmgCharacterTokenizer:
    """A tokenizer whose ids are those of the corpus's events.

    Raises:
        RecipeError: rows are no recordings with events of known names, or the names are no characters.
    """
    check_rows(corpus, name, "ctc")
    names = next(iter(corpus.values())).features["events"].feature["name"].names
    try:
        return EmgCharacterTokenizer(characters=names)
    except CharsetError as error:
        raise RecipeError(
            f"dataset {name}: its events are no keystrokes, each named by a character ({error})"
        ) from None


@dataclass(frozen=True)
class TextTarget:
    """Turns items of `ContinuousDataset` into `input_values` and `labels` (characters,); with `span` also
    `labelled_span` (2,), the first sample of the window in `input_values` and the one after its last; with `starts`
    also `label_starts` (characters,), the sample at which each key was pressed."""

    span: bool
    starts: bool = False

    def __call__(self, item: dict) -> dict:
        before, after = item["context"]
        target = {"input_values": item["input_values"], "labels": item["event_ids"]}
        if self.span:
            target["labelled_span"] = torch.tensor([before, item["input_values"].shape[-1] - after])
        if self.starts:
            target["label_starts"] = before + item["event_starts"].float()
        return target


def collate_text_windows(items: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Items of `TextTarget` -> a batch for `SEMGTransformerForCTC`: padded `input_values` (batch, channels, time) with
    `attention_mask`, `labels` (batch, longest) padded with -100, and where items have them `labelled_span` (batch, 2)
    and `label_starts` (batch, longest) padded with NaN."""
    batch = collate_continuous(items)
    if "label_starts" in batch:
        batch["label_starts"] = torch.nn.utils.rnn.pad_sequence(batch["label_starts"], True, float("nan"))
    if "labelled_span" in batch:
        batch["labelled_span"] = torch.stack(batch["labelled_span"])
    return batch


class TextWindows(torch.utils.data.Subset):
    """Windows of a view, all or a random share of them.

    Attributes:
        lengths: (windows,) samples of each with its context, before jitter: for batches of windows of like length.
    """

    def __init__(self, view: ContinuousDataset, split: datasets.Dataset, share: WindowShare | None = None):
        super().__init__(view, range(len(view)) if share is None else share.indices)
        extents = np.array([extent for _, _, extent in windows_of(split, view.cutting)])
        self.lengths = (extents[:, 1] - extents[:, 0])[list(self.indices)].tolist()

    def set_epoch(self, epoch: int) -> None:
        """As of the view; the `Trainer` calls this."""
        self.dataset.set_epoch(epoch)


def windows_of(split: datasets.Dataset, cutting: Cutting) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    """The windows of a split in order, without jitter: the number of their recording, first sample and the one after
    the last, and the same with context."""
    for number, length in enumerate(recording_lengths(split).tolist()):
        for index in range(cutting.count(length)):
            window = cutting.window(index, length, None)
            yield number, window, cutting.extent(window, length)


def keystrokes_of(split: datasets.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each recording's keystrokes in order: ids, and when the keys were pressed, in samples."""
    ids: list[list[np.ndarray]] = []
    starts: list[list[np.ndarray]] = []
    columns = split.select_columns(["events", "start"]).with_format("arrow")
    for table in columns.iter(batch_size=_ROWS):
        events = table["events"].combine_chunks()
        cuts = np.cumsum(events.value_lengths().to_numpy())[:-1]
        fields = (events.flatten().field(key).to_numpy(zero_copy_only=False) for key in ("name", "start"))
        rows = zip(*(np.split(field, cuts) for field in fields), table["start"].to_numpy(), strict=True)
        for names, times, first in rows:
            if first == 0:
                ids.append([])
                starts.append([])
            ids[-1].append(names)
            starts[-1].append(times)
    return [(np.concatenate(a), np.concatenate(b)) for a, b in zip(ids, starts, strict=True)]


@dataclass(frozen=True)
class WindowText:
    """The text of a window without jitter: ids (characters,), and the samples it lies in, with and without context."""

    ids: np.ndarray
    window: tuple[int, int]
    extent: tuple[int, int]


def window_texts(split: datasets.Dataset, cutting: Cutting) -> Iterator[WindowText]:
    """The texts of all windows, in order; no signal is read."""
    keystrokes = keystrokes_of(split)
    lengths = recording_lengths(split)
    for number, window, extent in windows_of(split, cutting):
        ids, starts = keystrokes[number]
        last = window[1] if window[1] == lengths[number] else window[1] - 1  # as `ContinuousDataset` has it
        yield WindowText(ids[(starts >= window[0]) & (starts <= last)], window, extent)


def text_facts(split: datasets.Dataset, cutting: Cutting) -> dict[str, int]:
    """How much text a split has: `keystrokes` in all its recordings, those `keystrokes_in_windows` and
    `windows_without_keystrokes`."""
    keystrokes = keystrokes_of(split)
    texts = [len(text.ids) for text in window_texts(split, cutting)]
    return {
        "keystrokes": sum(len(ids) for ids, _ in keystrokes),
        "keystrokes_in_windows": sum(texts),
        "windows_without_keystrokes": texts.count(0),
    }


def _silent(split: datasets.Dataset) -> list[str]:
    """The recordings without keystrokes."""
    rows = zip(split["recording"], split["start"], strict=True)
    names = [recording for recording, first in rows if first == 0]
    return [name for name, (ids, _) in zip(names, keystrokes_of(split), strict=True) if not len(ids)]


def too_long_texts(
    split: datasets.Dataset, cutting: Cutting, config: SEMGTransformerConfig, span: bool
) -> tuple[int, int]:
    """How many windows have text, and how many of these have too few frames for it: CTC needs one per character, and
    one more between equal ones. They teach nothing.

    Args:
        span: count the frames of the window itself, not those of its context.
    """
    texts = [text for text in window_texts(split, cutting) if len(text.ids)]
    if not texts:
        return 0, 0
    needed = torch.tensor([len(text.ids) + int((text.ids[1:] == text.ids[:-1]).sum()) for text in texts])
    frames = torch.tensor([config.num_frames(text.extent[1] - text.extent[0]) for text in texts])
    spans = [[text.window[0] - text.extent[0], text.window[1] - text.extent[0]] for text in texts]
    places = frame_span(config, frames, torch.tensor(spans) if span else None)
    return len(texts), int((needed > places[:, 1] - places[:, 0]).sum())


def check_texts(data: datasets.DatasetDict, facts: dict[str, dict[str, Any]], name: str) -> None:
    """Raise `RecipeError` for a recording or the windows of a split without any keystroke: whatever was typed there
    would be learned as rest, and nothing can be scored."""
    for split, found in facts.items():
        if not found["keystrokes_in_windows"]:
            raise RecipeError(
                f"dataset {name}: no window of its {split} split has a keystroke; check the recordings, their events, "
                "and dataset_config"
            )
        silent = _silent(data[split])
        if silent:
            raise RecipeError(
                f"dataset {name}, {split} split: {len(silent)} recordings without keystrokes of its characters "
                f"({', '.join(silent[:10])}{', ...' if silent[10:] else ''}); get their keystrokes, or leave them out"
            )
