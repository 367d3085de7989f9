"""Opens exports with optimum's ONNX Runtime classes and compares their outputs with those of PyTorch.

    python tests/export/optimum_check.py OUT

runs in an environment of its own (`optimum_requirements.txt`): optimum-onnx needs a transformers before version 5,
which does not know the family. OUT is what `optimum_export.py` wrote. Fails if anything differs.
"""

import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# The family registers with a transformers that knows how; here only its preprocessing is of use.
os.environ["TINYMYO_HF_REGISTER"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from optimum import onnxruntime as ort
from transformers import PretrainedConfig

TOLERANCE = 1e-4
# What opens exports of a task, beside the class that opens all of them.
CLASSES = {
    "emg-classification": "ORTModelForAudioClassification",
    "emg-events": "ORTModelForAudioFrameClassification",
    "emg-to-text": "ORTModelForCTC",
    "embedding": "ORTModelForFeatureExtraction",
}
ALL = "ORTModelForCustomTasks"


def cases(path: Path) -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Inputs and expected outputs by shape."""
    found: dict = {}
    for key, values in np.load(path).items():
        shape, kind, name = key.split(".")
        found.setdefault(shape, ({}, {}))[kind == "output"][name] = values
    return found


def difference(model: ort.ORTModel, feed: dict[str, Any], expected: dict[str, np.ndarray]) -> float:
    """The largest of any output; other outputs than expected fail."""
    outputs = {name: np.asarray(values) for name, values in model(**feed).items()}
    assert {name: values.shape for name, values in outputs.items()} == {k: v.shape for k, v in expected.items()}
    return max(float(np.abs(outputs[name] - values).max()) for name, values in expected.items())


def check(folder: Path) -> None:
    # AutoConfig refuses a model_type that it does not know; the plain class reads every field.
    config = PretrainedConfig.from_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {str(i): label for i, label in config.id2label.items()} == saved.get(
        "id2label", {"0": "LABEL_0", "1": "LABEL_1"}
    )
    shapes = cases(folder.with_suffix(".npz"))
    task = ort.ORTModelForCustomTasks.from_pretrained(folder, config=config).session.get_modelmeta()
    for name in filter(None, (ALL, CLASSES.get(task.custom_metadata_map["tinymyo_hf.task"]))):
        model_class = getattr(ort, name)
        model = model_class.from_pretrained(folder, config=config)
        with TemporaryDirectory() as copy:
            model.save_pretrained(copy)
            again = model_class.from_pretrained(copy, config=PretrainedConfig.from_pretrained(copy))
        calls = [(model, np.asarray), (model, torch.from_numpy), (again, np.asarray)]
        if not any("frames" in shape for shape in model.output_shapes.values()):
            # Binding allocates outputs beforehand: it works out their shapes from the names of the inputs' axes.
            bound = model_class.from_pretrained(folder, config=config, use_io_binding=True)
            calls.append((bound, torch.from_numpy))
        worst = max(
            difference(opened, {key: convert(values) for key, values in inputs.items()}, expected)
            for inputs, expected in shapes.values()
            for opened, convert in calls
        )
        print(f"{folder.name:27s} {name:36s} {', '.join(shapes):24s} largest difference {worst:.1e}", flush=True)
        assert worst <= TOLERANCE, f"{folder.name}: {name} differs from PyTorch by {worst}"


def check_text_class(folder: Path) -> None:
    """The class named after the task is for tokens: it opens the export and then asks for `input_ids`."""
    model = ort.ORTModelForSequenceClassification.from_pretrained(
        folder, config=PretrainedConfig.from_pretrained(folder)
    )
    try:
        model(input_values=torch.zeros(1, 8, 200))
    except ValueError as error:
        assert "input_values is required" in str(error), error
    else:
        raise AssertionError("ORTModelForSequenceClassification runs: say so in docs/export-optimum.md")


def check_preprocessing(folder: Path) -> None:
    """Raw recordings become windows without transformers 5."""
    from tinymyo_hf.tinymyo.preprocessing_tinymyo import TinyMyoPreprocessing

    saved = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    preprocessing = TinyMyoPreprocessing.from_dict(saved)
    recording = np.random.default_rng(0).normal(size=(8, 1000))
    windows, _ = preprocessing.windows(preprocessing.preprocess(recording, preprocessing.sampling_rate))
    model = ort.ORTModelForAudioClassification.from_pretrained(folder, config=PretrainedConfig.from_pretrained(folder))
    assert model(input_values=np.ascontiguousarray(windows, np.float32)).logits.shape == (len(windows), 6)


def main() -> None:
    out = Path(sys.argv[1])
    logging.disable(logging.WARNING)  # of the unknown model_type, and of the class that is for tokens
    names = ("optimum-onnx", "optimum", "transformers", "onnxruntime", "torch")
    print(", ".join(f"{name} {version(name)}" for name in names))
    folders = sorted(path.with_suffix("") for path in out.glob("*.npz"))
    assert folders, f"{out}: no exports; run optimum_export.py first"
    for folder in folders:
        check(folder)
    check_text_class(out / "classification")
    check_preprocessing(out / "classification")
    print(f"{len(folders)} exports open with optimum and agree")


if __name__ == "__main__":
    main()
