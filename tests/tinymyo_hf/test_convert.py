"""The converter: parity with the released implementation, and what it refuses."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset_builders.base import make_builder
from tinymyo_hf import (
    EmgCharacterTokenizer,
    TinyMyoFeatureExtractor,
    TinyMyoForCTC,
    TinyMyoForFrameClassification,
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoForSpeechSynthesis,
    TinyMyoModel,
)
from tinymyo_hf.tinymyo.convert_tinymyo_checkpoint import (
    ConversionError,
    convert_checkpoint,
    measure_position_embeddings,
)

REFERENCE_OUTPUTS = Path(__file__).parents[1] / "fixtures"
FIXTURES = {
    "cls_small_rand": (TinyMyoForSequenceClassification, {}),
    "clsmean_small_rand": (TinyMyoForSequenceClassification, {"num_channels": 4}),
    "pre_small_rand": (TinyMyoForPreTraining, {}),
    "reg_small_rand": (TinyMyoForRegression, {"target_length": 40}),
}


def reference_state(head="classifier", hidden=12, layers=2, channels=4, patch=10):
    """Random weights under the released implementation's names."""
    shapes = {"mask_token": (1, 1, hidden), "norm.weight": (hidden,), "norm.bias": (hidden,)}
    shapes["patch_embedding.patch_embed.proj.weight"] = (hidden, 1, 1, patch)
    shapes["patch_embedding.patch_embed.proj.bias"] = (hidden,)
    for i in range(layers):
        for name, rows, columns in (
            ("attn.qkv", 3 * hidden, hidden),
            ("attn.proj", hidden, hidden),
            ("mlp.fc1", 2 * hidden, hidden),
            ("mlp.fc2", hidden, 2 * hidden),
        ):
            shapes[f"blocks.{i}.{name}.weight"], shapes[f"blocks.{i}.{name}.bias"] = (rows, columns), (rows,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (hidden,)
    if head == "classifier":
        shapes["model_head.classifier.weight"], shapes["model_head.classifier.bias"] = (3, channels * hidden), (3,)
    elif head == "decoder":
        shapes["model_head.decoder_pred.weight"], shapes["model_head.decoder_pred.bias"] = (patch, hidden), (patch,)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_equal_the_released_implementation(name, tmp_path):
    model_class, options = FIXTURES[name]
    source = REFERENCE_OUTPUTS / f"{name}.state.safetensors"
    convert_checkpoint(source, tmp_path / "out", position_embedding_type="none", **options)
    model = model_class.from_pretrained(tmp_path / "out")
    expected = load_file(REFERENCE_OUTPUTS / f"{name}.io.safetensors")
    with torch.no_grad():
        latent = model.tinymyo(expected["input"]).last_hidden_state
        if model_class is TinyMyoForPreTraining:
            output = model(expected["input"], bool_masked_pos=expected["patch_mask"].bool())
            assert abs(output.masked_loss - expected["loss_masked"]) <= 1e-5
            assert abs(output.visible_loss - expected["loss_unmasked"]) <= 1e-5
            result = output.reconstruction
        else:
            torch.testing.assert_close(latent, expected["latent"], atol=1e-5, rtol=0)
            result = model(expected["input"]).logits
    torch.testing.assert_close(result, expected["output"], atol=1e-5, rtol=0)


def test_model_of_discrete_gestures(tmp_path):
    source = REFERENCE_OUTPUTS / "gni_small.state.safetensors"
    assert type(convert_checkpoint(source, tmp_path / "out")) is TinyMyoForFrameClassification
    model = TinyMyoForFrameClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label[8] == "thumb_up"
    expected = load_file(REFERENCE_OUTPUTS / "gni_small.io.safetensors")  # (batch, gestures, frames)
    extractor = TinyMyoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.window_length, extractor.stride, extractor.recording_rate) == (16_000, 4000, 2000)
    # The recording reaches the model as it is; padding to whole strides adds no frame.
    batch = extractor(expected["input"][0].numpy(), sampling_rate=2000, return_tensors="pt")
    assert torch.equal(batch["input_values"], expected["input"])
    assert extractor(expected["input"][0, :, :493].numpy(), sampling_rate=2000)["input_values"][0].shape[1] == 500
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, expected["out"].transpose(1, 2), atol=1e-5, rtol=0)

    state = load_file(source)
    for change, message in (
        ({"norm.bias": None}, "missing: norm.bias"),
        ({"projection.weight": None, "projection.bias": None}, "missing: projection.bias, projection.weight"),
        ({"patch_embedding.patch_embed.proj.bias": torch.ones(24)}, "unexpected: patch_embedding"),
        ({"model_head.classifier.bias": torch.ones(9)}, "several heads"),
        ({"conv_layer.weight": torch.ones(24, 16)}, "conv_layer.weight has shape"),
        ({"blocks.1.attn.proj.weight": torch.ones(24, 9)}, "shapes that do not fit.*layers.1.attention.proj"),
    ):
        changed = {key: tensor for key, tensor in (state | change).items() if tensor is not None}
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(ConversionError, match=message):
            convert_checkpoint(tmp_path / "changed.safetensors", tmp_path / "changed")
    with pytest.raises(ConversionError, match="takes 16 channels, but num_channels=8"):
        convert_checkpoint(source, tmp_path / "changed", num_channels=8)


# Second name of what a residual block has -> its first name.
STEM_ALIASES = {
    "conv1": "block.0", "norm1": "block.1", "conv2": "block.3", "norm2": "block.4",
    "residual_path": "skip.0", "res_norm": "skip.1",
}  # fmt: skip


def second_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Only the stem's weights, by the names that the released model registers them under again."""
    result = {}
    for key, tensor in state.items():
        if key.startswith("conv_blocks."):
            stem, index, name, kind = key.split(".")
            result[f"{stem}.{index}.{STEM_ALIASES[name]}.{kind}"] = tensor
    return result


def test_models_for_speech(tmp_path):
    source = REFERENCE_OUTPUTS / "speech_small.state.safetensors"
    assert type(convert_checkpoint(source, tmp_path / "out")) is TinyMyoForSpeechSynthesis
    model = TinyMyoForSpeechSynthesis.from_pretrained(tmp_path / "out")
    sizes = (model.config.num_attention_heads, model.config.max_relative_positions, model.config.num_hidden_layers)
    assert sizes == (3, 100, 2)
    expected = load_file(REFERENCE_OUTPUTS / "speech_small.io.safetensors")
    x = expected["input"].transpose(1, 2)
    with torch.no_grad():
        output = model(x)
        torch.testing.assert_close(model.tinymyo.stem(x), expected["stem"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.spectrogram, expected["out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.phoneme_logits, expected["aux"], atol=1e-5, rtol=0)

    state = load_file(source)
    recognition = {key: tensor for key, tensor in state.items() if not key.startswith("w_aux")}
    recognition |= {"w_out.weight": state["w_out.weight"][:38].clone(), "w_out.bias": state["w_out.bias"][:38].clone()}
    save_file(recognition, tmp_path / "recognition.safetensors")
    assert type(convert_checkpoint(tmp_path / "recognition.safetensors", tmp_path / "text")) is TinyMyoForCTC
    model = TinyMyoForCTC.from_pretrained(tmp_path / "text")
    torch.testing.assert_close(model(x).logits, expected["out"][..., :38], atol=1e-5, rtol=0)
    tokenizer = EmgCharacterTokenizer.from_pretrained(tmp_path / "text")
    assert model.config.pad_token_id == tokenizer.pad_token_id == 37
    assert tokenizer("az 09").input_ids == [0, 25, 36, 26, 35]
    extractor = TinyMyoFeatureExtractor.from_pretrained(tmp_path / "text")
    of_the_corpus = make_builder("gaddy", tmp_path, tmp_path / "cache", protocol="reference").extractor
    assert extractor.to_dict() == of_the_corpus.to_dict()


class FeatureNormalizer:
    """As in the released code, pickled under its module's name."""


def write_normalizers(path, monkeypatch, mean, deviation):
    module = types.ModuleType("data_utils")
    monkeypatch.setitem(sys.modules, "data_utils", module)
    monkeypatch.setattr(FeatureNormalizer, "__module__", "data_utils")
    module.FeatureNormalizer = FeatureNormalizer
    of_spectra, of_emg = FeatureNormalizer(), FeatureNormalizer()
    of_spectra.feature_means, of_spectra.feature_stddevs = mean[None], np.float32(deviation)
    of_emg.feature_means, of_emg.feature_stddevs = np.zeros((1, 112)), np.ones((1, 112))
    path.write_bytes(pickle.dumps((of_spectra, of_emg)))
    return path


def test_standardised_spectra(tmp_path, monkeypatch):
    source = REFERENCE_OUTPUTS / "speech_small.state.safetensors"
    expected = load_file(REFERENCE_OUTPUTS / "speech_small.io.safetensors")
    mean = np.linspace(-9, -3, 80, dtype=np.float32)
    file = write_normalizers(tmp_path / "normalizers.pkl", monkeypatch, mean, 1.5)
    convert_checkpoint(source, tmp_path / "out", normalizers=file)
    model = TinyMyoForSpeechSynthesis.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        spectrogram = model(expected["input"].transpose(1, 2)).spectrogram
    torch.testing.assert_close(spectrogram, expected["out"] * 1.5 + torch.from_numpy(mean), atol=2e-5, rtol=0)

    for content, message in (
        (pickle.dumps((print, 1)), "builtins.print"),
        (pickle.dumps(({"a": 1},)), "a pair of FeatureNormalizer"),
        (file.read_bytes()[:200], "a pair of FeatureNormalizer"),
    ):
        (tmp_path / "bad.pkl").write_bytes(content)
        with pytest.raises(ConversionError, match=message):
            convert_checkpoint(source, tmp_path / "no", normalizers=tmp_path / "bad.pkl")
    short = write_normalizers(tmp_path / "short.pkl", monkeypatch, mean[:26], 1.5)
    with pytest.raises(ConversionError, match="26 bands, the model predicts 80"):
        convert_checkpoint(source, tmp_path / "no", normalizers=short)
    with pytest.raises(ConversionError, match="normalizers are for synthesis"):
        convert_checkpoint(REFERENCE_OUTPUTS / "cls_small_rand.state.safetensors", tmp_path / "no", normalizers=file)
    with pytest.raises(ConversionError, match="No such file"):
        convert_checkpoint(source, tmp_path / "no", normalizers=tmp_path / "absent.pkl")
    assert not (tmp_path / "no").exists()


def test_files_of_speech_models_may_name_the_stem_twice(tmp_path):
    state = load_file(REFERENCE_OUTPUTS / "speech_small.state.safetensors")
    again = second_names(state)
    other = {key: tensor for key, tensor in state.items() if not key.startswith("conv_blocks")}
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    files = {
        "twice": {f"module.{key}": tensor for key, tensor in (state | again).items()},
        "second": other | again,
        "lightning": {f"model.{key}": tensor for key, tensor in state.items()},
        "uncounted": {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")},
        "half": half,
    }
    expected = convert_checkpoint(REFERENCE_OUTPUTS / "speech_small.state.safetensors", tmp_path / "a").state_dict()
    for name, content in files.items():
        content = {"state_dict": content} if name == "lightning" else content
        torch.save(content, tmp_path / f"{name}.pt")
        found = convert_checkpoint(tmp_path / f"{name}.pt", tmp_path / name).state_dict()
        assert found.keys() == expected.keys()
        tolerance = {"atol": 1e-2, "rtol": 1e-2} if name == "half" else {"atol": 0, "rtol": 0}
        for key, tensor in found.items():
            if name != "uncounted" or not key.endswith("num_batches_tracked"):
                torch.testing.assert_close(tensor, expected[key], **tolerance)


def test_speech_checkpoints_that_do_not_fit_are_refused(tmp_path):
    state = load_file(REFERENCE_OUTPUTS / "speech_small.state.safetensors")
    positions = "blocks.1.attn.relative_positional.embeddings"
    save_file(state, tmp_path / "a.safetensors")
    for change, message in (
        ({"conv_blocks.1.norm2.running_var": None}, "missing: conv_blocks.1.norm2.running_var;"),
        ({"w_aux.bias": None, positions: None}, f"missing: {positions}, w_aux.bias;"),
        ({"w_out.bias": None}, "missing: w_out.bias;"),
        ({"norm.weight": torch.ones(24)}, "unexpected: norm.weight;"),
        ({"conv_blocks.0.block.0.bias": torch.ones(24)}, "twice, with different values; of: conv_blocks.0.conv1.bias;"),
        ({positions: torch.ones(3, 197, 8, 1)}, "do not fit together; in: tinymyo.layers.1.*relative_positions"),
        ({positions.replace("1", "0"): torch.ones(3, 198, 8, 1)}, r"2 \* reach - 1"),
        ({positions.replace("1", "0"): torch.ones(3, 199, 8)}, "where 4 dimensions are expected"),
        ({"w_out.weight": torch.ones(80)}, "w_out.weight has shape"),
        ({"conv_blocks.2.residual_path.weight": torch.ones(24, 24, 3)}, "in: tinymyo.stem.blocks.2.shortcut.weight"),
    ):
        changed = {key: tensor for key, tensor in (state | change).items() if tensor is not None}
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(ConversionError, match=message):
            convert_checkpoint(tmp_path / "changed.safetensors", tmp_path / "out")
    for options in ({"position_embedding_type": "rope"}, {"num_attention_heads": 4}, {"num_channels": 16}):
        (name, value), *_ = options.items()
        with pytest.raises(ConversionError, match=f"model for speech with .*, but {name}={value}; leave"):
            convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out", **options)
    with pytest.raises(ConversionError, match="position_embedding_type=rope"):
        measure_position_embeddings(tmp_path / "a.safetensors", np.zeros((8, 800)), sampling_rate=1000)
    assert not (tmp_path / "out").exists()


def test_every_kind_of_source_gives_the_same_model(tmp_path):
    state = reference_state()
    prefixed = {f"model.{key}": value for key, value in state.items()}
    lightning = {
        "state_dict": prefixed,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "hyper_parameters": {"lr": 1e-3},
        "epoch": 3,
    }
    save_file(state, tmp_path / "bare.safetensors")
    save_file(prefixed, tmp_path / "prefixed.safetensors")
    torch.save(lightning, tmp_path / "lightning.ckpt")
    nested = {f"network._orig_mod.{key}": value for key, value in state.items()}
    torch.save({"state_dict": nested}, tmp_path / "compiled.ckpt")
    torch.save(state, tmp_path / "state.pth")
    names = ("bare.safetensors", "prefixed.safetensors", "lightning.ckpt", "compiled.ckpt", "state.pth")
    states = [convert_checkpoint(tmp_path / name, tmp_path / f"out-{name}").state_dict() for name in names]
    for other in states[1:]:
        assert states[0].keys() == other.keys()
        assert all(torch.equal(states[0][key], other[key]) for key in other)


def test_configuration_is_read_off_the_shapes(tmp_path):
    save_file(reference_state(), tmp_path / "a.safetensors")
    config = convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "a").config
    found = {name: getattr(config, name) for name in ("hidden_size", "num_hidden_layers", "intermediate_size")}
    assert found == {"hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 24}
    assert (config.patch_size, config.num_channels, config.num_labels, config.channel_fusion) == (10, 4, 3, "concat")
    assert config.position_embedding_type == "rope"
    extractor = TinyMyoFeatureExtractor.from_pretrained(tmp_path / "a")
    assert (extractor.feature_size, extractor.patch_size, extractor.window_length) == (4, 10, 500)

    state = reference_state(head=None)
    del state["mask_token"]
    save_file(state, tmp_path / "bare.safetensors")
    given = TinyMyoFeatureExtractor(patch_size=10)
    model = convert_checkpoint(tmp_path / "bare.safetensors", tmp_path / "b", num_channels=7, feature_extractor=given)
    assert type(model) is TinyMyoModel
    assert model.config.num_channels == 7
    assert TinyMyoFeatureExtractor.from_pretrained(tmp_path / "b").to_dict() == given.to_dict()


def test_refused_checkpoints(tmp_path):
    def refuse(message, change=None, name="a.safetensors", **options):
        state = reference_state()
        if change is not None:
            change(state)
        save_file(state, tmp_path / "a.safetensors")
        with pytest.raises(ConversionError, match=message):
            convert_checkpoint(tmp_path / name, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))

    def without(*names):
        return lambda state: [state.pop(name) for name in names]

    def with_(name, *shape):
        return lambda state: state.update({name: torch.ones(shape)})

    refuse("missing: blocks.1.norm2.bias, norm.weight;", without("norm.weight", "blocks.1.norm2.bias"))
    refuse("missing: blocks.2.attn.*and 11 more", with_("blocks.3.norm1.weight", 12))
    refuse("unexpected: criterion.weight;", with_("criterion.weight", 3))
    refuse("and 4 more; unexpected: encoder.weight", lambda s: s.clear() or s.update({"encoder.weight": torch.ones(3)}))
    refuse("shapes that do not fit.*layers.1.mlp.fc1", with_("blocks.1.mlp.fc1.weight", 9, 12))
    refuse("patch_embed.proj.weight has shape", with_("patch_embedding.patch_embed.proj.weight", 12, 10))
    refuse("several heads", with_("model_head.decoder_pred.weight", 10, 12))
    refuse("NaN or infinite weights; in: norm.bias", lambda s: s["norm.bias"].fill_(float("nan")))
    refuse("48 features, that is 4 channels.*num_channels=3", num_channels=3)
    refuse("4.5 channels", with_("model_head.classifier.weight", 3, 54))
    refuse("multiple of num_attention_heads", num_attention_heads=5)
    refuse("position_embedding_type", position_embedding_type="alibi")
    refuse("no such file", name="missing.safetensors")
    (tmp_path / "a.txt").write_text("x")
    refuse("ending in .safetensors or .ckpt", name="a.txt")


def test_pickles_are_never_run(tmp_path):
    class Exploit:
        def __reduce__(self):
            return open, (str(tmp_path / "proof"), "w")

    for name in ("old.ckpt", "old.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps({"state_dict": Exploit()}))
    torch.save({"state_dict": Exploit()}, tmp_path / "new.ckpt")
    torch.save(reference_state(), tmp_path / "new.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08" * 100)
    torch.save({"weights": 3}, tmp_path / "none.ckpt")
    for name, message in (
        ("old.safetensors", "pickled checkpoint under the name of a safetensors"),
        ("new.safetensors", "pickled checkpoint under the name of a safetensors"),
        ("old.ckpt", "not loaded for safety"),
        ("new.ckpt", "not loaded for safety"),
        ("cut.safetensors", "not a whole safetensors file"),
        ("none.ckpt", "holds no state dict"),
    ):
        with pytest.raises(ConversionError, match=message):
            convert_checkpoint(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "proof").exists()


def test_output_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    save_file(reference_state(), tmp_path / "a.safetensors")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("keep")
    with pytest.raises(ConversionError, match="not an empty folder"):
        convert_checkpoint(tmp_path / "a.safetensors", occupied)
    assert [path.name for path in occupied.iterdir()] == ["mine.txt"]

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TinyMyoFeatureExtractor, "save_pretrained", full_disk)
        with pytest.raises(OSError, match="No space left"):
            convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "occupied"]
    (tmp_path / "out").mkdir()  # an empty folder is fine
    convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out")


def test_measured_positions(tmp_path):
    save_file(reference_state(head="decoder"), tmp_path / "pre.safetensors")
    x = np.random.default_rng(0).normal(size=(3, 1200))
    losses = measure_position_embeddings(tmp_path / "pre.safetensors", x, sampling_rate=200, max_windows=3)
    assert losses.keys() == {"rope", "none"}
    assert losses["rope"] != losses["none"]
    assert losses == measure_position_embeddings(tmp_path / "pre.safetensors", x, sampling_rate=200, max_windows=3)
    np.savez(tmp_path / "x.npz", emg=x, fs=200)
    assert losses == measure_position_embeddings(tmp_path / "pre.safetensors", tmp_path / "x.npz", max_windows=3)
    with pytest.raises(ConversionError, match="sampling rate is not known"):
        measure_position_embeddings(tmp_path / "pre.safetensors", x)
    save_file(reference_state(), tmp_path / "cls.safetensors")
    with pytest.raises(ConversionError, match="no pretraining head"):
        measure_position_embeddings(tmp_path / "cls.safetensors", x, sampling_rate=200)
