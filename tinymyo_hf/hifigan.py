"""HiFi-GAN (Kong et al., 2020): loading a trained generator as a vocoder, and converting one.

It is the library's `SpeechT5HifiGan`, without its normalisation: the same computation as the original generator with
residual blocks of type "1", of which V1 (13,926,017 parameters, published as 13.92 M) is what the silent speech papers
use. `convert_hifigan` makes a folder for `load_hifigan` of the original checkpoint format.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from .audio import AUDIO_RATE, FFT_LENGTH, HOP_LENGTH, MEL_RANGE, NUM_MELS, check_log_mel
from .quiet import quiet
from .tinymyo.released_weights import ConversionError, check_empty, listed, read_tensors, write_folder
from .vocoder import VocoderError

# What the configuration of an original checkpoint has to say, where it says anything of it.
_SPECTRUM = {
    "num_mels": NUM_MELS,
    "sampling_rate": AUDIO_RATE,
    "hop_size": HOP_LENGTH,
    "n_fft": FFT_LENGTH,
    "win_size": FFT_LENGTH,
    "fmin": MEL_RANGE[0],
    "fmax": MEL_RANGE[1],
}
_STRUCTURE = (
    "upsample_rates",
    "upsample_kernel_sizes",
    "upsample_initial_channel",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
)
# Last part of the names of either weight normalisation of torch: of the direction, and of the magnitude it belongs to.
_DIRECTIONS = {"v": "g", "original1": "original0"}
_MAGNITUDES = tuple(_DIRECTIONS.values())


class HifiGan:
    """A trained generator; audio within [-1, 1].

    Args:
        model: made for this package's spectrum, see `load_vocoder`.
        name: of where it comes from.
    """

    def __init__(self, model: SpeechT5HifiGan, name: str) -> None:
        self.model = model.eval()
        self.name = f"HiFi-GAN {name}"
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())

    def __call__(self, log_mel: np.ndarray) -> np.ndarray:
        spectrum = torch.from_numpy(check_log_mel(log_mel)).to(self.model.device)
        with torch.inference_mode():
            return self.model(spectrum).float().cpu().numpy()


def load_hifigan(source: str | Path, device: str | torch.device = "cpu") -> HifiGan:
    """The generator of a folder or Hub id; arguments and errors as of `tinymyo_hf.vocoder.load_vocoder`."""
    where = _existing(str(source))  # a number, where a command line names a folder by one
    try:
        with quiet():
            config, _ = SpeechT5HifiGanConfig.get_config_dict(where)
            if not config:
                raise VocoderError(
                    f"{source}: no config.json; give the folder that `tinymyo convert` made of a HiFi-GAN generator"
                )
            if config.get("model_type") != SpeechT5HifiGanConfig.model_type:
                raise VocoderError(
                    f"{source}: config.json is of the type {config.get('model_type')!r}, not "
                    f"{SpeechT5HifiGanConfig.model_type!r}; give a HiFi-GAN of transformers' SpeechT5HifiGan, which "
                    "`tinymyo convert` makes of an original generator"
                )
            _check_config(str(source), config)
            model, report = SpeechT5HifiGan.from_pretrained(
                where, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        if not Path(where).is_dir():
            reason = f"no such folder here, and from the Hub: {reason}"
        raise VocoderError(
            f"{source}: cannot be loaded as a HiFi-GAN ({reason}); convert or download it again"
        ) from error
    of_other_shape = {name for name, *_ in report["mismatched_keys"]}
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"], *of_other_shape}):
        raise VocoderError(f"{source}: the weights are not those of config.json{listed('at fault', wrong)}")
    return HifiGan(model.to(device), str(source))


def _existing(source: str | Path) -> str:
    """A folder that is there, or what can be a Hub id."""
    if Path(source).is_dir():
        return str(source)
    try:
        validate_repo_id(str(source))
    except HFValidationError:
        raise VocoderError(f"{source}: no such folder; give that of a converted HiFi-GAN, or its Hub id") from None
    return str(source)


def _check_config(name: str, fields: dict[str, Any]) -> SpeechT5HifiGanConfig:
    """The configuration of these fields; `VocoderError` unless it takes this package's spectrum and makes its audio."""
    try:
        config = SpeechT5HifiGanConfig(**fields)
        hop = prod(config.upsample_rates)
        steps = list(zip(config.upsample_kernel_sizes, config.upsample_rates, strict=True))
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise VocoderError(f"{name}: not the configuration of a HiFi-GAN ({' '.join(str(error).split())})") from error
    for what, value, wanted in (
        ("mel bands", config.model_in_dim, NUM_MELS),
        ("samples a frame", hop, HOP_LENGTH),
        ("Hz of audio", config.sampling_rate, AUDIO_RATE),
    ):
        if value != wanted:
            raise VocoderError(
                f"{name}: made for {value:,} {what}, not {wanted:,}; give a HiFi-GAN for {NUM_MELS} bands every "
                f"{HOP_LENGTH} samples at {AUDIO_RATE:,} Hz"
            )
    if any(kernel < rate or (kernel - rate) % 2 for kernel, rate in steps):
        raise VocoderError(
            f"{name}: upsample_kernel_sizes={list(config.upsample_kernel_sizes)} must exceed upsample_rates="
            f"{list(config.upsample_rates)} by even numbers for a frame to become {HOP_LENGTH} samples"
        )
    return config


def is_hifigan_checkpoint(source: str | Path) -> bool:
    """Whether the weights in a file are named as those of the original HiFi-GAN; `ConversionError` if unreadable."""
    names = read_tensors(Path(source)).keys()
    return any(name.startswith("conv_pre.") for name in names) and any(name.startswith("ups.0.") for name in names)


def convert_hifigan(
    generator_file: str | Path, config_file: str | Path | None, out_folder: str | Path
) -> SpeechT5HifiGan:
    """Write an original generator as a folder that `load_vocoder` takes: weights in safetensors and a model card.

    The magnitudes and directions of weight normalisation are multiplied out. Made for the checkpoints of
    https://github.com/jik876/hifi-gan and the one of https://github.com/dgaddy/silent_speech (Zenodo 6747411,
    `hifigan_finetuned/checkpoint`), which was fine-tuned there on spectra predicted from EMG, from "UNIVERSAL_V1".

    Args:
        generator_file: a torch file of {"generator": state dict}, of which tensors alone are read, or .safetensors.
        config_file: its JSON configuration; None for `config.json` beside it.
        out_folder: must not exist, or be empty. It appears whole or not at all.

    Returns:
        The generator, in evaluation mode.

    Raises:
        ConversionError: unreadable or incomplete files, residual blocks of type "2" (V3), a generator for another
            spectrum, or occupied output.
    """
    source, out = Path(generator_file), Path(out_folder)
    check_empty(out)
    config_file = source.with_name("config.json") if config_file is None else Path(config_file)
    config = _converted_config(config_file)
    model = SpeechT5HifiGan(config)
    state = _without_weight_norm(source, read_tensors(source))
    statistics = {"mean": model.mean, "scale": model.scale}  # of the normalisation that is not used
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys() - statistics.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    if missing or unexpected or shapes:
        raise ConversionError(
            f"{source}: the weights are not those of {config_file}{listed('missing', missing)}"
            f"{listed('unexpected', unexpected)}{listed('shapes', shapes)}; give the configuration it was trained with"
        )
    model.load_state_dict(state | statistics)
    with quiet():
        write_folder(out, [model, _Card(source)])
    return model.eval()


def _converted_config(file: Path) -> SpeechT5HifiGanConfig:
    """The library's configuration of an original one."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConversionError(f"{file}: no such file; give the JSON configuration of the generator") from None
    except (ValueError, OSError) as error:
        raise ConversionError(f"{file}: not readable as JSON ({error}); download it again") from error
    if not isinstance(fields, dict) or (absent := [name for name in _STRUCTURE if name not in fields]):
        what = listed("missing", absent) if isinstance(fields, dict) else ""
        raise ConversionError(f"{file}: not the configuration of a HiFi-GAN generator{what}")
    if str(fields.get("resblock", "1")) != "1":
        raise ConversionError(
            f"{file}: residual blocks of type {fields['resblock']!r}, which SpeechT5HifiGan cannot express; give a "
            'generator of type "1" (V1, V2, UNIVERSAL_V1)'
        )
    other = [
        f"{name} {fields[name]}, not {value:g}"
        for name, value in _SPECTRUM.items()
        if name in fields and fields[name] != value
    ]
    if other:
        raise ConversionError(f"{file}: a generator for another spectrum{listed('made for', other)}")
    converted = {"model_in_dim": NUM_MELS, "sampling_rate": AUDIO_RATE, "leaky_relu_slope": 0.1}
    try:
        return _check_config(
            str(file), converted | {"normalize_before": False} | {name: fields[name] for name in _STRUCTURE}
        )
    except VocoderError as error:
        raise ConversionError(str(error)) from error


def _without_weight_norm(source: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by the library's names; where they were split, their directions (of the first dimension) scaled."""
    state = {}
    for name, tensor in tensors.items():
        stem, _, part = name.partition(".weight_")
        if not part:
            stem, _, part = name.partition(".parametrizations.weight.")
        if part in _MAGNITUDES:
            continue
        if part in _DIRECTIONS:
            magnitude = tensors.get(name.removesuffix(part) + _DIRECTIONS[part])
            if magnitude is None or magnitude.numel() != len(tensor):
                raise ConversionError(f"{source}: {name} has no magnitudes of its weight norm; download the file again")
            name, tensor = f"{stem}.weight", _scaled(tensor.float(), magnitude.float())
        state[f"upsampler.{name.removeprefix('ups.')}" if name.startswith("ups.") else name] = tensor.float()
    return state


def _scaled(direction: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    lengths = torch.linalg.vector_norm(direction.flatten(1), dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return direction * (magnitude.flatten() / lengths).reshape(-1, *[1] * (direction.ndim - 1))


class _Card:
    """README.md of a converted generator."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def save_pretrained(self, folder: Path) -> None:
        (folder / "README.md").write_text(
            f"""---
library_name: transformers
tags:
- vocoder
- hifi-gan
- silent-speech
---

# HiFi-GAN vocoder

A HiFi-GAN generator (Kong, Kim and Bae, 2020), converted from the original format (`{self.source.name}`) to
`SpeechT5HifiGan` of the library: weight normalisation multiplied out, nothing trained, nothing changed.

Input: natural logarithm of {NUM_MELS} mel bands ({MEL_RANGE[0]:g} to {MEL_RANGE[1]:g} Hz, Slaney's scale) of magnitude
spectra of {FFT_LENGTH} samples, every {HOP_LENGTH} samples. Output: audio at {AUDIO_RATE:,} Hz.

```python
from tinymyo_hf.audio import write_wav
from tinymyo_hf.vocoder import load_vocoder

vocoder = load_vocoder("path/to/this/folder")
write_wav("speech.wav", vocoder(log_mel))  # (frames, {NUM_MELS})
```

## Source and licence

The licence of these weights is that of the file they were converted from, which does not state it: look it up where
it was downloaded (https://doi.org/10.5281/zenodo.6747411 for the generator of
https://github.com/dgaddy/silent_speech, https://github.com/jik876/hifi-gan for the original ones), and name it here
before passing them on. A generator imitates the voices it was trained on: mind whose they are.
""",
            encoding="utf-8",
        )
