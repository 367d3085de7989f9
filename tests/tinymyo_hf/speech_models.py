"""Small models for speech with random weights, utterances of noise, and what they are trained on."""

import itertools

import torch

from tinymyo_hf import TinyMyoConfig, TinyMyoForCTC, TinyMyoForSpeechSynthesis, TinyMyoModel

MODELS = [TinyMyoModel, TinyMyoForCTC, TinyMyoForSpeechSynthesis]
HEADS = MODELS[1:]
SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 48, "num_channels": 4,
    "vocab_size": 6, "num_mel_bins": 7, "num_phonemes": 5,
}  # fmt: skip
SPEECH = {"stem": "residual", "norm_position": "post", "position_embedding_type": "relative", "drop_path_rate": 0.0}
PRE_NORM = {"norm_position": "pre", "position_embedding_type": "rope"}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS = {"as_released": {}, "pre_norm": PRE_NORM}
LENGTH, FRAMES = 130, 17


def build(model_class=TinyMyoForCTC, seed: int = 0, **changes):
    """A model whose zero biases, unit norms and fresh statistics are perturbed, so that they hide nothing."""
    torch.manual_seed(seed)
    model = model_class(TinyMyoConfig(**SMALL | SPEECH | changes)).eval()
    with torch.no_grad():
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            if tensor.ndim == 1 and "inv_freq" not in name:
                tensor.add_(0.2 * torch.rand_like(tensor))
    return model


def utterances(batch: int = 2, length: int = LENGTH, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, 4, length, generator=torch.Generator().manual_seed(seed))


def padded(signals: list[torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """Utterances (1, channels, time) as one batch of this length, what is behind them garbage."""
    batch = torch.full((len(signals), signals[0].shape[1], length), float("nan"))
    mask = torch.zeros(len(signals), length, dtype=torch.long)
    for i, signal in enumerate(signals):
        batch[i, :, : signal.shape[2]] = signal[0]
        mask[i, : signal.shape[2]] = 1
    return {"input_values": batch, "attention_mask": mask}


def targets(model, batch: int = 2, frames: int = FRAMES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    if isinstance(model, TinyMyoForCTC):
        return {"labels": torch.randint(5, (batch, 4), generator=generator)}
    if isinstance(model, TinyMyoForSpeechSynthesis):
        return {
            "labels": torch.randn(batch, frames, 7, generator=generator),
            "phoneme_labels": torch.randint(5, (batch, frames), generator=generator),
        }
    return {}


def run(model, *args, **kwargs) -> torch.Tensor:
    """(batch, frames, outputs): all that a model says of each frame."""
    output = model(*args, **kwargs)
    names = ("last_hidden_state", "logits", "spectrogram", "phoneme_logits")
    return torch.cat([output[name] for name in names if name in output], dim=-1)
