"""The model card of an export (`README.md`): metadata the Hub reads, how to run the model, and whose licence holds.

    card = export_card("runs/uci_emg", task="emg-classification", dtype="int8", config=model.config,
                       preprocessing=preprocessing, source_card=text_of_its_readme)

Nothing in it is measured: it travels inside the ONNX file too, whose bytes depend on the checkpoint alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from export.image_graph import is_of_images
from export.report import PRECISIONS, RUNTIMES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Of the source card's metadata, what holds for another form of the same model.
_CARRIED = ("license", "license_name", "license_link", "language", "datasets", "pipeline_tag")

_OUTPUTS = {
    "emg-classification": ("logits", "(batch, labels)"),
    "emg-regression": ("logits", "(batch, frames, outputs)"),
    "emg-events": ("logits", "(batch, frames, labels)"),
    "emg-to-text": ("logits", "(batch, frames, characters and the blank)"),
    "emg-to-audio": ("spectrogram", "(batch, frames, mel bands)"),
    "embedding": ("last_hidden_state", "(batch, tokens, hidden size)"),
    "reconstruction": ("reconstruction", "(batch, tokens, patch size)"),
}
_INTEGERS = (
    "It computes with integers only: weights and inputs of products are int8, what is added to and the samples int16."
)
_PRECISION = {
    "fp32": "The weights are those of the checkpoint.",
    "fp16": "Weights and most of the arithmetic are float16, inputs and outputs float32.",
    "int8": "Weights of the linear layers are int8, with a scale for each output; inputs and outputs are float32.",
}


def export_card(
    checkpoint: str,
    *,
    task: str,
    dtype: str,
    config: PreTrainedConfig,
    preprocessing: Any,
    source_card: str | None = None,
    runtime: str = "onnx",
    use: Sequence[str] | None = None,
) -> str:
    """The text of `README.md`.

    Args:
        checkpoint: what was exported: a folder, or an id on the Hub.
        task: "emg-classification", ... as in the graph's metadata.
        dtype: "fp32", "fp16" or "int8".
        config, preprocessing: of the model.
        source_card: text of the checkpoint's own card, whose licence and description are carried on; None where it has
            none.
        runtime: one of `export.report.RUNTIMES`, that the export is for.
        use: paragraphs that say how to run it; by default those for onnxruntime.
    """
    known, text = {}, ""
    if source_card:
        source = ModelCard(source_card, ignore_metadata_errors=True)
        known, text = source.data.to_dict(), source.text
    base = known.get("base_model") if Path(checkpoint).expanduser().exists() else checkpoint
    data = ModelCardData(
        library_name=runtime,
        tags=list(dict.fromkeys([*known.get("tags", ()), *_TAGS[runtime], "emg", dtype])),
        base_model=base,
        **{name: known[name] for name in _CARRIED if name in known},
        **({"base_model_relation": "quantized"} if base and dtype != "fp32" else {}),
    )
    sections = [
        f"# {_title(text, checkpoint)} as {RUNTIMES[runtime]}, {PRECISIONS[dtype]}",
        f"Task: {task}. Made from `{short_name(checkpoint)}` by tinymyo-hf. "
        f"{_INTEGERS if runtime == 'gap9' else _PRECISION[dtype]} How far its outputs are from those of the PyTorch "
        f"model, {_MEASURED.get(runtime, 'how fast it runs')} and what it needs is in `report.md`.",
        "## Use",
        *(_use(task, config, preprocessing) if use is None else use),
        "## Files",
        f"{_PROGRAMS[runtime]}\n{_FILES}",
        "## Licence",
        _licence(known, dtype, base),
        *_source_text(text, checkpoint),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


_TAGS = {
    "onnx": ("onnx", "onnxruntime"),
    "executorch": ("executorch", "xnnpack"),
    "gap9": ("gap9", "risc-v", "tinyml"),
}
_MEASURED = {"gap9": "what was verified, what a window should cost on the chip by a model of it"}
_PROGRAMS = {
    "onnx": "- `model.onnx`: the graph. Its metadata hold the contents of the checkpoint's files that are named here.",
    "executorch": "- `model.pte`: the program; `export.json`: its inputs and outputs, for transformers.",
    "gap9": """- `src/network.c`: the network: where everything lies in memory, its steps, and the tiles of each.
- `src/`: its kernels, and the steps that move tiles between L2 and L1.
- `weights.bin`: all parameters, for external RAM; their CRC is checked when the network is opened.
- `platform/`: what belongs to GAP9, and what stands for it on other machines.
- `Makefile`, `CMakeLists.txt`, `sdk.config`: builds.
- `test_vectors/`: windows, and what every step makes of them by the integer reference.
- `memory.png`, `cycles.png`: pictures of the report.""",
}
_FILES = """- `config.json`, `preprocessor_config.json` and what decoding needs: as in the checkpoint.
- `report.json`, `report.md`: what was verified and measured."""


def short_name(checkpoint: str) -> str:
    """A folder's name, without the folders it is in, which are nobody's business but the user's; ids of the Hub as they
    are."""
    path = Path(checkpoint).expanduser()
    return path.resolve().name if path.exists() else checkpoint


def _title(text: str, checkpoint: str) -> str:
    """Of the checkpoint's card."""
    heading = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return heading.group(1).strip() if heading else short_name(checkpoint)


def _use(task: str, config: PreTrainedConfig, preprocessing: Any) -> list[str]:
    if is_of_images(config):
        return _use_images(task, config, preprocessing)
    rate = f"{preprocessing.sampling_rate:.10g}"
    recorded = f"{getattr(preprocessing, 'recording_rate', preprocessing.sampling_rate):.10g}"
    samples = getattr(preprocessing, "window_length", 4 * int(preprocessing.sampling_rate))
    output, shape = _OUTPUTS[task]
    sections = _pipeline(task, recorded) if task.startswith("emg-") else []
    hidden = ""
    if task == "reconstruction":
        hidden = f', "bool_masked_pos": np.zeros((1, {config.num_channels * samples // config.patch_size}), bool)'
    sections += [
        f"With onnxruntime alone, on windows of {config.num_channels} channels at {rate} Hz that are preprocessed as "
        "`preprocessor_config.json` says:",
        "```python\nimport numpy as np\nimport onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        f"windows = np.zeros((1, {config.num_channels}, {samples}), np.float32)  # (batch, channels, time)\n"
        f'(outputs,) = session.run(["{output}"], {{"input_values": windows{hidden}}})  # {shape}\n```',
    ]
    return sections


def _pipeline(task: str, rate: str) -> list[str]:
    """How to run it on recordings."""
    return [
        "With tinymyo-hf, onnxruntime and SciPy (no torch):",
        f'```python\nfrom tinymyo_hf.onnx import pipeline\n\npredict = pipeline("{task}", model="PATH")\n'
        f'print(predict("recording.csv", sampling_rate={rate}))\n```',
        f"or `tinymyo predict PATH recording.csv --sampling-rate {rate}`.",
    ]


def _use_images(task: str, config: PreTrainedConfig, preprocessing: Any) -> list[str]:
    """Of a model of images."""
    output, shape = _OUTPUTS[task] if task.startswith("emg-") else ("pooler_output", "(batch, hidden size)")
    size, axes = f"{config.num_channels}, {config.image_size}, {config.image_size}", "batch"
    if task.startswith("emg-"):
        size, axes = f"{max(config.num_images, 1)}, {size}", "batch, images of a window"
    return [
        *(_pipeline(task, f"{preprocessing.recording_rate:.10g}") if task.startswith("emg-") else []),
        "With onnxruntime alone, on images in [0, 1] that are drawn as `preprocessor_config.json` says "
        "(`BiosignalImageProcessor` of tinymyo-hf, which needs no torch to draw):",
        "```python\nimport numpy as np\nimport onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        f"images = np.zeros((1, {size}), np.float32)  # ({axes}, colours, height, width)\n"
        f'(outputs,) = session.run(["{output}"], {{"pixel_values": images}})  # {shape}\n```',
    ]


def _licence(known: dict[str, Any], dtype: str, base: str | list[str] | None) -> str:
    licence = known.get("license")
    if not licence:
        origin = f" It was made from `{base}`, whose licence goes on." if base else ""
        return f"The card of the checkpoint states none.{origin} Ask its authors before you share this export."
    name = known.get("license_name") or licence
    text = f"That of the checkpoint holds: {name}."
    if re.search(r"\bnd\b", f"{licence} {name}", re.IGNORECASE):
        changed = (
            "This file holds the same weights in another format."
            if dtype == "fp32"
            else f"The weights in this file were changed to {PRECISIONS[dtype]}: it may not be shared."
        )
        text += (
            f" It allows no distribution of changed weights (no derivatives). {changed} Weights that were fine-tuned "
            "may not be shared in any format, unless their authors allow it."
        )
    return text


def _source_text(text: str, checkpoint: str) -> list[str]:
    """The checkpoint's card, its headings one level lower, without the pictures that are not here."""
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", text.strip(), flags=re.MULTILINE)
    lines, code = [], False
    for line in text.splitlines():
        code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not code else line)
    return (
        [f"*What follows is the card of the checkpoint `{short_name(checkpoint)}`.*", "\n".join(lines)] if lines else []
    )
