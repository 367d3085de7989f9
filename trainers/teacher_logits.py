"""What a teacher says of a batch: asked for at every step, or once for all windows and read from files.

A file `part-00000.safetensors` holds the logits of some hundred windows in float16 ("logits", all frames one after the
other), and of each window the number of its frames ("frames") and a hash of its samples ("keys"), by which it is found
whatever batch it comes in. Windows that were changed since are not found, and said to be.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trainers.errors import CheckpointError, RecipeError

INPUTS = ("input_values", "attention_mask", "channel_mask")
WINDOWS_PER_PART = 256

FrameLengths = Callable[[Mapping[str, Any]], torch.Tensor]
"""A batch -> (batch,) frames of each window that are not padding."""


class OnlineTeacher:
    """A trained model in inference mode, from which no gradient comes back.

    Args:
        model: its `logits` are (batch, outputs) or (batch, frames, outputs).
        dtype: of its matrix products (autocast); None for the dtype of its weights.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype | None = None):
        self.model = model.eval().requires_grad_(False)
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Logits for a batch, float32, on its device."""
        device = inputs["input_values"].device
        self.model.to(device)
        seen = {name: inputs[name] for name in INPUTS if name in inputs}
        with torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
            return self.model(**seen).logits.float()

    def fingerprint(self) -> str:
        """Changes with everything its logits depend on."""
        digest = xxhash.xxh3_128(f"{self.model.config.to_json_string()} {self.dtype}".encode())
        for name, value in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


class StoredTeacher:
    """The logits of `store_logits`, for batches of the same windows.

    Args:
        parts: the files.
        by_frame: whether logits are (batch, frames, outputs); else (batch, outputs).
    """

    def __init__(self, parts: Sequence[Path], by_frame: bool):
        self.by_frame = by_frame
        self._files = [safe_open(part, "pt") for part in parts]
        self._places: dict[int, tuple[int, int, int]] = {}  # key -> file, first row, the row after the last
        for number, file in enumerate(self._files):
            stops = file.get_tensor("frames").cumsum(0).tolist()
            for key, first, stop in zip(file.get_tensor("keys").tolist(), [0, *stops], stops, strict=False):
                self._places[key] = (number, first, stop)

    def __call__(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Logits for a batch, float32, on its device; frames of padding are zeros.

        Raises:
            RecipeError: the batch has a window that the teacher was not asked about.
        """
        found = [self._find(key) for key in window_keys(inputs)]
        logits = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        logits = logits if self.by_frame else logits[:, 0]
        return logits.to(inputs["input_values"].device).float()

    def _find(self, key: int) -> torch.Tensor:
        if key not in self._places:
            raise RecipeError(
                "teacher_logits: cached has no logits for a training window: the windows are not the same in every "
                "epoch, or differ from those of an earlier start. Ask the teacher online, or delete teacher_logits in "
                "output_dir"
            )
        number, first, stop = self._places[key]
        return self._files[number].get_slice("logits")[first:stop]


def window_keys(inputs: Mapping[str, Any]) -> list[int]:
    """A hash of the samples of each window of a batch, padding left out, as a signed 64-bit number."""
    values = inputs["input_values"].cpu().numpy()
    lengths = [values.shape[-1]] * len(values)
    if "attention_mask" in inputs:
        lengths = inputs["attention_mask"].sum(1).tolist()
    digests = [
        xxhash.xxh3_64_intdigest(np.ascontiguousarray(window[:, :length]))
        for window, length in zip(values, lengths, strict=True)
    ]
    return np.array(digests, np.uint64).view(np.int64).tolist()


def store_logits(
    teacher: OnlineTeacher,
    windows: Dataset,
    collate: Callable[[Sequence[dict]], dict],
    folder: Path,
    batch_size: int,
    frame_lengths: FrameLengths | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[Path]:
    """Ask the teacher about every window once; parts that are in `folder` from an earlier start are kept.

    Args:
        folder: gets a folder for this teacher; those of other teachers in it are removed.
        frame_lengths: None for logits without frames.
        progress: show a bar, unless there is next to nothing to do.

    Returns:
        The parts, for `StoredTeacher`.

    Raises:
        CheckpointError: the teacher's logits are not finite.
    """
    place = folder / xxhash.xxh3_128_hexdigest(f"{teacher.fingerprint()} {len(windows)}".encode())[:16]
    for other in folder.glob("*"):
        if other != place and other.is_dir():
            shutil.rmtree(other)
    place.mkdir(parents=True, exist_ok=True)
    firsts = range(0, len(windows), WINDOWS_PER_PART)
    parts = [place / f"part-{number:05d}.safetensors" for number in range(len(firsts))]
    missing = [
        (part, first) for part, first in zip(parts, firsts, strict=True) if not _holds(part, collate([windows[first]]))
    ]
    for part, first in tqdm(missing, desc="asking the teacher", disable=not progress or len(missing) < 2):
        chosen = Subset(windows, range(first, min(first + WINDOWS_PER_PART, len(windows))))
        loader = DataLoader(chosen, batch_size=batch_size, collate_fn=collate)
        _write(part, _answers(teacher, loader, frame_lengths, device))
    return parts


def _holds(part: Path, first_window: Mapping[str, Any]) -> bool:
    """Whether a part is there and begins with this window: other data under the same name are asked about anew."""
    if not part.is_file():
        return False
    with safe_open(part, "pt") as file:
        return file.get_slice("keys")[:1].tolist() == window_keys(first_window)


def _answers(
    teacher: OnlineTeacher, loader: DataLoader, frame_lengths: FrameLengths | None, device: torch.device | str
) -> dict[str, torch.Tensor]:
    keys, frames, logits = [], [], []
    for batch in loader:
        keys += window_keys(batch)
        inputs = {name: batch[name].to(device) for name in INPUTS if name in batch}
        answer = teacher(inputs).cpu()
        if frame_lengths is None:
            answer, lengths = answer[:, None], [1] * len(answer)
        else:
            lengths = frame_lengths(batch).tolist()
        real = [window[:length] for window, length in zip(answer, lengths, strict=True)]
        if not all(window.isfinite().all() for window in real):
            raise CheckpointError("the teacher's logits are not finite for some training windows: use another teacher")
        frames += lengths
        logits += real
    return {
        "keys": torch.tensor(keys, dtype=torch.int64),
        "frames": torch.tensor(frames, dtype=torch.int64),
        "logits": torch.cat(logits).half(),
    }


def _write(part: Path, content: dict[str, torch.Tensor]) -> None:
    partial = part.with_name(f".{part.name}.partial")
    save_file(content, partial)
    os.replace(partial, part)
