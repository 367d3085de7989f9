"""Small models of every head, with random weights that are far from their initial ones."""

import torch
from torch import nn

from tinymyo_hf import (
    SEMGTransformerConfig,
    SEMGTransformerForCTC,
    SEMGTransformerModel,
    TinyMyoConfig,
    TinyMyoForCTC,
    TinyMyoForFrameClassification,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoForSpeechSynthesis,
    TinyMyoModel,
)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SPEECH = {
    "stem": "residual",
    "norm_position": "post",
    "position_embedding_type": "relative",
    "max_relative_positions": 10,
    "num_channels": 8,
}


def _tinymyo(**fields):
    return TinyMyoConfig(**SMALL, **{"num_channels": 8, "regression_hidden_size": 24, **fields})


def _semg(**fields):
    return SEMGTransformerConfig(**SMALL, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **fields)


# How each is made, and lengths of windows that it takes.
MODELS = {
    "classification": (lambda: TinyMyoForSequenceClassification(_tinymyo(num_labels=6)), (20, 200, 420)),
    "classification_mean": (
        lambda: TinyMyoForSequenceClassification(
            _tinymyo(num_labels=6, channel_fusion="mean", position_embedding_type="none")
        ),
        (20, 200, 420),
    ),
    "regression": (lambda: TinyMyoForRegression(_tinymyo(num_labels=5)), (40, 200, 420)),
    "regression_of_length": (lambda: TinyMyoForRegression(_tinymyo(num_labels=5, target_length=50)), (40, 200, 420)),
    "events": (
        lambda: TinyMyoForFrameClassification(
            _tinymyo(num_channels=16, stem="convolution", is_causal=True, num_labels=9)
        ),
        (21, 200, 1003),
    ),
    "speech_recognition": (lambda: TinyMyoForCTC(_tinymyo(**SPEECH)), (8, 160, 804)),
    "speech_synthesis": (lambda: TinyMyoForSpeechSynthesis(_tinymyo(**SPEECH)), (8, 160, 804)),
    "encoder": (lambda: TinyMyoModel(_tinymyo()), (20, 200, 420)),
    "pretraining": (lambda: TinyMyoForPreTraining(_tinymyo()), (20, 200, 420)),
    "typing": (lambda: SEMGTransformerForCTC(_semg()), (1021, 2000, 4007)),
    "typing_streamable": (
        lambda: SEMGTransformerForCTC(_semg(input_norm="running", positional_conv_causal=True, attention_window=20)),
        (1021, 2000, 4007),
    ),
    "typing_encoder": (lambda: SEMGTransformerModel(_semg(do_stable_layer_norm=True)), (1021, 2000, 4007)),
}


def small_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return moved(MODELS[name][0]())


def moved(model: nn.Module) -> nn.Module:
    """The model itself, in evaluation mode, with weights moved away from their initial values."""
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases begin at 0, scales at 1: what is lost there would not show
            parameter.add_(0.05 * torch.randn_like(parameter))
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif buffer_name.endswith("running_mean"):
                buffer.normal_()
    return model


def inputs_of(model: nn.Module, batch: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    channels = model.config.num_channels
    inputs = {"input_values": torch.randn(batch, channels, length, generator=generator)}
    if type(model).__name__ == "TinyMyoForPreTraining":
        tokens = channels * length // model.config.patch_size
        inputs["bool_masked_pos"] = torch.rand(batch, tokens, generator=generator) < 0.5
    return inputs
