"""What travels inside an ONNX file: all that is needed to feed the model and to understand its outputs.

`tinymyo_hf.onnx` reads it back; the names are those that `describe` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tinymyo_hf

if TYPE_CHECKING:
    import onnx

PREFIX = "tinymyo_hf."
FILES = {"config": "config.json", "preprocessor": "preprocessor_config.json", "vocabulary": "vocab.json"}
"""Files of a checkpoint whose text is kept, by key."""


def describe(proto: onnx.ModelProto, folder: Path, task: str, dtype: str, card: str) -> None:
    """Write the metadata of a graph, from the files of its checkpoint in `folder`."""
    values = {"task": task, "dtype": dtype, "version": tinymyo_hf.__version__}
    values |= {key: _compact(folder / name) for key, name in FILES.items() if (folder / name).exists()}
    _set(proto, values | {"card": card})


def _compact(path: Path) -> str:
    return json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, sort_keys=True)


def _set(proto: onnx.ModelProto, values: Mapping[str, str]) -> None:
    del proto.metadata_props[:]
    for key in sorted(values):
        entry = proto.metadata_props.add()
        entry.key, entry.value = f"{PREFIX}{key}", values[key]
    proto.producer_name, proto.producer_version = "tinymyo-hf", tinymyo_hf.__version__
