"""Convert checkpoints of the released TinyMyo implementation to native ones.

`convert_checkpoint` writes a folder that `from_pretrained` loads; `measure_position_embeddings` tells which kind of
positions a checkpoint works with. Sources are safetensors or Lightning .ckpt files of the bare encoder, of the encoder
with one of its three heads, of the model for discrete gestures, or of one of the two for speech.
"""

from pathlib import Path

import numpy as np
import torch

from tinymyo_hf.audio import FRAME_RATE
from tinymyo_hf.recordings import read_recording
from tinymyo_hf.speech_text import SPEECH_CHARACTERS
from tinymyo_hf.tinymyo.configuration_tinymyo import NEUROMOTOR_GESTURES, TinyMyoConfig
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor
from tinymyo_hf.tinymyo.modeling_tinymyo import (
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoModel,
    TinyMyoPreTrainedModel,
)
from tinymyo_hf.tinymyo.modeling_tinymyo_frames import TinyMyoForFrameClassification
from tinymyo_hf.tinymyo.modeling_tinymyo_speech import TinyMyoForCTC, TinyMyoForSpeechSynthesis
from tinymyo_hf.tinymyo.released_normalizers import fold_normalizer, read_normalizer
from tinymyo_hf.tinymyo.released_speech_weights import is_speech, load_speech_model
from tinymyo_hf.tinymyo.released_weights import (
    ConversionError,
    build_model,
    check_dimensions,
    check_empty,
    check_names,
    copy_weights,
    count_blocks,
    read_tensors,
    write_folder,
)
from tinymyo_hf.tokenization import EmgCharacterTokenizer

# Reference name -> native name, of the encoder below `tinymyo.`.
LAYER_NAMES = {
    "blocks.{i}.norm1": "layers.{i}.norm1",
    "blocks.{i}.attn.qkv": "layers.{i}.attention.qkv",
    "blocks.{i}.attn.proj": "layers.{i}.attention.proj",
    "blocks.{i}.norm2": "layers.{i}.norm2",
    "blocks.{i}.mlp.fc1": "layers.{i}.mlp.fc1",
    "blocks.{i}.mlp.fc2": "layers.{i}.mlp.fc2",
}
PATCH_STEM_NAMES = {"patch_embedding.patch_embed.proj": "patch_embedding"}
CONVOLUTION_STEM_NAMES = {"conv_layer": "stem.convolution", "post_conv_layer_norm": "stem.norm"}
HEAD_NAMES = {
    TinyMyoForPreTraining: {"model_head.decoder_pred": "decoder"},
    TinyMyoForSequenceClassification: {"model_head.classifier": "classifier"},
    TinyMyoForRegression: {
        "model_head.regressor.0": "regressor.conv1",
        "model_head.regressor.3": "regressor.depthwise",
        "model_head.regressor.5": "regressor.conv2",
    },
    TinyMyoForFrameClassification: {"projection": "frame_classifier"},
    TinyMyoModel: {},
}
# The keys that the configuration is read off, and how many dimensions they have.
SHAPE_GIVING_KEYS = {
    "patch_embedding.patch_embed.proj.weight": 4,
    "blocks.0.mlp.fc1.weight": 2,
    "model_head.classifier.weight": 2,
    "model_head.regressor.0.weight": 3,
    "model_head.regressor.5.weight": 3,
    "conv_layer.weight": 3,
    "projection.weight": 2,
}


def convert_checkpoint(
    source: str | Path,
    output_dir: str | Path,
    *,
    position_embedding_type: str | None = None,
    num_attention_heads: int | None = None,
    num_channels: int | None = None,
    target_length: int | None = None,
    feature_extractor: TinyMyoFeatureExtractor | None = None,
    normalizers: str | Path | None = None,
) -> TinyMyoPreTrainedModel:
    """Write `source` to `output_dir` as a native checkpoint with its `preprocessor_config.json`, and for recognition of
    speech its tokenizer.

    Args:
        source: .safetensors, or a .ckpt / .pt / .pth / .bin of tensors (a Lightning checkpoint's `state_dict`).
        output_dir: must not exist, or be empty. It appears whole or not at all.
        position_embedding_type: "rope" (by default) or "none"; shapes do not tell (see
            `measure_position_embeddings`), except that the models for speech have "relative" ones.
        num_attention_heads: heads per block, 3 by default; shapes do not tell, except of the models for speech.
        num_channels: electrodes, where shapes do not tell (no head, pretraining, mean fusion; 16 by default).
        target_length: frames per window of a regression head; by default one per input sample.
        feature_extractor: what to save as preprocessing; by default `default_feature_extractor` of the model.
        normalizers: for synthesis of speech, the file normalizers.pkl of the released code: its models predict
            standardised spectra, and without it so does the result, which no vocoder understands.

    Returns:
        The converted model, in evaluation mode.

    Raises:
        ConversionError: unreadable source, missing or unexpected keys, shapes that do not fit, occupied output.
    """
    output_dir = Path(output_dir)
    check_empty(output_dir)
    model = load_reference_model(
        source,
        position_embedding_type=position_embedding_type,
        num_attention_heads=num_attention_heads,
        num_channels=num_channels,
        target_length=target_length,
    )
    if normalizers is not None:
        if not isinstance(model, TinyMyoForSpeechSynthesis):
            raise ConversionError(f"{source}: normalizers are for synthesis of speech; leave {normalizers} out")
        fold_normalizer(model, *read_normalizer(normalizers))
    feature_extractor = feature_extractor or default_feature_extractor(model)
    parts = [model, feature_extractor]
    if isinstance(model, TinyMyoForCTC) and model.config.vocab_size == len(SPEECH_CHARACTERS) + 1:
        parts.append(EmgCharacterTokenizer(characters=SPEECH_CHARACTERS))
    write_folder(output_dir, parts)
    return model


def load_reference_model(
    source: str | Path,
    *,
    position_embedding_type: str | None = None,
    num_attention_heads: int | None = None,
    num_channels: int | None = None,
    target_length: int | None = None,
) -> TinyMyoPreTrainedModel:
    """The native model of a reference checkpoint, in evaluation mode; arguments as in `convert_checkpoint`."""
    source = Path(source)
    tensors = read_tensors(source)
    if is_speech(tensors):
        return load_speech_model(
            source,
            tensors,
            LAYER_NAMES,
            position_embedding_type=position_embedding_type,
            num_attention_heads=num_attention_heads,
            num_channels=num_channels,
        )
    model_class = _head_of(source, tensors)
    names = _native_names(tensors, model_class)
    optional = set() if model_class is TinyMyoForPreTraining else {"mask_token"}  # used in pretraining only
    check_names(source, tensors.keys(), names.keys(), optional)
    fields = _fields_from_shapes(source, tensors, model_class, num_channels)
    fields |= {
        "position_embedding_type": position_embedding_type or "rope",
        "num_attention_heads": num_attention_heads or 3,
        "target_length": target_length,
    }
    model = build_model(source, model_class, fields)
    state = {names[key]: tensor for key, tensor in tensors.items() if key in names}
    copy_weights(source, model, _without_unit_axes(model, state))
    return model.eval()


def default_feature_extractor(model: TinyMyoPreTrainedModel) -> TinyMyoFeatureExtractor:
    """Preprocessing as published. Window and rate are not in a checkpoint: these are the published ones.

    Pretraining and the bare encoder: 2 kHz, 20-450 Hz, min-max per window. Classification and regression: 200 Hz,
    20-90 Hz, z-score per recording. Windows of 50 patches (1000 samples). Discrete gestures: 2 kHz as recorded, in the
    units of the corpus (the model compresses them itself), windows of 8 s every 2 s. Speech: as the released code has
    it, from 1 kHz to 689.0625 Hz, above 2 Hz without the harmonics of 60 Hz, in units of 20 uV and softly limited;
    pieces of 1600 samples.
    """
    patch_size = model.config.patch_size
    if isinstance(model, (TinyMyoForPreTraining, TinyMyoModel)):
        return _pretraining_feature_extractor(2000, patch_size)
    if isinstance(model, TinyMyoForFrameClassification):
        return _neuromotor_feature_extractor(model.config)
    if isinstance(model, (TinyMyoForCTC, TinyMyoForSpeechSynthesis)):
        return _speech_feature_extractor(model.config)
    channels = model.config.num_channels if model.config.channel_fusion == "concat" else None
    return TinyMyoFeatureExtractor(
        feature_size=channels, window_length=50 * patch_size, stride=25 * patch_size, patch_size=patch_size
    )


def measure_position_embeddings(
    source: str | Path,
    recording: str | Path | np.ndarray,
    *,
    sampling_rate: float | None = None,
    num_attention_heads: int | None = None,
    max_windows: int = 64,
    seed: int = 0,
    **read_options,
) -> dict[str, float]:
    """Masked reconstruction loss of a pretraining checkpoint on a recording, under both kinds of positions.

    The kind that a checkpoint was trained with gives the lower loss.

    Args:
        source: a reference checkpoint with the pretraining head.
        recording: a file (see `tinymyo_hf.recordings.read_recording`, which gets `read_options`) or an array
            (channels, time).
        sampling_rate: Hz, where the file does not state it.
        num_attention_heads: as in `convert_checkpoint`.
        max_windows: at most this many windows, evenly spread over the recording.
        seed: of the masks, which are the same for both kinds.

    Returns:
        {"rope": loss, "none": loss}: smooth L1 over masked tokens, input min-max normalised per window.
    """
    name = "recording"
    if isinstance(recording, (str, Path)):
        name = str(recording)
        read = read_recording(recording, sampling_rate=sampling_rate, **read_options)
        recording, sampling_rate = read.signal, read.sampling_rate
    if sampling_rate is None:
        raise ConversionError(f"{name}: its sampling rate is not known; pass sampling_rate (in Hz)")
    losses = {}
    for kind in ("rope", "none"):
        model = load_reference_model(source, position_embedding_type=kind, num_attention_heads=num_attention_heads)
        if not isinstance(model, TinyMyoForPreTraining):
            raise ConversionError(f"{source}: has no pretraining head, without which no reconstruction can be measured")
        extractor = _pretraining_feature_extractor(sampling_rate, model.config.patch_size)
        windows, _ = extractor.windows(extractor.preprocess(recording, sampling_rate, name))
        chosen = np.linspace(0, len(windows) - 1, min(max_windows, len(windows))).astype(int)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            one_by_one = [
                model(torch.from_numpy(window)[None], generator=generator).masked_loss.item()
                for window in windows[chosen]
            ]
        losses[kind] = float(np.mean(one_by_one))
    return losses


def _pretraining_feature_extractor(sampling_rate: float, patch_size: int) -> TinyMyoFeatureExtractor:
    nyquist = sampling_rate / 2
    return TinyMyoFeatureExtractor(
        sampling_rate=sampling_rate,
        band_pass=(20.0, min(450.0, 0.9 * nyquist)) if nyquist > 25 else None,
        notch_frequencies=(50.0,) if nyquist > 50 else (),
        normalization="minmax",
        normalization_scope="window",
        window_length=50 * patch_size,
        stride=25 * patch_size,
        patch_size=patch_size,
    )


def _neuromotor_feature_extractor(config: TinyMyoConfig) -> TinyMyoFeatureExtractor:
    return TinyMyoFeatureExtractor(
        feature_size=config.num_channels,
        sampling_rate=2000,
        band_pass=None,
        notch_frequencies=(),
        filter_mode="causal",
        normalization="none",
        window_length=1600 * config.stem_stride,
        stride=400 * config.stem_stride,
        patch_size=config.stem_stride,
    )


def _speech_feature_extractor(config: TinyMyoConfig) -> TinyMyoFeatureExtractor:
    return TinyMyoFeatureExtractor(
        feature_size=config.num_channels,
        sampling_rate=FRAME_RATE * config.frame_stride,
        filter_rate=1000,
        resampling="linear",
        band_pass=(2.0, None),
        band_pass_order=3,
        notch_frequencies=tuple(60.0 * k for k in range(1, 8)),
        gain=1 / 20,
        soft_limit=50.0,
        normalization="none",
        window_length=200 * config.frame_stride,
        stride=200 * config.frame_stride,
        patch_size=config.frame_stride,
    )


def _head_of(source: Path, tensors: dict[str, torch.Tensor]) -> type[TinyMyoPreTrainedModel]:
    found = [
        model_class
        for model_class, names in HEAD_NAMES.items()
        if any(key.startswith(tuple(f"{name}." for name in names)) for key in tensors)
    ]
    if not found and any(key.startswith(tuple(f"{name}." for name in CONVOLUTION_STEM_NAMES)) for key in tensors):
        return TinyMyoForFrameClassification  # without its head: what is missing gets named
    if len(found) > 1:
        raise ConversionError(f"{source}: has several heads ({', '.join(c.__name__ for c in found)}); keep one of them")
    return found[0] if found else TinyMyoModel


def _native_names(tensors: dict[str, torch.Tensor], model_class: type[TinyMyoPreTrainedModel]) -> dict[str, str]:
    """Every reference key that a checkpoint with this head and number of blocks has -> its native key."""
    prefix = "" if model_class is TinyMyoModel else "tinymyo."
    stem = CONVOLUTION_STEM_NAMES if model_class is TinyMyoForFrameClassification else PATCH_STEM_NAMES
    encoder = {reference: prefix + native for reference, native in (stem | LAYER_NAMES | {"norm": "norm"}).items()}
    modules = encoder | HEAD_NAMES[model_class]
    names = {}
    for reference, native in modules.items():
        for i in range(count_blocks(tensors, "blocks") if "{i}" in reference else 1):
            for kind in ("weight", "bias"):
                names[f"{reference.format(i=i)}.{kind}"] = f"{native.format(i=i)}.{kind}"
    if model_class is TinyMyoForPreTraining:
        names["mask_token"] = "mask_token"
    return names


def _fields_from_shapes(
    source: Path,
    tensors: dict[str, torch.Tensor],
    model_class: type[TinyMyoPreTrainedModel],
    num_channels: int | None,
) -> dict[str, object]:
    check_dimensions(source, tensors, SHAPE_GIVING_KEYS)
    fields = {
        "num_hidden_layers": count_blocks(tensors, "blocks"),
        "intermediate_size": tensors["blocks.0.mlp.fc1.weight"].shape[0],
    }
    if model_class is TinyMyoForFrameClassification:
        return fields | _frame_fields(source, tensors, num_channels)
    patch = tensors["patch_embedding.patch_embed.proj.weight"]
    hidden_size = patch.shape[0]
    fields |= {"hidden_size": hidden_size, "patch_size": patch.shape[-1]}
    features = None
    if model_class is TinyMyoForSequenceClassification:
        fields["num_labels"], features = tensors["model_head.classifier.weight"].shape
    elif model_class is TinyMyoForRegression:
        fields["num_labels"] = tensors["model_head.regressor.5.weight"].shape[0]
        fields["regression_hidden_size"], features = tensors["model_head.regressor.0.weight"].shape[:2]
    if features is not None and features != hidden_size:
        channels, rest = divmod(features, hidden_size)
        if rest or num_channels not in (None, channels):
            raise ConversionError(
                f"{source}: the head takes {features} features, that is {features / hidden_size:g} channels of "
                f"hidden_size {hidden_size}, but num_channels={num_channels}; leave num_channels out, or check the file"
            )
        num_channels = channels
    elif features is not None:
        fields["channel_fusion"] = "mean"
    if num_channels is not None:
        fields["num_channels"] = num_channels
    return fields


def _frame_fields(source: Path, tensors: dict[str, torch.Tensor], num_channels: int | None) -> dict[str, object]:
    hidden_size, channels, kernel_size = tensors["conv_layer.weight"].shape
    if num_channels not in (None, channels):
        raise ConversionError(
            f"{source}: its convolution takes {channels} channels, but num_channels={num_channels}; leave it out"
        )
    num_labels = tensors["projection.weight"].shape[0]
    fields = {"hidden_size": hidden_size, "num_channels": channels, "stem_kernel_size": kernel_size}
    fields |= {"stem": "convolution", "is_causal": True, "num_labels": num_labels}
    if num_labels == len(NEUROMOTOR_GESTURES):
        fields["id2label"] = dict(enumerate(NEUROMOTOR_GESTURES))
        fields["label2id"] = {gesture: index for index, gesture in enumerate(NEUROMOTOR_GESTURES)}
        del fields["num_labels"]
    return fields


def _without_unit_axes(model: TinyMyoPreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A convolution over one patch and the mask token have axes of length 1 that ours do not."""
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    return {
        key: tensor.reshape(shapes[key])
        if (key == "mask_token" or key.endswith("patch_embedding.weight")) and tensor.numel() == shapes[key].numel()
        else tensor
        for key, tensor in state.items()
    }
