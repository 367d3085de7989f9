"""Released checkpoints of the models for speech (https://github.com/MatteoFasulo/silent_speech), as native models.

Files are state dicts of the model for synthesis (outputs `w_out` and `w_aux`) or for recognition (`w_out` alone). The
residual blocks are registered twice there: a file may hold either name of a weight, or both.
"""

from pathlib import Path

import torch

from tinymyo_hf.tinymyo.configuration_tinymyo import TINYMYO_PRESETS
from tinymyo_hf.tinymyo.modeling_tinymyo import TinyMyoPreTrainedModel
from tinymyo_hf.tinymyo.modeling_tinymyo_speech import TinyMyoForCTC, TinyMyoForSpeechSynthesis
from tinymyo_hf.tinymyo.released_weights import (
    ConversionError,
    build_model,
    check_dimensions,
    check_names,
    copy_weights,
    count_blocks,
    listed,
)

POSITIONS = "blocks.{i}.attn.relative_positional.embeddings"
# Reference name -> native name, of what has a weight and a bias.
STEM_BLOCK_NAMES = {
    "conv_blocks.{i}.conv1": "stem.blocks.{i}.conv1",
    "conv_blocks.{i}.conv2": "stem.blocks.{i}.conv2",
    "conv_blocks.{i}.residual_path": "stem.blocks.{i}.shortcut",
}
STEM_NORM_NAMES = {
    "conv_blocks.{i}.norm1": "stem.blocks.{i}.norm1",
    "conv_blocks.{i}.norm2": "stem.blocks.{i}.norm2",
    "conv_blocks.{i}.res_norm": "stem.blocks.{i}.shortcut_norm",
}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Second name -> first name, within a residual block.
ALIASES = {
    ".block.0.": ".conv1.",
    ".block.1.": ".norm1.",
    ".block.3.": ".conv2.",
    ".block.4.": ".norm2.",
    ".skip.0.": ".residual_path.",
    ".skip.1.": ".res_norm.",
}
# The keys that the configuration is read off, and how many dimensions they have.
SHAPE_GIVING_KEYS = {
    "conv_blocks.0.conv1.weight": 3,
    POSITIONS.format(i=0): 4,
    "blocks.0.mlp.fc1.weight": 2,
    "w_out.weight": 2,
    "w_aux.weight": 2,
}


def is_speech(tensors: dict[str, torch.Tensor]) -> bool:
    """Whether these are, as far as names tell, weights of a model for speech."""
    return any(key.startswith(("conv_blocks.", "w_raw_in.")) for key in tensors)


def load_speech_model(
    source: Path,
    tensors: dict[str, torch.Tensor],
    layer_names: dict[str, str],
    *,
    position_embedding_type: str | None,
    num_attention_heads: int | None,
    num_channels: int | None,
) -> TinyMyoPreTrainedModel:
    """The native model, in evaluation mode.

    Args:
        source: where the tensors are from, for messages.
        tensors: by their reference names.
        layer_names: reference name -> native name of the modules of a layer, {i} its index.
        position_embedding_type, num_attention_heads, num_channels: None, or what the weights tell.

    Raises:
        ConversionError: missing or unexpected keys, shapes that do not fit, or choices that the weights contradict.
    """
    tensors = _without_aliases(source, tensors)
    model_class = TinyMyoForSpeechSynthesis if any(key.startswith("w_aux.") for key in tensors) else TinyMyoForCTC
    names = _native_names(tensors, layer_names, model_class)
    counts = {key for key in names if key.endswith("num_batches_tracked")}  # the authors leave them out at times
    check_names(source, tensors.keys(), names.keys(), optional=counts)
    check_dimensions(source, tensors, SHAPE_GIVING_KEYS)
    fields = _fields_from_shapes(source, tensors, model_class)
    told = {
        "position_embedding_type": position_embedding_type,
        "num_attention_heads": num_attention_heads,
        "num_channels": num_channels,
    }
    wrong = [f"{name}={value}" for name, value in told.items() if value not in (None, fields[name])]
    if wrong:
        has = ", ".join(f"{name}={fields[name]}" for name in told)
        raise ConversionError(f"{source}: a model for speech with {has}, but {', '.join(wrong)}; leave that out")
    model = build_model(source, model_class, fields)
    state = {names[key]: tensor for key, tensor in tensors.items()}
    state |= {names[key]: torch.tensor(0) for key in counts - tensors.keys()}
    for i in range(fields["num_hidden_layers"]):
        key = names[POSITIONS.format(i=i)]
        state[key] = state[key].flatten(2)  # (heads, distances, head_dim, 1)
    copy_weights(source, model, state)
    return model.eval()


def _without_aliases(source: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = {}
    different = []
    for key, tensor in tensors.items():
        name = key
        if key.startswith("conv_blocks."):
            for alias, first in ALIASES.items():
                name = name.replace(alias, first)
        if name in result and not torch.equal(result[name], tensor):
            different.append(name)
        result[name] = tensor
    if different:
        raise ConversionError(
            f"{source}: holds weights twice, with different values{listed('of', sorted(different))}; check the file"
        )
    return result


def _native_names(
    tensors: dict[str, torch.Tensor], layer_names: dict[str, str], model_class: type[TinyMyoPreTrainedModel]
) -> dict[str, str]:
    """Every reference key that a checkpoint of this kind and these numbers of blocks has -> its native key."""
    stem_blocks, layers = count_blocks(tensors, "conv_blocks"), count_blocks(tensors, "blocks")
    modules = {"w_raw_in": "tinymyo.stem.projection"}
    for i in range(stem_blocks):
        stem = STEM_BLOCK_NAMES | STEM_NORM_NAMES
        modules |= {reference.format(i=i): f"tinymyo.{native.format(i=i)}" for reference, native in stem.items()}
    for i in range(layers):
        modules |= {reference.format(i=i): f"tinymyo.{native.format(i=i)}" for reference, native in layer_names.items()}
    if model_class is TinyMyoForCTC:
        modules |= {"w_out": "lm_head"}
    else:
        modules |= {"w_out": "spectrogram_head", "w_aux": "phoneme_head"}
    names = {
        f"{reference}.{kind}": f"{native}.{kind}"
        for reference, native in modules.items()
        for kind in ("weight", "bias")
    }
    for i in range(stem_blocks):
        for reference, native in STEM_NORM_NAMES.items():
            for kind in STATISTICS:
                names[f"{reference.format(i=i)}.{kind}"] = f"tinymyo.{native.format(i=i)}.{kind}"
    for i in range(layers):
        names[POSITIONS.format(i=i)] = f"tinymyo.layers.{i}.attention.relative_positions.weight"
    return names


def _fields_from_shapes(
    source: Path, tensors: dict[str, torch.Tensor], model_class: type[TinyMyoPreTrainedModel]
) -> dict[str, object]:
    hidden_size, num_channels, _ = tensors["conv_blocks.0.conv1.weight"].shape
    heads, distances, _, last = tensors[POSITIONS.format(i=0)].shape
    if distances % 2 == 0 or last != 1:
        raise ConversionError(
            f"{source}: {POSITIONS.format(i=0)} has shape {tuple(tensors[POSITIONS.format(i=0)].shape)} where (heads, "
            "2 * reach - 1, head size, 1) is expected; check that the file is of this model"
        )
    outputs = tensors["w_out.weight"].shape[0]
    if model_class is TinyMyoForCTC:
        fields = TINYMYO_PRESETS["tinymyo-gaddy-recognition"] | {"vocab_size": outputs, "pad_token_id": outputs - 1}
    else:
        phonemes = tensors["w_aux.weight"].shape[0]
        fields = TINYMYO_PRESETS["tinymyo-gaddy-synthesis"] | {"num_mel_bins": outputs, "num_phonemes": phonemes}
    return fields | {
        "hidden_size": hidden_size,
        "num_channels": num_channels,
        "num_stem_blocks": count_blocks(tensors, "conv_blocks"),
        "num_hidden_layers": count_blocks(tensors, "blocks"),
        "num_attention_heads": heads,
        "intermediate_size": tensors["blocks.0.mlp.fc1.weight"].shape[0],
        "max_relative_positions": (distances + 1) // 2,
    }
