"""Pipelines over checkpoints of Tiny-BioMoE: recordings become images on the way, embeddings, and what is refused."""

import json

import numpy as np
import pytest
import torch
from transformers import ViTImageProcessorPil, pipeline
from typer.testing import CliRunner

from tinymyo_hf import (
    BiosignalImageProcessor,
    SEMGTransformerConfig,
    SEMGTransformerModel,
    TinyBioMoEConfig,
    TinyBioMoEForSequenceClassification,
    TinyBioMoEModel,
    TinyMyoFeatureExtractor,
    TinyMyoForSequenceClassification,
)
from tinymyo_hf.cli import app
from tinymyo_hf.signal import SignalError
from tinymyo_hf.streaming.recognizers import GestureRecognizer, MajorityFilter
from tinymyo_hf.tasks.windows import IMAGES_AT_ONCE
from tinymyo_hf.tiny_biomoe.preprocessing_tiny_biomoe import REPRESENTATIONS

LABELS = {0: "rest", 1: "fist", 2: "open"}
SMALL = {
    "image_size": 32,
    "spectformer_stem_size": 4,
    "spectformer_hidden_sizes": [4, 4, 8, 8],
    "spectformer_num_heads": [None, None, 2, 2],
    "spectformer_mlp_ratios": [1, 1, 1, 1],
    "efficientvit_hidden_sizes": [8, 8, 8],
    "efficientvit_num_heads": [1, 1, 1],
    "efficientvit_key_size": 4,
}


def noise(samples=500, seed=0):
    return np.random.default_rng(seed).normal(size=(4, samples)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier of windows of 100 samples, two images of each of four channels side by side."""
    folder = tmp_path_factory.mktemp("biomoe")
    torch.manual_seed(0)
    config = TinyBioMoEConfig(**SMALL, num_images=8, image_fusion="concat", id2label=LABELS, num_labels=3)
    model = TinyBioMoEForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=0.2)
    model.save_pretrained(folder)
    representations = ["waveform", "spectrogram_amplitude"]
    processor = BiosignalImageProcessor(
        feature_size=4, window_length=100, stride=50, image_size=32, representations=representations
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def classify(checkpoint):
    return pipeline("emg-classification", model=str(checkpoint), device="cpu")


def test_result_is_the_models_own(classify, checkpoint):
    x = noise()
    result = classify(x, sampling_rate=200)
    model = TinyBioMoEForSequenceClassification.from_pretrained(checkpoint)
    # the windows as a TinyMyo would see them, each drawn by itself
    signals = TinyMyoFeatureExtractor(window_length=100, stride=50)
    windows, starts = signals.windows(signals.preprocess(x, 200))
    drawing = BiosignalImageProcessor.from_pretrained(checkpoint)
    with torch.no_grad():
        logits = [
            model(torch.from_numpy(drawing.images(window[None]))).logits[0].softmax(-1).double() for window in windows
        ]
    expected = torch.stack(logits)
    assert [w["start"] for w in result["windows"]] == (starts / 200).tolist()
    assert [w["end"] for w in result["windows"]] == ((starts + 100) / 200).tolist()
    assert [w["label"] for w in result["windows"]] == [LABELS[i] for i in expected.argmax(-1).tolist()]
    assert [w["score"] for w in result["windows"]] == pytest.approx(expected.max(-1).values.tolist(), abs=1e-5)
    mean = dict(zip(LABELS.values(), expected.mean(0).tolist(), strict=True))
    assert result["scores"] == pytest.approx(mean, abs=1e-5)


def test_few_images_at_once(classify):
    """Images of many windows would take gigabytes: they are drawn and seen a few at a time."""
    seen = []
    forward = classify.model.forward
    classify.model.forward = lambda x, **kwargs: seen.append(x.shape[0] * x.shape[1]) or forward(x, **kwargs)
    many = classify(noise(1000), sampling_rate=200)
    assert sum(seen) == 8 * 19 and max(seen) <= IMAGES_AT_ONCE
    for batch_size in (1, 5):
        few = classify(noise(1000), sampling_rate=200, batch_size=batch_size)
        assert [w["label"] for w in few["windows"]] == [w["label"] for w in many["windows"]]
        assert few["scores"] == pytest.approx(many["scores"], abs=1e-5)


def test_saved_pipeline_loads_again(classify, tmp_path):
    classify.save_pretrained(tmp_path)
    again = pipeline("emg-classification", model=str(tmp_path), device="cpu")
    assert again(noise(), sampling_rate=200) == classify(noise(), sampling_rate=200)


@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_embeddings(checkpoint, tmp_path, fusion):
    """Of the classifier's backbone, or of one saved without a head."""
    if fusion == "mean":
        torch.manual_seed(0)
        TinyBioMoEModel(TinyBioMoEConfig(**SMALL)).save_pretrained(tmp_path)
        BiosignalImageProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path)
        checkpoint = tmp_path
    embed = pipeline("emg-embedding", model=str(checkpoint), device="cpu")
    x = noise()
    result = embed(x, sampling_rate=200)
    backbone = TinyBioMoEModel.from_pretrained(checkpoint)
    drawing = BiosignalImageProcessor.from_pretrained(checkpoint)
    images = drawing(x, sampling_rate=200, windowed=True, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        rows = [backbone(window).pooler_output for window in images]  # (images, 16)
    expected = torch.stack([row.flatten() if fusion == "concat" else row.mean(0) for row in rows]).numpy()
    assert result["embeddings"].dtype == np.float32
    np.testing.assert_allclose(result["embeddings"], expected, atol=1e-5)
    np.testing.assert_allclose(result["embedding"], expected.mean(0), atol=1e-5)
    assert result["windows"][1] == {"start": 0.25, "end": 0.75} and len(result["windows"]) == 9


@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_embeddings_of_a_tinymyo_are_what_its_head_sees(tiny_config, tmp_path, fusion):
    tiny_config.channel_fusion = fusion
    model = TinyMyoForSequenceClassification(tiny_config).eval()
    model.save_pretrained(tmp_path)
    extractor = TinyMyoFeatureExtractor(patch_size=10, window_length=100, stride=50)
    extractor.save_pretrained(tmp_path)
    result = pipeline("emg-embedding", model=str(tmp_path), device="cpu")(noise(), sampling_rate=200)
    windows, _ = extractor.windows(extractor.preprocess(noise(), 200))
    with torch.no_grad():
        logits = model(torch.from_numpy(windows.copy())).logits
        of_embeddings = model.classifier(torch.from_numpy(result["embeddings"]))
    torch.testing.assert_close(of_embeddings, logits, atol=1e-5, rtol=1e-5)


def test_pictures_of_other_programs():
    """The library's own pipeline for images, with an image processor of the library: what the released code does."""
    image_module = pytest.importorskip("PIL.Image")
    torch.manual_seed(0)
    model = TinyBioMoEModel(TinyBioMoEConfig(**SMALL)).eval()
    resize = ViTImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False)
    embed = pipeline("image-feature-extraction", model=model, image_processor=resize, pool=True, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = image_module.fromarray(pixels)
    resized = np.array(picture.resize((32, 32), image_module.Resampling.BILINEAR))
    with torch.no_grad():
        expected = model(torch.from_numpy(resized).permute(2, 0, 1)[None] / 255).pooler_output
    np.testing.assert_allclose(embed(picture), expected.numpy(), atol=1e-5)


def test_embeddings_need_windows(tmp_path):
    config = SEMGTransformerConfig(
        conv_dim=[8, 8, 8], hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    SEMGTransformerModel(config).save_pretrained(tmp_path)
    extractor = TinyMyoFeatureExtractor()
    with pytest.raises(SignalError, match="semg_transformer that makes frames of whole recordings.*works on windows"):
        pipeline("emg-embedding", model=str(tmp_path), feature_extractor=extractor, device="cpu")


def test_live_gestures_are_those_of_the_causal_windows(checkpoint):
    model = TinyBioMoEForSequenceClassification.from_pretrained(checkpoint)
    extractor = BiosignalImageProcessor.from_pretrained(checkpoint).replace(filter_mode="causal")
    x = noise(900)
    images = extractor(x, sampling_rate=200, windowed=True, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        model.classifier.bias -= model(images).logits.mean(0)  # so that all classes are near each other
        ids = model(images).logits.argmax(-1).tolist()
    assert len(set(ids)) > 1
    recognizer = GestureRecognizer(model, extractor, smoother=MajorityFilter(1, 1))
    found = [event for i in range(0, 900, 70) for event in recognizer.push(x[:, i : i + 70])]
    changes = [i for i, label in enumerate(ids) if i == 0 or label != ids[i - 1]]
    assert [event["label"] for event in found] == [LABELS[ids[i]] for i in changes]
    assert [event["time"] for event in found] == pytest.approx([0.5 + 0.25 * i for i in changes])


def test_refused_recordings(classify, checkpoint):
    x = noise()
    for recording, options, message in (
        (x, {}, "sampling rate is not known; pass sampling_rate.*200 Hz"),
        (x, {"sampling_rate": 1000}, 'sampled at 1000 Hz.*on_rate_mismatch="resample"'),
        (x[:3], {"sampling_rate": 200}, "3 channels, but the model takes 4.*select"),
        (x[:, :99], {"sampling_rate": 200}, "recording: 99 samples, shorter than one window"),
        (
            x,
            {"sampling_rate": 200, "window_length": 30},
            "window_length: 30 samples.*spectrogram_amplitude needs at least 40",
        ),
    ):
        with pytest.raises(SignalError, match=message):
            classify(recording, **options)
    with pytest.raises(SignalError, match="is a TinyBioMoEModel, but emg-classification needs"):
        pipeline(
            "emg-classification",
            model=TinyBioMoEModel.from_pretrained(checkpoint),
            feature_extractor=BiosignalImageProcessor(),
        )


def test_preprocessing_of_another_model_is_refused(checkpoint):
    model = TinyBioMoEForSequenceClassification.from_pretrained(checkpoint)
    for wrong, message in (
        (
            TinyMyoFeatureExtractor(),
            "feature_extractor: .*TinyMyoFeatureExtractor.* no images.*BiosignalImageProcessor",
        ),
        (BiosignalImageProcessor(feature_size=4), "image_size: .*224.*32"),
        (BiosignalImageProcessor(feature_size=3, image_size=32), "num_images: .* 3 images.* 8"),
        (BiosignalImageProcessor(image_size=32, representations=REPRESENTATIONS[:3]), "a multiple of 3 images.* 8"),
        (BiosignalImageProcessor(image_size=32, channels_as="strips"), "num_images: .* 1 images.* 8"),
    ):
        with pytest.raises(SignalError, match=message):
            pipeline("emg-classification", model=model, feature_extractor=wrong)


def test_images_that_are_joined_tell_the_channels(checkpoint):
    """Also where the preprocessing does not say how many there are."""
    model = TinyBioMoEForSequenceClassification.from_pretrained(checkpoint)
    processor = BiosignalImageProcessor.from_pretrained(checkpoint).replace(feature_size=None)
    classify = pipeline("emg-classification", model=model, feature_extractor=processor)
    assert len(classify(noise(), sampling_rate=200)["windows"]) == 9
    with pytest.raises(SignalError, match="3 channels, but the model takes 4.*select"):
        classify(noise()[:3], sampling_rate=200)


def test_command_line(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    np.save(tmp_path / "x.npy", noise())
    command = ["predict", str(checkpoint), str(tmp_path / "x.npy"), "--layout", "channels_time"]
    run = CliRunner().invoke(app, [*command, "--sampling-rate", "200", "--output", str(tmp_path / "x.json")])
    assert run.exit_code == 0, run.output
    expected = pipeline("emg-classification", model=str(checkpoint))(noise(), sampling_rate=200)
    assert json.loads((tmp_path / "x.json").read_text())["scores"] == pytest.approx(expected["scores"])
    run = CliRunner().invoke(app, [*command, "--sampling-rate", "500"])
    assert run.exit_code == 2 and "sampled at 500 Hz, but the model was trained at 200 Hz" in run.output
