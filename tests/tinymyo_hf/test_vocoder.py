"""HiFi-GAN by the library's class against the original generator, stated independently, and its conversion."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig
from typer.testing import CliRunner

from tinymyo_hf.audio import griffin_lim
from tinymyo_hf.cli import app
from tinymyo_hf.hifigan import convert_hifigan
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tinymyo.released_weights import ConversionError
from tinymyo_hf.vocoder import VocoderError, load_vocoder

V1 = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
    "segment_size": 8192,
}
SMALL = V1 | {"upsample_initial_channel": 32}


class Generator(nn.Module):
    """The generator of the HiFi-GAN paper (section 2.2 and appendix A.1), with weight normalisation throughout."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        width = config["upsample_initial_channel"]
        self.conv_pre = normalized(nn.Conv1d(80, width, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True):
            self.ups.append(normalized(nn.ConvTranspose1d(width, width // 2, kernel, rate, (kernel - rate) // 2)))
            width //= 2
            for size, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
                block = nn.Module()
                block.convs1 = nn.ModuleList(normalized(convolution(width, size, dilation)) for dilation in dilations)
                block.convs2 = nn.ModuleList(normalized(convolution(width, size, 1)) for _ in dilations)
                self.resblocks.append(block)
        self.conv_post = normalized(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 80, frames) -> (batch, 1, samples)."""
        x = self.conv_pre(x)
        per_stage = len(self.resblocks) // len(self.ups)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            outputs = []
            for block in self.resblocks[i * per_stage : (i + 1) * per_stage]:
                y = x
                for first, second in zip(block.convs1, block.convs2, strict=True):
                    y = y + second(F.leaky_relu(first(F.leaky_relu(y, 0.1)), 0.1))
                outputs.append(y)
            x = torch.stack(outputs).mean(0)
        return torch.tanh(self.conv_post(F.leaky_relu(x, 0.01)))


def convolution(width: int, size: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(width, width, size, dilation=dilation, padding=dilation * (size - 1) // 2)


def normalized(layer: nn.Module) -> nn.Module:
    return parametrizations.weight_norm(layer, dim=0)


def released(generator: Generator) -> dict[str, torch.Tensor]:
    """The state dict by the names of torch's first weight normalisation, which released files have."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, tensor in generator.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = tensor
    return state


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(SMALL).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith("original0"):  # magnitudes apart from those of the directions, and audio that is not silence
            parameter.data *= 2 + torch.rand_like(parameter)
    return generator


@pytest.fixture
def files(tmp_path, generator):
    """A generator as it is released: a file without suffix, its configuration beside it."""
    folder = tmp_path / "hifigan_finetuned"
    folder.mkdir()
    torch.save({"generator": released(generator)}, folder / "checkpoint")
    (folder / "config.json").write_text(json.dumps(SMALL))
    return folder


def test_converted_generator_makes_the_same_audio(files, generator, tmp_path):
    spectrum = torch.randn(9, 80)
    with torch.no_grad():
        expected = generator(spectrum.T[None])[0, 0].numpy()
    assert expected.std() > 0.01
    convert_hifigan(files / "checkpoint", None, tmp_path / "old names")
    torch.save({"generator": generator.state_dict()}, tmp_path / "g_00000001.pt")
    convert_hifigan(tmp_path / "g_00000001.pt", files / "config.json", tmp_path / "new names")
    for folder in (tmp_path / "old names", tmp_path / "new names"):
        vocoder = load_vocoder(folder)
        audio = vocoder(spectrum.numpy())
        assert audio.shape == (9 * 256,) and audio.dtype == np.float32
        np.testing.assert_allclose(audio, expected, atol=1e-5)
        assert "old names" in vocoder.name or "new names" in vocoder.name
        assert {"config.json", "model.safetensors", "README.md"} <= {path.name for path in folder.iterdir()}
        card = (folder / "README.md").read_text()
        assert "zenodo.6747411" in card and "licence" in card


def test_published_size_of_v1():
    model = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(**{k: v for k, v in V1.items() if k.startswith(("ups", "resblock_"))})
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 13_926_017  # published as 13.92 M, that is without rounding up
    magnitudes = sum(p.numel() for name, p in Generator(V1).named_parameters() if name.endswith("original0"))
    assert sum(p.numel() for p in Generator(V1).parameters()) == count + magnitudes


def test_command(files, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["convert", str(files / "checkpoint"), str(out)])
    assert result.exit_code == 0 and "SpeechT5HifiGan with" in result.stdout, result.output
    assert load_vocoder(str(out)).num_parameters > 0
    refused = CliRunner().invoke(
        app, ["convert", str(files / "checkpoint"), str(tmp_path / "b"), "--num-channels", "8"]
    )
    assert refused.exit_code == 2 and "a HiFi-GAN checkpoint, which --num-channels is not for" in refused.output
    assert not (tmp_path / "b").exists()


def test_without_a_network():
    spectrum = np.random.default_rng(0).normal(-5, 1, (4, 80))
    vocoder = load_vocoder()
    np.testing.assert_array_equal(vocoder(spectrum), griffin_lim(spectrum))
    assert (vocoder.name, vocoder.num_parameters) == ("Griffin-Lim", 0)


def test_conversion_refuses_what_it_cannot_express(files, tmp_path, generator):
    state = released(generator)
    without = {name: tensor for name, tensor in state.items() if name != "ups.1.weight_g"}
    cut = {name: tensor for name, tensor in state.items() if not name.startswith("resblocks.11.")}
    for message, weights, config in (
        ("cannot express", state, SMALL | {"resblock": "2"}),
        ("made for: sampling_rate 16000, not 22050", state, SMALL | {"sampling_rate": 16000}),
        ("made for: num_mels 100, not 80", state, SMALL | {"num_mels": 100}),
        ("samples a frame, not 256", state, SMALL | {"upsample_rates": [8, 8, 2, 4]}),
        ("not the configuration of a HiFi-GAN .*upsample_rates", state, SMALL | {"upsample_rates": "8822"}),
        ("not the configuration of a HiFi-GAN", state, SMALL | {"upsample_rates": [16, 16]}),
        ("by even numbers", state, SMALL | {"upsample_kernel_sizes": [16, 16, 5, 4]}),
        ("missing: upsample_rates", state, {name: v for name, v in SMALL.items() if name != "upsample_rates"}),
        (
            r"shapes: .*conv_pre.weight \(32, 80, 7\) instead of \(64, 80, 7\)",
            state,
            V1 | {"upsample_initial_channel": 64},
        ),
        (r"ups.1.weight_v has no magnitudes", without, SMALL),
        (r"missing: resblocks.11.convs1.0.bias", cut, SMALL),
        (r"unexpected: other", state | {"other": torch.zeros(2)}, SMALL),
        ("holds no state dict", {}, SMALL),
    ):
        torch.save({"generator": weights}, files / "checkpoint")
        (files / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConversionError, match=message):
            convert_hifigan(files / "checkpoint", None, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (files / "config.json").write_text("{")
    with pytest.raises(ConversionError, match=r"config\.json: not readable as JSON"):
        convert_hifigan(files / "checkpoint", None, tmp_path / "out")
    (files / "config.json").unlink()
    with pytest.raises(ConversionError, match=r"config\.json: no such file"):
        convert_hifigan(files / "checkpoint", None, tmp_path / "out")
    (files / "checkpoint").write_bytes(b"cut")
    (files / "config.json").write_text(json.dumps(SMALL))
    with pytest.raises(ConversionError, match="cannot be read as tensors alone"):
        convert_hifigan(files / "checkpoint", None, tmp_path / "out")


def test_loading_refuses_what_does_not_fit(files, tmp_path):
    out = tmp_path / "out"
    convert_hifigan(files / "checkpoint", None, out)
    good = json.loads((out / "config.json").read_text())
    for message, change in (
        ("made for 128 mel bands, not 80", {"model_in_dim": 128}),
        ("made for 512 samples a frame, not 256", {"upsample_rates": [8, 8, 2, 4]}),
        ("made for 16,000 Hz of audio, not 22,050", {"sampling_rate": 16000}),
        ("of the type 'wav2vec2'", {"model_type": "wav2vec2"}),
        ("at fault: conv_post.weight, conv_pre.bias", {"upsample_initial_channel": 64}),
        ("at fault: resblocks.0.convs1.2", {"resblock_dilation_sizes": [[1, 3]] * 3}),
    ):
        (out / "config.json").write_text(json.dumps(good | change))
        with pytest.raises(VocoderError, match=message):
            load_vocoder(out)
    (out / "config.json").write_text(json.dumps(good))
    with pytest.raises(SignalError, match=r"\(frames, 80\)"):
        load_vocoder(out)(np.zeros((80, 7)))
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(VocoderError, match="cannot be loaded"):
        load_vocoder(out)
    (out / "model.safetensors").unlink()
    with pytest.raises(VocoderError, match="cannot be loaded"):
        load_vocoder(out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VocoderError, match="empty: no config.json; give the folder that `tinymyo convert`"):
        load_vocoder(tmp_path / "empty")
    for missing, message in (
        (tmp_path / "absent", "no such folder"),
        ("nobody/absent", r"cannot be loaded as a HiFi-GAN \(no such folder here"),
    ):
        with pytest.raises(VocoderError, match=message):
            load_vocoder(missing)
