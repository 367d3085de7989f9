"""Multiply-accumulate operations: hand-worked, as published, and as torch counts them."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PretrainedConfig, PreTrainedModel

import tinymyo_hf
from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig, count_macs

PUBLISHED = {  # samples and GMAC
    "tinymyo-base": (1000, 4.811),
    "tinymyo-ninapro-db5": (1000, 4.808),
    "tinymyo-uci-emg": (1000, 1.912),
    "tinymyo-ninapro-db8": (1000, 4.847),
    "tinymyo-neuromotor": (16_000, 13.62),
    "tinymyo-gaddy-synthesis": (1600, 1.0956),
    "tinymyo-gaddy-recognition": (1600, 1.0921),
}


def preset_model(preset: str, **changes):
    config = TinyMyoConfig(**TINYMYO_PRESETS[preset] | changes)
    with torch.device("meta"):
        return getattr(tinymyo_hf, config.architectures[0])(config)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_cost_what_is_published(preset):
    samples, published = PUBLISHED[preset]
    model = preset_model(preset)
    counts = count_macs(model, (1, model.config.num_channels, samples))
    # Published figures of speech leave out the products of queries and relative positions.
    positions = sum(count for name, count in counts.items() if name.endswith("relative_positions"))
    assert (counts["total"] - positions) / 1e9 == pytest.approx(published, rel=0.005)
    assert all(isinstance(count, int) for count in counts.values())


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("preset", PUBLISHED)
def test_counts_equal_those_of_torch(preset, implementation):
    model = preset_model(preset, num_hidden_layers=2)
    model.set_attn_implementation(implementation)
    shape = (3, model.config.num_channels, 400)
    with FlopCounterMode(display=False) as torch_counter:
        model(torch.empty(shape, device="meta"))
    counts = count_macs(model, shape)
    assert 2 * counts["total"] == torch_counter.get_total_flops()


def test_every_module_counts_what_is_inside_it():
    model = preset_model("tinymyo-neuromotor", num_hidden_layers=2)
    counts = count_macs(model, (1, 16, 521))  # 51 frames
    assert counts["tinymyo.stem.convolution"] == 51 * 21 * 16 * 192
    assert counts["tinymyo.layers.1.mlp.fc1"] == 51 * 192 * 768
    products_of_attention = 2 * 51 * 51 * 192
    assert counts["tinymyo.layers.0.attention"] == 51 * 192 * 4 * 192 + products_of_attention
    assert counts["tinymyo.layers.0"] == counts["tinymyo.layers.1"] == counts["tinymyo.layers"] / 2
    assert counts["frame_classifier"] == 51 * 192 * 9
    assert counts["total"] == counts["tinymyo"] + counts["frame_classifier"]
    assert "tinymyo.norm" not in counts


def test_model_for_speech_by_hand():
    counts = count_macs(preset_model("tinymyo-gaddy-synthesis"), (1, 8, 1600))
    first = 800 * 192 * (8 * 3 + 192 * 3 + 8)
    others = (400 + 200) * 192 * (192 * 3 + 192 * 3 + 192)
    assert counts["tinymyo.stem"] == first + others + 200 * 192 * 192
    distances = 199  # of every query, whether a frame is there or not
    assert counts["tinymyo.layers.3.attention.relative_positions"] == 200 * distances * 192
    layer = 200 * 192 * (4 * 192 + 2 * 768) + 2 * 200 * 200 * 192 + 200 * distances * 192
    assert counts["tinymyo.layers"] == 8 * layer
    assert counts["total"] == counts["tinymyo.stem"] + 8 * layer + 200 * 192 * (80 + 48)


class Convolutions(PreTrainedModel):
    config_class = PretrainedConfig
    main_input_name = "signal"

    def __init__(self):
        super().__init__(PretrainedConfig())
        self.depthwise = nn.Conv1d(6, 6, kernel_size=3, padding=1, groups=6)
        self.image = nn.Conv2d(1, 4, kernel_size=(3, 5))
        self.transposed = nn.ConvTranspose1d(6, 2, kernel_size=4, stride=2)

    def forward(self, signal):  # (batch, 6, time)
        frames = self.depthwise(signal)
        return self.image(frames[:, None]), self.transposed(frames), signal @ signal.transpose(1, 2)


def test_convolutions_by_hand_without_touching_the_model():
    model = Convolutions().train()
    counts = count_macs(model, (2, 6, 20))
    assert counts["depthwise"] == 2 * 6 * 20 * 3
    assert counts["image"] == 2 * 4 * (4 * 16) * 15
    assert counts["transposed"] == 2 * 20 * 6 * 2 * 4  # every input sample goes to 2 channels x 4 places
    assert counts["total"] - sum(counts[name] for name in ("depthwise", "image", "transposed")) == 2 * 6 * 20 * 6
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert next(model.parameters()).device.type == "cpu"


def test_input_that_does_not_fit_is_refused_by_the_model():
    with pytest.raises(ValueError, match="not a multiple of patch_size"):
        count_macs(preset_model("tinymyo-base"), (1, 16, 990))
