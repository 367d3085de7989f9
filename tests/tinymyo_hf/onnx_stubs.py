"""Exports of simple models of every task, and the same models in torch: a convolution in place of the network."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_speech import SIZES, speech_extractor

from export.metadata import describe
from tinymyo_hf import (
    EmgCharacterTokenizer,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForCTC,
    TinyMyoForFrameClassification,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoForSpeechSynthesis,
)
from tinymyo_hf.speech_text import SPEECH_CHARACTERS

SMALL = {"num_channels": 4, "hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 16}
RAW = {"sampling_rate": 2000, "band_pass": None, "notch_frequencies": (), "normalization": "none"}
TYPING = {
    "num_channels": 4, "conv_dim": [8, 8, 8], "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Stub:
    """A model: its class and configuration, what is saved beside it, and the convolution that stands for it.

    `outputs` are the names and sizes of what it makes of every frame of `kernel` samples each `stride`; `pooled` if it
    is the mean over them.
    """

    task: str
    model_class: type
    config: object
    extractor: object
    kernel: int
    stride: int
    outputs: dict[str, int]
    tokenizer: object = None
    pooled: bool = False
    scale: float = 1.0
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        rng = np.random.default_rng(7)
        for name, size in self.outputs.items():
            shape = size, self.config.num_channels, self.kernel
            self.weights[name] = (self.scale * rng.normal(size=shape)).astype(np.float32)

    def forward(self, values: torch.Tensor, name: str = "logits") -> torch.Tensor:
        """(batch, channels, time) -> (batch, frames, outputs), or (batch, outputs) if pooled."""
        frames = torch.conv1d(values, torch.from_numpy(self.weights[name]), stride=self.stride).transpose(1, 2)
        return frames.mean(1) if self.pooled else frames

    def graph(self, batch: int | str = "batch", time: int | str = "time") -> onnx.ModelProto:
        """The same in ONNX."""
        nodes, outputs = [], []
        for name in self.outputs:
            strides = {"kernel_shape": [self.kernel], "strides": [self.stride]}
            nodes.append(helper.make_node("Conv", ["input_values", f"{name}.weight"], [f"{name}.conv"], **strides))
            frames = f"{name}.frames" if self.pooled else name
            nodes.append(helper.make_node("Transpose", [f"{name}.conv"], [frames], perm=[0, 2, 1]))
            if self.pooled:
                nodes.append(helper.make_node("ReduceMean", [frames, "axes"], [name], keepdims=0))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        weights = [numpy_helper.from_array(weight, f"{name}.weight") for name, weight in self.weights.items()]
        if self.pooled:
            weights.append(numpy_helper.from_array(np.array([1]), "axes"))
        shape = [batch, self.config.num_channels, time]
        inputs = [helper.make_tensor_value_info("input_values", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(nodes, "stub", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def save_export(self, folder: Path, **dims: int) -> Path:
        """What `tinymyo export onnx` leaves, but for the reports."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in (self.config, self.extractor, self.tokenizer):
            if part is not None:
                part.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"architectures": [self.model_class.__name__]}))
        proto = self.graph(**dims)
        describe(proto, folder, self.task, "fp32", "# A card")
        onnx.save_model(proto, folder / "model.onnx")
        return folder


def _named(*names: str) -> dict:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _speech(**fields) -> TinyMyoConfig:
    return TinyMyoConfig(**SIZES | fields)


STUBS = {
    "classification": Stub(
        "emg-classification", TinyMyoForSequenceClassification,
        TinyMyoConfig(**SMALL, **_named("rest", "fist", "open"), patch_size=10),
        TinyMyoFeatureExtractor(patch_size=10, window_length=100, stride=50), 3, 1, {"logits": 3}, pooled=True, scale=5,
    ),
    "regression": Stub(
        "emg-regression", TinyMyoForRegression, TinyMyoConfig(**SMALL, patch_size=10, target_length=20),
        TinyMyoFeatureExtractor(patch_size=10, window_length=100, stride=30), 5, 5, {"logits": 2},
    ),
    "events": Stub(
        "emg-events", TinyMyoForFrameClassification,
        TinyMyoConfig(**SMALL, **_named("press", "press_release"), stem="convolution", is_causal=True),
        TinyMyoFeatureExtractor(**RAW, feature_size=4, window_length=400, stride=100), 21, 10, {"logits": 2}, scale=0.3,
    ),
    "speech": Stub(
        "emg-to-text", TinyMyoForCTC, _speech(), speech_extractor(), 8, 8, {"logits": 38}, scale=0.5,
        tokenizer=EmgCharacterTokenizer(characters=SPEECH_CHARACTERS),
    ),
    "voice": Stub(
        "emg-to-audio", TinyMyoForSpeechSynthesis, _speech(**_named(*(f"p{i}" for i in range(48)))),
        speech_extractor(), 8, 8, {"spectrogram": 80, "phoneme_logits": 48}, scale=0.02,
    ),
    "typing": Stub(
        "emg-to-text", SEMGTransformerForCTC, SEMGTransformerConfig(**TYPING),
        SEMGTransformerFeatureExtractor(4, bands=(2, 2), rotation=(1, 0)), 41, 20, {"logits": 99}, scale=0.3,
        tokenizer=EmgCharacterTokenizer(),
    ),
}  # fmt: skip
