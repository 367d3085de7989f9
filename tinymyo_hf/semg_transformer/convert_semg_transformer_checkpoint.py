"""Convert checkpoints of a `Wav2Vec2ForCTC` over the channels of two wristbands to native ones.

That is how the published parameter counts come about ("Scaling and Distilling Transformer Models for sEMG", Tables 11
and 12): weights by the library's names, the positional convolution's split by either of its weight norms. A checkpoint
that does not match name by name and shape by shape is refused.
"""

import re
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.tinymyo.released_weights import ConversionError, check_empty, listed, read_tensors, write_folder
from tinymyo_hf.tokenization import EmgCharacterTokenizer

FIRST_WEIGHT = "feature_extractor.conv_layers.0.conv.weight"
POSITIONAL_NAMES = {
    "weight_g": "magnitude",
    "weight_v": "direction",
    "parametrizations.weight.original0": "magnitude",
    "parametrizations.weight.original1": "direction",
}


def is_semg_checkpoint(source: str | Path) -> bool:
    """Whether the weights in a file are named as those of Wav2Vec2; `ConversionError` if it cannot be read."""
    return any(name.endswith(FIRST_WEIGHT) for name in read_tensors(Path(source)))


def convert_semg_checkpoint(
    source: str | Path,
    output_dir: str | Path,
    *,
    num_attention_heads: int = 16,
    do_stable_layer_norm: bool = False,
) -> SEMGTransformerForCTC:
    """Write `source` to `output_dir` as a native checkpoint with its preprocessing and, of 99 tokens, its tokenizer.

    Args:
        source: .safetensors, or a .ckpt / .pt / .pth / .bin of tensors, with the CTC head `lm_head`.
        output_dir: must not exist, or be empty. It appears whole or not at all.
        num_attention_heads: heads per block; shapes do not tell.
        do_stable_layer_norm: whether norms come before the sublayers; shapes do not tell.

    Returns:
        The converted model, in evaluation mode. Its blank is the last token.

    Raises:
        ConversionError: unreadable source, missing or unexpected weights, shapes that do not fit, occupied output.
    """
    check_empty(Path(output_dir))
    source = Path(source)
    state = _native_names(source, read_tensors(source))
    config = _config_of(source, state, num_attention_heads, do_stable_layer_norm)
    model = SEMGTransformerForCTC(config)
    wanted = model.state_dict()
    wrong = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if tensor.shape != wanted[name].shape
    ]
    if wrong:
        raise ConversionError(f"{source}: shapes that do not fit together{listed('in', wrong)}; check the file")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    channels = config.num_channels
    bands = [channels] if channels % 2 else [channels // 2, channels // 2]
    parts = [model.eval(), SEMGTransformerFeatureExtractor(num_channels=channels, bands=bands)]
    tokenizer = EmgCharacterTokenizer()
    write_folder(Path(output_dir), [*parts, tokenizer] if len(tokenizer) == config.vocab_size else parts)
    return model


def _native_names(source: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors by native names, which are all those of a model but the stored statistics."""
    prefix = next((name.removesuffix(FIRST_WEIGHT) for name in tensors if name.endswith(FIRST_WEIGHT)), "")
    state = {}
    for name, tensor in tensors.items():
        start, dot, rest = name.rpartition("pos_conv_embed.conv.")
        native = start + dot + POSITIONAL_NAMES.get(rest, rest)
        head = re.fullmatch(r"(?:\w+\.)*(lm_head\.\w+)", native)
        state[head[1] if head else f"semg_transformer.{native.removeprefix(prefix)}"] = tensor
    layers = [
        int(match[1]) for name in state if (match := re.match(r"semg_transformer\.encoder\.layers\.(\d+)\.", name))
    ]
    with torch.device("meta"):
        model = SEMGTransformerForCTC(SEMGTransformerConfig(num_hidden_layers=max(layers, default=0) + 1))
    statistics = {"running_mean", "running_var"}
    wanted = {n: t.ndim for n, t in model.state_dict().items() if n.rpartition(".")[2] not in statistics}
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected or len(state) != len(tensors):
        raise ConversionError(
            f"{source}: the weights are not those of a Wav2Vec2ForCTC over EMG{listed('missing', missing)}"
            f"{listed('unexpected', unexpected)}; check that the file is complete and of this model"
        )
    flat = [f"{name} of {state[name].ndim} dimensions" for name, ndim in wanted.items() if state[name].ndim != ndim]
    if flat:
        raise ConversionError(f"{source}: shapes that do not fit{listed('in', flat)}; check the file")
    return state


def _config_of(
    source: Path, state: dict[str, torch.Tensor], num_attention_heads: int, do_stable_layer_norm: bool
) -> SEMGTransformerConfig:
    shapes = {name.removeprefix("semg_transformer."): tuple(tensor.shape) for name, tensor in state.items()}
    hidden_size = shapes["feature_projection.projection.weight"][0]
    of_group, kernel = shapes["encoder.pos_conv_embed.conv.direction"][1:]
    vocab_size = shapes["lm_head.weight"][0]
    try:
        return SEMGTransformerConfig(
            num_channels=shapes[FIRST_WEIGHT][1],
            conv_dim=[shapes[f"feature_extractor.conv_layers.{layer}.conv.weight"][0] for layer in range(3)],
            hidden_size=hidden_size,
            num_hidden_layers=sum(name.endswith("attention.q_proj.weight") for name in shapes),
            num_attention_heads=num_attention_heads,
            intermediate_size=shapes["encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
            num_conv_pos_embeddings=kernel,
            num_conv_pos_embedding_groups=hidden_size // max(of_group, 1),
            do_stable_layer_norm=do_stable_layer_norm,
            vocab_size=vocab_size,
            pad_token_id=vocab_size - 1,
        )
    except StrictDataclassError as error:
        raise ConversionError(f"{source}: {error}") from error
