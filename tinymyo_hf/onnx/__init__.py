"""Exported models with onnxruntime: neither torch nor transformers is needed."""

from pathlib import Path


def is_export(source: str | Path) -> bool:
    """Whether a folder is an ONNX export, or a file an ONNX model."""
    path = Path(source)
    return (path / "model.onnx").is_file() or (path.suffix == ".onnx" and path.is_file())
