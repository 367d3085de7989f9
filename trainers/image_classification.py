"""Classification of windows by a model of images, Tiny-BioMoE: the whole of it, or a head on its embeddings.

Windows become images when a batch is made; none is stored. With `freeze_encoder` the images of every window are drawn
and embedded once, before the training, which then is one of the head on vectors: seconds instead of hours. It starts
from a logistic regression.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from dataset_builders.torch_view import WindowDataset, collate_windows
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.tasks.windows import check_images, windows_at_once
from tinymyo_hf.tiny_biomoe.configuration_tiny_biomoe import TinyBioMoEConfig
from tinymyo_hf.tiny_biomoe.image_processing_tiny_biomoe import BiosignalImageProcessor
from tinymyo_hf.tiny_biomoe.modeling_tiny_biomoe import TinyBioMoEForSequenceClassification
from trainers.arguments import DataArguments, ImageClassificationArguments, ModelArguments
from trainers.checkpoint_fit import SHARED_FIELDS, check_preprocessing, match_labels, reorder_outputs
from trainers.classification import ClassificationTask
from trainers.errors import CheckpointError, RecipeError
from trainers.image_models import DRAWING_FIELDS, build_image_model, drawing_of, fit_head, image_processor
from trainers.models import load_config
from trainers.optim import LayerwiseTrainer
from trainers.tasks import Scores


class ImageTrainer(LayerwiseTrainer):
    """`LayerwiseTrainer` on batches of images or of their embeddings."""

    def describe_batch(self, inputs: dict[str, Any]) -> str:
        values = next(inputs[name] for name in ("pixel_values", "image_embeddings") if name in inputs)
        return super().describe_batch({"input_values": values})


class ImageClassificationTask(ClassificationTask):
    """Windows with a class each, which the model sees as images.

    Attributes:
        extractor: makes windows and images; saved beside the model. Of splits alone it is that of the windows, until
            `adopt` brings a checkpoint's.
        windows: split -> its windows; `splits` are these, or their embeddings where the backbone is frozen.
        bf16: whether a frozen backbone computes so.
        folder: of the run.
        embedding_seconds: that the embeddings of all splits took in this start; None where there are none.
    """

    family = "Tiny-BioMoE"
    model_class = TinyBioMoEForSequenceClassification
    trainer_class = ImageTrainer
    batch_size = 8
    bf16: bool
    folder: Path

    def __init__(self, data: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, corpus: str):
        super().__init__(data, extractor, corpus)
        self.windows: Mapping[str, WindowDataset] = dict(self.splits)
        self.embedding_seconds: float | None = None
        self.collate = self._collate_images

    @classmethod
    def complete(cls, model: ModelArguments, arguments: ImageClassificationArguments) -> None:
        """Draw images as those of the checkpoint were, but for what the recipe says."""
        if model.model_name_or_path is not None:
            load_config(model.model_name_or_path, TinyBioMoEConfig)  # for its errors, before anything is prepared
        if model.freeze_encoder and model.model_name_or_path is None:
            raise RecipeError(
                "freeze_encoder: a backbone from scratch has learned nothing to keep; name a checkpoint by "
                "--model_name_or_path (`tinymyo convert Tiny-BioMoE.pth FOLDER` makes one of the published weights)"
            )
        arguments.images = drawing_of(model, arguments.images)

    @classmethod
    def load(cls, data: DataArguments, arguments: ImageClassificationArguments) -> ImageClassificationTask:
        task = super().load(data, arguments)
        task.extractor = image_processor(task.extractor, arguments.images)
        task.bf16, task.folder = arguments.bf16, Path(arguments.output_dir)
        return task

    @classmethod
    def options_of(cls, config: PreTrainedConfig, extractor: BiosignalImageProcessor) -> dict[str, Any]:
        return {name: getattr(extractor, name) for name in SHARED_FIELDS}

    def adopt(self, checkpoint: str, model: PreTrainedModel, extractor: BiosignalImageProcessor) -> None:
        check_images(model.config, extractor)
        found = self.extractor.replace(patch_size=extractor.patch_size)  # which images know nothing of
        check_preprocessing(checkpoint, extractor, self.corpus, found)
        config, images = model.config, extractor.num_images(self.num_channels)
        if config.image_fusion == "concat" and config.num_images != images:
            raise CheckpointError(
                f"{checkpoint} joins {config.num_images} images of a window, but the {self.num_channels} channels of "
                f"{self.corpus} make {images}: choose data with the same electrodes"
            )
        reorder_outputs(model, match_labels(checkpoint, config.id2label, self.labels))
        self.extractor = extractor

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        decided = {
            "image_size": self.extractor.image_size,
            "num_images": self.extractor.num_images(self.num_channels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
        }
        model = build_image_model(arguments, decided)
        if arguments.freeze_encoder:
            if self.embedding_seconds is None:
                self._embed(model)
            fit_head(
                model, *((self.splits[s].vectors, np.array(self.splits[s].labels)) for s in ("train", "validation"))
            )
        return model

    def baselines(self) -> dict[str, Scores]:
        embedded, self.splits = self.splits, dict(self.windows)
        try:
            return super().baselines()
        finally:
            self.splits = embedded

    def facts(self) -> dict[str, Any]:
        drawing = {name: getattr(self.extractor, name) for name in DRAWING_FIELDS}
        images = {"per_window": self.extractor.num_images(self.num_channels), **drawing}
        return {**super().facts(), "images": images, "embedding_seconds": self.embedding_seconds}

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        parts, images = super().card(results), results["images"]
        count, kinds = images["per_window"], " and ".join(images["representations"])
        size, drawn = images["image_size"], kinds.replace("_", " ")
        pictures = f"{count} image{'s' * (count > 1)} of {size} x {size} pixels ({drawn})"
        return parts | {"model": f"{parts['model']} It sees each window as {pictures}."}

    def _collate_images(self, items: Sequence[dict]) -> dict:
        """A batch of windows as images; of embeddings as it is."""
        batch = collate_windows(items)
        if "input_values" in batch:
            images = self.extractor.images(batch.pop("input_values").numpy())
            batch["pixel_values"] = torch.from_numpy(images)
        return batch

    def _embed(self, model: nn.Module) -> None:
        """Put the embeddings of all windows in their places: under a frozen backbone they never change. A run that is
        started again finds them in its folder."""
        started = time.perf_counter()
        backbone = model.base_model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        weights = hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in backbone.state_dict().values()))
        for name, windows in self.windows.items():
            origin = f"{weights.hexdigest()} {self.extractor.to_json_string()} {windows.hf_dataset._fingerprint}"
            key = hashlib.sha256(f"{origin} {self.bf16}".encode()).hexdigest()[:16]
            stored = self.folder / "embeddings" / f"{name}-{key}.safetensors"
            if stored.is_file():
                vectors = load_file(stored)["image_embeddings"]
            else:
                vectors = self._embeddings_of(windows, backbone)
                stored.parent.mkdir(parents=True, exist_ok=True)
                partial = stored.with_suffix(f".{os.getpid()}.partial")  # there may be several processes
                save_file({"image_embeddings": vectors}, partial)
                os.replace(partial, stored)
            self.splits[name] = Embeddings(vectors, windows.arrays()[1].tolist())
        self.embedding_seconds = round(time.perf_counter() - started, 1)
        print(f"{sum(map(len, self.windows.values())):,} windows embedded in {self.embedding_seconds:g} s", flush=True)

    @torch.no_grad()
    def _embeddings_of(self, windows: WindowDataset, backbone: PreTrainedModel) -> torch.Tensor:
        """float32 (windows, images, size)."""
        parts = []
        at_once = windows_at_once(self.extractor, self.num_channels)
        for first in range(0, len(windows), at_once):
            items = windows.__getitems__(range(first, min(first + at_once, len(windows))))
            images = self._collate_images(items)["pixel_values"].to(backbone.device)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
                embeddings = backbone(images.flatten(0, 1)).pooler_output
            parts.append(embeddings.unflatten(0, images.shape[:2]).float().cpu())
        return torch.cat(parts)


class Embeddings(torch.utils.data.Dataset):
    """Item i is {"image_embeddings": float32 (images, size), "labels": int}."""

    def __init__(self, vectors: torch.Tensor, labels: Sequence[int]):
        self.vectors, self.labels = vectors, labels

    def __len__(self) -> int:
        return len(self.vectors)

    def arrays(self) -> tuple[torch.Tensor, np.ndarray]:
        """All embeddings, and class ids (windows,)."""
        return self.vectors, np.array(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"image_embeddings": self.vectors[index], "labels": self.labels[index]}
