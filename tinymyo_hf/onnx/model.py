"""An exported model: its graph in a session of onnxruntime, and what travels in its metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from tinymyo_hf.characters import CharacterVocabulary
from tinymyo_hf.semg_transformer.frames_semg_transformer import SEMGTransformerFrames
from tinymyo_hf.tinymyo.frames_tinymyo import TinyMyoFrames

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from tinymyo_hf.semg_transformer.preprocessing_semg_transformer import SEMGTransformerPreprocessing
    from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import BiosignalImagePreprocessing
    from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing

MODEL_FILE = "model.onnx"
_METADATA = "tinymyo_hf."
_AXES = ("recordings at once", "channels", "samples")
_IMAGE_AXES = ("windows at once", "images", "colours", "rows", "columns")


class OnnxModelError(ValueError):
    """An exported model that cannot be loaded or run; the message names the file and the fix."""


class _TinyMyoSettings(TinyMyoFrames, SimpleNamespace):
    pass


class _SEMGTransformerSettings(SEMGTransformerFrames, SimpleNamespace):
    pass


_SETTINGS = {
    "tinymyo": _TinyMyoSettings,
    "semg_transformer": _SEMGTransformerSettings,
    "tiny_biomoe": SimpleNamespace,
}


def is_export(source: str | Path) -> bool:
    """Whether a folder is an ONNX export, or a file an ONNX model."""
    path = Path(source)
    return (path / MODEL_FILE).is_file() or (path.suffix == ".onnx" and path.is_file())


class OnnxModel:
    """An export of a checkpoint, ready to run.

    Args:
        source: the folder that `tinymyo export onnx` wrote, or its `model.onnx`. The file alone holds all that is
            needed, but for the lexicon and the language model of a model of speech.
        providers: of onnxruntime, in order of preference; its own for the CPU by default.
        num_threads: that share an operation; by default as many as there are cores.

    Attributes:
        path: of the file.
        session: of onnxruntime.
        config: the fields of `config.json`, `id2label` with whole numbers as keys.
        task: "emg-classification", "emg-regression", "emg-events", "emg-to-text", "emg-to-audio", or for models without
            a head of their own "embedding" or "reconstruction".
        dtype: "fp32", "fp16" or "int8".
        shape: (batch, channels, time) of `input_values`, or that of `pixel_values`, None where any number will do.

    Raises:
        OnnxModelError: no such export, a file that is no ONNX model, one without this package's metadata, or a provider
            that onnxruntime does not have.
        ImportError: onnxruntime is missing.

    Examples:
        >>> model = OnnxModel("OUT")                                                    # doctest: +SKIP
        >>> model.run(windows)["logits"].shape                                          # doctest: +SKIP
        (32, 6)
    """

    def __init__(self, source: str | Path, providers: Sequence[str] | None = None, num_threads: int | None = None):
        self.path = _file_of(Path(source))
        self.session = _session(self.path, providers, num_threads)
        self._metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.task = self._text("task")
        self.dtype = self._text("dtype")
        self.config = _config_of(self._json("config"), self.path)
        first = self.session.get_inputs()[0]
        self._input_name = first.name
        self.shape = tuple(size if isinstance(size, int) else None for size in first.shape)

    @property
    def takes_images(self) -> bool:
        """Whether the model sees windows as images, `pixel_values`."""
        return self._input_name == "pixel_values"

    @cached_property
    def preprocessing(self) -> TinyMyoPreprocessing | SEMGTransformerPreprocessing | BiosignalImagePreprocessing:
        """How recordings become what the model takes, from `preprocessor_config.json`."""
        if self.config.model_type == "semg_transformer":
            from tinymyo_hf.semg_transformer.preprocessing_semg_transformer import SEMGTransformerPreprocessing

            return SEMGTransformerPreprocessing.from_dict(self._json("preprocessor"))
        if self.takes_images:
            from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import BiosignalImagePreprocessing

            return BiosignalImagePreprocessing.from_dict(self._json("preprocessor"))
        from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing

        return TinyMyoPreprocessing.from_dict(self._json("preprocessor"))

    @cached_property
    def vocabulary(self) -> CharacterVocabulary | None:
        """The characters of a model of text, None of others."""
        if _METADATA + "vocabulary" not in self._metadata:
            return None
        ids = self._json("vocabulary")
        blanks = [token for token, i in ids.items() if i == self.config.pad_token_id]
        return CharacterVocabulary.from_dict(ids, *blanks)

    def find_file(self, name: str) -> str | None:
        """The path of another file of the export, None if it has none."""
        path = self.path.with_name(name)
        return str(path) if path.is_file() else None

    def run(self, input_values: ArrayLike, **others: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the model by their names.

        Args:
            input_values: (batch, channels, time), preprocessed, of one length, or the images that such a model takes;
                taken as float32.
            others: further inputs by their names ("bool_masked_pos" of a pretrained encoder).

        Raises:
            OnnxModelError: another shape than the model takes, or inputs that it cannot be run with.
        """
        values = np.ascontiguousarray(input_values, dtype=np.float32)
        self._check_shape(values.shape)
        names = [output.name for output in self.session.get_outputs()]
        try:
            outputs = self.session.run(names, {self._input_name: values, **others})
        except Exception as error:  # onnxruntime's have no base class of their own
            raise OnnxModelError(
                f"{self.path}: cannot be run with {self._input_name} {values.shape} ({' '.join(str(error).split())})"
            ) from error
        return dict(zip(names, outputs, strict=True))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        names = _AXES
        if self.takes_images:
            names = _IMAGE_AXES if len(self.shape) == 5 else (_IMAGE_AXES[0], *_IMAGE_AXES[2:])
        if len(shape) != len(names):
            axes = "channels, time" if names == _AXES else ", ".join(names[1:])
            raise OnnxModelError(f"{self._input_name} of shape {shape}: give (batch, {axes})")
        for axis, size, wanted in zip(names, shape, self.shape, strict=True):
            if wanted not in (None, size):
                axes = "batch,images, if it averages them" if self.takes_images else "batch,time"
                raise OnnxModelError(
                    f"{self.path}: exported for {wanted} {axis}, but there are {size}; give {wanted}, or export it "
                    f"with --dynamic {axes}"
                )

    def _text(self, name: str) -> str:
        if _METADATA + name not in self._metadata:
            raise OnnxModelError(
                f"{self.path}: its metadata has no {_METADATA}{name}, so it is no export of this package; make one "
                "with `tinymyo export onnx CHECKPOINT OUT`"
            )
        return self._metadata[_METADATA + name]

    def _json(self, name: str) -> dict[str, Any]:
        text = self._text(name)
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise OnnxModelError(
                f"{self.path}: the {_METADATA}{name} of its metadata is no JSON ({error}); export the checkpoint again"
            ) from error
        if not isinstance(fields, dict):
            raise OnnxModelError(
                f"{self.path}: the {_METADATA}{name} of its metadata is no JSON object; export the checkpoint again"
            )
        return fields


def _file_of(source: Path) -> Path:
    """The ONNX file of an export."""
    path = source / MODEL_FILE if source.is_dir() else source
    if path.is_file():
        return path
    if source.is_dir():
        raise OnnxModelError(f"{source}: no {MODEL_FILE} in it; make one with `tinymyo export onnx CHECKPOINT OUT`")
    raise OnnxModelError(f"{source}: no such folder or file; give the folder that `tinymyo export onnx` wrote")


def _session(path: Path, providers: Sequence[str] | None, num_threads: int | None) -> InferenceSession:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "onnxruntime is not installed; it comes with: pip install 'tinymyo-hf[export]', or alone with: "
            "pip install onnxruntime",
            name="onnxruntime",
        ) from error
    wanted = ["CPUExecutionProvider"] if providers is None else list(providers)
    available = onnxruntime.get_available_providers()
    if unknown := [name for name in wanted if name not in available]:
        raise OnnxModelError(f"providers: no {unknown[0]!r} in this onnxruntime; use some of {', '.join(available)}")
    options = onnxruntime.SessionOptions()
    if num_threads is not None:
        if num_threads < 1:
            raise OnnxModelError(f"num_threads={num_threads}: at least 1, or None for as many as there are cores")
        options.intra_op_num_threads = num_threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's have no base class of their own
        raise OnnxModelError(
            f"{path}: onnxruntime cannot load it ({' '.join(str(error).split())}); export the checkpoint again"
        ) from error


def _config_of(fields: dict[str, Any], path: Path) -> Any:
    model_type = fields.get("model_type")
    if model_type not in _SETTINGS:
        raise OnnxModelError(f"{path}: a model of the type {model_type!r}; this version runs {', '.join(_SETTINGS)}")
    # transformers leaves out of config.json what it takes by default
    labels = fields.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}
    id2label = {int(i): name for i, name in labels.items()}
    return _SETTINGS[model_type](**{**fields, "id2label": id2label})
