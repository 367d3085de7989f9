"""Tiny models of silent speech with random weights, saved as checkpoints, and utterances to feed them."""

from pathlib import Path

import numpy as np
import torch

from tinymyo_hf import (
    EmgCharacterTokenizer,
    TinyMyoConfig,
    TinyMyoFeatureExtractor,
    TinyMyoForCTC,
    TinyMyoForSpeechSynthesis,
)
from tinymyo_hf.audio import AUDIO_RATE, HOP_LENGTH
from tinymyo_hf.speech_text import SPEECH_CHARACTERS

RATE = 8 * AUDIO_RATE / HOP_LENGTH
SIZES = {
    "num_channels": 8, "stem": "residual", "norm_position": "post", "position_embedding_type": "relative",
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


def utterance(samples: int = 700, seed: int = 0) -> np.ndarray:
    """EMG (8, samples) at 1000 Hz, with an offset that only the filters take away."""
    return 100 + 40 * np.random.default_rng(seed).normal(size=(8, samples))


def speech_extractor(**fields) -> TinyMyoFeatureExtractor:
    """As of the corpus gaddy."""
    settings = {
        "feature_size": 8, "sampling_rate": RATE, "filter_rate": 1000, "band_pass": (2, None), "band_pass_order": 3,
        "notch_frequencies": [60 * k for k in range(1, 7)], "gain": 1 / 20, "soft_limit": 50, "normalization": "none",
        "window_length": 1600, "stride": 1600, "patch_size": 8,
    }  # fmt: skip
    return TinyMyoFeatureExtractor(**settings | fields)


def save_recognition(folder: Path, **config) -> Path:
    """A model that writes, with its preprocessing and characters; its logits far apart."""
    torch.manual_seed(0)
    model = TinyMyoForCTC(TinyMyoConfig(**SIZES | config))
    torch.nn.init.normal_(model.lm_head.weight, std=3)
    model.save_pretrained(folder)
    speech_extractor().save_pretrained(folder)
    EmgCharacterTokenizer(characters=SPEECH_CHARACTERS).save_pretrained(folder)
    return folder


def save_synthesis(folder: Path, **config) -> Path:
    """A model that speaks, with its preprocessing."""
    torch.manual_seed(0)
    names = {i: f"p{i}" for i in range(48)}
    config = {"id2label": names, "label2id": {name: i for i, name in names.items()}} | config
    TinyMyoForSpeechSynthesis(TinyMyoConfig(**SIZES | config)).save_pretrained(folder)
    speech_extractor().save_pretrained(folder)
    return folder
