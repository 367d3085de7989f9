"""Exports of small models, and what PyTorch says of some windows, for `optimum_check.py` to read elsewhere.

    python tests/export/optimum_export.py OUT

writes to OUT, for each model, its export in a folder NAME, and `NAME.npz` with `input.*` and `output.*` arrays of
several shapes. Outputs of graphs that are not float32 are those of onnxruntime here.
"""

import string
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from small_models import MODELS, inputs_of, small_model
from transformers.utils import logging

from export.onnx import Int8, export_onnx
from tinymyo_hf import EmgCharacterTokenizer, SEMGTransformerFeatureExtractor, TinyMyoFeatureExtractor

LETTERS = EmgCharacterTokenizer(characters=[*string.ascii_lowercase, *string.digits, " "])
WINDOWS = TinyMyoFeatureExtractor(feature_size=8)
SPEECH = TinyMyoFeatureExtractor(feature_size=8, window_length=160, patch_size=8)
# Each model's feature extractor and tokenizer.
PARTS = {
    "classification": (WINDOWS, None),
    "regression": (WINDOWS, None),
    "events": (TinyMyoFeatureExtractor(feature_size=16, patch_size=10), None),
    "speech_recognition": (SPEECH, LETTERS),
    "speech_synthesis": (SPEECH, None),
    "typing": (SEMGTransformerFeatureExtractor(), EmgCharacterTokenizer()),
    "encoder": (WINDOWS, None),
    "pretraining": (WINDOWS, None),
}
NUMBERS = {
    "": {"dtype": "fp32"},
    "_fp16": {"dtype": "fp16"},
    "_int8_static": {"dtype": "int8", "agreement": 0.5},  # random weights round badly
    "_int8_dynamic": {"dtype": "int8", "int8": Int8(method="dynamic"), "agreement": 0.5},
}


def export(name: str, out: Path, suffix: str = "") -> None:
    model, (extractor, tokenizer) = small_model(name), PARTS[name]
    with TemporaryDirectory() as checkpoint:
        for part in (model, extractor, tokenizer):
            if part is not None:
                part.save_pretrained(checkpoint)
        settings = dict(NUMBERS[suffix])
        if suffix == "_int8_static":
            settings["calibration"] = Path(checkpoint) / "windows.npy"
            np.save(settings["calibration"], inputs_of(model, 64, extractor.window_length)["input_values"].numpy())
        export_onnx(checkpoint, out / f"{name}{suffix}", measured=False, overwrite=True, **settings)
    session = onnxruntime.InferenceSession(out / f"{name}{suffix}" / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    arrays = {}
    for batch, length in zip((1, 3, 1), MODELS[name][1], strict=True):
        inputs = inputs_of(model, batch, length)
        feed = {key: value.numpy() for key, value in inputs.items()}
        if suffix:
            outputs = dict(zip(names, session.run(names, feed), strict=True))
        else:
            with torch.inference_mode():
                found = model(**inputs)
            outputs = {key: getattr(found, key).numpy() for key in names}
        shape = f"{batch}x{length}"
        arrays |= {f"{shape}.input.{key}": value for key, value in feed.items()}
        arrays |= {f"{shape}.output.{key}": value for key, value in outputs.items()}
    np.savez(out / f"{name}{suffix}.npz", **arrays)
    print(f"exported {name}{suffix}", flush=True)


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name in PARTS:
        export(name, out)
    for suffix in NUMBERS:
        if suffix:
            export("classification", out, suffix)


if __name__ == "__main__":
    main()
