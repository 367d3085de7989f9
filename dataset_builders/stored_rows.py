"""Rows of stored recordings (`chunks`), read back as arrays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

KNOWN_COLUMNS = {"input_values", "scale", "events", "targets", "phones", "recording", "start", "recording_length"}


@dataclass(frozen=True)
class Row:
    """One stored row: a stretch of a recording. Fields the dataset does not have are None."""

    recording: str
    start: int
    recording_length: int
    samples: np.ndarray  # float32 (channels, time)
    events: list[dict] | None
    targets: np.ndarray | None  # (frames, outputs)
    phones: np.ndarray | None  # (frames,)
    others: dict

    @property
    def stop(self) -> int:
        """The sample after the last."""
        return self.start + self.samples.shape[1]


class RowBatch:
    """Rows of one record batch, decoded one at a time; samples are views where that is possible."""

    def __init__(self, batch: pa.RecordBatch):
        self.cells = {name: batch.column(name) for name in batch.schema.names}
        lists = self.cells["input_values"].flatten()
        self.offsets, self.values = lists.offsets.to_numpy(), lists.values.to_numpy()
        self.channels = self.cells["input_values"].type.list_size

    def row(self, i: int) -> Row:
        """Row `i` of the batch."""
        cells = self.cells
        samples = self.values[self.offsets[i * self.channels] : self.offsets[(i + 1) * self.channels]]
        samples = samples.reshape(self.channels, -1)
        if "scale" in cells:
            samples = samples * np.float32(cells["scale"][i].as_py())
        targets = phones = None
        if "targets" in cells:
            frames = cells["targets"][i].values
            targets = frames.flatten().to_numpy(zero_copy_only=False).reshape(len(frames), frames.type.list_size)
        if "phones" in cells:
            phones = cells["phones"][i].values.to_numpy(zero_copy_only=False)
        return Row(
            recording=cells["recording"][i].as_py(),
            start=cells["start"][i].as_py(),
            recording_length=cells["recording_length"][i].as_py(),
            samples=samples,
            events=cells["events"][i].as_py() if "events" in cells else None,
            targets=targets,
            phones=phones,
            others={name: cell[i].as_py() for name, cell in cells.items() if name not in KNOWN_COLUMNS},
        )
