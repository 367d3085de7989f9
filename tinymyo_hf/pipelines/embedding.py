"""`pipeline("emg-embedding", model=...)`: a vector for each window and for the recording."""

from typing import Any

import torch
from transformers import PreTrainedModel

from tinymyo_hf.pipelines.base import EmgPipeline, window_inputs
from tinymyo_hf.tasks.embedding import EmbeddingTask
from tinymyo_hf.tiny_biomoe.modeling_tiny_biomoe import fuse_images
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoModel, fuse_channels, split_channels


class EmgEmbeddingPipeline(EmbeddingTask, EmgPipeline):
    """Vectors of recordings of any length, for classifiers and searches of your own.

    The encoder of any checkpoint over windows will do, under a head or without: of a TinyMyo the vector is what the
    head of a classifier sees, the mean over the window of each channel, channels side by side or averaged as
    `config.channel_fusion` says; of a Tiny-BioMoE it is the embedding of the window's images, averaged or side by side
    as `config.image_fusion` says.

    As all pipelines over windows, `__call__` takes `window_length` and `stride`, samples at the model's rate, instead
    of the feature extractor's, and `batch_size`, windows at once, also of several recordings.

    For each recording it returns
    - "embedding": float32 (size,), the mean over the windows;
    - "embeddings": float32 (windows, size);
    - "windows": for each {"start", "end"} in seconds; samples after the last full window are left out.

    Examples:
        >>> from transformers import pipeline                                           # doctest: +SKIP
        >>> embed = pipeline("emg-embedding", model="my-checkpoint")                    # doctest: +SKIP
        >>> embed("recording.csv", sampling_rate=200)["embeddings"].shape               # doctest: +SKIP
        (39, 192)
    """

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        parts = window_inputs(self, model_inputs.pop("input_values"))
        embeddings = torch.cat([embed_windows(self.model, part) for part in parts])
        return {"embeddings": embeddings.float(), **model_inputs}


def embed_windows(model: PreTrainedModel, inputs: torch.Tensor) -> torch.Tensor:
    """(windows, size) of what a model takes of windows: (windows, channels, time), or images (windows, images, 3,
    height, width)."""
    config = model.config
    if not isinstance(model, TinyMyoModel):
        embeddings = model(inputs.flatten(0, 1)).pooler_output.unflatten(0, inputs.shape[:2])
        return fuse_images(embeddings, config)
    states = split_channels(model(inputs).last_hidden_state, inputs.shape[1], None, config)
    return fuse_channels(states.mean(dim=2, keepdim=True), None, config).squeeze(1)
