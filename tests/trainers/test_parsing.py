"""Recipes: YAML and command line through one parser, with errors that name the field."""

import pytest
import torch
from transformers import TrainingArguments

from trainers.arguments import RegressionArguments
from trainers.augmentation import make_augmentation
from trainers.errors import RecipeError
from trainers.parsing import RECIPES, parse_fields, parse_recipe, read_recipe

MINIMAL = {"dataset": "synthetic", "output_dir": "runs/x", "report_to": "none"}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_recipes_of_the_package_can_be_read(name):
    model, data, arguments = parse_recipe(name)
    rate = arguments.learning_rate  # None: by the size of the model
    assert (rate is None or rate < 0.01) and arguments.output_dir == f"runs/{name}"
    if arguments.TASK == "pretraining":
        configs = [corpus.dataset_config for corpus in arguments.mix]
    else:
        configs = [data.dataset_config]
        make_augmentation(arguments.augmentations)
    assert all(config.get("window_length", 200) % 20 == 0 for config in configs)


def test_defaults_are_the_papers():
    arguments = parse_recipe(MINIMAL)[2]
    assert (arguments.learning_rate, arguments.lr_scheduler_kwargs) == (5e-4, {"min_lr": 1e-5})
    assert (arguments.num_train_epochs, arguments.warmup_steps, arguments.early_stopping_patience) == (50, 0.1, 7)
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.weight_decay) == (0.9, 0.98, 0.01)
    assert (arguments.layer_decay, arguments.label_smoothing_factor) == (0.9, 0.1)
    assert arguments.per_device_train_batch_size == 32


def test_yaml_types_and_overrides(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "dataset: uci_emg\noutput_dir: runs/mine\nreport_to: none\n"
        "learning_rate: 1e-4\nseeds: [1, 2]\nema_decay: null\n"
        "dataset_config: {window_length: 200, band_pass: [20, 90]}\naugmentations:\n  gaussian_noise: {std: 0.1}\n"
    )
    overrides = ["--dataset_config.stride", "50", "--augmentations.gaussian_noise.std=2e-1", "--num-train-epochs", "3"]
    model, data, arguments = parse_recipe(path, [*overrides, "--no_baselines", "--model_config.drop_path_rate", "0.2"])
    assert arguments.learning_rate == 1e-4 and arguments.seeds == [1, 2] and arguments.num_train_epochs == 3
    assert data.dataset_config == {"window_length": 200, "band_pass": [20, 90], "stride": 50}
    assert arguments.augmentations == {"gaussian_noise": {"std": 0.2}}
    assert model.model_config == {"drop_path_rate": 0.2}
    assert not arguments.baselines and arguments.ema_decay is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--learning_rat", "1"], "unknown field 'learning_rat'; did you mean learning_rate"),
        (["--window_length", "1"], "unknown field 'window_length'; a builder's fields go under dataset_config"),
        (["--learning_rate", "fast"], "learning_rate.*'fast'"),
        (["--class_weights", "some"], "class_weights.*balanced"),
        (["--dataset_config.stride"], "dataset_config.stride needs a value"),
        (["--dataset_config", "200"], "dataset_config must be a mapping"),
        (["--lora", "--freeze_encoder"], "exclude each other"),
        (["stray"], "stray"),
    ],
)
def test_overrides_that_cannot_be_used(overrides, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(MINIMAL, overrides)


@pytest.mark.parametrize(
    ("task", "metric", "higher_is_better"),
    [
        ("regression", None, False),  # by the mean absolute error
        ("regression", "r2", True),
        ("regression", "eval_rmse", False),
        ("regression", "loss", False),
        ("classification", None, True),
        ("events", "misses_per_hour", False),
    ],
)
def test_which_way_a_score_is_better(task, metric, higher_is_better):
    fields = {"task": task} | ({"metric_for_best_model": metric} if metric else {})
    assert parse_recipe(MINIMAL | fields)[2].greater_is_better is higher_is_better
    given = parse_recipe(MINIMAL | fields | {"greater_is_better": not higher_is_better})[2]
    assert given.greater_is_better is not higher_is_better


def test_recipes_that_cannot_be_used(tmp_path):
    with pytest.raises(RecipeError, match="names no dataset"):
        parse_recipe({"output_dir": "x"})
    with pytest.raises(RecipeError, match="names no output_dir"):
        parse_recipe({"dataset": "synthetic"})
    with pytest.raises(RecipeError, match="there is no recipe missing.*uci_emg_200"):
        parse_recipe("missing")
    with pytest.raises(RecipeError, match="unknown task 'dancing'; use one of classification, regression"):
        parse_recipe(MINIMAL | {"task": "dancing"})
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1")
    with pytest.raises(RecipeError, match="bad.yaml is not valid YAML"):
        parse_recipe(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(RecipeError, match="bad.yaml must hold"):
        parse_recipe(path)
    path.write_text("dataset: synthetic\noutput_dir: x\nstride: 3\n")
    with pytest.raises(RecipeError, match="bad.yaml: unknown field 'stride'"):
        parse_recipe(path)


def test_builder_fields_of_the_command_line():
    tokens = ["--window_length", "1000", "--band-pass=[20, 90]", "--protocol", "paper", "--scale", "1e-3"]
    assert parse_fields(tokens) == {"window_length": 1000, "band_pass": [20, 90], "protocol": "paper", "scale": 1e-3}
    for tokens in (["stray"], ["--stride"], ["--stride", "--other", "1"]):
        with pytest.raises(RecipeError):
            parse_fields(tokens)


def test_base_is_replaced_field_by_field(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "first.yaml").write_text(
        "dataset: uci_emg\ndataset_config: {window_length: 200, stride: 50}\noutput_dir: runs/first\n"
        "learning_rate: 1e-3\nseeds: [0, 1]\nreport_to: none\n"
    )
    (tmp_path / "second.yaml").write_text("base: first.yaml\ndataset_config: {window_length: 1000}\nema_decay: 0.9\n")
    (tmp_path / "folder/third.yaml").write_text(
        "base: ../second.yaml\noutput_dir: runs/third\nema_decay: null\nsearch_space: {learning_rate: {}}\n"
    )
    model, data, arguments = parse_recipe(tmp_path / "folder/third.yaml", ["--seeds", "7"])
    assert data.dataset == "uci_emg" and data.dataset_config == {"window_length": 1000}
    assert (arguments.learning_rate, arguments.ema_decay, arguments.seeds) == (1e-3, None, [7])
    assert arguments.output_dir == "runs/third"
    (tmp_path / "package.yaml").write_text("base: uci_emg_200\noutput_dir: runs/mine\n")
    assert read_recipe(tmp_path / "package.yaml") == read_recipe("uci_emg_200") | {"output_dir": "runs/mine"}


def test_bases_that_cannot_be_used(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\ndataset: uci_emg\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(RecipeError, match="base leads in a circle: a -> b -> a"):
        parse_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("base: missing\n")
    with pytest.raises(RecipeError, match=r"b.yaml: base missing: there is no recipe missing.*uci_emg_200"):
        parse_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match=r"b.yaml must hold"):
        parse_recipe(tmp_path / "a.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the library starts the processes itself")
def test_several_processes_without_a_gpu_are_on_the_cpu(monkeypatch):
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)  # which would wait for the others
    for processes, expected in (("1", False), ("2", True)):  # without it, each would think that it is the main one
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert RegressionArguments(output_dir="run").use_cpu is expected
