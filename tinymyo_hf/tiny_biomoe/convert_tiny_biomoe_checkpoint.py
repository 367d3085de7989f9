"""Convert the released Tiny-BioMoE checkpoint to a native one.

Its 510 tensors are checked name by name and shape by shape; those of heads are left out. Nothing but tensors is read of
a pickled file.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch

from tinymyo_hf.tiny_biomoe.configuration_tiny_biomoe import TINY_BIOMOE_PRESETS, TinyBioMoEConfig
from tinymyo_hf.tiny_biomoe.image_processing_tiny_biomoe import BiosignalImageProcessor
from tinymyo_hf.tiny_biomoe.modeling_tiny_biomoe import TinyBioMoEModel
from tinymyo_hf.tinymyo.released_weights import ConversionError, check_empty, listed, read_tensors, write_folder

PREFIX = "module."
HEAD = re.compile(r"(enc[12]\.)?head\.")
BIAS, INDEX = "attention_biases", "attention_bias_idxs"
PARTS = {
    "ln_img.": "ln_img (norm of the image)",
    "enc1.": "expert enc1 (SpectFormer)",
    "enc2.": "expert enc2 (EfficientViT)",
    "fcn.": "fcn (gate)",
    "ln_e.": "ln_e (norm of the experts)",
    "ln_out.": "ln_out (norm of the output)",
}


def _numbered(template: str, times: int, plus: int) -> Callable[[re.Match], str]:
    """A replacement whose `{}` is the number in the match, multiplied and shifted."""
    return lambda match: template.format(times * int(match[1]) + plus)


# How native names become released ones, one step after the other.
RENAMINGS: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    (r"^image_norm\.", "ln_img."),
    (r"^expert_norm\.", "ln_e."),
    (r"^output_norm\.", "ln_out."),
    (r"^gate\.", "fcn.1."),
    (r"^spectformer\.stem\.layers\.(\d)\.conv\.", _numbered("enc1.patch_embed1.conv.{}.", 3, 0)),
    (r"^spectformer\.stem\.layers\.(\d)\.norm\.", _numbered("enc1.patch_embed1.conv.{}.", 3, 1)),
    (r"^spectformer\.downsamples\.(\d)\.", _numbered("enc1.patch_embed{}.", 1, 1)),
    (r"^spectformer\.blocks\.(\d)\.", _numbered("enc1.block{}.0.", 1, 1)),
    (r"^spectformer\.norms\.(\d)\.", _numbered("enc1.norm{}.", 1, 1)),
    (r"^spectformer\.class_block\.", "enc1.post_network.0."),
    (r"\.mlp\.depthwise\.", ".mlp.dwconv.dwconv."),
    (r"^(enc1.*?)\.(mixer\.attention|mixer|attention)\.", r"\1.attn."),
    (r"^efficientvit\.stem\.layers\.(\d)\.", _numbered("enc2.patch_embed.{}.", 2, 0)),
    (r"^efficientvit\.blocks\.0\.", "enc2.blocks1.0."),
    (r"^efficientvit\.blocks\.(\d)\.", _numbered("enc2.blocks{}.3.", 1, 1)),
    (r"^efficientvit\.merges\.(\d)\.", _numbered("enc2.blocks{}.", 1, 2)),
    (r"^(enc2\.blocks\d)\.before\.depthwise\.", r"\1.0.0.m."),
    (r"^(enc2\.blocks\d)\.before\.", r"\1.0.1.m."),
    (r"^(enc2\.blocks\d)\.after\.depthwise\.", r"\1.2.0.m."),
    (r"^(enc2\.blocks\d)\.after\.", r"\1.2.1.m."),
    (r"^(enc2\.blocks\d)\.expand\.", r"\1.1.conv1."),
    (r"^(enc2\.blocks\d)\.depthwise\.", r"\1.1.conv2."),
    (r"^(enc2\.blocks\d)\.reduce\.", r"\1.1.conv3."),
    (r"^(enc2\.blocks\d)\.squeeze_excite\.", r"\1.1.se."),
    (r"^(enc2.*)\.before\.depthwise\.", r"\1.dw0.m."),
    (r"^(enc2.*)\.before\.", r"\1.ffn0.m."),
    (r"^(enc2.*)\.after\.depthwise\.", r"\1.dw1.m."),
    (r"^(enc2.*)\.after\.", r"\1.ffn1.m."),
    (r"\.mixer\.attention\.bias\.weight$", f".mixer.m.attn.{BIAS}"),
    (r"\.mixer\.attention\.heads\.(\d)\.qkv\.", _numbered(".mixer.m.attn.qkvs.{}.", 1, 0)),
    (r"\.mixer\.attention\.heads\.(\d)\.query_conv\.", _numbered(".mixer.m.attn.dws.{}.", 1, 0)),
    (r"\.mixer\.attention\.proj\.", ".mixer.m.attn.proj.1."),
    (r"^(enc2.*m)\.expand\.", r"\1.pw1."),
    (r"^(enc2.*m)\.reduce\.", r"\1.pw2."),
    (r"^(enc2.*)\.conv\.", r"\1.c."),
    (r"^(enc2.*)\.norm\.", r"\1.bn."),
)


def released_name(name: str) -> str:
    """Of a tensor by its native name in `TinyBioMoEModel`."""
    for pattern, released in RENAMINGS:
        name = re.sub(pattern, released, name)
    return name


def is_tiny_biomoe_checkpoint(source: str | Path) -> bool:
    """Whether the weights in a file are named as those of Tiny-BioMoE; `ConversionError` if it cannot be read."""
    names = [name.removeprefix(PREFIX) for name in read_tensors(Path(source))]
    return any(name.startswith(("enc1.patch_embed", "enc2.patch_embed")) for name in names)


def convert_tiny_biomoe_checkpoint(source: str | Path, output_dir: str | Path) -> tuple[TinyBioMoEModel, list[str]]:
    """Write the released checkpoint to `output_dir` as a native one, with an image processor and a model card.

    Args:
        source: .pth (or .ckpt, .pt, .bin) of tensors, bare or under `model_state_dict`, or .safetensors; names may
            begin with `module.`.
        output_dir: must not exist, or be empty. It appears whole or not at all.

    Returns:
        The converted model in evaluation mode, and the names of the tensors of heads, which are left out.

    Raises:
        ConversionError: unreadable source, missing or unexpected tensors, other shapes or attention indices than the
            published model's, occupied output.
    """
    check_empty(Path(output_dir))
    source = Path(source)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in read_tensors(source).items()}
    heads = sorted(name for name in tensors if HEAD.match(name))
    model = TinyBioMoEModel(TinyBioMoEConfig(**TINY_BIOMOE_PRESETS["tiny-biomoe"]))
    released = {released_name(name): name for name in model.state_dict()}
    found = {name: tensor for name, tensor in tensors.items() if name not in heads}
    _check(source, found, _wanted(model, released))
    model.load_state_dict({native: found[name] for name, native in released.items()})
    write_folder(Path(output_dir), [model.eval(), BiosignalImageProcessor(), _Card(source)])
    return model, heads


def _wanted(model: TinyBioMoEModel, released: dict[str, str]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by released names; of them only shapes count, and the values of indices."""
    state = model.state_dict()
    wanted = {name: state[native] for name, native in released.items()}
    for name, tensor in list(wanted.items()):
        if name.endswith(BIAS):
            wanted[name.removesuffix(BIAS) + INDEX] = _distance_indices(round(tensor.shape[1] ** 0.5))
    return wanted


def _distance_indices(side: int) -> torch.Tensor:
    """(tokens, tokens) int64: which bias two tokens of a grid have."""
    rows, columns = torch.arange(side**2) // side, torch.arange(side**2) % side
    return side * (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()


def _check(source: Path, found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    absent = [part for part in PARTS if not any(name.startswith(part) for name in found)]
    if missing or unexpected:
        whole = "".join(f"; {PARTS[part]} is missing" for part in absent)
        missing = [name for name in missing if not name.startswith(tuple(absent))]
        raise ConversionError(
            f"{source}: not the {len(wanted)} tensors of Tiny-BioMoE{whole}{listed('missing', missing)}"
            f"{listed('unexpected', unexpected)}; check that the file is complete and of this model"
        )
    wrong = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != wanted[name].shape
    ]
    if wrong:
        raise ConversionError(
            f"{source}: shapes are not those of the published Tiny-BioMoE{listed('in', wrong)}; check the file"
        )
    other = [name for name in wanted if name.endswith(INDEX) and not torch.equal(found[name].long(), wanted[name])]
    if other:
        raise ConversionError(
            f"{source}: attention biases are indexed otherwise than by distance{listed('in', other)}; check the file"
        )


class _Card:
    """README.md of a converted checkpoint."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def save_pretrained(self, folder: Path) -> None:
        (folder / "README.md").write_text(
            f"""---
license: mit
library_name: transformers
pipeline_tag: image-feature-extraction
tags:
- biosignals
- emg
- surface-emg
- ecg
- eeg
- tiny-biomoe
---

# Tiny-BioMoE

`{self.source.name}`, converted by `tinymyo convert` of tinymyo-hf. Code and weights are by Stefanos Gkikas, Ioannis
Kyprakis and Manolis Tsiknakis, under the MIT licence: https://github.com/GkikasStefanos/Tiny-BioMoE. How signals become
images (`preprocessor_config.json`) is the choice of tinymyo-hf: the authors have not published theirs.

```bibtex
{CITATION}
```
""",
            encoding="utf-8",
        )


CITATION = """@misc{tiny_biomoe,
  title={Tiny-BioMoE: a Lightweight Embedding Model for Biosignal Analysis},
  author={Stefanos Gkikas and Ioannis Kyprakis and Manolis Tsiknakis},
  year={2025}, eprint={2507.21875}, archivePrefix={arXiv}, primaryClass={cs.AI}
}"""
