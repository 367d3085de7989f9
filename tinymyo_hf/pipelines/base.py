"""What the pipelines share: a task of `tinymyo_hf.tasks` run by the library, with torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import cached_file

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks import RecordingInput, task_of
from tinymyo_hf.tasks.base import EmgTask, several_or_one
from tinymyo_hf.tasks.windows import windows_at_once

_EXTRACTORS = {
    "semg_transformer": "SEMGTransformerFeatureExtractor",
    "tiny_biomoe": "BiosignalImageProcessor",
    "tinymyo": "TinyMyoFeatureExtractor",
}


class EmgPipeline(EmgTask, ChunkPipeline):
    """A pipeline over recordings of any length.

    A pipeline mixes in its task, says how the model is called (`_forward`), and of which parts of the checkpoint beside
    the model it is made.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any):
        if kwargs.get("batch_size") is None:
            kwargs["batch_size"] = self.chunks_at_once
        super().__init__(*args, **kwargs)
        self._check_head()
        if self.feature_extractor is None:
            name = _EXTRACTORS[self.model_config.model_type]
            raise SignalError(f"feature_extractor: missing; pass the {name} the model was trained with")
        if self._load_tokenizer and self.tokenizer is None:
            raise SignalError("tokenizer: missing; pass the EmgCharacterTokenizer the model was trained with")
        self.check()
        self.check_batch_size(self._batch_size)
        self.prepare(**self._postprocess_params)  # a wrong path is told now

    def _check_head(self) -> None:
        name = type(self.model).__name__
        if isinstance(self.model, PreTrainedModel) and not name.endswith(self.head):
            task = task_of([name])
            fix = f'use pipeline("{task}")' if task else "fine-tune it first"
            raise SignalError(f"{self.source or 'model'} is a {name}, but {self.task} needs a ...{self.head}: {fix}")

    @property
    def model_config(self) -> PreTrainedConfig:
        """Of the model."""
        return self.model.config

    @property
    def preprocessing(self) -> Any:
        """The feature extractor."""
        return self.feature_extractor

    @property
    def vocabulary(self) -> Any:
        """The tokenizer."""
        return self.tokenizer

    @property
    def source(self) -> str:
        """Folder or Hub id of the checkpoint, "" if it is not known."""
        return self.model_config.name_or_path

    def find_file(self, name: str) -> str | None:
        """A file of the checkpoint, where it has it."""
        if not self.source:
            return None
        return cached_file(
            self.source,
            name,
            _commit_hash=getattr(self.model_config, "_commit_hash", None),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )

    def __call__(self, inputs: RecordingInput | list[RecordingInput], **kwargs: Any) -> dict | list[dict]:
        """Predict one recording, or each of several.

        Args:
            inputs: a recording, or a list, generator or torch `Dataset` of recordings (`KeyDataset` of
                transformers.pipelines.pt_utils makes one of a Hugging Face dataset's column). A recording is an array
                or nested list (channels, time), the path of a file (see `tinymyo_hf.recordings`), or {"raw": either of
                them, "sampling_rate": Hz}. An array of three axes is a batch of recordings.
            sampling_rate: Hz of the recordings; required unless the file or the dictionary states it.
            on_rate_mismatch: "error" or "resample", instead of the feature extractor's.
            read_options: a dictionary of further arguments of `read_recording`: channels, key, layout, ...

        Returns:
            A dictionary for a recording, a list of them for several (an iterator for a generator or `Dataset`); what is
            in it, and which further arguments there are, stands in the description of each pipeline.

        Raises:
            SignalError: (a ValueError) for recordings that cannot be read or do not suit the model.
        """
        self.check_batch_size(kwargs.get("batch_size"))
        inputs = several_or_one(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and feature extractor. No code is copied: importing the package registers the pipeline."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        reading, making = self.split_settings(**settings)
        return reading, {}, making

    def preprocess(self, inputs: RecordingInput, **settings: Any) -> Iterator[dict[str, Any]]:
        for chunk in self.chunks(inputs, **settings):
            yield {name: _tensor(value) for name, value in chunk.items()}

    def postprocess(self, model_outputs: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
        arrays = [{name: _array(value) for name, value in output.items()} for output in model_outputs]
        return self.result(arrays, **settings)


def forward_windows(pipeline: EmgPipeline, model_inputs: dict[str, Any]) -> dict[str, Any]:
    """The logits of windows, for `_forward` of a pipeline."""
    parts = window_inputs(pipeline, model_inputs.pop("input_values"))
    logits = torch.cat([pipeline.model(part).logits for part in parts])
    return {"logits": logits.float(), **model_inputs}


def window_inputs(pipeline: EmgPipeline, windows: torch.Tensor) -> Iterator[torch.Tensor]:
    """What the model takes of windows (batch, channels, time): all of them, or part by part their images (windows,
    images, 3, height, width)."""
    model, preprocessing = pipeline.model, pipeline.preprocessing
    if model.main_input_name != "pixel_values":
        yield windows.to(model.dtype)
        return
    for part in windows.split(windows_at_once(preprocessing, windows.shape[1])):
        yield torch.from_numpy(preprocessing.images(part.cpu().numpy())).to(model.device, model.dtype)


def _tensor(value: Any) -> Any:
    return torch.from_numpy(np.require(value, requirements="W")) if isinstance(value, np.ndarray) else value


def _array(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
