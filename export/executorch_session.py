"""An ExecuTorch program in ExecuTorch's own runtime, answering as onnxruntime's sessions do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.comparison import VerificationError


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, and of inputs the length of each axis, or its name where it may differ."""

    name: str
    shape: tuple[int | str, ...] = ()


class ExecutorchSession:
    """A folder written by transformers' `ExportedModel.save_pretrained`, open to be run.

    Args:
        folder: with `model.pte` and `export.json`.
        inputs: of the program.
        outputs: names of those to answer with, in this order.
        threads: of the runtime.

    Raises:
        VerificationError: the runtime cannot load it.
    """

    def __init__(self, folder: Path, inputs: Sequence[Tensor], outputs: Sequence[str], threads: int):
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from transformers.exporters import ExportedModel

        _unsafe_reset_threadpool(threads)  # safe: nothing is running
        try:
            self.program = ExportedModel.from_pretrained(folder)
        except Exception as error:  # of several unrelated classes
            raise VerificationError(f"executorch cannot load the program: {error}") from error
        self.inputs, self.outputs = list(inputs), [Tensor(name) for name in outputs]

    def get_inputs(self) -> list[Tensor]:
        """Of the program."""
        return self.inputs

    def get_outputs(self) -> list[Tensor]:
        """Of the program, those that are asked for."""
        return self.outputs

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs by name, all of `get_outputs` for None. The runtime reuses its memory: they are copies."""
        import torch

        outputs = self.program(**{name: torch.from_numpy(values) for name, values in inputs.items()})
        return [outputs[name].numpy().copy() for name in names or [output.name for output in self.outputs]]
