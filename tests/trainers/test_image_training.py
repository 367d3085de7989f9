"""Training of Tiny-BioMoE: images on the fly, a head on embeddings that are computed once, its report and scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_run import make_split

import trainers.evaluate as evaluate
import trainers.finetune as finetune
from tinymyo_hf import BiosignalImageProcessor, TinyBioMoEConfig, TinyBioMoEForSequenceClassification, TinyBioMoEModel
from tinymyo_hf.signal import SignalError
from trainers.errors import CheckpointError, RecipeError
from trainers.image_classification import ImageClassificationTask
from trainers.image_models import fit_head
from trainers.optim import layer_wise_parameter_groups
from trainers.parsing import parse_recipe

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
RECIPE = {
    "task": "image_classification",
    "preset": "tiny-biomoe",
    "model_config": {name: value for name, value in SMALL.items() if name != "image_size"},
    "images": {"image_size": 32, "channels_as": "strips"},
    "num_train_epochs": 2,
    "per_device_train_batch_size": 32,
}
FROZEN = {"freeze_encoder": True, "model_config": {}, "num_train_epochs": 2, "learning_rate": 1e-3, "warmup_steps": 0}


@pytest.fixture
def read(recipe_reader, tiny_corpus, monkeypatch):
    monkeypatch.setattr(ImageClassificationTask, "write_plots", classmethod(lambda *args: None))
    return recipe_reader(tiny_corpus, **RECIPE)


@pytest.fixture
def backbone(tmp_path):
    """A checkpoint of random weights without a head, as a converter makes one of released weights."""
    torch.manual_seed(0)
    TinyBioMoEModel(TinyBioMoEConfig(**SMALL)).save_pretrained(tmp_path / "backbone")
    return str(tmp_path / "backbone")


def logits_of(folder, windows):
    """Of a saved model on windows (windows, channels, time), drawn one by one."""
    model = TinyBioMoEForSequenceClassification.from_pretrained(folder).eval()
    drawing = BiosignalImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([model(torch.from_numpy(drawing.images(window[None]))).logits for window in windows])


def test_whole_model(read, tiny_corpus, tmp_path):
    """The checkpoint that is written predicts what the report says, and its preprocessing makes the images."""
    results = finetune.run(*read(baselines=True))
    assert results["family"] == "Tiny-BioMoE" and results["images"]["per_window"] == 1
    assert results["parameters"]["trainable"] == results["parameters"]["total"]
    assert {"LDA", "Random forest"} <= results["baselines"].keys()
    test = tiny_corpus[0]["test"].with_format("numpy")
    predicted = logits_of(tmp_path / "run", np.stack(test["input_values"])).argmax(-1).numpy()
    assert results["test"]["accuracy"]["mean"] == pytest.approx((predicted == test["label"]).mean())
    processor = BiosignalImageProcessor.from_pretrained(tmp_path / "run")
    assert processor.channels_as == "strips" and processor.window_length == 40 and processor.feature_size == 4
    card = (tmp_path / "run" / "README.md").read_text()
    assert "It sees each window as 1 image of 32 x 32 pixels (waveform)." in card and "| Tiny-BioMoE |" in card


@pytest.mark.parametrize(
    ("fusion", "drawing", "images"), [("mean", {"channels_as": "strips"}, 1), ("concat", {"channels_as": "images"}, 4)]
)
def test_head_on_embeddings(read, backbone, tiny_corpus, tmp_path, fusion, drawing, images):
    """Each window is drawn once; the head learns; what is saved is a whole classifier with the backbone untouched."""
    drawn, draw = [], BiosignalImageProcessor.images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BiosignalImageProcessor, "images", lambda self, x: drawn.append(len(x)) or draw(self, x))
        results = finetune.run(
            *read(
                model_name_or_path=backbone,
                **FROZEN | {"model_config": {"image_fusion": fusion}},
                images={"image_size": 32, **drawing},
            )
        )
    assert sum(drawn) == sum(map(len, tiny_corpus[0].values()))
    assert results["embedding_seconds"] > 0 and results["images"]["per_window"] == images
    width = 16 * (images if fusion == "concat" else 1)
    assert results["parameters"]["trainable"] == width * 3 + 3
    assert results["runs"][0]["history"][0]["train_loss"] < 0.98 * np.log(3)
    before = TinyBioMoEModel.from_pretrained(backbone).state_dict()
    after = TinyBioMoEForSequenceClassification.from_pretrained(tmp_path / "run").tiny_biomoe.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    test = tiny_corpus[0]["test"].with_format("numpy")
    predicted = logits_of(tmp_path / "run", np.stack(test["input_values"])).argmax(-1).numpy()
    assert results["test"]["accuracy"]["mean"] == pytest.approx((predicted == test["label"]).mean())


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2], [0, 1]])
def test_fitted_head(classes):
    """It is the regression of scikit-learn on standardised features, also where classes are absent."""
    torch.manual_seed(0)
    config = TinyBioMoEConfig(**SMALL, num_labels=3, num_images=2, image_fusion="concat")
    model = TinyBioMoEForSequenceClassification(config).eval()
    rng = np.random.default_rng(0)
    labels = rng.choice(classes, 300)
    embeddings = torch.from_numpy(5 + rng.normal(size=(300, 2, 16)) * np.geomspace(0.01, 1, 16)).float()
    embeddings[:, 1, 0] += torch.from_numpy(0.05 * labels)
    fit_head(model, (embeddings[:200], labels[:200]), (embeddings[200:], labels[200:]))
    with torch.no_grad():
        probabilities = model(image_embeddings=embeddings).logits.softmax(-1).numpy()
    x = embeddings.flatten(1).numpy()  # beyond 0, where ELU does nothing
    regressions = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500)).fit(x[:200], labels[:200])
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    ]
    best = min(regressions, key=lambda r: log_loss(labels[200:], r.predict_proba(x[200:]), labels=sorted(classes)))
    np.testing.assert_allclose(probabilities[:, sorted(classes)], best.predict_proba(x), atol=2e-3)
    assert (probabilities[200:].argmax(1) == labels[200:]).mean() > 0.7


def test_embeddings_are_there_for_a_run_that_is_started_again(read, backbone, tmp_path, monkeypatch):
    fields = FROZEN | {"num_train_epochs": 1, "model_name_or_path": backbone}
    first = finetune.run(*read(**fields))
    drawn = []
    draw = BiosignalImageProcessor.images
    monkeypatch.setattr(BiosignalImageProcessor, "images", lambda self, x: drawn.append(len(x)) or draw(self, x))
    again = finetune.run(*read(**fields, overwrite=True))
    assert not drawn and again["test"] == first["test"]
    torch.manual_seed(1)
    TinyBioMoEModel(TinyBioMoEConfig(**SMALL)).save_pretrained(backbone)  # another one under the same name
    finetune.run(*read(**fields, overwrite=True))
    assert sum(drawn) == 204


def test_part_of_the_labels(read, backbone, tiny_corpus):
    results = finetune.run(*read(model_name_or_path=backbone, **FROZEN | {"num_train_epochs": 1}, train_fraction=0.25))
    assert results["windows"] == {"train": 24, "validation": 48, "test": 60}


def test_evaluate_scores_as_the_training_did(read, backbone, tiny_corpus, tmp_path):
    results = finetune.run(*read(model_name_or_path=backbone, **FROZEN | {"num_train_epochs": 3}))
    again = evaluate.evaluate_checkpoint(str(tmp_path / "run"), "tiny", tmp_path / "evaluation", baselines=False)
    assert again["test"]["accuracy"] == results["test"]["accuracy"]
    assert again["family"] == "Tiny-BioMoE"
    report = (tmp_path / "evaluation" / "report.md").read_text()
    assert "| Subject | Windows | Tiny-BioMoE |" in report
    assert json.loads((tmp_path / "evaluation" / "results.json").read_text())["test"] == again["test"]


def test_training_goes_on_with_a_checkpoints_drawing(read, backbone):
    """Unless the recipe says otherwise, images look as those that the backbone has learned from."""
    BiosignalImageProcessor(image_size=32, waveform_range=2.5, line_thickness=1.0).save_pretrained(backbone)
    results = finetune.run(
        *read(model_name_or_path=backbone, **FROZEN | {"num_train_epochs": 1}, images={"line_thickness": 3.0})
    )
    images = results["images"]
    assert (images["waveform_range"], images["line_thickness"], images["channels_as"]) == (2.5, 3.0, "images")
    assert images["per_window"] == 4
    (Path(backbone) / "preprocessor_config.json").write_text('{"feature_extractor_type": "BiosignalImageProcessor", ')
    with pytest.raises(CheckpointError, match="backbone: no usable preprocessor_config.json"):
        finetune.run(*read(model_name_or_path=backbone, **FROZEN))


def test_norms_of_images_do_not_decay():
    """A norm over an image has three axes, an attention bias two; neither is a weight to be shrunk."""
    model = TinyBioMoEForSequenceClassification(TinyBioMoEConfig(**SMALL, num_labels=3))
    groups = layer_wise_parameter_groups(model, 1.0, 0.1, encoder_lr_factor=0.25)
    of = {id(p): (group["weight_decay"], group["lr"]) for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert named["tiny_biomoe.image_norm.weight"].ndim == 3
    biases = [name for name in named if name.endswith(".bias.weight")]
    assert biases
    for name in ("tiny_biomoe.image_norm.weight", "tiny_biomoe.image_norm.bias", *biases):
        assert of[id(named[name])] == (0.0, 0.25), name
    assert of[id(named["tiny_biomoe.gate.weight"])] == (0.1, 0.25)
    assert of[id(named["classifier.weight"])] == (0.1, 1.0)


def test_refused_recipes(read, backbone, tmp_path):
    for fields, error, message in (
        ({"freeze_encoder": True}, RecipeError, "freeze_encoder: a backbone from scratch.*--model_name_or_path"),
        ({"images": {"representation": ["waveform"]}}, RecipeError, "images: there is no field 'representation'"),
        ({"images": {"representations": ["wavelet"]}}, RecipeError, "images: .*'wavelet' is unknown"),
        ({"images": {"representations": ["scalogram"]}}, RecipeError, "window_length: 40 samples.*scalogram needs"),
        ({"images": {"image_size": 40}}, RecipeError, "model_config: image_size must be a multiple of 32, got 40"),
        ({"preset": "tinymyo-base", "model_config": {}}, RecipeError, "'tinymyo-base' is no Tiny-BioMoE"),
        ({"model_config": {"num_images": 3}}, RecipeError, "model_config: num_images is 1 by the data"),
        ({"model_config": {"hidden_sizes": 3}}, RecipeError, "TinyBioMoEConfig has no field 'hidden_sizes'"),
        ({"model_name_or_path": backbone, "images": {}, "model_config": {}}, CheckpointError, "has another shape for"),
        ({"model_name_or_path": str(tmp_path / "none")}, CheckpointError, "none: no such checkpoint"),
    ):
        with pytest.raises(error, match=message):
            finetune.run(*read(**fields))
    with pytest.raises(RecipeError, match="augmentations: they are for models of signals"):
        read(augmentations={"polarity": {}})
    with pytest.raises(RecipeError, match="quantization_aware: a image_classification cannot"):
        read(quantization_aware=True)


def test_evaluation_of_other_images_or_electrodes_is_refused(read, backbone, tiny_corpus, tmp_path, monkeypatch):
    finetune.run(
        *read(
            model_name_or_path=backbone,
            **FROZEN | {"num_train_epochs": 1, "model_config": {"image_fusion": "concat"}},
            images={"image_size": 32},
        )
    )
    BiosignalImageProcessor(image_size=64, window_length=40).save_pretrained(tmp_path / "other")
    TinyBioMoEForSequenceClassification.from_pretrained(tmp_path / "run").save_pretrained(tmp_path / "other")
    with pytest.raises(SignalError, match="image_size: the feature extractor draws 64 pixels, the model takes 32"):
        evaluate.evaluate_checkpoint(str(tmp_path / "other"), "tiny", tmp_path / "out", baselines=False)
    five = make_split(12, 0, ("z",), channels=5)
    monkeypatch.setattr(evaluate, "load_corpus", lambda *args, **kwargs: ({"test": five}, tiny_corpus[1]))
    with pytest.raises(CheckpointError, match="joins 4 images of a window, but the 5 channels of tiny make 5"):
        evaluate.evaluate_checkpoint(str(tmp_path / "run"), "tiny", tmp_path / "out", baselines=False)


@pytest.mark.parametrize("name", ["uci_emg_biomoe", "uci_emg_biomoe_frozen"])
def test_recipes_of_the_package(name):
    model, data, arguments = parse_recipe(name)
    assert data.dataset == "uci_emg" and arguments.TASK == "image_classification"
    assert model.freeze_encoder == name.endswith("frozen")
